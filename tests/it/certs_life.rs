//! Certificates that are added, renewed, revoked and listed, with a server that lives through it.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fsvc::client::{Client, Options, TransferOptions};
use serde_json::Value;

use crate::certs_rotate::{certs_ok, certs_refused};
use crate::harness::{Server, Setup, fsvc, gen_certs, text};
use crate::raw::{Raw, code};
use crate::reload::until;

/// A server that looks at its files often.
fn server() -> Server {
    Server::start_with(Setup {
        arguments: ["--reload-every", "100ms"].map(str::to_owned).to_vec(),
        ..Setup::default()
    })
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    let out = certs_ok(&server.certs(), &[arguments, &["--json"]].concat());
    serde_json::from_str(&out).unwrap()
}

fn whoami(server: &Server, name: &str) -> (Option<i32>, String) {
    let output = server.client(name, &["whoami"]).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

/// The serial number of the certificate that was made.
fn made(report: &Value) -> String {
    let made = report.get("renewed").map_or(report, |renewed| &renewed[0]);
    made["serial"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_is_added_once_and_works_at_once() {
    let server = server();
    let carol = json(&server, &["add", "--client", "carol"]);
    assert_eq!(carol["name"], "carol");
    until("the policy knows carol", || {
        let put = server.client("carol", &["ls", "/"]).output().unwrap();
        put.status.success()
    });
    let said = certs_refused(&server.certs(), &["add", "--client", "carol"]);
    assert!(said.contains(&made(&carol)), "{said}");
    let second = json(&server, &["add", "--client", "carol", "--again"]);
    assert_ne!(made(&carol), made(&second));
    assert_eq!(second["still_valid"][0], made(&carol));
    assert_eq!(whoami(&server, "carol").0, Some(0));
    // Two are in force: which one is meant must be said.
    let said = certs_refused(&server.certs(), &["revoke", "carol"]);
    assert!(
        said.contains(&made(&carol)) && said.contains(&made(&second)),
        "{said}"
    );
    assert_eq!(
        json(&server, &["revoke", "--all-of", "carol"])["revoked"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    certs_refused(&server.certs(), &["add", "--client", "dev"]);
    certs_refused(&server.certs(), &["renew", "nobody"]);
    certs_refused(&server.certs(), &["revoke", "nobody"]);
    certs_refused(&server.certs(), &["revoke", "--serial", "00ff"]);
}

#[test]
fn a_renewed_certificate_has_another_serial_number_and_outlives_the_old_one() {
    let server = server();
    let key = server.certs().join("clients/dev-key.pem");
    let (old, old_key) = (
        server.certs().join("clients/dev.pem"),
        fs::read(&key).unwrap(),
    );
    let old = fs::read(old).unwrap();
    let first = json(&server, &["renew", "dev", "--reuse-key"]);
    assert_eq!(fs::read(&key).unwrap(), old_key);
    let before = first["renewed"][0]["old_serial"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(made(&first), before);
    // Of one key, only the certificate that is named is revoked.
    json(&server, &["revoke", "--serial", &before]);
    let old_pair = server.certs().join("clients/old.pem");
    fs::write(&old_pair, old).unwrap();
    fs::copy(&key, server.certs().join("clients/old-key.pem")).unwrap();
    until("the old one is out", || whoami(&server, "old").0 == Some(5));
    assert!(whoami(&server, "old").1.contains("revoked"));
    assert_eq!(whoami(&server, "dev").0, Some(0));
    fs::remove_file(&old_pair).unwrap();
    fs::remove_file(server.certs().join("clients/old-key.pem")).unwrap();

    let second = json(&server, &["renew", "dev"]);
    assert_ne!(fs::read(&key).unwrap(), old_key);
    assert_eq!(second["renewed"][0]["old_serial"], made(&first));
    assert_eq!(whoami(&server, "dev").0, Some(0));
    // None of the others is near its end.
    let all = json(&server, &["renew", "--all"]);
    assert_eq!(all["renewed"], Value::Array(Vec::new()), "{all}");
    let all = json(&server, &["renew", "--all", "--window", "100%"]);
    assert_eq!(all["renewed"].as_array().unwrap().len(), 4, "{all}");
    until("the new certificate of the server is shown", || {
        server.log().contains("other certificates hold now")
    });
    assert_eq!(whoami(&server, "alice").0, Some(0));
}

#[test]
fn who_is_revoked_is_out_and_listed() {
    let server = server();
    let (mut dev, mut alice) = (Raw::connect(&server, "dev"), Raw::connect(&server, "alice"));
    let revoked = json(&server, &["revoke", "dev", "--reason", "key-compromise"]);
    assert_eq!(revoked["revoked"][0]["reason"], "key_compromise");
    assert_eq!(code(&dev.answer()), "certificate_revoked");
    dev.ends();
    alice.lives();
    assert_eq!(whoami(&server, "dev").0, Some(5));
    // Once more is no error, and changes neither time nor reason.
    let serial = revoked["revoked"][0]["serial"].as_str().unwrap();
    let again = json(&server, &["revoke", "--serial", serial]);
    assert_eq!(again["revoked"][0]["was_revoked"], true);
    assert_eq!(again["revoked"][0]["at"], revoked["revoked"][0]["at"]);
    assert_eq!(again["revoked"][0]["reason"], "key_compromise");

    let listed = json(&server, &["list"]);
    let of_dev = |item: &&Value| item["name"] == "dev";
    let listed = listed["certificates"].as_array().unwrap();
    assert_eq!(listed.len(), 5);
    assert_eq!(listed.iter().find(of_dev).unwrap()["status"], "revoked");
    let soon = json(&server, &["list", "--expiring", "400d"]);
    let soon = soon["certificates"].as_array().unwrap();
    assert!(
        soon.iter()
            .all(|item| item["name"] != "dev" && item["name"] != "ca")
    );
    assert_eq!(
        json(&server, &["list", "--expiring", "30d"])["certificates"],
        Value::Array(vec![])
    );
    // A list that was lost is made again, with all that is in the index.
    fs::remove_file(server.certs().join("ca.crl")).unwrap();
    gen_certs(&server.certs(), &[]);
    let shown = Command::new("openssl")
        .args(["crl", "-noout", "-text", "-in"])
        .arg(server.certs().join("ca.crl"))
        .output()
        .unwrap();
    let shown = text(&shown.stdout).to_lowercase();
    assert!(
        shown.contains(serial) && shown.contains("key compromise"),
        "{shown}"
    );
    server.signal("HUP");
    assert_eq!(whoami(&server, "dev").0, Some(5));
}

#[test]
fn what_is_issued_passes_the_strict_check_of_openssl() {
    let server = server();
    certs_ok(&server.certs(), &["renew", "dev", "--reuse-key"]);
    certs_ok(&server.certs(), &["renew", "server"]);
    for name in ["clients/dev.pem", "server.pem"] {
        let verified = Command::new("openssl")
            .args(["verify", "-x509_strict", "-crl_check", "-CAfile"])
            .arg(server.certs().join("ca.pem"))
            .arg("-CRLfile")
            .arg(server.certs().join("ca.crl"))
            .arg(server.certs().join(name))
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", text(&verified.stderr));
    }
}

#[test]
fn files_are_shown_and_checked() {
    let server = server();
    let certs = server.certs();
    let run = |arguments: &[&str]| {
        let output = fsvc().arg("certs").args(arguments).output().unwrap();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let at = |name: &str| certs.join(name).to_str().unwrap().to_owned();
    let dir = certs.to_str().unwrap();
    let (code, said) = run(&["show", &at("clients/dev.pem")]);
    assert!(
        code == Some(0) && said.contains("spiffe://test.internal/client/dev"),
        "{said}"
    );
    assert!(
        run(&["show", &at("ca.crl")])
            .1
            .contains("A revocation list")
    );
    assert_eq!(run(&["show", &at("clients/dev-key.pem")]).0, Some(3));

    let check = [
        "check",
        "--dir",
        dir,
        "--as",
        "dev",
        "--connect",
        &server.address,
    ];
    let (code, said) = run(&check);
    assert!(code == Some(0) && said.contains("takes you for"), "{said}");
    certs_ok(&certs, &["revoke", "dev"]);
    until("dev is out", || whoami(&server, "dev").0 == Some(5));
    let (code, said) = run(&check);
    assert!(code == Some(2) && said.contains("TLS16"), "{said}");
    certs_ok(&certs, &["renew", "alice", "--days", "1"]);
    assert_eq!(run(&["check", "--dir", dir]).0, Some(0));
    fs::copy(at("clients/bob-key.pem"), at("server-key.pem")).unwrap();
    let (code, said) = run(&["check", "--dir", dir]);
    assert!(code == Some(2) && said.contains("TLS11"), "{said}");
    fs::remove_file(at("server-key.pem")).unwrap();
    assert_eq!(run(&["check", "--dir", dir]).0, Some(3));
    assert_eq!(run(&["check", "--dir", &at("nowhere")]).0, Some(3));
}

/// All CAs that gen-certs makes are of one organization: that alone is no sign of a CA between.
#[test]
fn a_client_of_another_ca_of_ours_is_told_just_that() {
    let server = server();
    let other = server.directory.path().join("other");
    gen_certs(&other, &["mallory"]);
    let asks = |ca: &str| {
        let mut whoami = fsvc();
        whoami
            .args(["whoami", "--as", "mallory", "--server", &server.address])
            .arg("--tls-dir")
            .arg(&other);
        let output = whoami.arg("--ca").arg(ca).output().unwrap();
        assert_eq!(output.status.code(), Some(5));
        text(&output.stderr)
    };
    let refused = asks(server.certs().join("ca.pem").to_str().unwrap());
    assert!(
        refused.contains("[TLS01]") && !refused.contains("sent along"),
        "{refused}"
    );
    let distrusted = asks(other.join("ca.pem").to_str().unwrap());
    assert!(
        distrusted.contains("[TLS02]") && !distrusted.contains("sent along"),
        "{distrusted}"
    );
}

/// Ends the load, also when a step failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts go on through a whole change of the CA, by programs that begin at any moment of it, and by one
/// that stays.
#[test]
fn a_ca_changes_under_load_and_nothing_fails() {
    let server = server();
    let is_over = AtomicBool::new(false);
    let n_puts = AtomicUsize::new(0);
    let certs = server.certs();
    let local = server.directory.path().join("local");
    fs::write(&local, [7; 1_000]).unwrap();
    let local = local.to_str().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let put = server.client("dev", &["put", local, "/a"]);
                let output = { put }.env("FSVC_RETRY_FOR", "20s").output().unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
                n_puts.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            let mut options = Options::from_directory(&server.address, &certs, "alice");
            options.retry_for = Duration::from_secs(20);
            let client = Client::new(options).unwrap();
            let path = "/b".parse().unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let put = client.put_file(local.as_ref(), &path, TransferOptions::default());
                runtime.block_on(put).unwrap();
                n_puts.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _over = Over(&is_over);
        let steps: [&[&str]; 5] = [
            &["rotate-ca", "start"],
            &["rotate-ca", "promote", "--now"],
            &["renew", "--all"],
            &["revoke", "--all-of", "bob"],
            &["rotate-ca", "finish"],
        ];
        for step in steps {
            certs_ok(&certs, step);
            let n_before = n_puts.load(Ordering::Relaxed);
            until("puts go on", || {
                n_puts.load(Ordering::Relaxed) > n_before + 20
            });
        }
    });
    assert_eq!(whoami(&server, "bob").0, Some(5));
}
