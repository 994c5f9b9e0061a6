//! A walk along the log: what a reader wants and may have, in order, from a place on.
//!
//! Rights are asked for each name as it comes, of the policy that holds then.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::cursor_reader::Claim;
use super::tail::Told;
use super::{OpError, Service, event};
use crate::identity::Identity;
use crate::log::cursors::Reading;
use crate::log::{LogError, Matter, Message, Page, Record, Sequence};
use crate::path::{Prefix, RemotePath, Topic};
use crate::policy::{Action, Policy};
use crate::protocol::{Lost, Notice};

/// Bytes that are taken at a time.
const BATCH_SIZE_MAX: usize = 128 << 10;
/// Records that are looked at for one batch in memory.
const TAIL_RECORDS_MAX: usize = 1024;
/// What is read of the log at a time.
const PAGE: Page = Page {
    n_max: 1024,
    size_max: BATCH_SIZE_MAX,
};
/// Topics of which it is remembered whether they may be read.
const KNOWN_TOPICS_MAX: usize = 1024;
/// Topics that are looked at together.
const TOPICS_PAGE: usize = 512;

/// Something for the reader.
pub struct Item {
    /// The record; of a gap, the number before it.
    pub(super) sequence: Sequence,
    /// The end of a gap.
    pub(super) gap: Option<Sequence>,
    pub(super) frames: Arc<[u8]>,
}

impl Item {
    /// The bytes to send: whole frames.
    pub fn frames(&self) -> &[u8] {
        &self.frames
    }

    /// A gap. A cursor's reader acknowledges it by the number before it, since what the log still
    /// holds of it comes after the news.
    pub(super) fn lost(from: Sequence, to: Sequence) -> Self {
        let lost = Lost {
            from: from.0,
            to: to.0,
        };
        Self {
            sequence: Sequence(from.0.saturating_sub(1)),
            gap: Some(to),
            frames: Arc::from(event::notice(&Notice::Lost(lost))),
        }
    }
}

/// One reader's place in the log.
pub(super) struct Feed {
    service: Arc<Service>,
    who: Arc<Identity>,
    reading: Reading,
    /// Everything up to here was taken or is not for this reader.
    pub(super) position: Sequence,
    /// The reader knows what is missing up to here.
    told_lost_to: Sequence,
    /// How many messages had been let go of when it was looked for gaps.
    n_expired_seen: Option<u64>,
    /// What is older is not wanted, up to the record that was the last when the reader came.
    since: Option<(Timestamp, Sequence)>,
    head: watch::Receiver<Sequence>,
    rights: Rights,
}

/// The policy that holds, and what it said.
struct Rights {
    policy: Arc<Policy>,
    topics: HashMap<Topic, bool>,
}

impl Feed {
    /// A reader of what comes after `position`.
    ///
    /// # Errors
    /// Nothing of it may be read.
    pub(super) fn new(
        service: &Arc<Service>,
        who: &Arc<Identity>,
        reading: Reading,
        position: Sequence,
    ) -> Result<Self, OpError> {
        let feed = Self {
            service: Arc::clone(service),
            who: Arc::clone(who),
            reading,
            position,
            told_lost_to: position,
            n_expired_seen: None,
            since: None,
            head: service.tail.watch(),
            rights: Rights {
                policy: service.policy(),
                topics: HashMap::new(),
            },
        };
        feed.check()?;
        Ok(feed)
    }

    /// Leaves out what is older than `time` among what there is; what comes is new, whatever the clock
    /// says then.
    pub(super) const fn since(mut self, time: Timestamp, head: Sequence) -> Self {
        self.since = Some((time, head));
        self
    }

    /// Takes it that the reader knows of everything that is missing now.
    ///
    /// # Errors
    /// The index failed.
    pub(super) fn forgive_lost(mut self) -> Result<Self, OpError> {
        self.told_lost_to = self.lost_to()?.max(self.position);
        Ok(self)
    }

    /// Whether the reader may still read any of it: asked again when there is another policy.
    ///
    /// # Errors
    /// No grant covers it.
    pub(super) fn check_rights(&mut self) -> Result<(), OpError> {
        let policy = self.service.policy();
        if Arc::ptr_eq(&policy, &self.rights.policy) {
            return Ok(());
        }
        self.rights.policy = policy;
        self.rights.topics.clear();
        self.n_expired_seen = None;
        self.check()
    }

