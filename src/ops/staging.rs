//! Staging a body: bytes in, a sealed content out.
//!
//! Only what a permit allows is staged, and whatever is dropped on the way leaves nothing behind.

use std::sync::Arc;

use super::{OpError, OpenFile, Service};
use crate::content::ContentId;
use crate::digest::{Digest, Hasher};
use crate::fault;
use crate::protocol::Trailer;
use crate::store::{Sealed, Store, StoreError, Unsealed, Upload};

/// Bytes of a file that are copied at a time.
const COPY_PIECE_SIZE: usize = 256 << 10;

/// What a permit allows to be staged.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Bytes, where they were announced.
    pub(super) size: Option<u64>,
    pub(super) size_max: u64,
}

impl Allowance {
    /// Bytes, where they were announced.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }
}

/// A body that is arriving. Dropping it leaves nothing behind.
pub struct Staging {
    allowance: Allowance,
    upload: Box<dyn Upload>,
    /// Of all that is staged.
    hasher: Hasher,
    /// Of the body, where it stands behind something else.
    body: Option<Hasher>,
    store: Arc<dyn Store>,
}

/// A content that is sealed. Dropping it leaves nothing behind.
pub struct StagedContent {
    pub(super) sealed: Sealed,
    pub(super) digest: Digest,
    discard: DiscardOnDrop,
}

/// A content that has arrived and is not durable yet. Dropping it leaves nothing behind.
pub(super) struct Arrived {
    unsealed: Unsealed,
    digest: Digest,
    discard: DiscardOnDrop,
}

/// Removes a staged content, unless a commit has taken it over.
struct DiscardOnDrop {
    store: Arc<dyn Store>,
    content: Option<ContentId>,
}

impl Drop for DiscardOnDrop {
    fn drop(&mut self) {
        if let Some(content) = self.content {
            self.store.discard(content);
        }
    }
}

impl Service {
    /// Begins to stage a body. Blocks.
    ///
    /// # Errors
    /// The store is full, read-only or failed.
    pub fn begin(&self, allowance: Allowance) -> Result<Staging, OpError> {
        self.begin_behind(allowance, None)
    }

    /// Begins to stage one of many bodies of a known size. Blocks.
    ///
    /// # Errors
    /// The store is full, read-only or failed.
    pub(super) fn begin_many(&self, allowance: Allowance) -> Result<Staging, OpError> {
        let upload = self
            .parts
            .store
            .begin_many(allowance.size.unwrap_or_default());
        Ok(self.staging(allowance, upload.map_err(OpError::Store)?))
    }

    fn staging(&self, allowance: Allowance, upload: Box<dyn Upload>) -> Staging {
        Staging {
            allowance,
            upload,
            hasher: Hasher::new(),
            body: None,
            store: Arc::clone(&self.parts.store),
        }
    }

    /// Begins to stage a body behind what a file has, if there is one. Blocks.
    ///
    /// # Errors
    /// The store is full, read-only or failed, or the file was cut short meanwhile.
    pub fn begin_behind(
        &self,
        allowance: Allowance,
        file: Option<OpenFile>,
    ) -> Result<Staging, OpError> {
        let size = file.as_ref().map_or(0, |file| file.info.size);
        let upload = self
            .parts
            .store
            .begin(allowance.size.map(|n| n.saturating_add(size)));
        let mut staging = self.staging(allowance, upload.map_err(OpError::Store)?);
        if let Some(file) = file {
            staging.copy(&file)?;
            staging.body = Some(Hasher::new());
        }
        Ok(staging)
    }

    /// Makes what has arrived durable, all of it together. Blocks.
    ///
    /// # Errors
    /// The disk failed; nothing is left of any.
    pub(super) fn seal_all(&self, arrived: Vec<Arrived>) -> Result<Vec<StagedContent>, OpError> {
        let contents: Vec<Unsealed> = arrived.iter().map(|one| one.unsealed).collect();
        let sealed = self.parts.store.seal_all(&contents);
        let sealed = sealed.map_err(OpError::Store)?;
        let _ = fault::point("put.seal.after");
        let staged = arrived.into_iter().zip(sealed);
        let staged = staged.map(|(arrived, sealed)| StagedContent {
            sealed,
            digest: arrived.digest,
            discard: arrived.discard,
        });
        Ok(staged.collect())
    }
}

