//! What a run made, kept and renewed: plain facts, for JSON and for `render`.
//!
//! Field names are stable; a path that is no UTF-8 is shown with replacement characters.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::inspect::Why;
use super::issue::Validity;
use super::name::{ClientName, Host};
use crate::identity::{SpiffeId, renew_after};

/// Longest validity of a server certificate that Apple systems accept.
pub(super) const APPLE_DAYS_MAX: u32 = 825;

/// What one run found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    #[serde(serialize_with = "path")]
    pub dir: PathBuf,
    pub trust_domain: String,
    /// The time the run took for now.
    pub now: Timestamp,
    pub ca: Item,
    pub server: Item,
    /// By name.
    pub clients: Vec<Item>,
    pub policy: PolicyItem,
    /// Hosts that would have been in the server certificate by default.
    pub skipped_hosts: Vec<SkippedHost>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// `ca`, `server`, or the client's name.
    pub name: String,
    #[serde(flatten)]
    pub state: State,
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    /// Absent if the key is not here.
    #[serde(serialize_with = "path_or_none")]
    pub key: Option<PathBuf>,
    pub expires_at: Timestamp,
    /// Of the certificate's DER; pairs of hexadecimal digits with colons.
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
}

/// What happened to a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Made,
    Kept,
    Renewed {
        #[serde(flatten)]
        why: Why,
    },
}

/// The policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyItem {
    #[serde(serialize_with = "path")]
    pub path: PathBuf,
    #[serde(flatten)]
    pub state: PolicyState,
}

/// What happened to the policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PolicyState {
    Made,
    Kept,
    /// The new clients got their grants.
    Extended,
    /// It was edited by hand; these grants are for the new clients.
    Edited {
        grants: String,
    },
    /// There is none, and this is not the machine that makes it.
    Missing,
}

/// A default host that is not in the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedHost {
    /// Escaped.
    pub host: String,
    pub reason: String,
}

impl Report {
    /// Whether the run changed nothing.
    pub fn is_unchanged(&self) -> bool {
        self.items().all(|item| item.state == State::Kept)
            && !matches!(self.policy.state, PolicyState::Made | PolicyState::Extended)
    }

    /// Tells of clients that get no certificate because theirs was revoked.
    pub(super) fn add_revoked(&mut self, names: &[ClientName]) {
        let notes = names.iter().map(|name| {
            format!(
                "client {name} was revoked and gets no new certificate by the way; if it should: \
                 fsvc certs add --client {name} --again"
            )
        });
        self.notes.extend(notes);
    }

    /// Adds what the operator should know: `days` is the validity that was asked for.
    pub(super) fn add_notes(&mut self, days: u32, ca: Validity) {
        let mut notes = Vec::new();
        let new = |item: &&Item| item.state != State::Kept;
        if self
            .items()
            .skip(1)
            .filter(new)
            .any(|item| item.expires_at == ca.not_after)
        {
            notes.push(format!(
                "cut short of {days} days: nothing outlives the CA, which expires {}",
                ca.not_after
            ));
        }
        if days > APPLE_DAYS_MAX && self.server.state != State::Kept {
            notes.push(apple_note());
        }
        if self
            .server
            .hosts
            .iter()
            .any(|host| host.to_string().starts_with("*."))
            && new(&&self.server)
        {
            notes.push("a wildcard stands for exactly one label".to_owned());
        }
        if self.ca.key.is_none() {
            notes.push("the CA key is not here: this machine cannot make certificates".to_owned());
        }
        for item in self.items().skip(1).filter(|item| item.key.is_none()) {
            notes.push(format!("the key of {} is not here", item.name));
        }
        if self.now > renew_after(ca.not_before, ca.not_after) {
            notes.push(format!(
                "the CA expires in {} days",
                self.ca.days_left(self.now)
            ));
        }
        self.notes = notes;
    }

    /// Every certificate, the CA first.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        [&self.ca, &self.server].into_iter().chain(&self.clients)
    }
}

impl PolicyItem {
    /// What a client that just got a certificate has to do with it, for people.
    pub(super) fn of_new_client(&self) -> String {
        let path = self.path.display();
        match &self.state {
            PolicyState::Edited { grants } => {
                format!("  policy   {path} was edited by hand: add what fits\n\n{grants}\n")
            }
            PolicyState::Made | PolicyState::Extended => {
                format!("  policy   {path} has a grant for it\n")
            }
            PolicyState::Kept | PolicyState::Missing => String::new(),
        }
    }
}

impl Item {
    /// Whole days from `now` until it expires.
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.expires_at.duration_since(now).as_hours() / 24
    }
}

/// What is said of a server's certificate of more than [`APPLE_DAYS_MAX`] days.
pub(super) fn apple_note() -> String {
    format!("macOS and iOS refuse server certificates of more than {APPLE_DAYS_MAX} days")
}

pub(super) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

// The signature is serde's.
#[expect(clippy::ref_option)]
pub(super) fn path_or_none<S: Serializer>(
    option: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match option {
        Some(found) => path(found, serializer),
        None => serializer.serialize_none(),
    }
}
