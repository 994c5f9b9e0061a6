//! Requests whose answer has a body, into anything that can be written.
//!
//! What arrived is given to the caller before it is verified, unless it is small; only the return
//! says that it is good.

use std::io::{self, Write};

use serde::de::DeserializeOwned;

use super::upload::{SMALL_SIZE_MAX, on_thread};
use super::{Client, ClientError, Link};
use crate::connection::{BodyReader, Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::{Digest, Hasher};
use crate::protocol::{Encoding, Fetched, Got, Op, Trailer};
use crate::socket::Transport;

/// An answer that says what the body behind it will be.
pub(super) trait Announcement: DeserializeOwned {
    /// Bytes, where that is said.
    fn size(&self) -> Option<u64>;

    /// Most bytes that are taken.
    fn size_max(&self) -> u64 {
        self.size().unwrap_or(0)
    }

    /// Where the server knows it.
    fn digest(&self) -> Option<Digest>;

    /// How the body is compressed.
    fn encoding(&self) -> Option<Encoding> {
        None
    }
}

impl Announcement for Got {
    fn size(&self) -> Option<u64> {
        Some(self.file.size)
    }

    fn digest(&self) -> Option<Digest> {
        self.file.digest
    }

    fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }
}

impl Announcement for Fetched {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.digest)
    }
}

/// A body that is whole and verified.
pub(super) struct Downloaded<T, W> {
    pub(super) answer: T,
    pub(super) digest: Digest,
    pub(super) sink: W,
}

/// Why a body was not received to its end.
pub(super) enum Stopped {
    Connection(ConnectionError),
    Sink(io::Error),
    TooLong(u64),
}

impl Client {
    /// Asks, and moves the body behind the answer into the sink.
    ///
    /// # Cancel safety
    /// Dropping the future gives the body up.
    pub(super) async fn download<T: Announcement, W: Write + Send + 'static>(
        &self,
        request: Op,
        mut sink: W,
    ) -> Result<Downloaded<T, W>, ClientError> {
        let (link, answer) = self.begin_once::<T>(request).await?;
        let size = answer.size_max();
        let body = self.body(answer.encoding())?;
        if size <= SMALL_SIZE_MAX && answer.encoding().is_none() {
            return self.download_small(link, answer, sink).await;
        }
        let receive_all = async move |connection: &mut Connection<_>| {
            let received = receive(connection, body, &mut sink, size).await;
            received.map(|trailer| (trailer, sink))
        };
        let moved = link.on_thread(receive_all).await;
        let (mut link, received) = moved.map_err(|error| self.lost(error))?;
        let (hasher, trailer, sink) = match received {
            Ok(((hasher, trailer), sink)) => (hasher, trailer, sink),
            Err(stopped) => return Err(self.stopped(&mut link, stopped, size).await),
        };
        self.keep(link);
        let verified = verify(&answer, &hasher, &trailer);
        let digest = verified.map_err(|error| self.explained(error))?;
        Ok(Downloaded {
            answer,
            digest,
            sink,
        })
    }

    /// What it means that a body of so many bytes was not received to its end.
    pub(super) async fn stopped(
        &self,
        link: &mut Link,
        stopped: Stopped,
        announced: u64,
    ) -> ClientError {
        match stopped {
            Stopped::Connection(error) => self.broken(link, error).await,
            Stopped::Sink(error) => ClientError::Sink(error),
            Stopped::TooLong(arrived) => ClientError::WrongSize { announced, arrived },
        }
    }

    /// A body that fits one piece is verified before the sink sees it.
    async fn download_small<T: Announcement, W: Write + Send + 'static>(
        &self,
        mut link: Link,
        answer: T,
        mut sink: W,
    ) -> Result<Downloaded<T, W>, ClientError> {
        let mut content = vec![0; PIECE_SIZE + 1];
        let piece = match link.connection.recv_body(&mut content).await {
            Ok(piece) => piece,
            Err(error) => return Err(self.broken(&mut link, error).await),
        };
        let Piece::End(n, trailer) = piece else {
            return Err(ClientError::WrongSize {
                announced: answer.size_max(),
                arrived: content.len() as u64,
            });
        };
        self.keep(link);
        content.truncate(n);
        let mut hasher = Hasher::new();
        hasher.update(&content);
        let verified = verify(&answer, &hasher, &trailer);
        let digest = verified.map_err(|error| self.explained(error))?;
        let written = on_thread(move || {
            sink.write_all(&content)?;
            sink.flush()?;
            Ok(sink)
        });
        let sink = written.await.map_err(ClientError::Sink)?;
        Ok(Downloaded {
            answer,
            digest,
            sink,
        })
    }
}

pub(super) async fn receive<IO: Transport>(
    connection: &mut Connection<IO>,
    body: BodyReader,
    sink: &mut impl Write,
    size: u64,
) -> Result<(Hasher, Trailer), Stopped> {
    let mut hasher = Hasher::new();
    let trailer = receive_behind(connection, body, sink, size, &mut hasher).await?;
    Ok((hasher, trailer))
}

/// The same behind what was hashed before; `size` is that of all of it.
pub(super) async fn receive_behind<IO: Transport>(
    connection: &mut Connection<IO>,
    mut body: BodyReader,
    sink: &mut impl Write,
    size: u64,
    hasher: &mut Hasher,
) -> Result<Trailer, Stopped> {
    let mut buffer = vec![0; PIECE_SIZE];
    loop {
        let piece = body.recv(connection, &mut buffer).await;
        let (n, trailer) = match piece.map_err(Stopped::Connection)? {
            Piece::Data(n) => (n, None),
            Piece::End(n, trailer) => (n, Some(trailer)),
        };
        if hasher.size() + n as u64 > size {
            return Err(Stopped::TooLong(hasher.size() + n as u64));
        }
        // Hashed once it is written: what counts is what the sink has.
        sink.write_all(&buffer[..n]).map_err(Stopped::Sink)?;
        hasher.update(&buffer[..n]);
        if let Some(trailer) = trailer {
            sink.flush().map_err(Stopped::Sink)?;
            return Ok(trailer);
        }
    }
}

/// What the server announced, in its answer and in the trailer, is what arrived.
fn verify(
    answer: &impl Announcement,
    hasher: &Hasher,
    trailer: &Trailer,
) -> Result<Digest, ClientError> {
    let (size, digest) = match trailer {
        Trailer::Abort { abort } => return Err(ClientError::Aborted(*abort)),
        Trailer::Whole { size, digest } => (*size, *digest),
        Trailer::Range { .. } => {
            return Err(ClientError::Misplaced("a whole body ends without a digest"));
        }
    };
    for announced in answer.size().into_iter().chain([size]) {
        if announced != hasher.size() {
            return Err(ClientError::WrongSize {
                announced,
                arrived: hasher.size(),
            });
        }
    }
    let arrived = hasher.digest();
    for announced in answer.digest().into_iter().chain([digest]) {
        if announced != arrived {
            return Err(ClientError::Corrupt { announced, arrived });
        }
    }
    Ok(arrived)
}
