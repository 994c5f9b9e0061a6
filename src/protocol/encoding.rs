//! How bodies are compressed on their way, and which requests may have such a body.

use serde::{Deserialize, Serialize};

use super::{FileInfo, Op};

/// The feature of a server that takes and sends compressed bodies.
pub const FEATURE_ZSTD: &str = "zstd";

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// One frame of RFC 8878.
    Zstd,
}

/// What the body behind the answer to a `get` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    #[serde(flatten)]
    pub file: FileInfo,
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// The answer to a `get_many`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GotMany {
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

impl Encoding {
    /// What of the names in `accept` is known here; others are passed over.
    pub fn accepted(accept: &[String]) -> Option<Self> {
        let is_there = accept.iter().any(|name| name == FEATURE_ZSTD);
        is_there.then_some(Self::Zstd)
    }

    /// What a client that takes compressed bodies says so with.
    pub fn accept(is_wanted: bool) -> Vec<String> {
        let name = is_wanted.then(|| FEATURE_ZSTD.to_owned());
        name.into_iter().collect()
    }
}

impl Op {
    /// How the body that follows is compressed, of an op whose body may be.
    pub const fn encoding_mut(&mut self) -> Option<&mut Option<Encoding>> {
        match self {
            Self::Put(put) => Some(&mut put.encoding),
            Self::Append(append) => Some(&mut append.encoding),
            Self::Stage(stage) => Some(&mut stage.encoding),
            Self::Write(write) => Some(&mut write.encoding),
            Self::PutMany(many) => Some(&mut many.encoding),
            _ => None,
        }
    }

    /// How the body behind the answer may be compressed, of an op whose body may be.
    pub const fn accept_mut(&mut self) -> Option<&mut Vec<String>> {
        match self {
            Self::Get(get) => Some(&mut get.accept),
            Self::GetMany(many) => Some(&mut many.accept),
            _ => None,
        }
    }
}
