//! What was signed, and what of the request was not granted: plain facts, for JSON and as text.
//!
//! Field names are stable.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::csr::Asked;
use super::ledger::Kind;
use super::name::Host;
use super::report::{PolicyItem, path};
use crate::identity::SpiffeId;

/// A request that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignReport {
    /// `server`, or the name of the client, server or peer.
    pub name: String,
    pub kind: Kind,
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    pub identity: SpiffeId,
    pub hosts: Vec<Host>,
    pub serial: String,
    /// Serial number of the CA.
    pub ca: String,
    pub expires_at: Timestamp,
    pub sha256: String,
    pub public_key_sha256: String,
    pub key_kind: &'static str,
    /// What the request asked for.
    pub asked: Asked,
    /// What of that is not in the certificate.
    pub dropped: Vec<String>,
    /// Of a client: what became of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyItem>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

impl SignReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = format!(
            "  {:<8} {}   made for the {} key of the request\n           \
                        id {}   expires {}\n           \
                        serial {}   public key sha256 {}\n",
            self.kind.text(),
            self.certificate.display(),
            self.key_kind,
            self.identity,
            self.expires_at,
            self.serial,
            self.public_key_sha256,
        );
        if !self.hosts.is_empty() {
            let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
            let _ = writeln!(text, "           valid for {}", hosts.join(", "));
        }
        for thing in &self.dropped {
            let _ = writeln!(
                text,
                "  dropped  {thing}: it was asked for and is not in the certificate"
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "  note     {note}");
        }
        if let Some(policy) = &self.policy {
            text += &policy.of_new_client();
        }
        text + "\nSend back: this file, and ca.pem\n"
    }
}
