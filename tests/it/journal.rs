//! A log with its index, and drafts to put into it.
//!
//! The suites know a [`Journal`] only, so that the same tests hold for every implementation.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use fsvc::content::{ContentId, Stamp};
use fsvc::database::Database;
use fsvc::digest::Digest;
use fsvc::index::Index;
use fsvc::index::embedded::EmbeddedIndex;
use fsvc::log::embedded::EmbeddedLog;
use fsvc::log::{
    Attached, Change, Condition, Conflict, Draft, Entry, Keep, Log, Matter, Message, Page, Payload,
    Record, Sequence,
};
use fsvc::path::{RemotePath, Topic};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

pub(crate) fn sequence_of(result: Result<Record, Conflict>) -> Result<Sequence, Conflict> {
    result.map(|record| record.sequence)
}

/// A page of `n_max` records, however large they are.
pub(crate) const fn page(n_max: usize) -> Page {
    Page {
        n_max,
        size_max: usize::MAX,
    }
}

/// A log and the index that follows it.
pub(crate) trait Journal: Send + Sync {
    fn log(&self) -> &dyn Log;
    fn index(&self) -> &dyn Index;
    /// The same after the end of the process.
    fn reopened(self) -> Self;

    /// Appends where the mark does not matter.
    fn append(&self, drafts: &[Draft]) -> Vec<Result<Sequence, Conflict>> {
        let results = self.log().append(drafts, Sequence(0)).unwrap();
        results.into_iter().map(sequence_of).collect()
    }
}

/// How long a journal keeps what.
pub(crate) type Keeping = fn() -> Keep;

pub(crate) struct Embedded {
    log: EmbeddedLog<EmbeddedIndex>,
    index: Arc<EmbeddedIndex>,
    directory: TempDir,
    keeping: Keeping,
}

pub(crate) fn embedded() -> Embedded {
    embedded_keeping(Keep::everything)
}

pub(crate) fn embedded_keeping(keeping: Keeping) -> Embedded {
    embedded_in(tempfile::tempdir().unwrap(), keeping)
}

fn embedded_in(directory: TempDir, keeping: Keeping) -> Embedded {
    let database = Database::open(&directory.path().join("log.redb")).unwrap();
    let (log, index) = open_keeping(Arc::new(database), keeping());
    Embedded {
        log,
        index,
        directory,
        keeping,
    }
}

pub(crate) fn open_at(file: &Path) -> (EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>) {
    open_on(Arc::new(Database::open(file).unwrap()))
}

pub(crate) fn open_on(database: Arc<Database>) -> (EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>) {
    open_keeping(database, Keep::everything())
}

pub(crate) fn open_keeping(
    database: Arc<Database>,
    keep: Keep,
) -> (EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>) {
    let index = Arc::new(EmbeddedIndex::open(database.clone(), keep).unwrap());
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
            keeping,
        } = self;
        drop((log, index));
        embedded_in(directory, keeping)
    }
}

pub(crate) fn sure<T>(result: Result<T, Infallible>) -> T {
    result.unwrap_or_else(|never| match never {})
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
        attributes: None,
    }
}

pub(crate) fn draft(changes: Vec<Change>, conditions: Vec<Condition>) -> Draft {
    Draft {
        identity: "spiffe://acme.internal/client/dev".parse().unwrap(),
        time: Timestamp::UNIX_EPOCH,
        matter: Matter::Files(changes),
        conditions,
        request_id: None,
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

pub(crate) fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

/// So many seconds after the beginning of time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

/// A message of the client dev.
pub(crate) fn message(to: &str, payload: &[u8]) -> Message {
    Message {
        topic: topic(to),
        payload: Payload::Inline(Arc::from(payload)),
        dedup_id: None,
        reply_wanted: false,
        reply_to: None,
    }
}

pub(crate) fn said(message: Message, seconds: i64) -> Draft {
    Draft {
        time: at(seconds),
        matter: Matter::Message(message),
        ..draft(vec![], vec![])
    }
}

/// The message to `to` that says `payload`, at the beginning of time.
pub(crate) fn say(to: &str, payload: &[u8]) -> Draft {
    said(message(to, payload), 0)
}

pub(crate) fn attached(seed: u8, size: u64) -> Payload {
    Payload::Attached(Attached {
        content: ContentId::from_random([seed; 16]),
        size,
        digest: Digest::of(&[seed]),
    })
}
