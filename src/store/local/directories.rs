//! The directories of the tree: made when a file needs them, removed when none is in them.
//!
//! A directory that got or lost a name is in [`Dirty`] before anybody else can rely on the name.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, fstat, fsync, mkdirat, unlinkat};
use rustix::io::Errno;

use super::confine::{DIRECTORY_MODE, Tree, kind, open_directory, refused, stamp, status};
use super::failed;
use crate::content::Stamp;
use crate::fault;
use crate::path::{DEPTH_MAX, Prefix, RemotePath};
use crate::store::StoreError;

/// Directories that may wait for a sync before the next change.
const DIRTY_MAX: usize = 64;
/// Names looked at to find out whether a directory holds nothing but directories.
const HOLLOW_NAMES_MAX: usize = 1024;

/// Directories whose names are not durable yet, each held open and kept once.
#[derive(Default)]
pub(super) struct Dirty(HashMap<(u64, u64), Arc<OwnedFd>>);

impl Dirty {
    /// Whether the next change should wait for a sync. One change adds a bounded number more.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= DIRTY_MAX
    }

    /// How many wait.
    pub(super) fn n(&self) -> usize {
        self.0.len()
    }

    /// They need no sync of their own.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Remembers a directory.
    pub(super) fn insert(&mut self, directory: impl Into<Arc<OwnedFd>>) {
        let directory = directory.into();
        let key = match fstat(&directory) {
            Ok(status) => (status.st_dev, status.st_ino),
            // Kept under a key of its own: a second sync is harmless, a missing one is not.
            Err(_) => (u64::MAX, u64::from(directory.as_raw_fd().unsigned_abs())),
        };
        self.0.insert(key, directory);
    }

    /// Syncs each directory once and forgets them all: an error is final.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        for (_, directory) in self.0.drain() {
            sync_directory(&directory).map_err(|error| failed("syncing a directory", error))?;
        }
        Ok(())
    }
}

/// The directory of the last file, which the next one is often in too. Only for the length of a call:
/// another program may move a directory away that is held open.
#[derive(Default)]
pub(super) struct Near(Option<(Prefix, Arc<OwnedFd>)>);

impl Near {
    /// The directory for the file at `path`, if it is the same.
    pub(super) fn find(&self, path: &RemotePath) -> Option<Arc<OwnedFd>> {
        let (name, directory) = self.0.as_ref()?;
        path.is_in(name).then(|| Arc::clone(directory))
    }

    /// Keeps the directory of the file at `path`, in place of the one before.
    pub(super) fn keep(&mut self, path: &RemotePath, directory: OwnedFd) -> Arc<OwnedFd> {
        let directory = Arc::new(directory);
        self.0 = Some((path.parent(), Arc::clone(&directory)));
        directory
    }

