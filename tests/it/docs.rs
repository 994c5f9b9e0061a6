//! The documents say what the program does.
//!
//! PROTOCOL.md names every op and every code; a command line that a document shows is one that
//! the program takes.

use std::path::Path;

use fsvc::protocol::{ErrorCode, Frame, Greeting, Notice, Op, Request, Response, Trailer};

use crate::harness::{fsvc, gen_certs, text};

const DOCUMENTS: &[&str] = &[
    "README.md",
    "PROTOCOL.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "certs/README.md",
];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines of the fenced blocks of one kind, those that end in a backslash joined.
fn fenced(document: &str, kind: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut inside, mut goes_on) = (false, false);
    for line in document.lines() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            inside = !inside && fence.trim() == kind;
        } else if inside {
            let (part, more) = match line.strip_suffix('\\') {
                Some(part) => (part, true),
                None => (line, false),
            };
            match lines.last_mut() {
                Some(last) if goes_on => last.push_str(part),
                _ => lines.push(part.to_owned()),
            }
            goes_on = more;
        }
    }
    lines
}

/// The calls of `fsvc` in a line of shell: what stands between it and the end of the command.
fn calls(line: &str) -> Vec<Vec<&str>> {
    let line = line.trim_start().trim_start_matches("$ ");
    let code = line.split(" #").next().unwrap_or_default();
    if code.starts_with('#') {
        return Vec::new();
    }
    code.split(['|', ';', '&']).filter_map(call).collect()
}

fn call(command: &str) -> Option<Vec<&str>> {
    let mut words = command.split_whitespace();
    let program = words.find(|word| !word.contains('=') && *word != "time")?;
    let is_fsvc = program == "fsvc" || program.ends_with("/fsvc");
    let own = words.take_while(|word| !word.starts_with(['>', '<']) && !word.starts_with("2>"));
    is_fsvc.then(|| own.collect())
}

fn help_of(command: &[&str]) -> String {
    let output = fsvc().args(command).arg("--help").output().unwrap();
    assert!(
        output.status.success(),
        "fsvc {command:?} is no command: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[track_caller]
fn check_call(document: &str, words: &[&str]) {
    let Some(first) = words.first() else { return };
    if first.starts_with('-') || *first == "help" {
        return;
    }
    let mut n_words = 1;
    let mut help = help_of(&words[..n_words]);
    // Commands of a command, such as certs add.
    while help.contains("\nCommands:")
        && words
            .get(n_words)
            .is_some_and(|word| !word.starts_with('-'))
    {
        n_words += 1;
        help = help_of(&words[..n_words]);
    }
    let flags = words.iter().filter(|word| word.starts_with("--"));
    for flag in flags {
        let flag = flag.split('=').next().unwrap_or(flag);
        let known = help
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '='))
            .any(|word| word == flag);
        assert!(known, "{document}: fsvc {first} has no {flag}");
    }
}

#[test]
fn every_error_code_stands_in_the_contract() {
    let contract = read("PROTOCOL.md");
    for code in ErrorCode::ALL {
        let row = format!("| `{code}` |");
        assert!(contract.contains(&row), "P7 has no row for {code}");
    }
}

/// A request of each op.
const REQUESTS: [&str; 34] = [
    r#"{"id":0,"op":"put","path":"/a"}"#,
    r#"{"id":0,"op":"get","path":"/a"}"#,
    r#"{"id":0,"op":"stat","path":"/a"}"#,
    r#"{"id":0,"op":"list","path":"/a"}"#,
    r#"{"id":0,"op":"remove","path":"/a"}"#,
    r#"{"id":0,"op":"move","from":"/a","to":"/b"}"#,
    r#"{"id":0,"op":"copy","from":"/a","to":"/b"}"#,
    r#"{"id":0,"op":"can","action":"read","on":"/a"}"#,
    r#"{"id":0,"op":"publish","topic":"a"}"#,
    r#"{"id":0,"op":"subscribe","topics":["a"]}"#,
    r#"{"id":0,"op":"watch","path":"/a"}"#,
    r#"{"id":0,"op":"ack","cursor":"a","sequence":1}"#,
    r#"{"id":0,"op":"forget","cursor":"a"}"#,
    r#"{"id":0,"op":"fetch","sequence":1}"#,
    r#"{"id":0,"op":"request","topic":"a"}"#,
    r#"{"id":0,"op":"reply","to":1}"#,
    r#"{"id":0,"op":"topics"}"#,
    r#"{"id":0,"op":"last","topics":["a"]}"#,
    r#"{"id":0,"op":"stage"}"#,
    r#"{"id":0,"op":"commit"}"#,
    r#"{"id":0,"op":"append","path":"/a","if_size":0}"#,
    r#"{"id":0,"op":"begin","path":"/a","size":1}"#,
    r#"{"id":0,"op":"write","upload":"7f0c2a1be5d84c56a0f3b6e1d2c49788","offset":0,"size":1}"#,
    r#"{"id":0,"op":"status","upload":"7f0c2a1be5d84c56a0f3b6e1d2c49788"}"#,
    r#"{"id":0,"op":"abort","upload":"7f0c2a1be5d84c56a0f3b6e1d2c49788"}"#,
    r#"{"id":0,"op":"uploads"}"#,
    r#"{"id":0,"op":"signature","path":"/a"}"#,
    r#"{"id":0,"op":"put_many"}"#,
    r#"{"id":0,"op":"get_many","paths":["/a"]}"#,
    r#"{"id":0,"op":"reconcile","path":"/a"}"#,
    r#"{"id":0,"op":"log_stats"}"#,
    r#"{"id":0,"op":"log_verify"}"#,
    r#"{"id":0,"op":"whoami"}"#,
    r#"{"id":0,"op":"ping"}"#,
];

