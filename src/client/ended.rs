//! Errors that are about this client's certificate, wherever a server says them.
//!
//! They are explained by the client's own files; what is said of anything else stays as it is.

use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::time::timeout;

use super::{Client, ClientError, Link};
use crate::connection::ConnectionError;
use crate::protocol::{ErrorCode, ErrorReply, Kind, Reply, Response};

/// How long the rest of a message is waited for that a server says in the middle of a body.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

impl Client {
    /// What a server's error means: one that is about this client's certificate is explained by its files.
    pub(super) fn told(&self, reply: ErrorReply) -> ClientError {
        if !is_of_certificate(reply.code) {
            return ClientError::Remote(reply);
        }
        self.shared.credentials.ended(reply.code, &reply.message)
    }

    /// The same of an error that came as one of a body or a stream.
    pub(super) fn explained(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Remote(reply) => self.told(reply),
            ClientError::NotGreeted { reply, .. } if is_of_certificate(reply.code) => {
                self.told(reply)
            }
            ClientError::Aborted(code) if is_of_certificate(code) => self.told(ErrorReply {
                code,
                message: "it gave up in the middle".to_owned(),
            }),
            error => error,
        }
    }

    /// Why a body did not come to its end: the server may have said it in the middle.
    pub(super) async fn broken(&self, link: &mut Link, error: ConnectionError) -> ClientError {
        let is_said = matches!(
            error,
            ConnectionError::OutOfPlace {
                found: Kind::Message,
                ..
            }
        );
        if !is_said {
            return self.lost(error);
        }
        let said = timeout(LAST_WORDS_MAX, link.connection.recv_message()).await;
        let Ok(Ok(Some(message))) = said else {
            return self.lost(error);
        };
        match Response::<IgnoredAny>::decode(&message) {
            Ok(Response {
                id: None,
                reply: Reply::Error(reply),
            }) => self.told(reply),
            _ => self.lost(error),
        }
    }
}

/// Whether a code says that this client's certificate is over.
pub(super) const fn is_of_certificate(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CertificateExpired | ErrorCode::CertificateRevoked
    )
}
