//! Files of trusted CAs that hold what they should not, or hold it in a strange form.
//!
//! A CA is trusted because it was read, never because something else was passed over.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::harness::{Server, text};
use crate::matrix::{Ca, GOOD, Matrix, now_plus};
use crate::raw::Raw;
use crate::reload::{EVERY, n_in_log, until};
use time::Duration;

const REFUSED: &str = "nothing was read anew";
const HOLDS: &str = "other certificates hold now";
/// CAs of the longest bundle that is tried.
const N_CAS: usize = 1_000;

/// A CA of the first version of X.509, which cannot say that it is one.
fn version_one(matrix: &Matrix) -> String {
    for words in [
        "req -new -nodes -newkey rsa:2048 -keyout k.pem -out r.csr -subj /CN=v1",
        "x509 -req -in r.csr -signkey k.pem -out v1.pem",
    ] {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(matrix.dir());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    fs::read_to_string(matrix.path("v1.pem")).unwrap()
}

type Case = (&'static str, Vec<u8>, &'static str);

/// Bundles that are refused, and why.
fn bad(matrix: &Matrix) -> Vec<Case> {
    let ca = matrix.ca.pem.clone();
    let other = Ca::root("other");
    let leaf = other.client_named(GOOD);
    let key = other.as_pair().key;
    let utf16: Vec<u8> = ca.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let early = Ca::root_with("early", |ca| ca.not_before = now_plus(Duration::HOUR));
    let relabelled = |label: &str| ca.clone() + &other.pem.replace(" CERTIFICATE-", label);
    let also = |text: &str| (ca.clone() + text).into_bytes();
    vec![
        ("a leaf", also(&leaf.chain), "is not a CA"),
        ("a leaf alone", leaf.chain.into_bytes(), "is not a CA"),
        ("version 1", also(&version_one(matrix)), "is not a CA"),
        ("early", also(&early.pem), "is not valid until"),
        ("a key behind", also(&key), "a key has no place in a file"),
        ("a key before", (key + &ca).into_bytes(), "PRIVATE KEY"),
        (
            "a list",
            also(&other.empty_list()),
            "found CERTIFICATE, X509 CRL",
        ),
        ("UTF-16", utf16, "found no PEM"),
        ("nothing", Vec::new(), "is empty"),
        (
            "half",
            ca.as_bytes()[..ca.len() / 2].to_vec(),
            "not valid PEM",
        ),
        (
            "another label",
            relabelled(" TRUSTED CERTIFICATE-").into_bytes(),
            "2 PEM items, of which 1 can be read",
        ),
        (
            "indented",
            also(&other.pem.replace("-----BEGIN", "  -----BEGIN")),
            "2 PEM items, of which 1 can be read",
        ),
        (
            "no list",
            also(&other.pem),
            "has no revocation list from it",
        ),
    ]
}

#[test]
fn a_bundle_that_holds_something_else_is_refused_whole() {
    let matrix = Matrix::new();
    let server = matrix.serve(&EVERY);
    let mut session = Raw::connect(&server, "good");
    let good = matrix.ca.pem.clone();
    // The client's own bundle is another file here: what is tried is the server's.
    matrix.write("clients/ca.pem", &good);
    for (name, bundle, says) in bad(&matrix) {
        let (n_refused, n_held) = (n_in_log(&server, REFUSED), n_in_log(&server, HOLDS));
        matrix.replace("ca.pem", bundle);
        until(&format!("{name}: {}", server.log()), || {
            n_in_log(&server, REFUSED) > n_refused
        });
        let log = server.log();
        let said = log.lines().rfind(|line| line.contains(REFUSED)).unwrap();
        let start = start_fails(&matrix);
        // A hint is for whoever starts it.
        assert!(start.contains(says), "{name}: {says:?} not in: {start}");
        let cause = start.lines().next().unwrap().trim_start_matches("fsvc: ");
        let cause = cause.split(" [TLS").next().unwrap().replace('"', "\\\"");
        assert!(said.contains(&cause), "{name}: {cause:?} not in: {said}");
        session.lives();
        Raw::connect_with(&server, &matrix.path("clients/ca.pem"), "good").lives();
        // Another end of the file is another content, so that it is seen to be taken.
        matrix.replace("ca.pem", format!("{good}# after {name}\n"));
        until("a good one", || n_in_log(&server, HOLDS) > n_held);
        assert_eq!(n_in_log(&server, REFUSED), n_refused + 1, "{name}");
    }
}

/// A client trusts no more than a server does, and asks nobody before it has looked.
#[test]
fn a_client_refuses_the_same_bundles() {
    let matrix = Matrix::new();
    for (name, bundle, says) in bad(&matrix) {
        if name == "no list" {
            continue;
        }
        matrix.write("ca.pem", bundle);
        let mut command = crate::harness::fsvc();
        command.args(["whoami", "--server", "localhost:1", "--as", "good"]);
        command.arg("--tls-dir").arg(matrix.dir());
        let output = command.output().unwrap();
        let stderr = text(&output.stderr);
        assert!(!output.status.success(), "{name}: {stderr}");
        assert!(stderr.contains(says), "{name}: {says:?} not in: {stderr}");
    }
}

#[test]
fn a_file_without_end_is_not_read_for_ever() {
    for name in ["ca.pem", "ca.crl", "server.pem"] {
        let matrix = Matrix::new();
        fs::remove_file(matrix.path(name)).unwrap();
        symlink("/dev/zero", matrix.path(name)).unwrap();
        let said = start_fails(&matrix);
        assert!(said.contains("no plain file"), "{name}: {said}");
        fs::remove_file(matrix.path(name)).unwrap();
        let long = fs::File::create(matrix.path(name)).unwrap();
        long.set_len(1 << 40).unwrap();
        let said = start_fails(&matrix);
        assert!(said.contains("at most 16777216 are read"), "{name}: {said}");
    }
}

/// What a server says that does not start.
fn start_fails(matrix: &Matrix) -> String {
    let output = crate::bad_lists::serve(matrix);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    stderr
}

/// The name of a form, and how a text is brought into it.
type Form = (&'static str, fn(&str) -> String);

/// Forms that other tools write: each CA in them counts, the first one, too.
#[test]
fn strange_forms_of_a_good_bundle_are_read_whole() {
    let matrix = Matrix::new();
    let other = Ca::root("other");
    matrix.add("other", &other.client(|_| {}));
    let both = matrix.ca.pem.clone() + &other.pem;
    let lists = matrix.ca.empty_list() + &other.empty_list();
    let forms: [Form; 6] = [
        ("a mark before it", |text| format!("\u{feff}{text}")),
        ("ends of lines", |text| text.replace('\n', "\r\n")),
        ("no end of a line", |text| text.trim_end().to_owned()),
        ("more ends of lines", |text| format!("\n\n{text}\n\n\n")),
        ("words", |text| {
            text.replace("-----BEGIN", "Subject: CN=x\n  Not After: y\n-----BEGIN")
        }),
        ("twice", |text| text.to_owned()),
    ];
    for (name, form) in forms {
        let bundle = if name == "twice" {
            both.repeat(2)
        } else {
            form(&both)
        };
        matrix.write("ca.pem", bundle);
        matrix.write("ca.crl", form(&lists));
        let server = matrix.serve(&[]);
        for client in ["good", "other"] {
            let output = server.client(client, &["whoami"]).output().unwrap();
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{name}, {client}: {stderr}");
        }
    }
}

#[test]
fn of_a_thousand_cas_each_counts_and_no_other() {
    let matrix = Matrix::new();
    let cas: Vec<Ca> = (0..N_CAS).map(|n| Ca::root(&format!("ca {n}"))).collect();
    let last = cas.last().unwrap();
    matrix.add("last", &last.client(|_| {}));
    matrix.add("twin", &Ca::root("ca 7").client(|_| {}));
    let bundle: String = cas.iter().map(|ca| ca.pem.as_str()).collect();
    let lists: String = cas.iter().map(Ca::empty_list).collect();
    matrix.write("ca.pem", matrix.ca.pem.clone() + &bundle);
    matrix.write("ca.crl", matrix.ca.empty_list() + &lists);
    let server = matrix.serve(&[]);
    for (client, code) in [("good", 0), ("last", 0), ("twin", 5)] {
        let output = server.client(client, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{client}: {stderr}");
    }
}

/// One path under two trust domains is two principals, whoever signed.
#[test]
fn one_path_under_two_trust_domains_is_two_principals() {
    let matrix = Matrix::new();
    let elsewhere = GOOD.replace("test.internal", "elsewhere.internal");
    matrix.add("elsewhere", &matrix.ca.client_named(&elsewhere));
    let server = matrix.serve(&[]);
    put(&server, "good", 0);
    put(&server, "elsewhere", 4);
    let grant = fs::read_to_string(matrix.path("policy.toml")).unwrap();
    drop(server);
    // The other way round it is the other one, and never both.
    matrix.write("policy.toml", grant.replace(GOOD, &elsewhere));
    let server = matrix.serve(&[]);
    put(&server, "good", 4);
    put(&server, "elsewhere", 0);
    let output = server.client("elsewhere", &["whoami"]).output().unwrap();
    assert!(text(&output.stdout).starts_with(&format!("{elsewhere}\n")));
}

#[track_caller]
fn put(server: &Server, client: &str, code: i32) {
    let mut command = server.client(client, &["put", "-", &format!("/{client}")]);
    let output = crate::harness::with_input(&mut command, b"content");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
}
