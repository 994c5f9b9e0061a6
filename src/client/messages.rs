//! Messages: sent, asked for, looked up.
//!
//! A message that was acknowledged is in the log. What is sent again after a lost connection is
//! taken once only under a deduplication id.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::time::timeout;

use super::download::Downloaded;
use super::notices::Notices;
use super::upload::on_thread;
use super::{Client, ClientError, Delivery, Message};
use crate::connection::PIECE_SIZE;
use crate::filter::TopicFilter;
use crate::label::{CursorName, DedupId};
use crate::path::Topic;
use crate::protocol::{
    Ack, Answer, Call, Event, Fetch, Fetched, Forget, Last, Op, Publish, Published, PublishedLines,
    TopicPage, Topics,
};

/// Largest message that goes along with its event; a larger one is attached, and fetched.
pub const PAYLOAD_SIZE_MAX: usize = PIECE_SIZE;
/// Most lines that are published at a time.
pub const LINES_MAX: usize = 1024;
/// Most bytes of lines that are published at a time.
pub const LINES_SIZE_MAX: usize = 1 << 20;

/// How a message is to be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// What makes this message the same when it is sent again.
    pub dedup_id: Option<DedupId>,
}

impl Client {
    /// Publishes a message. It is in the log when this returns.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the message was published.
    pub async fn publish(
        &self,
        topic: &Topic,
        payload: impl Into<Vec<u8>>,
        options: PublishOptions,
    ) -> Result<Published, ClientError> {
        let payload = payload.into();
        let request = publish_request(topic, Some(payload.len() as u64), options, false);
        self.upload_bytes(request, payload).await
    }

    /// Publishes a message out of anything that can be read; of `size` bytes, where that is known.
    ///
    /// # Errors
    /// As [`Client::publish`]; the source failed.
    ///
    /// # Cancel safety
    /// As [`Client::publish`].
    pub async fn publish_from(
        &self,
        topic: &Topic,
        source: impl Read + Send + 'static,
        size: Option<u64>,
        options: PublishOptions,
    ) -> Result<Published, ClientError> {
        if size.is_some() {
            let request = publish_request(topic, size, options, false);
            return self.upload(request, source, size).await;
        }
        // What turns out to be small goes along with its event.
        let (head, rest) = on_thread(move || read_head(source))
            .await
            .map_err(ClientError::Source)?;
        if head.len() <= PAYLOAD_SIZE_MAX {
            return self.publish(topic, head, options).await;
        }
        let request = publish_request(topic, None, options, false);
        let source = io::Cursor::new(head).chain(rest);
        self.upload(request, source, None).await
    }

    /// Publishes each line as a message, in one step for the disk. Lines are what is between line
    /// feeds; at most [`LINES_MAX`] of them and [`LINES_SIZE_MAX`] bytes.
    ///
    /// # Errors
    /// As [`Client::publish`]. A line that is refused is no error: the answer names it.
    ///
    /// # Cancel safety
    /// As [`Client::publish`].
    pub async fn publish_lines(
        &self,
        topic: &Topic,
        lines: Vec<u8>,
        options: PublishOptions,
    ) -> Result<PublishedLines, ClientError> {
        let size = lines.len() as u64;
        let request = publish_request(topic, Some(size), options, true);
        if lines.len() > LINES_SIZE_MAX {
            let source = io::Cursor::new(lines);
            return self.upload(request, source, Some(size)).await;
        }
        self.upload_small(request, &lines).await
    }

    /// Publishes a message that asks for a reply, and waits for the first one.
    ///
    /// # Errors
    /// The connection failed, or the server refused; `unavailable` when nobody replied in time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the message published, and gives its reply up.
    pub async fn request(
        &self,
        topic: &Topic,
        payload: impl Into<Vec<u8>>,
        wait: Duration,
    ) -> Result<Message, ClientError> {
        let payload = payload.into();
        let seconds = whole_seconds(wait);
        let request = Op::Call(Call {
            topic: topic.clone(),
            size: Some(payload.len() as u64),
            timeout: Some(seconds),
        });
        let stall = self.shared.options.stall_timeout;
        let limit = stall.saturating_add(Duration::from_secs(seconds));
        let mut link = self.link().await?;
        let answer = self.exchange::<Event>(&mut link, request, &payload, limit);
        let event = match answer.await? {
            Ok(event) => event,
            Err(refused) => {
                self.keep(link);
                return Err(refused);
            }
        };
        let mut payload = Vec::new();
        if event.size > 0 {
            let size = usize::try_from(event.size).unwrap_or(usize::MAX);
            let received = timeout(stall, link.connection.recv_payload(size)).await;
            let received = received.map_err(|_| ClientError::Silent {
                server: self.server(),
                stall,
            })?;
            payload = received.map_err(|error| self.lost(error))?;
        }
        self.keep(link);
        Ok(Message { event, payload })
    }

