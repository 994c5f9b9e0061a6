//! Servers that end a session for its certificate in the middle of a body: what came is not taken for the
//! whole, and the client goes on if it has new files.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fsvc::client::{Client, Options, TransferOptions};
use fsvc::digest::Digest;
use fsvc::protocol::ErrorCode;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::ending;
use crate::cuts::{Random, path};
use crate::matrix::Matrix;
use crate::messages::runtime;
use crate::raw::{body, frame, message};
use crate::strange_servers::{config, listen};

const CONTENT: &[u8] = b"all of it";

/// A server that answers the first `get` of all with half a body and `end`, and then closes; all others
/// well. Calls `meanwhile` before the end.
fn serve(
    matrix: &Arc<Matrix>,
    end: Vec<u8>,
    meanwhile: impl Fn(&Matrix) + Send + Sync + 'static,
) -> u16 {
    let pair = matrix.ca.server(&["localhost"], |_| {});
    let config = config(matrix, &pair, &["fsvc/1"]);
    let n_gets = AtomicUsize::new(0);
    let matrix = Arc::clone(matrix);
    listen(move |tcp| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
        let _ = stream.write_all(&message(&hello()));
        let _ = stream.flush();
        while let Some(request) = read(&mut stream) {
            let mut ok = json!({"path": "/a", "size": CONTENT.len(), "version": 1,
                "modified": "2026-01-01T00:00:00Z", "digest": Digest::of(CONTENT).to_string()});
            if request["op"] == "ping" {
                ok = json!({});
            }
            let mut answer = message(&json!({"id": request["id"], "ok": ok}).to_string());
            let is_first = request["op"] == "get" && n_gets.fetch_add(1, Ordering::SeqCst) == 0;
            if is_first {
                answer.extend(frame(b'D', &CONTENT[..4]));
                meanwhile(&matrix);
                answer.extend(&end);
            } else if request["op"] == "get" {
                answer.extend(rest(request["offset"].as_u64().unwrap_or(0)));
            }
            let _ = stream.write_all(&answer);
            let _ = stream.flush();
            if is_first {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                return;
            }
        }
    })
}

pub fn hello() -> String {
    let limits = json!({"message_size_max": 65_536, "data_size_max": 1_048_576,
        "file_size_max": 1_u64 << 40});
    let hello = json!({"hello": {"server": "x/1", "identity": "x", "features": [],
        "expires_at": "2100-01-01T00:00:00Z", "time": "2026-01-01T00:00:00Z", "limits": limits}});
    hello.to_string()
}

/// A server that ends the first `put` of all in the middle of its body, with `end`; takes all others.
fn serve_puts(matrix: &Arc<Matrix>, end: String, is_abrupt: bool) -> (u16, Arc<AtomicUsize>) {
    let pair = matrix.ca.server(&["localhost"], |_| {});
    let config = config(matrix, &pair, &["fsvc/1"]);
    let n_puts = Arc::new(AtomicUsize::new(0));
    let (counter, matrix) = (Arc::clone(&n_puts), Arc::clone(matrix));
    let port = listen(move |tcp| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
        let _ = stream.write_all(&message(&hello()));
        let _ = stream.flush();
        while let Some(request) = read(&mut stream) {
            let mut answer = json!({"id": request["id"], "ok": {}});
            if request["op"] == "put" {
                let mut content = read_frame(&mut stream).unwrap().1;
                if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                    matrix.add("good", &ending(&matrix.ca, 90_000));
                    let _ = stream.write_all(&message(&end));
                    let _ = stream.flush();
                    // Read away, so that the words are not lost; or not.
                    while !is_abrupt
                        && read_frame(&mut stream).is_some_and(|(kind, _)| kind != b'E')
                    {
                    }
                    return;
                }
                while let Some((b'D', more)) = read_frame(&mut stream) {
                    content.extend(more);
                }
                answer["ok"] = json!({"path": request["path"], "size": content.len(), "version": 1,
                    "modified": "2026-01-01T00:00:00Z", "digest": Digest::of(&content).to_string()});
            }
            let _ = stream.write_all(&message(&answer.to_string()));
            let _ = stream.flush();
        }
    });
    (port, n_puts)
}

