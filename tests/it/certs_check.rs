//! `fsvc certs check`: what is broken is told, with an exit code that a timer can act on.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::certs::{certs, ok};
use crate::harness::{Server, Setup, gen_certs, text};

/// A directory that was made some days ago, for 365.
fn aged(days: i64) -> (TempDir, PathBuf) {
    crate::certs::aged(days, &["dev", "alice"], (365, None))
}

/// What a check prints, and how it ends.
#[track_caller]
fn check(dir: &Path, arguments: &[&str], code: i32) -> String {
    let output = certs(dir, &[&["check"], arguments].concat());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn what_is_sound_is_0_what_is_old_is_1_what_is_over_is_2() {
    for (age, code, says) in [
        (0, 0, "until"),
        (240, 0, "until"),
        (250, 1, "EXPIRING"),
        (364, 1, "EXPIRING"),
        (366, 2, "expired"),
    ] {
        let (_scratch, dir) = aged(age);
        let said = check(&dir, &[], code);
        assert!(said.contains(says), "{age}: {said}");
        check(&dir, &["--as", "dev"], code);
        if code > 0 {
            assert!(said.contains("certs renew"), "{said}");
            ok(&dir, &["renew", "--all"]);
            check(&dir, &[], 0);
        }
    }
    let (_scratch, dir) = aged(-10);
    let said = check(&dir, &[], 2);
    assert!(
        said.contains("valid until") || said.contains("not valid"),
        "{said}"
    );
}

type Breakage = fn(&Path, &Path);

/// What is done to a directory, given another one; how the check ends; what it says.
const CASES: &[(Breakage, i32, &str)] = &[
    (
        |d, _| cp(&d.join("clients/dev-key.pem"), &d.join("server-key.pem")),
        2,
        "does not belong to",
    ),
    (
        |d, _| cp(&d.join("server-key.pem"), &d.join("clients/dev-key.pem")),
        2,
        "does not belong to",
    ),
    (
        |d, _| swap(&d.join("server"), &d.join("clients/dev")),
        2,
        "is not for server",
    ),
    (
        |d, _| chmod(&d.join("server-key.pem"), 0o644),
        2,
        "mode 0644",
    ),
    (
        |d, _| chmod(&d.join("clients/dev-key.pem"), 0o666),
        2,
        "mode 0666",
    ),
    (
        |d, o| cp(&o.join("ca.pem"), &d.join("ca.pem")),
        2,
        "signed that (it has",
    ),
    (
        |d, o| cp(&o.join("ca.crl"), &d.join("ca.crl")),
        2,
        "has no list of",
    ),
    (
        |d, o| cp(&o.join("clients/dev.pem"), &d.join("clients/dev.pem")),
        2,
        "signed that (it has",
    ),
    (
        |d, _| cp(&d.join("clients/dev.pem"), &d.join("ca.pem")),
        2,
        "is no CA",
    ),
    (
        |d, _| cp(&d.join("ca.pem"), &d.join("clients/dev.pem")),
        2,
        "a CA's certificate",
    ),
    (
        |d, _| cp(&d.join("clients/dev-key.pem"), &d.join("clients/dev.pem")),
        2,
        "found PRIVATE KEY",
    ),
    (
        |d, _| fs::write(d.join("server.pem"), "nonsense").unwrap(),
        2,
        "no PEM",
    ),
    (
        |d, _| fs::write(d.join("ca.crl"), "").unwrap(),
        2,
        "is empty",
    ),
    (|d, _| tear(&d.join("ca.crl")), 2, "ca.crl"),
    (|d, _| tear(&d.join("clients/alice.pem")), 2, "alice.pem"),
    (
        |d, _| fs::remove_file(d.join("ca.crl")).unwrap(),
        3,
        "ca.crl",
    ),
    (
        |d, _| fs::remove_file(d.join("ca.pem")).unwrap(),
        3,
        "ca.pem",
    ),
    (
        |d, _| fs::remove_file(d.join("server-key.pem")).unwrap(),
        3,
        "server-key.pem",
    ),
    (|d, _| fs::remove_dir_all(d).unwrap(), 3, "ca.pem"),
    (|d, _| drop(ok(d, &["revoke", "server"])), 2, "server.pem"),
    // That a client was revoked is as it should be.
    (
        |d, _| drop(ok(d, &["revoke", "alice"])),
        0,
        "certs add --client alice --again",
    ),
    (
        |d, _| fs::remove_file(d.join("clients/dev-key.pem")).unwrap(),
        0,
        "its key is not here",
    ),
    (
        |d, _| fs::remove_dir_all(d.join("ca-private")).unwrap(),
        0,
        "until",
    ),
    (|d, _| drop(ok(d, &["rotate-ca", "start"])), 0, "until"),
];

#[test]
fn each_thing_that_is_broken_is_told_from_the_others() {
    let other = TempDir::new().unwrap();
    gen_certs(&other.path().join("certs"), &["dev"]);
    for (number, (breakage, code, says)) in CASES.iter().enumerate() {
        let (_scratch, dir) = aged(0);
        breakage(&dir, &other.path().join("certs"));
        let said = check(&dir, &[], *code);
        assert!(said.contains(says), "case {number}: {said}");
        let printed = check(&dir, &["--json"], *code);
        let report: Value = serde_json::from_str(&printed).unwrap();
        let levels = report["findings"].as_array().unwrap().iter();
        let worst = match code {
            0 => "ok",
            2 => "broken",
            _ => "unreadable",
        };
        assert!(
            levels.clone().any(|finding| finding["level"] == worst),
            "{number}: {report}"
        );
    }
}

fn cp(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn swap(one: &Path, other: &Path) {
    for end in [".pem", "-key.pem"] {
        let name = |stem: &Path| PathBuf::from(format!("{}{end}", stem.display()));
        let held = fs::read(name(one)).unwrap();
        fs::copy(name(other), name(one)).unwrap();
        fs::write(name(other), held).unwrap();
    }
}

/// Leaves the first half of a file.
fn tear(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn one_client_is_looked_at_alone() {
    let (_scratch, dir) = aged(0);
    ok(&dir, &["revoke", "alice"]);
    fs::write(dir.join("server.pem"), "nonsense").unwrap();
    check(&dir, &["--as", "dev"], 0);
    let said = check(&dir, &["--as", "alice"], 2);
    assert!(said.contains("was revoked"), "{said}");
    let said = check(&dir, &["--as", "nobody"], 3);
    assert!(said.contains("nobody.pem"), "{said}");
}

#[test]
fn a_handshake_shows_what_each_end_says_of_the_other() {
    let server = Server::start();
    let dir = server.certs();
    let at = |name: &'static str| ["--connect", &server.address, "--as", name].map(str::to_owned);
    let at = |name| at(name).to_vec();
    let run = |name, code| {
        let arguments = at(name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        check(&dir, &arguments, code)
    };
    let said = run("dev", 0);
    assert!(
        said.contains("takes you for spiffe://test.internal/client/dev"),
        "{said}"
    );
    assert!(said.contains("the server shows CN=localhost"), "{said}");
    assert!(said.contains("127.0.0.1"), "{said}");
    let said = check(&dir, &["--connect", &server.address], 2);
    assert!(said.contains("--as"), "{said}");
    // What cert-manager mounts is found by itself.
    let secret = TempDir::new().unwrap();
    let mounted = secret.path();
    cp(&dir.join("ca.pem"), &mounted.join("ca.crt"));
    cp(&dir.join("clients/dev.pem"), &mounted.join("tls.crt"));
    cp(&dir.join("clients/dev-key.pem"), &mounted.join("tls.key"));
    let said = check(mounted, &["--connect", &server.address], 0);
    assert!(
        said.contains("tls.crt: spiffe://test.internal/client/dev"),
        "{said}"
    );
    assert!(said.contains("takes you for"), "{said}");
    cp(&dir.join("clients/bob-key.pem"), &mounted.join("tls.key"));
    let said = check(mounted, &[], 2);
    assert!(
        said.contains("does not belong to") && said.contains("[TLS11]"),
        "{said}"
    );
    cp(&dir.join("ca.pem"), &mounted.join("ca.pem"));
    let said = check(mounted, &[], 2);
    assert!(said.contains("not clear which is meant"), "{said}");

    // Files of another CA: both ends say no, the client first.
    let other = TempDir::new().unwrap();
    let theirs = other.path().join("certs");
    gen_certs(&theirs, &["dev"]);
    let said = check(&theirs, &["--connect", &server.address, "--as", "dev"], 2);
    assert!(
        said.contains("cannot trust") && said.contains("[TLS02]"),
        "{said}"
    );
    // With the right CA file, the server says no.
    fs::copy(dir.join("ca.pem"), theirs.join("ca.pem")).unwrap();
    let said = check(&theirs, &["--connect", &server.address, "--as", "dev"], 2);
    assert!(
        said.contains("does not trust the CA") && said.contains("[TLS01]"),
        "{said}"
    );

    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let said = check(&dir, &["--connect", &address, "--as", "dev"], 3);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn a_server_that_is_old_is_told() {
    let (_scratch, dir) = aged(300);
    let server = Server::start_with(Setup {
        certs: Some(dir.clone()),
        ..Setup::default()
    });
    ok(&dir, &["renew", "dev"]);
    let said = check(&dir, &["--as", "dev"], 0);
    assert!(!said.contains("EXPIRING"), "{said}");
    let connect = ["--connect", &server.address, "--as", "dev"];
    let said = check(&dir, &connect, 1);
    assert!(
        said.contains("EXPIRING") && said.contains("the server shows"),
        "{said}"
    );
}
