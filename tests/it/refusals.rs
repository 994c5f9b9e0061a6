//! A refused client always learns why, also when it wrote before it read.
//!
//! Under TLS 1.3 the client takes the handshake for done before the server has judged it. Told is
//! whoever reads; a reset that overtakes the alert would leave "connection reset by peer".

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use fsvc::client::{Client, Options};
use fsvc::tls::client::{Files, configure};
use fsvc::tls::pem::{read_certificates, read_private_key};
use fsvc::tls::refusal::{explain, silent_close};
use jiff::Timestamp;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme, StreamOwned};

use crate::certificates::log_with;
use crate::harness::Server;
use crate::matrix::{Ca, GOOD, Matrix, now_plus, uris};

/// Longest wait of a test's own client for the server.
const LIMIT: Duration = Duration::from_secs(20);
const THREADS: usize = 4;

/// How often each case is tried.
fn n_tries() -> usize {
    std::env::var("FSVC_TEST_REFUSALS").map_or(50, |text| text.parse().unwrap())
}

/// What a client writes before it reads.
#[derive(Clone, Copy, Debug)]
enum First {
    OneRequest,
    Megabyte,
}

/// A client of the test's own, which only writes and then reads.
pub fn connect(
    server: &str,
    config: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(server).unwrap();
    tcp.set_read_timeout(Some(LIMIT)).unwrap();
    tcp.set_write_timeout(Some(LIMIT)).unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp)
}

fn written_first(
    server: &Server,
    files: &Files,
    config: Arc<ClientConfig>,
    first: First,
) -> String {
    let mut stream = connect(&server.address, config);
    let request = br#"M...{"id":1,"op":"ping"}"#;
    let mut frame = request.to_vec();
    frame[1..5].copy_from_slice(&u32::try_from(request.len() - 5).unwrap().to_be_bytes());
    let written = match first {
        First::OneRequest => stream.write_all(&frame),
        First::Megabyte => stream.write_all(&vec![b'x'; 1 << 20]),
    };
    // A failed write says nothing: the reason is in what can still be read.
    drop(written);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
        Err(error) => said(&error, files, &answer),
    }
}

fn said(error: &io::Error, files: &Files, answer: &[u8]) -> String {
    match explain(error, files, "the server", Timestamp::now()) {
        Some(refusal) => refusal.cause,
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            silent_close(files, Timestamp::now()).cause
        }
        None => format!("{} ({error})", String::from_utf8_lossy(answer)),
    }
}

