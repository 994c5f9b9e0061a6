//! Many small files in one answer.
//!
//! One thread takes the body apart, and a file is given to its sink only when it is whole. A server
//! that sends other files than were asked for, more, or larger ones is refused.

use std::io;

use super::{Client, ClientError};
use crate::connection::{BodyReader, Connection, ConnectionError, PIECE_SIZE, Piece};
use crate::digest::{Digest, Hasher};
use crate::path::RemotePath;
use crate::protocol::{
    ErrorReply, FileInfo, GetMany, GotMany, MANY_PATHS_MAX, MANY_SIZE_MAX, MESSAGE_SIZE_MAX, Op,
    Packed, PackedGet, Trailer, Unpacker,
};
use crate::socket::Transport;

/// Bytes of a request beside its paths, at most.
const REQUEST_SIZE_MAX: usize = 128;

/// How many of the paths, from the first, fit one [`Client::get_many`].
pub fn n_paths_that_fit(paths: &[RemotePath]) -> usize {
    let mut n_left = MESSAGE_SIZE_MAX - REQUEST_SIZE_MAX;
    let fits = |path: &&RemotePath| {
        // In JSON, with what stands between two.
        let size = serde_json::to_vec(path).map_or(MESSAGE_SIZE_MAX, |text| text.len() + 1);
        let left = n_left.checked_sub(size);
        n_left = left.unwrap_or(0);
        left.is_some()
    };
    paths.iter().take(MANY_PATHS_MAX).take_while(fits).count()
}

/// What is given to the sink of many files: which of the paths, and its file or why there is none.
pub type ManyGot<'a> = Result<(FileInfo, &'a [u8]), ErrorReply>;

/// A file of which bytes are still to come.
struct Arriving {
    file: FileInfo,
    content: Vec<u8>,
}

/// Takes apart the body that answers `get_many`.
struct Gets<S> {
    paths: Vec<RemotePath>,
    n_done: usize,
    unpacker: Unpacker,
    /// Of the whole body.
    hasher: Hasher,
    arriving: Option<Arriving>,
    sink: S,
}

/// Why a body was not received to its end.
enum Stopped {
    Connection(ConnectionError),
    Client(ClientError),
}

