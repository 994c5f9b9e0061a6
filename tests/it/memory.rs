//! The reference for logs and indexes: a vector of records, and what can be counted in it.
//!
//! It is naive on purpose: whatever is asked is found by looking at every record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fsvc::content::ContentId;
use fsvc::filter::TopicFilter;
use fsvc::identity::SpiffeId;
use fsvc::index::fold::{apply, check};
use fsvc::index::{Index, IndexError, Indexed, TopicState, Totals};
use fsvc::label::DedupId;
use fsvc::log::{
    Conflict, Draft, Keep, Log, LogError, Matter, Message, Page, Payload, Record, Retention,
    Sequence, Stats,
};

use fsvc::path::{Prefix, RemotePath, Topic};
use jiff::Timestamp;

use crate::journal::{Journal, Keeping, sure};

/// Old messages that make room for one new one.
const ROOM_MADE_MAX: usize = 4;
const REPLY_RETENTION: Retention = Retention {
    age: Duration::from_secs(24 * 60 * 60),
    size: 64 << 20,
};
/// What a record is reckoned to hold beside its content.
const RECORD_SIZE: usize = 300;

pub(crate) struct Memory(Mutex<State>);

struct State {
    keep: Keep,
    /// Every record that ever was, as it was.
    ever: Vec<Record>,
    kept: Vec<Record>,
    entries: BTreeMap<RemotePath, Indexed>,
    published: Sequence,
    /// The last message that is gone, by place.
    lost_to: BTreeMap<Option<Topic>, Sequence>,
    files_lost_to: Sequence,
    detached: BTreeSet<u128>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::keeping(Keep::everything)
    }
}

