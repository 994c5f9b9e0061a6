//! A server that cannot serve says so and ends: what failed, where, and what to do about it.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration as Wait, Instant};

use rcgen::KeyUsagePurpose;
use time::Duration;

use crate::failure_texts::mask_times;
use crate::harness::{fsvc, text};
use crate::matrix::{Ca, GOOD, Matrix, POLICY, Pair, now_plus};

/// Longest wait for a server that does not start to say so.
const LIMIT: Wait = Wait::from_secs(20);

/// What a server says that does not start; `DIR` stands for the directory, `TIME` for a time.
#[track_caller]
fn start(matrix: &Matrix, arguments: &[&str]) -> String {
    let mut command = fsvc();
    command.args(["serve", "--tls-dir"]).arg(matrix.dir());
    if !arguments.contains(&"--root") {
        command.arg("--root").arg(matrix.path("data"));
    }
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !arguments.contains(&"--log") {
        command.args(["--log", "error"]);
    }
    command.args(arguments);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            let _ = child.kill();
        }
        std::thread::yield_now();
    }
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{stderr}{}",
        text(&output.stdout)
    );
    assert_eq!(text(&output.stdout), "");
    let directory = matrix.dir().display().to_string();
    let words = stderr.replace(&directory, "DIR");
    // Which code belongs to which failure is held by the tests of the texts.
    let uncoded = |line: &str| match line.split_once(" [TLS") {
        Some((text, _)) => text.to_owned(),
        None => line.to_owned(),
    };
    let lines = words.lines().map(uncoded);
    mask_times(&lines.collect::<Vec<_>>().join("\n"))
}

#[track_caller]
fn says(matrix: &Matrix, arguments: &[&str], expected: &str) {
    let said = start(matrix, arguments);
    assert_eq!(said, expected);
    let n_lines = said.lines().count();
    assert!(said.starts_with("fsvc: ") && n_lines <= 2, "{said}");
    assert!(n_lines == 1 || said.contains("\nhint: "), "{said}");
}

#[test]
fn without_a_policy_that_holds_nothing_starts() {
    let matrix = Matrix::new();
    let with = |text: &str, expected: &str| {
        matrix.write("policy.toml", text);
        says(&matrix, &[], expected);
    };
    with(
        "",
        "fsvc: the policy DIR/policy.toml grants nothing: nobody could do anything\nhint: fsvc gen-certs writes a first one; or write, for example: [[grant]] to = \"spiffe://DOMAIN/client/NAME\" allow = [\"list\", \"read\"] on = \"/**\"",
    );
    with(
        "# nobody\n",
        "fsvc: the policy DIR/policy.toml grants nothing: nobody could do anything\nhint: fsvc gen-certs writes a first one; or write, for example: [[grant]] to = \"spiffe://DOMAIN/client/NAME\" allow = [\"list\", \"read\"] on = \"/**\"",
    );
    with(
        "[[grant]\n",
        "fsvc: the policy DIR/policy.toml is refused: line 1: unclosed array table, expected `]`",
    );
    with(
        &POLICY.replace("allow", "alow"),
        "fsvc: the policy DIR/policy.toml is refused: line 4: unknown field `alow`, expected one of `to`, `allow`, `on`",
    );
    let failing =
        format!("{POLICY}[[expect]]\nwho = \"{GOOD}\"\ncannot = [\"read\"]\non = \"/a\"\n");
    with(
        &failing,
        "fsvc: the policy DIR/policy.toml is refused: line 6: expectation 1: spiffe://test.internal/client/good should not be able to read /a, and grant 1 (line 2) allows it",
    );
    std::fs::remove_file(matrix.path("policy.toml")).unwrap();
    says(
        &matrix,
        &[],
        "fsvc: no policy at DIR/policy.toml: nobody could do anything\nhint: fsvc gen-certs writes a first one; or write, for example: [[grant]] to = \"spiffe://DOMAIN/client/NAME\" allow = [\"list\", \"read\"] on = \"/**\"",
    );
    std::fs::create_dir(matrix.path("policy.toml")).unwrap();
    says(
        &matrix,
        &[],
        "fsvc: cannot read the policy DIR/policy.toml: Is a directory (os error 21)",
    );
}

const SWAPPED: &str = "\nhint: were two of the files swapped?";

/// A file of the server holds `content` in place of what belongs there.
#[track_caller]
fn holds(name: &str, content: &[u8], expected: &str) {
    let matrix = Matrix::new();
    let before = std::fs::metadata(matrix.path(name)).unwrap().permissions();
    matrix.write(name, content);
    std::fs::set_permissions(matrix.path(name), before).unwrap();
    says(&matrix, &[], &format!("fsvc: DIR/{name}{expected}"));
}

