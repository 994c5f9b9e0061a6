//! Small contents of many: files without a name, each with its bytes in a pack too.
//!
//! Nobody syncs such a file: the pack makes it durable, and after a power cut the tree is given it once
//! more. So it replaces only what is older, which is how recovery tells it from what came after it; what
//! would replace something newer becomes a staged file like any other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags, linkat, openat};

use super::confine::Tree;
use super::failed;
use super::pack::PACKED_SIZE_MAX;
use super::staging::{FILE_MODE, Staging, append, new_content, sync_file};
use crate::content::ContentId;
use crate::fault;
use crate::store::{Sealed, StoreError, Unsealed, Upload};

/// A small content that is arriving.
pub(super) struct LooseUpload {
    staging: Arc<Staging>,
    bytes: Vec<u8>,
}

impl Staging {
    /// Begins a content of `size` bytes that comes with many others.
    pub(super) fn begin_many(self: Arc<Self>, size: u64) -> Result<Box<dyn Upload>, StoreError> {
        if size > PACKED_SIZE_MAX || !self.is_loose_possible || !self.packs.has_room() {
            return self.begin(Some(size));
        }
        self.health.check()?;
        // The file, and its copy in the pack.
        self.check_space(2 * size)?;
        let bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        Ok(Box::new(LooseUpload {
            staging: self,
            bytes,
        }))
    }

    /// A file in no directory.
    fn open_loose(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        Ok(openat(&self.directory, ".", flags, FILE_MODE)?)
    }

    fn create_loose(&self) -> io::Result<(ContentId, OwnedFd)> {
        fault::point("store.stage.create")?;
        let created = (new_content()?, self.open_loose()?);
        fault::point("store.stage.create.after")?;
        Ok(created)
    }

    /// Makes a loose content a staged file like any other, durable as such.
    pub(super) fn keep_as_file(&self, tree: &Tree, content: ContentId) -> Result<(), StoreError> {
        let keeping = |error| failed("making a small content a staged file", error);
        let Some(file) = self.packs.take(content) else {
            return Ok(());
        };
        link(tree, &file, &self.directory, &content.to_string()).map_err(keeping)?;
        sync_file(&file).map_err(|source| {
            self.health.lose(StoreError::Io {
                during: "making a staged file durable",
                source,
            })
        })
    }

    /// Whether loose files can be made here, and be given names.
    pub(super) fn probe_loose(&self, tree: &Tree) -> bool {
        let probe = || -> io::Result<()> {
            let (content, file) = (new_content()?, self.open_loose()?);
            link(tree, &file, &self.directory, &content.to_string())?;
            Ok(self.discard(content)?)
        };
        probe().is_ok()
    }
}

/// Gives a loose file its first name, or finds that this is taken.
pub(super) fn publish_loose(
    tree: &Tree,
    file: &OwnedFd,
    directory: &OwnedFd,
    name: &str,
) -> io::Result<()> {
    fault::point("store.publish.link")?;
    link(tree, file, directory, name)?;
    fault::point("store.publish.link.after")
}

fn link(tree: &Tree, file: &OwnedFd, directory: &OwnedFd, name: &str) -> io::Result<()> {
    let number = file.as_raw_fd().to_string();
    let flags = AtFlags::SYMLINK_FOLLOW;
    Ok(linkat(&tree.descriptors, number, directory, name, flags)?)
}

impl LooseUpload {
    fn end(self) -> Result<Unsealed, StoreError> {
        let ending = |error| failed("ending a small content", error);
        let Self { staging, bytes } = self;
        let (content, file) = staging.create_loose().map_err(ending)?;
        append(&file, &bytes).map_err(ending)?;
        let stamp = staging.stamp(&file).map_err(ending)?;
        staging.packs.add(content, &bytes, file).map_err(ending)?;
        Ok(Unsealed { content, stamp })
    }
}

impl Upload for LooseUpload {
    fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        if (self.bytes.len() + piece.len()) as u64 > PACKED_SIZE_MAX {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(failed(
                "writing more of a small content than was said",
                error,
            ));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<Sealed, StoreError> {
        let staging = Arc::clone(&self.staging);
        let unsealed = self.end()?;
        let Unsealed { content, stamp } = unsealed;
        if let Err(error) = staging.seal_all(&[unsealed]) {
            let _ = staging.discard(content);
            return Err(error);
        }
        Ok(Sealed { content, stamp })
    }

    fn finish(self: Box<Self>) -> Result<Unsealed, StoreError> {
        self.end()
    }
}
