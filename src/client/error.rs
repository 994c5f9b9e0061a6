//! Why a client's request failed.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::compression::CompressionError;
use crate::connection::ConnectionError;
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::path::RemotePath;
use crate::protocol::{ErrorCode, ErrorReply, JsonError};
use crate::tls::TlsError;
use crate::tls::failure::FailureCode;
use crate::tls::refusal::Refusal;

/// Why a request failed, named by where.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("\"{0}\" is not HOST:PORT")]
    ServerName(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot connect to {server}")]
    Connect {
        server: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Refused(Refusal),
    /// It closed before it said anything: it is going away, or a refusal was lost on the way.
    #[error("{0}")]
    Closed(Refusal),
    /// This client's certificate has ended or was revoked: it goes on with another one only.
    #[error("{refusal}")]
    Certificate { code: ErrorCode, refusal: Refusal },
    #[error("{server} refused the connection: {}", Escaped::new(&reply.message))]
    NotGreeted { server: String, reply: ErrorReply },
    #[error("{server} said nothing for {stall:?}")]
    Silent { server: String, stall: Duration },
    #[error("the connection to {server} was lost")]
    Lost {
        server: String,
        #[source]
        source: ConnectionError,
    },
    #[error("{}", Escaped::new(&.0.message))]
    Remote(ErrorReply),
    #[error("the server's answer makes no sense")]
    Answer(#[source] JsonError),
    #[error("the server answered request {found:?}, {asked} was asked")]
    OutOfStep { asked: u64, found: Option<u64> },
    #[error("what the server sent makes no sense")]
    Body(#[source] CompressionError),
    #[error("the server's stream makes no sense: {0}")]
    Misplaced(&'static str),
    #[error("the server sent more than {limit} {what}")]
    OverLimit { what: &'static str, limit: usize },
    #[error("{n} {what}, at most {n_max} are allowed")]
    TooMany {
        what: &'static str,
        n: usize,
        n_max: usize,
    },
    #[error(
        "what arrived is not what the server announced: {announced} announced, {arrived} arrived"
    )]
    Corrupt { announced: Digest, arrived: Digest },
    #[error("the server announced {announced} bytes, {arrived} arrived")]
    WrongSize { announced: u64, arrived: u64 },
    #[error("the server gave up in the middle: {0}")]
    Aborted(ErrorCode),
    #[error("the local file changed while it was sent; nothing was published")]
    SourceChanged,
    #[error("the upload of {0} went away again and again")]
    UploadLost(RemotePath),
    #[error("{0} changed again and again while it was fetched")]
    Unsettled(RemotePath),
    #[error("{path} did not come within {limit:?}")]
    NotInTime { path: RemotePath, limit: Duration },
    #[error("reading what should be sent failed")]
    Source(#[source] io::Error),
    #[error("writing what arrived failed")]
    Sink(#[source] io::Error),
}

impl ClientError {
    /// What the server says that went wrong, where it said so.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Remote(reply) | Self::NotGreeted { reply, .. } => Some(reply.code),
            Self::Certificate { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What `fsvc explain` has more about, where TLS or the certificate is at fault.
    pub const fn failure(&self) -> Option<FailureCode> {
        match self {
            Self::Tls(error) => error.failure(),
            Self::Refused(refusal) | Self::Closed(refusal) | Self::Certificate { refusal, .. } => {
                refusal.code
            }
            Self::NotGreeted { reply, .. } if matches!(reply.code, ErrorCode::Denied) => {
                Some(FailureCode::NoIdentity)
            }
            Self::Remote(reply) | Self::NotGreeted { reply, .. } => match reply.code {
                ErrorCode::Denied => Some(FailureCode::NotAllowed),
                ErrorCode::CertificateExpired => Some(FailureCode::ClientExpired),
                ErrorCode::CertificateRevoked => Some(FailureCode::Revoked),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it is the client's certificate that is over: new files mend it, and nothing else does.
    pub const fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Certificate { .. })
    }

    /// Whether the same may succeed later, by itself: what a reader that runs for ever waits out. New
    /// certificate files may come, but are not waited for without end.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Remote(reply) | Self::NotGreeted { reply, .. } => matches!(
                reply.code,
                ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::ShuttingDown
            ),
            Self::Connect { .. }
            | Self::Closed(_)
            | Self::Silent { .. }
            | Self::Certificate { .. } => true,
            // Bytes that break the protocol would be sent again.
            Self::Lost { source, .. } => !matches!(
                source,
                ConnectionError::Frame(_)
                    | ConnectionError::OutOfPlace { .. }
                    | ConnectionError::Trailer(_)
            ),
            Self::Aborted(code) => matches!(code, ErrorCode::Busy | ErrorCode::ShuttingDown),
            Self::ServerName(_)
            | Self::Tls(_)
            | Self::Refused(_)
            | Self::Answer(_)
            | Self::OutOfStep { .. }
            | Self::Body(_)
            | Self::Misplaced(_)
            | Self::OverLimit { .. }
            | Self::TooMany { .. }
            | Self::Corrupt { .. }
            | Self::WrongSize { .. }
            | Self::SourceChanged
            | Self::UploadLost(_)
            | Self::NotInTime { .. }
            | Self::Unsettled(_)
            | Self::Source(_)
            | Self::Sink(_) => false,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tls(error) => error.hint(),
            Self::Refused(refusal) | Self::Closed(refusal) | Self::Certificate { refusal, .. } => {
                refusal.hint.clone()
            }
            Self::Connect { server, .. } => Some(format!("is fsvc serve running at {server}?")),
            Self::ServerName(_) => Some("for example --server localhost:7443".to_owned()),
            _ => None,
        }
    }
}
