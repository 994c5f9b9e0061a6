//! What a reader of the log is sent: events, and the marks between them.
//!
//! An event says what happened in one record. What the reader may not see is not in it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::json::JsonError;
use super::{ErrorReply, is_false, is_zero};
use crate::digest::Digest;
use crate::path::{RemotePath, Topic};

/// One record, or as much of it as fits a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The record's place in the log; the version of the files in it.
    pub sequence: u64,
    pub time: Timestamp,
    /// Who caused it.
    pub identity: String,
    /// Of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// Bytes of the message; unless it is 0, one data frame with them follows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// A message that is too large to be sent along: fetched by its sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// Somebody waits for a reply to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reply_wanted: bool,
    /// The message that this one replies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<u64>,
    /// Of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FileChange>,
    /// The next event is of the same record.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
    /// How often it was sent to readers of the cursor, if more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<u32>,
}

/// A content that is kept beside its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

/// What happened to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum FileChange {
    /// A file is where none was.
    Created(FileState),
    /// A file is in the place of another.
    Replaced(FileState),
    /// The file is gone.
    Removed { path: RemotePath },
    /// The file that was at `from` is at `path`.
    Moved {
        from: RemotePath,
        #[serde(flatten)]
        file: FileState,
    },
}

/// A file after a change; the event's sequence number is its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    pub path: RemotePath,
    /// Bytes.
    pub size: u64,
    pub modified: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Another program wrote it, and a reconciliation found it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub found: bool,
}

/// Records that the log no longer holds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub from: u64,
    pub to: u64,
}

/// Everything up to `sequence` was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub sequence: u64,
    /// The server's clock.
    pub time: Timestamp,
}

/// One message of a stream of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    Event(Event),
    Lost(Lost),
    Heartbeat(Heartbeat),
    /// The stream ends.
    Error(ErrorReply),
}

#[derive(Deserialize)]
struct NoticeText {
    event: Option<Event>,
    lost: Option<Lost>,
    heartbeat: Option<Heartbeat>,
    error: Option<ErrorReply>,
}

impl Notice {
    /// Reads one message of a stream. Fields that are not known are passed over.
    ///
    /// # Errors
    /// The bytes are not JSON, or not a notice.
    pub fn decode(bytes: &[u8]) -> Result<Self, JsonError> {
        // Read at once into what it is: a reader may get a hundred thousand of them a second.
        let text: NoticeText =
            serde_json::from_slice(bytes).map_err(|error| JsonError::of(&error))?;
        match text {
            NoticeText {
                event: Some(event), ..
            } => Ok(Self::Event(event)),
            NoticeText {
                lost: Some(lost), ..
            } => Ok(Self::Lost(lost)),
            NoticeText {
                heartbeat: Some(heartbeat),
                ..
            } => Ok(Self::Heartbeat(heartbeat)),
            NoticeText {
                error: Some(error), ..
            } => Ok(Self::Error(error)),
            _ => Err(JsonError(
                "a notice has \"event\", \"lost\", \"heartbeat\" or \"error\"".to_owned(),
            )),
        }
    }
}

impl FileChange {
    /// The file's name after the change, or the one that is gone.
    pub const fn path(&self) -> &RemotePath {
        match self {
            Self::Created(file) | Self::Replaced(file) | Self::Moved { file, .. } => &file.path,
            Self::Removed { path } => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn golden(text: &str) {
        let notice = Notice::decode(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&notice).unwrap(), text);
    }

    #[test]
    fn golden_notices_round_trip() {
        let digest = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        let head = r#""time":"2026-11-25T10:00:00Z","identity":"spiffe://a/b""#;
        golden(&format!(
            r#"{{"event":{{"sequence":1,{head},"topic":"a/b","size":3}}}}"#
        ));
        golden(&format!(
            r#"{{"event":{{"sequence":2,{head},"topic":"a","attachment":{{"size":9,"digest":"{digest}"}}}}}}"#
        ));
        let times = r#""size":3,"modified":"2026-11-25T10:00:00Z""#;
        golden(&format!(
            r#"{{"event":{{"sequence":3,{head},"changes":[{}],"more":true}}}}"#,
            [
                format!(r#"{{"change":"created","path":"/a",{times},"digest":"{digest}"}}"#),
                r#"{"change":"removed","path":"/b"}"#.to_owned(),
                format!(r#"{{"change":"moved","from":"/c","path":"/d",{times}}}"#),
            ]
            .join(",")
        ));
        golden(r#"{"lost":{"from":3,"to":9}}"#);
        golden(r#"{"heartbeat":{"sequence":9,"time":"2026-11-25T10:00:00Z"}}"#);
        golden(r#"{"error":{"code":"denied","message":"x"}}"#);
    }

    #[test]
    fn what_is_no_notice_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"event":{}}"#,
            r#"{"lost":{"from":1,"from":1,"to":2}}"#,
            r#"{"lost":{"from":-1,"to":2}}"#,
            r#"{"event":{"sequence":1.5}}"#,
        ] {
            assert!(Notice::decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
