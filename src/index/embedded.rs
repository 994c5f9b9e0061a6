//! The embedded index: a table in the database file of the log.
//!
//! It changes in the log's own transactions and nowhere else.

use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::dedup::{self, Dedup};
use super::fold::{self, Entries};
use super::history::History;
use super::tables::{
    Counts, ENTRIES, FILES_LOST_TO, MESSAGES, MESSAGES_LOST_TO, MESSAGES_SIZE, Marks, N_EMPTY,
    N_EXPIRED, N_MESSAGES, N_TOPICS, REPLIES, TOPICS, TOPICS_LOST_TO, begin, marks,
};
use super::topics::Topics;
use super::{Index, IndexError, Indexed, TopicState, Totals};
use crate::database::{Database, DatabaseError, Outcome, fault};
use crate::filter::{Step, TopicFilter};
use crate::identity::SpiffeId;
use crate::label::DedupId;
use crate::log::{
    Conflict, Draft, Expired, Fold, Keep, LogError, Matter, Record, RecordOf, Sequence, View,
};
use crate::path::{Prefix, RemotePath, Topic};

/// An index in a [`Database`].
pub struct EmbeddedIndex {
    database: Arc<Database>,
    keep: Keep,
}

/// The index in a transaction.
pub struct EmbeddedView<'t> {
    entries: Table<'t, &'static str, &'static [u8]>,
    history: History<'t>,
    dedup: Dedup<'t>,
    topics: Topics<'t>,
    marks: Marks<'t>,
    keep: &'t Keep,
    expired: Vec<Expired>,
}

impl EmbeddedIndex {
    /// The index in `database`; an empty one is begun if none is there. It lets go of records as
    /// `keep` says.
    ///
    /// # Errors
    /// The engine failed.
    pub fn open(database: Arc<Database>, keep: Keep) -> Result<Self, IndexError> {
        database.write(|transaction| {
            let known = transaction.list_tables().map_err(fault)?;
            if known.into_iter().any(|table| name_is_ours(&table)) {
                return Ok::<_, IndexError>(Outcome::Abort(()));
            }
            begin(transaction)?;
            Ok(Outcome::Commit(()))
        })?;
        Ok(Self { database, keep })
    }
}

fn name_is_ours(table: &impl redb::TableHandle) -> bool {
    table.name() == redb::TableHandle::name(&MESSAGES)
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

    fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, IndexError> {
        self.database.read(|transaction| {
            let topics = transaction.open_table(TOPICS).map_err(fault)?;
            let counts = topics.get(topic.as_str()).map_err(fault)?;
            Ok(counts.map(|counts| state(counts.value())))
        })
    }

    fn topics(
        &self,
        filter: &TopicFilter,
        after: Option<&Topic>,
        n_max: usize,
    ) -> Result<Vec<(Topic, TopicState)>, IndexError> {
        let stem = stem(filter);
        let start = match after.map(Topic::as_str) {
            Some(after) if after >= stem.as_str() => Bound::Excluded(after),
            _ => Bound::Included(stem.as_str()),
        };
        self.database.read(|transaction| {
            let topics = transaction.open_table(TOPICS).map_err(fault)?;
            let mut found = Vec::new();
            for row in topics
                .range::<&str>((start, Bound::Unbounded))
                .map_err(fault)?
            {
                let (key, counts) = row.map_err(fault)?;
                if !key.value().starts_with(&stem) || found.len() == n_max {
                    break;
                }
                // The place of replies has no name that a topic can have.
                let Ok(topic) = key.value().parse::<Topic>() else {
                    continue;
                };
                if filter.matches(&topic) {
                    found.push((topic, state(counts.value())));
                }
            }
            Ok(found)
        })
    }

    fn n_after(&self, topic: &Topic, position: Sequence) -> Result<u64, IndexError> {
        self.database.read(|transaction| {
            let messages = transaction.open_table(MESSAGES).map_err(fault)?;
            let name = topic.as_str();
            let range = messages
                .range((name, position.0.saturating_add(1))..=(name, u64::MAX))
                .map_err(fault)?;
            let mut ends = range.map(|row| row.map(|(_, row)| row.value().0));
            let first = ends.next().transpose().map_err(fault)?;
            let last = ends.next_back().transpose().map_err(fault)?;
            Ok(first.map_or(0, |first| last.unwrap_or(first) - first + 1))
        })
    }

    fn requests(
        &self,
        asked: &[(&SpiffeId, &DedupId)],
    ) -> Result<Vec<Option<Sequence>>, IndexError> {
        self.database
            .read(|transaction| Ok(dedup::of_requests(transaction, asked)?))
    }

    fn totals(&self) -> Result<Totals, IndexError> {
        let names = [
            FILES_LOST_TO,
            MESSAGES_LOST_TO,
            TOPICS_LOST_TO,
            N_TOPICS,
            N_EMPTY,
            N_MESSAGES,
            MESSAGES_SIZE,
            N_EXPIRED,
        ];
        self.database.read(|transaction| {
            let [
                files,
                messages,
                topics,
                n_topics,
                n_empty,
                n_messages,
                size,
                n_expired,
            ] = marks(transaction, names)?;
            let entries = transaction.open_table(ENTRIES).map_err(fault)?;
            let known = transaction.open_table(TOPICS).map_err(fault)?;
            let replies = known.get(REPLIES).map_err(fault)?;
            let n_places = replies.map_or(0, |counts| u64::from(counts.value().1 > 0));
            Ok(Totals {
                n_files: entries.len().map_err(fault)?,
                n_topics: n_topics.saturating_sub(n_empty + n_places),
                n_messages,
                messages_size: size,
                files_lost_to: Sequence(files),
                messages_lost_to: Sequence(messages),
                topics_lost_to: Sequence(topics),
                n_expired,
            })
        })
    }
}

