//! Requests whose body goes out, from anything that can be read.
//!
//! A body that fits one piece travels with its request; a larger one is read, hashed, encrypted and
//! sent by one thread.

use std::io::{self, Read};
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};

use super::coded::sampled;
use super::{Client, ClientError, Link};
use crate::compression::pays_in_memory;
use crate::connection::{BodyWriter, Connection, ConnectionError, PIECE_SIZE};
use crate::digest::{Digest, Hasher};
use crate::protocol::{Encoding, ErrorCode, Op, Trailer};
use crate::socket::Transport;

/// Largest body that is not worth a thread of its own.
pub const SMALL_SIZE_MAX: u64 = PIECE_SIZE as u64;
/// The slowest disk whose sync is waited for, in bytes per second.
const SYNC_RATE_MIN: u64 = 4 << 20;

/// What stopped a body that was being sent.
enum Sent {
    Whole,
    /// The server answered before the end: it refused.
    Refused,
    Failed(io::Error),
}

impl Client {
    /// Sends a request with all of `source` as its body. A size says whether it is small; it is the
    /// server that holds the body to it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the body up; nothing is done unless all was sent already.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        mut request: Op,
        source: impl Read + Send + 'static,
        size: Option<u64>,
    ) -> Result<T, ClientError> {
        if self.may_compress(size) && request.encoding_mut().is_some() {
            let link = self.link().await?;
            if link.takes_zstd() {
                let (encoding, source) = sampled(source).await.map_err(ClientError::Source)?;
                return self.send_body(link, request, source, encoding).await;
            }
            self.keep(link);
        }
        if let Some(size) = size.filter(|size| *size <= SMALL_SIZE_MAX) {
            let content = on_thread(move || read_small(source, size)).await;
            return self
                .upload_small(request, &content.map_err(ClientError::Source)?)
                .await;
        }
        let link = self.link().await?;
        self.send_body(link, request, source, None).await
    }

    /// Sends a request with all of `source` as its body, so encoded, on a thread of its own.
    async fn send_body<T: DeserializeOwned>(
        &self,
        mut link: Link,
        mut request: Op,
        source: impl Read + Send + 'static,
        encoding: Option<Encoding>,
    ) -> Result<T, ClientError> {
        if let Some(said) = request.encoding_mut() {
            *said = encoding;
        }
        let id = link.queue(request);
        let send_all =
            async move |connection: &mut Connection<_>| send(connection, source, encoding).await;
        let moved = link.on_thread(send_all).await;
        let (mut link, sent) = moved.map_err(|error| self.lost(error))?;
        let (sent, n_sent) = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.last_words(&mut link, id, error).await),
        };
        let limit = self.shared.options.stall_timeout + sync_time(n_sent);
        let reply = self.answer_within(limit, &mut link, id).await?;
        self.keep(link);
        match sent {
            Sent::Failed(error) => Err(ClientError::Source(error)),
            Sent::Whole | Sent::Refused => reply,
        }
    }

    /// Sends a request with a body out of memory. Up to [`SMALL_SIZE_MAX`] no thread is handed
    /// anything.
    pub(super) async fn upload_bytes<T: DeserializeOwned>(
        &self,
        mut request: Op,
        content: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<T, ClientError> {
        let size = content.as_ref().len() as u64;
        if self.may_compress(Some(size)) && request.encoding_mut().is_some() {
            let link = self.link().await?;
            let takes_zstd = link.takes_zstd();
            let looked = on_thread(move || {
                let pays = takes_zstd && pays_in_memory(content.as_ref());
                Ok((pays.then_some(Encoding::Zstd), io::Cursor::new(content)))
            });
            let (encoding, source) = looked.await.map_err(ClientError::Source)?;
            return self.send_body(link, request, source, encoding).await;
        }
        if size > SMALL_SIZE_MAX {
            let source = io::Cursor::new(content);
            return self.upload(request, source, Some(size)).await;
        }
        self.upload_small(request, content.as_ref()).await
    }

    /// A body that is in memory travels with its request.
    pub(super) async fn upload_small<T: DeserializeOwned>(
        &self,
        request: Op,
        content: &[u8],
    ) -> Result<T, ClientError> {
        let limit = self.shared.options.stall_timeout;
        let mut is_again = false;
        loop {
            let mut link = self.link().await?;
            let reply = self.exchange(&mut link, request.clone(), content, limit);
            match reply.await {
                // It was not done, and the files are new: nobody need hear of it.
                Err(error)
                    if error.is_of_certificate()
                        && !is_again
                        && self.has_renewed_since(link.set).await =>
                {
                    is_again = true;
                }
                reply => {
                    let reply = reply?;
                    self.keep(link);
                    return reply;
                }
            }
        }
    }

    /// The same on a connection that is still needed; waits for the answer for `limit`.
    pub(super) async fn exchange<T: DeserializeOwned>(
        &self,
        link: &mut Link,
        request: Op,
        content: &[u8],
        limit: Duration,
    ) -> Result<Result<T, ClientError>, ClientError> {
        let id = link.queue(request);
        let (size, digest) = (content.len() as u64, Digest::of(content));
        link.connection.queue_data(content);
        link.connection
            .queue_trailer(&Trailer::Whole { size, digest });
        if let Err(error) = link.connection.flush().await {
            return Err(self.last_words(link, id, error).await);
        }
        self.answer_within(limit, link, id).await
    }

    /// The server closed while we wrote: what it said last is the reason.
    pub(super) async fn last_words(
        &self,
        link: &mut Link,
        id: u64,
        error: ConnectionError,
    ) -> ClientError {
        match self.answer::<IgnoredAny>(link, id).await {
            Ok(Err(refused))
            | Err(refused @ (ClientError::Remote(_) | ClientError::Certificate { .. })) => refused,
            Ok(Ok(_)) | Err(_) => self.lost(error),
        }
    }
}

async fn send<IO: Transport>(
    connection: &mut Connection<IO>,
    mut source: impl Read,
    encoding: Option<Encoding>,
) -> Result<(Sent, u64), ConnectionError> {
    let mut body = BodyWriter::new(encoding)?;
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
        body.send(connection, &buffer[..n]).await?;
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
    body.end(connection, &trailer).await?;
    Ok((stopped, hasher.size()))
}

/// A small source, and one byte more than it should have: whoever grows is found out.
fn read_small(source: impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    source.take(size + 1).read_to_end(&mut content)?;
    Ok(content)
}

pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = tokio::task::spawn_blocking(work);
    thread
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread that moved the bytes is gone")))
}

/// How long the server may take to make a body durable, before it answers.
pub(super) fn sync_time(size: u64) -> Duration {
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
