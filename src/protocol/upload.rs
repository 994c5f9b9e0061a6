//! What the ops on uploads and on many files answer, and what stands in their bodies.
//!
//! A reader of answers passes over fields that it does not know; a reader of a request's body does
//! not.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::json::{self, JsonError};
use super::{ErrorReply, FileInfo, is_false, is_zero};
use crate::content::{Attributes, ContentId};
use crate::digest::{Digest, PartDigest};
use crate::path::RemotePath;

/// Files in one `put_many`.
pub const MANY_FILES_MAX: usize = 1024;
/// Paths in one `get_many`.
pub const MANY_PATHS_MAX: usize = 512;
/// Bytes of a file that is one of many.
pub const MANY_SIZE_MAX: u64 = 1 << 20;

/// An upload has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub upload: ContentId,
    /// Bytes of each part but the last.
    pub part_size: u64,
    pub expires_at: Timestamp,
}

/// Parts have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub n_parts: u64,
}

/// What is known about an upload; some of the parts that are there, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    pub path: RemotePath,
    /// Bytes.
    pub size: u64,
    pub part_size: u64,
    /// Parts that are there, in all.
    pub n_parts: u64,
    pub expires_at: Timestamp,
    pub parts: Vec<Part>,
    /// Ask again with this as `from`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A part that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 0.
    pub number: u64,
    pub digest: PartDigest,
}

/// One page of uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPage {
    pub uploads: Vec<UploadInfo>,
    /// Ask again with this as `after`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ContentId>,
}

/// An upload in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadInfo {
    pub upload: ContentId,
    pub path: RemotePath,
    /// Bytes.
    pub size: u64,
    pub n_parts: u64,
    pub expires_at: Timestamp,
}

/// The chunks of a file follow: 20 bytes each, its length (4 bytes, big-endian) and the first 16 bytes
/// of its BLAKE3 digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    pub version: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of a chunk, on average; what the chunks are cut with.
    pub chunk_size: u32,
}

/// What became of each of many files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutManyDone {
    /// One for each file, in order; 0 for one that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<u64>,
    /// The same where they were staged; `None` for one that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<Option<ContentId>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_refused: u64,
    /// Why, for the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedFile>,
}

/// One of many files that was not put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFile {
    /// Its place, from 0.
    pub number: u64,
    pub error: ErrorReply,
}

/// The line before a file's bytes in the body of `put_many`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedPut {
    /// Absent where the file is only staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RemotePath>,
    pub size: u64,
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// The line before a file's bytes in the body that answers `get_many`, in the order that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackedGet {
    /// Its bytes follow.
    File(FileInfo),
    /// No bytes follow. `too_large` for a file that is better asked for by itself.
    Error(ErrorReply),
}

/// The line before a piece in the body of a `write` that patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PatchStep {
    /// The next bytes are those of the base from `offset` on.
    Copy { offset: u64, size: u64 },
    /// The next bytes follow, so many.
    Data(u64),
}

impl PackedPut {
    /// Reads a line.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not such a line.
    pub fn decode(line: &[u8]) -> Result<Self, JsonError> {
        json::typed(line)
    }
}

impl PackedGet {
    /// Reads a line.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not such a line.
    pub fn decode(line: &[u8]) -> Result<Self, JsonError> {
        json::typed(line)
    }
}

impl PatchStep {
    /// Reads a line.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not such a line.
    pub fn decode(line: &[u8]) -> Result<Self, JsonError> {
        json::typed(line)
    }
}
