//! Staging a body: bytes in, a sealed content out.
//!
//! Only what a permit allows is staged, and whatever is dropped on the way leaves nothing behind.

use std::sync::Arc;

use super::{OpError, Service};
use crate::content::ContentId;
use crate::digest::{Digest, Hasher};
use crate::fault;
use crate::protocol::Trailer;
use crate::store::{Sealed, Store, Upload};

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
    hasher: Hasher,
    store: Arc<dyn Store>,
}

/// A content that is sealed. Dropping it leaves nothing behind.
pub struct StagedContent {
    pub(super) sealed: Sealed,
    pub(super) digest: Digest,
    discard: DiscardOnDrop,
}

/// Removes a sealed content, unless a commit has taken it over.
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
        let upload = self.parts.store.begin(allowance.size);
        Ok(Staging {
            allowance,
            upload: upload.map_err(OpError::Store)?,
            hasher: Hasher::new(),
            store: Arc::clone(&self.parts.store),
        })
    }
}

impl Staging {
    /// Takes the next piece of the body. Blocks.
    ///
    /// # Errors
    /// The body is too large, or the disk is full or failed.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), OpError> {
        self.hasher.update(piece);
        if self.hasher.size() > self.allowance.size_max {
            return Err(too_large(self.hasher.size(), self.allowance.size_max));
        }
        self.upload.write(piece).map_err(OpError::Store)
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
            store,
        } = self;
        let digest = hasher.digest();
        check_trailer(trailer, allowance.size, hasher.size(), digest)?;
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