/// How many of the tries ended with a text without `expected`, and one of those texts.
fn n_untold(expected: &str, attempt: impl Fn() -> String + Sync) -> (usize, String) {
    let each = n_tries() / THREADS;
    let results: Vec<(usize, String)> = std::thread::scope(|scope| {
        let run = || {
            let texts = (0..each)
                .map(|_| attempt())
                .filter(|text| !text.contains(expected));
            texts.fold((0, String::new()), |(n, _), text| (n + 1, text))
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let untold = results.iter().map(|(n, _)| n).sum();
    (
        untold,
        results
            .into_iter()
            .map(|(_, text)| text)
            .max()
            .unwrap_or_default(),
    )
}

#[track_caller]
fn check(matrix: &Matrix, server: &Server, name: Option<&str>, expected: &str) {
    let files = matrix.files(name);
    let config = configure(&files, Timestamp::now()).unwrap();
    for first in [First::OneRequest, First::Megabyte] {
        let attempt = || written_first(server, &files, Arc::clone(&config), first);
        let (n, text) = n_untold(expected, attempt);
        assert_eq!(
            n,
            0,
            "{name:?} {first:?}: {n} of {} heard {text:?} instead",
            n_tries()
        );
    }
    let greeting = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut options = Options::from_directory(&server.address, matrix.dir(), "none");
        options.files = files.clone();
        let client = Client::new(options).unwrap();
        runtime.block_on(client.hello()).unwrap_err().to_string()
    };
    let (n, text) = n_untold(expected, greeting);
    assert_eq!(
        n,
        0,
        "{name:?}, through the library: {n} of {} heard {text:?}",
        n_tries()
    );
}

#[test]
fn a_refused_client_learns_why_every_time() {
    let matrix = Matrix::new();
    matrix.add("other", &Ca::root("other root").client(|_| {}));
    matrix.add(
        "expired",
        &matrix
            .ca
            .client(|params| params.not_after = now_plus(-time::Duration::HOUR)),
    );
    let two = uris(&[GOOD, "spiffe://test.internal/client/evil"]);
    matrix.add(
        "two",
        &matrix.ca.client(|params| params.subject_alt_names = two),
    );
    let server = matrix.serve(&["--connections-per-identity-max", "10000"]);
    check(&matrix, &server, None, "needs a client certificate");
    check(&matrix, &server, Some("other"), "does not trust the CA");
    check(&matrix, &server, Some("expired"), " expired 2");
    check(&matrix, &server, Some("two"), "2 URI names");
    server_is_well(&server);
}

fn server_is_well(server: &Server) {
    assert!(
        server
            .client("good", &["whoami"])
            .output()
            .unwrap()
            .status
            .success()
    );
}

/// Shows a certificate whose key it does not have.
#[derive(Debug)]
struct Borrowed(Arc<CertifiedKey>);

impl ResolvesClientCert for Borrowed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that shows one's certificate and signs with another's key, whatever they are.
fn unchecked(matrix: &Matrix, certificate: &str, key: &str) -> Arc<ClientConfig> {
    let path = |name: String| matrix.path(&name);
    let chain = read_certificates(&path(format!("clients/{certificate}.pem"))).unwrap();
    let key = read_private_key(&path(format!("clients/{key}-key.pem"))).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    borrowing(matrix, CertifiedKey::new(chain, key))
}

/// A client that shows this, whatever it is.
fn borrowing(matrix: &Matrix, key: CertifiedKey) -> Arc<ClientConfig> {
    let files = matrix.files(Some("good"));
    let mut config = ClientConfig::clone(&configure(&files, Timestamp::now()).unwrap());
    config.client_auth_cert_resolver = Arc::new(Borrowed(Arc::new(key)));
    Arc::new(config)
}

/// What a client hears that shows this.
pub fn heard_of(matrix: &Matrix, server: &Server, key: CertifiedKey) -> String {
    let config = borrowing(matrix, key);
    written_first(
        server,
        &matrix.files(Some("good")),
        config,
        First::OneRequest,
    )
}

/// What a client hears that does not look at its own files before it shows them.
pub fn heard_unchecked(matrix: &Matrix, server: &Server, name: &str) -> String {
    heard_with_key(matrix, server, name, name)
}

/// The same of one that shows one's certificate and signs with the other's key.
pub fn heard_with_key(matrix: &Matrix, server: &Server, certificate: &str, key: &str) -> String {
    let config = unchecked(matrix, certificate, key);
    written_first(
        server,
        &matrix.files(Some(certificate)),
        config,
        First::OneRequest,
    )
}

#[test]
fn a_certificate_without_its_key_is_nobodys() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let files = matrix.files(Some("good"));
    matrix.add("thief", &matrix.ca.client(|_| {}));
    let config = unchecked(&matrix, "good", "thief");
    let text = written_first(&server, &files, config, First::OneRequest);
    assert!(text.contains("could not verify a signature"), "{text}");
    log_with(&server, 0, "TLS11");

    // The command line finds out by itself, and names both files.
    matrix.write(
        "clients/mixed.pem",
        std::fs::read(matrix.path("clients/good.pem")).unwrap(),
    );
    matrix.write(
        "clients/mixed-key.pem",
        std::fs::read(matrix.path("clients/thief-key.pem")).unwrap(),
    );
    let output = server.client("mixed", &["whoami"]).output().unwrap();
    let stderr = crate::harness::text(&output.stderr);
    assert!(
        stderr.contains("mixed-key.pem does not belong to ") && stderr.contains("mixed.pem"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(5));
    server_is_well(&server);
}
