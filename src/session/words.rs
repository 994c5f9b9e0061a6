//! What a session says: answers, and last words that are not lost to a reset.

use std::time::Duration;

use serde::Serialize;
use tracing::error;

use super::Outcome;
use crate::connection::Connection;
use crate::ops::OpError;
use crate::protocol::{ErrorCode, ErrorReply, MESSAGE_SIZE_MAX, Reply, Response};
use crate::socket::Transport;

/// Bytes that are read away before a close, so that the last words are not lost to a reset.
const DRAIN_SIZE_MAX: usize = 1 << 20;
/// How long bytes are read away before a close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Says why there will be no session, or no more of it, and closes so that it is heard.
pub async fn last_words<IO: Transport>(
    mut connection: Connection<IO>,
    code: ErrorCode,
    message: String,
) {
    queue_last_words(&mut connection, code, message);
    if connection.flush().await.is_ok() {
        connection
            .close_after_drain(DRAIN_SIZE_MAX, DRAIN_TIMEOUT)
            .await;
    }
}

pub(super) fn queue_last_words<IO: Transport>(
    connection: &mut Connection<IO>,
    code: ErrorCode,
    message: String,
) {
    queue_reply::<()>(connection, None, Reply::Error(ErrorReply { code, message }));
}

pub(super) fn queue_reply<T: Serialize>(
    connection: &mut Connection<impl Transport>,
    id: Option<u64>,
    reply: Reply<T>,
) {
    let content =
        serde_json::to_vec(&Response { id, reply }).expect("the wire types are plain JSON");
    if content.len() <= MESSAGE_SIZE_MAX {
        return connection.queue_encoded(&content);
    }
    error!(size = content.len(), "an answer does not fit a message");
    connection.queue_message(&Response {
        id,
        reply: Reply::<()>::Error(ErrorReply {
            code: ErrorCode::Internal,
            message: "the answer is too large; the server's log says more".to_owned(),
        }),
    });
}

pub(super) fn queue_result<T: Serialize>(
    connection: &mut Connection<impl Transport>,
    id: u64,
    result: Result<T, OpError>,
) -> Outcome {
    match result {
        Ok(value) => {
            queue_reply(connection, Some(id), Reply::Ok(value));
            Ok(())
        }
        Err(error) => {
            queue_reply::<()>(connection, Some(id), Reply::Error(error.reply()));
            Err(error)
        }
    }
}

/// The answer to what has no result: an empty object.
pub(super) fn queue_done(
    connection: &mut Connection<impl Transport>,
    id: u64,
    result: Result<(), OpError>,
) -> Outcome {
    queue_result(connection, id, result.map(|()| serde_json::Map::new()))
}
