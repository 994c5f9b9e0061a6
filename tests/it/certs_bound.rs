//! CAs that the policy binds to a trust domain, when they are changed: nobody is locked out by it, and
//! nobody is trusted on.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::certs::{certs, ok, refused};
use crate::harness::{Server, Setup, fsvc, gen_certs, text};
use crate::reload::{n_in_log, until};
use crate::trust::trust;

/// What a server says of a set of files that it has taken up.
const NEW_SET: &str = "other certificates hold now";

fn server(dir: &Path) -> Server {
    Server::start_with(Setup {
        certs: Some(dir.to_owned()),
        arguments: ["--reload-every", "100ms"].map(str::to_owned).to_vec(),
        ..Setup::default()
    })
}

fn bind(dir: &Path, file: &str, domain: &str) {
    let policy = fs::read_to_string(dir.join("policy.toml")).unwrap();
    fs::write(dir.join("policy.toml"), policy + &trust(file, domain, "")).unwrap();
}

#[test]
fn a_new_ca_signs_only_where_it_may_name_anybody() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("certs");
    gen_certs(&dir, &["dev"]);
    fs::copy(dir.join("ca.pem"), dir.join("own.pem")).unwrap();
    bind(&dir, "own.pem", "test.internal");
    let server = server(&dir);
    server.ok(&["ls", "/"]);
    ok(&dir, &["rotate-ca", "start"]);
    let said = refused(3, &dir, &["rotate-ca", "promote", "--now"]);
    for part in [
        "own.pem",
        "test.internal",
        "would be refused",
        "hint: put it there",
    ] {
        assert!(said.contains(part), "{said}");
    }
    server.ok(&["ls", "/"]);

    until("both are trusted", || server.log().contains("n_cas=2"));
    let n_before = n_in_log(&server, NEW_SET);
    fs::copy(dir.join("ca.pem"), dir.join("own.pem")).unwrap();
    until("the new CA is bound", || {
        n_in_log(&server, NEW_SET) > n_before
    });
    ok(&dir, &["rotate-ca", "promote", "--now"]);
    ok(&dir, &["renew", "--all"]);
    server.ok(&["ls", "/"]);
    let finish = certs(&dir, &["rotate-ca", "finish"]);
    assert!(finish.status.success());
    assert_eq!(text(&finish.stderr), "");
    until("the old CA is out", || server.log().contains("n_cas=1"));
    server.ok(&["ls", "/"]);
}

#[test]
fn a_ca_that_is_taken_out_while_it_is_bound_is_said_to_be_trusted_still() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, corp) = (scratch.path().join("certs"), scratch.path().join("corp"));
    gen_certs(&dir, &["dev"]);
    let made = fsvc()
        .args(["gen-certs", "--trust-domain", "corp.example", "--dir"])
        .arg(&corp)
        .output();
    assert!(made.unwrap().status.success());
    let (ca, crl) = (corp.join("ca.pem"), corp.join("ca.crl"));
    let (ca, crl) = (ca.to_str().unwrap(), crl.to_str().unwrap());
    ok(&dir, &["bundle", "add", ca, "--crl", crl]);
    let before = fs::read_to_string(dir.join("policy.toml")).unwrap();
    fs::copy(ca, dir.join("corp.pem")).unwrap();
    bind(&dir, "corp.pem", "corp.example");
    fs::copy(dir.join("ca.pem"), corp.join("ca.pem")).unwrap();
    let server = server(&dir);
    let ping = || {
        let mut command = fsvc();
        command.args(["ping", "--retry-for", "0s", "--server", &server.address]);
        command.arg("--tls-dir").arg(&corp);
        command.output().unwrap().status.code()
    };
    assert_eq!(ping(), Some(0));
    let corp_ca = dir.join("corp.pem");
    let removed = certs(&dir, &["bundle", "remove", corp_ca.to_str().unwrap()]);
    let said = text(&removed.stderr);
    assert!(removed.status.success(), "{said}");
    for part in ["corp.pem", "trusts it still", "hint: take the entry out"] {
        assert!(said.contains(part), "{said}");
    }
    // The same for a program, of a CA that was trusted again: it is no error.
    let corp_ca = corp_ca.to_str().unwrap();
    ok(&dir, &["bundle", "add", corp_ca, "--crl", crl]);
    let remove = ["bundle", "remove", corp_ca, "--json"];
    let removed = certs(&dir, &remove);
    assert!(removed.status.success());
    let said: Value = serde_json::from_slice(&removed.stderr).unwrap();
    let message = said["warning"]["message"].as_str().unwrap();
    assert!(message.contains("trusts it still"), "{said}");
    // So it is; and what is advised ends it.
    until("the server says so", || {
        server.log().contains("what held before still holds")
    });
    assert_eq!(ping(), Some(0));
    fs::write(dir.join("policy.toml"), before).unwrap();
    until("it is out", || ping() == Some(5));
    server.ok(&["ls", "/"]);
}
