//! The tables of the embedded index, and its marks.
//!
//! A table that is changed here is read nowhere else but in `index`.

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::database::{DatabaseError, fault};
use crate::log::LogError;

/// A path, and the file that is there.
pub(super) const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("index");
/// A record with several changes, and how many of them say how a file is now.
pub(super) const LIVE: TableDefinition<'_, u64, u32> = TableDefinition::new("index-live");
/// A record that is history, and whether all of it is.
pub(super) const DEAD: TableDefinition<'_, u64, u8> = TableDefinition::new("index-dead");
/// A topic, and its counts: see [`Counts`].
pub(super) const TOPICS: TableDefinition<'_, &str, Counts> = TableDefinition::new("topics");
/// A message by topic and sequence number: see [`Row`].
pub(super) const MESSAGES: TableDefinition<'_, (&str, u64), Row> = TableDefinition::new("messages");
/// A deduplication key, and its record: see `dedup`.
pub(super) const DEDUP: TableDefinition<'_, &str, u64> = TableDefinition::new("dedup");
/// A record, and its deduplication key.
pub(super) const DEDUP_OF: TableDefinition<'_, u64, &str> = TableDefinition::new("dedup-of");
/// A message, and the content that is attached to it.
pub(super) const ATTACHED_OF: TableDefinition<'_, u64, u128> = TableDefinition::new("attached-of");
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("index-marks");

/// Messages so far, messages kept, their bytes, the last one, the last one that is not kept.
pub(super) type Counts = (u64, u64, u64, u64, u64);
/// The number of the message in its topic, its bytes, its time in milliseconds.
pub(super) type Row = (u64, u64, u64);

/// Where replies are kept: no topic has this name, and nobody subscribes to it.
pub(super) const REPLIES: &str = "";

/// History of files is whole after this.
pub(super) const FILES_LOST_TO: &str = "files-lost-to";
/// Messages of topics that are no longer known were up to this.
pub(super) const TOPICS_LOST_TO: &str = "topics-lost-to";
/// No message was let go of after this.
pub(super) const MESSAGES_LOST_TO: &str = "messages-lost-to";
/// Topics that are known.
pub(super) const N_TOPICS: &str = "n-topics";
/// Topics without a message.
pub(super) const N_EMPTY: &str = "n-empty";
/// Messages that were let go of, ever.
pub(super) const N_EXPIRED: &str = "n-expired";
/// Messages that are kept.
pub(super) const N_MESSAGES: &str = "n-messages";
/// Their bytes.
pub(super) const MESSAGES_SIZE: &str = "messages-size";

/// Numbers about the whole index: they change with each message, and are written once.
pub(super) struct Marks<'t> {
    table: Table<'t, &'static str, u64>,
    changed: BTreeMap<&'static str, u64>,
}

impl<'t> Marks<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, LogError> {
        Ok(Self {
            table: transaction.open_table(MARKS).map_err(fault)?,
            changed: BTreeMap::new(),
        })
    }

    pub(super) fn get(&self, name: &str) -> Result<u64, LogError> {
        match self.changed.get(name) {
            Some(value) => Ok(*value),
            None => Ok(read(&self.table, name)?),
        }
    }

    pub(super) fn set(&mut self, name: &'static str, value: u64) {
        self.changed.insert(name, value);
    }

    /// Writes what has changed.
    pub(super) fn finish(&mut self) -> Result<(), LogError> {
        for (name, value) in std::mem::take(&mut self.changed) {
            self.table.insert(name, value).map_err(fault)?;
        }
        Ok(())
    }

    /// Makes it at least `value`.
    pub(super) fn raise(&mut self, name: &'static str, value: u64) -> Result<(), LogError> {
        if self.get(name)? < value {
            self.set(name, value);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, name: &'static str, value: u64) -> Result<(), LogError> {
        self.set(name, self.get(name)?.saturating_add(value));
        Ok(())
    }

    pub(super) fn subtract(&mut self, name: &'static str, value: u64) -> Result<(), LogError> {
        self.set(name, self.get(name)?.saturating_sub(value));
        Ok(())
    }
}

/// Makes sure that every table is there: a read of one that is not fails.
pub(super) fn begin(transaction: &WriteTransaction) -> Result<(), DatabaseError> {
    transaction.open_table(ENTRIES).map_err(fault)?;
    transaction.open_table(LIVE).map_err(fault)?;
    transaction.open_table(DEAD).map_err(fault)?;
    transaction.open_table(TOPICS).map_err(fault)?;
    transaction.open_table(MESSAGES).map_err(fault)?;
    transaction.open_table(DEDUP).map_err(fault)?;
    transaction.open_table(DEDUP_OF).map_err(fault)?;
    transaction.open_table(ATTACHED_OF).map_err(fault)?;
    transaction.open_table(MARKS).map_err(fault)?;
    Ok(())
}

/// Reads several marks.
pub(super) fn marks<const N: usize>(
    transaction: &redb::ReadTransaction,
    names: [&str; N],
) -> Result<[u64; N], DatabaseError> {
    let marks = transaction.open_table(MARKS).map_err(fault)?;
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = read(&marks, name)?;
    }
    Ok(values)
}

fn read(marks: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, DatabaseError> {
    let mark = marks.get(name).map_err(fault)?;
    Ok(mark.map_or(0, |mark| mark.value()))
}
