//! Connections that end in the middle, servers that go and come back: nothing between is lost.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use fsvc::client::{Delivery, PublishOptions};
use fsvc::protocol::Start;

use super::{
    LIMIT, client, client_at, event, next, runtime, say, serve, serve_with, since, subscribe,
    topic, with_cursor,
};
use crate::raw::{Raw, code, message};

/// Stands between a client and a server, and cuts the connections that it is told to.
pub struct Proxy {
    pub address: String,
    target: Arc<Mutex<String>>,
    /// Bytes from the server after which each of the next connections is cut.
    cuts: Arc<Mutex<VecDeque<usize>>>,
    n_cut: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self {
            address: format!("127.0.0.1:{port}"),
            target: Arc::new(Mutex::new(target.to_owned())),
            cuts: Arc::default(),
            n_cut: Arc::default(),
        };
        let target = Arc::clone(&proxy.target);
        let (cuts, n_cut) = (Arc::clone(&proxy.cuts), Arc::clone(&proxy.n_cut));
        // Ends with the test's process.
        thread::spawn(move || {
            for near in listener.incoming() {
                let target = target.lock().unwrap().clone();
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(target)) else {
                    continue;
                };
                let limit = cuts.lock().unwrap().pop_front().unwrap_or(usize::MAX);
                let back = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || pass(near, far, usize::MAX));
                let n_cut = Arc::clone(&n_cut);
                thread::spawn(move || {
                    if pass(back.1, back.0, limit) {
                        n_cut.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        proxy
    }

    pub fn cut_after(&self, n_bytes: &[usize]) {
        *self.cuts.lock().unwrap() = n_bytes.iter().copied().collect();
    }

    fn lead_to(&self, address: &str) {
        address.clone_into(&mut self.target.lock().unwrap());
    }

    fn n_cut(&self) -> usize {
        self.n_cut.load(Ordering::SeqCst)
    }
}

/// Whether it was cut.
fn pass(mut from: TcpStream, mut to: TcpStream, limit: usize) -> bool {
    let mut left = limit;
    let mut buffer = [0; 16 << 10];
    loop {
        let room = left.min(buffer.len());
        let n = if room == 0 {
            0
        } else {
            from.read(&mut buffer[..room]).unwrap_or(0)
        };
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            return left == 0;
        }
        left -= n;
    }
}

#[test]
fn a_subscription_survives_connections_that_are_cut_anywhere() {
    const N: u64 = 300;
    let server = serve();
    let proxy = Proxy::start(&server.address);
    runtime().block_on(async {
        let alice = client(&server, "alice");
        let lines: Vec<String> = (1..=N).map(|number| format!("{number:>500}")).collect();
        let lines = lines.join("\n").into_bytes();
        let a = topic("a");
        let published = alice.publish_lines(&a, lines, PublishOptions::default());
        assert_eq!(published.await.unwrap().n_refused, 0);
        let cuts = [12_000, 10_000, 1_000, 25_000, 40_000, 5_000, 30_001, 29_999];
        proxy.cut_after(&cuts);
        let dev = client_at(&proxy.address, &server, "dev");
        let mut stream = subscribe(&dev, &["a"], since(0)).await;
        for number in 1..=N {
            let message = event(&mut stream).await;
            assert_eq!(message.event.sequence, number);
            let text = String::from_utf8(message.payload).unwrap();
            assert_eq!(text.trim(), number.to_string());
        }
        assert_eq!(proxy.n_cut(), cuts.len());
    });
}

#[test]
fn a_subscription_survives_servers_that_drain_or_die() {
    let mut server = serve();
    let proxy = Proxy::start(&server.address);
    let runtime = runtime();
    let dev = client_at(&proxy.address, &server, "dev");
    let mut plain = runtime.block_on(subscribe(&dev, &["a"], Start::default()));
    let mut kept = runtime.block_on(subscribe(&dev, &["a"], with_cursor("loader")));
    for round in 1..=4 {
        if round % 2 == 0 {
            server.signal("TERM");
            assert_eq!(server.wait(LIMIT).code(), Some(0));
        }
        server.restart();
        proxy.lead_to(&server.address);
        runtime.block_on(async {
            let sequence = say(&client(&server, "alice"), "a", &round.to_string()).await;
            assert_eq!(event(&mut plain).await.event.sequence, sequence);
            // What was acknowledged just before a kill may come again, and nothing is left out.
            loop {
                let delivered = event(&mut kept).await.event.sequence;
                dev.ack(&super::cursor("loader"), delivered).await.unwrap();
                if delivered == sequence {
                    break;
                }
                assert_eq!(delivered, sequence - 1);
            }
        });
    }
}

#[test]
fn a_drain_tells_every_stream() {
    let mut server = serve_with(&["--grace", "10s"]);
    let requests = [
        r#"{"id":1,"op":"subscribe","topics":["**"]}"#,
        r#"{"id":1,"op":"watch","path":"/"}"#,
        r#"{"id":1,"op":"subscribe","topics":["**"],"cursor":"c"}"#,
        r#"{"id":1,"op":"subscribe","topics":["**"],"cursor":"g","group":true}"#,
    ];
    let mut streams = requests.map(|request| {
        let mut raw = Raw::connect(&server, "dev");
        raw.send(&message(request));
        assert!(raw.answer()["ok"].is_object());
        assert!(raw.answer()["heartbeat"].is_object());
        raw
    });
    server.signal("TERM");
    for raw in &mut streams {
        assert_eq!(code(&raw.answer()), "shutting_down");
        raw.ends();
    }
    assert_eq!(server.wait(LIMIT).code(), Some(0));
}

#[test]
fn a_reader_that_is_held_by_its_window_still_hears_that_the_server_lives() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        say(&dev, "jobs", "1").await;
        say(&dev, "jobs", "2").await;
        let start = Start {
            group: true,
            ..with_cursor("workers")
        };
        let mut stream = subscribe(&dev, &["jobs"], start).await;
        assert_eq!(event(&mut stream).await.payload, b"1");
        // One at a time: the second one waits for the first to be done with.
        let sign = next(&mut stream).await.unwrap();
        assert!(matches!(sign, Delivery::CaughtUp(_)), "{sign:?}");
    });
}
