//! Bodies that may be compressed on their way.
//!
//! What is decoded counts, never what arrived: a body stands for as many bytes as were announced, and
//! is stopped with the first piece that is too much.

use super::body::Progress;
use crate::compression::CompressionError;
use crate::connection::{BodyReader, Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::ops::OpError;
use crate::protocol::{Encoding, Trailer};
use crate::socket::Transport;

/// A body that arrives, piece by piece.
pub(super) struct Arriving {
    reader: BodyReader,
    buffer: Vec<u8>,
    /// Bytes of the content so far.
    n_taken: u64,
    size_max: Option<u64>,
}

/// The next bytes of a body, and its end if they are the last.
pub(super) type Next<'a> = (&'a [u8], Option<Trailer>);

impl Arriving {
    /// A body that comes so; one that is compressed stands for at most `size_max` bytes. Others are held to
    /// what they were announced as when they end.
    pub(super) fn new(encoding: Option<Encoding>, size_max: Option<u64>) -> Result<Self, OpError> {
        Ok(Self {
            reader: BodyReader::new(encoding).map_err(refused)?,
            buffer: vec![0; PIECE_SIZE],
            n_taken: 0,
            size_max: size_max.filter(|_| encoding.is_some()),
        })
    }

    /// The next bytes. An error inside is that of the request, and the connection lives.
    pub(super) async fn next<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
    ) -> Result<Result<Next<'_>, OpError>, ConnectionError> {
        let (n, trailer) = match self.reader.recv(connection, &mut self.buffer).await {
            Ok(Piece::Data(n)) => (n, None),
            Ok(Piece::End(n, trailer)) => (n, Some(trailer)),
            Err(ConnectionError::Body(error)) => return Ok(Err(refused(error))),
            Err(error) => return Err(error),
        };
        self.n_taken += n as u64;
        match self.size_max.filter(|size_max| self.n_taken > *size_max) {
            Some(size_max) => Ok(Err(OpError::TooLarge {
                what: "the body, decompressed so far,",
                size: self.n_taken,
                size_max,
            })),
            None => Ok(Ok((&self.buffer[..n], trailer))),
        }
    }

    /// How far it was read.
    pub(super) const fn progress(&self) -> Progress {
        if self.reader.has_ended() {
            Progress::Ended
        } else {
            Progress::Open
        }
    }
}

fn refused(error: CompressionError) -> OpError {
    match error {
        CompressionError::Memory(_) => OpError::Busy,
        error => OpError::Compression(error),
    }
}
