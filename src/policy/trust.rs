//! Trust settings: which CA may name whom.
//!
//! They narrow what the CAs of the server's bundle say, and never add a CA to them.

use std::path::PathBuf;

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::escape::Escaped;
use crate::identity::{Binding, NameSource, SpiffeId, SpiffeIdError};

/// Why a trust setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrustError {
    #[error("\"ca\" is empty; it is the file of the CA's certificate, beside the policy or from /")]
    NoFile,
    #[error(
        "\"trust_domain\" is {0}; write the domain alone, without spiffe:// and without a path"
    )]
    NotADomain(Escaped),
    #[error("\"trust_domain\" is {domain}, which is not one{hint}: {reason}")]
    Domain {
        domain: Escaped,
        hint: String,
        reason: Box<SpiffeIdError>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustText {
    ca: Spanned<String>,
    trust_domain: Spanned<String>,
    #[serde(default = "uri")]
    identity: NameSource,
    #[serde(default)]
    also_servers: bool,
}

const fn uri() -> NameSource {
    NameSource::Uri
}

impl TrustText {
    /// The setting, checked; or why not, and where, in bytes from the beginning of the policy.
    pub(super) fn parse(&self) -> Result<Binding, (usize, TrustError)> {
        if self.ca.get_ref().is_empty() {
            return Err((self.ca.span().start, TrustError::NoFile));
        }
        let domain = self.trust_domain.get_ref();
        check_domain(domain).map_err(|error| (self.trust_domain.span().start, error))?;
        Ok(Binding {
            ca: PathBuf::from(self.ca.get_ref()),
            trust_domain: domain.clone(),
            source: self.identity,
            also_servers: self.also_servers,
        })
    }
}

/// A domain is one if it makes an identity with a path behind.
fn check_domain(domain: &str) -> Result<(), TrustError> {
    if domain.contains('/') {
        return Err(TrustError::NotADomain(Escaped::new(domain)));
    }
    let made = |domain: &str| format!("spiffe://{domain}/x").parse::<SpiffeId>();
    made(domain).map(drop).map_err(|reason| {
        let lower = domain.to_ascii_lowercase();
        let hint = if made(&lower).is_ok() {
            format!("; did you mean {lower}?")
        } else {
            String::new()
        };
        TrustError::Domain {
            domain: Escaped::new(domain),
            hint,
            reason: Box::new(reason),
        }
    })
}
