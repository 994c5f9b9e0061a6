//! Certificates are added, renewed and listed; what comes out is what other verifiers take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::certs::{certs, json, ok, refused, tree};
use crate::harness::{Server, Setup, fsvc, gen_certs, text};

/// A directory as gen-certs makes it.
fn place() -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("certs");
    gen_certs(&dir, &["dev"]);
    (scratch, dir)
}

/// A directory that was made some days ago.
fn aged(days: i64) -> (TempDir, PathBuf) {
    crate::certs::aged(days, &["dev"], (365, None))
}

fn items(list: &Value) -> &Vec<Value> {
    list["certificates"].as_array().unwrap()
}

fn of<'a>(list: &'a Value, name: &str) -> Vec<&'a Value> {
    let items = items(list).iter();
    items.filter(|item| item["name"] == name).collect()
}

fn openssl(arguments: &[&str], paths: &[&Path]) -> String {
    let output = Command::new("openssl").args(arguments).args(paths).output();
    let output = output.unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn everything_that_is_issued_passes_strict_verifiers() {
    let (_scratch, dir) = place();
    ok(&dir, &["add", "--client", "alice"]);
    ok(&dir, &["add", "--client", "alice", "--again"]);
    ok(
        &dir,
        &[
            "add",
            "--server",
            "web",
            "--host",
            "web.internal",
            "--host",
            "10.0.0.7",
        ],
    );
    ok(
        &dir,
        &["add", "--peer", "node-1", "--host", "node-1.internal"],
    );
    ok(&dir, &["renew", "--all", "--window", "100%"]);
    ok(&dir, &["renew", "dev", "--reuse-key"]);
    let (ca, purposes) = (
        dir.join("ca.pem"),
        [
            ("server.pem", &["sslserver"][..]),
            ("clients/dev.pem", &["sslclient"]),
            ("clients/alice.pem", &["sslclient"]),
            ("servers/web.pem", &["sslserver"]),
            ("peers/node-1.pem", &["sslserver", "sslclient"]),
        ],
    );
    for (name, purposes) in purposes {
        for purpose in purposes {
            let strict = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile"];
            openssl(&strict, &[&ca, &dir.join(name)]);
        }
    }
    let archived = fs::read_dir(dir.join("ca-private/archive")).unwrap();
    for entry in archived {
        for file in fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            if path.to_str().unwrap().ends_with("-key.pem") {
                assert_eq!(mode, 0o600);
            } else {
                openssl(&["verify", "-x509_strict", "-CAfile"], &[&ca, &path]);
            }
        }
    }
    for name in ["servers/web", "peers/node-1"] {
        python_connects(
            &dir,
            name,
            if name == "servers/web" {
                "web.internal"
            } else {
                "node-1.internal"
            },
        );
    }
}

/// A default Python context verifies a server with this pair, strictly where Python does so.
fn python_connects(dir: &Path, pair: &str, host: &str) {
    let script = r#"
import socket, ssl, sys, threading
directory, pair, host = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(f"{directory}/{pair}.pem", f"{directory}/{pair}-key.pem")
server.verify_mode = ssl.CERT_REQUIRED
server.load_verify_locations(f"{directory}/ca.pem")
server.verify_flags |= ssl.VERIFY_X509_STRICT
client = ssl.create_default_context(cafile=f"{directory}/ca.pem")
client.verify_flags |= ssl.VERIFY_X509_STRICT
client.load_cert_chain(f"{directory}/clients/dev.pem", f"{directory}/clients/dev-key.pem")
a, b = socket.socketpair()
def serve():
    with server.wrap_socket(a, server_side=True) as tls:
        tls.sendall(tls.getpeercert()["serialNumber"].lower().encode())
thread = threading.Thread(target=serve)
thread.start()
with client.wrap_socket(b, server_hostname=host) as tls:
    print(tls.recv(100).decode())
thread.join()
"#;
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(dir)
        .args([pair, host])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listed = json(dir, &["list"]);
    let serial = of(&listed, "dev").last().unwrap()["serial"].clone();
    assert_eq!(text(&output.stdout).trim(), serial.as_str().unwrap());
}

