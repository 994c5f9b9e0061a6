//! Exit codes: what a script branches on.

use std::process::ExitCode;

use crate::client::ClientError;
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
            ClientError::Tls(_)
            | ClientError::Connect { .. }
            | ClientError::Refused(_)
            | ClientError::Closed(_)
            | ClientError::Silent { .. }
            | ClientError::Lost { .. } => Self::Connect,
            ClientError::Answer(_)
            | ClientError::OutOfStep { .. }
            | ClientError::Misplaced(_)
            | ClientError::OverLimit { .. }
            | ClientError::Corrupt { .. }
            | ClientError::WrongSize { .. }
            | ClientError::Aborted(_)
            | ClientError::Source(_)
            | ClientError::Sink(_) => Self::Failed,
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
