//! What the store does so that it says what the log says.

use crate::log::{Change, Matter, Payload};
use crate::store::Publication;

/// What the store needs so that it says what a record says.
pub(super) fn publications(matter: &Matter) -> Vec<Publication> {
    match matter {
        Matter::Files(changes) => changes.iter().filter_map(publication).collect(),
        Matter::Message(message) => match &message.payload {
            Payload::Inline(_) => Vec::new(),
            Payload::Attached(attached) => vec![Publication::Attach {
                content: attached.content,
            }],
        },
    }
}

fn publication(change: &Change) -> Option<Publication> {
    match change.clone() {
        Change::Put { path, entry } => Some(Publication::Place {
            content: entry.content,
            stamp: entry.stamp,
            path,
        }),
        Change::Found { .. } | Change::Gone { .. } => None,
        Change::Remove { path, stamp } => Some(Publication::Remove { path, stamp }),
        Change::Move { from, to, entry } => Some(Publication::Rename {
            from,
            to,
            stamp: entry.stamp,
        }),
    }
}
