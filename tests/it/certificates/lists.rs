//! Revoked certificates, lists that ran out, and signatures that count no more.
//!
//! What was good once is refused by the day's measure.

use std::process::Command;
use std::time::Instant;

use time::Duration;

use super::{Cases, LOG_LIMIT, log_with};
use crate::harness::text;
use crate::matrix::{GOOD, Matrix, now_plus};

#[test]
fn a_revoked_certificate_is_refused_and_its_neighbour_is_not() {
    let matrix = Matrix::new();
    let revoked = matrix.ca.client(|_| {});
    let between = matrix.ca.below("between", |_| {});
    let below = between.client(|_| {}).with(&[&between.pem]);
    let list = matrix
        .ca
        .list(&[&revoked, &between.as_pair()], now_plus(Duration::DAY));
    matrix.write("ca.crl", list + &between.empty_list());
    let mut cases = Cases::new(matrix);
    cases.refused(&revoked, "was revoked", "TLS16");
    cases.refused(&below, "was revoked", "TLS16");
}

/// The list is good when the server starts, and runs out under it.
#[test]
fn an_old_revocation_list_lets_nobody_in() {
    let matrix = Matrix::new();
    matrix.write(
        "ca.crl",
        matrix.ca.list(&[], now_plus(Duration::seconds(3))),
    );
    let server = matrix.serve(&[]);
    let until = Instant::now() + LOG_LIMIT;
    loop {
        let output = server.client("good", &["whoami"]).output().unwrap();
        if output.status.code() == Some(5) {
            let stderr = text(&output.stderr);
            assert!(
                stderr.contains("revocation lists are incomplete or out of date"),
                "{stderr}"
            );
            break;
        }
        assert!(Instant::now() < until, "still let in");
    }
    log_with(&server, 0, "TLS17");
}

/// Signed by openssl, since the libraries here refuse to make such a thing.
#[test]
fn weak_algorithms_are_refused() {
    let matrix = Matrix::new();
    let ec = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    sign_weak(&matrix, "sha1", &ec, "-sha1", Some(GOOD));
    sign_weak(&matrix, "rsa1024", &["rsa:1024"], "-sha256", Some(GOOD));
    let server = matrix.serve(&[]);

    let output = server.client("sha1", &["whoami"]).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("it is signed with SHA-1 and ECDSA"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(5));
    log_with(&server, 0, "it is signed with SHA-1 and ECDSA");

    let output = server.client("rsa1024", &["whoami"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    let from = server.log().len();
    let mut weak = Command::new("openssl");
    weak.args([
        "s_client",
        "-tls1_3",
        "-alpn",
        "fsvc/1",
        "-cipher",
        "DEFAULT@SECLEVEL=0",
        "-connect",
        &server.address,
    ]);
    weak.arg("-cert").arg(matrix.path("clients/rsa1024.pem"));
    weak.arg("-key").arg(matrix.path("clients/rsa1024-key.pem"));
    let output = crate::harness::with_input(&mut weak, b"");
    assert!(
        !text(&output.stdout).contains("hello\":"),
        "{}",
        text(&output.stdout)
    );
    log_with(&server, from, "RSA with 1024 bits");
    assert_eq!(
        server
            .client("good", &["whoami"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(0)
    );
}

/// Adds a client's pair that openssl makes, with a key of this kind; without a name it is of the
/// first version of X.509, which has no extensions.
pub fn sign_weak(matrix: &Matrix, name: &str, key: &[&str], digest: &str, uri: Option<&str>) {
    let run = |command: &mut Command| {
        let output = command.current_dir(matrix.dir()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    matrix.write("root.pem", &matrix.ca.pem);
    matrix.write_key("root-key.pem", &matrix.ca.as_pair().key);
    let key_file = format!("clients/{name}-key.pem");
    let mut request = Command::new("openssl");
    request.args([
        "req", "-new", "-nodes", "-subj", "/CN=weak", "-out", "leaf.csr",
    ]);
    request.args(["-keyout", &key_file, "-newkey"]);
    run(request.args(key));
    let mut signed = Command::new("openssl");
    signed.args([
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-CA",
        "root.pem",
        "-CAkey",
        "root-key.pem",
    ]);
    signed.args([
        "-set_serial",
        "77",
        "-days",
        "1",
        digest,
        "-out",
        &format!("clients/{name}.pem"),
    ]);
    if let Some(uri) = uri {
        let extensions = format!(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=clientAuth\nsubjectAltName=URI:{uri}\n"
        );
        matrix.write("leaf.ext", extensions);
        signed.args(["-extfile", "leaf.ext"]);
    }
    run(&mut signed);
}
