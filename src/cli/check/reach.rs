//! What comes of connecting to a server, for `certs check`.
//!
//! Every wait has its limit, and all of them together have one: a check ends.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use crate::client::{Client, ClientError, Met, Options, SKEW_MAX};
use crate::escape::{Escaped, with_causes};
use crate::pki::{CheckReport, Level, Outcome};
use crate::protocol::{Hello, Whoami};
use crate::tls::TlsError;
use crate::tls::client::Files;
use crate::tls::failure::FailureCode;
use crate::tls::pem::PemError;

/// How long each step of the handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long all of it may take, whatever addresses the name has.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(60);

/// What came of it.
pub(super) enum Reached {
    /// The two ends took each other; what the server says of the client's rights, if it says that.
    Greeted(Box<Met>, Option<Box<Whoami>>),
    Failed(Box<ClientError>),
    /// TLS ends at something that hands on plain text to an fsvc.
    PlainBehind,
    /// It did not even begin, or did not end.
    Untried(String),
}

impl Reached {
    /// What it says of the client's certificate.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Greeted(..) => Outcome::Taken,
            Self::Failed(error) if error.failure() == Some(FailureCode::UntrustedServer) => {
                Outcome::ServerUntrusted
            }
            _ => Outcome::Other,
        }
    }
}

/// Connects as the owner of the files, or as nobody. Blocks, within [`PATIENCE_FOR_ALL`].
pub(super) fn reach(files: Files, address: &str) -> Reached {
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
        Err(error) => return Reached::Untried(format!("the handshake cannot be tried: {error}")),
    };
    let client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => return Reached::Failed(Box::new(error)),
    };
    let met = runtime.block_on(async { timeout(PATIENCE_FOR_ALL, meet(&client)).await });
    // A name that is still looked up does not hold up the answer.
    runtime.shutdown_background();
    met.unwrap_or_else(|_| {
        Reached::Untried(format!("no answer within {PATIENCE_FOR_ALL:?}, all in all"))
    })
}

async fn meet(client: &Client) -> Reached {
    match client.meet().await {
        Ok(met) => {
            let whoami = client.whoami().await.ok();
            client.close().await;
            Reached::Greeted(Box::new(met), whoami.map(Box::new))
        }
        Err(ClientError::Closed(_) | ClientError::Silent { .. })
            if client.is_plain_behind().await =>
        {
            Reached::PlainBehind
        }
        Err(error) => Reached::Failed(Box::new(error)),
    }
}

/// Adds to the report what came of it.
pub(super) fn tell(report: &mut CheckReport, address: &str, reached: &Reached) {
    let subject = Path::new(address);
    match reached {
        Reached::Greeted(met, whoami) => {
            report.add_server(address, &met.chain);
            greeted(report, subject, &met.hello);
            rights(report, subject, &met.hello, whoami.as_deref());
        }
        Reached::Failed(error) => failed(report, subject, error),
        Reached::PlainBehind => {
            let text =
                "TLS ends at a proxy there, which hands on plain text to the TLS port of an fsvc";
            let hint = "let the proxy pass TLS through as it is (by TCP, not HTTP): fsvc has to see the client's \
                        certificate itself; or connect past it";
            report.add(Level::Broken, subject, text, Some(hint));
            report.name_last(Some(FailureCode::PlainText));
        }
        Reached::Untried(why) => report.add(Level::Unreadable, subject, why, None),
    }
}

fn failed(report: &mut CheckReport, subject: &Path, error: &ClientError) {
    if matches!(error, ClientError::Tls(_)) && report.worst() >= Level::Broken {
        // The same was found in the files.
        let text = "was not asked: the files have to be right first";
        return report.add(Level::Ok, subject, text, None);
    }
    let code = error.failure();
    let hint = match code {
        // It is what would be named otherwise.
        Some(FailureCode::ClosedEarly) => Some(
            "its log has the reason; if that has nothing of this client, something between closed the connection, or \
             it is no fsvc: is it the right port?"
                .to_owned(),
        ),
        Some(FailureCode::NoIdentity) if error.hint().is_none() => Some(
            "fsvc certs add --client NAME makes one that names somebody; what another CA's certificates are known by, \
             the server's policy says: [[trust]]"
                .to_owned(),
        ),
        _ => error.hint(),
    };
    report.add(level(error), subject, &with_causes(error), hint.as_deref());
    report.name_last(code);
}

/// Nothing can be said about what was not reached, or not read.
fn level(error: &ClientError) -> Level {
    match error {
        ClientError::Connect { .. }
        | ClientError::Silent { .. }
        | ClientError::Tls(TlsError::Pem(PemError::Read { .. })) => Level::Unreadable,
        ClientError::NotGreeted { .. } if error.is_passing() => Level::Unreadable,
        _ => Level::Broken,
    }
}

/// What the server said of the client.
fn greeted(report: &mut CheckReport, subject: &Path, hello: &Hello) {
    let text = format!(
        "the server takes you for {}, until {}",
        Escaped::new(&hello.identity),
        hello.expires_at
    );
    report.add(Level::Ok, subject, &text, None);
    let now = Timestamp::now();
    let skew = hello.time.duration_since(now);
    if skew.abs() > SKEW_MAX {
        let text = format!(
            "its clock and this one differ by {} s: it says {}, this one {now}",
            skew.abs().as_secs(),
            hello.time
        );
        let hint = "certificates begin and end by both clocks: set the wrong one";
        report.add(Level::Expiring, subject, &text, Some(hint));
        report.name_last(Some(FailureCode::NotYetValid));
    }
}

/// Who is known and has no right at all is as good as refused, and hears of it with the first request.
fn rights(report: &mut CheckReport, subject: &Path, hello: &Hello, whoami: Option<&Whoami>) {
    let Some(n_grants) = whoami.and_then(|whoami| whoami.n_grants) else {
        return;
    };
    let who = Escaped::new(&hello.identity);
    if n_grants > 0 {
        let text = format!("grants of its policy for {who}: {n_grants}");
        return report.add(Level::Ok, subject, &text, None);
    }
    let text = format!(
        "you are {who}, and no grant of the server's policy is for you: you may do nothing there"
    );
    let hint = format!(
        "its operator adds one to policy.toml: [[grant]] to = \"{who}\" allow = [\"list\", \"read\"] on = \"/**\"; \
         one that was added a moment ago is not read yet; fsvc can read /PATH asks about one name"
    );
    report.add(Level::Broken, subject, &text, Some(&hint));
    report.name_last(Some(FailureCode::NotAllowed));
}
