//! What is agreed on in the handshake: one protocol, one version, and no way round it.

use std::io::Read;
use std::process::Command;
use std::sync::Arc;

use fsvc::tls::client::configure;
use jiff::Timestamp;
use rustls::ClientConfig;

use super::{serve, works};
use crate::harness::{text, with_input};
use crate::refusals::connect;

#[test]
fn the_protocol_is_agreed_on_by_name() {
    let (matrix, server) = serve();
    let config = configure(&matrix.files(Some("good")), Timestamp::now()).unwrap();
    let offered = |names: &[&[u8]], sni: bool| {
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        config.enable_sni = sni;
        let mut stream = connect(&server.address, Arc::new(config));
        let mut answer = vec![0; 4096];
        match stream.read(&mut answer) {
            Ok(n) => String::from_utf8_lossy(&answer[..n]).into_owned(),
            Err(error) => error.to_string(),
        }
    };
    let many: Vec<Vec<u8>> = (0..5_000).map(|n: u16| n.to_be_bytes().to_vec()).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    for (names, sni, expected) in [
        (&[][..], true, "offer the protocol fsvc/1 by ALPN"),
        (&[&b"http/1.1"[..]], true, "NoApplicationProtocol"),
        (&[&b"fsvc/2"[..]], true, "NoApplicationProtocol"),
        (&[&b"FSVC/1"[..]], true, "NoApplicationProtocol"),
        (&many, true, "NoApplicationProtocol"),
        (&[&b"h2"[..], b"fsvc/1"], true, "{\"hello\""),
        (&[&b"fsvc/1"[..]], false, "{\"hello\""),
    ] {
        let answer = offered(names, sni);
        assert!(answer.contains(expected), "{answer:?} is not {expected:?}");
        works(&server);
    }
}

/// A ticket would let a client pass by the check of its certificate.
#[test]
fn nothing_is_ever_resumed_and_nothing_older_than_tls_1_3_is_spoken() {
    let (matrix, server) = serve();
    let script = r#"
import socket, ssl, sys
host, port, base = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def context():
    c = ssl.create_default_context(cafile=base + "/ca.pem")
    c.load_cert_chain(base + "/clients/good.pem", base + "/clients/good-key.pem")
    c.set_alpn_protocols(["fsvc/1"])
    return c
def connect(c, name="localhost", session=None):
    return c.wrap_socket(socket.create_connection((host, port), 10), server_hostname=name, session=session)
c = context()
session = None
for attempt in range(3):
    s = connect(c, session=session)
    assert s.version() == "TLSv1.3", s.version()
    assert s.recv(5)[:1] == b"M"
    assert not s.session_reused
    assert s.session is None or not s.session.has_ticket
    session = s.session
    s.close()
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1):
    c = context()
    c.minimum_version = ssl.TLSVersion.TLSv1
    c.maximum_version = version
    c.set_ciphers("DEFAULT@SECLEVEL=0")
    try:
        connect(c)
        raise SystemExit("%s was spoken" % version)
    except ssl.SSLError as e:
        assert "ALERT" in str(e).upper(), e
for name in ("weird.example", "a." * 100 + "b", None):
    c = context()
    c.check_hostname = False
    s = connect(c, name)
    assert s.recv(5)[:1] == b"M", name
print("fine")
"#;
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", script, host, port]).arg(matrix.dir());
    let output = python.output().unwrap();
    assert_eq!(text(&output.stdout), "fine\n", "{}", text(&output.stderr));
    works(&server);
}

#[test]
fn openssl_is_given_no_ticket() {
    let (matrix, server) = serve();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "s_client",
        "-connect",
        &server.address,
        "-alpn",
        "fsvc/1",
        "-msg",
        "-sess_out",
    ]);
    openssl
        .arg(matrix.path("session"))
        .arg("-cert")
        .arg(matrix.path("clients/good.pem"));
    openssl
        .arg("-key")
        .arg(matrix.path("clients/good-key.pem"))
        .arg("-CAfile")
        .arg(matrix.path("ca.pem"));
    let output = with_input(&mut openssl, b"");
    let said = text(&output.stdout);
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(
        said.contains("ServerHello") && !said.contains("NewSessionTicket"),
        "{said}"
    );
    assert!(
        std::fs::metadata(matrix.path("session")).is_err(),
        "a session was given out"
    );
    works(&server);
}
