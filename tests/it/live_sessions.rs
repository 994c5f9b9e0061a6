//! Sessions that live while their certificate ends, is revoked, or loses its CA or its rights.

use fsvc::client::{Client, Options};
use serde_json::json;
use time::Duration;

use crate::harness::{Server, text};
use crate::matrix::{Ca, GOOD, Matrix, POLICY, Pair, now_plus};
use crate::messages::runtime;
use crate::raw::{Raw, code, frame, message, trailer};
use crate::reload::{EVERY, n_in_log, until};
use crate::trees::is_there;

const OTHER: &str = "spiffe://test.internal/client/other";
const LARGE: usize = 24 << 20;

fn policy() -> String {
    POLICY.to_owned() + &POLICY.replace(GOOD, OTHER)
}

/// The last words: whatever of a body was on its way comes before.
#[track_caller]
fn last_code(raw: &mut Raw) -> String {
    while let Some((kind, content)) = raw.try_frame() {
        if kind == b'M' {
            let said: serde_json::Value = serde_json::from_slice(&content).unwrap();
            if said["id"].is_null() && said["error"].is_object() {
                return code(&said).to_owned();
            }
        }
    }
    panic!("no last words")
}

/// Sessions of one client, each in the middle of something.
struct Sessions {
    idle: Raw,
    putting: Raw,
    getting: Raw,
    watching: Raw,
}

