//! The digest of a file's content, and the hasher that makes it.
//!
//! Owns the text form `blake3:<64 hex digits>`; nothing else spells it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const PREFIX: &str = "blake3:";

/// A BLAKE3 digest of a whole content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(blake3::Hash);

/// Why a text is not a digest.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a digest is written blake3: and 64 lower-case hexadecimal digits")]
pub struct DigestError;

impl Digest {
    /// The digest of a content that is already in memory.
    pub fn of(content: &[u8]) -> Self {
        Self(blake3::hash(content))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix(PREFIX).ok_or(DigestError)?;
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(DigestError);
        }
        blake3::Hash::from_hex(hex)
            .map(Self)
            .map_err(|_| DigestError)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

/// Hashes a content piece by piece, and counts it.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    inner: blake3::Hasher,
    size: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. Pieces of 64 KiB and more keep the vector units busy.
    pub fn update(&mut self, piece: &[u8]) {
        self.inner.update(piece);
        self.size += piece.len() as u64;
    }

    /// How many bytes have been taken.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all that was taken.
    pub fn digest(&self) -> Digest {
        Digest(self.inner.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_whole_agree() {
        let mut hasher = Hasher::new();
        hasher.update(b"hello ");
        hasher.update(b"world");
        assert_eq!(hasher.digest(), Digest::of(b"hello world"));
        assert_eq!(hasher.size(), 11);
    }

    #[test]
    fn text_round_trips_and_other_texts_are_refused() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in [
            "",
            "blake3:",
            "sha256:00",
            &digest.to_string().to_uppercase(),
            "blake3:zz",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }
}
