//! What a client needs to send only what has changed: the chunks of a file.
//!
//! A file is read once for it, on a thread of its own, and few at a time: it costs the server more
//! than a get, and the client nothing.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::connection::{Connection, ConnectionError, PIECE_SIZE};
use crate::delta::{chunk_size, chunks};
use crate::digest::Hasher;
use crate::ops::{OpError, Service};
use crate::protocol::{ChunkList, ErrorCode, Reply, Signature, Trailer};
use crate::socket::Transport;
use crate::store::Content;

/// Signatures that are made at a time.
pub const SIGNATURES_MAX: usize = 2;

/// A content from its beginning to the size that it had.
struct Reading {
    content: Box<dyn Content>,
    offset: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl Session {
    pub(super) async fn signature<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        request: Signature,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let slots = async {
            let turn = Arc::clone(&self.shared.signatures).try_acquire_owned();
            let turn = turn.map_err(|_| OpError::Busy)?;
            Ok((turn, self.transfer_slot().await?))
        };
        let slots = match slots.await {
            Ok(slots) => slots,
            Err(error) => return self.refuse_signature(connection, id, error).await,
        };
        let who = Arc::clone(&self.identity);
        let open = move |service: &Service| service.open_base(&who, &request);
        let (version, content) = match self.shared.service.blocking(open).await {
            Ok(opened) => opened,
            Err(error) => return self.refuse_signature(connection, id, error).await,
        };
        let size = content.stamp().size;
        let list = ChunkList {
            version,
            size,
            chunk_size: chunk_size(size),
        };
        queue_reply(&mut connection, Some(id), Reply::Ok(&list));
        let work = async move |connection: &mut Connection<IO>| {
            let _slots = slots;
            send_chunks(connection, content, &list).await
        };
        let (connection, sent) = connection
            .on_thread(self.standing.stop_sending(), work)
            .await?;
        sent?;
        Ok((connection, Ok(())))
    }

    async fn refuse_signature<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        error: OpError,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let outcome = queue_result::<()>(&mut connection, id, Err(error));
        connection.flush().await?;
        Ok((connection, outcome))
    }
}

async fn send_chunks<IO: Transport>(
    connection: &mut Connection<IO>,
    content: Box<dyn Content>,
    list: &ChunkList,
) -> Result<(), ConnectionError> {
    let mut hasher = Hasher::new();
    let mut piece = Vec::with_capacity(PIECE_SIZE);
    let mut n_read = 0;
    for chunk in chunks(Reading { content, offset: 0 }, list.chunk_size) {
        let Ok((name, bytes)) = chunk else { break };
        n_read += bytes.len() as u64;
        let entry = name.encode();
        if piece.len() + entry.len() > PIECE_SIZE {
            hasher.update(&piece);
            connection.send_data(&piece).await?;
            piece.clear();
        }
        piece.extend_from_slice(&entry);
    }
    // Cut short or grown meanwhile, by another program: chunks of something that never was.
    if n_read != list.size {
        connection.queue_trailer(&Trailer::Abort {
            abort: ErrorCode::Changed,
        });
        return connection.flush().await;
    }
    if !piece.is_empty() {
        hasher.update(&piece);
        connection.send_data(&piece).await?;
    }
    connection.queue_trailer(&Trailer::Whole {
        size: hasher.size(),
        digest: hasher.digest(),
    });
    connection.flush().await
}