    /// It may be gone.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

fn sync_directory(directory: &OwnedFd) -> io::Result<()> {
    fault::point("store.sync.fsync")?;
    fsync(directory)?;
    fault::point("store.sync.fsync.after")
}

/// The directory that the file at `path` is or would be in, if it is there.
pub(super) fn parent(tree: &Tree, path: &RemotePath) -> Result<Option<OwnedFd>, StoreError> {
    match tree.directory(path.parent().relative()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => Err(file_above(tree, path)),
        Err(errno) => Err(refused(errno, path)),
    }
}

/// The directory for the file at `path`, made where it is missing.
pub(super) fn make_parent(
    tree: &Tree,
    path: &RemotePath,
    dirty: &mut Dirty,
) -> Result<OwnedFd, StoreError> {
    if let Some(directory) = parent(tree, path)? {
        return Ok(directory);
    }
    let mut above = tree.directory("").map_err(|errno| refused(errno, path))?;
    for name in path.parent().segments() {
        let made =
            make_directory(&above, name).map_err(|error| failed("making a directory", error))?;
        let opened = open_directory(&above, name);
        // Before anything else can fail: the next caller finds the directory and relies on it.
        if made {
            dirty.insert(above);
        }
        above = opened.map_err(|errno| match errno {
            Errno::NOTDIR => file_above(tree, path),
            errno => refused(errno, path),
        })?;
    }
    Ok(above)
}

/// Whether it had to be made.
fn make_directory(above: &OwnedFd, name: &str) -> io::Result<bool> {
    // An existing name costs no fault point: only a new directory is a change.
    if status(above, name)?.is_some() {
        return Ok(false);
    }
    fault::point("store.mkdir")?;
    match mkdirat(above, name, DIRECTORY_MODE) {
        Ok(()) => fault::point("store.mkdir.after").map(|()| true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The refusal when something above `path` is not a directory.
fn file_above(tree: &Tree, path: &RemotePath) -> StoreError {
    for above in path.ancestors() {
        match tree.stamp(&above) {
            Ok(_) => {
                return StoreError::FileAbove {
                    path: path.clone(),
                    above,
                };
            }
            Err(refusal @ (StoreError::NotAFile(_) | StoreError::Confined(_))) => return refusal,
            Err(_) => {}
        }
    }
    failed("opening a directory that keeps changing", Errno::AGAIN)
}

/// Removes the directories above `path` that are empty, innermost first; never the root.
pub(super) fn prune(tree: &Tree, path: &RemotePath, dirty: &mut Dirty) -> Result<(), StoreError> {
    for above in path.ancestors() {
        let Ok(directory) = tree.directory(above.parent().relative()) else {
            continue;
        };
        match remove_directory(&directory, above.file_name()) {
            Ok(()) => dirty.insert(directory),
            Err(error) => match Errno::from_io_error(&error) {
                // Removed by a call that did not get further: what is above it may be left.
                Some(Errno::NOENT) => {}
                Some(Errno::IO) => return Err(failed("removing an empty directory", error)),
                // It is in use, or not ours to remove.
                _ => break,
            },
        }
    }
    Ok(())
}

fn remove_directory(above: &OwnedFd, name: &str) -> io::Result<()> {
    fault::point("store.prune.rmdir")?;
    unlinkat(above, name, AtFlags::REMOVEDIR)?;
    fault::point("store.prune.rmdir.after")
}

/// Whether the directory `name` holds directories at most. Such a one is no name of a client's: it
/// is what a refused put left behind.
pub(super) fn is_hollow(above: impl AsFd, name: &str) -> Result<bool, Errno> {
    let mut n_left = HOLLOW_NAMES_MAX;
    hollow(above.as_fd(), name, DEPTH_MAX, &mut n_left, false)
}

/// Removes a hollow directory with those in it; says whether the name is free.
pub(super) fn clear_hollow(above: impl AsFd, name: &str) -> Result<bool, Errno> {
    if !is_hollow(above.as_fd(), name)? {
        return Ok(false);
    }
    let mut n_left = HOLLOW_NAMES_MAX;
    hollow(above.as_fd(), name, DEPTH_MAX, &mut n_left, true)
}

fn hollow(
    above: impl AsFd,
    name: &str,
    n_levels: usize,
    n_left: &mut usize,
    remove: bool,
) -> Result<bool, Errno> {
    let directory = match open_directory(above.as_fd(), name) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(true),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let Ok(inner) = entry.file_name().to_str() else {
            return Ok(false);
        };
        if matches!(inner, "." | "..") {
            continue;
        }
        if n_levels == 0 || *n_left == 0 {
            return Ok(false);
        }
        *n_left -= 1;
        if !hollow(&directory, inner, n_levels - 1, n_left, remove)? {
            return Ok(false);
        }
    }
    if !remove {
        return Ok(true);
    }
    match unlinkat(above, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a file may take the name of `path` in `parent`; and the stamp of the file that has it.
pub(super) fn check_name(parent: &OwnedFd, path: &RemotePath) -> Result<Option<Stamp>, StoreError> {
    let looking = |error| failed("looking at a name in the tree", error);
    let Some(status) = status(parent, path.file_name()).map_err(looking)? else {
        return Ok(None);
    };
    match kind(&status) {
        FileType::RegularFile => Ok(stamp(&status)),
        FileType::Directory if is_hollow(parent, path.file_name()).map_err(looking)? => Ok(None),
        FileType::Directory => Err(StoreError::Directory(path.clone())),
        _ => Err(StoreError::NotAFile(path.clone())),
    }
}
