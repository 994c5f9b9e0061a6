//! A reader of the log that survives its connections.
//!
//! What was delivered is not asked for again, and nothing between is left out; with a cursor the
//! server decides where to go on, and may deliver again what was not acknowledged.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::time::sleep_until;

use super::back_off::BackOff;
use super::notices::Notices;
use super::{Client, ClientError, Delivery, Link};
use crate::filter::TopicFilter;
use crate::path::Prefix;
use crate::protocol::{Op, Start, Subscribe, Subscribed, Watch};

/// Longest silence of a stream: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Deliveries that are taken at a time.
const BATCH_MAX: usize = 256;
/// Bytes of payloads after which no more are taken at a time.
const BATCH_SIZE_MAX: usize = 1 << 20;

/// What a reader wants.
#[derive(Debug, Clone)]
enum Wanted {
    Topics(Vec<TopicFilter>),
    Files(Prefix),
}

/// A stream of what happens, from [`Client::subscribe`] or [`Client::watch`].
///
/// It connects again by itself, as long as another try may help, and goes on where it was. An error
/// is the end. While nobody asks for the next delivery nothing is read, so that a slow reader slows
/// the server down, not this machine's memory.
pub struct Subscription {
    head: u64,
    ready: VecDeque<Delivery>,
    state: State,
}

enum State {
    Resting(Box<Feed>),
    Reading(Pin<Box<dyn Future<Output = Filled> + Send>>),
    Failed(ClientError),
    Ended,
}

/// The feed again, what it has got, and why there will be no more.
struct Filled {
    feed: Box<Feed>,
    batch: Vec<Delivery>,
    end: Option<ClientError>,
}

/// The stream's connection, and where in the log it is.
struct Feed {
    client: Client,
    wanted: Wanted,
    start: Start,
    /// Everything up to this was read, or was not asked for.
    position: Option<u64>,
    link: Option<Link>,
    notices: Notices,
    back_off: BackOff,
    /// When new certificate files are looked for next.
    look_at: Instant,
    /// Since when this client's certificate is over, if it is.
    is_over_since: Option<Instant>,
}

impl Client {
    /// Reads the messages of some topics, from a place in the log on.
    ///
    /// # Errors
    /// The first connection failed, or the server refused.
    pub async fn subscribe(
        &self,
        topics: Vec<TopicFilter>,
        start: Start,
    ) -> Result<Subscription, ClientError> {
        self.feed(Wanted::Topics(topics), start).await
    }

    /// Reads what happens to the files in a directory, from a place in the log on.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn watch(&self, path: Prefix, start: Start) -> Result<Subscription, ClientError> {
        self.feed(Wanted::Files(path), start).await
    }

    async fn feed(&self, wanted: Wanted, start: Start) -> Result<Subscription, ClientError> {
        let mut feed = Feed {
            client: self.clone(),
            wanted,
            start,
            position: None,
            link: None,
            notices: Notices::new(self.server(), SILENCE_MAX),
            back_off: BackOff::default(),
            look_at: Instant::now(),
            is_over_since: None,
        };
        let Subscribed { head, .. } = feed.connect().await?;
        Ok(Subscription {
            head,
            ready: VecDeque::new(),
            state: State::Resting(Box::new(feed)),
        })
    }
}

