//! `get --wait`: a file that is not there yet, or a version that is to come.

use std::io::Read;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::harness::{Server, text};

/// A command that waits. It is ended when the test is.
struct Waiting(Child);

impl Waiting {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = server.client("dev", arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// What it printed, when it ended well.
    fn output(mut self) -> Vec<u8> {
        let mut printed = Vec::new();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut printed)
            .unwrap();
        let mut said = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        printed
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Until the server has been asked for the file and had none: from then on somebody waits.
fn until_looked(server: &Server, n: usize) {
    while server.log().matches("no file /").count() < n {
        std::thread::yield_now();
    }
}

fn version(server: &Server, path: &str) -> u64 {
    let stat: Value = serde_json::from_str(&server.ok(&["stat", path, "--json"])).unwrap();
    stat["version"].as_u64().unwrap()
}

#[test]
fn a_file_that_comes_later_is_waited_for() {
    let server = Server::start();
    let waiting = Waiting::start(&server, &["get", "/in/a", "-", "--wait"]);
    until_looked(&server, 1);
    server.put("/in/b", b"another");
    server.put("/in/a", b"it");
    assert_eq!(waiting.output(), b"it");
    // One that is there is not waited for.
    assert_eq!(
        Waiting::start(&server, &["get", "/in/a", "-", "--wait"]).output(),
        b"it"
    );
}

#[test]
fn a_file_that_is_moved_there_is_seen_too() {
    let server = Server::start();
    server.put("/a", b"moved");
    let waiting = Waiting::start(&server, &["get", "/b", "-", "--wait"]);
    until_looked(&server, 1);
    server.ok(&["mv", "/a", "/b"]);
    assert_eq!(waiting.output(), b"moved");
}

#[test]
fn a_version_is_waited_for() {
    let server = Server::start();
    server.put("/a", b"one");
    let next = (version(&server, "/a") + 2).to_string();
    let waiting = Waiting::start(
        &server,
        &["get", "/a", "-", "--wait", "--min-version", &next],
    );
    server.put("/a", b"two");
    server.put("/a", b"three");
    assert_eq!(waiting.output(), b"three");
}

#[test]
fn nothing_falls_between_the_look_and_the_news() {
    let server = Server::start();
    for n in 0..20 {
        let path = format!("/race/{n}");
        // The put may come before, between or behind the steps of the wait.
        let waiting = Waiting::start(&server, &["get", &path, "-", "--wait"]);
        server.put(&path, b"x");
        assert_eq!(waiting.output(), b"x");
    }
}

#[test]
fn the_right_to_read_this_one_file_is_enough() {
    let server = Server::with_policy(
        "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\nallow = [\"read\"]\non = \"/in/a\"\n\n\
         [[grant]]\nto = \"spiffe://test.internal/client/bob\"\nallow = [\"create\"]\non = \"/**\"\n",
    );
    let waiting = Waiting::start(&server, &["get", "/in/a", "-", "--wait"]);
    until_looked(&server, 1);
    let local = server.directory.path().join("local");
    std::fs::write(&local, b"it").unwrap();
    let put = ["put", local.to_str().unwrap(), "/in/a"];
    let output = server.client("bob", &put).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(waiting.output(), b"it");
    server.fails(4, &["get", "/in/b", "-", "--wait"]);
}

#[test]
fn a_wait_ends_in_time_and_at_once_where_no_server_is() {
    let mut server = Server::start();
    let said = server.fails(3, &["get", "/a", "-", "--wait", "--timeout", "100ms"]);
    assert!(said.contains("/a did not come within 100ms"), "{said}");
    server.put("/b", b"x");
    let far = (version(&server, "/b") + 1).to_string();
    let wait = [
        "get",
        "/b",
        "-",
        "--wait",
        "--min-version",
        &far,
        "--timeout",
        "100ms",
    ];
    assert!(server.fails(3, &wait).contains("did not come within"));
    server.kill();
    server.fails(5, &["get", "/a", "-", "--wait"]);
}
