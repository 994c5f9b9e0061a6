//! A client in front of a server that is not the one it looks for.
//!
//! Nothing that the other end says counts before its certificate is good; what was wrong is named.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rcgen::ExtendedKeyUsagePurpose as Use;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use time::Duration;

use crate::harness::{fsvc, text};
use crate::matrix::{Ca, Matrix, Pair, now_plus};

/// A listener that treats every connection so; ends with the test's process.
pub fn listen(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

/// TLS 1.3 with this pair, for everybody.
pub fn config(matrix: &Matrix, pair: &Pair, protocols: &[&str]) -> Arc<ServerConfig> {
    matrix.add("as-server", pair);
    let files = matrix.files(Some("as-server")).own.unwrap();
    let chain = fsvc::tls::pem::read_certificates(&files.certificate).unwrap();
    let key = fsvc::tls::pem::read_private_key(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Arc::new(config)
}

/// Speaks TLS with this pair, says `greeting`, and closes.
pub fn tls(matrix: &Matrix, pair: &Pair, protocols: &[&str], greeting: &'static [u8]) -> u16 {
    let config = config(matrix, pair, protocols);
    listen(move |tcp| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
        if stream
            .write_all(greeting)
            .and_then(|()| stream.flush())
            .is_ok()
        {
            stream.conn.send_close_notify();
        }
        let _ = stream.flush();
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        let _ = stream.sock.read_to_end(&mut Vec::new());
    })
}

#[track_caller]
fn check(matrix: &Matrix, host: &str, port: u16, cause: &str) {
    let mut command = fsvc();
    command
        .args([
            "whoami",
            "--as",
            "good",
            "--connect-timeout",
            "2s",
            "--tls-dir",
        ])
        .arg(matrix.dir());
    let output = command
        .args(["--server", &format!("{host}:{port}")])
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert!(stderr.contains(cause), "{cause:?} not in: {stderr}");
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    assert!(
        stderr.lines().count() <= 2 && stderr.starts_with("fsvc: "),
        "{stderr}"
    );
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
}

#[test]
fn a_certificate_that_is_not_the_servers_is_refused_by_the_client() {
    let matrix = Matrix::new();
    let serve = |pair: &Pair| tls(&matrix, pair, &["fsvc/1"], b"");
    let wrong = serve(&matrix.ca.server(&["files.internal"], |_| {}));
    check(
        &matrix,
        "localhost",
        wrong,
        "\"localhost\" is not a name in the server's certificate (it has: files.internal)",
    );
    check(
        &matrix,
        "127.0.0.1",
        wrong,
        "\"127.0.0.1\" is not a name in the server's certificate",
    );
    let other = Ca::root("other root");
    check(
        &matrix,
        "localhost",
        serve(&other.server(&["localhost"], |_| {})),
        "no CA in ",
    );
    let expired = matrix.ca.server(&["localhost"], |params| {
        params.not_after = now_plus(-Duration::HOUR);
    });
    check(&matrix, "localhost", serve(&expired), " expired 2");
    let future = matrix.ca.server(&["localhost"], |params| {
        params.not_before = now_plus(Duration::HOUR);
    });
    check(
        &matrix,
        "localhost",
        serve(&future),
        "it is not valid until 2",
    );
    let client = matrix.ca.server(&["localhost"], |params| {
        params.extended_key_usages = vec![Use::ClientAuth];
    });
    check(
        &matrix,
        "localhost",
        serve(&client),
        "it is not for servers",
    );
}

#[test]
fn a_server_that_speaks_something_else_is_named_so() {
    let matrix = Matrix::new();
    let say = |bytes: &'static [u8]| {
        listen(move |mut tcp| {
            let _ = tcp.read(&mut [0; 4096]);
            let _ = tcp.write_all(bytes);
            let _ = tcp.shutdown(std::net::Shutdown::Write);
            let _ = tcp.read_to_end(&mut Vec::new());
        })
    };
    check(
        &matrix,
        "localhost",
        say(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "answered, but not with TLS",
    );
    check(
        &matrix,
        "localhost",
        say(b"SSH-2.0-OpenSSH_9.9\r\n"),
        "answered, but not with TLS",
    );
    check(
        &matrix,
        "localhost",
        say(b"\x15\x03\x03\0\x02\x02\x46"),
        "does not speak TLS 1.3",
    );
    check(
        &matrix,
        "localhost",
        say(b"\x15\x03\x03\0\x02\x02\x78"),
        "not fsvc/1",
    );
    check(
        &matrix,
        "localhost",
        say(b""),
        "closed the connection before its greeting",
    );
    check(
        &matrix,
        "localhost",
        listen(drop),
        "closed the connection before its greeting",
    );
    check(
        &matrix,
        "localhost",
        listen(std::mem::forget),
        "said nothing for 2s",
    );
}

#[test]
fn a_server_that_is_trusted_but_speaks_no_fsvc_is_named_so() {
    let matrix = Matrix::new();
    let good = matrix.ca.server(&["localhost"], |_| {});
    check(
        &matrix,
        "localhost",
        tls(&matrix, &good, &["h2"], b""),
        "not fsvc/1",
    );
    check(
        &matrix,
        "localhost",
        tls(&matrix, &good, &["fsvc/1"], b""),
        "closed the connection before its greeting",
    );
    check(
        &matrix,
        "localhost",
        tls(&matrix, &good, &["fsvc/1"], b"HTTP/1.1 200 \x1b[2J\r\n\r\n"),
        "was lost",
    );
    let mean = b"M\0\0\0\x35{\"error\":{\"code\":\"denied\",\"message\":\"\\u001b[2Jno\\n\"}}";
    check(
        &matrix,
        "localhost",
        tls(&matrix, &good, &["fsvc/1"], mean),
        "refused the connection: \\u{1b}[2Jno\\n",
    );
}