    fn check(&self) -> Result<(), OpError> {
        let (policy, who) = (&self.rights.policy, &self.who.id);
        match &self.reading {
            Reading::Files(prefix) => Ok(policy.check_directory(who, Action::Read, prefix)?),
            Reading::Topics(filters) => {
                for filter in filters {
                    policy.check_filter(who, Action::Subscribe, filter)?;
                }
                Ok(())
            }
        }
    }

    /// What follows in memory, at most `n_max` events of records; `None` if the disk must be asked.
    pub(super) fn take(&mut self, n_max: usize) -> Option<Vec<Item>> {
        let told = self.service.tail.after(self.position, TAIL_RECORDS_MAX)?;
        let (mut items, mut size) = (Vec::new(), 0);
        for told in told {
            if items.len() >= n_max || size >= BATCH_SIZE_MAX {
                break;
            }
            self.position = told.record.sequence;
            if let Some(item) = self.item(&told) {
                size += item.frames.len();
                items.push(item);
            }
        }
        Some(items)
    }

    /// What follows in the log. Blocks.
    ///
    /// # Errors
    /// The log or the index failed.
    pub(super) fn take_behind(&mut self, n_max: usize) -> Result<Vec<Item>, OpError> {
        let head = self.service.tail.head();
        let read = self.service.parts.log.read(self.position.next(), PAGE);
        // After the read: what was removed before it is missing in it.
        let mut items: Vec<Item> = self.newly_lost()?.into_iter().collect();
        let records = match read {
            Ok(records) => records,
            Err(LogError::DamagedRecord { sequence, reason }) => {
                tracing::error!(sequence = sequence.0, reason, "a record is damaged");
                items.push(Item::lost(sequence, sequence));
                self.position = sequence;
                return Ok(items);
            }
            Err(error) => return Err(OpError::Log(error)),
        };
        if records.is_empty() {
            self.position = head;
        }
        let mut n_taken = 0;
        for record in records {
            // What is not published yet is not there yet.
            if record.sequence > head {
                self.position = self.position.max(head);
                break;
            }
            if n_taken >= n_max {
                break;
            }
            self.position = record.sequence;
            if let Some(item) = self.item(&Told::new(record)) {
                n_taken += 1;
                items.push(item);
            }
        }
        Ok(items)
    }

    /// What a cursor has given, again, if it is still for this reader. Blocks.
    ///
    /// # Errors
    /// The log failed.
    pub(super) fn again(&mut self, claim: Claim) -> Result<Vec<Item>, OpError> {
        let mut items = Vec::new();
        if let Some(to) = claim.gap {
            items.push(Item::lost(claim.sequence.next(), to));
        }
        if claim.is_record {
            items.extend(self.record_again(claim.sequence, claim.n_given)?);
        }
        Ok(items)
    }

    fn record_again(&mut self, sequence: Sequence, n: u32) -> Result<Option<Item>, OpError> {
        let page = Page {
            n_max: 1,
            size_max: 0,
        };
        let records = self.service.parts.log.read(sequence, page);
        let record = match records {
            Ok(records) => records.into_iter().next(),
            Err(LogError::DamagedRecord { .. }) => None,
            Err(error) => return Err(OpError::Log(error)),
        };
        let Some(record) = record.filter(|record| record.sequence == sequence) else {
            return Ok(Some(Item::lost(sequence, sequence)));
        };
        let mut events = self.events(&record);
        for event in &mut events {
            event.delivery = (n > 1).then_some(n);
        }
        let frames: Vec<u8> = events
            .iter()
            .flat_map(|event| event::frames(event, &record))
            .collect();
        Ok((!frames.is_empty()).then(|| Item {
            sequence,
            gap: None,
            frames: Arc::from(frames),
        }))
    }

    /// Whether there may be more than was taken.
    pub(super) fn is_behind(&self) -> bool {
        self.position < self.service.tail.head()
    }

