//! Failures that one end finds in its own files.

use std::os::unix::fs::PermissionsExt;

use super::{Texts, whoami};
use crate::certificates::lists::sign_weak;
use crate::harness::{fsvc, text};
use crate::matrix::{GOOD, Matrix, now_plus};
use crate::refusals::heard_with_key;
use time::Duration;

/// What a server says that does not start.
#[track_caller]
fn start(texts: &mut Texts, title: &str, matrix: &Matrix) {
    let mut command = fsvc();
    command.args([
        "serve",
        "--log",
        "error",
        "--listen",
        "127.0.0.1:0",
        "--tls-dir",
    ]);
    command
        .arg(matrix.dir())
        .arg("--root")
        .arg(matrix.path("data"));
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!(" [{}]\n", texts.code)), "{stderr}");
    texts.add(&format!("server: {title}"), matrix, &stderr);
}

#[test]
fn tls11_a_key_of_another_pair() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS11");
    matrix.add("case", &matrix.ca.client(|_| {}));
    matrix.write_key("clients/case-key.pem", &matrix.ca.client(|_| {}).key);
    texts.client(
        "client: its files",
        &matrix,
        whoami(&matrix, "case", "localhost:1"),
    );
    let server = matrix.serve(&[]);
    let heard = heard_with_key(&matrix, &server, "good", "case");
    texts.add("client: it is shown all the same", &matrix, &heard);
    texts.log("server: it is shown all the same", &matrix, &server, 0);
    drop(server);
    matrix.write_key("server-key.pem", &matrix.ca.client(|_| {}).key);
    start(&mut texts, "its files", &matrix);
    texts.hold();
}

#[test]
fn tls12_something_else_in_a_file() {
    let mut texts = Texts::of("TLS12");
    let matrix = Matrix::new();
    matrix.add("case", &matrix.ca.client(|_| {}));
    let body = "-----BEGIN X-----\nMIIB\n-----END X-----\n";
    let key = matrix.path("clients/case-key.pem");
    let certificate = std::fs::read(matrix.path("clients/case.pem")).unwrap();
    let holds = |content: &[u8]| std::fs::write(&key, content).unwrap();
    for (title, content) in [
        ("a certificate", certificate),
        (
            "an encrypted key",
            body.replace('X', "ENCRYPTED PRIVATE KEY").into_bytes(),
        ),
        (
            "a request",
            body.replace('X', "CERTIFICATE REQUEST").into_bytes(),
        ),
        (
            "an SSH key",
            body.replace('X', "OPENSSH PRIVATE KEY").into_bytes(),
        ),
        ("nothing", vec![]),
        ("DER", vec![0x30, 0x82, 1, 1, 2]),
    ] {
        holds(&content);
        let command = whoami(&matrix, "case", "localhost:1");
        texts.client(&format!("client: {title} for a key"), &matrix, command);
    }
    matrix.write("ca.pem", "nothing\n");
    start(&mut texts, "no certificate for the CA", &matrix);
    texts.hold();
}

#[test]
fn tls13_a_file_that_is_closed_or_too_open() {
    let mut texts = Texts::of("TLS13");
    let matrix = Matrix::new();
    let command = whoami(&matrix, "nobody", "localhost:1");
    texts.client("client: not there", &matrix, command);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(matrix.path("server-key.pem"), open).unwrap();
    start(&mut texts, "readable by all", &matrix);
    texts.hold();
}

#[test]
fn tls07_tls17_and_tls18_are_found_before_a_server_starts() {
    let mut texts = Texts::of("TLS07");
    let matrix = Matrix::new();
    let old = matrix.ca.server(&["localhost"], |params| {
        params.not_after = now_plus(-Duration::HOUR);
    });
    matrix.write("server.pem", &old.chain);
    matrix.write_key("server-key.pem", &old.key);
    start(&mut texts, "its own certificate", &matrix);

    let mut texts = Texts::of("TLS17");
    let matrix = Matrix::new();
    matrix.write("ca.crl", matrix.ca.list(&[], now_plus(-Duration::MINUTE)));
    start(&mut texts, "a list that ran out", &matrix);

    let mut texts = Texts::of("TLS18");
    let matrix = Matrix::new();
    matrix.write("ca.pem", matrix.ca.client(|_| {}).chain);
    start(&mut texts, "a client's as a CA's", &matrix);
}

/// Signed by openssl, since the libraries here refuse to make such a thing.
#[test]
fn tls19_a_form_that_is_not_taken() {
    let matrix = Matrix::new();
    let ec = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    sign_weak(&matrix, "sha1", &ec, "-sha1", Some(GOOD));
    sign_weak(&matrix, "first", &ec, "-sha256", None);
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS19");
    let from = server.log().len();
    texts.client(
        "client: SHA-1",
        &matrix,
        whoami(&matrix, "sha1", &server.address),
    );
    texts.log("server: SHA-1", &matrix, &server, from);
    // The client does not even load version 1; others do.
    let command = whoami(&matrix, "first", &server.address);
    texts.client("client: version 1", &matrix, command);
    let from = server.log().len();
    let heard = heard_with_key(&matrix, &server, "first", "first");
    texts.add("client: version 1 is shown all the same", &matrix, &heard);
    texts.log("server: version 1", &matrix, &server, from);
    texts.hold();
}
