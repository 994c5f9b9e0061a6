//! `fsvc gen-certs`.

use std::env;
use std::fs;

use jiff::Timestamp;
use serde_json::json;

use super::args::GenCerts;
use super::exit::Exit;
use super::output::{chain, complain, is_broken_pipe, line_out};
use crate::pki::{self, ErrorKind, Options, PkiError};

/// Makes sure that the certificates exist, and says what was done.
pub(super) fn run(arguments: &GenCerts) -> Exit {
    let report = match pki::ensure(&options(arguments), Timestamp::now()) {
        Ok(report) => report,
        Err(error) => return fail(arguments, &error),
    };
    let text = if arguments.json {
        serde_json::to_string(&report).unwrap_or_default()
    } else if arguments.quiet {
        return Exit::Done;
    } else {
        report.render().trim_end().to_owned()
    };
    match line_out(&text) {
        Err(error) if !is_broken_pipe(&error) => Exit::Failed,
        _ => Exit::Done,
    }
}

fn options(arguments: &GenCerts) -> Options {
    let host_name = host_name();
    let user = env::var("USER").unwrap_or_else(|_| "fsvc".to_owned());
    let machine = host_name.clone().unwrap_or_else(|| "localhost".to_owned());
    Options {
        dir: arguments.dir.clone(),
        hosts: arguments.host.clone(),
        default_hosts: !arguments.no_default_hosts,
        host_name,
        clients: arguments.client.clone(),
        trust_domain: arguments.trust_domain.clone(),
        days: arguments.days,
        ca_days: arguments.ca_days,
        author: format!("{user}@{machine}"),
    }
}

/// This machine's name, as the kernel has it.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn fail(arguments: &GenCerts, error: &PkiError) -> Exit {
    let text = format!("gen-certs: {}", chain(error));
    if arguments.json {
        complain_json(&text, error);
    } else {
        complain(&text, error.hint().as_deref());
    }
    match error.kind() {
        ErrorKind::Usage => Exit::Usage,
        ErrorKind::Refused => Exit::State,
        ErrorKind::Busy => Exit::Busy,
        ErrorKind::Failed => Exit::Failed,
    }
}

fn complain_json(text: &str, error: &PkiError) {
    use std::io::Write as _;
    let object = json!({"error": {"code": null, "message": text, "hint": error.hint()}});
    let _ = writeln!(std::io::stderr(), "{object}");
}
