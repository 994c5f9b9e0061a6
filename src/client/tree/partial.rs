//! Files of a tree that are not whole yet: beside the name that they are to have, in a directory that
//! is held open.
//!
//! A large one has a name that another run finds, which is only used if nobody else can have put
//! something there. What no run can go on with is taken away.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::destination::in_the_way;
use super::folder::{Kind, look, open_file};
use super::outcome::TreeError;
use crate::client::sidecar::Sidecar;

/// Names of files that are not whole.
const PARTIAL_PREFIX: &str = ".fsvc-tree-";
const PARTIAL_SUFFIX: &str = ".part";
/// A new file's mode, less the umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
/// What no file has that this program made: a part that has any of it is somebody else's.
const FOREIGN_MODE: u32 = 0o7111;
/// Opens no link, and waits for nobody at the other end of a pipe.
const OPEN: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Tells the partial files of this process apart.
static N_PARTIAL: AtomicU64 = AtomicU64::new(0);

/// A file that is being fetched; gone when it is dropped, unless it got its name or another run can go
/// on with it.
pub(super) struct Partial {
    directory: Arc<OwnedFd>,
    name: String,
    file: File,
    n_left: u64,
    /// What another run needs to go on with it.
    sidecar: Option<Arc<Sidecar>>,
    is_named: bool,
    /// Nobody will go on with it.
    is_over: bool,
}

impl Partial {
    /// One that no other run finds. Blocks.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(super) fn passing(directory: Arc<OwnedFd>, size: u64) -> io::Result<Self> {
        let number = N_PARTIAL.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("{PARTIAL_PREFIX}{process}-{number}{PARTIAL_SUFFIX}");
        let file = openat(&directory, name.as_str(), OPEN | OFlags::EXCL, FILE_MODE)?;
        let partial = Self {
            directory,
            name,
            file: file.into(),
            n_left: size,
            sidecar: None,
            is_named: false,
            is_over: false,
        };
        // Says to another run that somebody is at it. A file system without locks says nothing.
        let _ = flock(&partial.file, FlockOperation::NonBlockingLockExclusive);
        Ok(partial)
    }

    /// One that goes on where another run was; nothing if a run is at it, or what has the name may be
    /// somebody else's. Blocks.
    pub(super) fn kept(
        directory: &Arc<OwnedFd>,
        name: &str,
        sidecar: Arc<Sidecar>,
        size: u64,
    ) -> Option<Self> {
        let name = kept_name(name);
        let file = File::from(openat(directory, name.as_str(), OPEN, FILE_MODE).ok()?);
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        let found = fstat(&file).ok()?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        let is_own = found.st_uid == rustix::process::geteuid().as_raw()
            && found.st_nlink == 1
            && found.st_mode & FOREIGN_MODE == 0;
        // Who had the lock before may have given it its last name, or taken its name away.
        let named = statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_named = (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino);
        (is_file && is_own && is_named).then(|| Self {
            directory: Arc::clone(directory),
            name,
            file,
            n_left: size,
            sidecar: Some(sidecar),
            is_named: false,
            is_over: false,
        })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) const fn directory(&self) -> &Arc<OwnedFd> {
        &self.directory
    }

    pub(super) const fn sidecar(&self) -> Option<&Arc<Sidecar>> {
        self.sidecar.as_ref()
    }

    /// Nobody will go on with it.
    pub(super) const fn give_up(&mut self) {
        self.is_over = true;
    }

    /// Gives it a name that nothing had when it was compared. Blocks.
    pub(super) fn appear(&mut self, name: &str) -> Result<(), TreeError> {
        let here = &self.directory;
        match renameat_with(here, self.name.as_str(), here, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.is_named = true;
                Ok(())
            }
            Err(Errno::EXIST) => Err(match look(here, name)? {
                Some(Kind::File(_)) => TreeError::Twin,
                Some(other) => in_the_way(other),
                None => TreeError::ChangedHere,
            }),
            // Some file systems do not know the flag.
            Err(Errno::INVAL | Errno::NOSYS) => match look(here, name)? {
                None => self.replace(name),
                Some(Kind::File(_)) => Err(TreeError::Twin),
                Some(other) => Err(in_the_way(other)),
            },
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Gives it the name of a file that goes. Blocks.
    pub(super) fn replace(&mut self, name: &str) -> Result<(), TreeError> {
        let here = &self.directory;
        renameat(here, self.name.as_str(), here, name).map_err(io::Error::from)?;
        self.is_named = true;
        Ok(())
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.n_left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let n = self.file.write(bytes)?;
        self.n_left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let sidecar = self.sidecar.as_deref();
        let is_over = self.is_named || self.is_over;
        if !is_over && sidecar.is_some_and(Sidecar::has_parts) {
            return;
        }
        if !self.is_named {
            let _ = unlinkat(&self.directory, self.name.as_str(), AtFlags::empty());
        }
        sidecar.map(Sidecar::remove);
    }
}

/// A name beside `name` that is the same for every run. No other partial file has it: theirs have a `-`
/// in the middle.
pub(super) fn kept_name(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{PARTIAL_PREFIX}{}{PARTIAL_SUFFIX}", &hash[..16])
}

/// What a local name turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No file of ours.
    Other,
    /// Another run is at it, or it was taken away.
    Settled,
    /// A run can go on with it.
    Kept,
}

/// Looks whether a name is that of a file that is not whole; takes it away if nobody is at it and it is
/// not remembered. Blocks.
pub(super) fn reclaim(
    directory: impl AsFd,
    name: &str,
    is_remembered: impl FnOnce() -> bool,
) -> Found {
    if !name.starts_with(PARTIAL_PREFIX) || !name.ends_with(PARTIAL_SUFFIX) {
        return Found::Other;
    }
    if is_remembered() {
        return Found::Kept;
    }
    discard(directory, name);
    Found::Settled
}

/// Takes a file away that is not whole, if nobody is at it; says whether it did. Blocks.
pub(super) fn discard(directory: impl AsFd, name: &str) -> bool {
    let directory = directory.as_fd();
    let Ok((file, _)) = open_file(directory, name) else {
        return false;
    };
    // Left behind; if it cannot be removed, the next run tries again.
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        && unlinkat(directory, name, AtFlags::empty()).is_ok()
}
