//! A report as text for a person: what there is, and what to do next.
//!
//! Returns the text; printing it is the caller's.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;

use super::report::{Item, PolicyState, Report, State};
use crate::escape::Escaped;

/// The directory that the commands use when none is named.
const DIR_DEFAULT: &str = "certs";

/// Commands that take `--dir`.
const COMMANDS: [&str; 14] = [
    "fsvc gen-certs",
    "fsvc certs add",
    "fsvc certs renew",
    "fsvc certs revoke",
    "fsvc certs list",
    "fsvc certs check",
    "fsvc certs sign",
    "fsvc certs bundle add",
    "fsvc certs bundle remove",
    "fsvc certs rotate-ca start",
    "fsvc certs rotate-ca status",
    "fsvc certs rotate-ca promote",
    "fsvc certs rotate-ca finish",
    "fsvc certs rotate-ca rollback",
];

impl Report {
    /// The report for people; ends in a newline.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if self.ca.state == State::Made {
            let dir = shown(&self.dir);
            let _ = writeln!(text, "Made a new certificate authority in {dir}/\n");
            self.write_all(&mut text);
        } else if self.is_unchanged() {
            let _ = writeln!(text, "{}", self.unchanged());
        } else {
            self.write_changes(&mut text);
        }
        self.write_remarks(&mut text);
        if self.ca.state == State::Made {
            self.write_next_steps(&mut text);
        }
        text
    }

    fn unchanged(&self) -> String {
        let days = self.ca.days_left(self.now);
        let mut parts = vec![
            format!("kept CA ({days} days left)"),
            "kept server".to_owned(),
        ];
        parts.extend(
            self.clients
                .iter()
                .map(|item| format!("kept client {}", item.name)),
        );
        parts.push("nothing to do".to_owned());
        parts.join(" · ")
    }

    fn write_all(&self, text: &mut String) {
        let ca = &self.ca;
        let _ = writeln!(
            text,
            "  CA      {}   give this file to servers and clients\n          expires {}\n          sha256 {}",
            shown(&ca.certificate),
            expiry(ca, self.now),
            ca.sha256
        );
        self.write_leaf(text, "server", &self.server);
        for client in &self.clients {
            self.write_leaf(text, "client", client);
        }
        let _ = writeln!(
            text,
            "  policy  {}   who may do what",
            shown(&self.policy.path)
        );
        if let Some(private) = ca.key.as_deref().and_then(Path::parent) {
            let _ = writeln!(
                text,
                "  secret  {}/   signs new certificates. Keep it off servers; back it up.",
                shown(private)
            );
        }
    }

    fn write_leaf(&self, text: &mut String, label: &str, item: &Item) {
        let _ = write!(text, "  {label}  {}", shown(&item.certificate));
        if let Some(key) = &item.key {
            let _ = write!(text, "   key {}", shown(key));
        }
        text.push('\n');
        if !item.hosts.is_empty() {
            let names: Vec<String> = item.hosts.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "          valid for  {}", names.join(", "));
        }
        let _ = write!(text, "          expires {}", expiry(item, self.now));
        if let Some(identity) = &item.identity {
            let _ = write!(text, "    id {identity}");
        }
        text.push('\n');
    }

    fn write_changes(&self, text: &mut String) {
        for item in self.items() {
            let label = match item.name.as_str() {
                "ca" => "CA".to_owned(),
                "server" => "server".to_owned(),
                name => format!("client {name}"),
            };
            match &item.state {
                State::Kept => {
                    let _ = writeln!(text, "kept {label}");
                    continue;
                }
                State::Made => {
                    let _ = writeln!(text, "made {label}");
                }
                State::Renewed { why } => {
                    let _ = writeln!(text, "renewed {label}: {why}");
                }
            }
            let label = if item.name == "server" {
                "server"
            } else {
                "client"
            };
            self.write_leaf(text, label, item);
        }
    }

    fn write_remarks(&self, text: &mut String) {
        let policy = shown(&self.policy.path);
        match &self.policy.state {
            PolicyState::Made if self.ca.state != State::Made => {
                let _ = writeln!(text, "made {policy}");
            }
            PolicyState::Extended => {
                let _ = writeln!(text, "added the new client to {policy}");
            }
            PolicyState::Edited { grants } => {
                let _ = writeln!(
                    text,
                    "{policy} was edited by hand and stays as it is. If no grant there covers \
                     the new client, add:\n\n{grants}"
                );
            }
            PolicyState::Made | PolicyState::Kept | PolicyState::Missing => {}
        }
        for skipped in &self.skipped_hosts {
            let _ = writeln!(
                text,
                "skipped host name {}: {}",
                skipped.host, skipped.reason
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
    }

    fn write_next_steps(&self, text: &mut String) {
        let is_default = self.dir == Path::new(DIR_DEFAULT);
        let quoted = quote(&self.dir.to_string_lossy());
        let (tls_dir, dir) = if is_default {
            (String::new(), String::new())
        } else {
            (format!(" --tls-dir {quoted}"), format!(" --dir {quoted}"))
        };
        let who = match self.clients.as_slice() {
            [first, _, ..] => format!(" --as {}", first.name),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "\nStart it:   fsvc serve{tls_dir}\n\
             Try it:     fsvc put README.md /docs/README.md{tls_dir}{who}\n\
             One more:   fsvc gen-certs --client alice{dir}\n\
             Reach it by another name?  fsvc gen-certs --host NAME{dir}"
        );
    }
}

fn expiry(item: &Item, now: Timestamp) -> String {
    let date = item.expires_at.strftime("%Y-%m-%d");
    format!("{date} ({} days)", item.days_left(now))
}

fn shown(path: &Path) -> Escaped {
    Escaped::whole(&path.to_string_lossy())
}

/// Advice as it holds for the certificates in `dir`: its commands name the directory, unless that
/// is the one they take anyway.
pub(super) fn in_place(advice: &str, dir: &Path) -> String {
    if dir == Path::new(DIR_DEFAULT) {
        return advice.to_owned();
    }
    let flag = format!(" --dir {}", quote(&dir.to_string_lossy()));
    let mut text = String::new();
    let mut rest = advice;
    while let Some(at) = rest.find("fsvc ") {
        let (before, command) = rest.split_at(at);
        text += before;
        let known = COMMANDS.iter().find(|known| command.starts_with(**known));
        let (name, after) = command.split_at(known.map_or("fsvc ".len(), |known| known.len()));
        text += name;
        if known.is_some() {
            text += &flag;
        }
        rest = after;
    }
    text + rest
}

/// The text as one word of a shell command.
fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    let safe = Escaped::whole(text).to_string();
    if safe.chars().all(is_plain) {
        safe
    } else {
        format!("'{}'", safe.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_directory() {
        let advice = "first: fsvc certs rotate-ca start, then fsvc gen-certs --host NAME; fsvc \
                      certs show FILE; fsvc certs request; fsvc certs add";
        assert_eq!(in_place(advice, Path::new("certs")), advice);
        let placed = "first: fsvc certs rotate-ca start --dir 'my certs', then fsvc gen-certs \
                      --dir 'my certs' --host NAME; fsvc certs show FILE; fsvc certs request; \
                      fsvc certs add --dir 'my certs'";
        assert_eq!(in_place(advice, Path::new("my certs")), placed);
    }
}
