//! Many small files in one request.
//!
//! What goes out is packed, hashed and sent by one thread; of what is answered only as much is believed
//! as was asked.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio_rustls::TlsStream;

use super::upload::sync_time;
use super::{Client, ClientError, Link};
use crate::compression::pays_in_memory;
use crate::connection::{BodyWriter, Connection, ConnectionError, PIECE_SIZE};
use crate::digest::{Digest, Hasher};
use crate::label::DedupId;
use crate::path::RemotePath;
use crate::protocol::{
    Attributes, Conditions, ContentId, Encoding, ErrorCode, ErrorReply, MANY_FILES_MAX,
    MANY_SIZE_MAX, Op, PackedPut, PutMany, PutManyDone, RefusedFile, Request, Trailer,
};
use crate::socket::{Socket, Transport};

/// Bytes of the first files of a body, of which samples say whether it is worth compressing.
const FIRST_SIZE: usize = 256 << 10;

/// One of many files that are put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManyPut {
    pub path: RemotePath,
    /// At most [`MANY_SIZE_MAX`] bytes.
    pub content: Vec<u8>,
    pub conditions: Conditions,
    pub attributes: Option<Attributes>,
}

/// The content of one of them.
struct OneOf {
    files: Arc<Vec<ManyPut>>,
    number: usize,
}

impl AsRef<[u8]> for OneOf {
    fn as_ref(&self) -> &[u8] {
        &self.files[self.number].content
    }
}

/// One of many contents that are staged for a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedOne {
    pub staged: ContentId,
    pub digest: Digest,
}

impl Client {
    /// Writes up to [`MANY_FILES_MAX`] files, each for itself; says of each, in order, which version
    /// it became or why it was refused. With a request id the n-th file, from 1, has `ID/n`.
    ///
    /// # Errors
    /// There are too many files or one is too large, the connection failed, or the server refused all
    /// of them; then nothing was changed, unless the connection was lost before the answer.
    ///
    /// # Cancel safety
    /// Dropping the future gives the transfer up; nothing is put unless all was sent already.
    pub async fn put_many(
        &self,
        files: Vec<ManyPut>,
        request_id: Option<DedupId>,
    ) -> Result<Vec<Result<u64, ErrorReply>>, ClientError> {
        self.put_all(&Arc::new(files), request_id).await
    }

    /// The same, for whoever may have to send them again.
    pub(super) async fn put_all(
        &self,
        files: &Arc<Vec<ManyPut>>,
        request_id: Option<DedupId>,
    ) -> Result<Vec<Result<u64, ErrorReply>>, ClientError> {
        check(files.iter().map(|file| file.content.len()))?;
        let n = files.len();
        let request = PutMany {
            stage: false,
            request_id,
            encoding: None,
        };
        let files = Arc::clone(files);
        let items = (0..n).map(move |number| {
            let file = &files[number];
            let line = PackedPut {
                path: Some(file.path.clone()),
                size: file.content.len() as u64,
                digest: Digest::of(&file.content),
                if_absent: file.conditions.if_absent,
                if_version: file.conditions.if_version,
                attributes: file.attributes,
            };
            let files = Arc::clone(&files);
            (line, OneOf { files, number })
        });
        let done: PutManyDone = self.send_packed(Op::PutMany(request), items).await?;
        let versions = done.versions.into_iter();
        let found = versions.map(|version| (version > 0).then_some(version));
        answers(n, found, done.refused)
    }

    /// Stages up to [`MANY_FILES_MAX`] contents for a set; says of each, in order, what it is called or
    /// why it was refused.
    ///
    /// # Errors
    /// As [`Client::put_many`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the contents up.
    pub async fn stage_many(
        &self,
        contents: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<StagedOne, ErrorReply>>, ClientError> {
        check(contents.iter().map(Vec::len))?;
        let n = contents.len();
        let digests: Vec<Digest> = contents.iter().map(|content| Digest::of(content)).collect();
        let lines = digests.clone().into_iter().zip(contents);
        let items = lines.map(|(digest, content)| {
            let line = PackedPut {
                path: None,
                size: content.len() as u64,
                digest,
                if_absent: false,
                if_version: None,
                attributes: None,
            };
            (line, content)
        });
        let request = PutMany {
            stage: true,
            request_id: None,
            encoding: None,
        };
        let done: PutManyDone = self.send_packed(Op::PutMany(request), items).await?;
        let staged = done.staged.into_iter().zip(digests);
        let found =
            staged.map(|(staged, digest)| staged.map(|staged| StagedOne { staged, digest }));
        answers(n, found, done.refused)
    }

    /// Sends a request with a packed body, and waits for the answer.
    async fn send_packed<T: DeserializeOwned>(
        &self,
        request: Op,
        items: impl Iterator<Item = (PackedPut, impl AsRef<[u8]>)> + Send + 'static,
    ) -> Result<T, ClientError> {
        let mut link = self.link().await?;
        let id = link.next_id();
        let may_shrink = self.may_compress(None) && link.takes_zstd();
        let request = Request { id, op: request };
        let send_all = async move |connection: &mut Connection<_>| {
            send(connection, request, items, may_shrink).await
        };
        let (mut link, sent) = self.on_thread(link, send_all).await?;
        let n_sent = match sent {
            Ok(n_sent) => n_sent,
            Err(error) => return Err(self.last_words(&mut link, id, error).await),
        };
        let limit = self.shared.options.stall_timeout + sync_time(n_sent);
        let reply = self.answer_within(limit, &mut link, id).await?;
        self.keep(link);
        reply
    }

    /// Runs `work` with the connection of a link on a thread, and gives the link back.
    pub(super) async fn on_thread<T: Send + 'static>(
        &self,
        link: Link,
        work: impl AsyncFnOnce(&mut Connection<TlsStream<Socket>>) -> T + Send + 'static,
    ) -> Result<(Link, T), ClientError> {
        let moved = link.on_thread(work).await;
        moved.map_err(|error| self.lost(error))
    }
}

