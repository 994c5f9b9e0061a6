//! Directories with a CA that gen-certs did not make, or made long ago: it signs if it can, and is
//! never replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::certs::{certs, ok, tree};
use crate::harness::{Server, Setup, fsvc, text};

/// Puts a CA in place that openssl makes, of a key of this kind and with these usages.
fn foreign(key: &str, usages: &str) -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("certs");
    let private = dir.join("ca-private");
    fs::create_dir_all(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-nodes",
        "-subj",
        "/CN=Foreign",
        "-days",
        "99",
    ]);
    openssl.args(["-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-newkey"]);
    openssl.args(key.split(' ')).args(["-addext", usages]);
    let output = openssl.current_dir(&private).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let closed = fs::Permissions::from_mode(0o600);
    fs::set_permissions(private.join("ca-key.pem"), closed).unwrap();
    fs::copy(private.join("ca-cert.pem"), dir.join("ca.pem")).unwrap();
    (scratch, dir)
}

fn gen_certs(dir: &Path, words: &[&str]) -> Output {
    let mut command = fsvc();
    command.args(["gen-certs", "--trust-domain", "test.internal"]);
    command.args(words).arg("--dir").arg(dir).output().unwrap()
}

#[track_caller]
fn refused(dir: &Path, says: &str) {
    // A file that keeps keys out of a repository does no harm.
    fs::write(dir.join(".gitignore"), "*\n").unwrap();
    let before = tree(dir);
    let output = gen_certs(dir, &["--client", "dev"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains(says), "{says:?} not in: {stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    assert_eq!(tree(dir), before);
}

#[test]
fn a_ca_of_another_tool_signs_once_its_index_is_begun() {
    let usages = "keyUsage=critical,keyCertSign,cRLSign";
    for key in [
        "ec -pkeyopt ec_paramgen_curve:P-256",
        "ec -pkeyopt ec_paramgen_curve:P-384",
        "rsa:2048",
        "ed25519",
    ] {
        let (_scratch, dir) = foreign(key, usages);
        refused(&dir, "index.jsonl");
        fs::write(dir.join("ca-private/index.jsonl"), "").unwrap();
        let before = fs::read(dir.join("ca.pem")).unwrap();
        let output = gen_certs(&dir, &["--client", "dev"]);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{key}: {stderr}");
        ok(&dir, &["add", "--client", "eve"]);
        ok(&dir, &["revoke", "eve"]);
        assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), before, "{key}");
        let verify = ["verify", "-x509_strict", "-crl_check", "-CAfile", "ca.pem"];
        let mut openssl = Command::new("openssl");
        openssl.args(verify).args(["-CRLfile", "ca.crl"]);
        openssl.args(["server.pem", "clients/dev.pem"]);
        let output = openssl.current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{key}: {}", text(&output.stderr));
        let server = Server::start_with(Setup {
            certs: Some(dir),
            ..Setup::default()
        });
        server.ok(&["ls", "/"]);
        let output = server.client("eve", &["whoami"]).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{key}");
    }
}

#[test]
fn a_ca_of_another_tool_that_may_not_sign_is_left_alone() {
    for (usages, says) in [
        ("subjectKeyIdentifier=hash", "lacks keyCertSign or cRLSign"),
        ("keyUsage=keyCertSign", "lacks keyCertSign or cRLSign"),
        ("keyUsage=digitalSignature", "lacks keyCertSign or cRLSign"),
    ] {
        let (_scratch, dir) = foreign("rsa:2048", usages);
        fs::write(dir.join("ca-private/index.jsonl"), "").unwrap();
        refused(&dir, says);
    }
}

/// A directory whose CA is over: what signs says so, what repairs works.
#[test]
fn a_ca_that_is_over_signs_nothing_and_is_never_replaced() {
    let (_scratch, dir) = crate::certs::aged(6, &["dev"], (5, Some(5)));
    refused(&dir, "expired");
    for words in [
        &["add", "--client", "x"][..],
        &["renew", "--all", "--window", "100%"],
    ] {
        let before = tree(&dir);
        let output = certs(&dir, words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {stderr}");
        assert!(stderr.contains("rotate-ca"), "{words:?}: {stderr}");
        assert_eq!(tree(&dir), before, "{words:?}");
    }
    ok(&dir, &["list"]);
    ok(&dir, &["rotate-ca", "start"]);
    ok(&dir, &["rotate-ca", "promote", "--now"]);
    ok(&dir, &["add", "--client", "dev", "--again"]);
    ok(&dir, &["renew", "--all"]);
    ok(&dir, &["rotate-ca", "finish"]);
    let server = Server::start_with(Setup {
        certs: Some(dir),
        ..Setup::default()
    });
    server.ok(&["ls", "/"]);
}
