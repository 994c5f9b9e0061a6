//! The embedded log: records in the shared database file.
//!
//! A batch is one transaction and one sync, and the view that is folded in it is never ahead of
//! the log or behind it.

use std::sync::{Arc, Mutex, PoisonError};

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Conflict, Draft, Fold, Log, LogError, Record, Sequence};
use crate::database::{Database, DatabaseError, Outcome, fault};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("log-marks");
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
const PUBLISHED: &str = "published";

/// A log in a [`Database`], with the view `F` that is current with it.
pub struct EmbeddedLog<F> {
    database: Arc<Database>,
    view: Arc<F>,
    /// Held through an append: between its commit and the look at what became of it, nobody else
    /// may take its place in the log.
    turn: Mutex<()>,
}

type Results = Vec<Result<Sequence, Conflict>>;

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
    ) -> Result<(Results, Option<Sequence>), LogError> {
        let mut last = None;
        let mut next = head_of(&transaction.open_table(RECORDS).map_err(fault)?)?.next();
        let mut results = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let verdict = self.view.check(transaction, draft)?;
            if verdict.is_ok() {
                let record = draft.clone().into_record(next);
                insert(transaction, &record)?;
                self.view.apply(transaction, &record)?;
                last = Some(next);
                next = next.next();
            }
            results.push(verdict.map(|()| last.expect("an accepted draft is the last record")));
        }
        Ok((results, last))
    }
}

impl<F: Fold<WriteTransaction>> Log for EmbeddedLog<F> {
    fn append(&self, drafts: &[Draft], published: Sequence) -> Result<Results, LogError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempted = None;
        let outcome = self.database.write(|transaction| {
            let (results, last) = self.append_all(transaction, drafts)?;
            if last.is_none() && !drafts.is_empty() {
                return Ok(Outcome::Abort(results));
            }
            let mut marks = transaction.open_table(MARKS).map_err(fault)?;
            let before = marks.insert(PUBLISHED, published.0).map_err(fault)?;
            if last.is_none() && before.is_some_and(|mark| mark.value() == published.0) {
                return Ok(Outcome::Abort(results));
            }
            attempted = last.map(|last| (results.clone(), last));
            Ok(Outcome::Commit(results))
        });
        // A commit can fail after all of it reached the disk; what the reopened log says decides.
        match (outcome, attempted) {
            (Err(error), Some((results, last))) if !self.database.is_read_only() => {
                let landed = self.head().is_ok_and(|head| head == last);
                if landed { Ok(results) } else { Err(error) }
            }
            (Err(error), Some(_)) => Err(LogError::Unknown(Arc::new(error))),
            (outcome, _) => outcome,
        }
    }

    fn read(&self, from: Sequence, n_max: usize) -> Result<Vec<Record>, LogError> {
        self.database.read(|transaction| {
            let records = transaction.open_table(RECORDS).map_err(fault)?;
            let range = records.range(from.0..).map_err(fault)?;
            range
                .take(n_max)
                .map(|item| {
                    let (key, value) = item.map_err(fault)?;
                    decode(Sequence(key.value()), value.value())
                })
                .collect()
        })
    }

    fn head(&self) -> Result<Sequence, LogError> {
        self.database
            .read(|transaction| head_of(&transaction.open_table(RECORDS).map_err(fault)?))
    }

    fn published(&self) -> Result<Sequence, LogError> {
        self.database.read(|transaction| {
            let marks = transaction.open_table(MARKS).map_err(fault)?;
            let mark = marks.get(PUBLISHED).map_err(fault)?;
            Ok(Sequence(mark.map_or(0, |mark| mark.value())))
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
            Ok(Outcome::Commit(()))
        }
    }
}

fn head_of(records: &impl ReadableTable<u64, &'static [u8]>) -> Result<Sequence, LogError> {
    let last = records.last().map_err(fault)?;
    Ok(Sequence(last.map_or(0, |(key, _)| key.value())))
}

fn insert(transaction: &WriteTransaction, record: &Record) -> Result<(), LogError> {
    let bytes = serde_json::to_vec(record).map_err(|error| LogError::Engine(Arc::new(error)))?;
    let mut records = transaction.open_table(RECORDS).map_err(fault)?;
    records
        .insert(record.sequence.0, bytes.as_slice())
        .map_err(fault)?;
    Ok(())
}

fn decode(sequence: Sequence, bytes: &[u8]) -> Result<Record, LogError> {
    let record: Record = serde_json::from_slice(bytes)
        .map_err(|error| LogError::Damaged(format!("record {}: {error}", sequence.0)))?;
    if record.sequence != sequence {
        return Err(LogError::Damaged(format!(
            "record {} stands in the place of {}",
            record.sequence.0, sequence.0
        )));
    }
    Ok(record)
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
