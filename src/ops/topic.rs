//! Topics: what is known about them, their latest messages, and what is attached to one.
//!
//! Whoever may not subscribe to a topic does not learn that it is there.

use tracing::error;

use super::{OpError, Service, event};
use crate::filter::TopicFilter;
use crate::identity::Identity;
use crate::label::CursorName;
use crate::log::cursors::Reading;
use crate::log::{LogError, Matter, Page, Payload, Record, Sequence};
use crate::path::Topic;
use crate::policy::Action;
use crate::protocol::{CursorLag, Fetch, Fetched, TopicInfo, TopicPage, Topics};
use crate::store::Content;

/// Topics in one page.
const TOPICS_PAGE: usize = 128;
/// Bytes of topics in one page: what a message holds, less one topic with all its cursors.
const PAGE_SIZE_MAX: usize = 24 << 10;
/// Bytes of the latest messages that are read at a time.
const LAST_SIZE_MAX: usize = 128 << 10;
/// Topics that are looked at together.
const TOPICS_LOOKED_AT_MAX: usize = 4096;
const ONE: Page = Page {
    n_max: 1,
    size_max: 0,
};

impl Service {
    /// What is attached to a message: `subscribe` on its topic. Blocks.
    ///
    /// # Errors
    /// No grant covers it, or nothing is there.
    pub fn fetch(
        &self,
        who: &Identity,
        fetch: Fetch,
    ) -> Result<(Fetched, Box<dyn Content>), OpError> {
        let sequence = Sequence(fetch.sequence);
        // Whoever may not read the message does not learn whether it is there.
        let missing = || OpError::NoMessage(sequence);
        let record = self.record(sequence)?.ok_or_else(missing)?;
        let Matter::Message(message) = &record.matter else {
            return Err(missing());
        };
        let policy = self.policy();
        let permit = policy.authorize(who, Action::Subscribe, &message.topic);
        permit.map_err(|_| missing())?;
        let Payload::Attached(attached) = &message.payload else {
            return Err(OpError::NothingAttached(sequence));
        };
        let content = self.parts.store.open_attached(attached.content);
        let fetched = Fetched {
            sequence: sequence.0,
            size: attached.size,
            digest: attached.digest,
        };
        Ok((fetched, content.map_err(OpError::Store)?))
    }

    pub(super) fn record(&self, sequence: Sequence) -> Result<Option<Record>, OpError> {
        if sequence > self.tail.head() {
            return Ok(None);
        }
        let records = match self.parts.log.read(sequence, ONE) {
            Err(LogError::DamagedRecord { sequence, reason }) => {
                error!(sequence = sequence.0, reason, "a record is damaged");
                return Ok(None);
            }
            read => read.map_err(OpError::Log)?,
        };
        let record = records.into_iter().next();
        Ok(record.filter(|record| record.sequence == sequence))
    }

    /// One page of the topics that an identity may subscribe to. Blocks.
    ///
    /// # Errors
    /// A part failed.
    pub fn topics(&self, who: &Identity, request: &Topics) -> Result<TopicPage, OpError> {
        let every: TopicFilter = "**".parse().expect("two stars are a filter");
        let filter = request.filter.as_ref().unwrap_or(&every);
        let policy = self.policy();
        let cursors = self.cursors.of(&who.id);
        let mut page = TopicPage {
            topics: Vec::new(),
            next: None,
        };
        // Only a topic that the client may know is where it goes on.
        let (mut after, mut size) = (request.after.clone(), 0);
        loop {
            let found = self
                .parts
                .index
                .topics(filter, after.as_ref(), TOPICS_LOOKED_AT_MAX)
                .map_err(OpError::Index)?;
            let Some((last, _)) = found.last() else {
                return Ok(page);
            };
            after = Some(last.clone());
            for (topic, state) in found {
                let is_allowed = policy.authorize(who, Action::Subscribe, &topic).is_ok();
                if state.n_messages == 0 || !is_allowed {
                    continue;
                }
                if page.topics.len() == TOPICS_PAGE || size > PAGE_SIZE_MAX {
                    page.next = page.topics.last().map(|info| info.topic.clone());
                    return Ok(page);
                }
                // It may have outlived its time since the look at the index.
                let Some(record) = self.record(state.last)? else {
                    continue;
                };
                let info = TopicInfo {
                    n_messages: state.n_messages,
                    size: state.size,
                    last: state.last.0,
                    last_time: record.time,
                    cursors: self.lags(&topic, &cursors)?,
                    topic,
                };
                size += serde_json::to_vec(&info).map_or(0, |bytes| bytes.len());
                page.topics.push(info);
            }
        }
    }

    fn lags(
        &self,
        topic: &Topic,
        cursors: &[(CursorName, Reading, Sequence)],
    ) -> Result<Vec<CursorLag>, OpError> {
        let mut lags = Vec::new();
        for (cursor, reading, position) in cursors {
            if let Reading::Topics(filters) = reading
                && filters.iter().any(|filter| filter.matches(topic))
            {
                let lag = self.parts.index.n_after(topic, *position);
                lags.push(CursorLag {
                    cursor: cursor.clone(),
                    lag: lag.map_err(OpError::Index)?,
                });
            }
        }
        Ok(lags)
    }

    /// Whether the latest messages of these topics may be asked for.
    ///
    /// # Errors
    /// There are too many or none, or no grant covers any of one.
    pub fn plan_last(&self, who: &Identity, filters: &[TopicFilter]) -> Result<(), OpError> {
        super::reader::check_filters(filters)?;
        let policy = self.policy();
        for filter in filters {
            policy.check_filter(&who.id, Action::Subscribe, filter)?;
        }
        Ok(())
    }

    /// The latest message of each topic that a filter matches, after `after`, as frames: some of
    /// them, and the topic to go on after. Blocks.
    ///
    /// # Errors
    /// A part failed.
    pub fn last(
        &self,
        who: &Identity,
        filter: &TopicFilter,
        after: Option<&Topic>,
    ) -> Result<(Vec<u8>, Option<Topic>), OpError> {
        let policy = self.policy();
        let found = self.parts.index.topics(filter, after, TOPICS_PAGE);
        let found = found.map_err(OpError::Index)?;
        let mut next = None;
        let mut frames = Vec::new();
        for (topic, state) in found {
            if frames.len() > LAST_SIZE_MAX {
                break;
            }
            next = Some(topic.clone());
            if state.n_messages == 0 || policy.authorize(who, Action::Subscribe, &topic).is_err() {
                continue;
            }
            if let Some(record) = self.record(state.last)? {
                frames.extend(event::frames(&event::of_message(&record), &record));
            }
        }
        Ok((frames, next))
    }
}
