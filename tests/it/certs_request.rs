//! Keys that stay where they are made: requests, and what a signer takes from one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Server, fsvc, gen_certs, text};
use crate::matrix::{named, uris};

struct Desk {
    scratch: TempDir,
}

impl Desk {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        gen_certs(&scratch.path().join("certs"), &["dev"]);
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = fsvc();
        command.arg("certs").args(arguments);
        command.current_dir(self.scratch.path()).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        stderr
    }

    /// Writes a request that asks for what `shape` says.
    fn ask(&self, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("evil");
        shape(&mut params);
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        fs::write(self.path(name), request).unwrap();
        key
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("openssl");
        let output = command
            .args(arguments)
            .current_dir(self.scratch.path())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_key_that_never_leaves_its_machine_gets_a_certificate_that_works() {
    let server = Server::start();
    let far = TempDir::new().unwrap();
    let far = far.path().join("far");
    let mut request = Command::new("sh");
    request.args([
        "-c",
        "umask 000; exec \"$0\" certs request --client carol --dir \"$1\"",
    ]);
    request.arg(env!("CARGO_BIN_EXE_fsvc")).arg(&far);
    assert!(request.status().unwrap().success());
    let key = far.join("clients/carol-key.pem");
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(&far.join("clients/carol.csr")), 0o644);
    let key = fs::read(key).unwrap();

    let mut sign = fsvc();
    sign.args(["certs", "sign"])
        .arg(far.join("clients/carol.csr"));
    sign.args(["--client", "carol", "--dir"])
        .arg(server.certs());
    sign.arg("--out").arg(far.join("clients/carol.pem"));
    let output = sign.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::copy(server.certs().join("ca.pem"), far.join("ca.pem")).unwrap();
    assert_eq!(fs::read(far.join("clients/carol-key.pem")).unwrap(), key);
    assert!(fs::metadata(server.certs().join("clients/carol-key.pem")).is_err());

    let mut whoami = fsvc();
    whoami
        .args(["whoami", "--as", "carol", "--tls-dir"])
        .arg(&far);
    let output = whoami.args(["--server", &server.address]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.contains("spiffe://test.internal/client/carol"),
        "{said}"
    );
}

#[test]
fn a_server_gets_the_hosts_of_the_flags() {
    let desk = Desk::new();
    let hosts = [
        "--server",
        "--host",
        "files.example.com",
        "--host",
        "192.0.2.7",
    ];
    desk.ok(&[&["request", "--dir", "far"], &hosts[..]].concat());
    assert_eq!(mode(&desk.path("far/server-key.pem")), 0o600);
    let stderr = desk.fails(3, &[&["sign", "far/server.csr"], &hosts[..]].concat());
    assert!(stderr.contains("certs/server.pem is there"), "{stderr}");
    let fewer = [
        "--server",
        "--host",
        "files.example.com",
        "--out",
        "s.pem",
        "--json",
    ];
    let said = desk.ok(&[&["sign", "far/server.csr"], &fewer[..]].concat());
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["hosts"], serde_json::json!(["files.example.com"]));
    assert_eq!(report["dropped"], serde_json::json!(["IP:192.0.2.7"]));
    assert_eq!(report["identity"], "spiffe://test.internal/server/main");
    let verified = desk.openssl(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "files.example.com",
        "-CAfile",
        "certs/ca.pem",
        "s.pem",
    ]);
    assert!(verified.contains("OK"), "{verified}");
}

