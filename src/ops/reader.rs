//! A reader of the log: a feed, and for one with a cursor what it was given and is not done with.
//!
//! It takes what there is and waits for more; it never holds more than it may have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use super::cursor_reader::{Claim, CursorReader};
use super::feed::{Feed, Item};
use super::{OpError, Service};
use crate::filter::TopicFilter;
use crate::identity::Identity;
use crate::log::Sequence;
use crate::log::cursors::{CursorKey, Reading};
use crate::protocol::{Start, Subscribed};

/// Topics that one reader may name.
const FILTERS_MAX: usize = 64;
/// How long a reader has to acknowledge, if it does not say.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that it may say.
const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// One reader.
pub struct Reader {
    feed: Feed,
    cursor: Option<CursorReader>,
    began: Subscribed,
}

/// What a reader can have now.
pub enum Taken {
    /// These; nothing if there is nothing for it.
    Items(Vec<Item>),
    /// What only a look at the disk can say.
    Behind,
}

impl Service {
    /// A reader that begins where it says. Blocks.
    ///
    /// # Errors
    /// Nothing of it may be read, or it begins nowhere.
    pub fn reader(
        self: &Arc<Self>,
        who: &Arc<Identity>,
        reading: Reading,
        start: &Start,
    ) -> Result<Reader, OpError> {
        let ack_timeout = check_start(&reading, start)?;
        let head = self.tail.head();
        // Whoever may read nothing makes no cursor either.
        Feed::new(self, who, reading.clone(), head)?;
        let mut is_new = false;
        let position = || {
            is_new = true;
            self.begin_at(start)
        };
        let (mut feed, cursor) = match &start.cursor {
            None => {
                is_new = true;
                (Feed::new(self, who, reading, self.begin_at(start)?)?, None)
            }
            Some(name) => {
                let key = CursorKey {
                    identity: who.id.clone(),
                    name: name.clone(),
                };
                let cursor =
                    self.cursors
                        .read(key, reading.clone(), start.group, ack_timeout, position)?;
                let feed = Feed::new(self, who, reading, cursor.position())?;
                (feed, Some(cursor))
            }
        };
        if start.since == Some(0) && cursor.is_none() {
            feed = feed.forgive_lost()?;
        }
        if let Some(time) = start.since_time.filter(|_| is_new) {
            feed = feed.since(time, head);
        }
        let began = Subscribed {
            after: feed.position.0,
            head: head.0,
        };
        Ok(Reader {
            feed,
            cursor,
            began,
        })
    }

    fn begin_at(&self, start: &Start) -> Result<Sequence, OpError> {
        let head = self.tail.head();
        match (start.since, start.since_time) {
            (Some(since), _) if since > head.0 => Err(OpError::AfterHead {
                since: Sequence(since),
                head,
            }),
            (Some(since), _) => Ok(Sequence(since)),
            (None, Some(time)) => {
                let first = self.parts.log.since(time).map_err(OpError::Log)?;
                Ok(Sequence(first.0.saturating_sub(1)).min(head))
            }
            (None, None) => Ok(head),
        }
    }
}

fn check_start(reading: &Reading, start: &Start) -> Result<Duration, OpError> {
    if let Reading::Topics(filters) = reading {
        check_filters(filters)?;
    }
    if start.since.is_some() && start.since_time.is_some() {
        return Err(OpError::BadRequest(
            "since and since_time exclude each other",
        ));
    }
    if start.cursor.is_none() && (start.group || start.ack_timeout.is_some()) {
        return Err(OpError::BadRequest("group and ack_timeout need a cursor"));
    }
    let ack_timeout = start.ack_timeout.map_or(ACK_TIMEOUT, Duration::from_secs);
    if ack_timeout.is_zero() || ack_timeout > ACK_TIMEOUT_MAX {
        return Err(OpError::BadRequest(
            "ack_timeout is at least 1 second and at most 12 hours",
        ));
    }
    Ok(ack_timeout)
}

/// Whether a reader names as many topics as it may.
pub(super) const fn check_filters(filters: &[TopicFilter]) -> Result<(), OpError> {
    if filters.is_empty() || filters.len() > FILTERS_MAX {
        return Err(OpError::BadRequest(
            "a reader names at least 1 and at most 64 topics",
        ));
    }
    Ok(())
}

impl Reader {
    /// Where it began.
    pub const fn began(&self) -> Subscribed {
        self.began
    }

    /// Everything up to here was given.
    pub const fn position(&self) -> Sequence {
        self.feed.position
    }

    /// Whether everything there is was given.
    pub fn is_caught_up(&self) -> bool {
        !self.feed.is_behind()
    }

    /// What there is in memory.
    ///
    /// # Errors
    /// It may no longer read, or has the cursor no longer.
    pub fn take(&mut self) -> Result<Taken, OpError> {
        self.feed.check_rights()?;
        let Some(cursor) = &self.cursor else {
            return Ok(self
                .feed
                .take(usize::MAX)
                .map_or(Taken::Behind, Taken::Items));
        };
        cursor.check()?;
        if cursor.is_due() {
            return Ok(Taken::Behind);
        }
        let room = cursor.room();
        if room == 0 {
            return Ok(Taken::Items(Vec::new()));
        }
        let from = cursor.seen_to();
        self.feed.position = from;
        match self.feed.take(room) {
            None => Ok(Taken::Behind),
            Some(items) => Ok(Taken::Items(self.given(from, items))),
        }
    }

    /// What there is on the disk. Blocks.
    ///
    /// # Errors
    /// The log or the index failed.
    pub fn take_behind(&mut self) -> Result<Vec<Item>, OpError> {
        let Some(cursor) = &self.cursor else {
            return self.feed.take_behind(usize::MAX);
        };
        if let Some(claim) = cursor.claim() {
            return self.again(claim);
        }
        let (from, room) = (cursor.seen_to(), cursor.room());
        if room == 0 {
            return Ok(Vec::new());
        }
        self.feed.position = from;
        let items = self.feed.take_behind(room)?;
        Ok(self.given(from, items))
    }

    /// Leaves only what is for this reader and no other.
    fn given(&self, from: Sequence, items: Vec<Item>) -> Vec<Item> {
        let Some(cursor) = &self.cursor else {
            return items;
        };
        let found: Vec<_> = items.iter().map(|item| (item.sequence, item.gap)).collect();
        let Some(given) = cursor.seen(from, self.feed.position, &found) else {
            return Vec::new();
        };
        let is_given = |item: &Item| item.gap.is_some() || given.contains(&item.sequence);
        items.into_iter().filter(is_given).collect()
    }

    fn again(&mut self, claim: Claim) -> Result<Vec<Item>, OpError> {
        let items = self.feed.again(claim)?;
        if let Some(cursor) = self.cursor.as_ref().filter(|_| items.is_empty()) {
            cursor.drop_record(claim.sequence);
        }
        Ok(items)
    }

    /// Waits until there may be something.
    ///
    /// # Cancel safety
    /// Nothing is lost; call again.
    pub async fn wait(&mut self) {
        let Some(cursor) = &mut self.cursor else {
            return self.feed.wait().await;
        };
        let has_room = cursor.room() > 0;
        let deadline = cursor.deadline();
        let expiry = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cursor.changed() => {}
            () = expiry => {}
            () = self.feed.wait(), if has_room => {}
        }
    }
}
