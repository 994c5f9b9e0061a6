//! What the ops on the log answer.
//!
//! A reader passes over fields that it does not know.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ErrorReply, FileInfo, is_false, is_zero};
use crate::digest::Digest;
use crate::label::CursorName;
use crate::path::Topic;

/// A message is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub sequence: u64,
    /// It was there already, under the same deduplication id.
    #[serde(default, skip_serializing_if = "is_false")]
    pub duplicate: bool,
}

/// What became of each line of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLines {
    /// One for each line, in order; 0 for one that was refused.
    pub sequences: Vec<u64>,
    /// How many were refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_refused: u64,
    /// Why, for the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedLine>,
}

/// A line that did not become a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLine {
    /// From 1.
    pub line: u64,
    pub error: ErrorReply,
}

/// A stream of events follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The events come after this.
    pub after: u64,
    /// The last record at this time.
    pub head: u64,
}

/// The content that is attached to a message; a body follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    pub sequence: u64,
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

/// One page of topics, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPage {
    pub topics: Vec<TopicInfo>,
    /// Ask again with this as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Topic>,
}

/// What is known about a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    pub topic: Topic,
    /// Messages in the log.
    pub n_messages: u64,
    /// Their bytes.
    pub size: u64,
    /// The latest message.
    pub last: u64,
    pub last_time: Timestamp,
    /// The client's own cursors that read this topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cursors: Vec<CursorLag>,
}

/// How far a cursor is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorLag {
    pub cursor: CursorName,
    /// Messages of the topic that are not acknowledged.
    pub lag: u64,
}

/// A content is staged for a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// What a member of a set calls it.
    pub staged: String,
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

/// A set is committed, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The version of every file in it.
    pub sequence: u64,
    pub n_members: u64,
    /// The file, where one was put and that was all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileInfo>,
}

/// What a reconciliation found on one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Files that were looked at.
    pub n_files: u64,
    /// Files that another program wrote, now recorded.
    pub n_found: u64,
    /// Files that another program took away, now recorded.
    pub n_gone: u64,
    /// Ask again with this as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What the log says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStats {
    /// The oldest record that is kept; 0 for an empty log.
    pub first: u64,
    /// The newest record.
    pub head: u64,
    /// Records that are kept.
    pub n_records: u64,
    /// Bytes of the log's file.
    pub file_size: u64,
    pub n_files: u64,
    pub n_topics: u64,
    pub n_messages: u64,
    /// Bytes of the messages.
    pub messages_size: u64,
    pub n_cursors: u64,
    /// Histories of files are whole after this.
    pub files_lost_to: u64,
    pub time: Timestamp,
}

/// What was found on one page of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogVerified {
    pub n_checked: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedRecord>,
    /// Ask again with this as `from` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A record that does not say any more what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRecord {
    pub sequence: u64,
    pub reason: String,
}
