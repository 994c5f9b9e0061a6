//! Fields of the ops on the log: messages, readers, sets, administration.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content::Attributes;
use crate::digest::Digest;
use crate::filter::TopicFilter;
use crate::label::{CursorName, DedupId};
use crate::path::{Prefix, RemotePath, Topic};
use crate::protocol::{Encoding, is_false};

/// `publish`: a body follows, the message's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    pub topic: Topic,
    /// How many bytes will come, where the sender knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// A message of this identity with this id on this topic is taken once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_id: Option<DedupId>,
    /// Each line of the body is a message.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lines: bool,
}

/// Where a reader begins, and how it is remembered. Without any of it: with what comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// After this sequence number; 0 is the beginning.
    pub since: Option<u64>,
    /// At the first record that is not older than this.
    pub since_time: Option<Timestamp>,
    /// Where the cursor stands; the other two place one that is new.
    pub cursor: Option<CursorName>,
    /// Share what comes with every other reader of the cursor.
    pub group: bool,
    /// Seconds after which what was not acknowledged is sent again.
    pub ack_timeout: Option<u64>,
}

/// `subscribe`: the connection becomes a stream of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    pub topics: Vec<TopicFilter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorName>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub group: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout: Option<u64>,
}

/// `watch`: the connection becomes a stream of changes of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// A directory, or a file.
    pub path: Prefix,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorName>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub group: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout: Option<u64>,
}

/// `ack`: what a cursor has given is done with: up to a record, or for a group that record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    pub cursor: CursorName,
    pub sequence: u64,
}

/// `forget`: a cursor is no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    pub cursor: CursorName,
}

/// `fetch`: the content that is attached to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    pub sequence: u64,
}

/// `request`: a message that asks for a reply, and waits for it; a body follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    pub topic: Topic,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// `reply`: the answer to a message that asks for one; a body follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The message that asked.
    pub to: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// `topics`: one page of the topics that the client may subscribe to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<TopicFilter>,
    /// The last topic of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Topic>,
}

/// `last`: the latest message of each topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Last {
    pub topics: Vec<TopicFilter>,
}

/// `stage`: a content for a set; a body follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How the body is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// One line of the body of `commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub path: RemotePath,
    /// The content that `stage` answered with; the file becomes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
    /// The file goes away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub remove: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// What the content must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// `reconcile`: records what other programs have done in the tree, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    pub path: Prefix,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// `log_verify`: reads records and says which are damaged, a page at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogVerify {
    #[serde(default)]
    pub from: u64,
}

macro_rules! start_of {
    ($op:ident) => {
        impl $op {
            /// Where the reader begins.
            pub fn start(&self) -> Start {
                Start {
                    since: self.since,
                    since_time: self.since_time,
                    cursor: self.cursor.clone(),
                    group: self.group,
                    ack_timeout: self.ack_timeout,
                }
            }
        }
    };
}

start_of!(Subscribe);
start_of!(Watch);

impl Watch {
    /// A watch that begins there.
    pub fn new(path: Prefix, start: Start) -> Self {
        Self {
            path,
            since: start.since,
            since_time: start.since_time,
            cursor: start.cursor,
            group: start.group,
            ack_timeout: start.ack_timeout,
        }
    }
}

impl Subscribe {
    /// A subscription that begins there.
    pub fn new(topics: Vec<TopicFilter>, start: Start) -> Self {
        Self {
            topics,
            since: start.since,
            since_time: start.since_time,
            cursor: start.cursor,
            group: start.group,
            ack_timeout: start.ack_timeout,
        }
    }
}
