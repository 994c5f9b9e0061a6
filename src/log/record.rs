//! What is in the log: changes of files, and messages.
//!
//! A record is the only thing that changes state.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content::{Attributes, ContentId, Stamp};
use crate::digest::Digest;
use crate::identity::SpiffeId;
use crate::label::DedupId;
use crate::path::{RemotePath, Topic};

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
    /// What its writer's file system knew about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// One step of a record about files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// The file at `path` is `entry`, staged until it is published.
    Put { path: RemotePath, entry: Entry },
    /// The file at `path` is `entry`: another program put it there.
    Found { path: RemotePath, entry: Entry },
    /// No file is at `path`; what was there had this stamp, and nothing else may be removed.
    Remove { path: RemotePath, stamp: Stamp },
    /// No file is at `path`: another program took it away.
    Gone { path: RemotePath },
    /// The file that was at `from` is at `to`.
    Move {
        from: RemotePath,
        to: RemotePath,
        entry: Entry,
    },
}

/// A content that is kept beside its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// In the record.
    Inline(Arc<[u8]>),
    /// In the store, staged until it is published.
    Attached(Attached),
}

/// A message to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: Topic,
    pub payload: Payload,
    /// What makes it the same message when it is sent again.
    pub dedup_id: Option<DedupId>,
    /// Somebody waits for a reply.
    pub reply_wanted: bool,
    /// The message that this one replies to; it is for the one who asked, and for nobody else.
    pub reply_to: Option<Sequence>,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    Files(Vec<Change>),
    Message(Message),
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
    pub matter: Matter,
    pub conditions: Vec<Condition>,
    /// What makes a change of files the same change when it is asked for again; a message has an id
    /// of its own.
    pub request_id: Option<DedupId>,
}

/// One change of state, in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub sequence: Sequence,
    /// Who caused it.
    pub identity: SpiffeId,
    /// The clock of the server that appended it; it may have been set back since the last record.
    pub time: Timestamp,
    pub matter: Matter,
    /// Which of the changes, by their number from 0, took the place of another file.
    pub replaced: Vec<u32>,
    /// Under which id the identity asked for it.
    pub request_id: Option<DedupId>,
    /// Changes that it had and that are no longer kept.
    pub n_forgotten: u32,
}

impl Sequence {
    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Payload {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Attached(attached) => attached.size,
        }
    }
}

impl Matter {
    /// What happens to files; nothing for a message.
    pub fn changes(&self) -> &[Change] {
        match self {
            Self::Files(changes) => changes,
            Self::Message(_) => &[],
        }
    }

    /// The message, if it is one.
    pub const fn message(&self) -> Option<&Message> {
        match self {
            Self::Files(_) => None,
            Self::Message(message) => Some(message),
        }
    }
}

impl Draft {
    /// The record that this becomes in its place, before the view has seen it.
    pub fn into_record(self, sequence: Sequence) -> Record {
        Record {
            sequence,
            identity: self.identity,
            time: self.time,
            matter: self.matter,
            replaced: Vec::new(),
            request_id: self.request_id,
            n_forgotten: 0,
        }
    }
}

impl Record {
    /// How many changes it had when it was made.
    pub fn n_changes(&self) -> u64 {
        self.matter.changes().len() as u64 + u64::from(self.n_forgotten)
    }

    /// Forgets the changes that do not say what one of these files is now.
    pub(super) fn keep_only(&mut self, kept: &[RemotePath]) {
        let Matter::Files(changes) = &mut self.matter else {
            return;
        };
        let kept: HashSet<&RemotePath> = kept.iter().collect();
        let replaced: HashSet<u32> = std::mem::take(&mut self.replaced).into_iter().collect();
        let mut number = 0;
        let mut before = 0..;
        changes.retain(|change| {
            let was = before.next().unwrap_or(u32::MAX);
            let is_kept = change.target().is_some_and(|path| kept.contains(path));
            if is_kept {
                if replaced.contains(&was) {
                    self.replaced.push(number);
                }
                number += 1;
            } else {
                self.n_forgotten += 1;
            }
            is_kept
        });
    }
}

impl Change {
    /// The path at which the change leaves a file.
    pub const fn target(&self) -> Option<&RemotePath> {
        match self {
            Self::Put { path, .. } | Self::Found { path, .. } | Self::Move { to: path, .. } => {
                Some(path)
            }
            Self::Remove { .. } | Self::Gone { .. } => None,
        }
    }

    /// The paths that the change touches.
    pub fn paths(&self) -> impl Iterator<Item = &RemotePath> {
        let (first, second) = match self {
            Self::Put { path, .. }
            | Self::Found { path, .. }
            | Self::Remove { path, .. }
            | Self::Gone { path } => (path, None),
            Self::Move { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}
