//! What is sound is told no code, by whatever the policy knows a client; what is not reached is no failure
//! of TLS.

use std::net::TcpListener;

use fsvc::tls::failure::FailureCode;
use rcgen::{DistinguishedName, ExtendedKeyUsagePurpose as Use, SanType};
use serde_json::json;

use super::{Desk, Said, Told, good};
use crate::certs::{certs, ok};
use crate::harness::{Server, Setup, gen_certs, text};
use crate::matrix::{Ca, GOOD, Matrix, POLICY, Pair, uris};
use crate::strange_servers::tls;
use crate::trust::{trust, trusting};

#[test]
fn a_sound_set_up_is_told_no_code() {
    let matrix = Matrix::new();
    let between = matrix.ca.below("between", |_| {});
    matrix.write("ca.crl", matrix.ca.empty_list() + &between.empty_list());
    let server = matrix.serve(&[]);
    let at = ["--connect", server.address.as_str()];
    good(&matrix).check(&at).is_sound();
    Said::of(matrix.dir(), &at).is_sound();
    let pair = between.client(|_| {}).with(&[&between.pem]);
    Desk::new(&matrix.ca.pem, &pair).check(&at).is_sound();

    // What fsvc makes itself, with a peer and a change of the CA under way.
    let server = Server::start();
    let dir = server.certs();
    ok(&dir, &["add", "--peer", "hub", "--host", "hub.internal"]);
    ok(&dir, &["rotate-ca", "start"]);
    let at = ["--connect", &server.address, "--as", "dev"];
    let said = Said::of(&dir, &at);
    said.is_sound();
    assert!(
        said.human
            .contains("grants of its policy for spiffe://test.internal/client/dev: 1"),
        "{}",
        said.human
    );
    Said::of(&dir, &[]).is_sound();
}

/// A server that binds `corp` with these further lines, and has a grant for all of its clients; the client `case`
/// has this pair.
fn binding(corp: &Ca, more: &str, pair: &Pair) -> (Matrix, Server) {
    let grant = "\n[[grant]]\nto = \"spiffe://corp.example/**\"\nallow = \"list\"\non = \"/**\"\n";
    let settings = grant.to_owned() + &trust("corp.pem", "corp.example", more);
    let matrix = trusting(&[("corp", corp)], &settings);
    let server = matrix.serve(&["--ca", matrix.path("server-ca.pem").to_str().unwrap()]);
    matrix.add("case", pair);
    (matrix, server)
}

/// Clients of a CA that the policy binds, as the server and as the check take them.
#[test]
fn trust_settings_count_as_they_do_at_the_server() {
    let corp = Ca::root("corp root");
    let host = || SanType::DnsName("host-1.corp.example".try_into().unwrap());
    let by_dns = corp.client(|params| params.subject_alt_names = vec![host()]);
    let by_cn = corp.client(|params| params.subject_alt_names = vec![]);
    let of_both = corp.client(|params| {
        params.subject_alt_names = uris(&["spiffe://corp.example/node"]);
        params.subject_alt_names.push(host());
        params.extended_key_usages.push(Use::ServerAuth);
    });
    let by_uri = corp.client_named("spiffe://corp.example/ann");
    for (more, pair, path) in [
        ("identity = \"dns\"", &by_dns, "dns/host-1.corp.example"),
        ("identity = \"cn\"", &by_cn, "cn/good"),
        ("also_servers = true", &of_both, "node"),
        ("", &by_uri, "ann"),
    ] {
        let (matrix, server) = binding(&corp, more, pair);
        let identity = format!("spiffe://corp.example/{path}");
        let (bundle, policy) = (matrix.path("server-ca.pem"), matrix.path("policy.toml"));
        let ca = ["--client-ca", bundle.to_str().unwrap()];
        let at = ["--connect", server.address.as_str()];
        // The files alone, and with the server.
        let alone = [&["--as", "case"][..], &ca].concat();
        let said = Said::of(matrix.dir(), &alone);
        said.is_sound();
        let known = format!("case.pem: {identity}; until");
        assert!(said.human.contains(&known), "{}", said.human);
        Said::of(matrix.dir(), &[&alone[..], &at].concat()).is_sound();
        Said::of(matrix.dir(), &ca).is_sound();
        // A machine that has no policy: the server knows better than its files.
        let desk = Desk::new(&matrix.ca.pem, pair);
        let said = desk.check(&at);
        said.is_sound();
        for words in [
            "the server takes it all the same",
            &format!("takes you for {identity}"),
        ] {
            assert!(
                said.human.contains(words),
                "{words:?} not in: {}",
                said.human
            );
        }
        // A policy that is given by its file: the CAs that it names are beside it.
        let given = [&["--policy", policy.to_str().unwrap()][..], &ca].concat();
        desk.check(&given).is_sound();
        let without = desk.check(&ca);
        let expected: &[&str] = if more.is_empty() { &[] } else { &["TLS22"] };
        assert_eq!(without.codes(), expected, "{}", without.human);
    }
}

/// Who names what his CA may not name is nobody, here as there.
#[test]
fn trust_settings_refuse_as_they_do_at_the_server() {
    let corp = Ca::root("corp root");
    let foreign = corp.client_named(GOOD);
    let nameless = corp.client(|params| params.distinguished_name = DistinguishedName::new());
    for (more, pair, words) in [
        (
            "",
            &foreign,
            "its CA CN=corp root may name only corp.example",
        ),
        (
            "identity = \"dns\"",
            &foreign,
            "the certificate has no DNS name",
        ),
        (
            "identity = \"cn\"",
            &nameless,
            "the certificate has no common name",
        ),
    ] {
        let (matrix, server) = binding(&corp, more, pair);
        let bundle = matrix.path("server-ca.pem");
        let alone = ["--as", "case", "--client-ca", bundle.to_str().unwrap()];
        let told = Told(FailureCode::NoIdentity);
        told.by(matrix.dir(), &alone, 2, &[words]);
        let at = [&alone[..], &["--connect", &server.address]].concat();
        let said = told.by(matrix.dir(), &at, 2, &[words]);
        assert_eq!(said.human.matches(words).count(), 2, "{}", said.human);
    }
}

