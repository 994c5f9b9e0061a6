//! Fields of the ops on uploads, and of those on many files at once.

use serde::{Deserialize, Serialize};

use crate::content::ContentId;
use crate::label::DedupId;
use crate::path::RemotePath;
use crate::protocol::{Encoding, is_false, is_zero};

/// `begin`: an upload of one file, in parts, that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// Where it is to go: what `commit` says is what holds.
    pub path: RemotePath,
    /// Bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// The version of the file at `path` that patches copy from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
}

/// `write`: some parts of an upload; a body follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    pub upload: ContentId,
    /// Where the parts begin: a multiple of the part size.
    pub offset: u64,
    /// Bytes of the parts: they end where a part ends, or the file.
    pub size: u64,
    /// The body says what to copy from the base, and holds only the rest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub patch: bool,
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// `status`: which parts of an upload the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    pub upload: ContentId,
    /// The number of the first part that is wanted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from: u64,
}

/// `abort`: nothing is left of an upload, or of what was staged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<ContentId>,
    /// Up to [`ABORTED_MAX`], and no upload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<ContentId>,
}

/// Staged contents that one request gives up.
pub const ABORTED_MAX: usize = 1_024;

/// `uploads`: one page of the client's own uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uploads {
    /// The last upload of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ContentId>,
}

/// `signature`: the chunks of a file, for a client that has one like it; a body follows the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub path: RemotePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

/// `put_many`: small files, each for itself; a packed body follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutMany {
    /// They are staged for a set, and nothing is committed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stage: bool,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// `get_many`: small files; a packed body follows the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetMany {
    pub paths: Vec<RemotePath>,
    /// How the body may be compressed; names that are not known are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

/// `commit`: several files in one step; a list of members follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
}
