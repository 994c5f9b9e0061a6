//! A revocation holds for all time, for the one who is meant, and everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fsvc::pki::{self, Reason, Target};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

use crate::certs::{aged, certs, json, ok, refused};
use crate::harness::{Server, Setup, fsvc, gen_certs, text};

fn place() -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("certs");
    gen_certs(&dir, &["dev", "alice"]);
    (scratch, dir)
}

fn serial_of(certificate: &Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(certificate)
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    printed.trim().strip_prefix("serial=").unwrap().to_owned()
}

/// What openssl says of a certificate, with the list.
fn verdict(dir: &Path, certificate: &Path) -> String {
    let output = Command::new("openssl")
        .args(["verify", "-crl_check", "-x509_strict", "-CAfile"])
        .arg(dir.join("ca.pem"))
        .arg("-CRLfile")
        .arg(dir.join("ca.crl"))
        .arg(certificate)
        .output()
        .unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_revoked_client_is_out_and_the_other_is_not() {
    let server = Server::start_with(Setup {
        arguments: vec!["--reload-every".to_owned(), "100ms".to_owned()],
        ..Setup::default()
    });
    let dir = server.certs();
    server.ok(&["ls", "/"]);
    let report = json(&dir, &["revoke", "alice", "--reason", "keyCompromise"]);
    assert_eq!(report["numbers"], Value::from(vec![2]));
    assert_eq!(report["revoked"][0]["name"], "client/alice");
    assert!(verdict(&dir, &dir.join("clients/alice.pem")).contains("revoked"));
    assert!(verdict(&dir, &dir.join("clients/dev.pem")).contains("OK"));
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let output = server.client("alice", &["ls", "/"]).output().unwrap();
        if output.status.code() == Some(5) {
            break;
        }
        assert!(Instant::now() < until, "alice is let in still");
    }
    server.ok(&["ls", "/"]);
    // gen-certs gives nothing back by the way, and says so.
    let output = fsvc()
        .args(["gen-certs", "--client", "alice", "--dir"])
        .arg(&dir)
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(said.contains("client alice was revoked"), "{said}");
    let output = server.client("alice", &["ls", "/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    // Who means it gets it.
    let said = refused(3, &dir, &["renew", "alice"]);
    let advice = format!("add --dir {} --client alice --again", dir.display());
    assert!(said.contains(&advice), "{said}");
    ok(&dir, &["add", "--client", "alice", "--again"]);
    let output = server.client("alice", &["ls", "/"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_renewed_certificate_works_after_the_old_one_was_revoked() {
    for reuse in [&[][..], &["--reuse-key"]] {
        let (_scratch, dir) = place();
        let report = json(&dir, &[&["renew", "dev"], reuse].concat());
        let old = report["renewed"][0]["old_serial"]
            .as_str()
            .unwrap()
            .to_owned();
        let said = refused(3, &dir, &["revoke", "dev"]);
        assert!(said.contains(&old) && said.contains("--all-of"), "{said}");
        // As openssl spells it.
        let spelled = old.to_uppercase();
        let report = json(
            &dir,
            &["revoke", "--serial", &spelled, "--reason", "superseded"],
        );
        assert_eq!(report["revoked"][0]["serial"], Value::from(old));
        let server = Server::start_with(Setup {
            certs: Some(dir.clone()),
            ..Setup::default()
        });
        server.ok(&["ls", "/"]);
    }
}

#[test]
fn an_old_certificate_may_be_given_its_end_when_it_is_renewed() {
    let (_scratch, dir) = place();
    let report = json(&dir, &["renew", "dev", "--revoke-old-after", "24h"]);
    let (renewed, now) = (&report["renewed"][0], &report["now"]);
    let at = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let given = at(&renewed["old_revoked_after"]).duration_since(at(now));
    assert_eq!(given.as_hours(), 24);
    let listed = ok(&dir, &["list"]);
    assert!(listed.contains("to be revoked after"), "{listed}");
    ok(&dir, &["renew", "--all"]);
    assert!(!verdict(&dir, &dir.join("clients/dev.pem")).contains("revoked"));

    // None: it is out at once, with the same key in the new one.
    let archived = json(
        &dir,
        &["renew", "alice", "--reuse-key", "--revoke-old-after", "0"],
    );
    let serial = archived["renewed"][0]["old_serial"].as_str().unwrap();
    let old = dir.join(format!("ca-private/archive/{serial}/alice.pem"));
    assert!(verdict(&dir, &old).contains("revoked"));
    assert!(verdict(&dir, &dir.join("clients/alice.pem")).contains("OK"));
    let server = Server::start_with(Setup {
        certs: Some(dir.clone()),
        ..Setup::default()
    });
    let output = server.client("alice", &["ping"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::copy(&old, dir.join("clients/alice.pem")).unwrap();
    let output = server.client("alice", &["ping"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    refused(2, &dir, &["renew", "dev", "--revoke-old-after", "soon"]);
}

#[test]
fn a_renewal_says_of_the_old_one_what_is_so() {
    let (_scratch, fresh) = place();
    let (_scratch, old) = aged(400, &["dev"], (365, None));
    let still = "The old ones are valid still";
    let over = "The old ones are not valid any more";
    for (dir, flags, said) in [
        (&fresh, &[][..], still),
        (&fresh, &["--revoke-old-after", "24h"], still),
        (&fresh, &["--revoke-old-after", "0"], over),
        (&old, &[], over),
    ] {
        let printed = ok(dir, &[&["renew", "dev"], flags].concat());
        assert!(printed.contains(said), "{flags:?}: {printed}");
    }
}

#[test]
fn what_is_on_no_disk_any_more_is_revoked_from_the_index_or_from_a_copy() {
    let (scratch, dir) = place();
    let copy = scratch.path().join("copy.pem");
    fs::rename(dir.join("clients/alice.pem"), &copy).unwrap();
    fs::remove_file(dir.join("clients/alice-key.pem")).unwrap();
    let report = json(&dir, &["revoke", "alice"]);
    assert_eq!(report["revoked"][0]["was_revoked"], false);
    assert!(verdict(&dir, &copy).contains("revoked"));
    // Again: the same, and nothing new.
    let list = fs::read(dir.join("ca.crl")).unwrap();
    let path = copy.to_str().unwrap();
    for target in [&["alice"][..], &["--all-of", "alice"], &["--cert", path]] {
        let report = json(
            &dir,
            &[&["revoke"], target, &["--reason", "superseded"]].concat(),
        );
        assert_eq!(report["revoked"][0]["was_revoked"], true);
        assert_eq!(report["revoked"][0]["reason"], "unspecified");
        assert_eq!(report["is_new_list"], false);
    }
    assert_eq!(fs::read(dir.join("ca.crl")).unwrap(), list);

    // The index forgot it: the certificate itself is enough.
    let dev = scratch.path().join("dev.pem");
    fs::copy(dir.join("clients/dev.pem"), &dev).unwrap();
    let index = dir.join("ca-private/index.jsonl");
    let lines = fs::read_to_string(&index).unwrap();
    let kept = lines.lines().filter(|line| !line.contains("client/dev"));
    let kept: Vec<&str> = kept.collect();
    fs::write(&index, kept.join("\n") + "\n").unwrap();
    refused(3, &dir, &["revoke", "dev"]);
    refused(3, &dir, &["revoke", "--serial", &serial_of(&dev)]);
    let report = json(&dir, &["revoke", "--cert", dev.to_str().unwrap()]);
    assert_eq!(report["revoked"][0]["name"], Value::Null);
    assert!(verdict(&dir, &dev).contains("revoked"));
    assert!(verdict(&dir, &copy).contains("revoked"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let (scratch, dir) = place();
    let other = scratch.path().join("other");
    gen_certs(&other, &["dev"]);
    let foreign = other.join("clients/dev.pem");
    let key = dir.join("clients/dev-key.pem");
    let own = dir.join("ca.pem");
    let ca = serial_of(&own);
    for (code, target, says) in [
        (3, &["nobody"][..], "nobody called nobody"),
        (3, &["--all-of", "nobody"], "nobody called nobody"),
        (3, &["--serial", "00ff"], "in the index"),
        (2, &["--serial", "no hex"], "serial number"),
        (2, &["--serial", ""], "serial number"),
        (3, &["--serial", &ca], "rotate-ca"),
        (3, &["--cert", own.to_str().unwrap()], "rotate-ca"),
        (
            3,
            &["--cert", foreign.to_str().unwrap()],
            "not signed by a CA",
        ),
        (
            3,
            &["--cert", key.to_str().unwrap()],
            "expected certificates",
        ),
        (1, &["--cert", "missing.pem"], "missing.pem"),
        (2, &["dev", "--reason", "certificateHold"], "keyCompromise"),
        (2, &["dev", "--serial", "00"], "cannot be used with"),
        (2, &[], "required"),
    ] {
        let said = refused(code, &dir, &[&["revoke"], target].concat());
        assert!(said.contains(says), "{target:?}: {said}");
    }
    // A list that cannot be read is not overwritten.
    let list = dir.join("ca.crl");
    fs::write(&list, "nonsense").unwrap();
    let output = certs(&dir, &["revoke", "dev"]);
    assert!(!output.status.success());
    assert_eq!(fs::read(&list).unwrap(), b"nonsense");
}

#[test]
fn a_server_that_was_revoked_gets_a_new_certificate_from_gen_certs() {
    let (_scratch, dir) = place();
    ok(&dir, &["revoke", "server", "--reason", "keyCompromise"]);
    let output = fsvc()
        .args(["gen-certs", "--dir"])
        .arg(&dir)
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("was revoked"), "{said}");
    Server::start_with(Setup {
        certs: Some(dir),
        ..Setup::default()
    })
    .ok(&["ls", "/"]);
}

#[test]
fn what_is_advised_for_a_name_that_was_revoked_works() {
    let (_scratch, dir) = place();
    ok(&dir, &["revoke", "alice"]);
    let said = refused(3, &dir, &["add", "--client", "alice"]);
    let dir_flag = format!("--dir {}", dir.display());
    let advice = format!("certs add {dir_flag} --client alice --again");
    assert!(said.contains(&advice), "{said}");
    assert!(!said.contains("certs renew"), "{said}");
    refused(3, &dir, &["renew", "alice"]);
    ok(&dir, &["add", "--client", "alice", "--again"]);
    // There is one that can be renewed now.
    let said = refused(3, &dir, &["add", "--client", "alice"]);
    let advice = format!("certs renew {dir_flag} client/alice");
    assert!(said.contains(&advice), "{said}");
}

/// A list that begins in the future is taken by no server: whatever is done next makes it anew.
#[test]
fn a_list_of_a_clock_that_was_ahead_is_made_anew() {
    let ahead = Timestamp::now() + SignedDuration::from_hours(24 * 30);
    for next in [
        &["revoke", "alice"][..],
        &["renew", "--all"],
        &["add", "--client", "carol"],
    ] {
        let (_scratch, dir) = place();
        let target = Target::Name("alice");
        pki::revoke(&dir, target, Reason::Unspecified, ahead).unwrap();
        let check = certs(&dir, &["check"]);
        let said = text(&check.stdout);
        assert_eq!(check.status.code(), Some(2), "{said}");
        for part in [
            "is not valid until 2",
            "; this clock says 2",
            "fsvc certs renew",
        ] {
            assert!(said.contains(part), "{said}");
        }
        ok(&dir, next);
        let check = certs(&dir, &["check"]);
        assert_eq!(
            check.status.code(),
            Some(0),
            "{next:?}: {}",
            text(&check.stdout)
        );
        // It is made once, under the next number.
        let again = json(&dir, &["revoke", "alice"]);
        assert_eq!(again["numbers"], Value::from(vec![3]), "{next:?}");
        assert_eq!(again["is_new_list"], false, "{next:?}");
        assert!(verdict(&dir, &dir.join("clients/alice.pem")).contains("revoked"));
    }
}
