//! Requests with a body.
//!
//! A small body is taken whole and handed to a blocking thread once. A large one is moved by a
//! thread of its own, piece by piece. A refused put is answered at once; what the client still sends
//! is read away, within a limit.

use std::sync::Arc;

use tokio::time::timeout;

use super::coded::Arriving;
use super::standing::Watch;
use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::connection::{Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::Digest;
use crate::escape::with_causes;
use crate::ops::{
    Allowance, Committing, OpError, OpenFile, Service, StagedContent, Still, check_trailer,
};
use crate::protocol::{Encoding, ErrorCode, ErrorReply, Put, Reply, Trailer};
use crate::socket::Transport;

/// Bytes of a refused body that are read away: more than any socket buffers hold.
const REFUSED_BODY_SIZE_MAX: u64 = 32 << 20;

/// A connection, how far the body was read, and what became of it.
pub(super) type Received<IO, T> = (Connection<IO>, Progress, Result<T, OpError>);

/// What a body is staged as.
pub(super) struct Intake {
    allowance: Allowance,
    /// What it goes behind.
    pub(super) behind: Option<OpenFile>,
    still: Still,
}

impl Intake {
    pub(super) const fn new(allowance: Allowance, still: Still) -> Self {
        Self {
            allowance,
            behind: None,
            still,
        }
    }
}

/// How far a body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
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
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let allowance = plan.allowance();
        let into = Intake::new(allowance, plan.still());
        let commit = move |service: &Service, staged| {
            Ok::<Committing, _>(service.commit_put(service.renew_put(plan)?, staged))
        };
        let received = self.receive(connection, put.encoding, into, commit).await?;
        let (mut connection, progress, committing) = received;
        let committing = match committing {
            Ok(committing) => committing,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, committing.file().await);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    /// Stages a body, behind what a file has if there is one, and hands it on, still on the thread that
    /// has it.
    pub(super) async fn receive<IO: Transport, T: Send + 'static>(
        &self,
        connection: Connection<IO>,
        encoding: Option<Encoding>,
        into: Intake,
        hand_on: impl FnOnce(&Service, StagedContent) -> Result<T, OpError> + Send + 'static,
    ) -> Result<Received<IO, T>, SessionError> {
        let is_small = into
            .allowance
            .size()
            .is_some_and(|size| size <= PIECE_SIZE as u64);
        // A compressed body needs the memory and the time of a large one.
        if !is_small || encoding.is_some() {
            return self
                .receive_on_thread(connection, encoding, into, hand_on)
                .await;
        }
        let received = self.receive_small(connection).await?;
        let (connection, progress, (body, trailer)) = received;
        let stage = move |service: &Service| {
            let mut staging = service.begin_behind(into.allowance, into.behind)?;
            staging.write(&body)?;
            hand_on(service, staging.seal(&trailer)?)
        };
        let handed_on = self.shared.service.blocking(stage).await;
        Ok((connection, progress, handed_on))
    }

    /// A body that fits one piece: no thread waits for the peer.
    async fn receive_small<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
    ) -> Result<(Connection<IO>, Progress, (Vec<u8>, Trailer)), SessionError> {
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
                    digest: Digest::of(&body),
                };
                (trailer, Progress::Open)
            }
        };
        Ok((connection, progress, (body, trailer)))
    }

    /// A body of any length, on a thread of its own.
    async fn receive_on_thread<IO: Transport, T: Send + 'static>(
        &self,
        connection: Connection<IO>,
        encoding: Option<Encoding>,
        into: Intake,
        hand_on: impl FnOnce(&Service, StagedContent) -> Result<T, OpError> + Send + 'static,
    ) -> Result<Received<IO, T>, SessionError> {
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => return Ok((connection, Progress::Open, Err(error))),
        };
        let service = Arc::clone(&self.shared.service);
        let Intake {
            allowance,
            behind,
            still,
        } = into;
        let mut watch = Watch::new(&self.standing, &service, still);
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            let begun = Arriving::new(encoding, allowance.size()).and_then(|body| {
                let staging = service.begin_behind(allowance, behind)?;
                Ok((body, staging))
            });
            let (mut body, mut staging) = match begun {
                Ok(begun) => begun,
                Err(error) => return Ok((Progress::Open, Err(error))),
            };
            loop {
                let next = body.next(connection).await?;
                let taken = next.and_then(|(piece, trailer)| {
                    watch.look()?;
                    staging.write(piece)?;
                    Ok(trailer)
                });
                match taken {
                    Ok(None) => {}
                    Ok(Some(trailer)) => {
                        let staged = staging.seal(&trailer);
                        let handed_on = staged.and_then(|staged| hand_on(&service, staged));
                        return Ok((Progress::Ended, handed_on));
                    }
                    Err(error) => return Ok((body.progress(), Err(error))),
                }
            }
        };
        let (connection, received) = connection
            .on_thread(self.standing.stop_taking(), work)
            .await?;
        match received {
            Ok((progress, handed_on)) => Ok((connection, progress, handed_on)),
            Err(error) => Err(self
                .give_up(connection, SessionError::Connection(error))
                .await),
        }
    }

    /// A body that is kept in memory, at most `size_max` bytes of it.
    pub(super) async fn receive_whole<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        announced: Option<u64>,
        size_max: usize,
    ) -> Result<Received<IO, Vec<u8>>, SessionError> {
        let too_large = |size: u64| OpError::TooLarge {
            what: "the body",
            size,
            size_max: size_max as u64,
        };
        if let Some(size) = announced.filter(|size| *size > size_max as u64) {
            return Ok((connection, Progress::Open, Err(too_large(size))));
        }
        let mut body = Vec::new();
        let room = announced.and_then(|size| usize::try_from(size).ok());
        let mut piece = vec![0; room.unwrap_or(PIECE_SIZE).min(PIECE_SIZE) + 1];
        loop {
            let (n, trailer) = match connection.recv_body(&mut piece).await {
                Ok(Piece::Data(n)) => (n, None),
                Ok(Piece::End(n, trailer)) => (n, Some(trailer)),
                Err(error) => return Err(self.give_up(connection, error.into()).await),
            };
            body.extend_from_slice(&piece[..n]);
            if body.len() > size_max {
                let error = too_large(body.len() as u64);
                let progress = if trailer.is_some() {
                    Progress::Ended
                } else {
                    Progress::Open
                };
                return Ok((connection, progress, Err(error)));
            }
            if let Some(trailer) = trailer {
                let (size, digest) = (body.len() as u64, Digest::of(&body));
                let checked = check_trailer(&trailer, announced, size, digest);
                return Ok((connection, Progress::Ended, checked.map(|()| body)));
            }
        }
    }

    /// Answers at once, then brings the stream back into step.
    pub(super) async fn refuse<IO: Transport>(
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
        ConnectionError::RefusedBody | ConnectionError::Body(_) => ErrorCode::BadRequest,
        ConnectionError::Truncated | ConnectionError::ThreadLost | ConnectionError::Io(_) => {
            return None;
        }
    };
    let message = with_causes(fault);
    Some(ErrorReply { code, message })
}
