//! One run at a time in a directory of certificates.
//!
//! The lock file stays; only the lock on it comes and goes, so no process can lock a removed file.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::PkiError;
use super::layout::SECRET;

/// How long a run waits for another one.
pub(super) const WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Held while a run is at work; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the lock at `path`, waiting at most `wait`.
pub(super) fn take(path: &Path, wait: Duration) -> Result<Lock, PkiError> {
    take_with(path, OFlags::RDWR | OFlags::CREATE, wait)
}

/// Takes the lock of a directory that has no file for it.
pub(super) fn take_dir(path: &Path, wait: Duration) -> Result<Lock, PkiError> {
    take_with(path, OFlags::RDONLY | OFlags::DIRECTORY, wait)
}

fn take_with(path: &Path, flags: OFlags, wait: Duration) -> Result<Lock, PkiError> {
    let failed = |errno: Errno| PkiError::io("lock", path, errno.into());
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(SECRET)).map_err(failed)?);
    let deadline = Instant::now() + wait;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(POLL),
            Err(Errno::WOULDBLOCK) => {
                return Err(PkiError::Locked {
                    path: path.to_owned(),
                    waited_s: wait.as_secs(),
                });
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_and_then_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = take(&path, Duration::ZERO).unwrap();
        let error = take(&path, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("lock"), "{error}");
        assert_eq!(error.kind(), super::super::ErrorKind::Busy);
        drop(held);
        take(&path, Duration::ZERO).unwrap();
    }
}
