//! Labels that a peer gives to its own things: cursors and messages.
//!
//! A label means something only together with the identity that gave it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::escape::is_hidden;

/// Longest name of a cursor, in bytes.
pub const CURSOR_NAME_SIZE_MAX: usize = 64;
/// Longest deduplication id, in bytes.
pub const DEDUP_ID_SIZE_MAX: usize = 128;

/// Why a text is not a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LabelError {
    #[error("a cursor's name is 1 to {CURSOR_NAME_SIZE_MAX} of a-z 0-9 . _ -")]
    CursorName,
    #[error(
        "a deduplication id is 1 to {DEDUP_ID_SIZE_MAX} bytes without control or invisible characters"
    )]
    DedupId,
}

/// The name of a place in the log that the server keeps for an identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CursorName(String);

/// What makes a message that is sent again the same message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DedupId(String);

impl FromStr for CursorName {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let well_formed = text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if text.is_empty() || text.len() > CURSOR_NAME_SIZE_MAX || !well_formed {
            return Err(LabelError::CursorName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for DedupId {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() || text.len() > DEDUP_ID_SIZE_MAX || text.chars().any(is_hidden) {
            return Err(LabelError::DedupId);
        }
        Ok(Self(text.to_owned()))
    }
}

impl DedupId {
    /// The id of the n-th message, from 1, of several that were sent under this one.
    ///
    /// # Errors
    /// The two together are too long.
    pub fn nth(&self, n: usize) -> Result<Self, LabelError> {
        format!("{}/{n}", self.0).parse()
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl $name {
            /// The label as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(label: $name) -> Self {
                label.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = LabelError;

            fn try_from(text: String) -> Result<Self, LabelError> {
                text.parse()
            }
        }
    };
}

text_form!(CursorName);
text_form!(DedupId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked() {
        assert!("loader-2.a_b".parse::<CursorName>().is_ok());
        for text in ["", "A", "a b", "a/b", "ü", &"x".repeat(65)] {
            assert!(text.parse::<CursorName>().is_err(), "{text:?}");
        }
        assert!("Order 7/ü".parse::<DedupId>().is_ok());
        for text in ["", "a\n", "a\u{200b}", &"x".repeat(129)] {
            assert!(text.parse::<DedupId>().is_err(), "{text:?}");
        }
        let id: DedupId = "a".parse().unwrap();
        assert_eq!(id.nth(3).unwrap().as_str(), "a/3");
    }
}
