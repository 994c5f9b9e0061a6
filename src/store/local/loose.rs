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

/// How a file without a name is named: link(2).
#[derive(Clone, Copy)]
pub(super) enum Naming {
    /// Not every kernel lets every process do so.
    ByDescriptor,
    /// Through its number under `/proc/self/fd`, which is the slower way.
    ByNumber,
}

/// A small content that is arriving.
pub(super) struct LooseUpload {
    staging: Arc<Staging>,
    bytes: Vec<u8>,
}

impl Staging {
    /// Begins a content of `size` bytes that comes with many others.
    pub(super) fn begin_many(self: Arc<Self>, size: u64) -> Result<Box<dyn Upload>, StoreError> {
        if size > PACKED_SIZE_MAX || self.naming.is_none() || !self.packs.has_room() {
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
        let linked = self.link(tree, &file, &self.directory, &content.to_string());
        linked.map_err(keeping)?;
        sync_file(&file).map_err(|source| {
            self.health.lose(StoreError::Io {
                during: "making a staged file durable",
                source,
            })
        })
    }

    /// How loose files get their names here, if they can be made at all.
    pub(super) fn probe_naming(&self, tree: &Tree) -> Option<Naming> {
        let probe = |naming| -> io::Result<()> {
            let (content, file) = (new_content()?, self.open_loose()?);
            link(naming, tree, &file, &self.directory, &content.to_string())?;
            Ok(self.discard(content)?)
        };
        let mut namings = [Naming::ByDescriptor, Naming::ByNumber].into_iter();
        namings.find(|naming| probe(*naming).is_ok())
    }

    /// Gives a loose file its first name, or finds that this is taken.
    pub(super) fn publish_loose(
        &self,
        tree: &Tree,
        file: &OwnedFd,
        directory: &OwnedFd,
        name: &str,
    ) -> io::Result<()> {
        fault::point("store.publish.link")?;
        self.link(tree, file, directory, name)?;
        fault::point("store.publish.link.after")
    }

    fn link(&self, tree: &Tree, file: &OwnedFd, directory: &OwnedFd, name: &str) -> io::Result<()> {
        let naming = self.naming.unwrap_or(Naming::ByNumber);
        link(naming, tree, file, directory, name)
    }
}

fn link(
    naming: Naming,
    tree: &Tree,
    file: &OwnedFd,
    directory: &OwnedFd,
    name: &str,
) -> io::Result<()> {
    match naming {
        Naming::ByDescriptor => linkat(file, "", directory, name, AtFlags::EMPTY_PATH)?,
        Naming::ByNumber => {
            let number = file.as_raw_fd().to_string();
            let flags = AtFlags::SYMLINK_FOLLOW;
            linkat(&tree.descriptors, number, directory, name, flags)?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::packs::Packs;
    use super::*;

    #[test]
    fn a_name_is_given_in_either_way_and_never_taken_over() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = Tree::open(scratch.path()).unwrap();
        let directory = || tree.directory("").unwrap();
        let packs = Packs::open(directory(), 16).unwrap();
        let staging = Staging::new(directory(), packs, 0).unwrap();
        let best = staging.probe_naming(&tree).unwrap();
        for naming in [best, Naming::ByNumber] {
            let (content, file) = staging.create_loose().unwrap();
            append(&file, b"first").unwrap();
            let name = content.to_string();
            link(naming, &tree, &file, &directory(), &name).unwrap();
            let (_, other) = staging.create_loose().unwrap();
            let error = link(naming, &tree, &other, &directory(), &name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            let found = std::fs::read(scratch.path().join(name)).unwrap();
            assert_eq!(found, b"first");
        }
    }
}
