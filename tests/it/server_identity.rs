//! A server that a client knows by its identity: nobody else is taken for it, and a certificate that
//! would not do without it does not do with it.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Use};
use time::Duration;

use crate::harness::{Server, fsvc, text};
use crate::matrix::{Ca, Matrix, Pair, now_plus, uris};
use crate::strange_servers::tls;

const NODE: &str = "spiffe://corp.example/node";
const OTHER: &str = "spiffe://corp.example/other";

/// A certificate as SPIRE issues it: for both ends, without a name of a host.
fn svid(ca: &Ca, names: &[&str], shape: impl FnOnce(&mut CertificateParams)) -> Pair {
    ca.client(|params| {
        params.subject_alt_names = uris(names);
        params.extended_key_usages = vec![Use::ServerAuth, Use::ClientAuth];
        shape(params);
    })
}

/// A server with this pair in the place of the one that the matrix made.
fn serve(matrix: &Matrix, pair: &Pair) -> Server {
    matrix.write("server.pem", &pair.chain);
    matrix.write_key("server-key.pem", &pair.key);
    matrix.serve(&[])
}

/// What a ping with these flags says, and how it ends.
#[track_caller]
fn ping(matrix: &Matrix, address: &str, flags: &[&str], code: i32) -> String {
    let mut command = fsvc();
    command.args(["ping", "--as", "good", "--server", address]);
    command.args(flags).arg("--tls-dir").arg(matrix.dir());
    command.args(["--retry-for", "0s"]);
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
    stderr
}

#[test]
fn a_server_without_a_host_is_known_by_its_identity() {
    let matrix = Matrix::new();
    let server = serve(&matrix, &svid(&matrix.ca, &[NODE], |_| {}));
    let address = server.address.replace("127.0.0.1", "localhost");
    // Nobody is let in by chance, and the way in is told.
    let said = ping(&matrix, &address, &[], 5);
    assert!(said.contains("[TLS09]"), "{said}");
    assert!(said.contains("--server-id-only"), "{said}");
    let said = ping(&matrix, &address, &["--server-id", NODE], 5);
    assert!(said.contains("[TLS09]"), "{said}");
    let only = ["--server-id", NODE, "--server-id-only"];
    ping(&matrix, &address, &only, 0);
    let said = ping(
        &matrix,
        &address,
        &["--server-id", OTHER, "--server-id-only"],
        5,
    );
    let values = format!("its identity is {NODE}, not {OTHER}");
    assert!(said.contains(&values) && said.contains("[TLS09]"), "{said}");

    for (flags, why) in [
        (&["--server-id-only"][..], "--server-id"),
        (&["--server-id", "node"], "spiffe://"),
        (&["--server-id", "spiffe://Corp/x"], "outside a-z"),
        (&["--server-id", ""], "spiffe://"),
    ] {
        let said = ping(&matrix, &address, flags, 2);
        assert!(said.contains(why), "{flags:?}: {said}");
    }
}

#[test]
fn the_identity_is_asked_for_besides_the_host() {
    let matrix = Matrix::new();
    let both = matrix.ca.server(&["localhost"], |params| {
        params.subject_alt_names.extend(uris(&[NODE]));
    });
    let server = serve(&matrix, &both);
    let address = server.address.replace("127.0.0.1", "localhost");
    ping(&matrix, &address, &[], 0);
    ping(&matrix, &address, &["--server-id", NODE], 0);
    let said = ping(&matrix, &address, &["--server-id", OTHER], 5);
    assert!(said.contains(&format!("not {OTHER}")), "{said}");
    // Another name of the host would not mend that.
    assert!(said.contains("certs show"), "{said}");
    assert!(!said.contains("--host"), "{said}");
    let said = ping(&matrix, &server.address, &["--server-id", NODE], 5);
    assert!(said.contains("is not a name in"), "{said}");
}

#[test]
fn nothing_but_the_host_is_let_pass_for_an_identity() {
    let matrix = Matrix::new();
    let ca = &matrix.ca;
    let strange = Ca::root("strange root");
    let cases: [(&str, Pair, &str); 6] = [
        ("another CA", svid(&strange, &[NODE], |_| {}), "TLS02"),
        (
            "over",
            svid(ca, &[NODE], |params| {
                params.not_after = now_plus(-Duration::HOUR);
            }),
            "TLS07",
        ),
        (
            "a client's",
            svid(ca, &[NODE], |params| {
                params.extended_key_usages = vec![Use::ClientAuth];
            }),
            "TLS10",
        ),
        ("two names", svid(ca, &[NODE, OTHER], |_| {}), "TLS09"),
        ("no name", ca.server(&["localhost"], |_| {}), "TLS09"),
        (
            "a longer name",
            svid(ca, &["spiffe://corp.example/node/2"], |_| {}),
            "TLS09",
        ),
    ];
    for (what, pair, code) in cases {
        let port = tls(&matrix, &pair, &["fsvc/1"], b"");
        let address = format!("localhost:{port}");
        let flags = ["--server-id", NODE, "--server-id-only"];
        let said = ping(&matrix, &address, &flags, 5);
        assert!(said.contains(code), "{what}: {said}");
    }
}
