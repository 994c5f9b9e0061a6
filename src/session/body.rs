//! The two requests with a body.
//!
//! A small body is taken whole and handed to a blocking thread once. A large one is moved by a
//! thread of its own, piece by piece. A refused put is answered at once; what the client still sends
//! is read away, within a limit.

use std::sync::Arc;

use tokio::time::timeout;

use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::connection::{Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::Hasher;
use crate::ops::{Committing, OpError, OpenFile, PutPlan, Service};
use crate::protocol::{ErrorCode, ErrorReply, Get, Put, Reply, Trailer};
use crate::socket::Transport;

/// Bytes of a refused body that are read away: more than any socket buffers hold.
const REFUSED_BODY_SIZE_MAX: u64 = 32 << 20;

/// How far a body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Ended,
    Open,
}

impl Session {
    pub(super) async fn put<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        put: Put,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let plan = match self.shared.service.plan_put(&self.identity, &put) {
            Ok(plan) => plan,
            Err(error) => return self.refuse_put(connection, id, error, Progress::Open).await,
        };
        let is_small = put.size.is_some_and(|size| size <= PIECE_SIZE as u64);
        let received = if is_small {
            self.receive_small(connection, plan).await
        } else {
            self.receive(connection, plan).await
        };
        let (mut connection, progress, committing) = received?;
        let committing = match committing {
            Ok(committing) => committing,
            Err(error) => return self.refuse_put(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, committing.file().await);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    /// A body that fits one piece: no thread waits for the peer.
    async fn receive_small<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        plan: PutPlan,
    ) -> Result<(Connection<IO>, Progress, Result<Committing, OpError>), SessionError> {
        // One byte of room more than a piece shows a body that is longer than announced.
        let mut body = vec![0; PIECE_SIZE + 1];
        let piece = match connection.recv_body(&mut body).await {
            Ok(piece) => piece,
            Err(error) => return Err(self.give_up(connection, error.into()).await),
        };
        let (trailer, progress) = match piece {
            Piece::End(n, trailer) => {
                body.truncate(n);
                (trailer, Progress::Ended)
            }
            // Longer than announced: sealing it against its own size shows the difference.
            Piece::Data(n) => {
                let trailer = Trailer::Whole {
                    size: n as u64,
                    digest: crate::digest::Digest::of(&body),
                };
                (trailer, Progress::Open)
            }
        };
        let stage = move |service: &Service| {
            let mut staging = service.begin(plan)?;
            staging.write(&body)?;
            let ready = staging.seal(&trailer)?;
            Ok(service.commit_put(ready))
        };
        let committing = self.shared.service.blocking(stage).await;
        Ok((connection, progress, committing))
    }

    /// A body of any length, on a thread of its own.
    async fn receive<IO: Transport>(
        &self,
        connection: Connection<IO>,
        plan: PutPlan,
    ) -> Result<(Connection<IO>, Progress, Result<Committing, OpError>), SessionError> {
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => return Ok((connection, Progress::Open, Err(error))),
        };
        let service = Arc::clone(&self.shared.service);
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            let mut staging = match service.begin(plan) {
                Ok(staging) => staging,
                Err(error) => return Ok((Progress::Open, Err(error))),
            };
            let mut buffer = vec![0; PIECE_SIZE];
            loop {
                let (n, trailer) = match connection.recv_body(&mut buffer).await? {
                    Piece::Data(n) => (n, None),
                    Piece::End(n, trailer) => (n, Some(trailer)),
                };
                let progress = if trailer.is_some() {
                    Progress::Ended
                } else {
                    Progress::Open
                };
                if let Err(error) = staging.write(&buffer[..n]) {
                    return Ok((progress, Err(error)));
                }
                if let Some(trailer) = trailer {
                    let ready = staging.seal(&trailer);
                    return Ok((progress, ready.map(|ready| service.commit_put(ready))));
                }
            }
        };
        let (connection, received) = connection.on_thread(&self.shared.stop, work).await?;
        match received {
            Ok((progress, committing)) => Ok((connection, progress, committing)),
            Err(error) => Err(self
                .give_up(connection, SessionError::Connection(error))
                .await),
        }
    }

    /// Answers at once, then brings the stream back into step.
    async fn refuse_put<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        error: OpError,
        progress: Progress,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        queue_reply::<()>(&mut connection, Some(id), Reply::Error(error.reply()));
        connection.flush().await?;
        if progress == Progress::Open {
            connection = self.pass_over_body(connection).await?;
        }
        Ok((connection, Err(error)))
    }

    /// Reads the body of a refused request away, within limits of time and size.
    pub(super) async fn pass_over_body<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
    ) -> Result<Connection<IO>, SessionError> {
        let stall = self.shared.limits.stall_timeout;
        let skipped = timeout(stall, skip_body(&mut connection)).await;
        match skipped.unwrap_or(Err(ConnectionError::TooSlow { stall })) {
            Ok(()) => Ok(connection),
            Err(fault) => Err(self
                .give_up(connection, SessionError::Connection(fault))
                .await),
        }
    }

    pub(super) async fn get<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        get: Get,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let who = Arc::clone(&self.identity);
        let opened = self.shared.service.blocking(move |service| {
            let file = service.open_file(&who, &get)?;
            let small = (file.info.size <= PIECE_SIZE as u64).then(|| read_small(&file));
            Ok((file, small))
        });
        let file = match opened.await {
            Err(error) => {
                let outcome = queue_result::<()>(&mut connection, id, Err(error));
                connection.flush().await?;
                return Ok((connection, outcome));
            }
            Ok((file, Some((content, trailer)))) => {
                queue_reply(&mut connection, Some(id), Reply::Ok(&file.info));
                connection.queue_data(&content);
                connection.queue_trailer(&trailer);
                connection.flush().await?;
                return Ok((connection, Ok(())));
            }
            Ok((file, None)) => file,
        };
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => {
                let outcome = queue_result::<()>(&mut connection, id, Err(error));
                connection.flush().await?;
                return Ok((connection, outcome));
            }
        };
        queue_reply(&mut connection, Some(id), Reply::Ok(&file.info));
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            send(connection, &file).await
        };
        let (connection, sent) = connection.on_thread(&self.shared.stop, work).await?;
        sent?;
        Ok((connection, Ok(())))
    }
}

