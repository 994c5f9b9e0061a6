//! Many small files in one request.
//!
//! A body is moved by one thread, in either direction; no file is handed over by itself.

use std::sync::Arc;

use super::body::Progress;
use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::connection::{Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::Hasher;
use crate::identity::Identity;
use crate::ops::{ManyPuts, OpError, Puts, Service};
use crate::path::RemotePath;
use crate::protocol::{GetMany, PutMany, Reply, Trailer};
use crate::socket::Transport;

/// Bytes of files that are read before they are sent, and those of the file that goes over it.
const READ_AHEAD_SIZE: usize = 256 << 10;

impl Session {
    pub(super) async fn put_many<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        request: PutMany,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let puts = match self.shared.service.plan_puts(&self.identity, &request) {
            Ok(puts) => puts,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            receive(connection, puts).await
        };
        let (connection, received) = connection.on_thread(&self.shared.stop, work).await?;
        let (mut connection, progress, puts) = match received {
            Ok((progress, puts)) => (connection, progress, puts),
            Err(error) => {
                let error = SessionError::Connection(error);
                return Err(self.give_up(connection, error).await);
            }
        };
        let done = match puts {
            Ok(puts) => puts.done().await,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, done);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    pub(super) async fn get_many<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        request: GetMany,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let planned = self.shared.service.plan_gets(&request);
        let slot = match planned {
            Ok(()) => self.transfer_slot().await,
            Err(error) => Err(error),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                let outcome = queue_result::<()>(&mut connection, id, Err(error));
                connection.flush().await?;
                return Ok((connection, outcome));
            }
        };
        queue_reply(&mut connection, Some(id), Reply::Ok(serde_json::Map::new()));
        let service = Arc::clone(&self.shared.service);
        let who = Arc::clone(&self.identity);
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            send(connection, &service, &who, &request.paths).await
        };
        let (connection, sent) = connection.on_thread(&self.shared.stop, work).await?;
        sent?;
        Ok((connection, Ok(())))
    }
}

/// Takes a body of many files, and says how far it was read.
async fn receive<IO: Transport>(
    connection: &mut Connection<IO>,
    mut puts: Puts,
) -> Result<(Progress, Result<ManyPuts, OpError>), ConnectionError> {
    let mut buffer = vec![0; PIECE_SIZE];
    loop {
        let (n, trailer) = match connection.recv_body(&mut buffer).await? {
            Piece::Data(n) => (n, None),
            Piece::End(n, trailer) => (n, Some(trailer)),
        };
        let taken = puts.take(&buffer[..n]);
        match (taken, trailer) {
            (Ok(()), None) => {}
            (Err(error), None) => return Ok((Progress::Open, Err(error))),
            (Err(error), Some(_)) => return Ok((Progress::Ended, Err(error))),
            (Ok(()), Some(trailer)) => return Ok((Progress::Ended, puts.finish(&trailer))),
        }
    }
}

async fn send<IO: Transport>(
    connection: &mut Connection<IO>,
    service: &Service,
    who: &Identity,
    paths: &[RemotePath],
) -> Result<(), ConnectionError> {
    let mut hasher = Hasher::new();
    let mut packed = Vec::with_capacity(READ_AHEAD_SIZE);
    let mut rest = paths.iter().peekable();
    while rest.peek().is_some() {
        packed.clear();
        while packed.len() < READ_AHEAD_SIZE
            && let Some(path) = rest.next()
        {
            service.pack_file(who, path, &mut packed);
        }
        hasher.update(&packed);
        for piece in packed.chunks(PIECE_SIZE) {
            connection.send_data(piece).await?;
        }
    }
    connection.queue_trailer(&Trailer::Whole {
        size: hasher.size(),
        digest: hasher.digest(),
    });
    connection.flush().await
}
