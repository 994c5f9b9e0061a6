//! Records as readers are told of them.
//!
//! What a reader may not see is left out before anything is written down.

use crate::log::{Change, Entry, Matter, Message, Payload, Record};
use crate::path::RemotePath;
use crate::protocol::{Attachment, Event, FileChange, FileState, Frame, Kind, Notice};

/// Bytes of changes in one event: what a message holds, less all the rest.
const CHANGES_SIZE_MAX: usize = 56 << 10;

fn head(record: &Record) -> Event {
    Event {
        sequence: record.sequence.0,
        time: record.time,
        identity: record.identity.to_string(),
        topic: None,
        size: 0,
        attachment: None,
        reply_wanted: false,
        reply_to: None,
        changes: Vec::new(),
        more: false,
        delivery: None,
    }
}

/// The event of a message; of another record only what every event has.
pub(super) fn of_message(record: &Record) -> Event {
    let event = head(record);
    let Matter::Message(message) = &record.matter else {
        return event;
    };
    Event {
        topic: Some(message.topic.clone()),
        size: inline(message).len() as u64,
        attachment: match &message.payload {
            Payload::Inline(_) => None,
            Payload::Attached(attached) => Some(Attachment {
                size: attached.size,
                digest: attached.digest,
            }),
        },
        reply_wanted: message.reply_wanted,
        reply_to: message.reply_to.map(|to| to.0),
        ..event
    }
}

/// The events of a record about files, of which the reader sees what is `visible`; none if that is
/// nothing. One that does not fit a message is several.
pub(super) fn of_files(record: &Record, visible: impl Fn(&RemotePath) -> bool) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut size = 0;
    for (change, number) in record.matter.changes().iter().zip(0..) {
        // In order, as the changes are.
        let is_new = record.replaced.binary_search(&number).is_err();
        let Some(told) = tell(change, is_new, &visible) else {
            continue;
        };
        size += serde_json::to_vec(&told).map_or(0, |bytes| bytes.len() + 1);
        match events.last_mut() {
            Some(event) if size <= CHANGES_SIZE_MAX => event.changes.push(told),
            last => {
                if let Some(event) = last {
                    event.more = true;
                }
                size = 0;
                events.push(Event {
                    changes: vec![told],
                    ..head(record)
                });
            }
        }
    }
    events
}

fn tell(
    change: &Change,
    is_new: bool,
    visible: &impl Fn(&RemotePath) -> bool,
) -> Option<FileChange> {
    let made = |path: &RemotePath, entry: &Entry, found| {
        let file = state(path, entry, found);
        if is_new {
            FileChange::Created(file)
        } else {
            FileChange::Replaced(file)
        }
    };
    match change {
        Change::Put { path, entry } => visible(path).then(|| made(path, entry, false)),
        Change::Found { path, entry } => visible(path).then(|| made(path, entry, true)),
        Change::Remove { path, .. } | Change::Gone { path } => {
            let path = path.clone();
            visible(&path).then_some(FileChange::Removed { path })
        }
        // Whoever sees one of the names only learns nothing of the other.
        Change::Move { from, to, entry } => match (visible(from), visible(to)) {
            (true, true) => Some(FileChange::Moved {
                from: from.clone(),
                file: state(to, entry, false),
            }),
            (true, false) => Some(FileChange::Removed { path: from.clone() }),
            (false, true) => Some(made(to, entry, false)),
            (false, false) => None,
        },
    }
}

fn state(path: &RemotePath, entry: &Entry, found: bool) -> FileState {
    FileState {
        path: path.clone(),
        size: entry.stamp.size,
        modified: entry.stamp.modified,
        digest: entry.digest,
        found,
    }
}

/// An event as frames, with the content of its message.
pub(super) fn frames(event: &Event, record: &Record) -> Vec<u8> {
    let mut bytes = notice(&Notice::Event(event.clone()));
    let content = record.matter.message().map_or(&[][..], inline);
    if !content.is_empty() {
        let frame = Frame {
            kind: Kind::Data,
            content,
        };
        frame
            .encode(&mut bytes)
            .expect("a message in a record fits a frame");
    }
    bytes
}

/// A notice as a frame.
pub(super) fn notice(notice: &Notice) -> Vec<u8> {
    let content = serde_json::to_vec(notice).expect("a notice is plain JSON");
    let mut bytes = Vec::with_capacity(content.len() + 16);
    let frame = Frame {
        kind: Kind::Message,
        content: &content,
    };
    frame
        .encode(&mut bytes)
        .expect("a notice is cut to fit a frame");
    bytes
}

fn inline(message: &Message) -> &[u8] {
    match &message.payload {
        Payload::Inline(bytes) => bytes,
        Payload::Attached(_) => &[],
    }
}
