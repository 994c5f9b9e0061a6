//! `fsvc certs check`: the files, and what a server makes of them.
//!
//! Its exit codes are its own: how bad the worst finding is.

mod reach;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::certs::print;
use super::exit::Exit;
use super::files::{Failure, own_files};
use super::life_args::CheckFlags;
use super::open::{StartError, bindings, load_policy};
use super::output::complain;
use super::tls_dir::{Ambiguous, Layout};
use crate::escape::with_causes;
use crate::identity::Binding;
use crate::pki::{self, Beside, CheckReport, Level, Scope, Shown};
use crate::tls::client::{Files, OwnFiles};

/// Looks at everything, and says what was found.
pub(super) fn run(flags: &CheckFlags, now: Timestamp) -> Exit {
    match check(flags, now) {
        Ok(report) => say(&report, flags.json),
        Err(exit) => exit,
    }
}

fn check(flags: &CheckFlags, now: Timestamp) -> Result<CheckReport, Exit> {
    let usage = |text: &str, hint| {
        complain(&format!("certs check: {text}"), hint);
        Exit::Usage
    };
    let layout = Layout::of(&flags.dir);
    let layout = layout.map_err(|error| usage(&error.to_string(), Some(Ambiguous::HINT)))?;
    let scope = match (layout, &flags.name) {
        (Layout::Mounted, _) => Scope::Mounted,
        (Layout::Own, Some(name)) => Scope::Client(name),
        (Layout::Own, None) => Scope::All,
    };
    let trust = trust_settings(flags);
    let bindings = trust.as_ref().map_or(&[][..], |(_, bindings)| bindings);

    let mut own = None;
    let mut reached = None;
    if let Some(address) = &flags.connect {
        own = own_pair(layout, flags).map_err(|failure| match failure {
            Failure::Usage(text) => usage(&text, None),
            _ => Exit::Failed,
        })?;
        let files = Files {
            ca: flags.dir.join(layout.ca()),
            own: own.clone(),
            server_id: flags.pinned.server_id(),
        };
        reached = Some((address, reach::reach(files, address)));
    }
    let shown = reached.as_ref().and_then(|(_, reached)| {
        let certificate = &own.as_ref()?.certificate;
        let outcome = reached.outcome();
        Some(Shown {
            certificate,
            outcome,
        })
    });
    let beside = Beside {
        ca: flags.client_ca.as_deref(),
        bindings,
        shown,
    };
    let mut report = pki::check(&flags.dir, scope, &beside, now);
    if let Err((path, error)) = &trust {
        let is_asked = flags.policy.is_some() || scope == Scope::All;
        add_policy(&mut report, path, error, is_asked);
    }
    if let Some((address, reached)) = &reached {
        reach::tell(&mut report, address, reached);
    }
    Ok(report)
}

fn say(report: &CheckReport, as_json: bool) -> Exit {
    let text = if as_json {
        serde_json::to_string(report).unwrap_or_default()
    } else {
        report.render().trim_end().to_owned()
    };
    match print(&text) {
        // The numbers are what the help promises: 0, 1, 2, 3.
        Exit::Done => match report.worst() {
            Level::Ok => Exit::Done,
            Level::Expiring => Exit::Failed,
            Level::Broken => Exit::Usage,
            Level::Unreadable => Exit::State,
        },
        failed => failed,
    }
}

/// The pair to connect with; nothing where no client is, so that the server says what that means.
fn own_pair(layout: Layout, flags: &CheckFlags) -> Result<Option<OwnFiles>, Failure> {
    if layout == Layout::Own && flags.name.is_none() && has_no_client(&flags.dir) {
        return Ok(None);
    }
    own_files(layout, &flags.dir, flags.name.as_deref()).map(Some)
}

fn has_no_client(directory: &Path) -> bool {
    match std::fs::read_dir(directory.join("clients")) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// What the policy says of single CAs, if there is one, and the file it is in.
///
/// # Errors
/// The policy cannot be used, or the one that was named is not there.
fn trust_settings(
    flags: &CheckFlags,
) -> Result<(PathBuf, Vec<Binding>), (PathBuf, Box<StartError>)> {
    let usual = || flags.dir.join("policy.toml");
    let path = flags.policy.clone().unwrap_or_else(usual);
    match load_policy(&path) {
        Ok(policy) => {
            let bindings = bindings(&path, &policy);
            Ok((path, bindings))
        }
        Err(StartError::NoPolicy { .. }) if flags.policy.is_none() => Ok((path, Vec::new())),
        Err(error) => Err((path, Box::new(error))),
    }
}

/// A policy that cannot be used; where it was not asked for, that is worth a note.
fn add_policy(report: &mut CheckReport, path: &Path, error: &StartError, is_asked: bool) {
    let level = match error {
        _ if !is_asked => Level::Ok,
        StartError::NoPolicy { .. } | StartError::PolicyUnreadable { .. } => Level::Unreadable,
        _ => Level::Broken,
    };
    report.add(level, path, &with_causes(error), error.hint().as_deref());
}