/// Sends a file's content and its end. A file that another program shortens meanwhile ends in an
/// abort, never as if it were whole.
async fn send<IO: Transport>(
    connection: &mut Connection<IO>,
    file: &OpenFile,
) -> Result<(), ConnectionError> {
    let mut buffer = vec![0; PIECE_SIZE];
    let mut hasher = file.info.digest.is_none().then(Hasher::new);
    let mut offset = 0;
    while offset < file.info.size {
        let wanted = usize::try_from(file.info.size - offset)
            .unwrap_or(PIECE_SIZE)
            .min(PIECE_SIZE);
        let n = match file.content.read_at(&mut buffer[..wanted], offset) {
            Ok(n) if n > 0 => n,
            _ => {
                connection.queue_trailer(&Trailer::Abort {
                    abort: ErrorCode::Changed,
                });
                return connection.flush().await;
            }
        };
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..n]);
        }
        connection.send_data(&buffer[..n]).await?;
        offset += n as u64;
    }
    let digest = file
        .info
        .digest
        .unwrap_or_else(|| hasher.unwrap_or_default().digest());
    connection.queue_trailer(&Trailer::Whole {
        size: file.info.size,
        digest,
    });
    connection.flush().await
}

fn read_small(file: &OpenFile) -> (Vec<u8>, Trailer) {
    let mut content = vec![0; usize::try_from(file.info.size).unwrap_or(PIECE_SIZE)];
    let mut filled = 0;
    while filled < content.len() {
        match file.content.read_at(&mut content[filled..], filled as u64) {
            Ok(n) if n > 0 => filled += n,
            _ => {
                return (
                    Vec::new(),
                    Trailer::Abort {
                        abort: ErrorCode::Changed,
                    },
                );
            }
        }
    }
    let digest = file
        .info
        .digest
        .unwrap_or_else(|| crate::digest::Digest::of(&content));
    (
        content,
        Trailer::Whole {
            size: file.info.size,
            digest,
        },
    )
}

/// Reads a refused body away, up to its end.
async fn skip_body<IO: Transport>(connection: &mut Connection<IO>) -> Result<(), ConnectionError> {
    let mut buffer = vec![0; PIECE_SIZE];
    let mut skipped = 0;
    loop {
        match connection.recv_body(&mut buffer).await? {
            Piece::End(..) => return Ok(()),
            Piece::Data(n) => skipped += n as u64,
        }
        if skipped > REFUSED_BODY_SIZE_MAX {
            return Err(ConnectionError::RefusedBody);
        }
    }
}

/// What a peer is told about a fault of the connection, where it may still listen.
pub(super) fn last_reply(fault: &ConnectionError) -> Option<ErrorReply> {
    let code = match fault {
        ConnectionError::Frame(_)
        | ConnectionError::OutOfPlace { .. }
        | ConnectionError::Trailer(_) => ErrorCode::BadFrame,
        ConnectionError::TooSlow { .. } => ErrorCode::Busy,
        ConnectionError::RefusedBody => ErrorCode::BadRequest,
        ConnectionError::Truncated | ConnectionError::ThreadLost | ConnectionError::Io(_) => {
            return None;
        }
    };
    let mut message = fault.to_string();
    let mut source = std::error::Error::source(fault);
    while let Some(inner) = source {
        message = format!("{message}: {inner}");
        source = inner.source();
    }
    Some(ErrorReply { code, message })
}
