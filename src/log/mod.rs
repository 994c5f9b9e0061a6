//! The log: every change, in one order, durable before it is acknowledged.
//!
//! A record is the only thing that changes state. Conditions are checked inside the append, against
//! what the log itself says, never before it. Calls block: they belong on a blocking thread.

pub mod embedded;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::content::{ContentId, Stamp};
use crate::digest::Digest;
use crate::identity::SpiffeId;
use crate::path::RemotePath;

/// The place of a record in the log: from 1, without gaps.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Sequence(pub u64);

/// What is known about a file at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub content: ContentId,
    pub stamp: Stamp,
    /// Absent for a file that another program wrote and that was recorded unread.
    pub digest: Option<Digest>,
}

/// One step of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// The file at `path` is `entry`, staged until it is published.
    Put { path: RemotePath, entry: Entry },
    /// No file is at `path`; what was there had this stamp, and nothing else may be removed.
    Remove { path: RemotePath, stamp: Stamp },
    /// The file that was at `from` is at `to`.
    Move {
        from: RemotePath,
        to: RemotePath,
        entry: Entry,
    },
}

/// What must hold for a draft to become a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// No file is at the path.
    Absent(RemotePath),
    /// A file is at the path.
    Present(RemotePath),
    /// The file at the path was made by this record.
    Version(RemotePath, Sequence),
}

/// A record that is not yet in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Who caused it.
    pub identity: SpiffeId,
    pub time: Timestamp,
    pub changes: Vec<Change>,
    pub conditions: Vec<Condition>,
}

/// One change of state, in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub sequence: Sequence,
    /// Who caused it.
    pub identity: SpiffeId,
    pub time: Timestamp,
    pub changes: Vec<Change>,
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
    /// A sync failed under the change: the next start shows whether it is in the log.
    #[error("whether the change is in the log is known after a restart")]
    Unknown(#[source] Source),
    #[error("the log takes no changes since a sync failed, until a restart")]
    ReadOnly(#[source] Source),
    #[error("the log cannot be used")]
    Engine(#[source] Source),
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
    ) -> Result<Vec<Result<Sequence, Conflict>>, LogError>;

    /// Up to `n_max` records from `from` on, in order.
    ///
    /// # Errors
    /// The engine failed, or a record cannot be read.
    fn read(&self, from: Sequence, n_max: usize) -> Result<Vec<Record>, LogError>;

    /// The last record's sequence number; zero for an empty log.
    ///
    /// # Errors
    /// The engine failed.
    fn head(&self) -> Result<Sequence, LogError>;

    /// The mark that the last append left: every record up to it stands in the store's tree, so
    /// that recovery starts behind it.
    ///
    /// # Errors
    /// The engine failed.
    fn published(&self) -> Result<Sequence, LogError>;
}

/// What a log keeps current inside its append, in the engine's own transaction `T`. The log knows
/// of no view but this one, and the view of no log.
pub trait Fold<T>: Send + Sync {
    /// Whether the draft's conditions hold, and its names fit among those that are there.
    ///
    /// # Errors
    /// The engine failed.
    fn check(&self, transaction: &T, draft: &Draft) -> Result<Result<(), Conflict>, LogError>;

    /// Takes the record in.
    ///
    /// # Errors
    /// The engine failed.
    fn apply(&self, transaction: &T, record: &Record) -> Result<(), LogError>;
}

impl Sequence {
    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Draft {
    /// The record that this becomes in its place.
    pub fn into_record(self, sequence: Sequence) -> Record {
        Record {
            sequence,
            identity: self.identity,
            time: self.time,
            changes: self.changes,
        }
    }
}

impl Change {
    /// The paths that the change touches.
    pub fn paths(&self) -> impl Iterator<Item = &RemotePath> {
        let (first, second) = match self {
            Self::Put { path, .. } | Self::Remove { path, .. } => (path, None),
            Self::Move { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}
