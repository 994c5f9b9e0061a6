//! A run of parts on its way out: read, hashed and sent by one thread.
//!
//! Each part is hashed once, as it passes, whether its bytes are sent or only named.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use super::ClientError;
use super::base::Base;
use super::parts::{Run, Work};
use super::patch::PatchEncoder;
use super::put_parts::Job;
use super::retry::Observer;
use super::sidecar::Sidecar;
use crate::compression::pays;
use crate::connection::{BodyWriter, Connection, ConnectionError, PIECE_SIZE};
use crate::delta::chunks;
use crate::digest::PartHasher;
use crate::protocol::{Encoding, ErrorCode, Trailer};
use crate::socket::Transport;

impl Job {
    pub(super) fn base(&self) -> Option<Arc<Base>> {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        base.clone()
    }

    pub(super) fn set_base(&self, base: Option<Base>) {
        let mut now = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        *now = base.map(Arc::new);
    }

    pub(super) fn sender(&self) -> Result<Sender, ClientError> {
        Ok(Sender {
            file: self.file.try_clone().map_err(ClientError::Source)?,
            work: Arc::clone(&self.work),
            sidecar: self.sidecar.clone(),
            observer: self.observer.clone(),
            base: self.base(),
        })
    }
}

/// What stopped a run that was being sent, other than the connection.
pub(super) enum Failed {
    /// The file is shorter than it was.
    Changed,
    Source(io::Error),
}

/// What one stream's thread needs of a job.
pub(super) struct Sender {
    file: File,
    work: Arc<Work>,
    sidecar: Option<Arc<Sidecar>>,
    observer: Option<Arc<dyn Observer>>,
    base: Option<Arc<Base>>,
}

/// The bytes of a run as they pass, part by part.
struct Passing<'a> {
    sender: &'a Sender,
    offset: u64,
    hasher: PartHasher,
}

impl Sender {
    /// Whether it sends only what the server's version does not have.
    pub(super) const fn is_patching(&self) -> bool {
        self.base.is_some()
    }

    pub(super) async fn send<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
        run: Run,
        encoding: Option<Encoding>,
    ) -> Result<Option<Failed>, ConnectionError> {
        let mut body = BodyWriter::new(encoding)?;
        let to = (&mut *connection, &mut body);
        let mut passing = Passing {
            sender: self,
            offset: run.offset,
            hasher: PartHasher::at(run.offset),
        };
        let sent = match &self.base {
            Some(base) => self.send_patch(to, run, base, &mut passing).await?,
            None => self.send_bytes(to, run, &mut passing).await?,
        };
        let trailer = match &sent {
            Ok(Some(size)) => Trailer::Range { size: *size },
            // The server has answered already, or never gets the rest.
            Ok(None) | Err(_) => Trailer::Abort {
                abort: ErrorCode::Unavailable,
            },
        };
        body.end(connection, &trailer).await?;
        Ok(sent.err())
    }

    /// How a run is best sent to a server that takes what is compressed. Blocks.
    pub(super) fn choose(&self, run: Run) -> Option<Encoding> {
        let read = |sample: &mut [u8], at| self.file.read_at(sample, run.offset + at);
        pays(run.size, read).then_some(Encoding::Zstd)
    }

    /// Gives the size of the body, if all of it was sent.
    async fn send_bytes<IO: Transport>(
        &self,
        (connection, body): (&mut Connection<IO>, &mut BodyWriter),
        run: Run,
        passing: &mut Passing<'_>,
    ) -> Result<Result<Option<u64>, Failed>, ConnectionError> {
        let mut buffer = vec![0; PIECE_SIZE];
        while passing.offset < run.end() {
            if connection.readable() {
                return Ok(Ok(None));
            }
            let left = usize::try_from(run.end() - passing.offset).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(PIECE_SIZE)];
            match self.file.read_exact_at(piece, passing.offset) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Err(Failed::Changed));
                }
                Err(error) => return Ok(Err(Failed::Source(error))),
            }
            passing.take(piece);
            body.send(connection, piece).await?;
            passing.count(piece.len());
        }
        Ok(Ok(Some(run.size)))
    }

    /// The same, but for what the base has.
    async fn send_patch<IO: Transport>(
        &self,
        (connection, body): (&mut Connection<IO>, &mut BodyWriter),
        run: Run,
        base: &Base,
        passing: &mut Passing<'_>,
    ) -> Result<Result<Option<u64>, Failed>, ConnectionError> {
        let mut encoder = PatchEncoder::new(&base.chunks);
        let mut size = 0;
        for chunk in chunks(RunReader::new(&self.file, run), base.chunk_size) {
            if connection.readable() {
                return Ok(Ok(None));
            }
            let (name, bytes) = match chunk {
                Ok(chunk) => chunk,
                Err(error) => return Ok(Err(Failed::Source(error))),
            };
            for piece in bytes.chunks(PIECE_SIZE) {
                passing.take(piece);
            }
            encoder.push(&name, &bytes);
            passing.count(bytes.len());
            if encoder.body().len() >= PIECE_SIZE {
                size += send_all(connection, body, encoder.body()).await?;
            }
        }
        if passing.offset < run.end() {
            return Ok(Err(Failed::Changed));
        }
        encoder.finish();
        size += send_all(connection, body, encoder.body()).await?;
        Ok(Ok(Some(size)))
    }
}

/// Sends what is in the buffer, and empties it.
async fn send_all<IO: Transport>(
    connection: &mut Connection<IO>,
    body: &mut BodyWriter,
    steps: &mut Vec<u8>,
) -> Result<u64, ConnectionError> {
    for piece in steps.chunks(PIECE_SIZE) {
        body.send(connection, piece).await?;
    }
    let size = steps.len() as u64;
    steps.clear();
    Ok(size)
}

impl Passing<'_> {
    /// Takes bytes that may end parts.
    fn take(&mut self, mut bytes: &[u8]) {
        let work = &self.sender.work;
        while !bytes.is_empty() {
            let room = work.part_size() - self.offset % work.part_size();
            let n = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            self.hasher.update(now);
            self.offset += n as u64;
            bytes = rest;
            if let Some(number) = work.ending_at(self.offset) {
                let digest = self.hasher.digest();
                let was_known = work.digest_of(number) == Some(digest);
                work.set_digest(number, digest);
                if let Some(sidecar) = self.sender.sidecar.as_ref().filter(|_| !was_known) {
                    sidecar.add(number, digest);
                }
                if self.offset < work.size() {
                    self.hasher = PartHasher::at(self.offset);
                }
            }
        }
    }

    fn count(&self, n: usize) {
        self.sender.work.count(n);
        if let Some(observer) = &self.sender.observer {
            observer.moved(n as u64);
        }
    }
}

/// The bytes of a run.
struct RunReader<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl<'a> RunReader<'a> {
    const fn new(file: &'a File, run: Run) -> Self {
        Self {
            file,
            offset: run.offset,
            end: run.end(),
        }
    }
}

impl io::Read for RunReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let room = left.min(buffer.len());
        let n = self.file.read_at(&mut buffer[..room], self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}
