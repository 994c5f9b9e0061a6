//! Who a peer is: the SPIFFE ID in its certificate, and the certificate's own marks.
//!
//! Pure values. The one place that makes an [`Identity`] out of a verified chain is
//! `tls::identity`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::escape::Escaped;

/// Longest SPIFFE ID in bytes.
pub const ID_SIZE_MAX: usize = 256;
/// The part of a certificate's life in which it should be replaced: the last third.
const LIFE_LEFT_PART: i32 = 3;
const SCHEME: &str = "spiffe://";

/// A SPIFFE ID, `spiffe://TRUST-DOMAIN/PATH`, in lower case; compared byte by byte.
///
/// Narrower than the SPIFFE-ID standard (section 2), which also allows upper case in the path:
/// two identities that differ by case alone are an accident waiting on some file system.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffeId {
    text: String,
    path_start: usize,
}

/// Why a text is not a usable SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    #[error("the name {0} does not begin with spiffe://")]
    Scheme(Escaped),
    #[error("the name has {size} bytes, at most {ID_SIZE_MAX} are allowed")]
    TooLong { size: usize },
    #[error("the trust domain of {0} is empty")]
    NoTrustDomain(Escaped),
    #[error("the name {0} has no path after the trust domain")]
    NoPath(Escaped),
    #[error("the name {0} holds a character outside a-z 0-9 . - _ /")]
    Character(Escaped),
    #[error("the name {0} has an empty, . or .. segment")]
    Segment(Escaped),
}

impl SpiffeId {
    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain, without scheme or slash.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_start]
    }

    /// The segments of the path, outermost first; at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.text[self.path_start + 1..].split('/')
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > ID_SIZE_MAX {
            return Err(SpiffeIdError::TooLong { size: text.len() });
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| SpiffeIdError::Scheme(Escaped::new(text)))?;
        if !rest
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/'))
        {
            return Err(SpiffeIdError::Character(Escaped::new(text)));
        }
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| SpiffeIdError::NoPath(Escaped::new(text)))?;
        if domain.is_empty() {
            return Err(SpiffeIdError::NoTrustDomain(Escaped::new(text)));
        }
        if path
            .split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err(SpiffeIdError::Segment(Escaped::new(text)));
        }
        Ok(Self {
            text: text.to_owned(),
            path_start: SCHEME.len() + domain.len(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.text
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        text.parse()
    }
}

/// Which name of a certificate is the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum NameSource {
    /// The one URI among the alternative names, a SPIFFE ID.
    #[serde(rename = "uri")]
    Uri,
    /// The one DNS name among the alternative names: `spiffe://TRUST-DOMAIN/dns/NAME`.
    #[serde(rename = "dns")]
    Dns,
    /// The one common name of the subject: `spiffe://TRUST-DOMAIN/cn/NAME`.
    #[serde(rename = "cn")]
    CommonName,
}

/// What the certificates of a CA may say who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The file that the CA is in; several, where it has several generations.
    pub ca: PathBuf,
    /// The one trust domain of its identities, which no other CA names.
    pub trust_domain: String,
    /// There is no other: a certificate without this name is refused, whatever else it has.
    pub source: NameSource,
    /// Whether a certificate that is for servers as well is taken as a client's.
    pub also_servers: bool,
}

/// Who a verified certificate says the peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The one name in the certificate, as its CA's [`Binding`] has it: a URI, where there is none.
    pub id: SpiffeId,
    /// The certificate's serial number, hexadecimal.
    pub serial: String,
    /// The issuer's distinguished name, escaped.
    pub ca: String,
    /// The beginning of the certificate's validity.
    pub valid_from: Timestamp,
    /// The end of the certificate's validity; nothing is done for the peer after it.
    pub expires_at: Timestamp,
}

impl Identity {
    /// See [`renew_after`].
    pub fn renew_after(&self) -> Timestamp {
        renew_after(self.valid_from, self.expires_at)
    }
}

/// From when on a certificate should be replaced: a third of its life is left.
pub fn renew_after(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let last_part = not_after.duration_since(not_before) / LIFE_LEFT_PART;
    not_after.checked_sub(last_part).unwrap_or(not_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_trust_domain_and_segments() {
        let id: SpiffeId = "spiffe://acme.internal/client/dev".parse().unwrap();
        assert_eq!(id.trust_domain(), "acme.internal");
        assert_eq!(id.segments().collect::<Vec<_>>(), ["client", "dev"]);
    }

    #[test]
    fn unusable_ids_are_refused() {
        let long = format!("spiffe://td/{}", "x".repeat(ID_SIZE_MAX));
        for text in [
            "",
            "https://td/x",
            "spiffe://",
            "spiffe:///x",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td//x",
            "spiffe://td/./x",
            "spiffe://td/../x",
            "spiffe://td/x/",
            "spiffe://TD/x",
            "spiffe://td/X",
            "spiffe://td/%2e%2e",
            "spiffe://td:443/x",
            "spiffe://u@td/x",
            "spiffe://td/x?y",
            "spiffe://td/x#y",
            "spiffe://td/*",
            "spiffe://td/x\0y",
            "spiffe://td/x\ny",
            "SPIFFE://td/x",
            &long,
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
    }
}
