//! The embedded log: records in the shared database file.
//!
//! A batch is one transaction and one sync, and the view that is folded in it is never ahead of
//! the log or behind it.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::codec::{self, Stored};
use super::{
    Conflict, Draft, Expired, Fold, Log, LogError, Page, Record, Sequence, Stats, View,
    milliseconds,
};
use crate::content::ContentId;
use crate::database::{Database, DatabaseError, Outcome, fault};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("log-marks");
/// Contents of messages that are gone; the view adds to them.
pub const DETACHED: TableDefinition<'_, u128, ()> = TableDefinition::new("detached");
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 2;
const PUBLISHED: &str = "published";
/// The last record, which may not be kept any more.
const HEAD: &str = "head";
/// The latest time of any record, in milliseconds.
const CLOCK: &str = "clock";

type Records<'a> = redb::Table<'a, u64, &'static [u8]>;

/// A log in a [`Database`], with the view `F` that is current with it.
pub struct EmbeddedLog<F> {
    database: Arc<Database>,
    view: Arc<F>,
    /// Held through an append: between its commit and the look at what became of it, nobody else
    /// may take its place in the log.
    turn: Mutex<()>,
}

type Results = Vec<Result<Record, Conflict>>;

impl<F: Fold<WriteTransaction>> EmbeddedLog<F> {
    /// The log in `database`; an empty one is begun if none is there.
    ///
    /// # Errors
    /// The engine failed, or another version of this program wrote the log.
    pub fn open(database: Arc<Database>, view: Arc<F>) -> Result<Self, LogError> {
        database.write(begin)?;
        Ok(Self {
            database,
            view,
            turn: Mutex::new(()),
        })
    }

    fn append_all(
        &self,
        transaction: &WriteTransaction,
        drafts: &[Draft],
        published: Sequence,
    ) -> Result<(Results, Option<Sequence>, bool), LogError> {
        let mut records = transaction.open_table(RECORDS).map_err(fault)?;
        let mut marks = transaction.open_table(MARKS).map_err(fault)?;
        let mut view = self.view.open(transaction)?;
        let head = mark_of(&marks, HEAD)?;
        let clock = mark_of(&marks, CLOCK)?;
        let (mut last, mut latest) = (head, clock);
        let mut results = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let verdict = view.check(draft)?;
            let appended = verdict.map(|()| draft.clone().into_record(Sequence(last).next()));
            results.push(match appended {
                Err(conflict) => Err(conflict),
                Ok(mut record) => {
                    view.apply(&mut record, published)?;
                    last = record.sequence.0;
                    latest = latest.max(milliseconds(record.time));
                    let bytes = codec::encode(&record, latest);
                    records.insert(last, bytes.as_slice()).map_err(fault)?;
                    Ok(record)
                }
            });
        }
        remove(&mut records, &view.finish()?)?;
        if last != head {
            marks.insert(HEAD, last).map_err(fault)?;
        }
        if latest != clock {
            marks.insert(CLOCK, latest).map_err(fault)?;
        }
        let is_news = mark_of(&marks, PUBLISHED)? != published.0;
        if is_news {
            marks.insert(PUBLISHED, published.0).map_err(fault)?;
        }
        Ok((results, (last != head).then_some(Sequence(last)), is_news))
    }

    fn mark(&self, name: &str) -> Result<u64, LogError> {
        self.database
            .read(|transaction| mark_of(&transaction.open_table(MARKS).map_err(fault)?, name))
    }
}

