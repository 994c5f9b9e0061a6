//! CAs of others: what is trusted, what is refused, and what a server makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use rcgen::{IsCa, KeyUsagePurpose};
use serde_json::Value;
use tempfile::TempDir;
use time::Duration;

use crate::harness::{Server, Setup, fsvc, gen_certs, text};
use crate::matrix::{Ca, GOOD, POLICY, now_plus};

struct Place {
    scratch: TempDir,
}

impl Place {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        gen_certs(&scratch.path().join("certs"), &["dev"]);
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn bundle(&self, arguments: &[&str]) -> Output {
        let mut command = fsvc();
        command.args(["certs", "bundle"]).args(arguments);
        command.current_dir(self.scratch.path()).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.bundle(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Refused, with both files as they were.
    #[track_caller]
    fn refused(&self, arguments: &[&str], says: &str) {
        let files = || (self.read("certs/ca.pem"), self.read("certs/ca.crl"));
        let before = files();
        let output = self.bundle(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{says:?} not in: {stderr}");
        assert!(stderr.contains("\nhint: "), "{stderr}");
        assert_eq!(files(), before, "{arguments:?}");
    }
}

#[test]
fn a_client_of_another_ca_is_let_in_and_out_again() {
    let place = Place::new();
    let corp = Ca::root("Corp");
    let pair = corp.client_named(GOOD);
    place.write("corp.pem", &corp.pem);
    place.write("corp.crl", corp.empty_list());
    let mut server = Server::start_with(Setup {
        certs: Some(place.path("certs")),
        policy: Some(POLICY.to_owned()),
        ..Setup::default()
    });
    place.write("certs/clients/good.pem", &pair.chain);
    place.write("certs/clients/good-key.pem", &pair.key);
    let key = place.path("certs/clients/good-key.pem");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    let whoami = |server: &Server| {
        let output = server.client("good", &["whoami"]).output().unwrap();
        output.status.code()
    };
    assert_eq!(whoami(&server), Some(5));
    let said = place.ok(&["add", "corp.pem", "--crl", "corp.crl"]);
    assert!(said.contains("+ CN=Corp"), "{said}");
    server.restart();
    assert_eq!(whoami(&server), Some(0));

    place.refused(&["remove", "corp.pem"], "signed certs/clients/good.pem");
    for name in ["good.pem", "good-key.pem"] {
        fs::rename(
            place.path(&format!("certs/clients/{name}")),
            place.path(name),
        )
        .unwrap();
    }
    let said = place.ok(&["remove", "--subject", "Corp"]);
    assert!(said.contains("- CN=Corp"), "{said}");
    assert_eq!(place.read("certs/ca.crl").matches("BEGIN").count(), 1);
    server.restart();
    for name in ["good.pem", "good-key.pem"] {
        fs::rename(
            place.path(name),
            place.path(&format!("certs/clients/{name}")),
        )
        .unwrap();
    }
    assert_eq!(whoami(&server), Some(5));
}

/// A certificate with another signature.
fn bent(pem: &str) -> String {
    let mut bent = pem.to_owned();
    let middle = bent.rfind("\n-----END").unwrap() - 10;
    let other = if &bent[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    bent.replace_range(middle..=middle, other);
    bent
}

/// Certificates that are no CA to be trusted, and what is said about each.
fn unfit_cas() -> Vec<(&'static str, String, &'static str)> {
    let bare = Ca::root_with("Bare", |ca| ca.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let expired = Ca::root_with("Old", |ca| {
        ca.not_after = now_plus(-Duration::MINUTE);
    });
    let early = Ca::root_with("Soon", |ca| {
        ca.not_before = now_plus(Duration::HOUR);
    });
    let none = Ca::root_with("None", |ca| ca.is_ca = IsCa::ExplicitNoCa);
    let corp = Ca::root("Corp").pem;
    let leaf = Ca::root("Corp").client_named(GOOD).chain;
    let namesake = format!("{corp}{}", Ca::root("Corp").pem);
    let many: String = (0..101).map(|n| Ca::root(&format!("ca {n}")).pem).collect();
    vec![
        ("leaf", leaf, "is no CA"),
        ("not a CA", none.pem, "is no CA"),
        ("expired", expired.pem, "expired"),
        ("early", early.pem, "is not valid until"),
        ("no keyCertSign", bare.pem, "may not sign certificates"),
        ("twice", corp.repeat(2), "twice"),
        ("one name", namesake, "another CA with the name"),
        ("bent", bent(&corp), "its key did not sign it"),
        ("too many", many, "101 CAs in one file are too many"),
    ]
}

#[test]
fn what_may_not_be_trusted_as_a_ca_is_refused() {
    let place = Place::new();
    for (name, bytes, says) in unfit_cas() {
        place.write("file.pem", bytes);
        if name == "too many" {
            let output = place.bundle(&["add", "file.pem", "--no-crl"]);
            assert_eq!(output.status.code(), Some(2));
            assert!(text(&output.stderr).contains(says));
        } else {
            place.refused(&["add", "file.pem", "--no-crl"], says);
        }
    }
}

#[test]
fn files_that_hold_no_ca_are_refused() {
    let place = Place::new();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' '));
        let output = command.current_dir(place.path("")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    openssl("req -new -nodes -newkey rsa:2048 -keyout k.pem -out r.csr -subj /CN=v1");
    openssl("x509 -req -in r.csr -signkey k.pem -out v1.pem");
    openssl("req -x509 -nodes -newkey rsa:1024 -keyout k.pem -out weak.pem -subj /CN=w");
    openssl("x509 -in weak.pem -outform DER -out der.pem");
    let corp = Ca::root("Corp").pem;
    let key = place.read("certs/clients/dev-key.pem");
    let utf16: Vec<u8> = corp.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let read = |name: &str| fs::read(place.path(name)).unwrap();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (read("v1.pem"), "is X.509 v1"),
        (read("weak.pem"), "RSA with 1024 bits"),
        (read("der.pem"), "found DER"),
        (read("r.csr"), "found CERTIFICATE REQUEST"),
        (read("certs/ca.crl"), "found X509 CRL"),
        (read("certs/ca.pem"), "already"),
        (key.clone().into(), "found PRIVATE KEY"),
        (
            [corp, key].concat().into(),
            "found CERTIFICATE, PRIVATE KEY",
        ),
        (utf16, "found no PEM"),
        (b"hello".to_vec(), "found no PEM"),
    ];
    for (bytes, says) in cases {
        place.write("file.pem", bytes);
        place.refused(&["add", "file.pem", "--no-crl"], says);
    }
    place.write("file.pem", "");
    let output = place.bundle(&["add", "file.pem"]);
    assert!(text(&output.stderr).contains("is empty"));
    let output = place.bundle(&["add", "missing.pem"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_file_with_words_ends_of_lines_and_several_cas_is_taken() {
    let place = Place::new();
    let cas = ["One", "Two"].map(Ca::root);
    let words = cas
        .each_ref()
        .map(|ca| {
            format!(
                "# who
{}

",
                ca.pem
            )
        })
        .concat();
    place.write("cas.pem", words.replace('\n', "\r\n"));
    place.write(
        "cas.crl",
        cas.iter().map(Ca::empty_list).collect::<String>(),
    );
    let said = place.ok(&["add", "cas.pem", "--crl", "cas.crl", "--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    let changes: Vec<&Value> = report["cas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ca| &ca["change"])
        .collect();
    assert_eq!(changes, ["kept", "added", "added"]);
    assert_eq!(report["notes"], serde_json::json!([]));
    place.refused(&["remove", "--subject", "nobody"], "CN=One; CN=Two");
    let said = place.ok(&["remove", "cas.pem"]);
    assert_eq!(said.matches("  - ").count(), 2);
    place.refused(&["remove", "cas.pem"], "holds no CA CN=One");
}

#[test]
fn a_ca_comes_with_its_list_or_the_operator_says_without() {
    let place = Place::new();
    let (corp, other) = (Ca::root("Corp"), Ca::root("Other"));
    place.write("corp.pem", &corp.pem);
    place.refused(&["add", "corp.pem"], "has no list of the CA CN=Corp");
    place.write("other.crl", other.empty_list());
    place.refused(
        &["add", "corp.pem", "--crl", "other.crl"],
        "is of none of the CAs",
    );
    place.write("fake.crl", Ca::root("Corp").empty_list());
    place.refused(
        &["add", "corp.pem", "--crl", "fake.crl"],
        "is not signed by the key of that CA",
    );
    place.write("old.crl", corp.list(&[], now_plus(-Duration::MINUTE)));
    place.refused(
        &["add", "corp.pem", "--crl", "old.crl"],
        "should have been followed",
    );
    place.refused(
        &["add", "corp.pem", "--crl", "corp.pem"],
        "expected revocation lists",
    );
    place.write("corp.crl", corp.empty_list());
    place.ok(&["add", "corp.pem", "--crl", "corp.crl"]);
    place.refused(&["add", "corp.pem", "--crl", "corp.crl"], "already");

    place.write("namesake.pem", Ca::root("Corp").pem);
    place.refused(
        &["add", "namesake.pem", "--no-crl"],
        "certs/ca.pem holds another CA with the name CN=Corp",
    );

    // A newer list of a CA that is trusted takes the place of the older one.
    let revoked = corp.client_named(GOOD);
    let newer = corp.list(&[&revoked], now_plus(Duration::DAY));
    place.write("newer.crl", &newer);
    let said = place.ok(&["add", "corp.pem", "--crl", "newer.crl"]);
    assert!(said.contains("newer list"), "{said}");
    let lists = place.read("certs/ca.crl");
    assert_eq!(lists.matches("BEGIN").count(), 2);
    assert!(
        lists.contains(newer.trim().replace('\r', "").as_str()),
        "{lists}"
    );
    place.ok(&["remove", "corp.pem"]);

    let said = place.ok(&["add", "corp.pem", "--no-crl"]);
    assert!(said.contains("--no-revocation"), "{said}");
    Server::start_with(Setup {
        certs: Some(place.path("certs")),
        arguments: vec!["--no-revocation".to_owned()],
        ..Setup::default()
    });
}

#[test]
fn the_ca_that_signs_stays_until_it_is_rotated_out() {
    let place = Place::new();
    place.refused(&["remove", "certs/ca.pem"], "is the one that signs here");
    let output = fsvc()
        .args(["certs", "rotate-ca", "start", "--dir"])
        .arg(place.path("certs"))
        .output()
        .unwrap();
    assert!(output.status.success());
    place.write("both.pem", place.read("certs/ca.pem"));
    place.refused(&["remove", "both.pem"], "is the one that signs here");
    let new = place.read("certs/ca-private/next-ca-cert.pem");
    place.write("new.pem", new);
    place.refused(&["remove", "new.pem"], "is the one that signs here");
}

#[test]
fn a_machine_that_was_handed_its_files_edits_them_too() {
    let place = Place::new();
    fs::remove_dir_all(place.path("certs/ca-private")).unwrap();
    let corp = Ca::root("Corp");
    place.write("corp.pem", &corp.pem);
    place.write("corp.crl", corp.empty_list());
    place.ok(&["add", "corp.pem", "--crl", "corp.crl"]);
    place.write("own.pem", place.read("certs/ca.pem"));
    place.refused(&["remove", "own.pem"], "server.pem, which is in use");
    for name in ["server.pem", "clients/dev.pem"] {
        fs::remove_file(place.path("certs").join(name)).unwrap();
    }
    place.refused(&["remove", "own.pem"], "is the last one");

    // A bundle from nothing, for files that other tools renew.
    place.ok(&["add", "corp.pem", "--dir", "fresh"]);
    assert_eq!(place.read("fresh/ca.pem"), corp.pem.replace("\r\n", "\n"));
    assert!(fs::metadata(place.path("fresh/ca-private")).is_err());
}

#[test]
fn bundles_edited_at_once_lose_no_ca() {
    let place = Place::new();
    let children: Vec<_> = (0..6)
        .map(|n| {
            let ca = Ca::root(&format!("ca {n}"));
            let (file, list) = (format!("{n}.pem"), format!("{n}.crl"));
            place.write(&file, &ca.pem);
            place.write(&list, ca.empty_list());
            let mut command = fsvc();
            command.args(["certs", "bundle", "add", &file, "--crl", &list, "--json"]);
            command
                .current_dir(place.path(""))
                .stdout(std::process::Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(place.read("certs/ca.pem").matches("BEGIN").count(), 7);
    assert_eq!(place.read("certs/ca.crl").matches("BEGIN").count(), 7);
}
