//! Messages by topic: counts, order, and what is old enough to go.
//!
//! The newest message of a topic outlives the limit of size, so that a topic always has a last one
//! until it is too old.

use std::collections::HashMap;

use jiff::Timestamp;
use redb::{ReadableTable, Table, WriteTransaction};

use super::TOPICS_MAX;
use super::tables::{
    ATTACHED_OF, Counts, MESSAGES, MESSAGES_LOST_TO, MESSAGES_SIZE, Marks, N_EMPTY, N_EXPIRED,
    N_MESSAGES, N_TOPICS, REPLIES, Row, TOPICS, TOPICS_LOST_TO,
};
use crate::database::fault;
use crate::log::embedded::DETACHED;
use crate::log::{
    Conflict, Expired, Keep, LogError, Message, Payload, Record, Retention, Sequence, milliseconds,
};
use crate::path::Topic;

/// Old messages that make room for one new one: more than one, so that a limit that was lowered is
/// reached, and few, so that no publisher waits for long.
const ROOM_MADE_MAX: usize = 4;
/// How long replies are kept, for the record.
const REPLY_RETENTION: Retention = Retention {
    age: std::time::Duration::from_secs(24 * 60 * 60),
    size: 64 << 20,
};

/// The tables of topics, in a transaction.
pub(super) struct Topics<'t> {
    known: Table<'t, &'static str, Counts>,
    /// Counts that are not written yet: many messages of a transaction are of one topic.
    changed: HashMap<String, Counts>,
    messages: Table<'t, (&'static str, u64), Row>,
    attached_of: Table<'t, u64, u128>,
    detached: Table<'t, u128, ()>,
}

