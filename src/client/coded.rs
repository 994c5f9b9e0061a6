//! Bodies that are compressed on their way to the server, and from it.
//!
//! Only for whoever asked for it, where the server takes them and a sample shrinks; else they go as
//! they are. A body that comes compressed though nobody asked for it is refused.

use std::io::{self, Read};
use std::sync::Arc;

use super::link::Link;
use super::upload::on_thread;
use super::{Client, ClientError};
use crate::compression::{CONTENT_SIZE_MIN, SAMPLE_SIZE, shrinks};
use crate::connection::BodyReader;
use crate::protocol::{Encoding, FEATURE_ZSTD, FileInfo, Got};

impl Client {
    /// A client over the same connections that compresses too, if it is to: the files that it sends, where
    /// the server takes that and a sample of them shrinks, and those that it asks for, where the server
    /// finds that. It costs both sides time of their CPUs, and pays on a connection that is slower than they
    /// are.
    pub fn compressing(&self, compresses: bool) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            compresses: self.compresses || compresses,
        }
    }

    /// Whether it is worth a try with a body of this size, or of one that is not known.
    pub(super) fn may_compress(&self, size: Option<u64>) -> bool {
        self.compresses && size.is_none_or(|size| size >= CONTENT_SIZE_MIN)
    }

    /// What a request for a body says about it.
    pub(super) fn accept(&self) -> Vec<String> {
        Encoding::accept(self.compresses)
    }

    /// Takes a body that the server says comes so.
    pub(super) fn body(&self, encoding: Option<Encoding>) -> Result<BodyReader, ClientError> {
        if encoding.is_some() && !self.compresses {
            return Err(ClientError::Misplaced(
                "a compressed body that nobody asked for",
            ));
        }
        let no_memory =
            |error| ClientError::Sink(io::Error::new(io::ErrorKind::OutOfMemory, error));
        BodyReader::new(encoding).map_err(no_memory)
    }

    /// The same of the body behind the answer to a `get`.
    pub(super) fn body_of(&self, got: Got) -> Result<(FileInfo, BodyReader), ClientError> {
        let body = self.body(got.encoding)?;
        Ok((got.file, body))
    }
}

impl Link {
    /// Whether the server takes compressed bodies.
    pub(super) fn takes_zstd(&self) -> bool {
        self.hello.features.iter().any(|name| name == FEATURE_ZSTD)
    }
}

/// Looks at the first bytes of a source, which is then whole again: whether they shrink.
///
/// # Errors
/// The source failed.
pub(super) async fn sampled<R: Read + Send + 'static>(
    mut source: R,
) -> io::Result<(Option<Encoding>, impl Read + Send + 'static)> {
    on_thread(move || {
        let mut sample = Vec::new();
        let first = source.by_ref().take(SAMPLE_SIZE as u64);
        { first }.read_to_end(&mut sample)?;
        let is_large = sample.len() as u64 >= CONTENT_SIZE_MIN;
        let encoding = (is_large && shrinks(&sample)).then_some(Encoding::Zstd);
        Ok((encoding, io::Cursor::new(sample).chain(source)))
    })
    .await
}
