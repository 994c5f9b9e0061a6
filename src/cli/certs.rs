//! `fsvc gen-certs`.

use std::env;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::certs_args::GenCerts;
use super::exit::Exit;
use super::output::{complain, is_broken_pipe, line_out};
use crate::escape::with_causes;
use crate::pki::{self, ErrorKind, Options, PkiError};

/// Makes sure that the certificates exist, and says what was done.
pub(super) fn run(arguments: &GenCerts) -> Exit {
    let report = match pki::ensure(&options(arguments), Timestamp::now()) {
        Ok(report) => report,
        Err(error) => return fail("gen-certs", (arguments.json, &arguments.dir), &error),
    };
    let text = if arguments.json {
        serde_json::to_string(&report).unwrap_or_default()
    } else if arguments.quiet {
        return Exit::Done;
    } else {
        report.render().trim_end().to_owned()
    };
    print(&text)
}

/// Prints a result.
pub(super) fn print(text: &str) -> Exit {
    match line_out(text) {
        Err(error) if !is_broken_pipe(&error) => Exit::Failed,
        _ => Exit::Done,
    }
}

fn options(arguments: &GenCerts) -> Options {
    let host_name = host_name();
    Options {
        dir: arguments.dir.clone(),
        hosts: arguments.host.clone(),
        default_hosts: !arguments.no_default_hosts,
        host_name,
        clients: arguments.client.clone(),
        trust_domain: arguments.trust_domain.clone(),
        days: arguments.days,
        ca_days: arguments.ca_days,
        author: author(),
    }
}

/// Who makes a CA: shown in its name.
pub(super) fn author() -> String {
    let user = env::var("USER").unwrap_or_else(|_| "fsvc".to_owned());
    let machine = host_name().unwrap_or_else(|| "localhost".to_owned());
    format!("{user}@{machine}")
}

/// This machine's name, as the kernel has it.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Says why a command on the certificates in `dir` failed.
pub(super) fn fail(what: &str, (json, dir): (bool, &Path), error: &PkiError) -> Exit {
    let text = format!("{what}: {}", with_causes(error));
    let hint = error.hint_for(dir);
    if json {
        complain_json("error", &text, hint.as_deref());
    } else {
        complain(&text, hint.as_deref());
    }
    match error.kind() {
        ErrorKind::Usage => Exit::Usage,
        ErrorKind::Refused => Exit::State,
        ErrorKind::Busy => Exit::Busy,
        ErrorKind::Failed => Exit::Failed,
    }
}

/// The same as an object.
pub(super) fn complain_json(kind: &str, text: &str, hint: Option<&str>) {
    use std::io::Write as _;
    let object = json!({kind: {"code": null, "message": text, "hint": hint}});
    let _ = writeln!(std::io::stderr(), "{object}");
}
