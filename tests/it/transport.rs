//! Peers that do not speak TLS 1.3, or only nearly, and crowds of them.
//!
//! Each is answered or closed within the handshake's time, and a good client works right after.

mod agreed;
mod crowds;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use fsvc::tls::client::configure;
use jiff::Timestamp;
use rustls::{ClientConfig, ClientConnection};

use crate::certificates::log_with;
use crate::harness::{Server, text};
use crate::matrix::Matrix;
use crate::refusals::connect;

/// Longest wait for the server to close, with room for a slow machine.
const LIMIT: Duration = Duration::from_secs(15);

/// First byte of an alert's record.
const ALERT: u8 = 0x15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Wait,
    HalfClose,
}

use Then::{HalfClose, Wait};

fn serve() -> (Matrix, Server) {
    let matrix = Matrix::new();
    let server = matrix.serve(&["--handshake-timeout", "1s", "--log", "debug"]);
    (matrix, server)
}

#[track_caller]
pub fn works(server: &Server) {
    let output = server.client("good", &["whoami"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stderr),
        server.log()
    );
}

/// All that the server says until it closes, which it must.
#[track_caller]
fn heard(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open");
                return answer;
            }
        }
    }
}

#[track_caller]
fn check(server: &Server, name: &str, bytes: &[u8], then: Then, alerted: bool) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    // The server may close before it has read all of it.
    let _ = stream.write_all(bytes);
    if then == HalfClose {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let answer = heard(&mut stream);
    let was_alerted = answer
        .windows(5)
        .any(|record| record == [ALERT, 3, 3, 0, 2]);
    assert_eq!(was_alerted, alerted, "{name}: {answer:02x?}");
    assert!(!answer.windows(5).any(|bytes| bytes == b"hello"), "{name}");
    works(server);
}

/// A `ClientHello` in its record, as the client makes it.
fn client_hello(config: &Arc<ClientConfig>) -> (ClientConnection, Vec<u8>) {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello).unwrap();
    }
    (client, hello)
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let size = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, size[0], size[1]], content].concat()
}

/// The same hello with one more extension at its end.
fn with_extension(hello: &[u8], extension: &[u8]) -> Vec<u8> {
    let mut body = hello[9..].to_vec();
    let session = 35 + usize::from(body[34]);
    let suites = session + 2 + usize::from(u16::from_be_bytes([body[session], body[session + 1]]));
    let at = suites + 1 + usize::from(body[suites]);
    body.extend_from_slice(extension);
    let size = u16::try_from(body.len() - at - 2).unwrap();
    body[at..at + 2].copy_from_slice(&size.to_be_bytes());
    let size = u32::try_from(body.len()).unwrap().to_be_bytes();
    record(22, &[&[1, size[1], size[2], size[3]], &body[..]].concat())
}

#[test]
fn whoever_says_nothing_is_closed_after_the_handshakes_time() {
    let (matrix, server) = serve();
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let (_, hello) = client_hello(&config);
    let half = &hello[..hello.len() / 2];
    let nearly = &hello[..hello.len() - 1];
    check(&server, "nothing", b"", Wait, false);
    check(&server, "nothing, closed", b"", HalfClose, false);
    check(&server, "one byte", b"\x16", Wait, false);
    check(&server, "one byte, closed", b"\x16", HalfClose, false);
    check(&server, "half a hello", half, Wait, false);
    check(&server, "half a hello, closed", half, HalfClose, false);
    check(&server, "a hello without an end", nearly, Wait, false);
    let reset = TcpStream::connect(&server.address).unwrap();
    let now = Some(Duration::ZERO);
    socket2::SockRef::from(&reset).set_linger(now).unwrap();
    drop(reset);
    works(&server);
    log_with(&server, 0, "the handshake took longer than 1s");
}