    /// Replies to the message `to`, which asked for it.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn reply(
        &self,
        to: u64,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Published, ClientError> {
        let payload = payload.into();
        let size = Some(payload.len() as u64);
        self.upload_bytes(Op::Answer(Answer { to, size }), payload)
            .await
    }

    /// One page of the topics; ask again with `after` set to its `next`.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn topics(
        &self,
        filter: Option<TopicFilter>,
        after: Option<Topic>,
    ) -> Result<TopicPage, ClientError> {
        self.ask(Op::Topics(Topics { filter, after })).await
    }

    /// Gives the latest message of each topic to `sink`, one by one; returns the place in the log
    /// up to which they are the latest.
    ///
    /// # Errors
    /// The connection failed, the server refused, or the sink did.
    pub async fn last(
        &self,
        topics: Vec<TopicFilter>,
        mut sink: impl FnMut(Message) -> io::Result<()>,
    ) -> Result<u64, ClientError> {
        let request = Op::Last(Last { topics });
        let (mut link, IgnoredAny) = self.begin(request).await?;
        let mut notices = Notices::new(self.server(), self.shared.options.stall_timeout);
        loop {
            let received = notices.recv(&mut link.connection).await;
            match received.map_err(|error| self.explained(error))? {
                Delivery::Event(message) => sink(message).map_err(ClientError::Sink)?,
                Delivery::Lost(_) => return Err(ClientError::Misplaced("a gap in an answer")),
                Delivery::CaughtUp(sequence) => {
                    self.keep(link);
                    return Ok(sequence);
                }
            }
        }
    }

    /// Reads what is attached to a message into anything that can be written, and gives that back.
    ///
    /// # Errors
    /// As [`Client::get`].
    ///
    /// # Cancel safety
    /// As [`Client::get`].
    pub async fn fetch<W: Write + Send + 'static>(
        &self,
        sequence: u64,
        sink: W,
    ) -> Result<(Fetched, W), ClientError> {
        let request = Op::Fetch(Fetch { sequence });
        let Downloaded { answer, sink, .. } = self.download::<Fetched, W>(request, sink).await?;
        Ok((answer, sink))
    }

    /// Says that what a cursor gave is done with: up to this record, or for a group this record.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn ack(&self, cursor: &CursorName, sequence: u64) -> Result<(), ClientError> {
        let cursor = cursor.clone();
        let request = Op::Ack(Ack { cursor, sequence });
        self.ask::<IgnoredAny>(request).await.map(drop)
    }

    /// Takes a cursor away.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn forget(&self, cursor: &CursorName) -> Result<(), ClientError> {
        let cursor = cursor.clone();
        let request = Op::Forget(Forget { cursor });
        self.ask_once::<IgnoredAny>(request).await.map(drop)
    }
}

/// The first bytes of a source, one more than fits an event, and the source.
fn read_head<R: Read>(mut source: R) -> io::Result<(Vec<u8>, R)> {
    let mut head = Vec::new();
    let limit = PAYLOAD_SIZE_MAX as u64 + 1;
    source.by_ref().take(limit).read_to_end(&mut head)?;
    Ok((head, source))
}

fn publish_request(topic: &Topic, size: Option<u64>, options: PublishOptions, lines: bool) -> Op {
    Op::Publish(Publish {
        topic: topic.clone(),
        size,
        dedup_id: options.dedup_id,
        lines,
    })
}

/// The wire counts seconds; a wait is not cut short by it.
fn whole_seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(begun).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_shortened() {
        let seconds = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([0, 1, 1000, 1001].map(seconds), [1, 1, 1, 2]);
    }
}
