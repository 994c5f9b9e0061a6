//! Exit codes: what a script branches on.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::client::tree::{ListingError, TreeError};
use crate::protocol::ErrorCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// Not found, already there, or changed meanwhile.
    State = 3,
    Denied = 4,
    /// No connection, or TLS refused it.
    Connect = 5,
    /// Busy or unavailable: worth another try.
    Busy = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// How a failed request ends the command.
    pub(super) fn of(error: &ClientError) -> Self {
        match error {
            ClientError::Remote(reply) => Self::of_code(reply.code),
            // Whoever was not greeted has no connection, whatever the reason.
            ClientError::NotGreeted { reply, .. } => match Self::of_code(reply.code) {
                Self::Busy => Self::Busy,
                _ => Self::Connect,
            },
            ClientError::ServerName(_) => Self::Usage,
            ClientError::Unsettled(_) | ClientError::NotInTime { .. } => Self::State,
            ClientError::Tls(_)
            | ClientError::Connect { .. }
            | ClientError::Refused(_)
            | ClientError::Closed(_)
            | ClientError::Certificate { .. }
            | ClientError::Silent { .. }
            | ClientError::Lost { .. } => Self::Connect,
            ClientError::Answer(_)
            | ClientError::OutOfStep { .. }
            | ClientError::Body(_)
            | ClientError::Misplaced(_)
            | ClientError::OverLimit { .. }
            | ClientError::Corrupt { .. }
            | ClientError::WrongSize { .. }
            | ClientError::Aborted(_)
            | ClientError::SourceChanged
            | ClientError::UploadLost(_)
            | ClientError::Source(_)
            | ClientError::TooMany { .. }
            | ClientError::Sink(_) => Self::Failed,
        }
    }

    /// How a tree that failed altogether ends the command.
    pub(super) fn of_tree(error: &TreeError) -> Self {
        match error {
            TreeError::Client(error) | TreeError::Listing(ListingError::Client(error)) => {
                Self::of(error)
            }
            TreeError::Shared(error) => Self::of(error),
            TreeError::Refused(reply) => Self::of_code(reply.code),
            TreeError::Member { source, .. } => Self::of_tree(source),
            TreeError::NoMember(_) => Self::Usage,
            _ => Self::Failed,
        }
    }

    const fn of_code(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotFound | ErrorCode::Exists | ErrorCode::Changed => Self::State,
            ErrorCode::Denied => Self::Denied,
            ErrorCode::CertificateExpired | ErrorCode::CertificateRevoked => Self::Connect,
            ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::ShuttingDown => Self::Busy,
            ErrorCode::BadFrame
            | ErrorCode::BadRequest
            | ErrorCode::Unsupported
            | ErrorCode::TooLarge
            | ErrorCode::Quota
            | ErrorCode::DigestMismatch
            | ErrorCode::Internal => Self::Failed,
        }
    }
}
