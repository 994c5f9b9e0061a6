//! The embedded index: a table in the database file of the log.
//!
//! It changes in the log's own transactions and nowhere else.

use std::sync::Arc;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::fold::{self, Entries};
use super::{Index, IndexError, Indexed};
use crate::database::{Database, DatabaseError, Outcome, fault};
use crate::log::{Conflict, Draft, Fold, LogError, Record};
use crate::path::{Prefix, RemotePath};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("index");

/// An index in a [`Database`].
pub struct EmbeddedIndex {
    database: Arc<Database>,
}

impl EmbeddedIndex {
    /// The index in `database`; an empty one is begun if none is there.
    ///
    /// # Errors
    /// The engine failed.
    pub fn open(database: Arc<Database>) -> Result<Self, IndexError> {
        database.write(|transaction| {
            let known = transaction.list_tables().map_err(fault)?;
            if known.into_iter().any(|table| name_is_ours(&table)) {
                return Ok::<_, IndexError>(Outcome::Abort(()));
            }
            transaction.open_table(ENTRIES).map_err(fault)?;
            Ok(Outcome::Commit(()))
        })?;
        Ok(Self { database })
    }
}

fn name_is_ours(table: &impl redb::TableHandle) -> bool {
    table.name() == redb::TableHandle::name(&ENTRIES)
}

impl Index for EmbeddedIndex {
    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, IndexError> {
        self.database.read(|transaction| {
            let entries = transaction.open_table(ENTRIES).map_err(fault)?;
            Ok(find(&entries, path)?)
        })
    }

    fn range(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
        n_max: usize,
    ) -> Result<Vec<(RemotePath, Indexed)>, IndexError> {
        let mut end = String::new();
        let Some(bounds) = fold::bounds(prefix, after, &mut end) else {
            return Ok(Vec::new());
        };
        self.database.read(|transaction| {
            let entries = transaction.open_table(ENTRIES).map_err(fault)?;
            let range = entries.range::<&str>(bounds).map_err(fault)?;
            range
                .take(n_max)
                .map(|item| {
                    let (key, value) = item.map_err(fault)?;
                    Ok((name(key.value())?, decode(key.value(), value.value())?))
                })
                .collect()
        })
    }
}

impl Fold<WriteTransaction> for EmbeddedIndex {
    fn check(
        &self,
        transaction: &WriteTransaction,
        draft: &Draft,
    ) -> Result<Result<(), Conflict>, LogError> {
        let entries = transaction.open_table(ENTRIES).map_err(fault)?;
        Ok(fold::check(draft, &entries)?)
    }

    fn apply(&self, transaction: &WriteTransaction, record: &Record) -> Result<(), LogError> {
        let mut entries = transaction.open_table(ENTRIES).map_err(fault)?;
        Ok(fold::apply(record, &mut entries)?)
    }
}

impl Entries for Table<'_, &'static str, &'static [u8]> {
    type Error = DatabaseError;

    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, DatabaseError> {
        find(self, path)
    }

    fn first_below(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
    ) -> Result<Option<RemotePath>, DatabaseError> {
        let mut end = String::new();
        let Some(bounds) = fold::bounds(prefix, after, &mut end) else {
            return Ok(None);
        };
        let first = self.range::<&str>(bounds).map_err(fault)?.next();
        first
            .map(|item| item.map_err(fault).and_then(|(key, _)| name(key.value())))
            .transpose()
    }

    fn insert(&mut self, path: &RemotePath, indexed: Indexed) -> Result<(), DatabaseError> {
        let bytes = serde_json::to_vec(&indexed).expect("an entry has no map with odd keys");
        Table::insert(self, path.as_str(), bytes.as_slice()).map_err(fault)?;
        Ok(())
    }

    fn remove(&mut self, path: &RemotePath) -> Result<(), DatabaseError> {
        Table::remove(self, path.as_str()).map_err(fault)?;
        Ok(())
    }
}

fn find(
    entries: &impl ReadableTable<&'static str, &'static [u8]>,
    path: &RemotePath,
) -> Result<Option<Indexed>, DatabaseError> {
    let found = entries.get(path.as_str()).map_err(fault)?;
    found
        .map(|value| decode(path.as_str(), value.value()))
        .transpose()
}

fn name(text: &str) -> Result<RemotePath, DatabaseError> {
    text.parse()
        .map_err(|error| DatabaseError::Damaged(format!("a name in the index: {error}")))
}

fn decode(path: &str, bytes: &[u8]) -> Result<Indexed, DatabaseError> {
    serde_json::from_slice(bytes)
        .map_err(|error| DatabaseError::Damaged(format!("the entry of {path}: {error}")))
}

impl From<DatabaseError> for IndexError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Damaged(what) => Self::Damaged(what),
            DatabaseError::InUse { .. }
            | DatabaseError::Open { .. }
            | DatabaseError::OutOfSpace(_)
            | DatabaseError::SyncFailed(_)
            | DatabaseError::Engine(_) => Self::Engine(Box::new(error)),
        }
    }
}
