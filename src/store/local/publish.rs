//! Making the tree say what the log says.
//!
//! Every step can be done twice: what it finds done already is made durable all the same, since the
//! process that did it may not have come to its sync.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::attached::Attachments;
use super::confine::{Tree, stamp, status};
use super::directories::{Dirty, Near, clear_hollow, make_parent, parent, prune};
use super::failed;
use super::reaper::Reaper;
use super::staging::{Staging, append, set_modified};
use crate::content::{ContentId, Stamp};
use crate::fault;
use crate::path::RemotePath;
use crate::store::{Publication, Published, StoreError};

/// How often a step is tried again when other programs change the directories under it.
const ATTEMPTS_MAX: usize = 16;

/// What a publication works on.
pub(super) struct Publisher<'a> {
    pub(super) tree: &'a Tree,
    pub(super) staging: &'a Staging,
    pub(super) attached: &'a Attachments,
    pub(super) dirty: &'a mut Dirty,
    pub(super) near: &'a mut Near,
    pub(super) reaper: &'a Reaper,
}

/// A regular file, by the directory it is in.
struct Found {
    directory: OwnedFd,
    inode: (u64, u64),
}

impl Publisher<'_> {
    pub(super) fn publish(&mut self, publication: &Publication) -> Result<Published, StoreError> {
        if !matches!(publication, Publication::Place { .. }) {
            // It may remove directories that are empty then.
            self.near.forget();
        }
        match publication {
            Publication::Place {
                content,
                stamp,
                path,
            } => self.place(*content, *stamp, path),
            Publication::Rename { from, to, stamp } => self.rename(from, to, *stamp),
            Publication::Remove { path, stamp } => self.remove(path, *stamp),
            Publication::Attach { content } => {
                let (outcome, directory) = self.attached.take(&self.staging.directory, *content)?;
                self.dirty.insert(directory);
                Ok(outcome)
            }
        }
    }

    fn place(
        &mut self,
        content: ContentId,
        wanted: Stamp,
        path: &RemotePath,
    ) -> Result<Published, StoreError> {
        if let Some(file) = self.staging.packs.take(content) {
            return self.place_loose(&file, content, path);
        }
        let name = content.to_string();
        let staged = status(&self.staging.directory, &name)
            .map_err(|error| failed("looking at a staged file", error))?;
        if staged.as_ref().and_then(stamp) != Some(wanted) {
            return self.settled(path, wanted);
        }
        let directory = self.move_to(&self.staging.directory, &name, path)?;
        self.dirty.insert(directory);
        Ok(Published::Done)
    }

    /// Gives a small content its name; a pack makes it durable, so that no directory needs a sync.
    fn place_loose(
        &mut self,
        file: &OwnedFd,
        content: ContentId,
        path: &RemotePath,
    ) -> Result<Published, StoreError> {
        let publishing = |error| failed("publishing a small file", error);
        for _ in 0..ATTEMPTS_MAX {
            let target = self.target(path)?;
            let linked = self
                .staging
                .publish_loose(self.tree, file, &target, path.file_name());
            let Err(error) = linked else {
                return Ok(Published::Unsettled);
            };
            match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => self.near.forget(),
                Some(Errno::EXIST) => {
                    // A name is taken over by a rename alone.
                    let (staging, name) = (self.staging, content.to_string());
                    staging
                        .publish_loose(self.tree, file, &staging.directory, &name)
                        .map_err(publishing)?;
                    self.move_to(&staging.directory, &name, path)?;
                    return Ok(Published::Unsettled);
                }
                Some(Errno::XDEV) => return Err(StoreError::Confined(path.clone())),
                _ => return Err(publishing(error)),
            }
        }
        Err(publishing(Errno::AGAIN.into()))
    }

    /// Makes a content of the last run the file at `path` once more, unless it is.
    pub(super) fn restore(
        &mut self,
        bytes: &[u8],
        wanted: Stamp,
        path: &RemotePath,
    ) -> Result<(), StoreError> {
        let restoring = |error| failed("restoring a small file", error);
        if self.find(path, wanted)?.is_some() && self.has(bytes, path) {
            return Ok(());
        }
        let (content, file) = self.staging.create().map_err(restoring)?;
        append(&file, bytes).map_err(restoring)?;
        let modified = i64::try_from(wanted.modified.as_nanosecond()).unwrap_or_default();
        set_modified(&file, modified).map_err(|errno| restoring(errno.into()))?;
        self.move_to(&self.staging.directory, &content.to_string(), path)?;
        Ok(())
    }

    /// Whether the file at `path` has this content: a power cut may leave a file that has its stamp
    /// alone.
    fn has(&self, bytes: &[u8], path: &RemotePath) -> bool {
        let Ok((file, _)) = self.tree.file(path) else {
            return false;
        };
        let mut found = Vec::with_capacity(bytes.len() + 1);
        let read = file.take(bytes.len() as u64 + 1).read_to_end(&mut found);
        read.is_ok() && found == bytes
    }

    /// The directory for the file at `path`.
    fn target(&mut self, path: &RemotePath) -> Result<Arc<OwnedFd>, StoreError> {
        if let Some(near) = self.near.find(path) {
            return Ok(near);
        }
        let made = make_parent(self.tree, path, self.dirty)?;
        Ok(self.near.keep(path, made))
    }

    fn rename(
        &mut self,
        from: &RemotePath,
        to: &RemotePath,
        wanted: Stamp,
    ) -> Result<Published, StoreError> {
        let Some(source) = self.find(from, wanted)? else {
            if let Ok(Some(directory)) = parent(self.tree, from) {
                self.dirty.insert(directory);
            }
            prune(self.tree, from, self.dirty)?;
            return self.settled(to, wanted);
        };
        if from == to {
            return self.settled(to, wanted);
        }
        match self.find(to, wanted)? {
            // To rename one name of a file over another of its names does nothing.
            Some(target) if target.inode == source.inode => {
                unlink(&source.directory, from.file_name())
                    .map_err(|error| failed("removing the old name of a file", error))?;
            }
            _ => {
                let directory = self.move_to(&source.directory, from.file_name(), to)?;
                self.dirty.insert(directory);
            }
        }
        self.dirty.insert(source.directory);
        prune(self.tree, from, self.dirty)?;
        Ok(Published::Done)
    }

    fn remove(&mut self, path: &RemotePath, wanted: Stamp) -> Result<Published, StoreError> {
        match self.find(path, wanted)? {
            Some(found) => {
                let _removed = self.reaper.hold(&found.directory, path.file_name());
                unlink(&found.directory, path.file_name())
                    .map_err(|error| failed("removing a file", error))?;
                self.dirty.insert(found.directory);
            }
            None => {
                if let Ok(Some(directory)) = parent(self.tree, path) {
                    self.dirty.insert(directory);
                }
            }
        }
        prune(self.tree, path, self.dirty)?;
        Ok(Published::Done)
    }

    /// The outcome when there is nothing to move: done if the file stands where it should.
    fn settled(&mut self, path: &RemotePath, wanted: Stamp) -> Result<Published, StoreError> {
        let Some(found) = self.find(path, wanted)? else {
            return Ok(Published::Missing);
        };
        self.dirty.insert(found.directory);
        Ok(Published::Done)
    }

    /// The file at `path`, if it has the stamp. Whatever else is there is not ours.
    fn find(&self, path: &RemotePath, wanted: Stamp) -> Result<Option<Found>, StoreError> {
        let directory = match parent(self.tree, path) {
            Ok(Some(directory)) => directory,
            Err(error @ (StoreError::Io { .. } | StoreError::OutOfSpace(_))) => return Err(error),
            Ok(None) | Err(_) => return Ok(None),
        };
        let found = status(&directory, path.file_name())
            .map_err(|error| failed("looking at a published file", error))?
            .filter(|status| stamp(status) == Some(wanted));
        Ok(found.map(|status| Found {
            directory,
            inode: (status.st_dev, status.st_ino),
        }))
    }

    /// Moves the file to `path` and returns the directory that it is in now.
    fn move_to(
        &mut self,
        source: &OwnedFd,
        name: &str,
        path: &RemotePath,
    ) -> Result<Arc<OwnedFd>, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let target = self.target(path)?;
            let Err(error) = self.rename_file(source, name, &target, path.file_name()) else {
                return Ok(target);
            };
            match Errno::from_io_error(&error) {
                // The directory went while we held it.
                Some(Errno::NOENT) => self.near.forget(),
                Some(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                    let cleared = clear_hollow(&*target, path.file_name())
                        .map_err(|error| failed("clearing a name for a file", error))?;
                    if !cleared {
                        return Err(StoreError::Directory(path.clone()));
                    }
                }
                Some(Errno::XDEV) => return Err(StoreError::Confined(path.clone())),
                _ => return Err(failed("publishing a file", error)),
            }
        }
        Err(failed(
            "publishing into directories that keep changing",
            Errno::AGAIN,
        ))
    }

    fn rename_file(
        &self,
        source: &OwnedFd,
        name: &str,
        target: &OwnedFd,
        to: &str,
    ) -> io::Result<()> {
        fault::point("store.publish.rename")?;
        // Mostly nothing has the name yet. Not every file system can be asked for that.
        if renameat_with(source, name, target, to, RenameFlags::NOREPLACE).is_err() {
            let _replaced = self.reaper.hold(target, to);
            renameat(source, name, target, to)?;
        }
        fault::point("store.publish.rename.after")
    }
}

/// Removes a name; it may be gone already.
fn unlink(directory: &OwnedFd, name: &str) -> io::Result<()> {
    fault::point("store.publish.unlink")?;
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => fault::point("store.publish.unlink.after"),
        Err(errno) => Err(errno.into()),
    }
}
