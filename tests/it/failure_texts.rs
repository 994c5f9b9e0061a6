//! What each end says of each of the 23 failures, on set-ups that are really broken so.
//!
//! The texts stand in `tests/golden`, with times, ports and numbers masked. A changed text shows up
//! there; `FSVC_TEST_BLESS=1` writes what is said now, to be read before it is kept.

mod both;
mod files;
mod peers;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::certificates::log_with;
use crate::harness::{Server, fsvc, text};
use crate::matrix::Matrix;

/// What is said of one failure, in parts.
struct Texts {
    code: &'static str,
    said: String,
}

impl Texts {
    fn of(code: &'static str) -> Self {
        Self {
            code,
            said: String::new(),
        }
    }

    /// One more part.
    fn add(&mut self, title: &str, matrix: &Matrix, words: &str) {
        let masked = mask(&words.replace(&matrix.dir().display().to_string(), "DIR"));
        assert!(
            !masked.contains("UNIX") && !masked.contains("Error("),
            "{masked}"
        );
        assert!(
            !masked.chars().any(|c| c.is_control() && c != '\n'),
            "{masked:?}"
        );
        let parts = ["[", title, "]\n", masked.trim_end(), "\n\n"];
        self.said.extend(parts);
    }

    /// What the command line says, to people and to programs.
    #[track_caller]
    fn client(&mut self, title: &str, matrix: &Matrix, mut command: Command) {
        let output = command.output().unwrap();
        let stderr = text(&output.stderr);
        assert!(!output.status.success(), "{}", text(&output.stdout));
        assert!(stderr.contains(&format!(" [{}]\n", self.code)), "{stderr}");
        self.add(title, matrix, &stderr);
        let output = command.arg("--json").output().unwrap();
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["explain"], self.code, "{error}");
        let code = error["error"]["code"].as_str().unwrap();
        let of_the_wire = ["denied", "certificate_expired", "certificate_revoked"];
        assert!(code == self.code || of_the_wire.contains(&code), "{error}");
    }

    /// The line of the server's log with this code.
    #[track_caller]
    fn log(&mut self, title: &str, matrix: &Matrix, server: &Server, from: usize) {
        let mark = format!("code=\"{}\"", self.code);
        let log = log_with(server, from, &mark);
        let line = log.lines().find(|line| line.contains(&mark)).unwrap();
        let words = line.split_once("handshake: ").unwrap().1;
        // How often it happened before is a matter of time.
        let words = words.split(" n_untold=").next().unwrap();
        self.add(title, matrix, words);
    }

    /// The texts are those of the file.
    #[track_caller]
    fn hold(self) {
        let file = format!("tests/golden/{}.txt", self.code);
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var("FSVC_TEST_BLESS").is_ok() {
            std::fs::write(&path, &self.said).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(self.said, golden, "{}", path.display());
    }
}

/// `whoami` of a client, at this address.
fn whoami(matrix: &Matrix, name: &str, address: &str) -> Command {
    let mut command = fsvc();
    command.args([
        "whoami",
        "--connect-timeout",
        "5s",
        "--retry-for",
        "0s",
        "--server",
        address,
    ]);
    command.args(["--as", name, "--tls-dir"]).arg(matrix.dir());
    command.env("XDG_STATE_HOME", matrix.path("state"));
    command
}

/// A text without what differs from run to run.
fn mask(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let n = if let Some(n) = time_at(rest) {
            masked.push_str("TIME");
            n
        } else if let Some(n) =
            number_after(rest, &["localhost:", "127.0.0.1:"], u8::is_ascii_digit)
        {
            masked.push_str("HOST:PORT");
            n
        } else if let Some(n) = number_after(rest, &["serial "], u8::is_ascii_hexdigit) {
            masked.push_str("serial SERIAL");
            n
        } else {
            masked.push(c);
            c.len_utf8()
        };
        rest = &rest[n..];
    }
    masked
}

/// A text without its times.
pub fn mask_times(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let time = time_at(rest);
        match time {
            Some(_) => masked.push_str("TIME"),
            None => masked.push(c),
        }
        rest = &rest[time.unwrap_or(c.len_utf8())..];
    }
    masked
}

/// The length of a time with what is said of its distance, where `text` begins with one.
fn time_at(text: &str) -> Option<usize> {
    const SHAPE: &[u8] = b"2000-00-00 00:00Z";
    let begins = text.len() >= SHAPE.len()
        && text.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' | b'2' => byte.is_ascii_digit(),
            other => byte == *other,
        });
    if !begins {
        return None;
    }
    let behind = &text[SHAPE.len()..];
    let distance = behind
        .strip_prefix(" (")
        .and_then(|distance| distance.split_once(')'));
    let length = distance.filter(|(words, _)| words.starts_with("in ") || words.ends_with(" ago"));
    Some(SHAPE.len() + length.map_or(0, |(words, _)| words.len() + 3))
}

fn number_after(text: &str, heads: &[&str], is_digit: impl Fn(&u8) -> bool) -> Option<usize> {
    let head = heads.iter().find(|head| text.starts_with(**head))?;
    let n = text.as_bytes()[head.len()..]
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    (n > 0).then_some(head.len() + n)
}

#[test]
fn what_differs_from_run_to_run_is_masked() {
    let text =
        "a 2026-11-20 06:34Z (3 days ago); 2026-11-20 06:34Z localhost:71 (serial 3fa9) serials";
    assert_eq!(mask(text), "a TIME; TIME HOST:PORT (serial SERIAL) serials");
    assert_eq!(mask("2026-11-20 06:34Z (UTC)"), "TIME (UTC)");
}

#[test]
fn every_code_has_its_texts_and_its_words() {
    for code in fsvc::tls::failure::FailureCode::ALL {
        let golden =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{code}.txt"));
        let texts = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(texts.contains('['), "{}", golden.display());
        let output = fsvc()
            .args(["explain", &code.to_string()])
            .output()
            .unwrap();
        let words = text(&output.stdout);
        assert!(
            output.status.success() && words.starts_with(&format!("{code}: ")),
            "{words}"
        );
        assert!(words.contains("Who can fix it: "), "{words}");
    }
    let output = fsvc().args(["explain", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> = all["codes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    assert!(
        codes.contains(&"TLS01") && codes.contains(&"denied") && codes.contains(&"tls_required")
    );
    let output = fsvc().args(["explain", "x\u{1b}[2J"]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("is no code of fsvc") && !stderr.contains('\u{1b}'),
        "{stderr}"
    );
}
