//! `fsvc certs check`: the files, then a handshake.
//!
//! Its exit codes are its own: how bad the worst finding is.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::certs::print;
use super::exit::Exit;
use super::files::{Failure, own_files};
use super::life_args::CheckFlags;
use super::output::{chain, complain};
use super::tls_dir::{Ambiguous, Layout};
use crate::client::{Client, ClientError, Options};
use crate::escape::Escaped;
use crate::pki::{self, CheckReport, Level, Scope};
use crate::protocol::Hello;
use crate::tls::client::Files;

/// How long each step of the handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks that differ by more are told of.
const SKEW_MAX_SECONDS: i64 = 60;

/// Looks at everything, and says what was found.
pub(super) fn run(flags: &CheckFlags, now: Timestamp) -> Exit {
    let layout = match Layout::of(&flags.dir) {
        Ok(layout) => layout,
        Err(error) => {
            complain(&format!("certs check: {error}"), Some(Ambiguous::HINT));
            return Exit::Usage;
        }
    };
    let scope = match (layout, &flags.name) {
        (Layout::Mounted, _) => Scope::Mounted,
        (Layout::Own, Some(name)) => Scope::Client(name),
        (Layout::Own, None) => Scope::All,
    };
    let mut report = pki::check(&flags.dir, scope, now);
    if let Some(address) = &flags.connect {
        let own = match own_files(layout, &flags.dir, flags.name.as_deref()) {
            Ok(own) => own,
            Err(Failure::Usage(text)) => {
                complain(&format!("certs check: {text}"), None);
                return Exit::Usage;
            }
            Err(_) => return Exit::Failed,
        };
        let files = Files {
            ca: flags.dir.join(layout.ca()),
            own: Some(own),
            server_id: None,
        };
        shake_hands(&mut report, files, address);
    }
    let text = if flags.json {
        serde_json::to_string(&report).unwrap_or_default()
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

fn shake_hands(report: &mut CheckReport, files: Files, address: &str) {
    let subject = Path::new(address);
    let options = Options {
        server: address.to_owned(),
        files,
        connect_timeout: PATIENCE,
        stall_timeout: PATIENCE,
        retry_for: Duration::ZERO,
        resume_directory: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("the handshake cannot be tried: {error}");
            return report.add(Level::Unreadable, subject, &text, None);
        }
    };
    let met = Client::new(options).and_then(|client| runtime.block_on(client.meet()));
    match met {
        Ok(met) => {
            report.add_server(address, &met.chain);
            told(report, subject, &met.hello);
        }
        Err(error) => {
            let level = match &error {
                ClientError::Connect { .. } | ClientError::Silent { .. } => Level::Unreadable,
                _ => Level::Broken,
            };
            report.add(level, subject, &chain(&error), error.hint().as_deref());
            report.name_last(error.failure());
        }
    }
}

/// What the server said of the client.
fn told(report: &mut CheckReport, subject: &Path, hello: &Hello) {
    let text = format!(
        "the server takes you for {}, until {}",
        Escaped::new(&hello.identity),
        hello.expires_at
    );
    report.add(Level::Ok, subject, &text, None);
    let skew = hello.time.duration_since(Timestamp::now()).as_secs();
    if skew.abs() > SKEW_MAX_SECONDS {
        let text = format!("its clock and this one differ by {} s", skew.abs());
        let hint = "certificates begin and end by both clocks: set the wrong one";
        report.add(Level::Expiring, subject, &text, Some(hint));
    }
}
