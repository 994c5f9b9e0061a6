//! Bodies as they are, or compressed on their way.
//!
//! Whoever sends or takes a body sees its content, either way. What is wrong with a frame of zstd is
//! the body's fault: the frames of the connection are still in step.

use std::io;

use super::{Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::compression::{CompressionError, Decoder, Encoder};
use crate::protocol::{Encoding, Trailer};
use crate::socket::Transport;

/// Compressed bytes that are taken at a time: few, since what waits here is lost with the connection,
/// and may stand for very much.
const FRAME_PIECE_SIZE: usize = 16 << 10;

/// Takes one body.
pub struct BodyReader {
    compressed: Option<Compressed>,
    has_ended: bool,
}

struct Compressed {
    decoder: Decoder,
    /// Bytes of the frame: those between `taken` and `filled` wait.
    frame: Vec<u8>,
    taken: usize,
    filled: usize,
    trailer: Option<Trailer>,
}

/// Sends one body.
pub struct BodyWriter {
    compressed: Option<(Encoder, Vec<u8>)>,
}

impl BodyReader {
    /// For a body that comes so.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(encoding: Option<Encoding>) -> Result<Self, CompressionError> {
        let compressed = match encoding {
            None => None,
            Some(Encoding::Zstd) => Some(Compressed {
                decoder: Decoder::new()?,
                frame: vec![0; FRAME_PIECE_SIZE],
                taken: 0,
                filled: 0,
                trailer: None,
            }),
        };
        Ok(Self {
            compressed,
            has_ended: false,
        })
    }

    /// Fills `buffer` with the next bytes of the content, or with its last ones and its end.
    ///
    /// # Errors
    /// As [`Connection::recv_body`]; or [`ConnectionError::Body`], after which the connection lives: the
    /// rest of the body can be read away, unless it [has ended](Self::has_ended).
    pub async fn recv<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
        buffer: &mut [u8],
    ) -> Result<Piece, ConnectionError> {
        let Some(compressed) = &mut self.compressed else {
            let piece = connection.recv_body(buffer).await?;
            self.has_ended = matches!(piece, Piece::End(..));
            return Ok(piece);
        };
        let Compressed {
            decoder,
            frame,
            taken,
            filled,
            trailer,
        } = compressed;
        let mut n_made = 0;
        loop {
            let mut rest = &frame[*taken..*filled];
            let n = decoder.decode(&mut rest, &mut buffer[n_made..])?;
            n_made += n;
            *taken = *filled - rest.len();
            if n_made == buffer.len() {
                return Ok(Piece::Data(n_made));
            }
            if let Some(trailer) = trailer.take() {
                // Who gave up sent no end of the frame either.
                if !matches!(trailer, Trailer::Abort { .. }) {
                    decoder.finish()?;
                }
                return Ok(Piece::End(n_made, trailer));
            }
            *taken = 0;
            *filled = match connection.recv_body(frame).await? {
                Piece::Data(n) => n,
                Piece::End(n, end) => {
                    *trailer = Some(end);
                    self.has_ended = true;
                    n
                }
            };
        }
    }

    /// Whether the end of the body was read from the connection.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl BodyWriter {
    /// For a body that goes so.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(encoding: Option<Encoding>) -> Result<Self, ConnectionError> {
        let compressed = match encoding {
            None => None,
            Some(Encoding::Zstd) => Some((Encoder::new().map_err(no_memory)?, Vec::new())),
        };
        Ok(Self { compressed })
    }

    /// Sends the next bytes of the content, at most [`PIECE_SIZE`]. Compressed, some of them may wait for
    /// those that come.
    ///
    /// # Errors
    /// As [`Connection::send_data`].
    pub async fn send<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
        piece: &[u8],
    ) -> Result<(), ConnectionError> {
        let Some((encoder, frame)) = &mut self.compressed else {
            return connection.send_data(piece).await;
        };
        encoder.encode(piece, frame).map_err(no_memory)?;
        send_frame(connection, frame).await
    }

    /// Ends the body, and waits until all is on its way.
    ///
    /// # Errors
    /// As [`Connection::flush`].
    pub async fn end<IO: Transport>(
        mut self,
        connection: &mut Connection<IO>,
        trailer: &Trailer,
    ) -> Result<(), ConnectionError> {
        let is_whole = !matches!(trailer, Trailer::Abort { .. });
        if let Some((encoder, frame)) = self.compressed.as_mut().filter(|_| is_whole) {
            encoder.finish(frame).map_err(no_memory)?;
            send_frame(connection, frame).await?;
        }
        connection.queue_trailer(trailer);
        connection.flush().await
    }
}

async fn send_frame<IO: Transport>(
    connection: &mut Connection<IO>,
    frame: &mut Vec<u8>,
) -> Result<(), ConnectionError> {
    for piece in frame.chunks(PIECE_SIZE) {
        connection.send_data(piece).await?;
    }
    frame.clear();
    Ok(())
}

/// Nothing else goes wrong with what is compressed here.
fn no_memory(error: CompressionError) -> ConnectionError {
    ConnectionError::Io(io::Error::new(io::ErrorKind::OutOfMemory, error))
}
