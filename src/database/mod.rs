//! The one database file that the log and the index share.
//!
//! After a fault the engine answers nothing more, so the file is opened afresh before the next
//! transaction; only a failed sync is final, because nobody can say what it left on the disk.

mod watched;

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use redb::{ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};
use thiserror::Error;

use self::watched::{Watch, Watched};
use crate::escape::Escaped;

/// Memory that the engine may keep pages in. Four times as much made neither puts nor gets of small
/// files cheaper, and doubled what the server takes over idle for a tree of a hundred thousand.
pub const CACHE_SIZE_MAX: usize = 4 << 20;
const ATTEMPTS_MAX: usize = 2;

/// A fault of the database file.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error("the database {file} is in use: another server has this root")]
    InUse { file: Escaped },
    #[error("the database {file} cannot be opened")]
    Open {
        file: Escaped,
        #[source]
        source: io::Error,
    },
    #[error("no space is left for the database")]
    OutOfSpace(#[source] redb::Error),
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("the database takes no changes since a sync failed: {0}")]
    SyncFailed(Escaped),
    #[error("the database engine failed")]
    Engine(#[source] redb::Error),
}

/// What becomes of a write transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It is committed, durably, before the value is returned.
    Commit(T),
    /// It leaves no trace; only the value is returned.
    Abort(T),
}

/// What makes the bytes under the database available.
pub type OpenBackend = Box<dyn Fn(Attempt) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

/// Whether a database may come into being by being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The first time in this process: a file that is not there is made.
    First,
    /// After a fault: a file that is not there has been taken away, and stays away.
    Again,
}

/// The open database.
pub struct Database {
    file: Escaped,
    open: OpenBackend,
    current: RwLock<Opened>,
    failed_sync: Arc<OnceLock<Escaped>>,
}

struct Opened {
    /// None while the file could not be opened again.
    engine: Option<redb::Database>,
    watch: Arc<Watch>,
}

impl Database {
    /// Opens the database at `path`; makes it, readable by the owner only, if it is not there.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, or is damaged.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let shown = Escaped::new(&path.to_string_lossy());
        let path = path.to_owned();
        let open = move |attempt| watched::open_file(&path, attempt);
        Self::with_backend(shown, Box::new(open))
    }

    /// Opens the database in the bytes that `open` makes available, shown to people as `file`.
    ///
    /// # Errors
    /// The bytes are not available, are in use, or are damaged.
    pub fn with_backend(file: Escaped, open: OpenBackend) -> Result<Self, DatabaseError> {
        let failed_sync = Arc::new(OnceLock::new());
        let opened = open_engine(&file, &open, Attempt::First, &failed_sync)?;
        Ok(Self {
            file,
            open,
            current: RwLock::new(opened),
            failed_sync,
        })
    }

    /// Answers from one consistent state; asks once more if a fault of the file came in between.
    ///
    /// # Errors
    /// The query's own, or the engine failed.
    pub fn read<T, E: From<DatabaseError>>(
        &self,
        query: impl Fn(&ReadTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        for _ in 1..ATTEMPTS_MAX {
            let opened = self.usable()?;
            let answer = query_once(&opened, &query);
            if answer.is_ok() || !opened.watch.is_faulty() {
                return answer;
            }
        }
        query_once(&*self.usable()?, &query)
    }

    /// Changes the database in one transaction with one sync; an error leaves no trace.
    ///
    /// The exception is an error of the sync itself: what it left is known after a restart only,
    /// and no further change is taken until then.
    ///
    /// # Errors
    /// The change's own, or the engine failed.
    pub fn write<T, E: From<DatabaseError>>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<Outcome<T>, E>,
    ) -> Result<T, E> {
        if let Some(cause) = self.failed_sync.get() {
            return Err(DatabaseError::SyncFailed(cause.clone()).into());
        }
        for _ in 1..ATTEMPTS_MAX {
            let opened = self.usable()?;
            match opened.begin_write() {
                Ok(transaction) => return finish(transaction, change),
                Err(_) if opened.watch.is_faulty() => {}
                Err(error) => return Err(error.into()),
            }
        }
        finish(self.usable()?.begin_write()?, change)
    }

    /// Whether a sync failed, so that no more changes are taken.
    pub fn is_read_only(&self) -> bool {
        self.failed_sync.get().is_some()
    }

    /// Bytes of the file.
    pub fn file_size(&self) -> u64 {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.watch.file_size()
    }

    fn usable(&self) -> Result<RwLockReadGuard<'_, Opened>, DatabaseError> {
        let opened = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if opened.is_usable() {
            return Ok(opened);
        }
        drop(opened);
        self.reopen()?;
        Ok(self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nobody is in a transaction, then opens the file afresh.
    fn reopen(&self) -> Result<(), DatabaseError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.is_usable() {
            return Ok(());
        }
        // The engine holds the lock on the file until it is dropped.
        current.engine = None;
        *current = open_engine(&self.file, &self.open, Attempt::Again, &self.failed_sync)?;
        Ok(())
    }
}

