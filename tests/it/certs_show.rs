//! `fsvc certs show`: whatever the file, what it says first, and never a key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::certs::ok;
use crate::harness::{fsvc, gen_certs, text};

fn show(arguments: &[&str], file: &Path) -> Output {
    let mut command = fsvc();
    command.args(["certs", "show"]).args(arguments).arg(file);
    command.output().unwrap()
}

#[track_caller]
fn shown(arguments: &[&str], file: &Path) -> String {
    let output = show(arguments, file);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn openssl(dir: &Path, line: &str) {
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
}

fn place() -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("certs");
    gen_certs(&dir, &["dev"]);
    (scratch, dir)
}

#[test]
fn a_certificate_is_shown_by_its_identity_and_not_verified_unless_asked() {
    let (scratch, dir) = place();
    let file = dir.join("clients/dev.pem");
    let text = shown(&[], &file);
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        "spiffe://test.internal/client/dev: a client's certificate"
    );
    assert!(
        text.contains("days left") && text.contains("nothing was verified"),
        "{text}"
    );
    assert!(!text.contains("warning"), "{text}");
    openssl(
        &dir,
        "openssl x509 -in clients/dev.pem -outform der -out ../dev.der",
    );
    let der = shown(&[], &scratch.path().join("dev.der"));
    // A certificate of this second has a day less to live in the next.
    let lasting = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains("days left"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lasting(&der), lasting(&text));

    let ca = dir.join("ca.pem");
    let text = shown(&["--ca", ca.to_str().unwrap()], &file);
    assert!(text.contains("yes: signed by"), "{text}");
    let other = scratch.path().join("other");
    gen_certs(&other, &["dev"]);
    let ca = other.join("ca.pem");
    let text = shown(&["--ca", ca.to_str().unwrap()], &file);
    assert!(text.contains("NO: none of these CAs signed it"), "{text}");
    let text = shown(&[], &ca);
    assert!(
        text.starts_with("no identity: the certificate of a CA"),
        "{text}"
    );
    let text = shown(&[], &dir.join("server.pem"));
    assert!(
        text.contains("localhost") && text.contains("a server's certificate"),
        "{text}"
    );
    // The fingerprint is what openssl prints.
    let printed = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&file)
        .output()
        .unwrap();
    let printed = crate::harness::text(&printed.stdout).to_lowercase();
    let json: Value = serde_json::from_str(&shown(&["--json"], &file)).unwrap();
    let sha256 = json["contents"][0]["sha256"].as_str().unwrap();
    assert!(printed.contains(sha256), "{printed}");
    assert_eq!(json["contents"][0]["verified"], "not_asked");
}

#[test]
fn lists_and_requests_are_shown_and_keys_are_not() {
    let (scratch, dir) = place();
    ok(&dir, &["revoke", "dev"]);
    let list = dir.join("ca.crl");
    let ca = dir.join("ca.pem");
    let json = shown(&["--json", "--ca", ca.to_str().unwrap()], &list);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["contents"][0]["type"], "list");
    assert_eq!(json["contents"][0]["n_revoked"], 1);
    assert_eq!(json["contents"][0]["number"], "2");
    assert_eq!(json["contents"][0]["verified"], "good");
    let theirs = scratch.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    ok(&theirs, &["request", "--client", "bob"]);
    let request = shown(&[], &theirs.join("clients/bob.csr"));
    assert!(request.starts_with("A certificate request"), "{request}");
    assert!(request.contains("ECDSA P-256"), "{request}");

    let key = fs::read_to_string(dir.join("clients/dev-key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    openssl(
        &dir,
        "openssl pkey -in server-key.pem -aes256 -passout pass:x -out ../locked.pem",
    );
    openssl(
        &dir,
        "openssl pkey -in server-key.pem -outform der -out ../key.der",
    );
    openssl(
        &dir,
        "openssl pkcs12 -export -passout pass:x -in server.pem -inkey server-key.pem -out ../all.p12",
    );
    let mixed = scratch.path().join("mixed.pem");
    let certificate = fs::read_to_string(dir.join("clients/dev.pem")).unwrap();
    fs::write(&mixed, certificate + &key).unwrap();
    let text = shown(&[], &mixed);
    assert!(
        text.contains("private key in this file") && !text.contains(secret),
        "{text}"
    );
    for (file, says) in [
        (dir.join("clients/dev-key.pem"), "never shown"),
        (scratch.path().join("locked.pem"), "never shown"),
        (scratch.path().join("key.der"), "nothing that can be shown"),
        (scratch.path().join("all.p12"), "openssl pkcs12"),
        (dir.join("policy.toml"), "no PEM"),
        (dir.join(".gitignore"), "no PEM"),
        (dir.clone(), "certs"),
        (dir.join("missing.pem"), "missing.pem"),
    ] {
        let output = show(&[], &file);
        let said = crate::harness::text(&output.stderr);
        assert!(!output.status.success(), "{}", file.display());
        assert!(said.contains(says) && !said.contains(secret), "{said}");
    }
}