    /// Waits until there is more than was taken.
    ///
    /// # Cancel safety
    /// Nothing is lost; call again.
    pub(super) async fn wait(&mut self) {
        let position = self.position;
        // The sender lives as long as the service.
        let _ = self.head.wait_for(|head| *head > position).await;
    }

    fn item(&mut self, told: &Told) -> Option<Item> {
        let is_old = |(time, head)| told.record.sequence <= head && told.record.time < time;
        if self.since.is_some_and(is_old) {
            return None;
        }
        let frames = match &told.record.matter {
            Matter::Message(message) if !self.wants(message) => return None,
            Matter::Message(_) => told.frames(),
            Matter::Files(_) => {
                let events = self.events(&told.record);
                let frames = events
                    .iter()
                    .flat_map(|event| event::frames(event, &told.record));
                Arc::from(frames.collect::<Vec<u8>>())
            }
        };
        (!frames.is_empty()).then_some(Item {
            sequence: told.record.sequence,
            gap: None,
            frames,
        })
    }

    fn events(&mut self, record: &Record) -> Vec<crate::protocol::Event> {
        if let Matter::Message(message) = &record.matter {
            let is_wanted = self.wants(message);
            return is_wanted
                .then(|| event::of_message(record))
                .into_iter()
                .collect();
        }
        let Reading::Files(prefix) = &self.reading else {
            return Vec::new();
        };
        let (policy, who) = (&self.rights.policy, &self.who);
        let is_allowed = |path: &RemotePath| policy.authorize(who, Action::Read, path).is_ok();
        event::of_files(record, |path| is_in(path, prefix) && is_allowed(path))
    }

    /// A reply is for the one who asked, and comes another way.
    fn wants(&mut self, message: &Message) -> bool {
        let Reading::Topics(filters) = &self.reading else {
            return false;
        };
        let is_asked_for = filters.iter().any(|filter| filter.matches(&message.topic));
        is_asked_for && message.reply_to.is_none() && self.may_read(&message.topic)
    }

    fn may_read(&mut self, topic: &Topic) -> bool {
        if let Some(known) = self.rights.topics.get(topic) {
            return *known;
        }
        if self.rights.topics.len() >= KNOWN_TOPICS_MAX {
            self.rights.topics.clear();
        }
        let (policy, who) = (&self.rights.policy, &self.who);
        let may = policy.authorize(who, Action::Subscribe, topic).is_ok();
        self.rights.topics.insert(topic.clone(), may);
        may
    }

    /// What the log no longer holds and the reader does not know of.
    fn newly_lost(&mut self) -> Result<Option<Item>, OpError> {
        let lost_to = self.lost_to()?;
        let known = self.told_lost_to.max(self.position);
        if lost_to <= known {
            return Ok(None);
        }
        self.told_lost_to = lost_to;
        Ok(Some(Item::lost(known.next(), lost_to)))
    }

    /// The last record that the log no longer holds and that may have been for this reader.
    fn lost_to(&mut self) -> Result<Sequence, OpError> {
        let index = Arc::clone(&self.service.parts.index);
        let totals = index.totals().map_err(OpError::Index)?;
        let known = self.told_lost_to.max(self.position);
        let filters = match &self.reading {
            Reading::Files(_) => return Ok(totals.files_lost_to),
            Reading::Topics(_) if totals.messages_lost_to <= known => return Ok(known),
            Reading::Topics(_) if self.n_expired_seen == Some(totals.n_expired) => {
                return Ok(known);
            }
            Reading::Topics(filters) => filters.clone(),
        };
        self.n_expired_seen = Some(totals.n_expired);
        let mut lost_to = totals.topics_lost_to;
        for filter in &filters {
            let mut after = None;
            loop {
                let page = index
                    .topics(filter, after.as_ref(), TOPICS_PAGE)
                    .map_err(OpError::Index)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (topic, state) in page {
                    if state.lost_to > lost_to && self.may_read(&topic) {
                        lost_to = state.lost_to;
                    }
                }
            }
        }
        Ok(lost_to)
    }
}

/// Whether a path is in a directory, or of its name.
fn is_in(path: &RemotePath, prefix: &Prefix) -> bool {
    let (path, prefix) = (path.as_str(), prefix.as_str());
    path.starts_with(prefix) || path == prefix.trim_end_matches('/')
}
