//! The bytes under the database, watched for faults.
//!
//! The engine reports that something failed, not which call: a failed write may be tried again on
//! a file opened afresh, a failed sync may not.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::OFlags;
use tracing::error;

use super::{Attempt, CACHE_SIZE_MAX};
use crate::escape::Escaped;
use crate::fault;

const FILE_MODE: u32 = 0o600;

/// What has been seen since the file was opened.
pub(super) struct Watch {
    faulty: AtomicBool,
    failed_sync: Arc<OnceLock<Escaped>>,
    /// Bytes of the file.
    size: AtomicU64,
}

impl Watch {
    pub(super) fn new(failed_sync: Arc<OnceLock<Escaped>>) -> Self {
        Self {
            faulty: AtomicBool::new(false),
            failed_sync,
            size: AtomicU64::new(0),
        }
    }

    pub(super) fn file_size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether a call failed: the engine answers nothing more.
    pub(super) fn is_faulty(&self) -> bool {
        self.faulty.load(Ordering::Acquire)
    }

    fn seen<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.faulty.store(true, Ordering::Release);
        }
        result
    }
}

/// A backend whose failures are seen by a [`Watch`].
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    watch: Arc<Watch>,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn StorageBackend>, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

type Lock<T> = Result<T, BackendError>;

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        let size = self.watch.seen(self.inner.len())?;
        self.watch.size.store(size, Ordering::Relaxed);
        Ok(size)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.watch.seen(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.seen(self.inner.set_len(len))?;
        self.watch.size.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = fault::point("database.sync")
            .and_then(|()| self.inner.sync_data())
            .and_then(|()| fault::point("database.sync.after"));
        if let Err(error) = &result {
            let cause = Escaped::new(&error.to_string());
            error!(%cause, "a sync of the log failed: no more changes are taken until a restart");
            let _first_cause_stays = self.watch.failed_sync.set(cause);
        }
        self.watch.seen(result)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watch.seen(self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<bool> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<bool> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<()> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<()> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<()> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Lock<bool> {
        self.inner.query_lock_range(start, end)
    }
}

/// Opens the file at `path`, which on the first attempt is made if it is not there.
pub(super) fn open_file(path: &Path, attempt: Attempt) -> io::Result<Box<dyn StorageBackend>> {
    let file = match open_existing(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && attempt == Attempt::First => {
            make(path)?;
            open_existing(path)?
        }
        opened => opened?,
    };
    // The engine would begin a new database in an empty file, without a word.
    if file.metadata()?.len() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is empty: restore it, or remove it to begin a new log",
        ));
    }
    backend(file)
}

/// Makes an empty database under another name first: a crash leaves a whole one or none.
fn make(path: &Path) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    let file = options.mode(FILE_MODE).open(&unfinished)?;
    redb::Builder::new()
        .set_cache_size(CACHE_SIZE_MAX)
        .create_with_backend(FileBackend::new(file).map_err(io::Error::other)?)
        .and_then(redb::Database::close)
        .map_err(unwrapped)?;
    std::fs::rename(&unfinished, path)?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn unwrapped(error: redb::DatabaseError) -> io::Error {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => error,
        error => io::Error::other(error),
    }
}

fn open_existing(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    // The root is writable by others than the server: a link must not lead it elsewhere.
    options
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    let backend = FileBackend::new(file).map_err(io::Error::other)?;
    Ok(Box::new(backend))
}
