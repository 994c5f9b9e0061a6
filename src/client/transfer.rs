//! Bodies, from and to anything that can be read or written.
//!
//! A body is moved by one thread: read, hashed, encrypted and sent, or the other way round. What
//! arrived is given to the caller before it is verified; only the return says that it is good.

use std::io::{self, Read, Write};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Client, ClientError, Link};
use crate::connection::{Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::{Digest, Hasher};
use crate::path::RemotePath;
use crate::protocol::{Conditions, ErrorCode, FileInfo, Get, Op, Put, Trailer};
use crate::socket::Transport;

/// Largest body that is not worth a thread of its own.
pub const SMALL_SIZE_MAX: u64 = PIECE_SIZE as u64;
/// The slowest disk whose sync is waited for, in bytes per second.
const SYNC_RATE_MIN: u64 = 4 << 20;

/// How a put is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Bytes, where the source's length is known: lets the server refuse early.
    pub size: Option<u64>,
    pub conditions: Conditions,
}

/// What stopped a body that was being sent.
enum Sent {
    Whole,
    /// The server answered before the end: it refused.
    Refused,
    Failed(io::Error),
}

impl Client {
    /// Writes a file out of anything that can be read.
    ///
    /// The file is there, whole and durable, when this returns; else nothing was changed, unless
    /// the connection was lost before the answer.
    ///
    /// # Errors
    /// The source or the connection failed, or the server refused.
    ///
    /// # Cancel safety
    /// Dropping the future gives the transfer up; nothing is published unless all was sent already.
    pub async fn put(
        &self,
        path: &RemotePath,
        source: impl Read + Send + 'static,
        options: PutOptions,
    ) -> Result<FileInfo, ClientError> {
        let request = put_request(path, options);
        if let Some(size) = options.size.filter(|size| *size <= SMALL_SIZE_MAX) {
            let content = on_thread(move || read_small(source, size)).await;
            return self
                .put_small(request, &content.map_err(ClientError::Source)?)
                .await;
        }
        let mut link = self.link().await?;
        let id = link.queue(request);
        let Link {
            connection,
            hello,
            next_id,
        } = link;
        let send_all = async move |connection: &mut Connection<_>| send(connection, source).await;
        let moved = connection
            .on_thread(&CancellationToken::new(), send_all)
            .await;
        let (connection, sent) = moved.map_err(|error| self.lost(error))?;
        let mut link = Link {
            connection,
            hello,
            next_id,
        };
        let (sent, n_sent) = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.last_words(link, id, error).await),
        };
        let limit = self.shared.options.stall_timeout + sync_time(n_sent);
        let reply = self.answer_within(limit, &mut link, id).await?;
        self.keep(link);
        match sent {
            Sent::Failed(error) => Err(ClientError::Source(error)),
            Sent::Whole | Sent::Refused => reply,
        }
    }

    /// Writes a file out of memory. Up to [`SMALL_SIZE_MAX`] no thread is handed anything.
    ///
    /// # Errors
    /// As [`Client::put`].
    ///
    /// # Cancel safety
    /// As [`Client::put`].
    pub async fn put_bytes(
        &self,
        path: &RemotePath,
        content: Vec<u8>,
        conditions: Conditions,
    ) -> Result<FileInfo, ClientError> {
        let size = content.len() as u64;
        let options = PutOptions {
            size: Some(size),
            conditions,
        };
        if size > SMALL_SIZE_MAX {
            return self.put(path, io::Cursor::new(content), options).await;
        }
        self.put_small(put_request(path, options), &content).await
    }

    /// A body that fits one piece travels with its request.
    async fn put_small(&self, request: Op, content: &[u8]) -> Result<FileInfo, ClientError> {
        let mut link = self.link().await?;
        let id = link.queue(request);
        let (size, digest) = (content.len() as u64, Digest::of(content));
        link.connection.queue_data(content);
        link.connection
            .queue_trailer(&Trailer::Whole { size, digest });
        if let Err(error) = link.connection.flush().await {
            return Err(self.last_words(link, id, error).await);
        }
        let reply = self.answer(&mut link, id).await?;
        self.keep(link);
        reply
    }

    /// The server closed while we wrote: what it said last is the reason.
    async fn last_words(&self, mut link: Link, id: u64, error: ConnectionError) -> ClientError {
        match self.answer::<FileInfo>(&mut link, id).await {
            Ok(Err(refused)) | Err(refused @ ClientError::Remote(_)) => refused,
            Ok(Ok(_)) | Err(_) => self.lost(error),
        }
    }

    /// Reads a file into anything that can be written, and gives that back.
    ///
    /// # Errors
    /// The sink or the connection failed, the server refused, or what arrived is not what it
    /// announced; the sink then holds nothing of worth.
    ///
    /// # Cancel safety
    /// Dropping the future gives the transfer up.
    pub async fn get<W: Write + Send + 'static>(
        &self,
        path: &RemotePath,
        mut sink: W,
    ) -> Result<(FileInfo, W), ClientError> {
        let mut link = self.link().await?;
        let id = link.queue(Op::Get(Get { path: path.clone() }));
        link.connection
            .flush()
            .await
            .map_err(|error| self.lost(error))?;
        let info = match self.answer::<FileInfo>(&mut link, id).await? {
            Ok(info) => info,
            Err(refused) => {
                self.keep(link);
                return Err(refused);
            }
        };
        if info.size <= SMALL_SIZE_MAX {
            return self.get_small(link, info, sink).await;
        }
        let Link {
            connection,
            hello,
            next_id,
        } = link;
        let size = info.size;
        let receive_all = async move |connection: &mut Connection<_>| {
            let received = receive(connection, &mut sink, size).await;
            received.map(|trailer| (trailer, sink))
        };
        let moved = connection
            .on_thread(&CancellationToken::new(), receive_all)
            .await;
        let (connection, received) = moved.map_err(|error| self.lost(error))?;
        let (hasher, trailer, sink) = match received {
            Ok(((hasher, trailer), sink)) => (hasher, trailer, sink),
            Err(Stopped::Connection(error)) => return Err(self.lost(error)),
            Err(Stopped::Sink(error)) => return Err(ClientError::Sink(error)),
            Err(Stopped::TooLong(arrived)) => {
                return Err(ClientError::WrongSize {
                    announced: size,
                    arrived,
                });
            }
        };
        self.keep(Link {
            connection,
            hello,
            next_id,
        });
        let file = verify(info, &hasher, &trailer)?;
        Ok((file, sink))
    }
}

