//! Cursors that are open: what was given to which reader, and what is done with.
//!
//! A record that was given and not acknowledged in time is given again. Everything up to a cursor's
//! position is done with, and nothing after it is forgotten, so that no reader misses a record.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::OpError;
use super::cursor_reader::{CursorReader, DONE_MAX};
use crate::identity::SpiffeId;
use crate::label::CursorName;
use crate::log::cursors::{CursorKey, CursorState, Cursors, Reading};
use crate::log::{LogError, Sequence};

/// Cursors of one identity.
const CURSORS_PER_IDENTITY_MAX: usize = 256;
/// How long the others of a group have to take what one of them did not acknowledge.
const HANDOVER_TIME: Duration = Duration::from_secs(1);

/// All cursors, and where they are kept.
pub(super) struct OpenCursors {
    kept: Arc<dyn Cursors>,
    cursors: Mutex<HashMap<CursorKey, Arc<OpenCursor>>>,
    /// Held while something is kept, so that nothing older is kept after it.
    keeping: Mutex<()>,
    n_readers: AtomicU64,
}

/// One cursor.
pub(super) struct OpenCursor {
    inner: Mutex<Inner>,
    /// Counts whatever a reader may have waited for.
    pub(super) changed: watch::Sender<u64>,
}

pub(super) struct Inner {
    pub(super) state: CursorState,
    /// The state is not what is kept.
    pub(super) is_dirty: bool,
    pub(super) is_forgotten: bool,
    /// Every record up to here that the cursor is for is open or done with.
    pub(super) seen_to: Sequence,
    pub(super) open: BTreeMap<Sequence, Lease>,
    /// Readers that share it; without them, the one reader that has it.
    pub(super) group: Option<usize>,
    pub(super) reader: u64,
}

/// A record that is not done with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// Who has it; nobody for 0.
    pub(super) reader: u64,
    pub(super) until: Instant,
    pub(super) n_given: u32,
    /// The end of a gap after the record that the reader has to hear of.
    pub(super) gap: Option<Sequence>,
    /// Whether the record itself is given, and not only the gap after it.
    pub(super) is_record: bool,
}

impl OpenCursors {
    /// The cursors that are kept.
    pub(super) fn open(kept: Arc<dyn Cursors>) -> Result<Self, LogError> {
        let cursors = kept.load()?.into_iter();
        let opened = cursors.map(|(key, state)| (key, Arc::new(OpenCursor::new(state, false))));
        Ok(Self {
            cursors: Mutex::new(opened.collect()),
            kept,
            keeping: Mutex::default(),
            n_readers: AtomicU64::new(0),
        })
    }

    /// A reader of a cursor, which is made at `position` if it is not there. A reader that is not in
    /// a group takes the cursor from the one before.
    pub(super) fn read(
        &self,
        key: CursorKey,
        reading: Reading,
        is_group: bool,
        ack_timeout: Duration,
        position: impl FnOnce() -> Result<Sequence, OpError>,
    ) -> Result<CursorReader, OpError> {
        let known = self.cursors().get(&key).cloned();
        let cursor = match known {
            Some(cursor) => cursor,
            None => self.make(key, &reading, position()?)?,
        };
        let id = self.n_readers.fetch_add(1, Ordering::Relaxed) + 1;
        cursor.admit(id, reading, is_group)?;
        Ok(CursorReader::new(cursor, id, is_group, ack_timeout))
    }

    /// A new cursor, which is kept before it gives anything: what is given and not acknowledged has
    /// to come again also after a crash.
    fn make(
        &self,
        key: CursorKey,
        reading: &Reading,
        position: Sequence,
    ) -> Result<Arc<OpenCursor>, OpError> {
        let state = CursorState {
            reading: reading.clone(),
            is_group: false,
            position,
            done: std::collections::BTreeSet::new(),
        };
        let mut cursors = self.cursors();
        let n_own = cursors.keys().filter(|k| k.identity == key.identity);
        if !cursors.contains_key(&key) && n_own.count() >= CURSORS_PER_IDENTITY_MAX {
            return Err(OpError::TooMany {
                what: "cursors of one identity",
                n_max: CURSORS_PER_IDENTITY_MAX,
            });
        }
        let made = || Arc::new(OpenCursor::new(state, true));
        let cursor = Arc::clone(cursors.entry(key).or_insert_with(made));
        drop(cursors);
        self.save().map_err(OpError::Log)?;
        Ok(cursor)
    }

    /// Takes what a reader says it is done with.
    pub(super) fn acknowledge(&self, key: &CursorKey, sequence: Sequence) -> Result<(), OpError> {
        let cursor = self.cursors().get(key).cloned();
        cursor
            .ok_or_else(|| OpError::NoCursor(key.name.clone()))?
            .acknowledge(sequence);
        Ok(())
    }

