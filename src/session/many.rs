//! Many small files in one request.
//!
//! A body is moved by one thread, in either direction; no file is handed over by itself.

use std::sync::Arc;

use super::body::Progress;
use super::coded::Arriving;
use super::standing::Watch;
use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::compression::pays_in_memory;
use crate::connection::{BodyWriter, Connection, ConnectionError, PIECE_SIZE};
use crate::digest::Hasher;
use crate::identity::Identity;
use crate::ops::{ManyPuts, OpError, Puts, Service, Still};
use crate::path::RemotePath;
use crate::protocol::{Encoding, GetMany, GotMany, PutMany, Reply, Trailer};
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
            receive(connection, puts, request.encoding).await
        };
        let (connection, received) = connection
            .on_thread(self.standing.stop_taking(), work)
            .await?;
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
        let service = Arc::clone(&self.shared.service);
        let who = Arc::clone(&self.identity);
        // Each file is asked about when its turn comes.
        let watch = Watch::new(&self.standing, &service, Still::always());
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            let files = Files {
                service: &service,
                who: &who,
                rest: request.paths.iter(),
            };
            let accepted = Encoding::accepted(&request.accept);
            send(connection, id, (files, accepted), watch).await
        };
        let (connection, sent) = connection
            .on_thread(self.standing.stop_sending(), work)
            .await?;
        sent?;
        Ok((connection, Ok(())))
    }
}

/// Takes a body of many files, and says how far it was read.
async fn receive<IO: Transport>(
    connection: &mut Connection<IO>,
    mut puts: Puts,
    encoding: Option<Encoding>,
) -> Result<(Progress, Result<ManyPuts, OpError>), ConnectionError> {
    // What all the files may have is the limit of the body.
    let mut body = match Arriving::new(encoding, None) {
        Ok(body) => body,
        Err(error) => return Ok((Progress::Open, Err(error))),
    };
    loop {
        let next = body.next(connection).await?;
        let taken = next.and_then(|(piece, trailer)| {
            puts.take(piece)?;
            Ok(trailer)
        });
        match taken {
            Ok(None) => {}
            Ok(Some(trailer)) => return Ok((Progress::Ended, puts.finish(&trailer))),
            Err(error) => return Ok((body.progress(), Err(error))),
        }
    }
}

/// Files that are asked for.
struct Files<'a> {
    service: &'a Service,
    who: &'a Identity,
    rest: std::slice::Iter<'a, RemotePath>,
}

impl Files<'_> {
    /// Packs the next of them; nothing when all are.
    fn pack(&mut self, packed: &mut Vec<u8>) {
        packed.clear();
        while packed.len() < READ_AHEAD_SIZE
            && let Some(path) = self.rest.next()
        {
            self.service.pack_file(self.who, path, packed);
        }
    }
}

async fn send<IO: Transport>(
    connection: &mut Connection<IO>,
    id: u64,
    (mut files, accepted): (Files<'_>, Option<Encoding>),
    mut watch: Watch,
) -> Result<(), ConnectionError> {
    let mut hasher = Hasher::new();
    let mut packed = Vec::with_capacity(READ_AHEAD_SIZE);
    files.pack(&mut packed);
    // The first files stand for all of them.
    let encoding = accepted.filter(|_| pays_in_memory(&packed));
    queue_reply(connection, Some(id), Reply::Ok(GotMany { encoding }));
    let mut body = BodyWriter::new(encoding)?;
    while !packed.is_empty() {
        hasher.update(&packed);
        if let Some(abort) = watch.abort() {
            return body.end(connection, &Trailer::Abort { abort }).await;
        }
        for piece in packed.chunks(PIECE_SIZE) {
            body.send(connection, piece).await?;
        }
        files.pack(&mut packed);
    }
    let trailer = Trailer::Whole {
        size: hasher.size(),
        digest: hasher.digest(),
    };
    body.end(connection, &trailer).await
}
