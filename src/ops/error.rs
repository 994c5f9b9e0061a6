//! Why an operation failed.
//!
//! Three things: a code that a program branches on, a message that may cross the wire, and a source
//! for the log. One match gives the first two; no path of the server, key or raw I/O text is in them.

use thiserror::Error;

use super::commit::CommitError;
use crate::index::IndexError;
use crate::log::{Conflict, LogError};
use crate::path::{Prefix, RemotePath};
use crate::policy::{Denied, QuestionError};
use crate::protocol::{ErrorCode, ErrorReply};
use crate::store::StoreError;

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
    #[error("{0}")]
    Question(QuestionError),
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
            Self::NotFound(_) | Self::NoDirectory(_) => ErrorCode::NotFound,
            Self::Exists(_) => ErrorCode::Exists,
            Self::Conflict(conflict) => match conflict {
                Conflict::Exists { .. }
                | Conflict::FileAbove { .. }
                | Conflict::FileBelow { .. } => ErrorCode::Exists,
                Conflict::Changed { .. } | Conflict::Gone { .. } => ErrorCode::Changed,
                Conflict::Missing { .. } => ErrorCode::NotFound,
            },
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Mismatch { .. } => ErrorCode::DigestMismatch,
            Self::NotADirectory(_) | Self::Aborted(_) | Self::BadRequest(_) | Self::Question(_) => {
                ErrorCode::BadRequest
            }
            Self::Unsettled(_) | Self::Busy => ErrorCode::Busy,
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
                LogError::Damaged(_) | LogError::Engine(_) => ErrorCode::Internal,
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
            CommitError::Occupied(path) => Self::Exists(path),
            CommitError::Store(error) => Self::Store(error),
            CommitError::Log(error) => Self::Log(error),
            CommitError::Index(error) => Self::Index(error),
            CommitError::QueueFull => Self::Busy,
            CommitError::Stopped => Self::ShuttingDown,
        }
    }
}
