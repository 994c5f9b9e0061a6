//! The log: every change, in one order, durable before it is acknowledged.
//!
//! A record is the only thing that changes state. Conditions are checked inside the append, against
//! what the log itself says, never before it. Calls block: they belong on a blocking thread.

mod codec;
pub mod cursors;
pub mod embedded;
mod record;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

pub use record::{
    Attached, Change, Condition, Draft, Entry, Matter, Message, Payload, Record, Sequence,
};

use crate::content::ContentId;
use crate::path::{RemotePath, Topic};

/// How long messages of a topic are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Since they were written.
    pub age: Duration,
    /// Bytes of all of them; the oldest go first.
    pub size: u64,
}

/// Why a draft did not become a record. The log is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Conflict {
    #[error("{path} is there already, at version {}", found.0)]
    Exists { path: RemotePath, found: Sequence },
    #[error("{path} is not there")]
    Missing { path: RemotePath },
    #[error("{path} is at version {}, not {}", found.0, wanted.0)]
    Changed {
        path: RemotePath,
        found: Sequence,
        wanted: Sequence,
    },
    #[error("{path} is not there, version {} was asked for", wanted.0)]
    Gone { path: RemotePath, wanted: Sequence },
    #[error("{file} is a file, so {path} cannot be")]
    FileAbove { path: RemotePath, file: RemotePath },
    #[error("{path} is a directory: {file} is in it")]
    FileBelow { path: RemotePath, file: RemotePath },
    /// The same message, or the same request about files, is there already.
    #[error("it is in the log already, as {}", sequence.0)]
    Duplicate { sequence: Sequence },
    #[error("there are {n_max} topics, which is the most: {topic} cannot be one more")]
    TooManyTopics { topic: Topic, n_max: u64 },
}