impl Opened {
    fn is_usable(&self) -> bool {
        self.engine.is_some() && !self.watch.is_faulty()
    }

    fn engine(&self) -> Result<&redb::Database, DatabaseError> {
        let closed = DatabaseError::Engine(redb::Error::DatabaseClosed);
        self.engine.as_ref().ok_or(closed)
    }

    fn begin_write(&self) -> Result<WriteTransaction, DatabaseError> {
        self.engine()?.begin_write().map_err(fault)
    }
}

fn open_engine(
    file: &Escaped,
    open: &OpenBackend,
    attempt: Attempt,
    failed_sync: &Arc<OnceLock<Escaped>>,
) -> Result<Opened, DatabaseError> {
    let backend = open(attempt).map_err(|source| DatabaseError::Open {
        file: file.clone(),
        source,
    })?;
    let watch = Arc::new(Watch::new(failed_sync.clone()));
    // Without the check a file that another program spoiled may end the process.
    let engine = redb::Builder::new()
        .set_cache_size(CACHE_SIZE_MAX)
        .set_check_integrity_on_open(true)
        .create_with_backend(Watched::new(backend, watch.clone()))
        .map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => DatabaseError::InUse { file: file.clone() },
            error => fault(error),
        })?;
    Ok(Opened {
        engine: Some(engine),
        watch,
    })
}

fn query_once<T, E: From<DatabaseError>>(
    opened: &Opened,
    query: &impl Fn(&ReadTransaction) -> Result<T, E>,
) -> Result<T, E> {
    let transaction = opened.engine()?.begin_read().map_err(fault)?;
    query(&transaction)
}

fn finish<T, E: From<DatabaseError>>(
    transaction: WriteTransaction,
    change: impl FnOnce(&WriteTransaction) -> Result<Outcome<T>, E>,
) -> Result<T, E> {
    match change(&transaction)? {
        Outcome::Commit(value) => {
            transaction.commit().map_err(fault)?;
            Ok(value)
        }
        Outcome::Abort(value) => {
            transaction.abort().map_err(fault)?;
            Ok(value)
        }
    }
}

/// Names an error of the engine.
pub fn fault(error: impl Into<redb::Error>) -> DatabaseError {
    use redb::Error;
    match error.into() {
        Error::Io(error) if is_out_of_space(error.kind()) => {
            DatabaseError::OutOfSpace(Error::Io(error))
        }
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            DatabaseError::Damaged(format!("it is not a database file ({error})"))
        }
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            DatabaseError::Damaged("the file ends too early".to_owned())
        }
        Error::Corrupted(what) => DatabaseError::Damaged(what),
        error @ (Error::TableTypeMismatch { .. }
        | Error::TypeDefinitionChanged { .. }
        | Error::TableIsMultimap(_)
        | Error::TableDoesNotExist(_)
        | Error::UpgradeRequired(_)) => DatabaseError::Damaged(error.to_string()),
        error => DatabaseError::Engine(error),
    }
}

fn is_out_of_space(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}
