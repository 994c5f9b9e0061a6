//! Files of a tree that are not whole yet: beside the name that they are to have, in a directory that
//! is held open.
//!
//! A large one has a name that another run finds, which is only used if nobody else can have put
//! something there. Others have none where the file system can do that, so that nothing is left of
//! them; what has one and no run can go on with is taken away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, linkat,
    openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::destination::in_the_way;
use super::folder::{Kind, look, open_file};
use super::outcome::TreeError;
use crate::client::landing::Limited;
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

/// Where a file that has no name can be reached to be given one: linkat(2).
const OPEN_FILES: &str = "/proc/self/fd";

/// Tells the partial files of this process apart.
static N_PARTIAL: AtomicU64 = AtomicU64::new(0);

/// A file that is being fetched; gone when it is dropped, unless it got its name or another run can go
/// on with it.
pub(super) struct Partial {
    directory: Arc<OwnedFd>,
    /// The one that it has meanwhile.
    name: Option<String>,
    file: Limited,
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
        if let Some(file) = nameless(&directory)? {
            return Ok(Self::new(directory, None, file, size));
        }
        Self::named(directory, size)
    }

    pub(super) fn named(directory: Arc<OwnedFd>, size: u64) -> io::Result<Self> {
        let name = passing_name();
        let file = openat(&directory, name.as_str(), OPEN | OFlags::EXCL, FILE_MODE)?;
        let partial = Self::new(directory, Some(name), file.into(), size);
        partial.lock();
        Ok(partial)
    }

    const fn new(directory: Arc<OwnedFd>, name: Option<String>, file: File, size: u64) -> Self {
        Self {
            directory,
            name,
            file: Limited::new(file, size),
            sidecar: None,
            is_named: false,
            is_over: false,
        }
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
        if !is_file || !is_own || !is_named {
            return None;
        }
        let mut kept = Self::new(Arc::clone(directory), Some(name), file, size);
        kept.sidecar = Some(sidecar);
        Some(kept)
    }

    pub(super) const fn file(&self) -> &File {
        self.file.file()
    }

    /// Where its content goes, no more of it than was listed.
    pub(super) const fn sink(&mut self) -> &mut Limited {
        &mut self.file
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
        let named = match &self.name {
            Some(own) => renameat_with(here, own.as_str(), here, name, RenameFlags::NOREPLACE),
            None => self.link(name),
        };
        match named {
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
        let own = if let Some(own) = self.name.take() {
            own
        } else {
            let own = passing_name();
            self.lock();
            self.link(&own).map_err(io::Error::from)?;
            own
        };
        let here = &self.directory;
        let renamed = renameat(here, own.as_str(), here, name);
        self.name = Some(own);
        renamed.map_err(io::Error::from)?;
        self.is_named = true;
        Ok(())
    }

    /// Says to another run that somebody is at it. A file system without locks says nothing.
    fn lock(&self) {
        let _ = flock(self.file(), FlockOperation::NonBlockingLockExclusive);
    }

    fn link(&self, name: &str) -> Result<(), Errno> {
        let open = format!("{OPEN_FILES}/{}", self.file().as_raw_fd());
        linkat(CWD, open, &self.directory, name, AtFlags::SYMLINK_FOLLOW)
    }
}

/// A file that has no name, if there can be one here that can be given one.
fn nameless(directory: &OwnedFd) -> io::Result<Option<File>> {
    static CAN_BE_NAMED: LazyLock<bool> = LazyLock::new(|| Path::new(OPEN_FILES).is_dir());
    if !*CAN_BE_NAMED {
        return Ok(None);
    }
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match openat(directory, ".", flags, FILE_MODE) {
        Ok(file) => Ok(Some(file.into())),
        // What file systems and kernels that cannot do it say: open(2).
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn passing_name() -> String {
    let number = N_PARTIAL.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!("{PARTIAL_PREFIX}{process}-{number}{PARTIAL_SUFFIX}")
}

impl Drop for Partial {
    fn drop(&mut self) {
        let sidecar = self.sidecar.as_deref();
        let is_over = self.is_named || self.is_over;
        if !is_over && sidecar.is_some_and(Sidecar::has_parts) {
            return;
        }
        if let Some(name) = &self.name
            && !self.is_named
        {
            let _ = unlinkat(&self.directory, name.as_str(), AtFlags::empty());
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::folder::Folder;
    use super::*;

    #[test]
    fn with_a_name_or_without_it_is_the_same() {
        let place = tempfile::tempdir().unwrap();
        let directory = Folder::open(place.path()).unwrap().directory("").unwrap();
        let directory = Arc::new(directory);
        for (number, begin) in [Partial::passing, Partial::named].into_iter().enumerate() {
            let whole = || {
                let mut partial = begin(Arc::clone(&directory), 3).unwrap();
                partial.sink().write_all(b"new").unwrap();
                assert!(partial.sink().write_all(b"!").is_err());
                partial
            };
            let name = number.to_string();
            let at = place.path().join(&name);
            whole().appear(&name).unwrap();
            assert_eq!(fs::read(&at).unwrap(), b"new");
            assert!(matches!(whole().appear(&name), Err(TreeError::Twin)));
            fs::write(&at, "other").unwrap();
            whole().replace(&name).unwrap();
            assert_eq!(fs::read(&at).unwrap(), b"new");
            drop(whole());
            fs::create_dir(place.path().join("d")).unwrap();
            assert!(whole().replace("d").is_err());
            fs::remove_dir(place.path().join("d")).unwrap();
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), number + 1);
        }
    }
}