impl<'t> Topics<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, LogError> {
        Ok(Self {
            known: transaction.open_table(TOPICS).map_err(fault)?,
            changed: HashMap::new(),
            messages: transaction.open_table(MESSAGES).map_err(fault)?,
            attached_of: transaction.open_table(ATTACHED_OF).map_err(fault)?,
            detached: transaction.open_table(DETACHED).map_err(fault)?,
        })
    }

    /// Whether the message's topic is known, or may become so.
    pub(super) fn check(
        &mut self,
        message: &Message,
        marks: &mut Marks<'_>,
    ) -> Result<Result<(), Conflict>, LogError> {
        let is_known = self.counts(name(message))?.is_some();
        if is_known || marks.get(N_TOPICS)? < TOPICS_MAX {
            return Ok(Ok(()));
        }
        if marks.get(N_EMPTY)? > 0 {
            self.forget_empty(marks)?;
            return Ok(Ok(()));
        }
        Ok(Err(Conflict::TooManyTopics {
            topic: message.topic.clone(),
            n_max: TOPICS_MAX,
        }))
    }

    /// Takes a message in.
    pub(super) fn apply(
        &mut self,
        record: &Record,
        message: &Message,
        marks: &mut Marks<'_>,
    ) -> Result<(), LogError> {
        let sequence = record.sequence.0;
        let size = message.payload.size();
        let before = self.counts(name(message))?;
        match before {
            None => marks.add(N_TOPICS, 1)?,
            Some((_, 0, ..)) => marks.subtract(N_EMPTY, 1)?,
            Some(_) => {}
        }
        let (n_total, n, total_size, _, lost_to) = before.unwrap_or_default();
        let counts = (n_total + 1, n + 1, total_size + size, sequence, lost_to);
        self.set_counts(name(message), counts);
        let row = (n_total + 1, size, milliseconds(record.time));
        self.messages
            .insert((name(message), sequence), row)
            .map_err(fault)?;
        if let Payload::Attached(attached) = &message.payload {
            self.attached_of
                .insert(sequence, attached.content.as_u128())
                .map_err(fault)?;
        }
        marks.add(N_MESSAGES, 1)?;
        marks.add(MESSAGES_SIZE, size)
    }

    /// Lets go of old messages that a new one takes the room of. A content that is still to be
    /// attached is never given up before it is: nobody would remove it then.
    pub(super) fn make_room(
        &mut self,
        message: &Message,
        marks: &mut Marks<'_>,
        keep: &Keep,
        published: Sequence,
        expired: &mut Vec<Expired>,
    ) -> Result<(), LogError> {
        let (name, bound) = (name(message), ROOM_MADE_MAX);
        let limit = match message.reply_to {
            None => (keep.messages)(&message.topic).size,
            Some(_) => REPLY_RETENTION.size,
        };
        let (_, _, size, last, _) = self.counts(name)?.unwrap_or_default();
        if size <= limit {
            return Ok(());
        }
        self.trim(name, marks, published, bound, expired, |(key, _), total| {
            total > limit && key != last
        })
    }

    /// Lets go of messages that are too old, or too many, topic by topic.
    pub(super) fn expire(
        &mut self,
        marks: &mut Marks<'_>,
        keep: &Keep,
        (now, until, n_max): (Timestamp, Sequence, usize),
        expired: &mut Vec<Expired>,
    ) -> Result<(), LogError> {
        self.finish()?;
        let now_ms = milliseconds(now);
        let mut names = Vec::new();
        for row in self.known.iter().map_err(fault)? {
            let (name, counts) = row.map_err(fault)?;
            if counts.value().1 > 0 {
                names.push(name.value().to_owned());
            }
        }
        for name in names {
            let limit = retention(keep, &name);
            let age_ms = u64::try_from(limit.age.as_millis()).unwrap_or(u64::MAX);
            let bound = n_max.saturating_sub(expired.len());
            if bound == 0 {
                break;
            }
            let last = self.counts(&name)?.map_or(0, |counts| counts.3);
            self.trim(&name, marks, until, bound, expired, |(key, row), total| {
                let is_old = now_ms.saturating_sub(row.2) > age_ms;
                is_old || (total > limit.size && key != last)
            })?;
        }
        Ok(())
    }

    /// Removes the oldest messages of a topic while `goes`, which is given a message and the bytes of
    /// all of them.
    fn trim(
        &mut self,
        name: &str,
        marks: &mut Marks<'_>,
        until: Sequence,
        n_max: usize,
        expired: &mut Vec<Expired>,
        goes: impl Fn((u64, Row), u64) -> bool,
    ) -> Result<(), LogError> {
        let Some((n_total, mut n, mut size, last, mut lost_to)) = self.counts(name)? else {
            return Ok(());
        };
        let mut gone = Vec::new();
        for row in self
            .messages
            .range((name, 0)..=(name, until.0))
            .map_err(fault)?
            .take(n_max)
        {
            let (key, row) = row.map_err(fault)?;
            let (sequence, row) = (key.value().1, row.value());
            if !goes((sequence, row), size) {
                break;
            }
            size -= row.1;
            n -= 1;
            lost_to = sequence;
            gone.push((sequence, row.1));
        }
        if gone.is_empty() {
            return Ok(());
        }
        for (sequence, size) in gone {
            self.remove(name, sequence)?;
            marks.subtract(N_MESSAGES, 1)?;
            marks.add(N_EXPIRED, 1)?;
            marks.subtract(MESSAGES_SIZE, size)?;
            expired.push(Expired::Whole(Sequence(sequence)));
        }
        if n == 0 {
            marks.add(N_EMPTY, 1)?;
        }
        marks.raise(MESSAGES_LOST_TO, lost_to)?;
        self.set_counts(name, (n_total, n, size, last, lost_to));
        Ok(())
    }

    fn remove(&mut self, name: &str, sequence: u64) -> Result<(), LogError> {
        self.messages.remove((name, sequence)).map_err(fault)?;
        let content = self.attached_of.remove(sequence).map_err(fault)?;
        if let Some(content) = content {
            self.detached.insert(content.value(), ()).map_err(fault)?;
        }
        Ok(())
    }

    /// Makes room for new topics: those without a message are known no longer.
    fn forget_empty(&mut self, marks: &mut Marks<'_>) -> Result<(), LogError> {
        self.finish()?;
        let mut lost_to = 0;
        let mut n_left = 0;
        self.known
            .retain(|_, (_, n, _, _, lost)| {
                if n == 0 {
                    lost_to = lost_to.max(lost);
                } else {
                    n_left += 1;
                }
                n > 0
            })
            .map_err(fault)?;
        marks.raise(TOPICS_LOST_TO, lost_to)?;
        marks.set(N_TOPICS, n_left);
        marks.set(N_EMPTY, 0);
        Ok(())
    }

    /// Writes what has changed.
    pub(super) fn finish(&mut self) -> Result<(), LogError> {
        for (name, counts) in self.changed.drain() {
            self.known.insert(name.as_str(), counts).map_err(fault)?;
        }
        Ok(())
    }

    fn set_counts(&mut self, name: &str, counts: Counts) {
        match self.changed.get_mut(name) {
            Some(known) => *known = counts,
            None => drop(self.changed.insert(name.to_owned(), counts)),
        }
    }

    fn counts(&self, name: &str) -> Result<Option<Counts>, LogError> {
        if let Some(counts) = self.changed.get(name) {
            return Ok(Some(*counts));
        }
        let counts = self.known.get(name).map_err(fault)?;
        Ok(counts.map(|counts| counts.value()))
    }
}

fn name(message: &Message) -> &str {
    match message.reply_to {
        None => message.topic.as_str(),
        Some(_) => REPLIES,
    }
}

fn retention(keep: &Keep, name: &str) -> Retention {
    match name.parse::<Topic>() {
        Ok(topic) => (keep.messages)(&topic),
        Err(_) => REPLY_RETENTION,
    }
}
