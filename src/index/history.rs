//! Which records about files are history: they say how a file was, not how it is.
//!
//! A record that says how a file is now is kept for ever, so that the index can be folded anew, and
//! a reader from the beginning learns of every file. Of the others the log may let go.

use jiff::Timestamp;
use redb::{ReadableTable, Table, WriteTransaction};

use super::fold::{Effect, Entries};
use super::tables::{DEAD, FILES_LOST_TO, LIVE, Marks};
use crate::database::fault;
use crate::log::{Expired, Keep, LogError, Record, RecordOf, Sequence};

/// The whole record is history.
const WHOLE: u8 = 0;
/// Some changes of the record are.
const PART: u8 = 1;

/// The tables of history, in a transaction.
pub(super) struct History<'t> {
    /// Of a record with several changes, how many say how a file is now.
    live: Table<'t, u64, u32>,
    dead: Table<'t, u64, u8>,
}

impl<'t> History<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, LogError> {
        Ok(Self {
            live: transaction.open_table(LIVE).map_err(fault)?,
            dead: transaction.open_table(DEAD).map_err(fault)?,
        })
    }

    /// Counts what a record did.
    pub(super) fn apply(&mut self, record: &Record, effect: &Effect) -> Result<(), LogError> {
        let own = record.sequence;
        let changes = record.matter.changes().iter();
        let n_made = changes.filter(|change| change.target().is_some()).count();
        let is_own = |superseded: &&Sequence| **superseded == own;
        let n_undone = effect.superseded.iter().filter(is_own).count();
        match n_made - n_undone {
            0 => drop(self.dead.insert(own.0, WHOLE).map_err(fault)?),
            1 if n_made == 1 => {}
            n_current => {
                let n_current = u32::try_from(n_current).unwrap_or(u32::MAX);
                self.live.insert(own.0, n_current).map_err(fault)?;
            }
        }
        let others = effect.superseded.iter().filter(|before| **before != own);
        for before in others {
            self.supersede(*before)?;
        }
        Ok(())
    }

    fn supersede(&mut self, before: Sequence) -> Result<(), LogError> {
        let n_live = self.live.get(before.0).map_err(fault)?;
        let n_live = n_live.map_or(1, |n| n.value());
        if n_live <= 1 {
            self.live.remove(before.0).map_err(fault)?;
            self.dead.insert(before.0, WHOLE).map_err(fault)?;
        } else {
            self.live.insert(before.0, n_live - 1).map_err(fault)?;
            self.dead.insert(before.0, PART).map_err(fault)?;
        }
        Ok(())
    }

    /// Lets go of the oldest history, in order, so that what undid a change never goes before it.
    pub(super) fn expire(
        &mut self,
        entries: &impl Entries<Error: Into<LogError>>,
        marks: &mut Marks<'_>,
        keep: &Keep,
        (now, until, n_max): (Timestamp, Sequence, usize),
        record_of: &RecordOf<'_>,
    ) -> Result<Vec<Expired>, LogError> {
        let mut expired = Vec::new();
        for row in self.dead.range(..=until.0).map_err(fault)?.take(n_max) {
            let (key, kind) = row.map_err(fault)?;
            let sequence = Sequence(key.value());
            // What cannot be read tells nobody anything.
            let record = record_of(sequence)?;
            let is_young = |record: &Record| now.duration_since(record.time) < keep.history();
            if record.as_ref().is_some_and(is_young) {
                break;
            }
            expired.push(match record {
                Some(record) if kind.value() == PART => Expired::Changes {
                    sequence,
                    kept: current(&record, entries)?,
                },
                _ => Expired::Whole(sequence),
            });
        }
        for expired in &expired {
            let (Expired::Whole(sequence) | Expired::Changes { sequence, .. }) = expired;
            self.dead.remove(sequence.0).map_err(fault)?;
            marks.raise(FILES_LOST_TO, sequence.0)?;
        }
        Ok(expired)
    }
}

/// The files that are as the record says.
fn current(
    record: &Record,
    entries: &impl Entries<Error: Into<LogError>>,
) -> Result<Vec<crate::path::RemotePath>, LogError> {
    let mut kept = Vec::new();
    for path in record
        .matter
        .changes()
        .iter()
        .filter_map(|change| change.target())
    {
        let indexed = entries.lookup(path).map_err(Into::into)?;
        if indexed.is_some_and(|indexed| indexed.version == record.sequence) {
            kept.push(path.clone());
        }
    }
    Ok(kept)
}
