//! Failures of the connection: no certificate, no TLS, an old one, no rights.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use fsvc::client::{Client, Options};

use super::{Texts, whoami};
use crate::harness::Server;
use crate::matrix::Matrix;
use crate::strange_servers::listen;

/// Longest wait of a test's own client.
const LIMIT: Duration = Duration::from_secs(20);

/// All that the server answers to these bytes, until it closes.
pub(super) fn answer(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn tls04_no_certificate() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut options = Options::from_directory(&server.address, matrix.dir(), "good");
    options.files = matrix.files(None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new(options).unwrap();
    let error = runtime.block_on(client.hello()).unwrap_err();
    assert_eq!(error.failure().unwrap().to_string(), "TLS04");
    let mut texts = Texts::of("TLS04");
    let words = format!("{error}\nhint: {}", error.hint().unwrap());
    texts.add("client", &matrix, &words);
    texts.log("server", &matrix, &server, 0);
    texts.hold();
}

#[test]
fn tls05_a_silent_close() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS05");
    let port = listen(drop);
    texts.client(
        "client",
        &matrix,
        whoami(&matrix, "good", &format!("localhost:{port}")),
    );
    texts.hold();
}

#[test]
fn tls14_plain_text() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS14");
    for (title, bytes) in [
        ("HTTP", &b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
        ("JSON", b"{\"id\":1,\"op\":\"ping\"}\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("PROXY", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
        ("words", b"hello\n"),
    ] {
        let from = server.log().len();
        let heard = answer(&server, bytes);
        if bytes[0] == b'G' || bytes[0] == b'{' {
            texts.add(&format!("peer: {title}"), &matrix, &heard.replace('\r', ""));
        }
        texts.log(&format!("server: {title}"), &matrix, &server, from);
    }
    // That is the answer to SSH and PROXY: a client whose TLS comes behind such a line gets it.
    let port = answering(b"\x15\x03\x03\0\x02\x02\x0a");
    let command = whoami(&matrix, "good", &format!("localhost:{port}"));
    texts.client("client: something was put before its TLS", &matrix, command);
    texts.hold();
}

/// A server that answers whatever it is sent first with these bytes, and closes.
fn answering(bytes: &'static [u8]) -> u16 {
    listen(|mut tcp| {
        let _ = tcp.read(&mut [0; 4096]);
        let _ = tcp.write_all(bytes);
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    })
}

#[test]
fn tls15_no_tls_at_the_server() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS15");
    let port = answering(b"HTTP/1.1\x1b[2J 400 Bad Request\r\n\r\n");
    texts.client(
        "client",
        &matrix,
        whoami(&matrix, "good", &format!("localhost:{port}")),
    );
    texts.hold();
}

#[test]
fn tls20_an_old_tls() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS20");
    let port = answering(b"\x15\x03\x03\0\x02\x02\x46");
    texts.client(
        "client",
        &matrix,
        whoami(&matrix, "good", &format!("localhost:{port}")),
    );
    let server = matrix.serve(&[]);
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["s_client", "-tls1_2", "-connect", &server.address]);
    let output = crate::harness::with_input(&mut openssl, b"");
    assert!(!output.status.success());
    texts.log("server", &matrix, &server, 0);
    texts.hold();
}

#[test]
fn tls21_no_right() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    matrix.add(
        "case",
        &matrix
            .ca
            .client_named("spiffe://test.internal/client/other"),
    );
    let mut texts = Texts::of("TLS21");
    texts.client(
        "client",
        &matrix,
        server.client("case", &["ls", "/backups/"]),
    );
    texts.hold();
}
