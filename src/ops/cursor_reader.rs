//! One reader of a cursor: what it may have now, and what it has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::OpError;
use super::cursors::{Inner, Lease, OpenCursor};
use crate::log::Sequence;

/// Records that a reader of its own cursor has at a time without an acknowledgement.
const WINDOW_MAX: usize = 1024;
/// The same of each reader in a group: the next one goes to whoever is free.
const GROUP_WINDOW_MAX: usize = 1;
/// Records of a cursor that are not done with while later ones are given.
const OPEN_MAX: usize = 1024;
/// Records that are done with while an earlier one is not.
pub(super) const DONE_MAX: usize = 16_384;

/// One reader of a cursor. Dropping it leaves what it has to the next one.
pub(super) struct CursorReader {
    cursor: Arc<OpenCursor>,
    id: u64,
    is_group: bool,
    ack_timeout: Duration,
    changed: watch::Receiver<u64>,
}

/// Something that has to be given again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) sequence: Sequence,
    /// How often it will then have been given.
    pub(super) n_given: u32,
    /// The end of a gap after the record.
    pub(super) gap: Option<Sequence>,
    /// Whether the record itself is given, too.
    pub(super) is_record: bool,
}

impl CursorReader {
    pub(super) fn new(
        cursor: Arc<OpenCursor>,
        id: u64,
        is_group: bool,
        ack_timeout: Duration,
    ) -> Self {
        let changed = cursor.changed.subscribe();
        Self {
            cursor,
            id,
            is_group,
            ack_timeout,
            changed,
        }
    }

    /// Where the cursor stands.
    pub(super) fn position(&self) -> Sequence {
        self.cursor.inner().state.position
    }

    /// Where the next look at the log begins.
    pub(super) fn seen_to(&self) -> Sequence {
        self.cursor.inner().seen_to
    }

    /// Whether this reader still has the cursor.
    pub(super) fn check(&self) -> Result<(), OpError> {
        let inner = self.cursor.inner();
        if inner.is_forgotten {
            return Err(OpError::CursorForgotten);
        }
        if !self.is_group && (inner.reader != self.id || inner.group.is_some()) {
            return Err(OpError::CursorTaken);
        }
        Ok(())
    }

    /// Whether a record has to be given again, to this reader.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let inner = self.cursor.inner();
        let n_readers = inner.n_readers();
        let mut leases = inner.open.values();
        self.n_held(&inner, now) < self.window()
            && leases.any(|lease| lease.is_free(self.id, n_readers, now))
    }

    fn n_held(&self, inner: &Inner, now: Instant) -> usize {
        let leases = inner.open.values();
        leases
            .filter(|lease| lease.is_held_by(self.id, now))
            .count()
    }

    /// What has to be given again, to this reader.
    pub(super) fn claim(&self) -> Option<Claim> {
        let now = Instant::now();
        let mut inner = self.cursor.inner();
        if self.n_held(&inner, now) >= self.window() {
            return None;
        }
        let n_readers = inner.n_readers();
        let (sequence, lease) = inner
            .open
            .iter_mut()
            .find(|(_, lease)| lease.is_free(self.id, n_readers, now))?;
        *lease = Lease {
            reader: self.id,
            until: now + self.ack_timeout,
            n_given: lease.n_given + 1,
            ..*lease
        };
        Some(Claim {
            sequence: *sequence,
            n_given: lease.n_given,
            gap: lease.gap,
            is_record: lease.is_record,
        })
    }

    /// How many records may be taken from the log now.
    pub(super) fn room(&self) -> usize {
        let now = Instant::now();
        let inner = self.cursor.inner();
        if inner.open.len() >= OPEN_MAX || inner.state.done.len() >= DONE_MAX {
            return 0;
        }
        let room = self.window().saturating_sub(self.n_held(&inner, now));
        room.min(OPEN_MAX - inner.open.len())
    }

    /// Takes the records that a look at the log from `from` to `to` has found; says which of them
    /// are for this reader now. `None` if another reader has looked there meanwhile.
    pub(super) fn seen(
        &self,
        from: Sequence,
        to: Sequence,
        found: &[(Sequence, Option<Sequence>)],
    ) -> Option<HashSet<Sequence>> {
        let mut inner = self.cursor.inner();
        if inner.seen_to != from {
            return None;
        }
        let until = Instant::now() + self.ack_timeout;
        let mut given = HashSet::with_capacity(found.len());
        for (sequence, gap) in found {
            let is_record = gap.is_none();
            if is_record && inner.state.done.contains(sequence) {
                continue;
            }
            let lease = inner.open.entry(*sequence).or_insert(Lease {
                reader: self.id,
                until,
                n_given: 1,
                gap: None,
                is_record: false,
            });
            lease.gap = gap.or(lease.gap);
            lease.is_record |= is_record;
            given.insert(*sequence);
        }
        inner.seen_to = to;
        inner.advance();
        drop(inner);
        // A look that found nothing is no news: the others would look, too, and tell this one.
        if self.is_group && to > from {
            self.cursor.wake();
        }
        Some(given)
    }

    /// Lets go of a record that turned out not to be for this reader any more.
    pub(super) fn drop_record(&self, sequence: Sequence) {
        let mut inner = self.cursor.inner();
        inner.open.remove(&sequence);
        inner.advance();
    }

    /// When the next record may have to be given again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let inner = self.cursor.inner();
        // Whoever has all that it may have waits for its own.
        let is_full = self.n_held(&inner, now) >= self.window();
        let leases = inner.open.values();
        let awaited = leases.filter(|lease| !is_full || lease.is_held_by(self.id, now));
        let n_readers = inner.n_readers();
        // When its time is up, its reader has room for another record.
        let changes_at = |lease: &Lease| {
            if lease.until > now {
                lease.until
            } else {
                lease.free_at(self.id, n_readers)
            }
        };
        awaited.map(changes_at).min()
    }

    /// Waits until something about the cursor has changed since the last call.
    ///
    /// # Cancel safety
    /// Nothing is lost; call again.
    pub(super) async fn changed(&mut self) {
        let _ = self.changed.changed().await;
    }

    const fn window(&self) -> usize {
        if self.is_group {
            GROUP_WINDOW_MAX
        } else {
            WINDOW_MAX
        }
    }
}

impl Drop for CursorReader {
    fn drop(&mut self) {
        let mut inner = self.cursor.inner();
        inner.release(|reader| reader == self.id);
        if self.is_group {
            inner.group = inner
                .group
                .and_then(|n| n.checked_sub(1))
                .filter(|n| *n > 0);
        }
        drop(inner);
        self.cursor.wake();
    }
}
