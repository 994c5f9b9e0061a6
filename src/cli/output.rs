//! What the user sees: results on standard output, words for people on standard error.
//!
//! Text that another machine chose is escaped before it is shown.

use std::io::{self, IsTerminal, Write};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::args::ClientCommand;
use super::exit::Exit;
use crate::client::ClientError;
use crate::client::tree::TreeError;
use crate::escape::{Escaped, with_causes};
use crate::protocol::{ErrorCode, FileInfo};
use crate::tls::failure::FailureCode;

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(super) fn new(command: &ClientCommand) -> Self {
        let common = command.common();
        Self {
            json: common.json,
            quiet: common.quiet,
        }
    }

    /// Whether a program reads.
    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether nothing but results and errors is wanted.
    pub(super) const fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether a person watches who wants to see progress.
    pub(super) fn shows_progress(self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// A result: an object for programs, or a text for people.
    pub(super) fn result(self, object: &impl Serialize, text: &str) -> io::Result<()> {
        if self.json {
            let line = serde_json::to_string(object).map_err(io::Error::other)?;
            return line_out(&line);
        }
        line_out(text)
    }

    /// What was done, for people who did not ask for silence.
    pub(super) fn note(self, object: &impl Serialize, text: &str) -> io::Result<()> {
        if self.json {
            return self.result(object, text);
        }
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
        Ok(())
    }

    /// A failed request; says what to do about it where that is known.
    pub(super) fn failure(self, what: &str, error: &ClientError) -> Exit {
        let text = format!("{what}: {}", with_causes(error));
        if self.json {
            let (code, explain) = codes(Some(error));
            let object = json!({"error": {
                "code": code, "message": text, "hint": error.hint(), "explain": explain
            }});
            let _ = writeln!(io::stderr(), "{object}");
        } else {
            complain(&coded(&text, error.failure()), error.hint().as_deref());
        }
        Exit::of(error)
    }
}

impl Output {
    /// A tree that failed altogether.
    pub(super) fn tree_failure(self, what: &str, error: &TreeError) -> Exit {
        let (client, text) = (error.client(), format!("{what}: {}", with_causes(error)));
        let hint = client.and_then(ClientError::hint);
        if self.json {
            let (code, explain) = codes(client);
            let object = json!({"error": {
                "code": code, "message": text, "hint": hint, "explain": explain
            }});
            let _ = writeln!(io::stderr(), "{object}");
        } else {
            let failure = client.and_then(ClientError::failure);
            complain(&coded(&text, failure), hint.as_deref());
        }
        Exit::of_tree(error)
    }

    /// One file of a tree for which it did not work; the others go on.
    pub(super) fn tree_fault(self, path: &str, error: &TreeError) {
        if self.json {
            let code = error.code();
            let object =
                json!({"error": {"code": code, "message": with_causes(error), "path": path}});
            let _ = writeln!(io::stderr(), "{object}");
            return;
        }
        let shown = Escaped::whole(path);
        let gap = if path.is_empty() { "" } else { ": " };
        complain(&format!("{shown}{gap}{}", with_causes(error)), None);
    }

    /// Words beside the results: an object for programs, or a text for people who did not ask for
    /// silence.
    pub(super) fn aside(self, object: &impl Serialize, text: &str) {
        if self.json {
            if let Ok(line) = serde_json::to_string(object) {
                let _ = writeln!(io::stderr(), "{line}");
            }
        } else if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A line of the input that did not become what it should; the others go on.
    pub(super) fn refused_line(self, number: u64, code: Option<ErrorCode>, text: &str) {
        if self.json {
            let object = json!({"error": {"code": code, "message": text, "line": number}});
            let _ = writeln!(io::stderr(), "{object}");
        } else {
            complain(&format!("line {number}: {}", Escaped::new(text)), None);
        }
    }
}

/// The code of an error for programs, and what to give `fsvc explain`: the server's code where it
/// gave one, else that of the failure.
fn codes(error: Option<&ClientError>) -> (Option<String>, Option<String>) {
    let code = error
        .and_then(ClientError::code)
        .map(|code| code.to_string());
    let failure = error
        .and_then(ClientError::failure)
        .map(|code| code.to_string());
    let explain = failure.clone().or_else(|| code.clone());
    (code.or(failure), explain)
}

/// A text with the code that `fsvc explain` takes, where there is one.
pub(super) fn coded(text: &str, failure: Option<FailureCode>) -> String {
    failure.map_or_else(|| text.to_owned(), |code| format!("{text} [{code}]"))
}

/// Prints an error, and what can be done about it, to standard error.
pub(super) fn complain(text: &str, hint: Option<&str>) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "fsvc: {text}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}

/// Prints a line to standard output.
pub(super) fn line_out(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// A reader that has seen enough closed the pipe: that is success.
pub(super) fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// A file in columns: size, time, version, name.
pub(super) fn long_line(file: &FileInfo, name: &str) -> String {
    let version = file
        .version
        .map_or_else(|| "-".to_owned(), |version| version.to_string());
    format!(
        "{:>14}  {}  {version:>8}  {}",
        file.size,
        seconds(file.modified),
        Escaped::whole(name)
    )
}

/// A time to the second.
pub(super) fn seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}