#[test]
fn files_that_hold_something_else_are_named() {
    let matrix = Matrix::new();
    let good = |name: &str| std::fs::read_to_string(matrix.path(name)).unwrap();
    let certificate = good("server.pem");
    let key = good("server-key.pem");
    let der = fsvc::tls::pem::read_certificates(&matrix.path("server.pem")).unwrap();
    let label = |label: &str| {
        let body = key.lines().nth(1).unwrap();
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let swapped = |expected: &str| format!(": expected {expected}{SWAPPED}");
    holds("server.pem", b"", " is empty");
    holds(
        "server.pem",
        b"hello\n",
        &swapped("certificates, found no PEM"),
    );
    holds(
        "server.pem",
        &der[0],
        ": expected certificates, found DER (binary), not PEM\nhint: convert it: openssl x509 -inform der -in OLD -out NEW",
    );
    holds(
        "server.pem",
        key.as_bytes(),
        &swapped("certificates, found PRIVATE KEY"),
    );
    holds(
        "server.pem",
        &certificate.as_bytes()[..200],
        " is not valid PEM: section end \"CERTIFICATE\" missing",
    );
    holds(
        "server.pem",
        certificate.replace("MII", "MIJ").as_bytes(),
        ": not a certificate that can be used: malformed certificate",
    );
    holds(
        "server.pem",
        label("CERTIFICATE REQUEST").as_bytes(),
        ": expected certificates, found CERTIFICATE REQUEST\nhint: this is a request: have it signed by the CA first",
    );
    let expected = "one private key, found CERTIFICATE";
    holds("server-key.pem", certificate.as_bytes(), &swapped(expected));
    holds(
        "server-key.pem",
        label("ENCRYPTED PRIVATE KEY").as_bytes(),
        ": expected one private key, found ENCRYPTED PRIVATE KEY\nhint: fsvc cannot ask for a passphrase; decrypt it: openssl pkey -in OLD -out NEW",
    );
    holds(
        "server-key.pem",
        label("OPENSSH PRIVATE KEY").as_bytes(),
        ": expected one private key, found OPENSSH PRIVATE KEY\nhint: this is an SSH key, not a TLS key",
    );
    holds(
        "server-key.pem",
        key.repeat(2).as_bytes(),
        ": expected one private key, found PRIVATE KEY, PRIVATE KEY\nhint: keep the one that belongs to the certificate",
    );
}

#[test]
fn a_bundle_or_list_that_holds_something_else_is_named() {
    let matrix = Matrix::new();
    let good = |name: &str| std::fs::read(matrix.path(name)).unwrap();
    let swapped = |expected: &str| format!(": expected {expected}{SWAPPED}");
    holds(
        "ca.pem",
        &good("server-key.pem"),
        &swapped("certificates, found PRIVATE KEY"),
    );
    holds(
        "ca.pem",
        &good("ca.crl"),
        &swapped("certificates, found X509 CRL"),
    );
    holds("ca.pem", b"", " is empty");
    holds(
        "ca.crl",
        &good("ca.pem"),
        &swapped("revocation lists, found CERTIFICATE"),
    );
    holds("ca.crl", b"", " is empty");
    for name in ["server.pem", "server-key.pem", "ca.pem", "ca.crl"] {
        let matrix = Matrix::new();
        std::fs::remove_file(matrix.path(name)).unwrap();
        let expected = format!(
            "fsvc: cannot read DIR/{name}: No such file or directory (os error 2)\nhint: fsvc gen-certs makes the certificates; --tls-dir says where they are"
        );
        says(&matrix, &[], &expected);
    }
}

#[track_caller]
fn changed(change: impl Fn(&Matrix), expected: &str) {
    let matrix = Matrix::new();
    change(&matrix);
    says(&matrix, &[], expected);
}

#[test]
fn keys_and_bundles_that_do_not_fit_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o644);
    changed(
        |m| std::fs::set_permissions(m.path("server-key.pem"), open.clone()).unwrap(),
        "fsvc: DIR/server-key.pem is readable by everyone (mode 0644)\nhint: chmod 600 DIR/server-key.pem",
    );
    changed(
        |m| m.write("server-key.pem", m.ca.client(|_| {}).key),
        "fsvc: DIR/server-key.pem does not belong to DIR/server.pem\nhint: which of the two was replaced last? put the matching pair back (the key is of TIME, the certificate of TIME)",
    );
    changed(
        |m| m.write("ca.pem", m.ca.pem.clone() + &m.ca.client(|_| {}).chain),
        "fsvc: DIR/ca.pem: the certificate CN=good is not a CA, so it cannot be trusted as one\nhint: take it out: whoever holds its key could name anybody",
    );
    changed(
        |m| {
            let weak = Ca::root_with("weak", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
            m.write("ca.pem", weak.pem);
        },
        "fsvc: DIR/ca.pem: the CA CN=weak may not sign certificates (no keyCertSign)",
    );
    changed(
        |m| {
            let old = Ca::root_with("old", |p| p.not_after = now_plus(-Duration::HOUR));
            m.write("ca.pem", m.ca.pem.clone() + &old.pem);
        },
        "fsvc: DIR/ca.pem: the certificate CN=old expired TIME; this clock says TIME\nhint: fsvc gen-certs renews what it made; another CA's file comes from there",
    );
    changed(
        |m| m.write("ca.pem", m.ca.pem.clone() + &Ca::root("second").pem),
        "fsvc: DIR/ca.pem trusts CN=second, but DIR/ca.crl has no revocation list from it\nhint: add that CA's list (an empty one will do), or start with --no-revocation",
    );
    changed(
        |m| m.write("ca.crl", m.ca.list(&[], now_plus(-Duration::MINUTE))),
        "fsvc: DIR/ca.crl: the list of CN=matrix root expired TIME, so every client of it would be refused\nhint: get that CA's present list; or start with --no-revocation, which lets revoked certificates in",
    );
}