impl<F: Fold<WriteTransaction>> Log for EmbeddedLog<F> {
    fn append(&self, drafts: &[Draft], published: Sequence) -> Result<Results, LogError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempted = None;
        let outcome = self.database.write(|transaction| {
            let (results, last, is_news) = self.append_all(transaction, drafts, published)?;
            let is_empty = last.is_none() && !(drafts.is_empty() && is_news);
            attempted = Some((results, last));
            Ok(if is_empty {
                Outcome::Abort(())
            } else {
                Outcome::Commit(())
            })
        });
        // A commit can fail after all of it reached the disk; what the reopened log says decides.
        match (outcome, attempted) {
            (Ok(()), Some((results, _))) => Ok(results),
            (Err(error), Some((results, Some(last)))) if !self.database.is_read_only() => {
                let landed = self.head().is_ok_and(|head| head == last);
                if landed { Ok(results) } else { Err(error) }
            }
            (Err(error), Some((_, Some(_)))) => Err(LogError::Unknown(Arc::new(error))),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Ok(Vec::new()),
        }
    }

    fn read(&self, from: Sequence, page: Page) -> Result<Vec<Record>, LogError> {
        self.database.read(|transaction| {
            let stored = transaction.open_table(RECORDS).map_err(fault)?;
            let (mut records, mut size) = (Vec::new(), 0);
            for item in stored.range(from.0..).map_err(fault)?.take(page.n_max) {
                let (key, value) = item.map_err(fault)?;
                size += value.value().len();
                if size > page.size_max && !records.is_empty() {
                    break;
                }
                match codec::decode(Sequence(key.value()), value.value()) {
                    Ok(Stored { record, .. }) => records.push(record),
                    Err(error) if records.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(records)
        })
    }

    fn head(&self) -> Result<Sequence, LogError> {
        self.mark(HEAD).map(Sequence)
    }

    fn since(&self, time: Timestamp) -> Result<Sequence, LogError> {
        let wanted = milliseconds(time);
        self.database.read(|transaction| {
            let records = transaction.open_table(RECORDS).map_err(fault)?;
            let marks = transaction.open_table(MARKS).map_err(fault)?;
            let (mut low, mut high) = (1, mark_of(&marks, HEAD)? + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                let next = records.range(middle..high).map_err(fault)?.next();
                let Some((key, value)) = next.transpose().map_err(fault)? else {
                    high = middle;
                    continue;
                };
                // What cannot be read may be young enough.
                match codec::decode(Sequence(key.value()), value.value()) {
                    Ok(stored) if stored.clock_ms < wanted => low = key.value() + 1,
                    _ => high = middle,
                }
            }
            Ok(Sequence(low))
        })
    }

    fn published(&self) -> Result<Sequence, LogError> {
        self.mark(PUBLISHED).map(Sequence)
    }

    fn expire(&self, now: Timestamp, n_max: usize) -> Result<usize, LogError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.write(|transaction| {
            let mut records = transaction.open_table(RECORDS).map_err(fault)?;
            let marks = transaction.open_table(MARKS).map_err(fault)?;
            let until = Sequence(mark_of(&marks, PUBLISHED)?);
            let mut view = self.view.open(transaction)?;
            let record_of = |sequence| Ok(find(&records, sequence)?.map(|stored| stored.record));
            view.expire(now, until, n_max, &record_of)?;
            let expired = view.finish()?;
            remove(&mut records, &expired)?;
            Ok(if expired.is_empty() {
                Outcome::Abort(0)
            } else {
                Outcome::Commit(expired.len())
            })
        })
    }

    fn detached(&self, n_max: usize) -> Result<Vec<ContentId>, LogError> {
        self.database.read(|transaction| {
            let detached = transaction.open_table(DETACHED).map_err(fault)?;
            let rows = detached.iter().map_err(fault)?.take(n_max);
            rows.map(|row| {
                let (key, _) = row.map_err(fault)?;
                Ok(ContentId::from_random(key.value().to_be_bytes()))
            })
            .collect()
        })
    }

    fn forget_detached(&self, contents: &[ContentId]) -> Result<(), LogError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.write(|transaction| {
            let mut detached = transaction.open_table(DETACHED).map_err(fault)?;
            for content in contents {
                detached.remove(content.as_u128()).map_err(fault)?;
            }
            drop(detached);
            Ok(Outcome::Commit(()))
        })
    }

    fn stats(&self) -> Result<Stats, LogError> {
        let file_size = self.database.file_size();
        self.database.read(|transaction| {
            let records = transaction.open_table(RECORDS).map_err(fault)?;
            let first = records.first().map_err(fault)?;
            Ok(Stats {
                first: Sequence(first.map_or(0, |(key, _)| key.value())),
                n_records: records.len().map_err(fault)?,
                file_size,
            })
        })
    }
}

fn begin(transaction: &WriteTransaction) -> Result<Outcome<()>, LogError> {
    let mut marks = transaction.open_table(MARKS).map_err(fault)?;
    let format = marks.get(FORMAT).map_err(fault)?.map(|mark| mark.value());
    match format {
        Some(FORMAT_VERSION) => Ok(Outcome::Abort(())),
        Some(other) => Err(LogError::Damaged(format!(
            "it has format {other}, this program reads format {FORMAT_VERSION}"
        ))),
        None => {
            marks.insert(FORMAT, FORMAT_VERSION).map_err(fault)?;
            transaction.open_table(RECORDS).map_err(fault)?;
            transaction.open_table(DETACHED).map_err(fault)?;
            Ok(Outcome::Commit(()))
        }
    }
}

fn mark_of(marks: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, LogError> {
    let mark = marks.get(name).map_err(fault)?;
    Ok(mark.map_or(0, |mark| mark.value()))
}

/// A record that is kept and sound.
fn find(records: &Records<'_>, sequence: Sequence) -> Result<Option<Stored>, LogError> {
    let found = records.get(sequence.0).map_err(fault)?;
    let decoded = found.map(|value| codec::decode(sequence, value.value()));
    Ok(decoded.and_then(Result::ok))
}

fn remove(records: &mut Records<'_>, expired: &[Expired]) -> Result<(), LogError> {
    for expired in expired {
        match expired {
            Expired::Whole(sequence) => drop(records.remove(sequence.0).map_err(fault)?),
            Expired::Changes { sequence, kept } => {
                let Some(mut stored) = find(records, *sequence)? else {
                    continue;
                };
                stored.record.keep_only(kept);
                let bytes = codec::encode(&stored.record, stored.clock_ms);
                records
                    .insert(sequence.0, bytes.as_slice())
                    .map_err(fault)?;
            }
        }
    }
    Ok(())
}

impl From<DatabaseError> for LogError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::OutOfSpace(_) => Self::OutOfSpace(Arc::new(error)),
            DatabaseError::Damaged(what) => Self::Damaged(what),
            DatabaseError::InUse { .. } | DatabaseError::Open { .. } | DatabaseError::Engine(_) => {
                Self::Engine(Arc::new(error))
            }
            DatabaseError::SyncFailed(_) => Self::ReadOnly(Arc::new(error)),
        }
    }
}
