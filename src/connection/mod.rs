//! Frames in and out over any stream.
//!
//! Knows the order of frames, not their meaning: a message stands alone, a body is data frames and
//! one end. Nothing is reserved for a length before the length is checked, and no read or write
//! inside a frame or body waits longer than the stall limit.

mod coded;
mod thread;

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

pub use coded::{BodyReader, BodyWriter};

use crate::compression::CompressionError;
use crate::protocol::{FrameError, HEADER_SIZE, Header, JsonError, Kind, Trailer};
use crate::socket::{Pace, RATE_MIN, Transport};

/// Bytes that are read, hashed and written at a time: fits the second-level cache, and is enough
/// for the vector units of the hash.
pub const PIECE_SIZE: usize = 64 << 10;

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub enum ConnectionError {
    #[error("malformed frame")]
    Frame(#[from] FrameError),
    #[error("a frame of kind {found:?} where {expected} belongs")]
    OutOfPlace { expected: &'static str, found: Kind },
    #[error("malformed trailer")]
    Trailer(#[from] JsonError),
    /// The body is at fault: the connection lives.
    #[error(transparent)]
    Body(#[from] CompressionError),
    #[error("the connection ended inside a frame or body")]
    Truncated,
    #[error("the peer was too slow: under {RATE_MIN} bytes per second for {stall:?}")]
    TooSlow { stall: Duration },
    #[error("the peer went on sending a body that was refused")]
    RefusedBody,
    #[error("the thread that moved the body is gone")]
    ThreadLost,
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// What of a body arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This many bytes were filled in: the whole buffer.
    Data(usize),
    /// The body ended after this many bytes.
    End(usize, Trailer),
}

/// A stream that speaks frames.
#[derive(Debug)]
pub struct Connection<IO> {
    io: IO,
    stall: Duration,
    incoming: Incoming,
    /// Bytes of the current data frame that were not read yet.
    data_left: usize,
    outgoing: Vec<u8>,
}

/// A message that is still arriving: kept here, so that a cancelled wait loses nothing.
#[derive(Debug, Default)]
struct Incoming {
    header: [u8; HEADER_SIZE],
    header_filled: usize,
    content: Vec<u8>,
    content_filled: usize,
}

impl<IO: Transport> Connection<IO> {
    /// Frames over `io`; inside a frame or body nothing waits longer than `stall` without progress.
    pub fn new(io: IO, stall: Duration) -> Self {
        Self {
            io,
            stall,
            incoming: Incoming::default(),
            data_left: 0,
            outgoing: Vec::new(),
        }
    }

    /// The stream below.
    pub const fn stream(&self) -> &IO {
        &self.io
    }

    /// Whether something can be read now: an answer, an end, or an error.
    pub fn readable(&self) -> bool {
        self.io.readable()
    }

    /// Waits for the first byte of a frame; `false` when the peer closed instead.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// A cancelled call loses no bytes; call again.
    pub async fn wait_frame(&mut self) -> Result<bool, ConnectionError> {
        let incoming = &mut self.incoming;
        if incoming.header_filled == 0 {
            let n = self
                .io
                .read(&mut incoming.header)
                .await
                .map_err(ConnectionError::Io)?;
            incoming.header_filled = n;
        }
        Ok(incoming.header_filled > 0)
    }

    /// The next message; `None` when the peer closed between two frames.
    ///
    /// # Errors
    /// The bytes are not a message frame, or the stream failed.
    ///
    /// # Cancel safety
    /// A cancelled call loses no bytes; call again.
    pub async fn recv_message(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        let Some(header) = self.recv_header().await? else {
            return Ok(None);
        };
        if header.kind != Kind::Message {
            return Err(ConnectionError::OutOfPlace {
                expected: "a message",
                found: header.kind,
            });
        }
        self.recv_content(header).await.map(Some)
    }

    /// The payload of `size` bytes that was announced: one data frame, no more and no less. Cancel
    /// safe as [`Connection::recv_message`].
    ///
    /// # Errors
    /// Another frame came, the size is over a piece, or the stream failed.
    pub async fn recv_payload(&mut self, size: usize) -> Result<Vec<u8>, ConnectionError> {
        let header = self.recv_header().await?;
        let header = header.ok_or(ConnectionError::Truncated)?;
        if header.kind != Kind::Data || header.size != size || size > PIECE_SIZE {
            return Err(ConnectionError::OutOfPlace {
                expected: "the announced payload",
                found: header.kind,
            });
        }
        self.recv_content(header).await
    }

    /// Fills `buffer` with the next bytes of a body, or with its last ones and its end.
    ///
    /// # Errors
    /// A frame does not belong into a body, the peer is too slow, or the stream failed.
    pub async fn recv_body(&mut self, buffer: &mut [u8]) -> Result<Piece, ConnectionError> {
        let mut filled = 0;
        let mut pace = Pace::new(self.stall);
        while filled < buffer.len() {
            if self.data_left == 0 {
                let header = timeout(self.stall, self.recv_header())
                    .await
                    .map_err(|_| self.too_slow())??;
                let header = header.ok_or(ConnectionError::Truncated)?;
                match header.kind {
                    Kind::Data => {
                        self.incoming.header_filled = 0;
                        self.data_left = header.size;
                    }
                    Kind::End => {
                        let content = timeout(self.stall, self.recv_content(header)).await;
                        let content = content.map_err(|_| self.too_slow())??;
                        return Ok(Piece::End(filled, Trailer::decode(&content)?));
                    }
                    Kind::Message => {
                        return Err(ConnectionError::OutOfPlace {
                            expected: "a body",
                            found: header.kind,
                        });
                    }
                }
            }
            let end = buffer.len().min(filled + self.data_left);
            let began = Instant::now();
            let read = timeout(self.stall, self.io.read(&mut buffer[filled..end])).await;
            let n = self.in_time(read)?;
            if n == 0 {
                return Err(ConnectionError::Truncated);
            }
            filled += n;
            self.data_left -= n;
            if !pace.moved(n, began.elapsed()) {
                return Err(self.too_slow());
            }
        }
        Ok(Piece::Data(filled))
    }

    /// Puts a message behind what waits to be sent: one of the wire types, below a message's limit.
    pub fn queue_message(&mut self, message: &impl Serialize) {
        let content = serde_json::to_vec(message).expect("the wire types are plain JSON");
        self.queue_frame(Kind::Message, &content);
    }

    /// Puts an encoded request behind what waits to be sent.
    pub fn queue_encoded(&mut self, content: &[u8]) {
        self.queue_frame(Kind::Message, content);
    }

    /// Puts whole frames behind what waits to be sent.
    pub fn queue_frames(&mut self, frames: &[u8]) {
        self.outgoing.extend_from_slice(frames);
    }

    /// Bytes that wait to be sent.
    pub const fn n_queued(&self) -> usize {
        self.outgoing.len()
    }

    /// Puts a body's end behind what waits to be sent.
    pub fn queue_trailer(&mut self, trailer: &Trailer) {
        let content = serde_json::to_vec(trailer).expect("the wire types are plain JSON");
        self.queue_frame(Kind::End, &content);
    }

    /// Puts a small body behind what waits to be sent.
    pub fn queue_data(&mut self, content: &[u8]) {
        for piece in content.chunks(PIECE_SIZE) {
            self.queue_frame(Kind::Data, piece);
        }
    }

    fn queue_frame(&mut self, kind: Kind, content: &[u8]) {
        let frame = crate::protocol::Frame { kind, content };
        frame
            .encode(&mut self.outgoing)
            .expect("what is queued fits its frame");
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The stream failed, or took nothing for the stall limit.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        let outgoing = std::mem::take(&mut self.outgoing);
        for piece in outgoing.chunks(PIECE_SIZE) {
            let written = timeout(self.stall, self.io.write_all(piece)).await;
            self.in_time(written)?;
        }
        let flushed = timeout(self.stall, self.io.flush()).await;
        self.in_time(flushed)?;
        // Keeps the buffer, unless a large answer has blown it up.
        if outgoing.capacity() <= PIECE_SIZE {
            self.outgoing = outgoing;
            self.outgoing.clear();
        }
        Ok(())
    }

    /// Sends a piece of a body, behind what waits. It is on its way, not flushed.
    ///
    /// # Errors
    /// The stream failed, or took nothing for the stall limit.
    pub async fn send_data(&mut self, piece: &[u8]) -> Result<(), ConnectionError> {
        if !self.outgoing.is_empty() {
            self.flush().await?;
        }
        let header = Header {
            kind: Kind::Data,
            size: piece.len(),
        }
        .encode()?;
        let mut parts = [IoSlice::new(&header), IoSlice::new(piece)];
        let mut rest = &mut parts[..];
        let mut pace = Pace::new(self.stall);
        while !rest.is_empty() {
            let began = Instant::now();
            let written = timeout(self.stall, self.io.write_vectored(rest)).await;
            let n = self.in_time(written)?;
            if n == 0 {
                return Err(ConnectionError::Io(io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(&mut rest, n);
            if !pace.moved(n, began.elapsed()) {
                return Err(self.too_slow());
            }
        }
        Ok(())
    }

    /// Says goodbye and closes; what the peer does of it is its own affair.
    pub async fn close(mut self) {
        let _ = timeout(self.stall, self.io.shutdown()).await;
    }

    /// Closes so that what was said last is not lost: bytes that still arrive are read away for a
    /// bounded time, since an unread byte turns the close into a reset.
    pub async fn close_after_drain(mut self, size_max: usize, time_max: Duration) {
        let _ = timeout(time_max, async {
            if self.io.shutdown().await.is_err() {
                return;
            }
            let mut buffer = vec![0; PIECE_SIZE.min(size_max)];
            let mut left = size_max;
            while left > 0 {
                match self.io.read(&mut buffer).await {
                    Ok(n) if n > 0 => left = left.saturating_sub(n),
                    _ => return,
                }
            }
        })
        .await;
    }

    /// The next frame's header; it stays until its content is taken.
    async fn recv_header(&mut self) -> Result<Option<Header>, ConnectionError> {
        let stall = self.stall;
        let incoming = &mut self.incoming;
        while incoming.header_filled < HEADER_SIZE {
            let n = self
                .io
                .read(&mut incoming.header[incoming.header_filled..])
                .await;
            match n.map_err(|error| failed(stall, error))? {
                0 if incoming.header_filled == 0 => return Ok(None),
                0 => return Err(ConnectionError::Truncated),
                n => incoming.header_filled += n,
            }
        }
        Ok(Some(Header::decode(incoming.header)?))
    }

    async fn recv_content(&mut self, header: Header) -> Result<Vec<u8>, ConnectionError> {
        let stall = self.stall;
        let incoming = &mut self.incoming;
        incoming.content.resize(header.size, 0);
        while incoming.content_filled < header.size {
            let n = self
                .io
                .read(&mut incoming.content[incoming.content_filled..])
                .await;
            match n.map_err(|error| failed(stall, error))? {
                0 => return Err(ConnectionError::Truncated),
                n => incoming.content_filled += n,
            }
        }
        let content = std::mem::take(&mut incoming.content);
        *incoming = Incoming::default();
        Ok(content)
    }

    fn in_time<T>(&self, moved: Result<io::Result<T>, Elapsed>) -> Result<T, ConnectionError> {
        match moved {
            Ok(Ok(value)) => Ok(value),
            Err(_) => Err(self.too_slow()),
            Ok(Err(error)) => Err(failed(self.stall, error)),
        }
    }

    const fn too_slow(&self) -> ConnectionError {
        ConnectionError::TooSlow { stall: self.stall }
    }
}

/// A socket that blocks keeps the limits itself, and reports them as errors of its own.
fn failed(stall: Duration, error: io::Error) -> ConnectionError {
    match error.kind() {
        io::ErrorKind::TimedOut => ConnectionError::TooSlow { stall },
        _ => ConnectionError::Io(error),
    }
}
