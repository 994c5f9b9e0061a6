//! Cursors: how far each named reader has come.
//!
//! An identity's cursor is its own. What is saved may be behind what was acknowledged, never ahead,
//! so that a reader sees a record again rather than not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, TableHandle};
use serde::{Deserialize, Serialize};

use super::{LogError, Sequence};
use crate::database::{Database, Outcome, fault};
use crate::filter::TopicFilter;
use crate::identity::SpiffeId;
use crate::label::CursorName;
use crate::path::Prefix;

const CURSORS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cursors");

/// What a reader reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Topics(Vec<TopicFilter>),
    /// Changes of files in a directory, or of the file of this name.
    Files(Prefix),
}

/// Which cursor it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CursorKey {
    pub identity: SpiffeId,
    pub name: CursorName,
}

/// How far a reader has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorState {
    pub reading: Reading,
    /// Whether it was last read by a group, whose members are done with each record for itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_group: bool,
    /// Everything up to here is done with.
    pub position: Sequence,
    /// What is done with after that.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<Sequence>,
}

/// Where cursors are kept.
pub trait Cursors: Send + Sync {
    /// All of them.
    ///
    /// # Errors
    /// The engine failed.
    fn load(&self) -> Result<Vec<(CursorKey, CursorState)>, LogError>;

    /// Keeps those that have a state and removes the others, in one durable step.
    ///
    /// # Errors
    /// The engine failed.
    fn save(&self, cursors: &[(CursorKey, Option<CursorState>)]) -> Result<(), LogError>;
}

/// Cursors in a [`Database`].
pub struct EmbeddedCursors {
    database: Arc<Database>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    key: CursorKey,
    state: CursorState,
}

impl EmbeddedCursors {
    /// The cursors in `database`.
    ///
    /// # Errors
    /// The engine failed.
    pub fn open(database: Arc<Database>) -> Result<Self, LogError> {
        database.write(|transaction| {
            let known = transaction.list_tables().map_err(fault)?;
            if known
                .into_iter()
                .any(|table| table.name() == CURSORS.name())
            {
                return Ok(Outcome::Abort(()));
            }
            transaction.open_table(CURSORS).map_err(fault)?;
            Ok::<_, LogError>(Outcome::Commit(()))
        })?;
        Ok(Self { database })
    }
}

impl Cursors for EmbeddedCursors {
    fn load(&self) -> Result<Vec<(CursorKey, CursorState)>, LogError> {
        self.database.read(|transaction| {
            let cursors = transaction.open_table(CURSORS).map_err(fault)?;
            let rows = cursors.iter().map_err(fault)?;
            rows.map(|row| {
                let (key, value) = row.map_err(fault)?;
                let row: Row = serde_json::from_slice(value.value()).map_err(|error| {
                    LogError::Damaged(format!("the cursor {}: {error}", key.value()))
                })?;
                Ok((row.key, row.state))
            })
            .collect()
        })
    }

    fn save(&self, cursors: &[(CursorKey, Option<CursorState>)]) -> Result<(), LogError> {
        self.database.write(|transaction| {
            let mut table = transaction.open_table(CURSORS).map_err(fault)?;
            for (key, state) in cursors {
                // Neither part holds a space.
                let name = format!("{} {}", key.identity, key.name);
                match state {
                    None => drop(table.remove(name.as_str()).map_err(fault)?),
                    Some(state) => {
                        let row = Row {
                            key: key.clone(),
                            state: state.clone(),
                        };
                        let bytes = serde_json::to_vec(&row).expect("a cursor is plain JSON");
                        table
                            .insert(name.as_str(), bytes.as_slice())
                            .map_err(fault)?;
                    }
                }
            }
            drop(table);
            Ok::<_, LogError>(Outcome::Commit(()))
        })
    }
}
