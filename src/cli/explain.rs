//! `fsvc explain`: what a code means, who can do something about it, and with which command.
//!
//! Every code that fsvc shows has a text here: a new one does not compile without.

mod tls;
mod wire;

use std::io::{self, Write as _};

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::output::{complain, is_broken_pipe, line_out};
use crate::escape::Escaped;
use crate::protocol::ErrorCode;
use crate::tls::failure::FailureCode;

/// The error of a peer that spoke JSON without TLS; no session ever sends it.
const TLS_REQUIRED: &str = "tls_required";

#[derive(Debug, Args)]
#[command(after_help = "Example: fsvc explain TLS06\n\
                        Without a code all of them are listed.")]
pub(super) struct Explain {
    /// The code, such as TLS06 or denied
    pub(super) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// What is known about a code.
struct Explanation {
    title: &'static str,
    meaning: &'static str,
    /// Who can do something about it.
    who: &'static str,
    /// The next commands, for that.
    next: &'static [&'static str],
}

/// Explains one code, or lists all.
pub(super) fn run(arguments: &Explain) -> Exit {
    let text = match &arguments.code {
        None => list(arguments.json),
        Some(code) => match find(code) {
            Some((code, explanation)) => one(&code, &explanation, arguments.json),
            None => return unknown(code, arguments.json),
        },
    };
    match line_out(text.trim_end()) {
        Err(error) if !is_broken_pipe(&error) => Exit::Failed,
        _ => Exit::Done,
    }
}

fn find(code: &str) -> Option<(String, Explanation)> {
    if let Ok(failure) = code.parse::<FailureCode>() {
        return Some((failure.to_string(), tls::explanation(failure)));
    }
    let wanted = code.to_ascii_lowercase();
    if wanted == TLS_REQUIRED {
        return Some((wanted, wire::tls_required()));
    }
    let found = ErrorCode::ALL
        .into_iter()
        .find(|code| code.to_string() == wanted);
    found.map(|code| (code.to_string(), wire::explanation(code)))
}

fn all() -> impl Iterator<Item = (String, Explanation)> {
    let tls = FailureCode::ALL
        .into_iter()
        .map(|code| (code.to_string(), tls::explanation(code)));
    let wire = ErrorCode::ALL
        .into_iter()
        .map(|code| (code.to_string(), wire::explanation(code)));
    tls.chain(wire)
        .chain([(TLS_REQUIRED.to_owned(), wire::tls_required())])
}

fn list(as_json: bool) -> String {
    if as_json {
        let each: Vec<_> = all()
            .map(|(code, explanation)| object(&code, &explanation))
            .collect();
        return json!({"codes": each}).to_string();
    }
    all().fold(String::new(), |text, (code, explanation)| {
        text + &format!("{code:<20} {}\n", explanation.title)
    })
}

fn one(code: &str, explanation: &Explanation, as_json: bool) -> String {
    if as_json {
        return object(code, explanation).to_string();
    }
    let mut text = format!(
        "{code}: {}\n\n{}\n\nWho can fix it: {}\n",
        explanation.title, explanation.meaning, explanation.who
    );
    for command in explanation.next {
        text.extend(["  ", command, "\n"]);
    }
    text
}

fn object(code: &str, explanation: &Explanation) -> serde_json::Value {
    json!({
        "code": code,
        "title": explanation.title,
        "meaning": explanation.meaning,
        "who": explanation.who,
        "next": explanation.next,
    })
}

fn unknown(code: &str, as_json: bool) -> Exit {
    let text = format!("explain: {} is no code of fsvc", Escaped::new(code));
    let hint = "fsvc explain lists all of them";
    if as_json {
        let object = json!({"error": {"code": null, "message": text, "hint": hint}});
        let _ = writeln!(io::stderr(), "{object}");
    } else {
        complain(&text, Some(hint));
    }
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_words_of_its_own() {
        let mut titles = HashSet::new();
        for (code, explanation) in all() {
            assert!(titles.insert(explanation.title), "{code}");
            assert!(explanation.meaning.len() > 80, "{code}");
            assert!(
                !explanation.who.is_empty() && !explanation.next.is_empty(),
                "{code}"
            );
            assert!(
                find(&code).is_some_and(|(found, _)| found == code),
                "{code}"
            );
        }
        assert_eq!(
            titles.len(),
            FailureCode::ALL.len() + ErrorCode::ALL.len() + 1
        );
        assert!(find("tls07").is_some() && find("DENIED").is_some() && find("").is_none());
    }
}