impl Staging {
    /// Takes the next piece of the body. Blocks.
    ///
    /// # Errors
    /// The body is too large, or the disk is full or failed.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), OpError> {
        self.hasher.update(piece);
        if let Some(body) = &mut self.body {
            body.update(piece);
        }
        if self.hasher.size() > self.allowance.size_max {
            return Err(too_large(self.hasher.size(), self.allowance.size_max));
        }
        self.upload.write(piece).map_err(OpError::Store)
    }

    /// Takes the content of a file, as it was when it was opened. Blocks.
    ///
    /// # Errors
    /// It was cut short meanwhile, the content is too large, or a disk failed.
    pub(super) fn copy(&mut self, file: &OpenFile) -> Result<(), OpError> {
        let mut buffer = vec![0; COPY_PIECE_SIZE];
        let mut n_read = 0;
        while n_read < file.info.size {
            let left = usize::try_from(file.info.size - n_read).unwrap_or(usize::MAX);
            let room = left.min(buffer.len());
            let n = file.content.read_at(&mut buffer[..room], n_read);
            let n = n.map_err(|source| {
                OpError::Store(StoreError::Io {
                    during: "reading a file",
                    source,
                })
            })?;
            if n == 0 {
                return Err(OpError::Unsettled(file.info.path.clone()));
            }
            self.write(&buffer[..n])?;
            n_read += n as u64;
        }
        match file.info.digest {
            Some(known) if known != self.digest() => Err(OpError::Mismatch {
                what: "the stored file's digest",
                announced: known.to_string(),
                arrived: self.digest().to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Bytes so far.
    pub const fn size(&self) -> u64 {
        self.hasher.size()
    }

    /// The digest of what came so far.
    pub fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    /// Holds what arrived against what the sender says it sent, and makes it durable. Blocks.
    ///
    /// # Errors
    /// Size or digest differ, the sender gave up, or the disk failed.
    pub fn seal(self, trailer: &Trailer) -> Result<StagedContent, OpError> {
        let Self {
            allowance,
            upload,
            hasher,
            body,
            store,
        } = self;
        let digest = hasher.digest();
        let body = body.as_ref().unwrap_or(&hasher);
        check_trailer(trailer, allowance.size, body.size(), body.digest())?;
        let sealed = upload.seal().map_err(OpError::Store)?;
        let discard = DiscardOnDrop {
            store,
            content: Some(sealed.content),
        };
        let _ = fault::point("put.seal.after");
        Ok(StagedContent {
            sealed,
            digest,
            discard,
        })
    }

    /// Holds what arrived against what the sender says it sent; it is durable after
    /// [`Service::seal_all`]. Blocks.
    ///
    /// # Errors
    /// Size or digest differ, or the disk failed.
    pub(super) fn finish(self, trailer: &Trailer) -> Result<Arrived, OpError> {
        let digest = self.hasher.digest();
        check_trailer(trailer, self.allowance.size, self.hasher.size(), digest)?;
        let unsealed = self.upload.finish().map_err(OpError::Store)?;
        let discard = DiscardOnDrop {
            store: self.store,
            content: Some(unsealed.content),
        };
        Ok(Arrived {
            unsealed,
            digest,
            discard,
        })
    }
}

impl StagedContent {
    /// Bytes.
    pub const fn size(&self) -> u64 {
        self.sealed.stamp.size
    }

    /// Leaves the content to whoever takes its id.
    pub(super) fn release(mut self) -> ContentId {
        self.discard.content = None;
        self.sealed.content
    }
}

/// Holds what arrived against what the sender says it sent.
///
/// # Errors
/// Size or digest differ, or the sender gave up.
pub fn check_trailer(
    trailer: &Trailer,
    announced: Option<u64>,
    size: u64,
    digest: Digest,
) -> Result<(), OpError> {
    let (sent_size, sent) = match trailer {
        Trailer::Abort { abort } => return Err(OpError::Aborted(*abort)),
        Trailer::Whole { size, digest } => (*size, *digest),
        Trailer::Range { .. } => {
            return Err(OpError::BadRequest("the end of this body needs a digest"));
        }
    };
    check_size("the body's size", sent_size, size)?;
    check_size("the announced size", announced.unwrap_or(sent_size), size)?;
    if sent == digest {
        return Ok(());
    }
    Err(OpError::Mismatch {
        what: "the body's digest",
        announced: sent.to_string(),
        arrived: digest.to_string(),
    })
}

fn check_size(what: &'static str, announced: u64, arrived: u64) -> Result<(), OpError> {
    if announced == arrived {
        return Ok(());
    }
    Err(OpError::Mismatch {
        what,
        announced: announced.to_string(),
        arrived: arrived.to_string(),
    })
}

pub(super) fn too_large(size: u64, size_max: u64) -> OpError {
    OpError::TooLarge {
        what: "the file",
        size,
        size_max,
    }
}
