//! The newest records, in memory: what a reader that keeps up is given without a look at the disk.
//!
//! Readers come and take. Nothing is pushed and nobody waits for a reader, so that a slow one costs
//! the others nothing and itself no more than its place in the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::event;
use crate::log::{Matter, Payload, Record, Sequence};

/// Records that are held.
const RECORDS_MAX: usize = 8192;
/// Bytes that they may have, roughly.
const SIZE_MAX: usize = 16 << 20;
/// What a record takes besides the content of a message.
const RECORD_SIZE: usize = 512;

/// A record that is published, with its frames once somebody has asked for them.
pub(super) struct Told {
    pub(super) record: Record,
    frames: OnceLock<Arc<[u8]>>,
}

impl Told {
    pub(super) const fn new(record: Record) -> Self {
        Self {
            record,
            frames: OnceLock::new(),
        }
    }

    /// The frames of a message, the same for every reader.
    pub(super) fn frames(&self) -> Arc<[u8]> {
        let frames = || {
            Arc::from(event::frames(
                &event::of_message(&self.record),
                &self.record,
            ))
        };
        Arc::clone(self.frames.get_or_init(frames))
    }
}

/// What was published last, without gaps.
pub(super) struct Tail {
    ring: Mutex<Ring>,
    head: watch::Sender<Sequence>,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Arc<Told>>,
    size: usize,
}

impl Tail {
    /// An empty tail behind `head`.
    pub(super) fn new(head: Sequence) -> Self {
        Self {
            ring: Mutex::default(),
            head: watch::Sender::new(head),
        }
    }

    /// The last record that is published.
    pub(super) fn head(&self) -> Sequence {
        *self.head.borrow()
    }

    /// Wakes whenever there is another head.
    pub(super) fn watch(&self) -> watch::Receiver<Sequence> {
        self.head.subscribe()
    }

    /// Tells everybody of records that follow the head.
    pub(super) fn push(&self, records: Vec<Record>) {
        let Some(last) = records.last().map(|record| record.sequence) else {
            return;
        };
        let mut ring = self.ring();
        for record in records {
            ring.size += size(&record);
            ring.records.push_back(Arc::new(Told::new(record)));
        }
        while ring.records.len() > RECORDS_MAX || ring.size > SIZE_MAX {
            let Some(oldest) = ring.records.pop_front() else {
                break;
            };
            ring.size -= size(&oldest.record);
        }
        drop(ring);
        self.head.send_replace(last);
    }

    /// Up to `n_max` records after a place; `None` if some of them are only in the log.
    pub(super) fn after(&self, position: Sequence, n_max: usize) -> Option<Vec<Arc<Told>>> {
        if position >= self.head() {
            return Some(Vec::new());
        }
        let ring = self.ring();
        let first = ring.records.front()?.record.sequence;
        let skipped = position.next().0.checked_sub(first.0)?;
        let skipped = usize::try_from(skipped).ok()?;
        Some(
            ring.records
                .iter()
                .skip(skipped)
                .take(n_max)
                .cloned()
                .collect(),
        )
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(record: &Record) -> usize {
    let content = match &record.matter {
        Matter::Files(changes) => changes.len() * RECORD_SIZE,
        Matter::Message(message) => match &message.payload {
            Payload::Inline(bytes) => 2 * bytes.len(),
            Payload::Attached(_) => 0,
        },
    };
    RECORD_SIZE + content
}
