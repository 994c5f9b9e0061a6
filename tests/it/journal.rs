//! A log with its index, in memory or embedded, and drafts to put into it.
//!
//! The suites know a [`Journal`] only, so that the same tests hold for every implementation.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use fsvc::content::{ContentId, Stamp};
use fsvc::database::Database;
use fsvc::digest::Digest;
use fsvc::index::embedded::EmbeddedIndex;
use fsvc::index::fold::{apply, check};
use fsvc::index::{Index, IndexError, Indexed};
use fsvc::log::embedded::EmbeddedLog;
use fsvc::log::{Change, Condition, Conflict, Draft, Entry, Log, LogError, Record, Sequence};
use fsvc::path::{Prefix, RemotePath};
use jiff::Timestamp;
use tempfile::TempDir;

/// A log and the index that follows it.
pub(crate) trait Journal: Send + Sync {
    fn log(&self) -> &dyn Log;
    fn index(&self) -> &dyn Index;
    /// The same after the end of the process.
    fn reopened(self) -> Self;

    /// Appends where the mark does not matter.
    fn append(&self, drafts: &[Draft]) -> Vec<Result<Sequence, Conflict>> {
        self.log().append(drafts, Sequence(0)).unwrap()
    }
}

pub(crate) struct Embedded {
    log: EmbeddedLog<EmbeddedIndex>,
    index: Arc<EmbeddedIndex>,
    directory: TempDir,
}

pub(crate) fn embedded() -> Embedded {
    embedded_in(tempfile::tempdir().unwrap())
}

fn embedded_in(directory: TempDir) -> Embedded {
    let (log, index) = open_at(&directory.path().join("log.redb"));
    Embedded {
        log,
        index,
        directory,
    }
}

pub(crate) fn open_at(file: &Path) -> (EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>) {
    open_on(Arc::new(Database::open(file).unwrap()))
}

pub(crate) fn open_on(database: Arc<Database>) -> (EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>) {
    let index = Arc::new(EmbeddedIndex::open(database.clone()).unwrap());
    let log = EmbeddedLog::open(database, index.clone()).unwrap();
    (log, index)
}

impl Journal for Embedded {
    fn log(&self) -> &dyn Log {
        &self.log
    }

    fn index(&self) -> &dyn Index {
        &*self.index
    }

    fn reopened(self) -> Self {
        let Self {
            log,
            index,
            directory,
        } = self;
        drop((log, index));
        embedded_in(directory)
    }
}

/// The reference: a vector of records, and the pure fold over a map.
#[derive(Default)]
pub(crate) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    records: Vec<Record>,
    entries: BTreeMap<RemotePath, Indexed>,
    published: Sequence,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

pub(crate) fn sure<T>(result: Result<T, Infallible>) -> T {
    result.unwrap_or_else(|never| match never {})
}

impl Log for Memory {
    fn append(
        &self,
        drafts: &[Draft],
        published: Sequence,
    ) -> Result<Vec<Result<Sequence, Conflict>>, LogError> {
        let mut state = self.state();
        let before = state.records.len();
        let results = drafts.iter().map(|draft| state.append(draft)).collect();
        if state.records.len() > before {
            state.published = published;
        }
        Ok(results)
    }

    fn read(&self, from: Sequence, n_max: usize) -> Result<Vec<Record>, LogError> {
        let state = self.state();
        let from_here = state.records.iter().filter(|r| r.sequence >= from);
        Ok(from_here.take(n_max).cloned().collect())
    }

    fn head(&self) -> Result<Sequence, LogError> {
        Ok(Sequence(self.state().records.len() as u64))
    }

    fn published(&self) -> Result<Sequence, LogError> {
        Ok(self.state().published)
    }
}

impl State {
    fn append(&mut self, draft: &Draft) -> Result<Sequence, Conflict> {
        sure(check(draft, &self.entries))?;
        let sequence = Sequence(self.records.len() as u64).next();
        let record = draft.clone().into_record(sequence);
        sure(apply(&record, &mut self.entries));
        self.records.push(record);
        Ok(sequence)
    }
}

impl Index for Memory {
    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, IndexError> {
        Ok(self.state().entries.get(path).cloned())
    }

    fn range(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
        n_max: usize,
    ) -> Result<Vec<(RemotePath, Indexed)>, IndexError> {
        let state = self.state();
        let found = state.entries.iter().filter(|(path, _)| {
            path.as_str().starts_with(prefix.as_str()) && after.is_none_or(|after| *path > after)
        });
        let cloned = found.map(|(path, indexed)| (path.clone(), indexed.clone()));
        Ok(cloned.take(n_max).collect())
    }
}

impl Journal for Memory {
    fn log(&self) -> &dyn Log {
        self
    }

    fn index(&self) -> &dyn Index {
        self
    }

    fn reopened(self) -> Self {
        self
    }
}

pub(crate) fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

pub(crate) fn stamp() -> Stamp {
    Stamp {
        size: 5,
        modified: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn entry(seed: u8) -> Entry {
    Entry {
        content: ContentId::from_random([seed; 16]),
        stamp: stamp(),
        digest: (seed != 0).then(|| Digest::of(&[seed])),
    }
}

pub(crate) fn draft(changes: Vec<Change>, conditions: Vec<Condition>) -> Draft {
    Draft {
        identity: "spiffe://acme.internal/client/dev".parse().unwrap(),
        time: Timestamp::UNIX_EPOCH,
        changes,
        conditions,
    }
}

pub(crate) fn put(at: &str) -> Change {
    let (path, entry) = (path(at), entry(1));
    Change::Put { path, entry }
}

pub(crate) fn remove(at: &str) -> Change {
    let (path, stamp) = (path(at), stamp());
    Change::Remove { path, stamp }
}

pub(crate) fn rename(from: &str, to: &str) -> Change {
    Change::Move {
        from: path(from),
        to: path(to),
        entry: entry(2),
    }
}
