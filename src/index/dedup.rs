//! What was asked already: by whom and under which id, of messages and of files.
//!
//! An id is known for exactly as long as the record that it made is kept.

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::tables::{DEDUP, DEDUP_OF, REPLIES};
use crate::database::{DatabaseError, fault};
use crate::identity::SpiffeId;
use crate::label::DedupId;
use crate::log::{Conflict, Draft, Expired, LogError, Matter, Record, Sequence};

/// The tables of ids, in a transaction.
pub(super) struct Dedup<'t> {
    records: Table<'t, &'static str, u64>,
    keys: Table<'t, u64, &'static str>,
}

impl<'t> Dedup<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, LogError> {
        Ok(Self {
            records: transaction.open_table(DEDUP).map_err(fault)?,
            keys: transaction.open_table(DEDUP_OF).map_err(fault)?,
        })
    }

    /// Whether the draft says or does something new.
    pub(super) fn check(&self, draft: &Draft) -> Result<Result<(), Conflict>, LogError> {
        let id = draft.request_id.as_ref();
        let Some(key) = key(&draft.identity, &draft.matter, id) else {
            return Ok(Ok(()));
        };
        let found = find(&self.records, &key)?;
        Ok(found.map_or(Ok(()), |sequence| Err(Conflict::Duplicate { sequence })))
    }

    /// Takes a record in.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), LogError> {
        let id = record.request_id.as_ref();
        if let Some(key) = key(&record.identity, &record.matter, id) {
            let sequence = record.sequence.0;
            self.records.insert(&*key, sequence).map_err(fault)?;
            self.keys.insert(sequence, &*key).map_err(fault)?;
        }
        Ok(())
    }

    /// Forgets the ids of records that are gone; one of which a change is left keeps its own.
    pub(super) fn forget(&mut self, expired: &[Expired]) -> Result<(), LogError> {
        for expired in expired {
            if let Expired::Whole(sequence) = expired
                && let Some(key) = self.keys.remove(sequence.0).map_err(fault)?
            {
                self.records.remove(key.value()).map_err(fault)?;
            }
        }
        Ok(())
    }
}

/// The record that each request about files made.
pub(super) fn of_requests(
    transaction: &ReadTransaction,
    asked: &[(&SpiffeId, &DedupId)],
) -> Result<Vec<Option<Sequence>>, DatabaseError> {
    let records = transaction.open_table(DEDUP).map_err(fault)?;
    let keys = asked.iter().map(|(identity, id)| request_key(identity, id));
    keys.map(|key| find(&records, &key)).collect()
}

fn find(
    records: &impl ReadableTable<&'static str, u64>,
    key: &str,
) -> Result<Option<Sequence>, DatabaseError> {
    let found = records.get(key).map_err(fault)?;
    Ok(found.map(|found| Sequence(found.value())))
}

/// Who sends what to which topic, or asks for which change of files: two parts or three, none of
/// which holds a line feed, so that no message is taken for a request.
fn key(identity: &SpiffeId, matter: &Matter, request_id: Option<&DedupId>) -> Option<String> {
    match matter {
        Matter::Files(_) => request_id.map(|id| request_key(identity, id)),
        Matter::Message(message) => {
            let id = message.dedup_id.as_ref()?;
            let topic = match message.reply_to {
                None => message.topic.as_str(),
                Some(_) => REPLIES,
            };
            Some(format!("{identity}\n{topic}\n{id}"))
        }
    }
}

fn request_key(identity: &SpiffeId, id: &DedupId) -> String {
    format!("{identity}\n{id}")
}