/// What a server would refuse after all the work of sending it.
fn check(sizes: impl ExactSizeIterator<Item = usize>) -> Result<(), ClientError> {
    if sizes.len() > MANY_FILES_MAX {
        return Err(ClientError::TooMany {
            what: "files in one request",
            n: sizes.len(),
            n_max: MANY_FILES_MAX,
        });
    }
    let size_max = usize::try_from(MANY_SIZE_MAX).unwrap_or(usize::MAX);
    match sizes.into_iter().find(|size| *size > size_max) {
        Some(size) => Err(ClientError::TooMany {
            what: "bytes of one of many files",
            n: size,
            n_max: size_max,
        }),
        None => Ok(()),
    }
}

/// One answer for each file: what was found of it, or why there is nothing.
fn answers<T>(
    n: usize,
    found: impl ExactSizeIterator<Item = Option<T>>,
    refused: Vec<RefusedFile>,
) -> Result<Vec<Result<T, ErrorReply>>, ClientError> {
    if found.len() != n {
        return Err(ClientError::Misplaced("it answers another number of files"));
    }
    let mut refused = refused.into_iter().peekable();
    let answers = found.zip(0..).map(|(found, number)| {
        let reason = refused.next_if(|refused| refused.number == number);
        found.ok_or_else(|| match reason {
            Some(refused) => refused.error,
            None => ErrorReply {
                code: ErrorCode::Internal,
                message: "refused, as others before it; the answer had no room for the reason"
                    .to_owned(),
            },
        })
    });
    Ok(answers.collect())
}

/// Sends the request once its first files say whether compressing pays, if it may; and then its body.
async fn send<IO: Transport>(
    connection: &mut Connection<IO>,
    mut request: Request,
    mut items: impl Iterator<Item = (PackedPut, impl AsRef<[u8]>)>,
    may_shrink: bool,
) -> Result<u64, ConnectionError> {
    let mut packed = Vec::with_capacity(2 * PIECE_SIZE);
    let first_size = if may_shrink { FIRST_SIZE } else { PIECE_SIZE };
    pack(&mut items, &mut packed, first_size);
    let encoding = (may_shrink && pays_in_memory(&packed)).then_some(Encoding::Zstd);
    if let Some(said) = request.op.encoding_mut() {
        *said = encoding;
    }
    connection.queue_encoded(&request.encode());
    let mut body = BodyWriter::new(encoding)?;
    let mut hasher = Hasher::new();
    let mut is_refused = false;
    while !packed.is_empty() && !is_refused {
        hasher.update(&packed);
        for piece in packed.chunks(PIECE_SIZE) {
            body.send(connection, piece).await?;
        }
        pack(&mut items, &mut packed, PIECE_SIZE);
        // The server answered before the end: it refused.
        is_refused = !packed.is_empty() && connection.readable();
    }
    let trailer = if is_refused {
        Trailer::Abort {
            abort: ErrorCode::Unavailable,
        }
    } else {
        Trailer::Whole {
            size: hasher.size(),
            digest: hasher.digest(),
        }
    };
    body.end(connection, &trailer).await?;
    Ok(hasher.size())
}

/// Packs the next files, so many bytes and what the last of them has more; nothing when all are.
fn pack(
    items: &mut impl Iterator<Item = (PackedPut, impl AsRef<[u8]>)>,
    packed: &mut Vec<u8>,
    size: usize,
) {
    packed.clear();
    while packed.len() < size
        && let Some((line, content)) = items.next()
    {
        serde_json::to_writer(&mut *packed, &line).expect("the wire types are plain JSON");
        packed.push(b'\n');
        packed.extend_from_slice(content.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_gets_its_own_answer() {
        let refused = |number, message: &str| RefusedFile {
            number,
            error: ErrorReply {
                code: ErrorCode::Denied,
                message: message.to_owned(),
            },
        };
        let found = || [Some(7), None, None, Some(8), None].into_iter();
        let reasons = vec![refused(1, "one"), refused(4, "four")];
        let told = answers(5, found(), reasons).unwrap();
        let message = |n: usize| told[n].as_ref().unwrap_err().message.as_str();
        assert_eq!((&told[0], &told[3]), (&Ok(7), &Ok(8)));
        assert_eq!((message(1), message(4)), ("one", "four"));
        assert!(message(2).contains("no room"));
        for n in [4, 6] {
            assert!(answers(n, found(), Vec::new()).is_err());
        }
        // A reason for a file that was put is passed over.
        let odd = answers(5, found(), vec![refused(0, "zero"), refused(1, "one")]).unwrap();
        assert_eq!(odd[0], Ok(7));
        assert!(odd[2].is_err());
    }
}
