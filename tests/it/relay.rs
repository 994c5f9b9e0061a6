//! A relay between a client and a server that counts what passes, and cuts where a test wants it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(30);

/// What a reset may lose of each way of a connection.
const BUFFER_SIZE: usize = 64 << 10;

/// A relay; it ends with the test's process.
#[derive(Clone)]
pub struct Relay {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<String>,
    sockets: Mutex<Vec<TcpStream>>,
    /// Bytes from clients.
    n_sent: AtomicU64,
    /// Bytes both ways.
    n_passed: AtomicU64,
    /// After so many bytes both ways all connections are cut; the next first.
    cuts: Mutex<Vec<u64>>,
    /// From so many bytes both ways on nothing passes.
    held_at: Mutex<Option<u64>>,
    released: Condvar,
    /// Whoever comes is sent away.
    is_closed: AtomicBool,
    /// Cuts are resets.
    is_abrupt: AtomicBool,
}

impl Relay {
    /// Passes on to this address.
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: Mutex::new(address.to_owned()),
            sockets: Mutex::default(),
            n_sent: AtomicU64::new(0),
            n_passed: AtomicU64::new(0),
            cuts: Mutex::default(),
            held_at: Mutex::default(),
            released: Condvar::new(),
            is_closed: AtomicBool::new(false),
            is_abrupt: AtomicBool::new(false),
        });
        let on_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                on_thread.accept(client);
            }
        });
        Self {
            address: format!("localhost:{port}"),
            shared,
        }
    }

    /// From here on passes on to another address.
    pub fn turn_to(&self, address: &str) {
        address.clone_into(&mut self.shared.target.lock().unwrap());
    }

    /// Cuts once after each of these many more bytes.
    pub fn cut_after(&self, n_bytes: &[u64]) {
        let now = self.shared.n_passed.load(Ordering::SeqCst);
        let mut at = now;
        let mut cuts: Vec<u64> = n_bytes
            .iter()
            .map(|n| {
                at += n;
                at
            })
            .collect();
        cuts.reverse();
        *self.shared.cuts.lock().unwrap() = cuts;
    }

    /// Cuts that have not happened yet.
    pub fn n_cuts_left(&self) -> usize {
        self.shared.cuts.lock().unwrap().len()
    }

    /// From here on cuts are resets, or ends of the stream.
    pub fn cut_abruptly(&self, is_abrupt: bool) {
        self.shared.is_abrupt.store(is_abrupt, Ordering::SeqCst);
    }

    /// Cuts all connections now.
    pub fn cut_now(&self) {
        self.shared.cut();
    }

    /// Cuts all connections, and sends away whoever comes.
    pub fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.cut();
    }

    /// Lets whoever comes in again.
    pub fn open(&self) {
        self.shared.is_closed.store(false, Ordering::SeqCst);
    }

    /// Holds everything back after so many more bytes both ways.
    pub fn hold_after(&self, n: u64) {
        let at = self.n_passed() + n;
        *self.shared.held_at.lock().unwrap() = Some(at);
    }

    /// Waits until everything is held back.
    #[track_caller]
    pub fn wait_held(&self) {
        let at = self.shared.held_at.lock().unwrap().unwrap();
        let until = Instant::now() + LIMIT;
        while self.n_passed() < at {
            assert!(Instant::now() < until, "{} of {at} passed", self.n_passed());
            thread::yield_now();
        }
    }

    /// Those that are held back look again at how far they may go.
    pub fn wake(&self) {
        self.shared.released.notify_all();
    }

    /// Holds nothing back any more.
    pub fn release(&self) {
        *self.shared.held_at.lock().unwrap() = None;
        self.shared.released.notify_all();
    }

    /// Bytes both ways so far.
    pub fn n_passed(&self) -> u64 {
        self.shared.n_passed.load(Ordering::SeqCst)
    }

    /// Bytes that clients have sent so far.
    pub fn n_sent(&self) -> u64 {
        self.shared.n_sent.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) {
        if self.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let target = self.target.lock().unwrap().clone();
        let Ok(server) = TcpStream::connect(target) else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        for socket in [&client, &server] {
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, BUFFER_SIZE);
        }
        let mut sockets = self.sockets.lock().unwrap();
        sockets.push(client.try_clone().unwrap());
        sockets.push(server.try_clone().unwrap());
        drop(sockets);
        for (from, to, is_up) in [
            (
                client.try_clone().unwrap(),
                server.try_clone().unwrap(),
                true,
            ),
            (server, client, false),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pump(from, to, is_up));
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, is_up: bool) {
        let mut buffer = vec![0; 16 << 10];
        let mut is_gone = false;
        loop {
            let n = match from.read(&mut buffer) {
                Ok(n) if n > 0 => n,
                Ok(_) => break,
                Err(_) => {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            };
            if is_gone {
                // Who still writes is not left with a buffer that is full: he may have something to read.
                continue;
            }
            self.wait_for_release();
            let before = self.n_passed.fetch_add(n as u64, Ordering::SeqCst);
            let cut = self.cuts.lock().unwrap().last().copied();
            let room = cut.map(|cut| usize::try_from(cut.saturating_sub(before)).unwrap());
            let n = room.unwrap_or(n).min(n);
            if is_up {
                self.n_sent.fetch_add(n as u64, Ordering::SeqCst);
            }
            is_gone = to.write_all(&buffer[..n]).is_err();
            if room.is_some_and(|room| room <= buffer.len() && n == room) {
                self.cuts.lock().unwrap().pop();
                self.cut();
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn wait_for_release(&self) {
        let mut held_at = self.held_at.lock().unwrap();
        while held_at.is_some_and(|at| self.n_passed.load(Ordering::SeqCst) >= at) {
            held_at = self.released.wait(held_at).unwrap();
        }
    }

    fn cut(&self) {
        let is_abrupt = self.is_abrupt.load(Ordering::SeqCst);
        for socket in self.sockets.lock().unwrap().drain(..) {
            // A stream that is disconnected so is reset.
            if is_abrupt {
                let _ = rustix::net::connect_unspec(&socket);
            }
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}
