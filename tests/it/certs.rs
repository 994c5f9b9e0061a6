//! `fsvc certs` as the tests run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fsvc::pki::{self, Options};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{fsvc, text};

/// A directory that was made some days ago, with leaves for so many days and a CA for as many or ten
/// years.
pub fn aged(days: i64, clients: &[&str], life: (u32, Option<u32>)) -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("certs");
    let options = Options {
        dir: dir.clone(),
        hosts: Vec::new(),
        default_hosts: true,
        host_name: None,
        clients: clients.iter().map(|&name| name.to_owned()).collect(),
        trust_domain: Some("test.internal".to_owned()),
        days: life.0,
        ca_days: life.1,
        author: "ann@buildbox".to_owned(),
    };
    let then = Timestamp::now() - SignedDuration::from_hours(24 * days);
    pki::ensure(&options, then).unwrap();
    (scratch, dir)
}

/// A command on the certificates in `dir`.
pub fn certs(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = fsvc();
    command.arg("certs").args(arguments).arg("--dir").arg(dir);
    command.output().unwrap()
}

/// One that must succeed; what it prints.
#[track_caller]
pub fn ok(dir: &Path, arguments: &[&str]) -> String {
    let output = certs(dir, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The same, with `--json`.
#[track_caller]
pub fn json(dir: &Path, arguments: &[&str]) -> Value {
    let printed = ok(dir, &[arguments, &["--json"]].concat());
    assert_eq!(printed.trim().lines().count(), 1, "{printed}");
    serde_json::from_str(&printed).unwrap()
}

/// One that must be refused, with a way out, and change nothing; what it says.
#[track_caller]
pub fn refused(code: i32, dir: &Path, arguments: &[&str]) -> String {
    let before = tree(dir);
    let output = certs(dir, arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(tree(dir), before, "{arguments:?} changed something");
    stderr
}

/// Names and checksums of everything in `dir`.
pub fn tree(dir: &Path) -> String {
    let find = "find . -type f ! -name lock -exec sha256sum {} + 2>/dev/null | sort -k 2";
    let output = Command::new("sh")
        .args(["-c", find])
        .current_dir(dir)
        .output();
    text(&output.unwrap().stdout)
}