#[test]
fn every_op_stands_in_the_contract() {
    let contract = read("PROTOCOL.md");
    for text in REQUESTS {
        let op = Request::decode(text.as_bytes()).unwrap().op;
        let name = op.name();
        assert!(
            contract.contains(&format!("`{name}`")),
            "no clause for {name}"
        );
        // A new op does not compile here before it has a line above.
        match op {
            Op::Put(_)
            | Op::Get(_)
            | Op::Stat(_)
            | Op::List(_)
            | Op::Remove(_)
            | Op::Move(_)
            | Op::Copy(_)
            | Op::Can(_)
            | Op::Publish(_)
            | Op::Subscribe(_)
            | Op::Watch(_)
            | Op::Ack(_)
            | Op::Forget(_)
            | Op::Fetch(_)
            | Op::Call(_)
            | Op::Answer(_)
            | Op::Topics(_)
            | Op::Last(_)
            | Op::Stage(_)
            | Op::Commit(_)
            | Op::Append(_)
            | Op::Begin(_)
            | Op::Write(_)
            | Op::Status(_)
            | Op::Abort(_)
            | Op::Uploads(_)
            | Op::Signature(_)
            | Op::PutMany(_)
            | Op::GetMany(_)
            | Op::Reconcile(_)
            | Op::LogStats
            | Op::LogVerify(_)
            | Op::Whoami
            | Op::Ping => {}
        }
    }
}

/// The samples of P10: `hex` blocks of whole frames, each with what it decodes to.
#[test]
fn p10_golden_samples_are_what_they_say() {
    let lines = fenced(&read("PROTOCOL.md"), "hex");
    let mut bytes = Vec::new();
    for line in lines.iter().filter(|line| !line.trim().is_empty()) {
        let hex = line.split("  ").next().unwrap_or_default();
        for digits in hex.split_whitespace() {
            bytes.push(u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{line}")));
        }
    }
    let (mut n_frames, mut rest) = (0, &bytes[..]);
    while let Some((frame, after)) = Frame::decode(rest).unwrap() {
        n_frames += 1;
        rest = after;
        if frame.kind == fsvc::protocol::Kind::End {
            Trailer::decode(frame.content).unwrap();
        }
    }
    assert!(rest.is_empty(), "the last sample is cut off");
    assert!(n_frames >= 4, "only {n_frames} samples");
}

/// The JSON samples: each line is a greeting, a request, an answer, a notice or a trailer of this version.
#[test]
fn p10_json_samples_are_read_by_this_version() {
    let lines = fenced(&read("PROTOCOL.md"), "json");
    assert!(lines.len() >= 10, "only {} samples", lines.len());
    for line in lines {
        let bytes = line.as_bytes();
        let is_read = Request::decode(bytes).is_ok()
            || Greeting::decode(bytes).is_ok()
            || Response::<serde_json::Value>::decode(bytes).is_ok()
            || Notice::decode(bytes).is_ok()
            || Trailer::decode(bytes).is_ok();
        assert!(is_read, "{line}");
    }
}

#[test]
fn command_lines_in_the_documents_are_taken() {
    let mut n_calls = 0;
    for document in DOCUMENTS {
        let lines = ["sh", "console", "bash"].map(|kind| fenced(&read(document), kind));
        for words in lines.iter().flatten().flat_map(|line| calls(line)) {
            check_call(document, &words);
            n_calls += 1;
        }
    }
    assert!(n_calls > 0, "no document shows how the program is called");
}

#[test]
fn certificates_can_be_made_where_a_checkout_has_the_directory() {
    let place = tempfile::TempDir::new().unwrap();
    let certs = place.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    for name in ["README.md", ".gitignore"] {
        std::fs::write(certs.join(name), read(&format!("certs/{name}"))).unwrap();
    }
    gen_certs(&certs, &["dev"]);
    assert!(certs.join("clients/dev.pem").is_file());
    for name in ["README.md", ".gitignore"] {
        let kept = std::fs::read_to_string(certs.join(name)).unwrap();
        assert_eq!(kept, read(&format!("certs/{name}")), "{name} was changed");
    }
    let ignored = read("certs/.gitignore");
    assert_eq!(
        ignored.lines().collect::<Vec<_>>(),
        ["*", "!.gitignore", "!README.md"]
    );
}

#[test]
fn calls_are_found_in_shell_as_people_write_it() {
    assert_eq!(calls("fsvc get /a - | wc -c"), [["get", "/a", "-"]]);
    assert_eq!(
        calls("$ FSVC_AS=dev ./target/release/fsvc ls -l > x # all"),
        [["ls", "-l"]]
    );
    assert_eq!(calls("fsvc serve & fsvc ping"), [["serve"], ["ping"]]);
    assert!(calls("# fsvc nonsense").is_empty());
    assert!(calls("cargo run -- fsvc").is_empty());
}