#[test]
fn a_policy_that_cannot_be_used_is_told() {
    let matrix = Matrix::new();
    let said = Said::of(matrix.dir(), &["--policy", "/nowhere/policy.toml"]);
    assert_eq!(said.exit, Some(3), "{}", said.human);
    assert!(
        said.human.contains("no policy at /nowhere/policy.toml"),
        "{}",
        said.human
    );
    matrix.write("policy.toml", "nonsense");
    let said = Said::of(matrix.dir(), &[]);
    assert_eq!(said.exit, Some(2), "{}", said.human);
    assert!(
        said.human.contains("policy.toml is refused"),
        "{}",
        said.human
    );
    // To who looks at one client it is somebody else's.
    let said = Said::of(matrix.dir(), &["--as", "good"]);
    assert_eq!(said.exit, Some(0), "{}", said.human);
    let settings = trust("gone.pem", "corp.example", "");
    matrix.write("policy.toml", format!("{POLICY}{settings}"));
    let said = Said::of(matrix.dir(), &[]);
    assert_eq!(said.exit, Some(3), "{}", said.human);
    assert!(said.human.contains("gone.pem"), "{}", said.human);
    matrix.write("gone.pem", Ca::root("corp root").pem);
    let said = Said::of(matrix.dir(), &[]);
    assert_eq!(said.exit, Some(2), "{}", said.human);
    assert!(
        said.human.contains("CN=corp root is not in "),
        "{}",
        said.human
    );
    std::fs::remove_file(matrix.path("policy.toml")).unwrap();
    Said::of(matrix.dir(), &[]).is_sound();
}

/// Not reached is not broken; and a clock that is off is told before it breaks anything.
#[test]
fn what_is_not_reached_and_a_clock_that_is_off_are_told_apart() {
    let matrix = Matrix::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let said = good(&matrix).check(&["--connect", &address]);
    assert_eq!(said.exit, Some(3), "{}", said.human);
    assert_eq!(said.codes(), ["none"], "{}", said.human);
    assert!(
        said.human.contains("is fsvc serve running at"),
        "{}",
        said.human
    );

    let hello = json!({"hello": {
        "server": "fsvc/0", "time": "2001-01-01T00:00:00Z", "identity": GOOD,
        "expires_at": "2101-01-01T00:00:00Z",
    }});
    let real = Matrix::new();
    let server = real.serve(&[]);
    let mut raw = greeting(&real, &server);
    for (name, value) in hello["hello"].as_object().unwrap() {
        raw["hello"][name] = value.clone();
    }
    let frame: &'static [u8] = crate::raw::message(&raw.to_string()).leak();
    let port = tls(
        &matrix,
        &matrix.ca.server(&["localhost"], |_| {}),
        &["fsvc/1"],
        frame,
    );
    let said = good(&matrix).check(&["--connect", &format!("localhost:{port}")]);
    assert_eq!(said.exit, Some(1), "{}", said.human);
    assert!(
        said.human.contains("its clock and this one differ by"),
        "{}",
        said.human
    );
    assert!(
        said.human.contains("it says 2001-01-01") && said.human.contains("[TLS08]"),
        "{}",
        said.human
    );
}

/// What a real server says first.
fn greeting(matrix: &Matrix, server: &Server) -> serde_json::Value {
    use std::io::Read;
    let files = matrix.files(Some("good"));
    let config = fsvc::tls::client::configure(&files, jiff::Timestamp::now()).unwrap();
    let mut stream = crate::refusals::connect(&server.address, config);
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let mut content = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
    stream.read_exact(&mut content).unwrap();
    serde_json::from_slice(&content).unwrap()
}

/// Several clients and no choice is a wrong command line, and a secret is its own client.
#[test]
fn who_connects_is_never_guessed() {
    let place = tempfile::TempDir::new().unwrap();
    let dir = place.path().join("certs");
    gen_certs(&dir, &["dev", "alice"]);
    let server = Server::start_with(Setup {
        certs: Some(dir.clone()),
        ..Setup::default()
    });
    let output = certs(&dir, &["check", "--connect", &server.address]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("alice, dev; say which with --as NAME"),
        "{stderr}"
    );
    let secret = tempfile::TempDir::new().unwrap();
    for (from, to) in [
        ("ca.pem", "ca.crt"),
        ("clients/dev.pem", "tls.crt"),
        ("clients/dev-key.pem", "tls.key"),
    ] {
        std::fs::copy(dir.join(from), secret.path().join(to)).unwrap();
    }
    Said::of(secret.path(), &["--connect", &server.address]).is_sound();
}

/// A peer that takes the connection and never says a word: the check ends all the same.
#[test]
fn a_silent_peer_is_not_waited_for_without_end() {
    let matrix = Matrix::new();
    let port = crate::strange_servers::listen(|tcp| {
        std::thread::spawn(move || std::io::copy(&mut &tcp, &mut std::io::sink()));
    });
    let mut command = crate::harness::fsvc();
    command.args([
        "certs",
        "check",
        "--connect",
        &format!("127.0.0.1:{port}"),
        "--dir",
    ]);
    let output = command.arg(matrix.dir()).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("said nothing for 10s"), "{said}");
}
