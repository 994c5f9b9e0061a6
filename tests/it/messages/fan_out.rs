//! One publisher, many subscribers, and one among them that does not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fsvc::client::{Client, PublishOptions};
use fsvc::protocol::Start;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{LIMIT, client, event, runtime, serve, serve_with, since, subscribe, topic};
use crate::crash::count;
use crate::harness::Server;
use crate::raw::{Raw, message};

const LINES: usize = 500;

/// Publishes numbered lines, in batches, as one publisher; the last sequence number.
async fn publish_numbers(server: &Server, n: usize, pad: usize) -> u64 {
    let publisher = client(server, "alice");
    let (mut last, mut at) = (0, 0);
    while at < n {
        let end = n.min(at + LINES.min((1 << 20) / (pad + 12)));
        let lines: Vec<String> = (at..end)
            .map(|i| format!("{i}{}", " ".repeat(pad)))
            .collect();
        let answer = publisher
            .publish_lines(
                &topic("news"),
                lines.join("\n").into_bytes(),
                PublishOptions::default(),
            )
            .await
            .unwrap();
        assert_eq!((answer.n_refused, answer.sequences.len()), (0, end - at));
        (last, at) = (*answer.sequences.last().unwrap(), end);
    }
    last
}

/// Subscribes, says so, and checks everything that comes.
async fn reads_all(client: Client, ready: Arc<Semaphore>, n: usize) {
    let mut stream = subscribe(&client, &["news"], Start::default()).await;
    ready.add_permits(1);
    let mut last = 0;
    for number in 0..n {
        let message = event(&mut stream).await;
        let text = std::str::from_utf8(&message.payload).unwrap();
        assert_eq!(text.trim_end(), number.to_string());
        assert!(message.event.sequence > last);
        last = message.event.sequence;
    }
}

/// Publishes to subscribers that were there before, each of which checks everything.
async fn fan_out(server: &Server, n_subscribers: u32, n: usize, pad: usize) -> u64 {
    let ready = Arc::new(Semaphore::new(0));
    let mut readers = JoinSet::new();
    for number in 0..n_subscribers {
        let name = ["dev", "bob"][number as usize % 2];
        readers.spawn(reads_all(client(server, name), Arc::clone(&ready), n));
    }
    let all = timeout(LIMIT, ready.acquire_many(n_subscribers)).await;
    all.expect("not all could subscribe").unwrap().forget();
    let last = publish_numbers(server, n, pad).await;
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    last
}

#[test]
fn every_subscriber_gets_everything_in_order_and_once() {
    let n_subscribers = u32::try_from(count("FSVC_TEST_FANOUT", 20)).unwrap();
    let n_messages = count("FSVC_TEST_FANOUT_MESSAGES", 2_000);
    let server = serve();
    runtime().block_on(fan_out(&server, n_subscribers, n_messages, 0));
}

fn rss_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_subscriber_that_never_reads_is_cut_and_costs_the_others_nothing() {
    const N: usize = 4_000;
    const PAD: usize = 8_000;
    let server = serve_with(&["--stall-timeout", "2s"]);
    // It reads the answer, and then stops.
    let mut slow = Raw::connect(&server, "dev");
    slow.send(&message(r#"{"id":1,"op":"subscribe","topics":["news"]}"#));
    assert!(slow.answer()["ok"]["head"].is_number());
    let before = rss_kib(&server);
    let last = runtime().block_on(fan_out(&server, 4, N, PAD));
    let after = rss_kib(&server);
    assert!(
        after < before + (96 << 10),
        "{before} KiB before, {after} KiB after"
    );
    // The ping of another takes its turns until the server has given the slow one up.
    let until = Instant::now() + Duration::from_secs(20);
    while !server.log().contains("too slow") {
        assert!(
            Instant::now() < until,
            "the slow one was not cut: {}",
            server.log()
        );
        server.ok(&["ping"]);
    }
    let seen = read_to_the_cut(&mut slow);
    assert!(seen > 0 && seen < last, "{seen} of {last}");
    runtime().block_on(async {
        let mut stream = subscribe(&client(&server, "dev"), &["news"], since(seen)).await;
        for sequence in seen + 1..=last {
            assert_eq!(event(&mut stream).await.event.sequence, sequence);
        }
    });
}

/// Reads what still arrives; the last event that came whole.
fn read_to_the_cut(slow: &mut Raw) -> u64 {
    let mut seen = 0;
    let mut announced = None;
    while let Some((kind, content)) = slow.try_frame() {
        if kind == b'D' {
            seen = announced.take().unwrap();
        } else {
            let notice: Value = serde_json::from_slice(&content).unwrap();
            announced = notice["event"]["sequence"].as_u64();
        }
    }
    seen
}
