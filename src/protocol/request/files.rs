//! Fields of the ops on files.

use serde::{Deserialize, Serialize};

use crate::content::Attributes;
use crate::label::DedupId;
use crate::path::{Prefix, RemotePath};
use crate::protocol::{Encoding, is_false, is_zero};

/// What must hold about a file for a change to be made; checked inside the append.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// No file may be there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// The file must be there, at this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    pub path: RemotePath,
    /// How many bytes will come, where the sender knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    pub path: RemotePath,
    /// The first byte that is wanted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Bytes, at most up to the end of the file; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// How the body may be compressed; names that are not known are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

/// `append`: bytes behind those of a file; a body follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    pub path: RemotePath,
    /// Bytes that the file must have before; 0 also for one that is not there.
    pub if_size: u64,
    /// How many bytes will come, where the sender knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    pub path: RemotePath,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    pub path: Prefix,
    /// The last name of the page before; names after it are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    pub path: RemotePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    pub from: RemotePath,
    pub to: RemotePath,
    /// No file may be at `to`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// The version that `from` must be at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    pub from: RemotePath,
    pub to: RemotePath,
    /// No file may be at `to`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// The version that `from` must be at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// What makes it the same request when it is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<DedupId>,
}

/// `can`: an action as the policy spells it, and what it would be done on, as the policy spells it
/// (`/a/b` or `topic:a/b`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub action: String,
    pub on: String,
}

impl Get {
    /// All of a file, as it is now.
    pub const fn whole(path: RemotePath) -> Self {
        Self {
            path,
            offset: 0,
            length: None,
            if_version: None,
            accept: Vec::new(),
        }
    }
}

impl Put {
    /// The conditions, as one value.
    pub const fn conditions(&self) -> Conditions {
        Conditions {
            if_absent: self.if_absent,
            if_version: self.if_version,
        }
    }
}
