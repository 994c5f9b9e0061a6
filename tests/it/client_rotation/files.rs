//! The files of other tools, found by themselves; an end that is near, said once a day; an end that is
//! past, said before anybody is asked.

use std::net::TcpListener;
use std::process::{Command, Output};

use super::ending;
use super::strange::hello;
use crate::harness::{Server, Setup, fsvc, text};
use crate::matrix::{Matrix, POLICY, Pair, now_plus};
use crate::raw::message;
use crate::strange_servers::tls;

/// A secret as cert-manager mounts it.
fn mount(matrix: &Matrix, directory: &str, pair: &Pair) {
    std::fs::create_dir(matrix.path(directory)).unwrap();
    matrix.write(&format!("{directory}/tls.crt"), &pair.chain);
    matrix.write_key(&format!("{directory}/tls.key"), &pair.key);
    matrix.write(&format!("{directory}/ca.crt"), &matrix.ca.pem);
}

/// A client's command with this TLS directory, and nothing else of this machine.
fn at(matrix: &Matrix, directory: &str, server: &str, arguments: &[&str]) -> Command {
    let mut command = fsvc();
    command
        .args(arguments)
        .args(["--server", server, "--tls-dir"]);
    command.arg(matrix.path(directory));
    command.env("XDG_STATE_HOME", matrix.path("state"));
    command.env("FSVC_RETRY_FOR", "0s");
    command
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

#[test]
fn a_mounted_secret_is_found_by_both_ends() {
    let matrix = Matrix::new();
    let between = matrix.ca.below("between", |_| {});
    let server = between.server(&["localhost"], |_| {});
    mount(&matrix, "srv", &server.with(&[&between.pem]));
    let client = between.client(|_| {});
    mount(&matrix, "cli", &client.with(&[&between.pem]));
    let server = Server::start_with(Setup {
        certs: Some(matrix.path("srv")),
        policy: Some(POLICY.to_owned()),
        arguments: vec!["--no-revocation".to_owned()],
        ..Setup::default()
    });
    let address = server.address.replace("127.0.0.1", "localhost");
    let output = at(&matrix, "cli", &address, &["whoami"]).output().unwrap();
    assert!(
        text(&output.stdout).contains("client/good"),
        "{}",
        said(&output, 0)
    );
    // Where only one certificate can be there, no other one is meant.
    let output = at(&matrix, "cli", &address, &["whoami", "--as", "good"]).output();
    let stderr = said(&output.unwrap(), 2);
    assert!(
        stderr.contains("--as good") && stderr.contains("tls.crt"),
        "{stderr}"
    );
}

#[test]
fn two_layouts_in_one_directory_are_not_guessed_between() {
    let matrix = Matrix::new();
    mount(&matrix, "both", &matrix.ca.client(|_| {}));
    matrix.write("both/ca.pem", &matrix.ca.pem);
    matrix.write("both/policy.toml", POLICY);
    let output = at(&matrix, "both", "localhost:1", &["whoami"])
        .output()
        .unwrap();
    let stderr = said(&output, 2);
    assert!(
        stderr.contains("has ca.pem") && stderr.contains("and tls.crt"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: "), "{stderr}");
    let serve = |arguments: &[&str]| {
        let mut command = fsvc();
        command.args(["serve", "--listen", "nowhere", "--tls-dir"]);
        command.arg(matrix.path("both")).args(arguments);
        command
            .arg("--root")
            .arg(matrix.path("data"))
            .output()
            .unwrap()
    };
    let stderr = said(&serve(&[]), 1);
    assert!(
        stderr.contains("has ca.pem") && stderr.contains("and tls.crt"),
        "{stderr}"
    );
    // Who names each file need not care; here they are found, and are a client's.
    let file = |name: &str| matrix.path("both").join(name).display().to_string();
    let (cert, key, ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    let named = ["--cert", &cert, "--key", &key, "--ca", &ca];
    let stderr = said(&serve(&named), 1);
    assert!(stderr.contains("is not for server use"), "{stderr}");
    let output = at(
        &matrix,
        "both",
        "localhost:1",
        &[&["whoami"][..], &named].concat(),
    )
    .output();
    said(&output.unwrap(), 5);
}

#[test]
fn a_mounted_secret_without_a_revocation_list_says_what_to_do() {
    let matrix = Matrix::new();
    mount(&matrix, "srv", &matrix.ca.server(&["localhost"], |_| {}));
    matrix.write("srv/policy.toml", POLICY);
    let mut command = fsvc();
    command.args(["serve", "--listen", "127.0.0.1:0", "--tls-dir"]);
    command.arg(matrix.path("srv"));
    command.arg("--root").arg(matrix.path("data"));
    let stderr = said(&command.output().unwrap(), 1);
    assert!(
        stderr.contains("ca.crl") && stderr.contains("--no-revocation"),
        "{stderr}"
    );
}

#[test]
fn a_certificate_that_is_over_is_named_before_anybody_is_asked() {
    let matrix = Matrix::new();
    matrix.add("good", &ending(&matrix.ca, -60));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for retry_for in ["0s", "1h"] {
        let mut command = at(&matrix, "", &address, &["ls", "--as", "good"]);
        let output = command.env("FSVC_RETRY_FOR", retry_for).output().unwrap();
        let stderr = said(&output, 5);
        assert!(stderr.contains("clients/good.pem) expired 2"), "{stderr}");
        assert!(
            stderr.contains("\nhint: ") && stderr.contains("fsvc certs renew good"),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
    }
    let output = at(&matrix, "", &address, &["ls", "--as", "good", "--json"]).output();
    let error = said(&output.unwrap(), 5);
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["error"]["code"], "certificate_expired");
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_end_that_is_near_is_said_once_a_day() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let near = matrix.ca.client(|params| {
        params.not_before = now_plus(-time::Duration::days(6));
        params.not_after = now_plus(time::Duration::days(2) + time::Duration::HOUR);
    });
    matrix.add("near", &near);
    let run = |name: &str, flags: &[&str]| {
        let arguments = [&["ls", "--as", name][..], flags].concat();
        let output = at(&matrix, "", &server.address, &arguments).output();
        said(&output.unwrap(), 0)
    };
    assert_eq!(run("good", &[]), "");
    // Who asked for silence, or is a program, uses nothing up.
    assert_eq!(run("near", &["--quiet"]), "");
    assert_eq!(run("near", &["--json"]), "");
    let warning = run("near", &[]);
    assert!(
        warning.contains("near.pem) expires 2") && warning.contains(", in 2 days"),
        "{warning}"
    );
    assert!(warning.contains("fsvc certs renew near"), "{warning}");
    assert_eq!(run("near", &[]), "");
}

#[test]
fn clocks_that_differ_are_said_once_a_day() {
    let matrix = Matrix::new();
    let pair = matrix.ca.server(&["localhost"], |_| {});
    // Its greeting is of another day.
    let port = tls(&matrix, &pair, &["fsvc/1"], message(&hello()).leak());
    let server = format!("localhost:{port}");
    let run = |flags: &[&str]| {
        let arguments = [&["ping", "--as", "good"][..], flags].concat();
        let output = at(&matrix, "", &server, &arguments).output().unwrap();
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(!run(&["--quiet"]).contains("clocks"));
    assert!(!run(&["--json"]).contains("clocks"));
    let warning = run(&[]);
    assert!(
        warning.contains("the clocks differ: the server's says 2026-01-01T00:00:00Z, this"),
        "{warning}"
    );
    assert!(warning.contains("set the wrong one"), "{warning}");
    assert!(!run(&[]).contains("clocks"));

    let sound = matrix.serve(&[]);
    let output = at(&matrix, "", &sound.address, &["ping", "--as", "good"]).output();
    assert!(!said(&output.unwrap(), 0).contains("clocks"));
}