impl Client {
    /// A body that fits one piece is verified before the sink sees it.
    async fn get_small<W: Write + Send + 'static>(
        &self,
        mut link: Link,
        info: FileInfo,
        mut sink: W,
    ) -> Result<(FileInfo, W), ClientError> {
        let mut content = vec![0; PIECE_SIZE + 1];
        let piece = link
            .connection
            .recv_body(&mut content)
            .await
            .map_err(|error| self.lost(error))?;
        let Piece::End(n, trailer) = piece else {
            return Err(ClientError::WrongSize {
                announced: info.size,
                arrived: content.len() as u64,
            });
        };
        self.keep(link);
        content.truncate(n);
        let mut hasher = Hasher::new();
        hasher.update(&content);
        let file = verify(info, &hasher, &trailer)?;
        let written = on_thread(move || {
            sink.write_all(&content)?;
            sink.flush()?;
            Ok(sink)
        });
        Ok((file, written.await.map_err(ClientError::Sink)?))
    }
}

/// Why a body was not received to its end.
enum Stopped {
    Connection(ConnectionError),
    Sink(io::Error),
    TooLong(u64),
}

async fn send<IO: Transport>(
    connection: &mut Connection<IO>,
    mut source: impl Read,
) -> Result<(Sent, u64), ConnectionError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; PIECE_SIZE];
    let stopped = loop {
        let n = match fill(&mut source, &mut buffer) {
            Ok(0) => break Sent::Whole,
            Ok(n) => n,
            Err(error) => break Sent::Failed(error),
        };
        if connection.readable() {
            break Sent::Refused;
        }
        hasher.update(&buffer[..n]);
        connection.send_data(&buffer[..n]).await?;
        if n < buffer.len() {
            break Sent::Whole;
        }
    };
    let trailer = match stopped {
        Sent::Whole => Trailer::Whole {
            size: hasher.size(),
            digest: hasher.digest(),
        },
        Sent::Refused | Sent::Failed(_) => Trailer::Abort {
            abort: ErrorCode::Unavailable,
        },
    };
    connection.queue_trailer(&trailer);
    connection.flush().await?;
    Ok((stopped, hasher.size()))
}

async fn receive<IO: Transport>(
    connection: &mut Connection<IO>,
    sink: &mut impl Write,
    size: u64,
) -> Result<(Hasher, Trailer), Stopped> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; PIECE_SIZE];
    loop {
        let (n, trailer) = match connection
            .recv_body(&mut buffer)
            .await
            .map_err(Stopped::Connection)?
        {
            Piece::Data(n) => (n, None),
            Piece::End(n, trailer) => (n, Some(trailer)),
        };
        hasher.update(&buffer[..n]);
        if hasher.size() > size {
            return Err(Stopped::TooLong(hasher.size()));
        }
        sink.write_all(&buffer[..n]).map_err(Stopped::Sink)?;
        if let Some(trailer) = trailer {
            sink.flush().map_err(Stopped::Sink)?;
            return Ok((hasher, trailer));
        }
    }
}

/// What the server announced, in its answer and in the trailer, is what arrived.
fn verify(mut info: FileInfo, hasher: &Hasher, trailer: &Trailer) -> Result<FileInfo, ClientError> {
    let (size, digest) = match trailer {
        Trailer::Abort { abort } => return Err(ClientError::Aborted(*abort)),
        Trailer::Whole { size, digest } => (*size, *digest),
    };
    for announced in [info.size, size] {
        if announced != hasher.size() {
            return Err(ClientError::WrongSize {
                announced,
                arrived: hasher.size(),
            });
        }
    }
    let arrived = hasher.digest();
    for announced in info.digest.into_iter().chain([digest]) {
        if announced != arrived {
            return Err(ClientError::Corrupt { announced, arrived });
        }
    }
    info.digest = Some(arrived);
    Ok(info)
}

fn put_request(path: &RemotePath, options: PutOptions) -> Op {
    let Conditions {
        if_absent,
        if_version,
    } = options.conditions;
    Op::Put(Put {
        path: path.clone(),
        size: options.size,
        if_absent,
        if_version,
    })
}

/// A small source, and one byte more than it should have: whoever grows is found out.
fn read_small(source: impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    source.take(size + 1).read_to_end(&mut content)?;
    Ok(content)
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = tokio::task::spawn_blocking(work);
    thread
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread that moved the bytes is gone")))
}

/// How long the server may take to make a body durable, before it answers.
fn sync_time(size: u64) -> Duration {
    Duration::from_secs(size / SYNC_RATE_MIN)
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