    /// Takes a cursor away; its readers end.
    pub(super) fn forget(&self, key: &CursorKey) -> Result<(), OpError> {
        let _keeping = self.keeping();
        let cursor = self.cursors().remove(key);
        let cursor = cursor.ok_or_else(|| OpError::NoCursor(key.name.clone()))?;
        cursor.inner().is_forgotten = true;
        cursor.wake();
        let removed = self.kept.save(&[(key.clone(), None)]);
        removed.map_err(OpError::Log)
    }

    /// An identity's own cursors.
    pub(super) fn of(&self, identity: &SpiffeId) -> Vec<(CursorName, Reading, Sequence)> {
        let cursors = self.cursors();
        let own = cursors.iter().filter(|(key, _)| key.identity == *identity);
        own.map(|(key, cursor)| {
            let inner = cursor.inner();
            let position = inner.state.position;
            (key.name.clone(), inner.state.reading.clone(), position)
        })
        .collect()
    }

    pub(super) fn n_cursors(&self) -> usize {
        self.cursors().len()
    }

    /// Keeps what has changed. Blocks.
    pub(super) fn save(&self) -> Result<(), LogError> {
        let _keeping = self.keeping();
        let all: Vec<_> = self
            .cursors()
            .iter()
            .map(|(key, cursor)| (key.clone(), Arc::clone(cursor)))
            .collect();
        let mut changed = Vec::new();
        for (key, cursor) in &all {
            let mut inner = cursor.inner();
            if inner.is_dirty && !inner.is_forgotten {
                inner.is_dirty = false;
                changed.push((key.clone(), Some(inner.state.clone())));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let saved = self.kept.save(&changed);
        if saved.is_err() {
            for (_, cursor) in all {
                cursor.inner().is_dirty = true;
            }
        }
        saved
    }

    fn keeping(&self) -> MutexGuard<'_, ()> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursors(&self) -> MutexGuard<'_, HashMap<CursorKey, Arc<OpenCursor>>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCursor {
    fn new(state: CursorState, is_dirty: bool) -> Self {
        let seen_to = state.position;
        Self {
            inner: Mutex::new(Inner {
                state,
                is_dirty,
                is_forgotten: false,
                seen_to,
                open: BTreeMap::new(),
                group: None,
                reader: 0,
            }),
            changed: watch::Sender::new(0),
        }
    }

    fn admit(&self, id: u64, reading: Reading, is_group: bool) -> Result<(), OpError> {
        let mut inner = self.inner();
        match (is_group, inner.group) {
            (true, Some(n)) if inner.state.reading != reading => {
                return Err(OpError::GroupReading { n });
            }
            (true, Some(n)) => inner.group = Some(n + 1),
            (true, None) => inner.group = Some(1),
            (false, Some(n)) => return Err(OpError::InGroup { n }),
            (false, None) => {}
        }
        if inner.state.reading != reading {
            inner.state.reading = reading;
            inner.is_dirty = true;
        }
        // What is acknowledged after the last one has left is so, too.
        inner.is_dirty |= inner.state.is_group != is_group;
        inner.state.is_group = is_group;
        if !is_group || inner.group == Some(1) {
            inner.reader = id;
            inner.release(|_| true);
        }
        drop(inner);
        self.wake();
        Ok(())
    }

    /// A reader may know of records that were given before the server was started again.
    fn acknowledge(&self, sequence: Sequence) {
        let mut inner = self.inner();
        if inner.state.is_group {
            let is_ahead = sequence > inner.seen_to && inner.state.done.len() < DONE_MAX;
            if inner.open.remove(&sequence).is_some() || is_ahead {
                inner.state.done.insert(sequence);
            }
        } else {
            inner.open = inner.open.split_off(&sequence.next());
            inner.seen_to = inner.seen_to.max(sequence);
        }
        inner.is_dirty = true;
        inner.advance();
        drop(inner);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves the position up to the first record that is not done with.
    pub(super) fn advance(&mut self) {
        let first = self.open.keys().next();
        let position = first.map_or(self.seen_to, |first| Sequence(first.0.saturating_sub(1)));
        if position > self.state.position {
            self.state.position = position;
            self.state.done = self.state.done.split_off(&position.next());
            self.is_dirty = true;
        }
    }

    /// Readers that share the cursor.
    pub(super) fn n_readers(&self) -> usize {
        self.group.unwrap_or(1)
    }

    pub(super) fn release(&mut self, whose: impl Fn(u64) -> bool) {
        for lease in self.open.values_mut().filter(|lease| whose(lease.reader)) {
            lease.reader = 0;
        }
    }
}

impl Lease {
    /// When a reader may have it, unless it is acknowledged. Whoever of a group let its time pass
    /// may hang, and comes after the others.
    pub(super) fn free_at(&self, reader: u64, n_readers: usize) -> Instant {
        if self.reader == reader && n_readers > 1 {
            return self.until + HANDOVER_TIME;
        }
        self.until
    }

    pub(super) fn is_free(&self, reader: u64, n_readers: usize, now: Instant) -> bool {
        self.reader == 0 || self.free_at(reader, n_readers) <= now
    }

    pub(super) fn is_held_by(&self, reader: u64, now: Instant) -> bool {
        self.reader == reader && self.until > now
    }
}