impl Subscription {
    /// The log's last record when the subscription began.
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// The next delivery; `None` after an error.
    ///
    /// # Errors
    /// Another try cannot mend it: a right is missing or gone, a certificate ended, the request
    /// makes no sense to the server. The stream has ended then.
    ///
    /// # Cancel safety
    /// A cancelled call loses nothing; call again.
    pub async fn next(&mut self) -> Option<Result<Delivery, ClientError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            match mem::replace(&mut self.state, State::Ended) {
                State::Resting(feed) => self.state = State::Reading(Box::pin(feed.fill())),
                State::Reading(mut reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Filled { feed, batch, end }) => {
                        self.ready = batch.into();
                        self.state = end.map_or(State::Resting(feed), State::Failed);
                    }
                },
                State::Failed(error) => return Poll::Ready(Some(Err(error))),
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl Feed {
    /// Waits for something, and takes what is there with it.
    async fn fill(mut self: Box<Self>) -> Filled {
        let mut batch = Vec::new();
        let end = loop {
            match self.take(&mut batch).await {
                Ok(()) => break None,
                Err(error) if error.is_passing() && self.may_pass(&error) => {
                    self.link = None;
                    if !batch.is_empty() {
                        break None;
                    }
                }
                Err(error) => break Some(error),
            }
        };
        Filled {
            feed: self,
            batch,
            end,
        }
    }

    /// Whether a passing error is still waited out: new certificate files for a while, all else for ever.
    fn may_pass(&mut self, error: &ClientError) -> bool {
        if !error.is_of_certificate() {
            return true;
        }
        let limit = self.client.shared.options.retry_for;
        if self.is_over_since.is_none() && !limit.is_zero() {
            self.client.shared.credentials.waiting(error, limit);
        }
        let since = *self.is_over_since.get_or_insert_with(Instant::now);
        since.elapsed() < limit
    }

    async fn take(&mut self, batch: &mut Vec<Delivery>) -> Result<(), ClientError> {
        if self.link.is_none() {
            self.back_off.pause().await;
            self.connect().await?;
        }
        let mut size = 0;
        while batch.len() < BATCH_MAX && size < BATCH_SIZE_MAX {
            let is_between = batch.is_empty() && self.notices.is_between();
            if is_between && Instant::now() >= self.look_at {
                self.move_over().await;
            }
            let Some(link) = &mut self.link else { break };
            let next = self.notices.recv(&mut link.connection);
            let received = if is_between {
                let look_at = tokio::time::Instant::from_std(self.look_at);
                tokio::select! {
                    biased;
                    delivery = next => delivery,
                    () = sleep_until(look_at) => continue,
                }
            } else if batch.is_empty() {
                next.await
            } else {
                tokio::select! {
                    biased;
                    delivery = next => delivery,
                    () = std::future::ready(()) => break,
                }
            };
            let delivery = received.map_err(|error| self.client.explained(error))?;
            self.back_off.reset();
            self.is_over_since = None;
            size += self.passed(&delivery);
            batch.push(delivery);
        }
        Ok(())
    }

    /// Moves on past a delivery; says how much of a payload it holds. Not past a gap: of what is in
    /// it only a part is lost, and the rest comes behind it.
    fn passed(&mut self, delivery: &Delivery) -> usize {
        self.position = self.position.max(reached(delivery));
        match delivery {
            Delivery::Event(message) => message.payload.len(),
            Delivery::Lost(_) | Delivery::CaughtUp(_) => 0,
        }
    }

    async fn connect(&mut self) -> Result<Subscribed, ClientError> {
        let request = self.request();
        let (link, subscribed) = self.client.begin::<Subscribed>(request).await?;
        self.begin(link, &subscribed);
        Ok(subscribed)
    }

    /// What to ask for, from here on.
    fn request(&self) -> Op {
        let start = resumed(&self.start, self.position);
        match &self.wanted {
            Wanted::Topics(topics) => Op::Subscribe(Subscribe::new(topics.clone(), start)),
            Wanted::Files(path) => Op::Watch(Watch::new(path.clone(), start)),
        }
    }

    fn begin(&mut self, link: Link, subscribed: &Subscribed) {
        self.notices = Notices::new(self.client.server(), SILENCE_MAX);
        self.position = self.position.max(Some(subscribed.after));
        self.look_at = Instant::now() + link.look_interval();
        self.link = Some(link);
    }

    /// Looks for new certificate files; where there are some, goes on over a connection that is made with
    /// them. The one before is left only when the new one stands: a server may not know their CA yet.
    async fn move_over(&mut self) {
        let Some(link) = &self.link else { return };
        let interval = link.look_interval();
        self.look_at = Instant::now() + interval;
        // Somebody else of this client may have looked just now.
        if self.client.set_within(interval / 2).await == link.set {
            return;
        }
        let moved = async {
            let link = self.client.connect().await?;
            self.client
                .begin_on::<Subscribed>(link, self.request())
                .await
        };
        match moved.await {
            Ok((link, subscribed)) => {
                let old = self.link.take();
                self.begin(link, &subscribed);
                if let Some(old) = old {
                    old.connection.close().await;
                }
            }
            Err(error) => self.client.shared.credentials.not_taken(&error),
        }
    }
}

/// How far a delivery brings a reader. A gap brings it nowhere: what the log still holds of it comes
/// after the news of it.
const fn reached(delivery: &Delivery) -> Option<u64> {
    match delivery {
        Delivery::Event(message) => Some(message.event.sequence),
        Delivery::CaughtUp(sequence) => Some(*sequence),
        Delivery::Lost(_) => None,
    }
}

/// Where to go on: a cursor stands where the server keeps it, anything else after what was read.
fn resumed(start: &Start, position: Option<u64>) -> Start {
    match position {
        Some(position) if start.cursor.is_none() => Start {
            since: Some(position),
            since_time: None,
            ..start.clone()
        },
        _ => start.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Lost;

    #[test]
    fn what_is_kept_inside_a_gap_is_asked_for_after_a_lost_connection() {
        let mut position = Some(1);
        for (delivery, expected) in [
            (Delivery::Lost(Lost { from: 2, to: 9 }), 1),
            (Delivery::CaughtUp(4), 4),
            (Delivery::Lost(Lost { from: 5, to: 9 }), 4),
        ] {
            position = position.max(reached(&delivery));
            assert_eq!(position, Some(expected), "{delivery:?}");
        }
    }

    #[test]
    fn a_reader_goes_on_after_what_it_read_and_a_cursor_where_it_stands() {
        let start = Start {
            since_time: Some("2026-11-25T10:00:00Z".parse().unwrap()),
            ..Start::default()
        };
        assert_eq!(resumed(&start, None), start);
        let on = Start {
            since: Some(7),
            ..Start::default()
        };
        assert_eq!(resumed(&start, Some(7)), on);
        let cursor = Start {
            since: Some(3),
            cursor: Some("loader".parse().unwrap()),
            ..Start::default()
        };
        assert_eq!(resumed(&cursor, Some(7)), cursor);
    }
}
