//! The index: what the log says now, path by path.
//!
//! A pure fold over records: rebuilt from the log it comes out equal. Calls block.

mod dedup;
pub mod embedded;
pub mod fold;
mod history;
mod tables;
mod topics;

use std::sync::Arc;

use thiserror::Error;

use crate::filter::TopicFilter;
use crate::identity::SpiffeId;
use crate::label::DedupId;
use crate::log::{Entry, Sequence};
use crate::path::{Prefix, RemotePath, Topic};

/// Topics that are known at a time.
pub const TOPICS_MAX: u64 = 100_000;

/// A file as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Indexed {
    /// The record that put it there.
    pub version: Sequence,
    pub entry: Entry,
}

/// A topic as the log knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Messages that are kept.
    pub n_messages: u64,
    /// Their bytes.
    pub size: u64,
    /// The newest one, kept or not.
    pub last: Sequence,
    /// The newest one that is no longer kept; zero if all are.
    pub lost_to: Sequence,
}

/// Numbers about the whole log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub n_files: u64,
    pub n_topics: u64,
    pub n_messages: u64,
    /// Bytes of the messages.
    pub messages_size: u64,
    /// History of files is whole after this.
    pub files_lost_to: Sequence,
    /// Every message after this is kept.
    pub messages_lost_to: Sequence,
    /// Messages of topics that are no longer known were up to this.
    pub topics_lost_to: Sequence,
    /// Messages that were let go of, ever.
    pub n_expired: u64,
}

/// A fault of the index itself.
#[derive(Debug, Clone, Error)]
pub enum IndexError {
    #[error("the index is damaged: {0}")]
    Damaged(String),
    #[error("the index cannot be used")]
    Engine(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// What the log says now.
pub trait Index: Send + Sync {
    /// The file at a path.
    ///
    /// # Errors
    /// The engine failed.
    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, IndexError>;

    /// Up to `n_max` files under `prefix`, at any depth, after `after`, in the order of their bytes.
    ///
    /// # Errors
    /// The engine failed.
    fn range(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
        n_max: usize,
    ) -> Result<Vec<(RemotePath, Indexed)>, IndexError>;

    /// What is known about a topic.
    ///
    /// # Errors
    /// The engine failed.
    fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, IndexError>;

    /// Up to `n_max` topics that a filter matches, after `after`, in the order of their bytes.
    ///
    /// # Errors
    /// The engine failed.
    fn topics(
        &self,
        filter: &TopicFilter,
        after: Option<&Topic>,
        n_max: usize,
    ) -> Result<Vec<(Topic, TopicState)>, IndexError>;

    /// How many messages of a topic are kept that came after a record.
    ///
    /// # Errors
    /// The engine failed.
    fn n_after(&self, topic: &Topic, position: Sequence) -> Result<u64, IndexError>;

    /// The record that each request about files made, under an id of an identity, while it is kept.
    ///
    /// # Errors
    /// The engine failed.
    fn requests(
        &self,
        asked: &[(&SpiffeId, &DedupId)],
    ) -> Result<Vec<Option<Sequence>>, IndexError>;

    /// The same of one request.
    ///
    /// # Errors
    /// The engine failed.
    fn request(&self, identity: &SpiffeId, id: &DedupId) -> Result<Option<Sequence>, IndexError> {
        Ok(self.requests(&[(identity, id)])?.pop().flatten())
    }

    /// Numbers about the whole log.
    ///
    /// # Errors
    /// The engine failed.
    fn totals(&self) -> Result<Totals, IndexError>;
}
