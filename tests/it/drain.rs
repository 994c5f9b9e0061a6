//! The end of a server: what runs is finished, what waits is told, and nothing hangs.

use std::time::{Duration, Instant};

use fsvc::digest::Digest;

use crate::harness::{Server, Setup};
use crate::raw::{Raw, code, frame, message, snapshot, trailer};

const LIMIT: Duration = Duration::from_secs(10);

fn half_a_put(server: &Server, size: usize) -> Raw {
    let mut raw = Raw::connect(server, "dev");
    raw.send(&message(r#"{"id":1,"op":"put","path":"/slow"}"#));
    raw.send(&frame(b'D', &vec![5; size]));
    // It runs once something is staged.
    let until = Instant::now() + LIMIT;
    while server.staged().is_empty() {
        assert!(Instant::now() < until, "the put did not begin");
        std::thread::yield_now();
    }
    raw
}

fn with_grace(grace: &str) -> Server {
    let arguments = ["--grace", grace].map(str::to_owned).to_vec();
    Server::start_with(Setup {
        arguments,
        ..Setup::default()
    })
}

#[test]
fn a_drain_finishes_what_runs_and_tells_who_waits() {
    let mut server = Server::start();
    let mut busy = half_a_put(&server, 100_000);
    let mut idle = Raw::connect(&server, "alice");
    server.signal("TERM");
    // The idle one hears first: from then on the server drains.
    assert_eq!(code(&idle.answer()), "shutting_down");
    idle.ends();
    busy.send(&frame(b'D', &vec![5; 100_000]));
    busy.send(&trailer(
        200_000,
        &Digest::of(&vec![5; 200_000]).to_string(),
    ));
    assert_eq!(busy.answer()["ok"]["size"], 200_000);
    assert_eq!(code(&busy.answer()), "shutting_down");
    busy.ends();
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    server.fails(5, &["ping"]);
    server.restart();
    assert_eq!(server.get("/slow"), vec![5; 200_000]);
}

#[test]
fn past_the_grace_what_still_runs_is_cut_and_leaves_nothing() {
    let mut server = with_grace("1s");
    let mut raw = half_a_put(&server, 100_000);
    server.signal("TERM");
    assert_eq!(server.wait(LIMIT).code(), Some(1));
    while raw.read_frame().is_some() {}
    assert!(snapshot(&server.root()).is_empty());
    assert!(
        server.log().contains("cut what was still running"),
        "{}",
        server.log()
    );
    server.restart();
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut server = with_grace("1h");
    let mut idle = Raw::connect(&server, "alice");
    let _busy = half_a_put(&server, 10);
    server.signal("INT");
    assert_eq!(code(&idle.answer()), "shutting_down");
    server.signal("INT");
    assert_eq!(server.wait(LIMIT).code(), Some(1));
}

#[test]
fn a_server_with_nothing_to_do_ends_at_once() {
    let mut server = with_grace("1h");
    server.put("/a", b"1");
    server.signal("TERM");
    assert_eq!(server.wait(LIMIT).code(), Some(0));
}
