//! Certificates, lists and policies that change under a running server.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fsvc::client::{Client, Options, PutOptions};
use fsvc::tls::client::{Files, configure};
use jiff::Timestamp;

use crate::crash::count;
use crate::harness::{Server, fsvc};
use crate::matrix::{Ca, Matrix, POLICY, Pair, now_plus};
use crate::raw::Raw;
use crate::refusals::connect;

const LIMIT: Duration = Duration::from_secs(20);
/// Short, so that a test need not wait; no test counts on it.
pub const EVERY: [&str; 2] = ["--reload-every", "100ms"];
const REFUSED: &str = "nothing was read anew";
const HOLDS: &str = "other certificates hold now";

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn n_in_log(server: &Server, words: &str) -> usize {
    server.log().matches(words).count()
}

/// The certificate that the server shows now.
fn shown(matrix: &Matrix, server: &Server) -> Vec<u8> {
    // What is broken here is not broken at the client.
    let ca = matrix.path("clients/ca.pem");
    fs::write(&ca, &matrix.ca.pem).unwrap();
    let files = Files {
        ca,
        ..matrix.files(Some("good"))
    };
    let mut stream = connect(
        &server.address,
        configure(&files, Timestamp::now()).unwrap(),
    );
    let _ = std::io::Read::read(&mut stream, &mut [0]);
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

fn server_pair(ca: &Ca) -> Pair {
    ca.server(&["localhost", "127.0.0.1"], |_| {})
}

fn write_pair(matrix: &Matrix, pair: &Pair) {
    matrix.write_key("server-key.pem", &pair.key);
    matrix.write("server.pem", &pair.chain);
}

#[test]
fn another_certificate_is_shown_without_a_restart() {
    let matrix = Matrix::new();
    let server = matrix.serve(&EVERY);
    let mut session = Raw::connect(&server, "good");
    let before = shown(&matrix, &server);
    write_pair(&matrix, &server_pair(&matrix.ca));
    until("another certificate", || shown(&matrix, &server) != before);
    session.lives();
    assert!(server.log().contains("n_closed=0"), "{}", server.log());
}

#[test]
fn a_signal_looks_at_once_and_what_is_the_same_is_taken_in_silence() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--reload-every", "1h"]);
    let before = shown(&matrix, &server);
    server.signal("HUP");
    write_pair(&matrix, &server_pair(&matrix.ca));
    until("another certificate", || {
        server.signal("HUP");
        shown(&matrix, &server) != before
    });
    assert_eq!(n_in_log(&server, HOLDS), 1, "{}", server.log());
    assert_eq!(n_in_log(&server, "another policy holds now"), 0);
}

#[test]
fn links_that_are_swapped_are_seen() {
    let matrix = Matrix::new();
    let data = |name: &str| matrix.path(name);
    for name in ["one", "two"] {
        fs::create_dir(data(name)).unwrap();
        let pair = server_pair(&matrix.ca);
        matrix.write(&format!("{name}/tls.crt"), &pair.chain);
        matrix.write_key(&format!("{name}/tls.key"), &pair.key);
    }
    symlink("one", data("..data")).unwrap();
    for (name, to) in [
        ("server.pem", "..data/tls.crt"),
        ("server-key.pem", "..data/tls.key"),
    ] {
        fs::remove_file(data(name)).unwrap();
        symlink(to, data(name)).unwrap();
    }
    let server = matrix.serve(&EVERY);
    let before = shown(&matrix, &server);
    symlink("two", data("..data_tmp")).unwrap();
    fs::rename(data("..data_tmp"), data("..data")).unwrap();
    until("another certificate", || shown(&matrix, &server) != before);
}

/// What is put in place of a file, and a part of what the log says then.
type Broken<'a> = (&'a str, Option<String>, &'a str);

/// Each is wrong in one way, in a directory of this CA whose server shows this.
fn broken(ca: &Ca, shown: &[u8]) -> Vec<Broken<'static>> {
    let other = server_pair(ca);
    let leaf = ca.client(|_| {});
    let expired = ca.server(&["localhost"], |params| {
        params.not_after = now_plus(-time::Duration::MINUTE);
    });
    let stranger = Ca::root("stranger");
    let own = Pair {
        serial: rcgen::SerialNumber::from_slice(&serial_of(shown)),
        ..leaf.clone()
    };
    let day = now_plus(time::Duration::DAY);
    vec![
        (
            "server-key.pem",
            Some(other.key.clone()),
            "does not belong to",
        ),
        ("server.pem", Some(other.chain), "does not belong to"),
        ("server.pem", Some(String::new()), "server.pem"),
        ("server.pem", None, "server.pem"),
        ("server.pem", Some(leaf.chain.clone()), "not for server use"),
        ("server.pem", Some(expired.chain), "expired"),
        ("ca.pem", Some(leaf.chain), "not a CA"),
        (
            "ca.pem",
            Some(ca.pem.clone() + &stranger.pem),
            "no revocation list",
        ),
        ("ca.pem", Some(ca.as_pair().key), "ca.pem"),
        (
            "ca.crl",
            Some(ca.numbered_list(6, &[], day)),
            "never goes back",
        ),
        (
            "ca.crl",
            Some(ca.numbered_list(8, &[&own], day)),
            "the server's own certificate",
        ),
        ("ca.crl", None, "ca.crl"),
        (
            "policy.toml",
            Some("[[grant]]\nto = 7".to_owned()),
            "policy",
        ),
        ("policy.toml", Some(String::new()), "grants nothing"),
    ]
}