#[test]
fn peers_and_other_servers_keep_their_keys_too() {
    let desk = Desk::new();
    for (holder, file, purposes) in [
        (
            ["--peer", "node-1", "--host", "node-1.internal"],
            "peers/node-1",
            &["sslserver", "sslclient"][..],
        ),
        (
            ["--server", "web", "--host", "web.internal"],
            "servers/web",
            &["sslserver"],
        ),
    ] {
        let kind = &holder[0][2..];
        let said = desk.ok(&[&["request", "--dir", "far"], &holder[..]].concat());
        let again = format!("fsvc certs sign {}.csr {}", holder[1], holder.join(" "));
        assert!(said.contains(&again), "{said}");
        let request = format!("far/{file}.csr");
        let signed = desk.ok(&[&["sign", &request, "--json"], &holder[..]].concat());
        let report: Value = serde_json::from_str(&signed).unwrap();
        assert_eq!(report["kind"], kind);
        assert_eq!(report["dropped"], serde_json::json!([]), "{signed}");
        assert_eq!(
            report["identity"],
            format!("spiffe://test.internal/{kind}/{}", holder[1])
        );
        let certificate = format!("certs/{file}.pem");
        for purpose in purposes {
            let verified = desk.openssl(&[
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                "certs/ca.pem",
                &certificate,
            ]);
            assert!(verified.contains("OK"), "{verified}");
        }
        // The key is not here: who has it asks again, and the same name is not given to another.
        let stderr = desk.fails(3, &["renew", holder[1]]);
        assert!(stderr.contains("certs sign"), "{stderr}");
        desk.ok(&[&["sign", &request], &holder[..]].concat());
        desk.ask("other.csr", |_| {});
        let other = [&["sign", "other.csr", "--out", "x.pem"], &holder[..]].concat();
        let stderr = desk.fails(3, &other);
        assert!(
            stderr.contains("has a certificate of another key"),
            "{stderr}"
        );
    }
    desk.fails(2, &["request", "--dir", "far", "--peer", "node-2"]);
}

#[test]
fn a_request_is_kept_and_its_key_is_never_made_twice() {
    let desk = Desk::new();
    let request = ["request", "--client", "carol", "--dir", "far"];
    assert!(desk.ok(&request).contains("made"));
    let files = ["far/clients/carol-key.pem", "far/clients/carol.csr"];
    let read = || files.map(|name| fs::read(desk.path(name)).unwrap());
    let before = read();
    assert!(desk.ok(&request).contains("kept"));
    assert_eq!(read(), before);

    let out = [
        "sign",
        files[1],
        "--client",
        "carol",
        "--out",
        "far/clients/carol.pem",
    ];
    desk.ok(&out);
    let stderr = desk.fails(3, &request);
    assert!(stderr.contains("--reuse-key"), "{stderr}");
    desk.ok(&[&request[..], &["--reuse-key"]].concat());
    assert_eq!(read()[0], before[0]);
    // The same key again is a renewal.
    desk.ok(&out);
    let index = fs::read_to_string(desk.path("certs/ca-private/index.jsonl")).unwrap();
    assert_eq!(index.matches("client/carol").count(), 2);

    let stderr = desk.fails(3, &["request", "--client", "carol"]);
    assert!(stderr.contains("fsvc certs add --client carol"), "{stderr}");
    for wrong in ["..", "a/b", "", "UPPER", "server", "-x"] {
        let name = format!("--client={wrong}");
        desk.fails(2, &["request", &name, "--dir", "far"]);
    }
    desk.fails(
        2,
        &["request", "--server", "--host", "h:80", "--dir", "far"],
    );
    desk.fails(2, &["request", "--server", "--dir", "far"]);
    desk.fails(2, &["request", "--dir", "far"]);
}

type Shape = Box<dyn FnOnce(&mut CertificateParams)>;

