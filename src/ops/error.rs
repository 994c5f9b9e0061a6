//! Why an operation failed.
//!
//! Three things: a code that a program branches on, a message that may cross the wire, and a source
//! for the log. One match gives the first two; no path of the server, key or raw I/O text is in them.

use std::time::Duration;

use thiserror::Error;

use super::job::CommitError;
use crate::compression::CompressionError;
use crate::content::ContentId;
use crate::index::IndexError;
use crate::label::{CursorName, LabelError};
use crate::log::{Conflict, LogError, Record, Sequence};
use crate::path::{Prefix, RemotePath, Topic};
use crate::policy::{Denied, QuestionError};
use crate::protocol::{ErrorCode, ErrorReply, PackedError};
use crate::store::StoreError;
use crate::topics::Misfit;

/// Why an operation failed. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("{who} may create {path}, but not replace it, and it is there")]
    CreateOnly { who: String, path: RemotePath },
    #[error("{who} may replace {path}, but not create it, and it is not there")]
    ReplaceOnly { who: String, path: RemotePath },
    #[error("no file {0}")]
    NotFound(RemotePath),
    #[error("no directory {0}")]
    NoDirectory(Prefix),
    #[error("{0} is not a directory")]
    NotADirectory(Prefix),
    #[error("{0} is there already")]
    Exists(RemotePath),
    #[error(transparent)]
    Conflict(Conflict),
    /// It changes nothing; the first time it made this record.
    #[error("the request was done already, as {}", .0.sequence.0)]
    Repeated(Box<Record>),
    #[error(
        "this request_id was used for another request, which became record {}: take a new one", .0.0
    )]
    AnotherRequest(Sequence),
    #[error("{what} has {size} bytes, at most {size_max} are allowed")]
    TooLarge {
        what: &'static str,
        size: u64,
        size_max: u64,
    },
    #[error("{what}: announced {announced}, arrived {arrived}; nothing was published")]
    Mismatch {
        what: &'static str,
        announced: String,
        arrived: String,
    },
    #[error("the sender gave up ({0}); nothing was published")]
    Aborted(ErrorCode),
    #[error("{0}")]
    BadRequest(&'static str),
    #[error(transparent)]
    Compression(CompressionError),
    #[error("{path} has {size} bytes: none is at {offset}")]
    BehindEnd {
        path: RemotePath,
        offset: u64,
        size: u64,
    },
    #[error("a file of {size} bytes has not even two parts of {part_size}: put it in one request")]
    Small { size: u64, part_size: u64 },
    #[error("{path} has {size} bytes, not {wanted}: look at it and append again")]
    OtherSize {
        path: RemotePath,
        wanted: u64,
        size: u64,
    },
    #[error("you have no upload {0}: begin one")]
    NoUpload(ContentId),
    #[error("upload {upload}: {reason}")]
    Upload { upload: ContentId, reason: String },
    #[error("another connection has begun the same part of upload {0}")]
    Overtaken(ContentId),
    #[error(transparent)]
    Packed(#[from] PackedError),
    #[error("{0}")]
    Question(QuestionError),
    #[error("at most {n_max} {what} are allowed")]
    TooMany { what: &'static str, n_max: usize },
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(transparent)]
    Label(LabelError),
    #[error("no message {}, or none that you may read", .0.0)]
    NoMessage(Sequence),
    #[error("nothing is attached to message {}: it came with its event", .0.0)]
    NothingAttached(Sequence),
    #[error("nobody waits for a reply to message {}", .0.0)]
    NobodyWaits(Sequence),
    #[error("nobody replied on {topic} within {timeout:?}")]
    NoReply { topic: Topic, timeout: Duration },
    #[error("the log ends at {}: nothing is after {} yet", head.0, since.0)]
    AfterHead { since: Sequence, head: Sequence },
    #[error("you have no cursor {0}")]
    NoCursor(CursorName),
    #[error("there is no record {} yet: it cannot be done with", .0.0)]
    NotGiven(Sequence),
    #[error("another reader has taken the cursor over")]
    CursorTaken,
    #[error("the cursor was taken away")]
    CursorForgotten,
    #[error("{n} readers share the cursor as a group: join the group, or take another cursor")]
    InGroup { n: usize },
    #[error("{n} readers share the cursor and read something else")]
    GroupReading { n: usize },
    #[error("{path}: {reason}")]
    Member {
        path: RemotePath,
        reason: &'static str,
    },
    #[error(
        "{0}: you have no upload or staged content of this name, or none any more: send it again"
    )]
    NothingToPut(RemotePath),
    #[error("line {line} of the set: {error}")]
    MemberLine { line: u64, error: String },
    #[error("the line of file {number} (from 0): {error}; nothing was put")]
    PackedLine { number: usize, error: String },
    #[error("{0} is changing too fast to be read")]
    Unsettled(RemotePath),
    #[error("too many requests are waiting; try again later")]
    Busy,
    #[error("the server is going away; try again later or elsewhere")]
    ShuttingDown,
    #[error("the store failed")]
    Store(#[source] StoreError),
    #[error("the log failed")]
    Log(#[source] LogError),
    #[error("the index failed")]
    Index(#[source] IndexError),
    #[error("a thread of the server failed")]
    ThreadLost,
}

impl OpError {
    /// What the peer is told.
    pub fn reply(&self) -> ErrorReply {
        ErrorReply {
            code: self.code(),
            message: self.message(),
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Denied(_) | Self::CreateOnly { .. } | Self::ReplaceOnly { .. } => {
                ErrorCode::Denied
            }
            Self::NotFound(_)
            | Self::NoDirectory(_)
            | Self::NoMessage(_)
            | Self::NothingAttached(_)
            | Self::NobodyWaits(_)
            | Self::NoCursor(_)
            | Self::NoUpload(_)
            | Self::NothingToPut(_)
            | Self::CursorForgotten => ErrorCode::NotFound,
            Self::Exists(_) | Self::Repeated(_) | Self::CursorTaken => ErrorCode::Exists,
            Self::Conflict(conflict) => match conflict {
                Conflict::Exists { .. }
                | Conflict::FileAbove { .. }
                | Conflict::FileBelow { .. }
                | Conflict::Duplicate { .. } => ErrorCode::Exists,
                Conflict::Changed { .. } | Conflict::Gone { .. } => ErrorCode::Changed,
                Conflict::Missing { .. } => ErrorCode::NotFound,
                Conflict::TooManyTopics { .. } => ErrorCode::Quota,
            },
            Self::OtherSize { .. } => ErrorCode::Changed,
            Self::TooMany { .. } => ErrorCode::Quota,
            Self::NoReply { .. } => ErrorCode::Unavailable,
            Self::Misfit(_)
            | Self::AnotherRequest(_)
            | Self::Label(_)
            | Self::AfterHead { .. }
            | Self::NotGiven(_)
            | Self::BehindEnd { .. }
            | Self::Small { .. }
            | Self::Upload { .. }
            | Self::InGroup { .. }
            | Self::GroupReading { .. }
            | Self::Member { .. }
            | Self::MemberLine { .. }
            | Self::Packed(_)
            | Self::Compression(_)
            | Self::PackedLine { .. } => ErrorCode::BadRequest,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Mismatch { .. } => ErrorCode::DigestMismatch,
            Self::NotADirectory(_) | Self::Aborted(_) | Self::BadRequest(_) | Self::Question(_) => {
                ErrorCode::BadRequest
            }
            Self::Unsettled(_) | Self::Busy | Self::Overtaken(_) => ErrorCode::Busy,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::Store(error) => match error {
                StoreError::NotFound => ErrorCode::NotFound,
                StoreError::NotAFile(_) | StoreError::Confined(_) => ErrorCode::BadRequest,
                StoreError::FileAbove { .. } | StoreError::Directory(_) => ErrorCode::Exists,
                StoreError::OutOfSpace(_) | StoreError::ReadOnly(_) => ErrorCode::Unavailable,
                StoreError::Io { .. } => ErrorCode::Internal,
            },
            Self::Log(error) => match error {
                LogError::OutOfSpace(_) | LogError::ReadOnly(_) | LogError::Unknown(_) => {
                    ErrorCode::Unavailable
                }
                LogError::Damaged(_) | LogError::DamagedRecord { .. } | LogError::Engine(_) => {
                    ErrorCode::Internal
                }
            },
            Self::Index(error) => match error {
                IndexError::Damaged(_) | IndexError::Engine(_) => ErrorCode::Internal,
            },
            Self::ThreadLost => ErrorCode::Internal,
        }
    }

    fn message(&self) -> String {
        match self {
            // The reason names only what the client asked for.
            Self::Store(
                error @ (StoreError::NotFound
                | StoreError::NotAFile(_)
                | StoreError::FileAbove { .. }
                | StoreError::Directory(_)
                | StoreError::Confined(_)),
            ) => error.to_string(),
            Self::Store(StoreError::OutOfSpace(_)) | Self::Log(LogError::OutOfSpace(_)) => {
                "no space is left on the server".to_owned()
            }
            Self::Store(StoreError::ReadOnly(_)) | Self::Log(LogError::ReadOnly(_)) => {
                "the server takes no changes since a disk error; its operator must look at it"
                    .to_owned()
            }
            Self::Store(StoreError::Io { .. })
            | Self::Log(_)
            | Self::Index(_)
            | Self::ThreadLost => "the server failed; its log says more".to_owned(),
            other => other.to_string(),
        }
    }
}

impl From<CommitError> for OpError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(conflict) => Self::Conflict(conflict),
            CommitError::Repeated(record) => Self::Repeated(record),
            CommitError::Occupied(path) => Self::Exists(path),
            CommitError::Store(error) => Self::Store(error),
            CommitError::Log(error) => Self::Log(error),
            CommitError::Index(error) => Self::Index(error),
            CommitError::QueueFull => Self::Busy,
            CommitError::Stopped => Self::ShuttingDown,
        }
    }
}