impl From<ClientError> for Stopped {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Client {
    /// Reads up to [`MANY_PATHS_MAX`] files, as many as [`n_paths_that_fit`]. `sink` is called for
    /// each, in order, on a thread that may block: with its number from 0 and the file, whole, or the
    /// reason why there is none. A file of over [`MANY_SIZE_MAX`] is refused as `too_large`. Gives the
    /// sink back.
    ///
    /// A file that the server knows the digest of is verified before the sink sees it; of the others
    /// only the return says that they are good.
    ///
    /// # Errors
    /// There are too many paths, the sink or the connection failed, the server refused all of them, or
    /// what arrived is not what was asked for or announced.
    ///
    /// # Cancel safety
    /// Dropping the future gives the transfer up.
    pub async fn get_many<S>(&self, paths: Vec<RemotePath>, sink: S) -> Result<S, ClientError>
    where
        S: FnMut(usize, ManyGot<'_>) -> io::Result<()> + Send + 'static,
    {
        let n_fit = n_paths_that_fit(&paths);
        if n_fit < paths.len() {
            return Err(ClientError::TooMany {
                what: "paths of this length in one request",
                n: paths.len(),
                n_max: n_fit,
            });
        }
        let request = Op::GetMany(GetMany {
            paths: paths.clone(),
            accept: self.accept(),
        });
        let (link, GotMany { encoding }) = self.begin_once(request).await?;
        let body = self.body(encoding)?;
        let gets = Gets {
            paths,
            n_done: 0,
            unpacker: Unpacker::default(),
            hasher: Hasher::new(),
            arriving: None,
            sink,
        };
        let receive =
            async move |connection: &mut Connection<_>| gets.receive(connection, body).await;
        let (mut link, received) = self.on_thread(link, receive).await?;
        match received {
            Ok(sink) => {
                self.keep(link);
                Ok(sink)
            }
            Err(Stopped::Connection(error)) => Err(self.broken(&mut link, error).await),
            Err(Stopped::Client(error)) => Err(self.explained(error)),
        }
    }
}

impl<S: FnMut(usize, ManyGot<'_>) -> io::Result<()>> Gets<S> {
    async fn receive<IO: Transport>(
        mut self,
        connection: &mut Connection<IO>,
        mut body: BodyReader,
    ) -> Result<S, Stopped> {
        let mut buffer = vec![0; PIECE_SIZE];
        loop {
            let piece = body.recv(connection, &mut buffer).await;
            let (n, trailer) = match piece.map_err(Stopped::Connection)? {
                Piece::Data(n) => (n, None),
                Piece::End(n, trailer) => (n, Some(trailer)),
            };
            self.take(&buffer[..n])?;
            if let Some(trailer) = trailer {
                return Ok(self.finish(&trailer)?);
            }
        }
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), ClientError> {
        self.hasher.update(piece);
        let misplaced = |_| ClientError::Misplaced("a packed body with a line that is too long");
        while let Some(next) = self.unpacker.next(&mut piece).map_err(misplaced)? {
            match next {
                Packed::Line(line) => self.begin(&line)?,
                Packed::Bytes(bytes) => {
                    if let Some(arriving) = &mut self.arriving {
                        arriving.content.extend_from_slice(bytes);
                    }
                }
            }
            let is_whole = |one: &mut Arriving| one.content.len() as u64 == one.file.size;
            if let Some(Arriving { file, content }) = self.arriving.take_if(is_whole) {
                self.give(file, &content)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, line: &[u8]) -> Result<(), ClientError> {
        let Some(asked) = self.paths.get(self.n_done) else {
            return Err(ClientError::OverLimit {
                what: "files",
                limit: self.paths.len(),
            });
        };
        match PackedGet::decode(line).map_err(ClientError::Answer)? {
            PackedGet::Error(reply) => {
                let number = self.n_done;
                self.n_done += 1;
                (self.sink)(number, Err(reply)).map_err(ClientError::Sink)
            }
            PackedGet::File(file) if file.path != *asked => {
                Err(ClientError::Misplaced("a file that was not asked for here"))
            }
            PackedGet::File(file) if file.size > MANY_SIZE_MAX => Err(ClientError::OverLimit {
                what: "bytes of a file",
                limit: usize::try_from(MANY_SIZE_MAX).unwrap_or(usize::MAX),
            }),
            PackedGet::File(file) => {
                self.unpacker.expect(file.size);
                let content = Vec::with_capacity(usize::try_from(file.size).unwrap_or(0));
                self.arriving = Some(Arriving { file, content });
                Ok(())
            }
        }
    }

    fn give(&mut self, file: FileInfo, content: &[u8]) -> Result<(), ClientError> {
        if let Some(announced) = file.digest {
            let arrived = Digest::of(content);
            if announced != arrived {
                return Err(ClientError::Corrupt { announced, arrived });
            }
        }
        let number = self.n_done;
        self.n_done += 1;
        (self.sink)(number, Ok((file, content))).map_err(ClientError::Sink)
    }

    /// Holds what arrived against the end of the body.
    fn finish(self, trailer: &Trailer) -> Result<S, ClientError> {
        let (size, announced) = match trailer {
            Trailer::Abort { abort } => return Err(ClientError::Aborted(*abort)),
            Trailer::Whole { size, digest } => (*size, *digest),
            Trailer::Range { .. } => {
                return Err(ClientError::Misplaced("a whole body ends without a digest"));
            }
        };
        if size != self.hasher.size() {
            return Err(ClientError::WrongSize {
                announced: size,
                arrived: self.hasher.size(),
            });
        }
        let arrived = self.hasher.digest();
        if announced != arrived {
            return Err(ClientError::Corrupt { announced, arrived });
        }
        let is_cut = self.unpacker.finish().is_err();
        if is_cut || self.n_done != self.paths.len() {
            return Err(ClientError::Misplaced("a packed body that ends too early"));
        }
        Ok(self.sink)
    }
}