#[test]
fn what_is_broken_changes_nothing_and_is_told_once() {
    let matrix = Matrix::new();
    matrix.write(
        "ca.crl",
        matrix
            .ca
            .numbered_list(7, &[], now_plus(time::Duration::DAY)),
    );
    let server = matrix.serve(&EVERY);
    let before = shown(&matrix, &server);
    let mut session = Raw::connect(&server, "good");
    for (file, content, why) in broken(&matrix.ca, &before) {
        let good = fs::read_to_string(matrix.path(file)).unwrap();
        let (n_refused, n_held) = (n_in_log(&server, REFUSED), n_in_log(&server, HOLDS));
        match &content {
            Some(content) => fs::write(matrix.path(file), content).unwrap(),
            None => fs::remove_file(matrix.path(file)).unwrap(),
        }
        // A look that was under way meanwhile says only that the files changed under it.
        until(&format!("{file} {why}: {}", server.log()), || {
            let log = server.log();
            let mut refused = log.lines().filter(|line| line.contains(REFUSED));
            refused
                .nth(n_refused)
                .is_some_and(|first| first.contains(why) || refused.any(|line| line.contains(why)))
        });
        assert_eq!(shown(&matrix, &server), before, "{why}");
        session.lives();
        match file {
            "server-key.pem" => matrix.write_key(file, &good),
            file => matrix.write(file, &good),
        }
        // Each is told once, however often it is looked at.
        until("all is good again", || {
            server.signal("HUP");
            server
                .client("good", &["whoami"])
                .output()
                .unwrap()
                .status
                .success()
        });
        assert_eq!(n_in_log(&server, HOLDS), n_held, "{why}");
    }
}

fn serial_of(certificate: &[u8]) -> Vec<u8> {
    let (_, x509) = x509_parser::parse_x509_certificate(certificate).unwrap();
    x509.raw_serial().to_vec()
}

/// Whether a process has a handler for this signal, as proc(5) says.
fn catches(pid: u32, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
    caught & (1 << (signal - 1)) != 0
}

#[test]
fn whoever_hears_that_it_is_ready_may_signal_at_once() {
    let matrix = Matrix::new();
    // What prints the line that says ready finds no room for it.
    let (stdout, _reader) = UnixStream::pair().unwrap();
    stdout.set_nonblocking(true).unwrap();
    while (&stdout).write(&[0; 512]).is_ok() {}
    stdout.set_nonblocking(false).unwrap();
    let mut server = fsvc();
    server.args(["serve", "--listen", "127.0.0.1:0", "--log", "off"]);
    server.arg("--tls-dir").arg(matrix.dir());
    server.arg("--root").arg(matrix.path("data"));
    let mut server = server.stdout(OwnedFd::from(stdout)).spawn().unwrap();
    let (hangup, interrupt, terminate) = (1, 2, 15);
    for signal in [terminate, interrupt, hangup] {
        until(&format!("signal {signal} is caught"), || {
            catches(server.id(), signal)
        });
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// `FSVC_TEST_RELOADS` makes it longer.
#[test]
fn under_load_nothing_is_dropped_and_nothing_half_is_taken() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--reload-every", "50ms"]);
    let is_over = AtomicBool::new(false);
    let n_puts = AtomicUsize::new(0);
    let pairs: Vec<_> = (0..4).map(|_| server_pair(&matrix.ca)).collect();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (is_over, n_puts, matrix, server) = (&is_over, &n_puts, &matrix, &server);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().unwrap();
                let options = Options::from_directory(&server.address, matrix.dir(), "good");
                let mut client = Client::new(options.clone()).unwrap();
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    // Old connections and new ones.
                    if number % 10 == 9 {
                        runtime.block_on(client.close());
                        client = Client::new(options.clone()).unwrap();
                    }
                    let path = format!("/w{worker}/{}", number % 50).parse().unwrap();
                    let put = client.put(&path, &b"content"[..], PutOptions::default());
                    runtime.block_on(put).unwrap();
                    n_puts.fetch_add(1, Ordering::Relaxed);
                }
                runtime.block_on(client.close());
            });
        }
        for round in 0..count("FSVC_TEST_RELOADS", 40) {
            let n_before = n_puts.load(Ordering::Relaxed);
            if round % 10 == 9 {
                matrix.write("policy.toml", "[[grant]]\nto = 7");
            } else {
                matrix.write("policy.toml", format!("{POLICY}# {round}\n"));
                write_pair(&matrix, &pairs[round % 4]);
            }
            server.signal("HUP");
            until("puts go on", || {
                n_puts.load(Ordering::Relaxed) > n_before + 2
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let log = server.log();
    assert!(log.contains(HOLDS) && log.contains(REFUSED), "{log}");
    assert!(!log.contains("session ended"), "{log}");
}