impl Memory {
    pub(crate) fn keeping(keeping: Keeping) -> Self {
        Self(Mutex::new(State {
            keep: keeping(),
            ever: Vec::new(),
            kept: Vec::new(),
            entries: BTreeMap::new(),
            published: Sequence(0),
            lost_to: BTreeMap::new(),
            files_lost_to: Sequence(0),
            detached: BTreeSet::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// Where a message is kept: in its topic, or among the replies.
fn place(message: &Message) -> Option<Topic> {
    let is_reply = message.reply_to.is_some();
    (!is_reply).then(|| message.topic.clone())
}

fn size(record: &Record) -> u64 {
    let message = record.matter.message();
    message.map_or(0, |message| message.payload.size())
}

/// What a page counts.
fn page_size(record: &Record) -> usize {
    let content = match record.matter.message().map(|message| &message.payload) {
        Some(Payload::Inline(bytes)) => bytes.len(),
        Some(Payload::Attached(_)) => 0,
        None => RECORD_SIZE * record.matter.changes().len(),
    };
    RECORD_SIZE + content
}

impl Log for Memory {
    fn append(
        &self,
        drafts: &[Draft],
        published: Sequence,
    ) -> Result<Vec<Result<Record, Conflict>>, LogError> {
        let mut state = self.state();
        let before = state.ever.len();
        let results = drafts.iter();
        let results = results
            .map(|draft| state.append(draft, published))
            .collect();
        if state.ever.len() > before || drafts.is_empty() {
            state.published = published;
        }
        Ok(results)
    }

    fn read(&self, from: Sequence, page: Page) -> Result<Vec<Record>, LogError> {
        let state = self.state();
        let (mut records, mut size) = (Vec::new(), 0);
        for record in state.kept.iter().filter(|r| r.sequence >= from) {
            size += page_size(record);
            if records.len() >= page.n_max || (size > page.size_max && !records.is_empty()) {
                break;
            }
            records.push(record.clone());
        }
        Ok(records)
    }

    fn head(&self) -> Result<Sequence, LogError> {
        Ok(Sequence(self.state().ever.len() as u64))
    }

    fn since(&self, time: Timestamp) -> Result<Sequence, LogError> {
        let state = self.state();
        let young = state.ever.iter().find(|record| record.time >= time);
        let after_all = Sequence(state.ever.len() as u64).next();
        Ok(young.map_or(after_all, |record| record.sequence))
    }

    fn published(&self) -> Result<Sequence, LogError> {
        Ok(self.state().published)
    }

    /// All at once, whatever `n_max` says.
    fn expire(&self, now: Timestamp, _n_max: usize) -> Result<usize, LogError> {
        let mut state = self.state();
        let n_history = state.expire_history(now);
        Ok(n_history + state.expire_messages(now))
    }

    fn detached(&self, n_max: usize) -> Result<Vec<ContentId>, LogError> {
        let state = self.state();
        let ids = state.detached.iter().take(n_max);
        Ok(ids
            .map(|id| ContentId::from_random(id.to_be_bytes()))
            .collect())
    }

    fn forget_detached(&self, contents: &[ContentId]) -> Result<(), LogError> {
        let mut state = self.state();
        for content in contents {
            state.detached.remove(&content.as_u128());
        }
        Ok(())
    }

    fn stats(&self) -> Result<Stats, LogError> {
        let state = self.state();
        Ok(Stats {
            first: state.kept.first().map_or(Sequence(0), |r| r.sequence),
            n_records: state.kept.len() as u64,
            file_size: 0,
        })
    }
}

impl State {
    fn append(&mut self, draft: &Draft, published: Sequence) -> Result<Record, Conflict> {
        if let Some(message) = draft.matter.message() {
            let is_same = |record: &&Record| {
                let earlier = record.matter.message();
                record.identity == draft.identity
                    && message.dedup_id.is_some()
                    && earlier.is_some_and(|earlier| {
                        place(earlier) == place(message) && earlier.dedup_id == message.dedup_id
                    })
            };
            if let Some(earlier) = self.kept.iter().find(is_same) {
                let sequence = earlier.sequence;
                return Err(Conflict::Duplicate { sequence });
            }
        } else {
            let is_same = |record: &&Record| {
                record.matter.message().is_none()
                    && record.identity == draft.identity
                    && record.request_id.is_some()
                    && record.request_id == draft.request_id
            };
            if let Some(earlier) = self.kept.iter().find(is_same) {
                let sequence = earlier.sequence;
                return Err(Conflict::Duplicate { sequence });
            }
            sure(check(draft, &self.entries))?;
        }
        let sequence = Sequence(self.ever.len() as u64).next();
        let mut record = draft.clone().into_record(sequence);
        record.replaced = sure(apply(&record, &mut self.entries)).replaced;
        self.ever.push(record.clone());
        self.kept.push(record.clone());
        if let Some(message) = record.matter.message() {
            self.make_room(place(message).as_ref(), published);
        }
        Ok(record)
    }

    /// What is kept in a place, the oldest first.
    fn messages(&self, at: Option<&Topic>) -> Vec<&Record> {
        let is_there = |record: &&Record| {
            record
                .matter
                .message()
                .is_some_and(|m| place(m).as_ref() == at)
        };
        self.kept.iter().filter(is_there).collect()
    }

    fn retention(&self, at: Option<&Topic>) -> Retention {
        let of_topic = |topic: &Topic| (self.keep.messages)(topic);
        at.map_or(REPLY_RETENTION, of_topic)
    }

    fn make_room(&mut self, at: Option<&Topic>, published: Sequence) {
        let limit = self.retention(at).size;
        for _ in 0..ROOM_MADE_MAX {
            let messages = self.messages(at);
            let total: u64 = messages.iter().map(|r| size(r)).sum();
            let oldest = messages[0].sequence;
            if messages.len() < 2 || total <= limit || oldest > published {
                return;
            }
            self.remove_message(at, oldest);
        }
    }

    fn expire_messages(&mut self, now: Timestamp) -> usize {
        let mut n_removed = 0;
        for at in self.places() {
            let limit = self.retention(at.as_ref());
            loop {
                let messages = self.messages(at.as_ref());
                let Some(oldest) = messages.first() else {
                    break;
                };
                let age = now.duration_since(oldest.time).as_millis();
                let is_old = age > i128::try_from(limit.age.as_millis()).unwrap_or(i128::MAX);
                let total: u64 = messages.iter().map(|r| size(r)).sum();
                let is_over = total > limit.size && messages.len() > 1;
                if oldest.sequence > self.published || !(is_old || is_over) {
                    break;
                }
                let oldest = oldest.sequence;
                self.remove_message(at.as_ref(), oldest);
                n_removed += 1;
            }
        }
        n_removed
    }

    fn remove_message(&mut self, at: Option<&Topic>, sequence: Sequence) {
        let is_it = |record: &Record| record.sequence == sequence;
        let index = self.kept.iter().position(is_it).unwrap();
        let record = self.kept.remove(index);
        self.lost_to.insert(at.cloned(), sequence);
        if let Matter::Message(Message {
            payload: Payload::Attached(attached),
            ..
        }) = record.matter
        {
            self.detached.insert(attached.content.as_u128());
        }
    }

    /// The files that a record made, and those of them that are as it says now.
    fn made_and_live(&self, sequence: Sequence) -> (BTreeSet<RemotePath>, BTreeSet<RemotePath>) {
        let mut then = BTreeMap::new();
        for record in self.ever.iter().filter(|r| r.sequence <= sequence) {
            sure(apply(record, &mut then));
        }
        let of_it = |entries: &BTreeMap<RemotePath, Indexed>| {
            let own = entries.iter().filter(|(_, i)| i.version == sequence);
            own.map(|(path, _)| path.clone()).collect()
        };
        (of_it(&then), of_it(&self.entries))
    }

    fn expire_history(&mut self, now: Timestamp) -> usize {
        let mut n_removed = 0;
        for record in self.kept.clone() {
            let Matter::Files(changes) = &record.matter else {
                continue;
            };
            let (made, live) = self.made_and_live(record.sequence);
            let is_live = |path: &RemotePath| live.contains(path);
            let mut left = changes.clone();
            left.retain(|change| change.target().is_some_and(is_live));
            let is_history = live.is_empty() || (live.len() < made.len() && left != *changes);
            if !is_history || record.sequence > self.published {
                continue;
            }
            if now.duration_since(record.time) < self.keep.history() {
                break;
            }
            n_removed += 1;
            self.files_lost_to = self.files_lost_to.max(record.sequence);
            let sequence = record.sequence;
            self.kept.retain(|kept| kept.sequence != sequence);
            if !left.is_empty() {
                let trimmed = trimmed(record, left);
                self.kept.push(trimmed);
                self.kept.sort_by_key(|kept| kept.sequence);
            }
        }
        n_removed
    }

    fn topic(&self, topic: &Topic) -> Option<TopicState> {
        let at = Some(topic.clone());
        let is_of = |record: &&Record| record.matter.message().is_some_and(|m| place(m) == at);
        let last = self.ever.iter().rfind(is_of)?.sequence;
        let messages = self.messages(Some(topic));
        Some(TopicState {
            n_messages: messages.len() as u64,
            size: messages.iter().map(|record| size(record)).sum(),
            last,
            lost_to: self.lost_to.get(&at).copied().unwrap_or_default(),
        })
    }

    /// Where messages ever were.
    fn places(&self) -> BTreeSet<Option<Topic>> {
        let messages = self.ever.iter().filter_map(|r| r.matter.message());
        messages.map(place).collect()
    }
}

/// The record with some of its changes only.
fn trimmed(record: Record, left: Vec<fsvc::log::Change>) -> Record {
    let changes = record.matter.changes().iter();
    let numbered = changes.zip(0..).filter(|(change, _)| left.contains(change));
    let replaced = numbered.zip(0..).filter_map(|((_, was), is)| {
        let was_replaced = record.replaced.contains(&was);
        was_replaced.then_some(is)
    });
    let replaced = replaced.collect();
    let n_gone = record.matter.changes().len() - left.len();
    Record {
        n_forgotten: record.n_forgotten + u32::try_from(n_gone).unwrap(),
        matter: Matter::Files(left),
        replaced,
        ..record
    }
}

impl Index for Memory {
    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, IndexError> {
        Ok(self.state().entries.get(path).cloned())
    }

    fn range(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
        n_max: usize,
    ) -> Result<Vec<(RemotePath, Indexed)>, IndexError> {
        let state = self.state();
        let found = state.entries.iter().filter(|(path, _)| {
            path.as_str().starts_with(prefix.as_str()) && after.is_none_or(|after| *path > after)
        });
        let cloned = found.map(|(path, indexed)| (path.clone(), indexed.clone()));
        Ok(cloned.take(n_max).collect())
    }

    fn topic(&self, topic: &Topic) -> Result<Option<TopicState>, IndexError> {
        Ok(self.state().topic(topic))
    }

    fn topics(
        &self,
        filter: &TopicFilter,
        after: Option<&Topic>,
        n_max: usize,
    ) -> Result<Vec<(Topic, TopicState)>, IndexError> {
        let state = self.state();
        let names = state.places().into_iter().flatten();
        let wanted = names.filter(|t| filter.matches(t) && after.is_none_or(|after| t > after));
        let known = wanted.filter_map(|t| state.topic(&t).map(|found| (t, found)));
        Ok(known.take(n_max).collect())
    }

    fn n_after(&self, topic: &Topic, position: Sequence) -> Result<u64, IndexError> {
        let state = self.state();
        let messages = state.messages(Some(topic));
        let after = messages.iter().filter(|record| record.sequence > position);
        Ok(after.count() as u64)
    }

    fn requests(
        &self,
        asked: &[(&SpiffeId, &DedupId)],
    ) -> Result<Vec<Option<Sequence>>, IndexError> {
        let state = self.state();
        let found = asked.iter().map(|(identity, id)| {
            let is_it = |record: &&Record| {
                record.matter.message().is_none()
                    && record.identity == **identity
                    && record.request_id.as_ref() == Some(id)
            };
            let found = state.kept.iter().find(is_it);
            found.map(|record| record.sequence)
        });
        Ok(found.collect())
    }

    fn totals(&self) -> Result<Totals, IndexError> {
        let state = self.state();
        let is_message = |record: &&Record| record.matter.message().is_some();
        let messages = state.kept.iter().filter(is_message);
        let topics = state.places().into_iter().flatten();
        let with_messages = topics.filter(|topic| !state.messages(Some(topic)).is_empty());
        Ok(Totals {
            n_files: state.entries.len() as u64,
            n_topics: with_messages.count() as u64,
            n_messages: messages.clone().count() as u64,
            messages_size: messages.map(size).sum(),
            files_lost_to: state.files_lost_to,
            messages_lost_to: state.lost_to.values().copied().max().unwrap_or_default(),
            topics_lost_to: Sequence(0),
            n_expired: {
                let n_ever = state.ever.iter().filter(is_message).count();
                let n_kept = state.kept.iter().filter(is_message).count();
                (n_ever - n_kept) as u64
            },
        })
    }
}

impl Journal for Memory {
    fn log(&self) -> &dyn Log {
        self
    }

    fn index(&self) -> &dyn Index {
        self
    }

    fn reopened(self) -> Self {
        self
    }
}
