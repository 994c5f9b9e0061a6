//! Answers with a body: a file, or what is attached to a message.
//!
//! A small content is read whole on a blocking thread; a large one is moved by a thread of its own.
//! One that is cut short meanwhile ends in an abort, never as if it were whole.

use std::sync::Arc;

use serde::Serialize;

use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::connection::{Connection, ConnectionError, PIECE_SIZE};
use crate::digest::{Digest, Hasher};
use crate::ops::{OpError, Service};
use crate::protocol::{ErrorCode, Fetch, Get, Reply, Trailer};
use crate::socket::Transport;
use crate::store::Content;

/// What is sent.
struct Outgoing {
    content: Box<dyn Content>,
    size: u64,
    digest: Option<Digest>,
}

impl Session {
    pub(super) async fn get<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        get: Get,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let who = Arc::clone(&self.identity);
        let open = move |service: &Service| {
            let file = service.open_file(&who, &get)?;
            let outgoing = Outgoing {
                content: file.content,
                size: file.info.size,
                digest: file.info.digest,
            };
            Ok((file.info, outgoing))
        };
        self.answer_with_content(connection, id, open).await
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
                size: fetched.size,
                digest: Some(fetched.digest),
            };
            Ok((fetched, outgoing))
        };
        self.answer_with_content(connection, id, open).await
    }

    async fn answer_with_content<IO: Transport, T: Serialize + Send + 'static>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        open: impl FnOnce(&Service) -> Result<(T, Outgoing), OpError> + Send + 'static,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let opened = self.shared.service.blocking(move |service| {
            let (answer, outgoing) = open(service)?;
            let small = (outgoing.size <= PIECE_SIZE as u64).then(|| outgoing.read_small());
            Ok((answer, outgoing, small))
        });
        let (answer, outgoing) = match opened.await {
            Err(error) => return refused(connection, id, error).await,
            Ok((answer, _, Some((content, trailer)))) => {
                queue_reply(&mut connection, Some(id), Reply::Ok(&answer));
                connection.queue_data(&content);
                connection.queue_trailer(&trailer);
                connection.flush().await?;
                return Ok((connection, Ok(())));
            }
            Ok((answer, outgoing, None)) => (answer, outgoing),
        };
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => return refused(connection, id, error).await,
        };
        queue_reply(&mut connection, Some(id), Reply::Ok(&answer));
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            outgoing.send(connection).await
        };
        let (connection, sent) = connection.on_thread(&self.shared.stop, work).await?;
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

impl Outgoing {
    async fn send<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
    ) -> Result<(), ConnectionError> {
        let mut buffer = vec![0; PIECE_SIZE];
        let mut hasher = self.digest.is_none().then(Hasher::new);
        let mut offset = 0;
        while offset < self.size {
            let wanted = usize::try_from(self.size - offset)
                .unwrap_or(PIECE_SIZE)
                .min(PIECE_SIZE);
            let n = match self.content.read_at(&mut buffer[..wanted], offset) {
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
        let digest = self
            .digest
            .unwrap_or_else(|| hasher.unwrap_or_default().digest());
        connection.queue_trailer(&Trailer::Whole {
            size: self.size,
            digest,
        });
        connection.flush().await
    }

    fn read_small(&self) -> (Vec<u8>, Trailer) {
        let mut content = vec![0; usize::try_from(self.size).unwrap_or(PIECE_SIZE)];
        let mut filled = 0;
        while filled < content.len() {
            match self.content.read_at(&mut content[filled..], filled as u64) {
                Ok(n) if n > 0 => filled += n,
                _ => {
                    let abort = ErrorCode::Changed;
                    return (Vec::new(), Trailer::Abort { abort });
                }
            }
        }
        let digest = self.digest.unwrap_or_else(|| Digest::of(&content));
        let size = self.size;
        (content, Trailer::Whole { size, digest })
    }
}