impl Fold<WriteTransaction> for EmbeddedIndex {
    type View<'t> = EmbeddedView<'t>;

    fn open<'t>(&'t self, transaction: &'t WriteTransaction) -> Result<Self::View<'t>, LogError> {
        Ok(EmbeddedView {
            entries: transaction.open_table(ENTRIES).map_err(fault)?,
            history: History::open(transaction)?,
            dedup: Dedup::open(transaction)?,
            topics: Topics::open(transaction)?,
            marks: Marks::open(transaction)?,
            keep: &self.keep,
            expired: Vec::new(),
        })
    }
}

impl View for EmbeddedView<'_> {
    fn check(&mut self, draft: &Draft) -> Result<Result<(), Conflict>, LogError> {
        // Before any condition: what is asked again is answered as it was, whatever holds now.
        if let Err(duplicate) = self.dedup.check(draft)? {
            return Ok(Err(duplicate));
        }
        match &draft.matter {
            Matter::Files(_) => Ok(fold::check(draft, &self.entries)?),
            Matter::Message(message) => self.topics.check(message, &mut self.marks),
        }
    }

    fn apply(&mut self, record: &mut Record, published: Sequence) -> Result<(), LogError> {
        self.dedup.apply(record)?;
        if let Matter::Message(message) = &record.matter {
            let n_before = self.expired.len();
            let (marks, expired) = (&mut self.marks, &mut self.expired);
            self.topics.apply(record, message, marks)?;
            self.topics
                .make_room(message, marks, self.keep, published, expired)?;
            // At once: the next draft may say the same again.
            return self.dedup.forget(&self.expired[n_before..]);
        }
        let effect = fold::apply(record, &mut self.entries)?;
        self.history.apply(record, &effect)?;
        record.replaced = effect.replaced;
        Ok(())
    }

    fn expire(
        &mut self,
        now: Timestamp,
        until: Sequence,
        n_max: usize,
        record_of: &RecordOf<'_>,
    ) -> Result<(), LogError> {
        let marks = &mut self.marks;
        let bounds = (now, until, n_max);
        let n_before = self.expired.len();
        let history = self
            .history
            .expire(&self.entries, marks, self.keep, bounds, record_of)?;
        self.expired.extend(history);
        self.topics
            .expire(marks, self.keep, bounds, &mut self.expired)?;
        self.dedup.forget(&self.expired[n_before..])
    }

    fn finish(&mut self) -> Result<Vec<Expired>, LogError> {
        self.topics.finish()?;
        self.marks.finish()?;
        Ok(std::mem::take(&mut self.expired))
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

    fn insert(
        &mut self,
        path: &RemotePath,
        indexed: Indexed,
    ) -> Result<Option<Sequence>, DatabaseError> {
        let bytes = serde_json::to_vec(&indexed).expect("an entry has no map with odd keys");
        let before = Table::insert(self, path.as_str(), bytes.as_slice()).map_err(fault)?;
        before
            .map(|value| Ok(decode(path.as_str(), value.value())?.version))
            .transpose()
    }

    fn remove(&mut self, path: &RemotePath) -> Result<Option<Sequence>, DatabaseError> {
        let before = Table::remove(self, path.as_str()).map_err(fault)?;
        before
            .map(|value| Ok(decode(path.as_str(), value.value())?.version))
            .transpose()
    }
}

/// What every topic that a filter matches begins with.
fn stem(filter: &TopicFilter) -> String {
    let literals = filter.steps().map_while(|step| match step {
        Step::Literal(literal) => Some(literal),
        Step::Any => None,
    });
    literals.collect::<Vec<_>>().join("/")
}

const fn state((_, n_messages, size, last, lost_to): Counts) -> TopicState {
    TopicState {
        n_messages,
        size,
        last: Sequence(last),
        lost_to: Sequence(lost_to),
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
            | DatabaseError::Engine(_) => Self::Engine(Arc::new(error)),
        }
    }
}