#[test]
fn a_name_that_has_one_is_refused_unless_a_second_one_is_wanted() {
    let (_scratch, dir) = place();
    let first = json(&dir, &["add", "--client", "alice", "--days", "30"]);
    assert_eq!(first["identity"], "spiffe://test.internal/client/alice");
    assert_eq!(first["policy"]["state"], "extended");
    let said = refused(3, &dir, &["add", "--client", "alice"]);
    assert!(said.contains(first["serial"].as_str().unwrap()), "{said}");
    assert!(
        said.contains("--again") && said.contains("certs renew"),
        "{said}"
    );
    for flags in [
        &["--client", "dev"][..],
        &["--server", "--host", "a.b"],
        &["--server", "main", "--host", "a.b"],
    ] {
        let said = refused(3, &dir, &[&["add"], flags].concat());
        assert!(said.contains("has a certificate"), "{said}");
    }

    let second = json(&dir, &["add", "--client", "alice", "--again"]);
    assert_eq!(
        second["still_valid"],
        Value::from(vec![first["serial"].clone()])
    );
    let listed = json(&dir, &["list"]);
    let mine = of(&listed, "alice");
    assert_eq!(mine[0]["status"], "archived");
    assert_eq!(mine[1]["status"], "valid");
    assert_eq!(mine[1]["replaces"], first["serial"]);
    let archive = dir
        .join("ca-private/archive")
        .join(first["serial"].as_str().unwrap());
    assert!(archive.join("alice.pem").is_file() && archive.join("alice-key.pem").is_file());
    // A file that the index knows nothing of is not overwritten.
    fs::write(dir.join("clients/carol-key.pem"), "mine").unwrap();
    let said = refused(3, &dir, &["add", "--client", "carol"]);
    assert!(said.contains("carol-key.pem"), "{said}");
}