/// What is left of the content from here on.
fn rest(offset: u64) -> Vec<u8> {
    let rest = &CONTENT[usize::try_from(offset).unwrap()..];
    if offset == 0 {
        return body(rest);
    }
    let trailer = json!({"size": rest.len()}).to_string();
    [frame(b'D', rest), frame(b'E', trailer.as_bytes())].concat()
}

fn read(stream: &mut impl Read) -> Option<Value> {
    let (_, content) = read_frame(stream)?;
    serde_json::from_slice(&content).ok()
}

fn read_frame(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).ok()?;
    let mut content = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
    stream.read_exact(&mut content).ok()?;
    Some((header[0], content))
}

fn client(matrix: &Matrix, port: u16, retry_for: Duration) -> Client {
    let address = format!("localhost:{port}");
    let mut options = Options::from_directory(&address, matrix.dir(), "good");
    options.retry_for = retry_for;
    Client::new(options).unwrap()
}

/// Both ways in which a body can end for a certificate.
fn ends(code: &str) -> [Vec<u8>; 2] {
    let error = json!({"error": {"code": code, "message": "no more of \u{1b}[2J you"}});
    let abort = json!({"abort": code}).to_string();
    [
        message(&error.to_string()),
        [frame(b'E', abort.as_bytes()), message(&error.to_string())].concat(),
    ]
}

#[test]
fn a_body_that_ends_for_its_certificate_is_fetched_anew_with_the_next_one() {
    for code in ["certificate_expired", "certificate_revoked"] {
        for end in ends(code) {
            let matrix = Arc::new(Matrix::new());
            let port = serve(&matrix, end, |matrix| {
                matrix.add("good", &ending(&matrix.ca, 90_000));
            });
            let client = client(&matrix, port, Duration::from_secs(30));
            let before = client.renewal();
            let got = runtime().block_on(async {
                client.ping().await.unwrap();
                client.get_onward(&path("/a"), Vec::new()).await
            });
            assert_eq!(got.unwrap().1, CONTENT);
            assert_ne!(client.renewal(), before);
        }
    }
}

#[test]
fn without_a_next_one_it_is_told_why_and_shown_escaped() {
    for (code, name) in [
        (ErrorCode::CertificateExpired, "certificate_expired"),
        (ErrorCode::CertificateRevoked, "certificate_revoked"),
    ] {
        for end in ends(name) {
            let matrix = Arc::new(Matrix::new());
            let port = serve(&matrix, end, |_| {});
            let client = client(&matrix, port, Duration::ZERO);
            let got = runtime().block_on(client.get(&path("/a"), Vec::new()));
            let error = got.unwrap_err();
            assert!(error.is_of_certificate(), "{error:?}");
            assert_eq!(error.code(), Some(code));
            let said = error.to_string();
            assert!(said.contains("clients/good.pem"), "{said}");
            assert!(!said.contains('\u{1b}'), "{said:?}");
        }
    }
}

#[test]
fn words_in_a_body_that_are_not_of_a_certificate_are_no_end_of_it() {
    let matrix = Arc::new(Matrix::new());
    let port = serve(&matrix, message("{\"hello\":1}"), |_| {});
    let client = client(&matrix, port, Duration::ZERO);
    let got = runtime().block_on(client.get(&path("/a"), Vec::new()));
    let error = got.unwrap_err();
    assert!(
        !error.is_of_certificate() && error.code().is_none(),
        "{error:?}"
    );
}

#[test]
fn a_put_that_is_ended_in_its_body_is_sent_again_with_the_next_certificate() {
    for code in ["certificate_expired", "certificate_revoked"] {
        for is_abrupt in [false, true] {
            let matrix = Arc::new(Matrix::new());
            let end = json!({"error": {"code": code, "message": "enough"}}).to_string();
            let (port, n_puts) = serve_puts(&matrix, end, is_abrupt);
            let client = client(&matrix, port, Duration::from_secs(30));
            let before = client.renewal();
            let content = Random(0x00b0_d1e5).content(3 << 20);
            let local = matrix.path("source");
            std::fs::write(&local, &content).unwrap();
            let put = runtime().block_on(async {
                client.ping().await.unwrap();
                let options = TransferOptions::default();
                client.put_file(&local, &path("/a"), options).await
            });
            assert_eq!(put.unwrap().digest, Some(Digest::of(&content)));
            assert_eq!(n_puts.load(Ordering::SeqCst), 2);
            assert_ne!(client.renewal(), before);
        }
    }
}
