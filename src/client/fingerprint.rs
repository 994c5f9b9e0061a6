//! What tells a local file from the one that it was a moment ago.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A file is the same while this is: a write changes the last of it, whatever is done to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    pub device: u64,
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Of the inode: seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl Fingerprint {
    /// Of a file that is open.
    ///
    /// # Errors
    /// The file system failed.
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }
}

/// How long a file must be as it is, before a later change is sure to show in its times: the kernel
/// keeps them in steps.
const SETTLED_AFTER: Duration = Duration::from_millis(20);

/// The fingerprint of a file, from which on every change shows. Blocks, for a file that was changed a
/// moment ago.
pub(super) fn settled(file: &File) -> io::Result<Fingerprint> {
    let metadata = file.metadata()?;
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let rest = u64::try_from(metadata.ctime_nsec()).unwrap_or_default();
    let changed = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(rest);
    // A time in the future is none to wait for.
    if let Ok(age) = SystemTime::now().duration_since(changed) {
        std::thread::sleep(SETTLED_AFTER.saturating_sub(age));
    }
    Fingerprint::of(file)
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
