//! A connection that has become a stream of events.
//!
//! The reader is given what there is, as fast as it takes it, and then what comes. A slow one is
//! ended by the stall limit of its own connection; nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{Session, SessionError, queue_reply, queue_result};
use crate::connection::{Connection, PIECE_SIZE};
use crate::log::cursors::Reading;
use crate::ops::{Item, OpError, Reader, Service, Taken};
use crate::protocol::{ErrorCode, ErrorReply, Heartbeat, Notice, Reply, Start};
use crate::socket::Transport;

/// Silence after which a reader hears that there is nothing.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(15);
/// How often rights and certificate are looked at again while nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// Why a stream ends.
enum Ended {
    Closed,
    Told(ErrorReply),
}

/// What a wait came to.
enum Woken {
    Look,
    Ended(Ended),
}

impl Session {
    /// Makes the connection a stream; gives it back if that is refused.
    pub(super) async fn stream<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        reading: Reading,
        start: Start,
    ) -> Result<Option<Connection<IO>>, SessionError> {
        let (service, who) = (&self.shared.service, Arc::clone(&self.identity));
        let shared = Arc::clone(service);
        let reader = service
            .blocking(move |_: &Service| shared.reader(&who, reading, &start))
            .await;
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                let reply = error.reply();
                info!(code = %reply.code, message = reply.message, "refused a stream");
                let _ = queue_result::<()>(&mut connection, id, Err(error));
                connection.flush().await?;
                return Ok(Some(connection));
            }
        };
        queue_reply(&mut connection, Some(id), Reply::Ok(reader.began()));
        connection.flush().await?;
        info!(after = reader.began().after, "a stream began");
        match self.pump(&mut connection, reader).await {
            Ok(Ended::Closed) => {
                connection.close().await;
                Ok(None)
            }
            Ok(Ended::Told(reply)) => {
                info!(code = %reply.code, message = reply.message, "ended a stream");
                super::last_words(connection, reply.code, reply.message).await;
                Ok(None)
            }
            Err(error) => Err(self.give_up(connection, error).await),
        }
    }

    async fn pump<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
        mut reader: Reader,
    ) -> Result<Ended, SessionError> {
        let (mut spoke_at, mut told_caught_up) = (Instant::now(), false);
        loop {
            if let Some(reply) = self.stream_must_end() {
                return Ok(Ended::Told(reply));
            }
            let items;
            (reader, items) = match self.take(reader).await {
                Ok(taken) => taken,
                Err(error) => return Ok(Ended::Told(error.reply())),
            };
            if !items.is_empty() {
                for item in &items {
                    connection.queue_frames(item.frames());
                    if connection.n_queued() >= PIECE_SIZE {
                        connection.flush().await?;
                    }
                }
                connection.flush().await?;
                spoke_at = Instant::now();
                continue;
            }
            // A reader that has all that it may have is not caught up, and must not hear nothing.
            let is_news = !told_caught_up && reader.is_caught_up();
            if is_news || spoke_at.elapsed() >= HEARTBEAT_PERIOD {
                let sequence = reader.position().0;
                let time = Timestamp::now();
                connection.queue_message(&Notice::Heartbeat(Heartbeat { sequence, time }));
                connection.flush().await?;
                (spoke_at, told_caught_up) = (Instant::now(), reader.is_caught_up());
            }
            match self.wait(connection, &mut reader).await? {
                Woken::Look => {}
                Woken::Ended(ended) => return Ok(ended),
            }
        }
    }

    /// What there is for the reader.
    async fn take(&self, mut reader: Reader) -> Result<(Reader, Vec<Item>), OpError> {
        match reader.take()? {
            Taken::Items(items) => Ok((reader, items)),
            Taken::Behind => {
                let look = move |_: &Service| {
                    let items = reader.take_behind()?;
                    Ok((reader, items))
                };
                self.shared.service.blocking(look).await
            }
        }
    }

    async fn wait<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
        reader: &mut Reader,
    ) -> Result<Woken, SessionError> {
        Ok(tokio::select! {
            began = connection.wait_frame() => Woken::Ended(match began {
                Ok(true) => Ended::Told(ErrorReply {
                    code: ErrorCode::BadRequest,
                    message: "a stream takes no requests: use another connection".to_owned(),
                }),
                // However a reader goes away, it wants no more.
                Ok(false) | Err(_) => Ended::Closed,
            }),
            () = self.shared.draining.cancelled() => Woken::Look,
            () = self.standing.over() => Woken::Look,
            () = reader.wait() => Woken::Look,
            () = sleep(TICK) => Woken::Look,
        })
    }

    /// Why the stream must end now, whatever there is.
    fn stream_must_end(&self) -> Option<ErrorReply> {
        if self.shared.draining.is_cancelled() || self.shared.stop.is_cancelled() {
            return Some(ErrorReply {
                code: ErrorCode::ShuttingDown,
                message: "the server is going away".to_owned(),
            });
        }
        self.must_end()
    }
}
