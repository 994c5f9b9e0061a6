//! What `fsvc gen-certs` is asked for and cannot mean: told in a line, and nothing is made.

use std::fs;

use tempfile::TempDir;

use crate::harness::{fsvc, text};

/// Words of a command line, and what is said about them.
type Case = (&'static [&'static str], &'static str);

const HOSTS: [Case; 18] = [
    (&["--host", ""], "host"),
    (&["--host", "host:8443"], "has a port"),
    (&["--host", "https://x"], "URL"),
    (&["--host", "a_b"], "a_b"),
    (&["--host=-x"], "-x"),
    (&["--host", "*"], "*"),
    (&["--host", "*.*.x"], "*.*.x"),
    (&["--host", "a.*.b"], "a.*.b"),
    (&["--host", "fe80::1%eth0"], "fe80::1%eth0"),
    (&["--host", "127.1"], "127.1"),
    (&["--host", "0.0.0.0"], "bind"),
    (&["--host", "::"], "bind"),
    (&["--host", "bücher.example"], "xn--"),
    (&["--host", "a b"], "more than one name"),
    (&["--host", "a,b"], "more than one name"),
    (&["--host", "x\u{1b}[2J"], "host"),
    (&["--host", "x\ny"], "host"),
    (&["--host", "good", "--host", "good:1"], "good:1"),
];

const NAMES: [Case; 13] = [
    (&["--client", ""], "client name"),
    (&["--client", ".."], "client name"),
    (&["--client", "a/b"], "client name"),
    (&["--client", "CON"], "upper-case"),
    (&["--client", "Dev"], "upper-case"),
    (&["--client", "a\nb"], "client name"),
    (&["--client", "a\u{1b}b"], "client name"),
    (&["--client", "a\u{202e}b"], "client name"),
    (&["--client=-x"], "client name"),
    (&["--client", "server"], "server"),
    (&["--client", "ca"], "ca"),
    (&["--client", "x-key"], "-key"),
    (&["--client", "dev", "--client", "a b"], "a b"),
];

const DOMAINS: [Case; 7] = [
    (
        &["--trust-domain", "Acme.internal"],
        "write it in lower case",
    ),
    (&["--trust-domain", "acme:443"], "acme:443"),
    (&["--trust-domain", "%41"], "%41"),
    (&["--trust-domain", "spiffe://acme"], "spiffe://"),
    (&["--trust-domain", ""], "trust domain"),
    (&["--trust-domain", "a/b"], "a/b"),
    (&["--trust-domain", "ä.internal"], "trust domain"),
];

const DAYS: [Case; 8] = [
    (&["--days", "0"], "--days"),
    (&["--days=-1"], "--days"),
    (&["--days", "1000000000"], "--days"),
    (&["--days", "99999999999"], "--days"),
    (&["--days", "2920000"], "36500"),
    (&["--days", "1.5"], "--days"),
    (&["--ca-days", "0"], "--ca-days"),
    (&["--ca-days", "36501"], "--ca-days"),
];

#[track_caller]
fn refused(words: &[&str], says: &str) {
    let scratch = TempDir::new().unwrap();
    let mut command = fsvc();
    command
        .arg("gen-certs")
        .args(words)
        .args(["--dir", "certs"]);
    let output = command.current_dir(scratch.path()).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
    assert!(
        stderr.contains(says),
        "{words:?}: {says:?} not in: {stderr}"
    );
    let is_odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!stderr.contains(is_odd), "{words:?}: {stderr:?}");
    let n_left = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(n_left, 0, "{words:?} left something behind");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_made() {
    for (words, says) in HOSTS.iter().chain(&NAMES).chain(&DOMAINS).chain(&DAYS) {
        refused(words, says);
    }
    let long = |n: usize| "a".repeat(n);
    let host = [long(63), long(63), long(63), long(63)].join(".");
    refused(&["--host", &long(64)], "label");
    refused(&["--host", &host], "253");
    refused(&["--client", &long(65)], "64");
    refused(&["--trust-domain", &long(256)], "trust domain");
    let many: Vec<String> = (0..500).map(|n| format!("--host=h{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(&many, "100");
}

/// Several spellings of one host are one host.
#[test]
fn hosts_are_taken_once_in_one_spelling() {
    let scratch = TempDir::new().unwrap();
    let mut command = fsvc();
    command.args(["gen-certs", "--json", "--no-default-hosts"]);
    for host in [
        "LOCALHOST",
        "localhost.",
        "localhost",
        "::1",
        "[::1]",
        "0::1",
    ] {
        command.args(["--host", host]);
    }
    let output = command.current_dir(scratch.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let hosts = serde_json::json!(["localhost", "::1"]);
    assert_eq!(report["server"]["hosts"], hosts);
}

/// A long life is cut to the CA's, and told where devices refuse it.
#[test]
fn a_long_life_is_told_of() {
    let scratch = TempDir::new().unwrap();
    let run = |words: &[&str]| {
        let mut command = fsvc();
        command.args(words).current_dir(scratch.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let apple = "macOS and iOS refuse server certificates of more than 825 days";
    let said = run(&["gen-certs", "--days", "826"]);
    assert!(said.contains(apple), "{said}");
    let add = ["certs", "add", "--server", "web", "--host", "web.internal"];
    let said = run(&[&add[..], &["--days", "826"]].concat());
    assert!(said.contains(apple), "{said}");
    let said = run(&["certs", "add", "--client", "alice", "--days", "36500"]);
    assert!(said.contains("it ends with its CA"), "{said}");
    assert!(!said.contains(apple), "{said}");
    let add = ["certs", "add", "--server", "web2", "--host", "web.internal"];
    let said = run(&[&add[..], &["--days", "825"]].concat());
    assert!(!said.contains("macOS"), "{said}");
    let said = run(&["certs", "renew", "web2", "--days", "826"]);
    assert!(said.contains(apple), "{said}");
    let said = run(&["certs", "renew", "alice", "--days", "36500"]);
    assert!(said.contains("it ends with its CA"), "{said}");
    let far = ["--server", "far", "--host", "far.internal"];
    run(&[&["certs", "request", "--dir", "far"], &far[..]].concat());
    let sign = ["certs", "sign", "far/servers/far.csr", "--days", "826"];
    let said = run(&[&sign[..], &far[..]].concat());
    assert!(said.contains(apple), "{said}");
}