#[test]
fn bad_names_hosts_and_numbers_are_refused_before_anything_changes() {
    let (_scratch, dir) = place();
    for (code, flags, says) in [
        (
            2,
            &["--client", "Alice"][..],
            "client name Alice: holds an upper-case letter",
        ),
        (2, &["--client", "../dev"], "client name"),
        (2, &["--client", "a\u{1b}[2Jb"], "client name"),
        (2, &["--client", ""], "client name"),
        (2, &["--client", "x-key"], "ends in -key"),
        (2, &["--peer", "a b", "--host", "h"], "peer name"),
        (2, &["--server", "web/1", "--host", "h"], "server name"),
        (2, &["--server", "web", "--host", "h:7443"], "has a port"),
        (2, &["--server", "web", "--host", "0.0.0.0"], "bind"),
        (2, &["--server", "web"], "--host"),
        (2, &["--peer", "web"], "--host"),
        (2, &["--client", "x", "--host", "h"], "--host"),
        (
            2,
            &["--client", "x", "--peer", "y", "--host", "h"],
            "cannot be used with",
        ),
        (2, &["--client", "x", "--days", "0"], "--days"),
        (2, &["--client", "x", "--days", "36501"], "--days"),
        (2, &[], "required"),
    ] {
        let said = refused(code, &dir, &[&["add"], flags].concat());
        assert!(said.contains(says), "{flags:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
    for (flags, says) in [
        (&["nobody"][..], "nobody called nobody"),
        (&["dev\u{1b}[2J"], "nobody called"),
    ] {
        let said = refused(3, &dir, &[&["renew"], flags].concat());
        assert!(said.contains(says) && !said.contains('\u{1b}'), "{said}");
    }
    for flags in [
        &["--all", "dev"][..],
        &[],
        &["dev", "--window", "x"],
        &["dev", "--days", "0"],
    ] {
        refused(2, &dir, &[&["renew"], flags].concat());
    }
}

#[test]
fn a_directory_that_is_not_the_signers_says_where_to_go() {
    let (scratch, dir) = place();
    let handed = scratch.path().join("handed");
    fs::create_dir(&handed).unwrap();
    fs::copy(dir.join("ca.pem"), handed.join("ca.pem")).unwrap();
    let verbs: [&[&str]; 4] = [
        &["add", "--client", "x"],
        &["renew", "--all"],
        &["revoke", "dev"],
        &["list"],
    ];
    for verb in verbs {
        let said = refused(3, &handed, verb);
        assert!(said.contains("ca-private"), "{said}");
    }
    fs::create_dir(scratch.path().join("empty")).unwrap();
    for verb in verbs {
        let said = refused(3, &scratch.path().join("empty"), verb);
        assert!(said.contains("gen-certs"), "{said}");
    }
    // The key alone is elsewhere: nothing is signed, and the list of what was issued is there.
    fs::remove_file(dir.join("ca-private/ca-key.pem")).unwrap();
    for verb in &verbs[..3] {
        let said = refused(3, &dir, verb);
        assert!(said.contains("CA key"), "{said}");
    }
    ok(&dir, verbs[3]);
}

#[test]
fn a_renewal_has_a_new_serial_and_a_new_key_unless_it_should_stay() {
    let (_scratch, dir) = place();
    let key = dir.join("clients/dev-key.pem");
    let before = fs::read(&key).unwrap();
    let report = json(&dir, &["renew", "dev", "--reuse-key"]);
    let first = report["renewed"][0].clone();
    assert_ne!(first["serial"], first["old_serial"]);
    assert_eq!(first["is_new_key"], false);
    assert_eq!(fs::read(&key).unwrap(), before);

    let report = json(&dir, &["renew", "client/dev", "--days", "10"]);
    let second = report["renewed"][0].clone();
    assert_eq!(second["old_serial"], first["serial"]);
    assert_eq!(second["is_new_key"], true);
    assert_ne!(fs::read(&key).unwrap(), before);
    // As long as the one before, if nothing else is said.
    json(&dir, &["renew", "spiffe://test.internal/client/dev"]);
    let listed = json(&dir, &["list"]);
    let days: Vec<i64> = of(&listed, "dev")
        .iter()
        .map(|item| item["days_left"].as_i64().unwrap())
        .collect();
    assert_eq!(days.len(), 4);
    assert!(days[2] <= 10 && days[3] <= 10, "{days:?}");
    assert_eq!(of(&listed, "dev")[3]["status"], "valid");

    // In a window nothing but what is near its end.
    let untouched = tree(&dir);
    let report = json(&dir, &["renew", "--all", "--window", "5d"]);
    assert_eq!(report["renewed"].as_array().unwrap().len(), 0);
    assert_eq!(report["skipped"].as_array().unwrap().len(), 2);
    assert_eq!(tree(&dir), untouched);
    let report = json(&dir, &["renew", "--all", "--window", "20d"]);
    assert_eq!(report["renewed"][0]["name"], "dev");
    assert_eq!(report["renewed"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_out_of_date_is_listed_and_renewed() {
    let (_scratch, dir) = aged(400);
    let listed = json(&dir, &["list", "--expiring", "30d"]);
    let names: Vec<&str> = items(&listed)
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["server", "dev"]);
    assert!(
        items(&listed)
            .iter()
            .all(|item| item["status"] == "expired")
    );
    let table = ok(&dir, &["list"]);
    assert!(
        table.contains("-35") && table.contains("expired"),
        "{table}"
    );

    let report = json(&dir, &["renew", "--all"]);
    assert_eq!(report["renewed"].as_array().unwrap().len(), 2);
    assert!(items(&json(&dir, &["list", "--expiring", "30d"])).is_empty());
    // The hosts are those of the old one, and a server starts with it.
    let server = Server::start_with(Setup {
        certs: Some(dir),
        ..Setup::default()
    });
    server.ok(&["ls", "/"]);
}

#[test]
fn a_key_that_is_elsewhere_stays_with_its_owner() {
    let (scratch, dir) = place();
    let theirs = scratch.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    ok(&theirs, &["request", "--client", "bob"]);
    let request = theirs.join("clients/bob.csr");
    ok(
        &dir,
        &["sign", request.to_str().unwrap(), "--client", "bob"],
    );
    let said = refused(3, &dir, &["renew", "bob"]);
    assert!(said.contains("--reuse-key"), "{said}");
    let report = json(&dir, &["renew", "--all", "--window", "100%"]);
    assert_eq!(report["skipped"][0]["name"], "client/bob");
    assert_eq!(report["renewed"].as_array().unwrap().len(), 2);

    let report = json(&dir, &["renew", "bob", "--reuse-key"]);
    assert_eq!(report["renewed"][0]["key"], Value::Null);
    assert!(!dir.join("clients/bob-key.pem").is_file());
    for name in ["ca.pem", "clients/bob.pem"] {
        fs::copy(dir.join(name), theirs.join(name)).unwrap();
    }
    let server = Server::start_with(Setup {
        certs: Some(dir),
        ..Setup::default()
    });
    let mut command = fsvc();
    command.args([
        "ls",
        "/",
        "--as",
        "bob",
        "--server",
        &server.address,
        "--tls-dir",
    ]);
    let output = command.arg(&theirs).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_peer_is_a_server_and_where_the_policy_says_so_a_client() {
    let (_scratch, dir) = place();
    ok(
        &dir,
        &[
            "add",
            "--peer",
            "node-1",
            "--host",
            "localhost",
            "--host",
            "127.0.0.1",
        ],
    );
    let peers = dir.join("peers");
    let (certificate, key) = (peers.join("node-1.pem"), peers.join("node-1-key.pem"));
    let grant = "[[grant]]\nto = \"spiffe://test.internal/**\"\nallow = [\"list\", \"read\"]\non = \"/**\"\n";
    let trust =
        "[[trust]]\nca = \"ca.pem\"\ntrust_domain = \"test.internal\"\nalso_servers = true\n";
    for (policy, code) in [(grant.to_owned(), 5), (format!("{trust}\n{grant}"), 0)] {
        let path = dir.join("policy.toml");
        fs::write(&path, policy).unwrap();
        let server = Server::start_with(Setup {
            certs: Some(dir.clone()),
            arguments: vec![
                "--cert".to_owned(),
                certificate.to_str().unwrap().to_owned(),
                "--key".to_owned(),
                key.to_str().unwrap().to_owned(),
            ],
            ..Setup::default()
        });
        let mut command = fsvc();
        command.arg("whoami").arg("--ca").arg(dir.join("ca.pem"));
        command
            .arg("--cert")
            .arg(&certificate)
            .arg("--key")
            .arg(&key);
        command
            .args(["--server", &server.address])
            .env("FSVC_RETRY_FOR", "0s");
        let output = command.output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}\n{}", server.log());
        if code == 0 {
            assert!(
                said.contains("spiffe://test.internal/peer/node-1"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_name_of_several_kinds_takes_its_kind() {
    let (_scratch, dir) = place();
    ok(&dir, &["add", "--peer", "dev", "--host", "dev.internal"]);
    for verb in ["renew", "revoke"] {
        let said = refused(3, &dir, &[verb, "dev"]);
        assert!(said.contains("client/dev or peer/dev"), "{said}");
    }
    assert_eq!(
        json(&dir, &["renew", "peer/dev"])["renewed"][0]["kind"],
        "peer"
    );
}

#[test]
fn two_processes_at_once_issue_what_both_were_asked_for() {
    let (_scratch, dir) = place();
    let children: Vec<_> = (0..8)
        .map(|n| {
            let mut command = fsvc();
            command.args(["certs", "add", "--client", &format!("c{n}"), "--dir"]);
            command.arg(&dir).stdout(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let listed = json(&dir, &["list"]);
    assert_eq!(items(&listed).len(), 3 + 8);
    let policy = fs::read_to_string(dir.join("policy.toml")).unwrap();
    assert!((0..8).all(|n| policy.contains(&format!("client/c{n}\""))));
    // Of two that add one name, one is refused.
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = fsvc();
            command
                .args(["certs", "add", "--client", "twin", "--dir"])
                .arg(&dir);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    let codes = children
        .into_iter()
        .map(|mut child| child.wait().unwrap().code().unwrap());
    let mut codes: Vec<i32> = codes.collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 3, 3, 3]);
    assert!(
        certs(&dir, &["list", "--expiring", "nonsense"])
            .status
            .code()
            == Some(2)
    );
}
