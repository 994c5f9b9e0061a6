//! Why a certificate is revoked: the reasons of RFC 5280 that an operator can have.
//!
//! None of them can be taken back, so there is no hold.

use std::fmt;
use std::str::FromStr;

use rcgen::RevocationReason;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::escape::Escaped;

/// Why a certificate is not good any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    #[default]
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

/// A word that is no reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} is no reason; those are: {}", names())]
pub struct ReasonError {
    text: Escaped,
}

const ALL: [Reason; 6] = [
    Reason::Unspecified,
    Reason::KeyCompromise,
    Reason::AffiliationChanged,
    Reason::Superseded,
    Reason::CessationOfOperation,
    Reason::PrivilegeWithdrawn,
];

fn names() -> String {
    ALL.map(Reason::name).join(", ")
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    /// As a list spells it; RFC 5280 leaves the unspecified one out.
    pub(super) const fn code(self) -> Option<RevocationReason> {
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Self::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
            Self::Superseded => Some(RevocationReason::Superseded),
            Self::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
            Self::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reason {
    type Err = ReasonError;

    /// Takes the spelling of RFC 5280, and those with hyphens or underscores.
    fn from_str(text: &str) -> Result<Self, ReasonError> {
        let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
        let wanted = plain(text);
        ALL.into_iter()
            .find(|reason| plain(reason.name()) == wanted)
            .ok_or_else(|| ReasonError {
                text: Escaped::new(text),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_three_spellings_and_no_hold() {
        for text in ["keyCompromise", "key-compromise", "key_compromise"] {
            assert_eq!(text.parse(), Ok(Reason::KeyCompromise));
        }
        for reason in ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
        for text in ["", "certificateHold", "removeFromCRL", "key"] {
            let error = text.parse::<Reason>().unwrap_err();
            assert!(error.to_string().contains("keyCompromise"), "{error}");
        }
    }
}
