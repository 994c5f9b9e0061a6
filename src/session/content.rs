//! Answers with a body: a file, or what is attached to a message.
//!
//! A small content is read whole on a blocking thread; a large one is moved by a thread of its own.
//! One that is cut short meanwhile ends in an abort, never as if it were whole.

use std::sync::Arc;

use serde::Serialize;

use super::standing::Watch;
use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::compression::{CONTENT_SIZE_MIN, pays};
use crate::connection::{BodyWriter, Connection, ConnectionError, PIECE_SIZE};
use crate::digest::{Digest, Hasher};
use crate::ops::{OpError, Service, Still};
use crate::protocol::{Encoding, ErrorCode, Fetch, Get, Got, Reply, Trailer};
use crate::socket::Transport;
use crate::store::Content;

/// What is sent: `size` bytes from `offset` on.
struct Outgoing {
    content: Box<dyn Content>,
    offset: u64,
    size: u64,
    trail: Trail,
    /// What it may be compressed as.
    accepted: Option<Encoding>,
}

/// How the body ends.
#[derive(Debug, Clone, Copy)]
enum Trail {
    /// With the digest, where it is known already.
    Whole(Option<Digest>),
    /// Only the whole has a digest.
    Range,
}

impl Trail {
    fn of(self, size: u64, hashed: impl FnOnce() -> Digest) -> Trailer {
        match self {
            Self::Range => Trailer::Range { size },
            Self::Whole(digest) => Trailer::Whole {
                size,
                digest: digest.unwrap_or_else(hashed),
            },
        }
    }
}

impl Session {
    pub(super) async fn get<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        get: Get,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let who = Arc::clone(&self.identity);
        let still = Still::reading(Arc::clone(&who), get.path.clone());
        let open = move |service: &Service| {
            let file = service.open_file(&who, &get)?;
            let (offset, size) = range(&get, file.info.size)?;
            let trail = if size == file.info.size {
                Trail::Whole(file.info.digest)
            } else {
                Trail::Range
            };
            let outgoing = Outgoing {
                content: file.content,
                offset,
                size,
                trail,
                accepted: Encoding::accepted(&get.accept),
            };
            Ok((file.info, outgoing))
        };
        let answer = |file, encoding| Got { file, encoding };
        self.answer_with_content(connection, id, (open, still), answer)
            .await
    }

    pub(super) async fn fetch<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        fetch: Fetch,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let who = Arc::clone(&self.identity);
        let open = move |service: &Service| {
            let (fetched, content) = service.fetch(&who, fetch)?;
            let outgoing = Outgoing {
                content,
                offset: 0,
                size: fetched.size,
                trail: Trail::Whole(Some(fetched.digest)),
                accepted: None,
            };
            Ok((fetched, outgoing))
        };
        let answer = |fetched, _| fetched;
        self.answer_with_content(connection, id, (open, Still::always()), answer)
            .await
    }

    /// `answer` makes the answer of what was opened, and of how the body behind it is compressed.
    async fn answer_with_content<IO: Transport, T: Send + 'static, A: Serialize>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        (open, still): (
            impl FnOnce(&Service) -> Result<(T, Outgoing), OpError> + Send + 'static,
            Still,
        ),
        answer: impl FnOnce(T, Option<Encoding>) -> A + Send + 'static,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let opened = self.shared.service.blocking(move |service| {
            let (opened, outgoing) = open(service)?;
            let small = outgoing.is_small().then(|| outgoing.read_small());
            Ok((opened, outgoing, small))
        });
        let (opened, outgoing) = match opened.await {
            Err(error) => return refused(connection, id, error).await,
            Ok((opened, _, Some((content, trailer)))) => {
                queue_reply(&mut connection, Some(id), Reply::Ok(answer(opened, None)));
                connection.queue_data(&content);
                connection.queue_trailer(&trailer);
                connection.flush().await?;
                return Ok((connection, Ok(())));
            }
            Ok((opened, outgoing, None)) => (opened, outgoing),
        };
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => return refused(connection, id, error).await,
        };
        let watch = Watch::new(&self.standing, &self.shared.service, still);
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            let encoding = outgoing.choose();
            queue_reply(connection, Some(id), Reply::Ok(answer(opened, encoding)));
            outgoing.send(connection, encoding, watch).await
        };
        let (connection, sent) = connection
            .on_thread(self.standing.stop_sending(), work)
            .await?;
        sent?;
        Ok((connection, Ok(())))
    }
}

async fn refused<IO: Transport>(
    mut connection: Connection<IO>,
    id: u64,
    error: OpError,
) -> Result<(Connection<IO>, Outcome), SessionError> {
    let outcome = queue_result::<()>(&mut connection, id, Err(error));
    connection.flush().await?;
    Ok((connection, outcome))
}

/// Where the body of a `get` begins, and how many bytes it has.
fn range(get: &Get, size: u64) -> Result<(u64, u64), OpError> {
    let left = size
        .checked_sub(get.offset)
        .ok_or_else(|| OpError::BehindEnd {
            path: get.path.clone(),
            offset: get.offset,
            size,
        })?;
    Ok((get.offset, get.length.unwrap_or(left).min(left)))
}

impl Outgoing {
    async fn send<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
        encoding: Option<Encoding>,
        mut watch: Watch,
    ) -> Result<(), ConnectionError> {
        let mut body = BodyWriter::new(encoding)?;
        let mut buffer = vec![0; PIECE_SIZE];
        let mut hasher = matches!(self.trail, Trail::Whole(None)).then(Hasher::new);
        let mut sent = 0;
        while sent < self.size {
            if let Some(abort) = watch.abort() {
                return body.end(connection, &Trailer::Abort { abort }).await;
            }
            let wanted = usize::try_from(self.size - sent)
                .unwrap_or(PIECE_SIZE)
                .min(PIECE_SIZE);
            let buffer = &mut buffer[..wanted];
            let n = match self.content.read_at(buffer, self.offset + sent) {
                Ok(n) if n > 0 => n,
                _ => {
                    let abort = ErrorCode::Changed;
                    return body.end(connection, &Trailer::Abort { abort }).await;
                }
            };
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer[..n]);
            }
            body.send(connection, &buffer[..n]).await?;
            sent += n as u64;
        }
        let digest_of_sent = || hasher.unwrap_or_default().digest();
        let trailer = self.trail.of(self.size, digest_of_sent);
        body.end(connection, &trailer).await
    }

    /// Whether it needs no thread of its own: compressing does.
    const fn is_small(&self) -> bool {
        let may_shrink = self.accepted.is_some() && self.size >= CONTENT_SIZE_MIN;
        self.size <= PIECE_SIZE as u64 && !may_shrink
    }

    /// How it is sent. Blocks.
    fn choose(&self) -> Option<Encoding> {
        let read = |sample: &mut [u8], at| self.content.read_at(sample, self.offset + at);
        self.accepted.filter(|_| pays(self.size, read))
    }

    fn read_small(&self) -> (Vec<u8>, Trailer) {
        let mut content = vec![0; usize::try_from(self.size).unwrap_or(PIECE_SIZE)];
        let mut filled = 0;
        while filled < content.len() {
            let at = self.offset + filled as u64;
            match self.content.read_at(&mut content[filled..], at) {
                Ok(n) if n > 0 => filled += n,
                _ => {
                    let abort = ErrorCode::Changed;
                    return (Vec::new(), Trailer::Abort { abort });
                }
            }
        }
        let trailer = self.trail.of(self.size, || Digest::of(&content));
        (content, trailer)
    }
}
