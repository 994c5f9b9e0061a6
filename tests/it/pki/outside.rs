//! What openssl and Python say about the certificates.
//!
//! Two verifiers that are stricter than rustls, each in its own way.

use std::process::Command;

use super::*;

#[track_caller]
fn output(command: &mut Command) -> String {
    let what = format!("{command:?}");
    let run = command
        .output()
        .unwrap_or_else(|error| panic!("this test needs the program of {what}: {error}"));
    let text = [run.stdout, run.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(run.status.success(), "{what} failed: {text}");
    text
}

fn openssl(place: &Place, arguments: &[&str]) -> String {
    output(
        Command::new("openssl")
            .args(arguments)
            .current_dir(&place.dir),
    )
}

#[test]
fn openssl_verifies_strictly_for_the_right_purpose_only() {
    let place = Place::ready();
    for (purpose, file) in [
        ("sslserver", "server.pem"),
        ("sslclient", "clients/dev.pem"),
    ] {
        let verify = [
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.pem",
            "-CRLfile",
            "ca.crl",
        ];
        let verify = [&verify[..], &["-crl_check", "-purpose", purpose, file]].concat();
        assert!(openssl(&place, &verify).contains(": OK"));
        let other = if purpose == "sslserver" {
            "sslclient"
        } else {
            "sslserver"
        };
        let wrong = ["verify", "-CAfile", "ca.pem", "-purpose", other, file];
        let run = Command::new("openssl")
            .args(wrong)
            .current_dir(&place.dir)
            .output();
        assert!(!run.unwrap().status.success(), "{file} as {other}");
    }
    let ca = [
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-CAfile",
        "ca.pem",
        "ca.pem",
    ];
    assert!(openssl(&place, &ca).contains(": OK"));
}

#[test]
fn the_profile_is_as_documented() {
    let place = Place::ready();
    let show = |file: &str| openssl(&place, &["x509", "-in", file, "-noout", "-text"]);
    let ca = show("ca.pem");
    for part in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Subject Key Identifier",
        "O = fsvc, CN = fsvc CA ",
        "(ann@buildbox)",
        "prime256v1",
    ] {
        assert!(ca.contains(part), "{part:?} is not in\n{ca}");
    }
    assert!(!ca.contains("Extended Key Usage"));

    let server = show("server.pem");
    let names = "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:buildbox, \
                 URI:spiffe://buildbox.fsvc.internal/server/main";
    let client = show("clients/dev.pem");
    for (text, names, usage) in [
        (&server, names, "TLS Web Server Authentication"),
        (
            &client,
            "URI:spiffe://buildbox.fsvc.internal/client/dev",
            "TLS Web Client Authentication",
        ),
    ] {
        for part in [
            &format!("X509v3 Subject Alternative Name: \n                {names}\n"),
            &format!("X509v3 Extended Key Usage: \n                {usage}\n"),
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Subject Key Identifier",
            "X509v3 Authority Key Identifier",
            "prime256v1",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}

#[test]
fn the_first_revocation_list_is_empty_and_lasts_as_long_as_the_ca() {
    let place = Place::ready();
    let list = openssl(
        &place,
        &[
            "crl", "-in", "ca.crl", "-noout", "-text", "-CAfile", "ca.pem",
        ],
    );
    assert!(list.contains("verify OK"), "{list}");
    assert!(list.contains("No Revoked Certificates"), "{list}");
    let next = |text: &str, label: &str| {
        let line = text.lines().find(|line| line.contains(label)).unwrap();
        line.split_once(label).unwrap().1.trim().to_owned()
    };
    let ca = openssl(&place, &["x509", "-in", "ca.pem", "-noout", "-enddate"]);
    assert_eq!(next(&list, "Next Update:"), next(&ca, "notAfter="));
}

#[test]
fn python_trusts_and_loads_what_was_made() {
    let place = Place::ready();
    let script = "
import ssl
strict = getattr(ssl, 'VERIFY_X509_STRICT', 0)
def context(purpose, pair):
    c = ssl.create_default_context(purpose, cafile='ca.pem')
    c.verify_flags |= strict
    c.load_cert_chain(*pair)
    return c
server = context(ssl.Purpose.CLIENT_AUTH, ('server.pem', 'server-key.pem'))
server.verify_mode = ssl.CERT_REQUIRED
client = context(ssl.Purpose.SERVER_AUTH, ('clients/dev.pem', 'clients/dev-key.pem'))
for name in ['localhost', '127.0.0.1', '::1', 'buildbox']:
    a, b, c, d = (ssl.MemoryBIO() for _ in range(4))
    s = server.wrap_bio(a, b, server_side=True)
    k = client.wrap_bio(c, d, server_hostname=name)
    done = set()
    for _ in range(10):
        for who, end in (('k', k), ('s', s)):
            try:
                end.do_handshake(); done.add(who)
            except ssl.SSLWantReadError:
                pass
        a.write(d.read()); c.write(b.read())
    assert done == {'k', 's'}, (name, done)
    san = s.getpeercert()['subjectAltName']
    assert san == (('URI', 'spiffe://buildbox.fsvc.internal/client/dev'),), san
print('fine')
";
    let mut python = Command::new("python3");
    let text = output(python.args(["-c", script]).current_dir(&place.dir));
    assert_eq!(text.trim(), "fine");
}