/// Certificates of other tools, each with something that an operator should know.
#[test]
fn what_will_not_work_is_warned_of() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path();
    openssl(
        dir,
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -subj /CN=x \
         -days 30 -out ca.pem",
    );
    let extensions = |name: &str, lines: &str| {
        fs::write(dir.join("ext"), lines).unwrap();
        openssl(dir, "openssl req -new -key k -subj '/CN=leaf' -out r");
        openssl(
            dir,
            &format!(
                "openssl x509 -req -in r -CA ca.pem -CAkey k -days 10 -extfile ext -out {name}"
            ),
        );
        shown(&[], &dir.join(name))
    };
    let one = "subjectAltName=URI:spiffe://a/b";
    for (name, lines, says) in [
        (
            "aki",
            format!("{one}\nauthorityKeyIdentifier=none"),
            "strict verifiers",
        ),
        (
            "ca",
            format!("{one}\nbasicConstraints=critical,CA:TRUE\nextendedKeyUsage=clientAuth"),
            "looks like",
        ),
        (
            "none",
            "subjectAltName=DNS:a.b".to_owned(),
            "has no URI name",
        ),
        (
            "two",
            format!("{one},URI:spiffe://a/c"),
            "more than one URI",
        ),
        (
            "sign",
            format!("{one}\nkeyUsage=keyEncipherment"),
            "digitalSignature",
        ),
        (
            "limits",
            "basicConstraints=critical,CA:TRUE\nnameConstraints=permitted;URI:.a.b".to_owned(),
            "name constraints",
        ),
    ] {
        let text = extensions(name, &lines);
        assert!(
            text.contains("warning") && text.contains(says),
            "{name}: {text}"
        );
    }
    openssl(dir, "openssl req -new -key k -subj '/CN=old' -out r");
    openssl(
        dir,
        "openssl x509 -req -in r -CA ca.pem -CAkey k -days 10 -out v1 2>/dev/null || true",
    );
}

#[test]
fn a_weak_key_and_a_strange_name_are_shown_for_what_they_are() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path();
    openssl(
        dir,
        "openssl ecparam -name prime256v1 -genkey -noout -out k",
    );
    openssl(
        dir,
        "openssl req -x509 -newkey rsa:1024 -nodes -keyout k2 -subj /CN=weak -days 10 -out weak",
    );
    let text = shown(&[], &dir.join("weak"));
    assert!(
        text.contains("1024 bits") && text.contains("weak"),
        "{text}"
    );
    // A name is text of another machine.
    openssl(
        dir,
        "openssl req -x509 -key k -days 10 -subj \"$(printf '/CN=a\\033[2Jb')\" -out strange",
    );
    let text = shown(&[], &dir.join("strange"));
    assert!(!text.contains('\u{1b}') && text.contains("2Jb"), "{text}");
}

#[test]
fn bytes_that_were_broken_are_refused_and_never_a_panic() {
    let (scratch, dir) = place();
    openssl(
        &dir,
        "openssl x509 -in clients/dev.pem -outform der -out ../dev.der",
    );
    openssl(&dir, "openssl crl -in ca.crl -outform der -out ../ca.der");
    for name in ["dev.der", "ca.der"] {
        let whole = fs::read(scratch.path().join(name)).unwrap();
        let broken = scratch.path().join("broken.der");
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x80;
            for bytes in [&bytes[..], &whole[..at]] {
                fs::write(&broken, bytes).unwrap();
                let now = jiff::Timestamp::now();
                // What it is taken for is no matter here.
                let _ = fsvc::pki::show(&broken, Some(&dir.join("ca.pem")), now);
            }
        }
    }
}