#[test]
fn whoever_speaks_something_else_gets_an_alert() {
    let (_matrix, server) = serve();
    let old = |version: u8| {
        let body = [
            &[1, 0, 0, 41, 3, version][..],
            &[7; 32],
            &[0, 0, 2, 0, 0x2f, 1, 0],
        ];
        record(22, &body.concat())
    };
    let proxy_2 = b"\r\n\r\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02";
    let ssl_2 = b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10\x01\0\x80";
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let proxy = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n";
    check(&server, "HTTP", http, Wait, false);
    check(&server, "SSH", b"SSH-2.0-OpenSSH_9.9\r\n", Wait, true);
    check(
        &server,
        "JSON",
        b"{\"id\":1,\"op\":\"ping\"}\n",
        Wait,
        false,
    );
    check(&server, "PROXY 1", proxy, Wait, true);
    check(&server, "PROXY 2", proxy_2, Wait, true);
    check(&server, "SSL 2", ssl_2, Wait, true);
    check(&server, "SSL 3", &old(0), Wait, true);
    check(&server, "TLS 1.0", &old(1), Wait, true);
    check(&server, "TLS 1.1", &old(2), Wait, true);
    check(&server, "TLS 1.2", &old(3), Wait, true);
}

/// After the server's hello an alert is encrypted, so that none is seen here.
#[test]
fn broken_tls_is_closed_and_nothing_is_done_for_it() {
    let (matrix, server) = serve();
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let (_, hello) = client_hello(&config);
    let and = |rest: &[u8]| [&hello[..], rest].concat();
    let first = [&[1, 1, 0, 0][..], &[0; 16_000]].concat();
    let huge = [record(22, &first), record(22, &[0; 16_000]).repeat(6)].concat();
    let empty = record(22, b"").repeat(10_000);
    let twice = with_extension(&hello, &[0, 43, 0, 3, 2, 3, 4]);
    let early_data = with_extension(&hello, &[0, 42, 0, 0]);
    let early = [early_data, record(23, b"M\0\0\0\x02{}")].concat();
    let change_cipher = record(20, &[1]).repeat(10_000);
    let plain = record(23, &[9; 300]);
    let too_large = b"\x16\x03\x03\xff\xff";
    check(&server, "a hello too large", &huge, Wait, false);
    check(&server, "a record too large", too_large, Wait, true);
    check(&server, "empty records", &empty, Wait, true);
    check(&server, "an extension twice", &twice, Wait, true);
    let goodbye = and(&[ALERT, 3, 3, 0, 2, 1, 0]);
    check(&server, "close_notify", &goodbye, HalfClose, false);
    check(
        &server,
        "change_cipher_spec",
        &and(&change_cipher),
        Wait,
        false,
    );
    check(&server, "not encrypted", &and(&plain), Wait, false);
    check(&server, "early data", &early, Wait, false);
    assert_eq!(server.staged(), Vec::<String>::new());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    let (matrix, server) = serve();
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let (mut client, hello) = client_hello(&config);
    let pieces: Vec<u8> = hello[5..]
        .iter()
        .flat_map(|&byte| record(22, &[byte]))
        .collect();
    let mut tcp = TcpStream::connect(&server.address).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    tcp.write_all(&pieces).unwrap();
    let mut greeting = [0; 9];
    rustls::Stream::new(&mut client, &mut tcp)
        .read_exact(&mut greeting)
        .unwrap();
    assert_eq!(&greeting[5..], b"{\"he");
    works(&server);
}

#[test]
fn an_end_without_a_goodbye_is_no_end_of_a_file() {
    let (matrix, server) = serve();
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let request = br#"{"id":1,"op":"put","path":"/cut"}"#;
    let frame = |kind: u8, content: &[u8]| {
        let size = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[kind], &size[..], content].concat()
    };
    let body = [frame(b'M', request), frame(b'D', &vec![1; 70_000])].concat();
    for n_bytes in [1, 4, 5, 20, body.len() - 1, body.len()] {
        for goodbye in [false, true] {
            let mut stream = connect(&server.address, Arc::clone(&config));
            stream.write_all(&body[..n_bytes]).unwrap();
            if goodbye {
                stream.conn.send_close_notify();
            }
            stream.flush().unwrap();
            stream.sock.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(
                !String::from_utf8_lossy(&rest).contains("\"ok\""),
                "{n_bytes}"
            );
            let output = server.client("good", &["stat", "/cut"]).output().unwrap();
            assert_eq!(output.status.code(), Some(3), "{n_bytes} {goodbye}");
        }
    }
    let mut stream = connect(&server.address, Arc::clone(&config));
    stream
        .write_all(&frame(b'M', br#"{"id":1,"op":"ping"}"#))
        .unwrap();
    for _ in 0..1_000 {
        stream.conn.refresh_traffic_keys().unwrap();
        let _ = stream.flush();
    }
    drop(stream);
    works(&server);
    assert_eq!(server.staged(), Vec::<String>::new());
}
