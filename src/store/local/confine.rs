//! Opening below the root, and never outside of it.
//!
//! Every name is resolved by the kernel from a held directory, in one step that follows no link and
//! enters no other file system. What is mounted inside the tree could not be renamed into, so it is
//! not part of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, fstat, fstatfs,
    fsync, mkdirat, openat, openat2, statat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use super::failed;
use crate::content::Stamp;
use crate::path::RemotePath;
use crate::store::StoreError;

/// How often an opening is tried again that the kernel broke off, as it may while names around it
/// move.
const ATTEMPTS_MAX: usize = 64;
/// Of the directories in the tree.
pub(super) const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory that can be read, searched and synced.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// The tree under the root.
pub(super) struct Tree {
    root: OwnedFd,
    /// `/proc/self/fd`, see [`Tree::file`].
    pub(super) descriptors: OwnedFd,
}

impl Tree {
    /// Opens the root, and makes it if only its last name is missing.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        match mkdirat(CWD, path, DIRECTORY_MODE) {
            Ok(()) => sync_parent(path)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("making the root of the store", error)),
        }
        let root = openat(CWD, path, DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed("opening the root of the store as a directory", error))?;
        Ok(Self {
            root,
            descriptors: open_descriptors()
                .map_err(|error| failed("opening /proc/self/fd (is /proc mounted?)", error))?,
        })
    }

    /// The directory with this name relative to the root; the root itself for the empty name.
    pub(super) fn directory(&self, relative: &str) -> Result<OwnedFd, Errno> {
        let name = if relative.is_empty() { "." } else { relative };
        open_directory(&self.root, name)
    }

    /// What is at `path`, not opened, whatever it is.
    fn locate(&self, path: &RemotePath) -> Result<OwnedFd, StoreError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        open_beneath(&self.root, path.relative(), flags).map_err(|errno| refused(errno, path))
    }

    /// What the regular file at `path` is recognised by.
    pub(super) fn stamp(&self, path: &RemotePath) -> Result<Stamp, StoreError> {
        let found = self.locate(path)?;
        regular(&found, path)
    }

    /// The regular file at `path`, open for reading.
    ///
    /// The name is resolved once, into a descriptor that has opened nothing; only when that turns
    /// out to be a regular file is it opened, through its own number under `/proc/self/fd`. A
    /// second look by name could meet a device that was moved there meanwhile, and opening a device
    /// is already an act.
    pub(super) fn file(&self, path: &RemotePath) -> Result<(File, Stamp), StoreError> {
        let found = self.locate(path)?;
        regular(&found, path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let number = found.as_raw_fd().to_string();
        let file = openat(&self.descriptors, number, flags, Mode::empty())
            .map_err(|error| failed("opening the file", error))?;
        let stamp = regular(&file, path)?;
        Ok((file.into(), stamp))
    }
}

/// Opens `name` below `directory`, in one confined step.
fn open_beneath(directory: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let directory = directory.as_fd();
    for _ in 0..ATTEMPTS_MAX {
        let flags = flags | OFlags::CLOEXEC;
        match openat2(directory, name, flags, Mode::empty(), RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens the directory `name` below `directory`.
pub(super) fn open_directory(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    open_beneath(directory, name, DIRECTORY)
}

/// What is called `name` in `directory`, if anything is. A link is itself, not what it names.
pub(super) fn status(directory: impl AsFd, name: impl Arg) -> Result<Option<Stat>, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether it is a file, a directory, a link...
pub(super) fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

/// The stamp, if this is a regular file. A time that no timestamp can say is the nearest that one
/// can.
pub(super) fn stamp(status: &Stat) -> Option<Stamp> {
    if !kind(status).is_file() {
        return None;
    }
    let nanosecond = i32::try_from(status.st_mtime_nsec).unwrap_or_default();
    let beyond = if status.st_mtime < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Some(Stamp {
        size: u64::try_from(status.st_size).unwrap_or_default(),
        modified: Timestamp::new(status.st_mtime, nanosecond).unwrap_or(beyond),
    })
}

/// The refusal when `path` could not be opened.
pub(super) fn refused(errno: Errno, path: &RemotePath) -> StoreError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => StoreError::NotFound,
        Errno::LOOP | Errno::XDEV => StoreError::Confined(path.clone()),
        other => failed("opening a name in the tree", other),
    }
}

fn regular(found: impl AsFd, path: &RemotePath) -> Result<Stamp, StoreError> {
    let status = fstat(found).map_err(|error| failed("looking at a file", error))?;
    stamp(&status).ok_or_else(|| match kind(&status) {
        FileType::Directory => StoreError::Directory(path.clone()),
        _ => StoreError::NotAFile(path.clone()),
    })
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    openat(CWD, parent, DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(fsync)
        .map_err(|error| failed("syncing the directory above the root", error))
}

/// A directory that somebody mounted over it would give us other files than our own.
fn open_descriptors() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptors = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
    if fstatfs(&descriptors)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::Error::other("it is not of the proc file system"));
    }
    Ok(descriptors)
}