/// What a request may ask for, and how that is shown.
fn wishes() -> Vec<(&'static str, Shape)> {
    let other = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    vec![
        (
            "CA:TRUE",
            Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "anyExtendedKeyUsage",
            Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
        ),
        (
            "serverAuth",
            Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "keyCertSign",
            Box::new(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
        ),
        (
            "DNS:*",
            Box::new(|p| p.subject_alt_names = vec![SanType::DnsName("*".try_into().unwrap())]),
        ),
        (
            "URI:spiffe://test.internal/client/admin",
            Box::new(|p| p.subject_alt_names = uris(&["spiffe://test.internal/client/admin"])),
        ),
        (
            "extension 1.2.3.4",
            Box::new(|p| p.custom_extensions = vec![other]),
        ),
        ("subject CN=evil", Box::new(|_| {})),
    ]
}

/// Whatever is asked for, the certificate is the operator's.
#[test]
fn what_a_request_asks_for_beyond_its_key_is_dropped_and_shown() {
    let desk = Desk::new();
    let cases = wishes();
    for (n, (dropped, shape)) in cases.into_iter().enumerate() {
        desk.ask("r.csr", shape);
        let (client, out) = (format!("c{n}"), format!("c{n}.pem"));
        let arguments = [
            "sign", "r.csr", "--client", &client, "--out", &out, "--json",
        ];
        let report: Value = serde_json::from_str(&desk.ok(&arguments)).unwrap();
        let found = report["dropped"].as_array().unwrap();
        assert!(
            found.iter().any(|text| text == dropped),
            "{dropped}: {report}"
        );
        let shown = desk.openssl(&["x509", "-in", &out, "-noout", "-text"]);
        assert!(shown.contains("CA:FALSE"), "{shown}");
        assert!(
            shown.contains(&format!("URI:spiffe://test.internal/client/{client}\n")),
            "{shown}"
        );
        assert!(shown.contains("TLS Web Client Authentication\n"), "{shown}");
        assert!(
            !shown.contains("evil") && !shown.contains("admin"),
            "{shown}"
        );
        assert!(
            !shown.contains("1.2.3.4") && !shown.contains("DNS:"),
            "{shown}"
        );
        assert!(
            !shown.contains("Server Auth") && !shown.contains("Certificate Sign"),
            "{shown}"
        );
        let verified = desk.openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            "sslclient",
            "-CAfile",
            "certs/ca.pem",
            &out,
        ]);
        assert!(verified.contains("OK"), "{verified}");
    }
}

