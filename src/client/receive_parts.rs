//! A run of parts on its way in: received, written and hashed by one thread.
//!
//! Each part counts as soon as it is whole, however the run ends.

use std::io;
use std::os::unix::fs::FileExt;

use super::get_parts::Job;
use super::parts::Run;
use crate::connection::{BodyReader, Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::{Digest, PartHasher};
use crate::protocol::{ErrorCode, Trailer};
use crate::socket::Transport;

/// Why a range was not received to its end.
pub(super) enum Stopped {
    Connection(ConnectionError),
    Sink(io::Error),
    Aborted(ErrorCode),
    WrongSize(u64),
}

impl Job {
    pub(super) async fn receive<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
        mut body: BodyReader,
        run: Run,
    ) -> Result<Option<Digest>, Stopped> {
        let mut offset = run.offset;
        let mut hasher = PartHasher::at(offset);
        let mut buffer = vec![0; PIECE_SIZE];
        loop {
            let piece = body.recv(connection, &mut buffer).await;
            let (n, trailer) = match piece.map_err(Stopped::Connection)? {
                Piece::Data(n) => (n, None),
                Piece::End(n, trailer) => (n, Some(trailer)),
            };
            let arrived = offset - run.offset + n as u64;
            if arrived > run.size {
                return Err(Stopped::WrongSize(arrived));
            }
            self.work.count(n);
            let mut bytes = &buffer[..n];
            let written = self.file.write_all_at(bytes, offset);
            written.map_err(Stopped::Sink)?;
            while !bytes.is_empty() {
                let room = self.work.part_size() - offset % self.work.part_size();
                let n = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
                hasher.update(&bytes[..n]);
                offset += n as u64;
                bytes = &bytes[n..];
                if let Some(number) = self.work.ending_at(offset) {
                    self.finish(number, &hasher);
                    if offset < self.work.size() {
                        hasher = PartHasher::at(offset);
                    }
                }
            }
            if let Some(observer) = &self.observer {
                observer.moved(n as u64);
            }
            let Some(trailer) = trailer else { continue };
            let (size, digest) = match trailer {
                Trailer::Abort { abort } => return Err(Stopped::Aborted(abort)),
                Trailer::Range { size } => (size, None),
                Trailer::Whole { size, digest } => (size, Some(digest)),
            };
            if size != run.size || arrived != run.size {
                return Err(Stopped::WrongSize(arrived));
            }
            return Ok(digest.filter(|digest| self.is_whole(*digest)));
        }
    }

    /// Whether what arrived is a file with this digest. One of a single part has no digest of parts.
    fn is_whole(&self, digest: Digest) -> bool {
        if self.work.n_parts() > 1 {
            return self.work.digest() == Some(digest);
        }
        let mut content = vec![0; usize::try_from(self.work.size()).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut content, 0);
        read.is_ok() && Digest::of(&content) == digest
    }

    fn finish(&self, number: u64, hasher: &PartHasher) {
        let digest = hasher.digest();
        self.work.set_digest(number, digest);
        self.work.set_done(number, true);
        if let Some(sidecar) = &self.sidecar {
            sidecar.add(number, digest);
        }
    }
}
