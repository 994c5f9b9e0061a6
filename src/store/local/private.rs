//! The store's own directories, and the machine that they are on.
//!
//! They are for the owner alone, and for one server at a time.

use std::os::fd::OwnedFd;

use rustix::fs::{
    FlockOperation, FsWord, Mode, OFlags, fchmod, flock, fstatfs, fsync, mkdirat, openat,
};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{confine, failed};
use crate::store::StoreError;

const PRIVATE_MODE: Mode = Mode::RWXU;
const LOCK_MODE: Mode = Mode::from_raw_mode(0o600);
/// The kind of a file system in memory: linux/magic.h.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// A directory for the owner alone, made if it is missing.
pub(super) fn private_directory(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(above, name, PRIVATE_MODE) {
        Ok(()) => fsync(above)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let directory = confine::open_directory(above, name)?;
    fchmod(&directory, PRIVATE_MODE)?;
    Ok(directory)
}

/// Whether a sync costs anything at all: in memory it does not.
pub(super) fn is_worth_packing(directory: &OwnedFd) -> bool {
    fstatfs(directory).is_ok_and(|status| status.f_type != TMPFS_MAGIC)
}

/// Descriptors that the process may have.
pub(super) fn n_files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Keeps other servers away until it is dropped.
pub(super) fn lock(private: &OwnedFd) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(private, "lock", flags, LOCK_MODE)
        .map_err(|error| failed("opening .fsvc/lock", error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(failed(
            "locking the root, which another server uses (stop it or give another root),",
            Errno::WOULDBLOCK,
        )),
        Err(error) => Err(failed("locking .fsvc/lock", error)),
    }
}
