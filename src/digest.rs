//! The digest of a file's content, and the hasher that makes it.
//!
//! Owns the text form `blake3:<64 hex digits>`; nothing else spells it.

use std::fmt;
use std::str::FromStr;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
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

    /// The value as it is kept.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The value that was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
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

/// What a part of a content adds to its digest: the chaining value of a BLAKE3 subtree. 64 lower-case
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PartDigest(blake3::Hash);

impl fmt::Display for PartDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl From<PartDigest> for String {
    fn from(digest: PartDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for PartDigest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        blake3::Hash::from_hex(text)
            .map(Self)
            .map_err(|_| DigestError)
    }
}

/// Hashes one part of a content at its place.
#[derive(Debug, Clone)]
pub struct PartHasher {
    inner: blake3::Hasher,
    size: u64,
}

impl PartHasher {
    /// A hasher of the part that begins at `offset`, a multiple of the size of all parts, which is a
    /// power of two of at least 1,024 bytes.
    pub fn at(offset: u64) -> Self {
        let mut inner = blake3::Hasher::new();
        inner.set_input_offset(offset);
        Self { inner, size: 0 }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.inner.update(piece);
        self.size += piece.len() as u64;
    }

    /// How many bytes have been taken.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What was taken, as part of more; there is no part without bytes.
    pub fn digest(&self) -> PartDigest {
        PartDigest(self.inner.finalize_non_root().into())
    }
}

impl PartDigest {
    /// The value as an engine keeps it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The value that an engine has kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
    }
}

/// The digest of a content out of those of its parts, in order; `None` for fewer than two parts.
///
/// All parts but the last have the same size, a power of two of at least 1,024 bytes (section 2.1 of
/// the BLAKE3 paper: the left subtree is the largest whole one that leaves something for the right).
pub fn combine(parts: &[PartDigest]) -> Option<Digest> {
    let (left, right) = split(parts)?;
    let root = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    Some(Digest(root))
}

fn subtree(parts: &[PartDigest]) -> ChainingValue {
    match (parts, split(parts)) {
        (_, Some((left, right))) => {
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
        (parts, None) => *parts[0].as_bytes(),
    }
}

fn split(parts: &[PartDigest]) -> Option<(&[PartDigest], &[PartDigest])> {
    if parts.len() < 2 {
        return None;
    }
    let left = parts.len().next_power_of_two() / 2;
    Some(parts.split_at(left))
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
    fn parts_and_whole_agree() {
        let part_size = 4096;
        let content: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
        for size in (part_size + 1..content.len())
            .step_by(997)
            .chain([2 * part_size, 3 * part_size])
        {
            let content = &content[..size];
            let parts: Vec<PartDigest> = content
                .chunks(part_size)
                .enumerate()
                .map(|(number, part)| {
                    let mut hasher = PartHasher::at((number * part_size) as u64);
                    hasher.update(part);
                    hasher.digest()
                })
                .collect();
            assert_eq!(combine(&parts), Some(Digest::of(content)), "{size}");
        }
        let mut hasher = PartHasher::at(0);
        hasher.update(b"x");
        let one = hasher.digest();
        assert_eq!(combine(&[one]), None);
        assert_eq!(PartDigest::try_from(String::from(one)), Ok(one));
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