#[test]
fn a_server_certificate_that_will_not_do_is_named() {
    let server = |matrix: &Matrix, pair: &Pair| {
        matrix.write("server.pem", &pair.chain);
        matrix.write_key("server-key.pem", &pair.key);
    };
    changed(
        |m| {
            let pair =
                m.ca.server(&["localhost"], |p| p.not_after = now_plus(-Duration::HOUR));
            server(m, &pair);
        },
        "fsvc: DIR/server.pem: the certificate CN=good expired TIME; this clock says TIME\nhint: fsvc gen-certs renews what it made; another CA's file comes from there",
    );
    changed(
        |m| {
            let pair =
                m.ca.server(&["localhost"], |p| p.not_before = now_plus(Duration::HOUR));
            server(m, &pair);
        },
        "fsvc: DIR/server.pem: the certificate CN=good is not valid until TIME; this clock says TIME\nhint: one of the two clocks is wrong",
    );
    changed(
        |m| server(m, &m.ca.client(|_| {})),
        "fsvc: DIR/server.pem: the certificate CN=good is not for server use\nhint: were the server's and a client's files swapped?",
    );
    changed(
        |m| server(m, &m.ca.as_pair()),
        "fsvc: DIR/server.pem: the certificate CN=matrix root is a CA's, not a server's\nhint: a server needs one that the CA signed: fsvc gen-certs",
    );
}

#[test]
fn a_place_that_cannot_be_served_is_named() {
    let matrix = Matrix::new();
    matrix.write("file", "");
    let file = matrix.path("file");
    says(
        &matrix,
        &["--root", file.to_str().unwrap()],
        "fsvc: cannot serve DIR/file: opening the root of the store as a directory failed: Not a directory (os error 20)\nhint: --root takes a directory",
    );
    let deep = matrix.path("no/data");
    says(
        &matrix,
        &["--root", deep.to_str().unwrap()],
        "fsvc: cannot serve DIR/no/data: making the root of the store failed: No such file or directory (os error 2)\nhint: make the directory above it first, or give another --root",
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = start(&matrix, &["--listen", &address]).replace(&address, "ADDRESS");
    assert_eq!(
        said,
        "fsvc: cannot listen on ADDRESS: Address already in use (os error 98)\nhint: is another server running? --listen takes another port"
    );
    says(
        &matrix,
        &["--listen", "nonsense"],
        "fsvc: cannot listen on nonsense: invalid socket address\nhint: --listen takes ADDR:PORT of this machine, such as 127.0.0.1:7443",
    );
    says(
        &matrix,
        &["--log", "a=b=c"],
        "fsvc: the filter of --log cannot be read: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
    );
    let server = matrix.serve(&[]);
    let root = server.root().display().to_string();
    let said = start(&matrix, &["--root", &root]).replace(&root, "ROOT");
    assert_eq!(
        said,
        "fsvc: cannot serve ROOT: locking the root, which another server uses (stop it or give another root), failed: Resource temporarily unavailable (os error 11)"
    );
    assert!(
        server
            .client("good", &["whoami"])
            .output()
            .unwrap()
            .status
            .success()
    );
}