#[test]
fn keys_and_requests_of_other_tools_are_taken() {
    let desk = Desk::new();
    let kinds: [(&str, &[&str]); 4] = [
        ("RSA", &["rsa:2048"]),
        (
            "ECDSA P-256",
            &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
        (
            "ECDSA P-384",
            &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("Ed25519", &["ed25519"]),
    ];
    for (n, (kind, key)) in kinds.into_iter().enumerate() {
        let mut arguments = vec!["req", "-new", "-nodes", "-subj", "/CN=x", "-newkey"];
        arguments.extend(key);
        arguments.extend(["-keyout", "k.pem", "-out", "r.csr"]);
        desk.openssl(&arguments);
        let pem = fs::read_to_string(desk.path("r.csr")).unwrap();
        desk.openssl(&["req", "-in", "r.csr", "-outform", "DER", "-out", "r.der"]);
        fs::write(
            desk.path("new.csr"),
            pem.replace("CERTIFICATE", "NEW CERTIFICATE"),
        )
        .unwrap();
        fs::write(desk.path("crlf.csr"), pem.replace('\n', "\r\n")).unwrap();
        fs::write(desk.path("text.csr"), format!("Some words\n{pem}\nmore")).unwrap();
        for file in ["r.csr", "r.der", "new.csr", "crlf.csr", "text.csr"] {
            let (client, out) = (format!("c{n}"), format!("{n}{file}.pem"));
            let said = desk.ok(&["sign", file, "--client", &client, "--out", &out, "--json"]);
            let report: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(report["key_kind"], kind, "{file}");
            let of_key = desk.openssl(&["pkey", "-in", "k.pem", "-pubout"]);
            let of_certificate = desk.openssl(&["x509", "-in", &out, "-noout", "-pubkey"]);
            assert_eq!(of_key, of_certificate);
        }
    }
}

#[test]
fn requests_that_are_no_good_are_refused_and_nothing_is_issued() {
    let desk = Desk::new();
    let index = || fs::read(desk.path("certs/ca-private/index.jsonl")).unwrap();
    let before = index();
    let write = |name: &str, bytes: &[u8]| fs::write(desk.path(name), bytes).unwrap();
    let make = |name: &str, key: &[&str], more: &[&str]| {
        let mut arguments = vec!["req", "-new", "-nodes", "-subj", "/CN=x", "-newkey"];
        arguments.extend(key);
        arguments.extend(["-keyout", "k.pem", "-out", name]);
        arguments.extend(more);
        desk.openssl(&arguments);
    };
    make("small.csr", &["rsa:1024"], &[]);
    make("sha1.csr", &["rsa:2048"], &["-sha1"]);
    make(
        "p521.csr",
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &[],
    );
    make(
        "k1.csr",
        &["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        &[],
    );
    make("ed448.csr", &["ed448"], &[]);
    make("good.der", &["rsa:2048"], &["-outform", "DER"]);
    let der = fs::read(desk.path("good.der")).unwrap();
    let mut bent = der.clone();
    *bent.last_mut().unwrap() ^= 1;
    write("signature.csr", &bent);
    // Another subject under the same signature.
    let place = der
        .windows(5)
        .position(|w| w == [0x0c, 1, b'x', 0x30, 0x82])
        .unwrap();
    let mut renamed = der.clone();
    renamed[place + 2] = b'y';
    write("renamed.csr", &renamed);
    write("trailing.csr", &[&der[..], b"more"].concat());
    write("cut.csr", &der[..der.len() / 2]);
    write("empty.csr", b"");
    write("long.csr", &[0x30].repeat(70_000));
    let pem = desk.openssl(&["req", "-inform", "DER", "-in", "good.der"]);
    write("two.csr", pem.repeat(2).as_bytes());
    let cases = [
        ("small.csr", "RSA with 1024 bits"),
        ("sha1.csr", "SHA-1"),
        ("p521.csr", "of the kind 1.3.132.0.35"),
        ("k1.csr", "of the kind 1.3.132.0.10"),
        ("ed448.csr", "of the kind 1.3.101.113"),
        ("signature.csr", "not signed by the key"),
        ("renamed.csr", "not signed by the key"),
        ("trailing.csr", "is not a certificate request"),
        ("cut.csr", "is not a certificate request"),
        ("empty.csr", "is empty"),
        ("long.csr", "longer than 65536 bytes"),
        ("two.csr", "found CERTIFICATE REQUEST, CERTIFICATE REQUEST"),
        ("certs/ca.pem", "found CERTIFICATE"),
        ("k.pem", "found PRIVATE KEY"),
        ("certs/ca.crl", "found X509 CRL"),
    ];
    for (file, says) in cases {
        let stderr = desk.fails(3, &["sign", file, "--client", "x", "--out", "x.pem"]);
        assert!(stderr.contains(says), "{file}: {stderr}");
        assert!(fs::metadata(desk.path("x.pem")).is_err(), "{file}");
    }
    desk.fails(1, &["sign", "missing.csr", "--client", "x"]);
    assert_eq!(index(), before);
}

#[test]
fn one_name_is_not_given_to_two_keys_by_mistake() {
    let desk = Desk::new();
    desk.ask("one.csr", |_| {});
    desk.ask("two.csr", |_| {});
    desk.ok(&["sign", "one.csr", "--client", "carol"]);
    let certificate = desk.path("certs/clients/carol.pem");
    let before = fs::read(&certificate).unwrap();
    let stderr = desk.fails(
        3,
        &["sign", "two.csr", "--client", "carol", "--out", "2.pem"],
    );
    assert!(
        stderr.contains("client/carol has a certificate of another key"),
        "{stderr}"
    );
    assert!(stderr.contains("--again"), "{stderr}");
    let stderr = desk.fails(3, &["sign", "two.csr", "--client", "carol", "--again"]);
    assert!(
        stderr.contains("not for the key of the request"),
        "{stderr}"
    );
    assert_eq!(fs::read(&certificate).unwrap(), before);
    desk.ok(&[
        "sign", "two.csr", "--client", "carol", "--again", "--out", "2.pem",
    ]);
    // The key of dev was made here.
    let stderr = desk.fails(3, &["sign", "one.csr", "--client", "dev", "--again"]);
    assert!(
        stderr.contains("certs/clients/dev.pem is there"),
        "{stderr}"
    );
    let said = desk.ok(&["sign", "one.csr", "--client", "other"]);
    assert!(
        said.contains("the same key has a certificate for"),
        "{said}"
    );

    // A renewal keeps the old one in the archive.
    let serial = desk.openssl(&[
        "x509",
        "-in",
        "certs/clients/carol.pem",
        "-noout",
        "-serial",
    ]);
    let serial = serial.trim().trim_start_matches("serial=").to_lowercase();
    desk.ok(&["sign", "one.csr", "--client", "carol"]);
    assert_ne!(fs::read(&certificate).unwrap(), before);
    let archived = desk.path(&format!("certs/ca-private/archive/{serial}/carol.pem"));
    assert_eq!(fs::read(archived).unwrap(), before);

    let policy = fs::read_to_string(desk.path("certs/policy.toml")).unwrap();
    assert_eq!(policy.matches("client/carol\"").count(), 1);
    fs::write(
        desk.path("certs/policy.toml"),
        format!("{policy}\n# mine\n"),
    )
    .unwrap();
    desk.ask("three.csr", |_| {});
    let said = desk.ok(&["sign", "three.csr", "--client", "dora"]);
    assert!(said.contains("was edited by hand"), "{said}");

    fs::remove_file(desk.path("certs/ca-private/ca-key.pem")).unwrap();
    let stderr = desk.fails(
        3,
        &["sign", "three.csr", "--client", "emil", "--out", "e.pem"],
    );
    assert!(
        stderr.contains("the CA key certs/ca-private/ca-key.pem is not here"),
        "{stderr}"
    );
    desk.fails(
        3,
        &["sign", "three.csr", "--client", "emil", "--dir", "nowhere"],
    );
}

#[test]
fn what_was_revoked_is_not_signed_again_by_the_way() {
    let desk = Desk::new();
    let sign = ["sign", "away/clients/carol.csr", "--client", "carol"];
    desk.ok(&["request", "--client", "carol", "--dir", "away"]);
    desk.ok(&sign);
    desk.ok(&["revoke", "carol", "--reason", "superseded"]);
    let stderr = desk.fails(3, &sign);
    assert!(
        stderr.contains("was revoked") && stderr.contains("--again"),
        "{stderr}"
    );
    desk.ok(&[&sign[..], &["--again"]].concat());
    // A key that others know is good for nobody, whatever is said.
    desk.ok(&["revoke", "carol", "--reason", "keyCompromise"]);
    let dave = ["sign", "away/clients/carol.csr", "--client", "dave"];
    for refused in [&sign[..], &dave, &[&sign[..], &["--again"]].concat()] {
        let stderr = desk.fails(3, refused);
        assert!(stderr.contains("was compromised"), "{stderr}");
        assert!(stderr.contains("certs request"), "{stderr}");
    }
    desk.ok(&["renew", "dev", "--reuse-key", "--revoke-old-after", "0"]);
    let listed = desk.ok(&["list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let items = listed["certificates"].as_array().unwrap().iter();
    let old: Vec<&Value> = items
        .filter(|item| item["name"] == "dev" && item["status"] == "revoked")
        .collect();
    assert_eq!(old.len(), 1);
}

#[test]
fn one_broken_file_does_not_keep_others_from_being_renewed() {
    let desk = Desk::new();
    desk.ok(&["add", "--client", "gone"]);
    desk.ok(&["revoke", "gone"]);
    desk.ok(&["add", "--client", "torn"]);
    fs::write(desk.path("certs/clients/torn.pem"), "torn").unwrap();
    let output = desk.run(&["renew", "--all", "--window", "100%"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED   client/torn"), "{said}");
    assert!(said.contains("client   certs/clients/dev.pem"), "{said}");
    assert!(said.contains("left     client/gone: "), "{said}");
    assert!(said.contains("was revoked"), "{said}");
}