impl Sessions {
    /// In /large there is a file of [`LARGE`] bytes.
    fn of(server: &Server, name: &str) -> Self {
        let connect = || Raw::connect(server, name);
        let mut sessions = Self {
            idle: connect(),
            putting: connect(),
            getting: connect(),
            watching: connect(),
        };
        let put = json!({"id": 1, "op": "put", "path": format!("/{name}"), "size": LARGE});
        sessions.putting.send(&message(&put.to_string()));
        sessions.putting.send(&frame(b'D', &vec![7; 1 << 20]));
        sessions
            .getting
            .send(&message(r#"{"id":1,"op":"get","path":"/large"}"#));
        assert!(sessions.getting.answer()["ok"].is_object());
        let watch = r#"{"id":1,"op":"watch","path":"/"}"#;
        assert!(sessions.watching.ask(watch)["ok"].is_object());
        sessions
    }

    #[track_caller]
    fn are_ended(mut self, why: &str) {
        for raw in [
            &mut self.idle,
            &mut self.putting,
            &mut self.getting,
            &mut self.watching,
        ] {
            assert_eq!(last_code(raw), why);
            assert!(raw.try_frame().is_none());
        }
    }

    /// All of them go on, to the end.
    #[track_caller]
    fn go_on(mut self) {
        self.idle.lives();
        let content = vec![7; LARGE];
        for piece in content[1 << 20..].chunks(1 << 20) {
            self.putting.send(&frame(b'D', piece));
        }
        let digest = fsvc::digest::Digest::of(&content).to_string();
        self.putting.send(&trailer(LARGE, &digest));
        let answer = self.putting.answer();
        assert_eq!(answer["ok"]["size"], LARGE, "{answer}");
        let mut n_got = 0;
        loop {
            let (kind, content) = self.getting.read_frame().unwrap();
            if kind == b'E' {
                break;
            }
            n_got += content.len();
        }
        assert_eq!(n_got, LARGE);
        self.getting.lives();
    }
}

fn fixture(trusted: &[&Ca], others: &Pair) -> (Matrix, Server) {
    let matrix = Matrix::new();
    matrix.add("other", others);
    for ca in trusted {
        let bundle = std::fs::read_to_string(matrix.path("ca.pem")).unwrap() + &ca.pem;
        matrix.write("ca.pem", bundle);
        let lists = std::fs::read_to_string(matrix.path("ca.crl")).unwrap() + &ca.empty_list();
        matrix.write("ca.crl", lists);
    }
    matrix.write("policy.toml", policy());
    let server = matrix.serve(&EVERY);
    (matrix, server)
}

fn put_large(server: &Server) {
    let local = server.directory.path().join("large");
    std::fs::write(&local, vec![9; LARGE]).unwrap();
    let put = server
        .client("good", &["put", local.to_str().unwrap(), "/large"])
        .output();
    assert!(put.unwrap().status.success());
}

#[test]
fn who_is_revoked_is_out_everywhere_and_nobody_else() {
    let stranger = Ca::root("another root");
    let revoked = stranger.client_named(OTHER);
    let (matrix, server) = fixture(&[&stranger], &revoked);
    put_large(&server);
    let (ended, going_on) = (
        Sessions::of(&server, "other"),
        Sessions::of(&server, "good"),
    );
    let list = stranger.numbered_list(2, &[&revoked], now_plus(Duration::DAY));
    matrix.write("ca.crl", matrix.ca.empty_list() + &list);
    ended.are_ended("certificate_revoked");
    going_on.go_on();
    let refused = server.client("other", &["whoami"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    assert!(!is_there(&server.root().join("other")));
    until("what was begun is gone", || server.staged().is_empty());
    assert!(server.log().contains("n_closed=4"), "{}", server.log());
}

#[test]
fn whose_ca_is_not_trusted_any_more_is_out_and_nobody_else() {
    let stranger = Ca::root("another root");
    let (matrix, server) = fixture(&[&stranger], &stranger.client_named(OTHER));
    put_large(&server);
    let (ended, going_on) = (
        Sessions::of(&server, "other"),
        Sessions::of(&server, "good"),
    );
    matrix.write("ca.pem", &matrix.ca.pem);
    ended.are_ended("certificate_revoked");
    going_on.go_on();
}

#[test]
fn a_certificate_that_ends_ends_its_sessions() {
    let (_matrix, server) = {
        let matrix = Matrix::new();
        let short = matrix.ca.client(|params| {
            params.subject_alt_names = crate::matrix::uris(&[OTHER]);
            params.not_after = now_plus(Duration::seconds(4));
        });
        matrix.add("other", &short);
        matrix.write("policy.toml", policy());
        let server = matrix.serve(&EVERY);
        (matrix, server)
    };
    put_large(&server);
    let going_on = Sessions::of(&server, "good");
    Sessions::of(&server, "other").are_ended("certificate_expired");
    going_on.go_on();
}

/// Its own certificate is good for longer: in a new handshake it would not help any more.
#[test]
fn a_ca_between_that_ends_ends_the_sessions_of_its_clients() {
    let matrix = Matrix::new();
    let until = now_plus(Duration::seconds(4));
    let between = matrix
        .ca
        .below("between", |params| params.not_after = until);
    let lists = matrix.ca.empty_list() + &between.empty_list();
    matrix.write("ca.crl", lists);
    let chain = between.client_named(OTHER).with(&[&between.pem]);
    matrix.add("other", &chain);
    matrix.write("policy.toml", policy());
    let server = matrix.serve(&EVERY);
    put_large(&server);
    let going_on = Sessions::of(&server, "good");
    Sessions::of(&server, "other").are_ended("certificate_expired");
    going_on.go_on();
}

/// Trust has an end too: it is looked at in each handshake, not only when files are loaded.
#[test]
fn a_trusted_ca_that_ends_lets_nobody_in_any_more() {
    let matrix = Matrix::new();
    let short = Ca::root_with("short", |params| {
        params.not_after = now_plus(Duration::seconds(5));
    });
    matrix.write("ca.pem", matrix.ca.pem.clone() + &short.pem);
    matrix.write("ca.crl", matrix.ca.empty_list() + &short.empty_list());
    matrix.add("other", &short.client_named(OTHER));
    matrix.write("policy.toml", policy());
    let server = matrix.serve(&EVERY);
    put_large(&server);
    let going_on = Sessions::of(&server, "good");
    Sessions::of(&server, "other").are_ended("certificate_expired");
    // A client that loads an ended CA says so itself; this one trusts the other alone.
    matrix.write("servers.pem", &matrix.ca.pem);
    let trusted = matrix.path("servers.pem");
    let whoami = |name: &str| {
        let arguments = ["whoami", "--ca", trusted.to_str().unwrap()];
        server.client(name, &arguments).output().unwrap()
    };
    let output = whoami("other");
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    until("the cause", || {
        let log = server.log();
        log.contains("trusted CA CN=short, which signed it, expired")
    });
    let output = whoami("good");
    assert!(output.status.success(), "{}", text(&output.stderr));
    going_on.go_on();
}

/// A client that runs for long trusts no longer than its CAs last either.
#[test]
fn a_client_trusts_no_server_of_a_ca_that_ended() {
    let matrix = Matrix::new();
    let short = Ca::root_with("short", |params| {
        params.not_after = now_plus(Duration::seconds(4));
    });
    let pair = short.server(&["localhost", "127.0.0.1"], |_| {});
    matrix.write("server.pem", &pair.chain);
    matrix.write_key("server-key.pem", &pair.key);
    // Another CA is left, which is none of this server's.
    matrix.write("servers.pem", short.pem + &matrix.ca.pem);
    let server = matrix.serve(&[]);
    let mut options = Options::from_directory(&server.address, matrix.dir(), "good");
    options.files.ca = matrix.path("servers.pem");
    options.retry_for = std::time::Duration::ZERO;
    let client = Client::new(options).unwrap();
    let runtime = runtime();
    runtime.block_on(client.ping()).unwrap();
    until("the end of the CA", || {
        runtime.block_on(client.close());
        let pinged = runtime.block_on(client.ping());
        let said = pinged.err().map(|error| error.to_string());
        said.is_some_and(|said| said.contains("trusted CA CN=short, which signed it, expired"))
    });
}

/// A list that ran out lets nobody in; who is in already is judged by the same measure.
#[test]
fn a_list_that_runs_out_is_warned_of_and_ends_what_it_was_for() {
    let matrix = Matrix::new();
    let short = Ca::root("short");
    matrix.write("ca.pem", matrix.ca.pem.clone() + &short.pem);
    let list = short.list(&[], now_plus(Duration::seconds(5)));
    matrix.write("ca.crl", matrix.ca.empty_list() + &list);
    matrix.add("other", &short.client_named(OTHER));
    matrix.write("policy.toml", policy());
    let server = matrix.serve(&EVERY);
    put_large(&server);
    let going_on = Sessions::of(&server, "good");
    let others = Sessions::of(&server, "other");
    until("the warning", || {
        server.log().contains("a revocation list is near its end")
    });
    others.are_ended("certificate_revoked");
    going_on.go_on();
}

#[test]
fn who_loses_a_right_is_stopped_in_the_middle_and_the_session_lives() {
    let matrix = Matrix::new();
    matrix.add("other", &matrix.ca.client_named(OTHER));
    matrix.write("policy.toml", policy());
    let server = matrix.serve(&EVERY);
    put_large(&server);
    let mut sessions = Sessions::of(&server, "other");
    let less = policy() + "# less\n";
    let allow = r#"allow = ["list", "read", "create", "replace", "delete"]"#;
    let (first, last) = less.rsplit_once(allow).unwrap();
    matrix.write("policy.toml", format!("{first}allow = [\"list\"]{last}"));
    until("another policy", || {
        n_in_log(&server, "another policy holds now") > 0
    });
    // Its rights are looked at each second, as long as something moves.
    let mut n_got = 0;
    let abort = loop {
        let (kind, content) = sessions.getting.read_frame().unwrap();
        if kind == b'E' {
            break serde_json::from_slice::<serde_json::Value>(&content).unwrap();
        }
        n_got += content.len();
        std::thread::sleep(std::time::Duration::from_millis(60));
    };
    assert_eq!(abort, json!({"abort": "denied"}), "after {n_got}");
    sessions.getting.lives();
    let refused = loop {
        sessions.putting.send(&frame(b'D', &[7; 1 << 10]));
        std::thread::sleep(std::time::Duration::from_millis(60));
        if sessions.putting.has_more() {
            break sessions.putting.answer();
        }
    };
    assert_eq!(code(&refused), "denied");
    sessions
        .putting
        .send(&frame(b'E', br#"{"abort":"denied"}"#));
    sessions.putting.lives();
    assert!(!is_there(&server.root().join("other")));
}

/// A put whose bytes are all there is looked at once more before it is committed.
#[test]
fn a_right_that_goes_before_the_end_is_missed_at_the_end() {
    let matrix = Matrix::new();
    let server = matrix.serve(&EVERY);
    let mut raw = Raw::connect(&server, "good");
    raw.send(&message(r#"{"id":1,"op":"put","path":"/a","size":3}"#));
    raw.send(&frame(b'D', b"abc"));
    matrix.write(
        "policy.toml",
        POLICY.replace("\"create\", \"replace\", ", ""),
    );
    until("another policy", || {
        n_in_log(&server, "another policy holds now") > 0
    });
    let digest = fsvc::digest::Digest::of(b"abc").to_string();
    raw.send(&trailer(3, &digest));
    assert_eq!(code(&raw.answer()), "denied");
    raw.lives();
    assert!(!is_there(&server.root().join("a")));
}
