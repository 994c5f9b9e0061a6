//! Peers that speak no TLS to the TLS port, and peers that are refused again and again.
//!
//! Each is answered so that it hears it; none fills the log.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::certificates::log_with;
use crate::harness::{Server, text};
use crate::matrix::{Matrix, now_plus};
use crate::refusals::heard_unchecked;
use crate::transport::works;

/// Longest wait of a test's own peer.
const LIMIT: Duration = Duration::from_secs(20);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The whole answer of HTTP: its head says how long the body is.
#[track_caller]
fn assert_http(answer: &[u8]) {
    let answer = text(answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    assert!(body.contains("fsvc ls --server"), "{body}");
}

#[test]
fn http_is_answered_also_when_it_writes_first() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let head = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\n";
    let request = [&head[..], &vec![b'x'; 2 << 20]].concat();
    for _ in 0..50 {
        let mut stream = connect(&server);
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_http(&answer);
    }
    works(&server);
}

#[test]
fn a_line_in_pieces_and_half_a_line_are_answered() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut stream = connect(&server);
    for byte in b"GET / HTTP/1.1\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_http(&answer);

    let mut stream = connect(&server);
    stream.write_all(b"OPTIONS *").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_http(&answer);

    // What is no language gets the alert that TLS has for it.
    for bytes in [&b"hello"[..], b"\0\0\0\0", b"SSH-2.0-x\r\n"] {
        let mut stream = connect(&server);
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 10], "{bytes:?}");
    }
    works(&server);
}

#[test]
fn json_is_answered_with_one_line_of_json() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut stream = connect(&server);
    stream.write_all(b"{\"id\":1,\"op\":\"ping\"}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches('\n').count(), 1);
    let object: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(object["error"]["code"], "tls_required");
    works(&server);
}

#[test]
fn a_peer_that_reads_nothing_is_closed_in_the_handshakes_time() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--handshake-timeout", "1s"]);
    let mut streams: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    // They never close by themselves; the server does, which ends what is read from them.
    for mut stream in streams {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_http(&answer);
        stream.set_nonblocking(false).unwrap();
        let _ = stream.shutdown(Shutdown::Both);
    }
    works(&server);
}

#[test]
fn a_health_check_leaves_no_line() {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--log", "info"]);
    let before = server.log();
    for _ in 0..20 {
        drop(connect(&server));
    }
    works(&server);
    let log = log_with(&server, before.len(), "done op=\"whoami\"");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn what_is_refused_again_and_again_is_told_once_and_counted() {
    let matrix = Matrix::new();
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_after = now_plus(-time::Duration::MINUTE);
    };
    matrix.add("first", &matrix.ca.client(expired));
    matrix.add("second", &matrix.ca.client(expired));
    let mut server = matrix.serve(&[]);
    let ask_plainly = || {
        let mut stream = connect(&server);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    };
    ask_plainly();
    for _ in 0..10 {
        let heard = heard_unchecked(&matrix, &server, "first");
        assert!(heard.contains("it expired 2"), "{heard}");
    }
    // A refusal is counted a moment after it is heard: these come in between.
    (0..9).for_each(|_| ask_plainly());
    let heard = heard_unchecked(&matrix, &server, "second");
    assert!(heard.contains("it expired 2"), "{heard}");
    works(&server);
    let log = log_with(&server, 0, "n_untold=18");
    assert_eq!(log.matches("code=\"TLS06\"").count(), 2, "{log}");
    assert_eq!(log.matches("code=\"TLS14\"").count(), 1, "{log}");
    server.signal("TERM");
    assert!(server.wait(LIMIT).success());
    log_with(&server, 0, "n_refused=21");
}