/// The engine's own error. Shared: one fault answers every draft of a batch.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// A fault of the log itself.
#[derive(Debug, Clone, Error)]
pub enum LogError {
    #[error("no space is left for the log")]
    OutOfSpace(#[source] Source),
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The others can still be read.
    #[error("record {} is damaged: {reason}", sequence.0)]
    DamagedRecord { sequence: Sequence, reason: String },
    /// A sync failed under the change: the next start shows whether it is in the log.
    #[error("whether the change is in the log is known after a restart")]
    Unknown(#[source] Source),
    #[error("the log takes no changes since a sync failed, until a restart")]
    ReadOnly(#[source] Source),
    #[error("the log cannot be used")]
    Engine(#[source] Source),
}

/// How much of the log is kept.
pub struct Keep {
    /// How long it is known what files were before.
    pub history: Duration,
    /// How long messages of a topic are kept, and how many bytes of them.
    pub messages: Box<dyn Fn(&Topic) -> Retention + Send + Sync>,
}

impl Keep {
    /// Everything is kept.
    pub fn everything() -> Self {
        Self {
            history: Duration::MAX,
            messages: Box::new(|_| Retention {
                age: Duration::MAX,
                size: u64::MAX,
            }),
        }
    }

    /// How long it is known what files were before.
    pub fn history(&self) -> SignedDuration {
        SignedDuration::try_from(self.history).unwrap_or(SignedDuration::MAX)
    }
}

/// Milliseconds since 1970, never less than none.
pub fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// How much may be read at once. A record is given whole, and the first one always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub n_max: usize,
    /// Bytes of the records.
    pub size_max: usize,
}

/// What the log says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// The oldest record that is kept; zero for an empty log.
    pub first: Sequence,
    /// Records that are kept.
    pub n_records: u64,
    /// Bytes of the file.
    pub file_size: u64,
}

/// An ordered, durable log of records.
pub trait Log: Send + Sync {
    /// Appends, in order and in one durable step, every draft whose conditions hold after the
    /// drafts before it; the result says for each draft which record it became. Nothing is in the
    /// log when this fails, but for [`LogError::Unknown`].
    ///
    /// `published` is remembered in the same step, also by an append of nothing: see
    /// [`Log::published`].
    ///
    /// # Errors
    /// The engine failed; every draft is refused.
    fn append(
        &self,
        drafts: &[Draft],
        published: Sequence,
    ) -> Result<Vec<Result<Record, Conflict>>, LogError>;

    /// The records from `from` on that are kept, in order, up to a page of them, and up to the
    /// first one that is damaged.
    ///
    /// # Errors
    /// The engine failed, or the first record is damaged.
    fn read(&self, from: Sequence, page: Page) -> Result<Vec<Record>, LogError>;

    /// The last record's sequence number, also when it is no longer kept; zero before the first.
    ///
    /// # Errors
    /// The engine failed.
    fn head(&self) -> Result<Sequence, LogError>;

    /// A sequence number before which no record is as young as `time`, whatever was done to the
    /// clock.
    ///
    /// # Errors
    /// The engine failed.
    fn since(&self, time: Timestamp) -> Result<Sequence, LogError>;

    /// The mark that the last append left: every record up to it stands in the store's tree, so
    /// that recovery starts behind it.
    ///
    /// # Errors
    /// The engine failed.
    fn published(&self) -> Result<Sequence, LogError>;

    /// Removes some of what has outlived its time at `now`, in one durable step; says how many
    /// records. What is not published yet, and what says how a file is now, is kept.
    ///
    /// # Errors
    /// The engine failed; nothing was removed.
    fn expire(&self, now: Timestamp, n_max: usize) -> Result<usize, LogError>;

    /// Contents whose messages are gone: to be removed from the store, then forgotten.
    ///
    /// # Errors
    /// The engine failed.
    fn detached(&self, n_max: usize) -> Result<Vec<ContentId>, LogError>;

    /// The contents are gone from the store.
    ///
    /// # Errors
    /// The engine failed.
    fn forget_detached(&self, contents: &[ContentId]) -> Result<(), LogError>;

    /// What the log says of itself.
    ///
    /// # Errors
    /// The engine failed.
    fn stats(&self) -> Result<Stats, LogError>;
}

/// What a log keeps current inside its append, in the engine's own transactions `T`. The log knows
/// of no view but this one, and the view of no log.
pub trait Fold<T>: Send + Sync {
    /// The view inside one transaction.
    type View<'t>: View
    where
        T: 't,
        Self: 't;

    /// Opens the view.
    ///
    /// # Errors
    /// The engine failed.
    fn open<'t>(&'t self, transaction: &'t T) -> Result<Self::View<'t>, LogError>;
}

/// A view inside a transaction.
pub trait View {
    /// Whether the draft's conditions hold, and its names fit among those that are there.
    ///
    /// # Errors
    /// The engine failed.
    fn check(&mut self, draft: &Draft) -> Result<Result<(), Conflict>, LogError>;

    /// Takes the record in, and notes in it which changes took the place of another file. What makes
    /// room for it is published: it is up to `published`.
    ///
    /// # Errors
    /// The engine failed.
    fn apply(&mut self, record: &mut Record, published: Sequence) -> Result<(), LogError>;

    /// Lets go of up to `n_max` records up to `until` that have outlived their time at `now`.
    /// `record_of` gives a record, if it is there and sound.
    ///
    /// # Errors
    /// The engine failed.
    fn expire(
        &mut self,
        now: Timestamp,
        until: Sequence,
        n_max: usize,
        record_of: &RecordOf<'_>,
    ) -> Result<(), LogError>;

    /// Writes what the view has kept back until now; says what it has let go of.
    ///
    /// # Errors
    /// The engine failed.
    fn finish(&mut self) -> Result<Vec<Expired>, LogError>;
}

/// Gives a record, if it is there and sound.
pub type RecordOf<'a> = dyn Fn(Sequence) -> Result<Option<Record>, LogError> + 'a;

/// What a log need not keep any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expired {
    Whole(Sequence),
    /// All changes but those that say what these files are now.
    Changes {
        sequence: Sequence,
        kept: Vec<RemotePath>,
    },
}
