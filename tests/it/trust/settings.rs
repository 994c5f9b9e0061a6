//! Settings that cannot be meant, and settings that change while the server runs.

use std::time::Instant;

use fsvc::policy::{Policy, TRUST_MAX};

use super::{CORP, serve, trust, trusting};
use crate::certificates::{LOG_LIMIT, log_with};
use crate::harness::{Server, text};
use crate::matrix::{Ca, Matrix, POLICY};
use crate::raw::{Raw, code};

/// The line that the settings of a policy begin at.
const FIRST: usize = 7;

#[track_caller]
fn refused(settings: &str, line: usize, why: &str) {
    let error = Policy::parse(&format!("{POLICY}{settings}")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
    let line = format!("line {line}: ");
    assert!(error.starts_with(&line), "{error:?} is not at {line:?}");
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let whole = trust("corp.pem", "corp.example", "");
    assert!(Policy::parse(&format!("{POLICY}{whole}")).is_ok());
    refused("\n[[trust]]\nca = \"a.pem\"\n", FIRST, "missing field");
    refused(
        "\n[[trust]]\ntrust_domain = \"a\"\n",
        FIRST,
        "missing field",
    );
    let with = |more: &str| trust("corp.pem", "corp.example", more);
    refused(
        &with("identity = \"any\""),
        FIRST + 3,
        "unknown variant `any`",
    );
    refused(&with("identity = [\"uri\", \"cn\"]"), FIRST + 3, "");
    refused(&with("alias = \"x\""), FIRST + 3, "unknown field `alias`");
    refused(&with("also_servers = \"yes\""), FIRST + 3, "boolean");
    refused(&trust("", "corp.example", ""), FIRST + 1, "\"ca\" is empty");
    for (domain, why) in [
        ("", "the trust domain"),
        ("spiffe://corp.example", "write the domain alone"),
        ("corp.example/team", "write the domain alone"),
        ("Corp.Example", "did you mean corp.example?"),
        ("corp.example:443", "a character outside"),
        ("*", "a character outside"),
        ("corp example", "a character outside"),
        (&"x".repeat(300), "at most 256"),
    ] {
        let settings = trust("corp.pem", domain, "");
        refused(&settings, FIRST + 2, why);
        refused(&settings, FIRST + 2, "trust setting 1");
    }
    let settings = whole.clone() + &trust("corp.pem", "A", "");
    refused(&settings, FIRST + 7, "trust setting 2");
    let most = POLICY.to_owned() + &whole.repeat(TRUST_MAX);
    assert_eq!(Policy::parse(&most).unwrap().bindings().len(), TRUST_MAX);
    let error = Policy::parse(&(most + &whole)).unwrap_err().to_string();
    assert!(error.contains("101 trust settings, at most 100"), "{error}");
}

/// What a server says that does not start over this.
fn start_fails(matrix: &Matrix) -> String {
    let mut command = crate::harness::fsvc();
    command.args(["serve", "--listen", "127.0.0.1:0", "--root"]);
    command.arg(matrix.path("data")).arg("--tls-dir");
    command
        .arg(matrix.dir())
        .arg("--ca")
        .arg(matrix.path("server-ca.pem"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn files_that_do_not_fit_are_told_at_the_start() {
    let (corp, other) = (Ca::root("corp root"), Ca::root("other root"));
    let missing = trusting(&[("corp", &corp)], &trust("gone.pem", "corp.example", ""));
    let says = start_fails(&missing);
    assert!(
        says.contains("cannot read ") && says.contains("/gone.pem"),
        "{says}"
    );

    let untrusted = trusting(&[("corp", &corp)], &trust("other.pem", "corp.example", ""));
    untrusted.write("other.pem", &other.pem);
    let says = start_fails(&untrusted);
    for part in [
        "other.pem: the CA CN=other root is not in ",
        "server-ca.pem",
        "adds none",
    ] {
        assert!(says.contains(part), "{part:?} not in: {says}");
    }
    untrusted.write("other.pem", untrusted.ca.client(|_| {}).chain);
    let says = start_fails(&untrusted);
    assert!(says.contains("is not in "), "{says}");
    untrusted.write("other.pem", untrusted.ca.client(|_| {}).key);
    assert!(start_fails(&untrusted).contains("other.pem"));

    let settings = trust("corp.pem", "corp.example", "") + &trust("again.pem", "lab.example", "");
    let twice = trusting(&[("corp", &corp)], &settings);
    twice.write("again.pem", twice.ca.pem.clone() + &corp.pem);
    let says = start_fails(&twice);
    for part in [
        "CN=corp root",
        "corp.pem for the trust domain corp.example",
        "again.pem for lab.example",
    ] {
        assert!(says.contains(part), "{part:?} not in: {says}");
    }
}

/// Waits until the command ends with this code; what it then said.
#[track_caller]
fn until(server: &Server, name: &str, code: i32) -> String {
    let until = Instant::now() + LOG_LIMIT;
    loop {
        let output = server.client(name, &["whoami"]).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        if output.status.code() == Some(code) {
            return said;
        }
        assert!(Instant::now() < until, "{:?}: {said}", output.status);
    }
}

#[test]
fn settings_are_read_anew() {
    let corp = Ca::root("corp root");
    let matrix = trusting(&[("corp", &corp)], "");
    matrix.add("ann", &corp.client_named(CORP));
    matrix.add("false", &corp.client(|_| {}));
    let server = serve(&matrix);
    assert!(until(&server, "ann", 0).contains(CORP));
    assert!(until(&server, "false", 0).contains("spiffe://test.internal/client/good"));

    let (mut ends, mut stays) = (Raw::connect(&server, "false"), Raw::connect(&server, "ann"));
    let bound = POLICY.to_owned() + &trust("corp.pem", "corp.example", "");
    matrix.write("policy.toml", &bound);
    server.signal("HUP");
    // Whoever is somebody else or nobody by the new settings is told so; others go on.
    let told = ends.answer();
    assert_eq!(code(&told), "denied", "{told}");
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("may name only corp.example"), "{message}");
    ends.ends();
    stays.lives();
    assert!(until(&server, "false", 5).contains("may name only corp.example"));
    assert!(until(&server, "ann", 0).contains(CORP));

    // One that cannot be used changes nothing.
    let from = server.log().len();
    matrix.write("policy.toml", bound + &trust("gone.pem", "lab.example", ""));
    server.signal("HUP");
    log_with(&server, from, "gone.pem");
    assert!(until(&server, "false", 5).contains("may name only corp.example"));
    assert!(until(&server, "ann", 0).contains(CORP));

    // The file of a setting is looked at without a signal, too.
    matrix.write(
        "policy.toml",
        POLICY.to_owned() + &trust("corp.pem", "corp.example", ""),
    );
    server.signal("HUP");
    matrix.write("corp.pem", matrix.ca.pem.clone());
    assert!(until(&server, "ann", 5).contains("bound to another CA"));
    assert!(until(&server, "good", 5).contains("may name only corp.example"));
    stays.answer();
    stays.ends();
}
