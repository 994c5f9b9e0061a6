//! What a stream of the log delivers, put together from its frames.
//!
//! A message and its payload are one delivery, a set of changes is one, however many frames they
//! came in. Nothing is delivered in part.

use std::time::Duration;

use tokio::time::timeout;

use super::ClientError;
use crate::connection::{Connection, ConnectionError};
use crate::protocol::{Event, Lost, Notice};
use crate::socket::Transport;

/// Most changes of one record.
const CHANGES_MAX: usize = 10_000;

/// An event, with the bytes of the message where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub event: Event,
    pub payload: Vec<u8>,
}

/// What a subscription gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Event(Message),
    /// The log no longer holds what was between.
    Lost(Lost),
    /// Everything up to this sequence number was delivered; nothing more is there for now.
    CaughtUp(u64),
}

/// What has arrived of a delivery.
#[derive(Debug)]
pub(super) struct Notices {
    server: String,
    /// Longest wait for a frame.
    silence: Duration,
    /// A message whose payload comes next.
    announced: Option<Event>,
    /// A record whose changes are not all there.
    begun: Option<Event>,
}

impl Notices {
    /// A stream of which nothing was read.
    pub(super) const fn new(server: String, silence: Duration) -> Self {
        Self {
            server,
            silence,
            announced: None,
            begun: None,
        }
    }

    /// Whether nothing has arrived of the next delivery, as far as it was read.
    pub(super) const fn is_between(&self) -> bool {
        self.announced.is_none() && self.begun.is_none()
    }

    /// The next delivery.
    ///
    /// # Errors
    /// The connection failed or was silent, the server ended the stream, or what it sent is none.
    ///
    /// # Cancel safety
    /// A cancelled call loses nothing; call again.
    pub(super) async fn recv<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
    ) -> Result<Delivery, ClientError> {
        loop {
            if let Some(event) = &self.announced {
                let size = usize::try_from(event.size).unwrap_or(usize::MAX);
                let payload = self.in_time(connection.recv_payload(size)).await?;
                if let Some(event) = self.announced.take() {
                    return Ok(Delivery::Event(Message { event, payload }));
                }
            }
            let message = self.in_time(connection.recv_message()).await?;
            let message = message.ok_or_else(|| self.lost(ConnectionError::Truncated))?;
            match Notice::decode(&message).map_err(ClientError::Answer)? {
                Notice::Event(event) => {
                    if let Some(event) = self.joined(event)? {
                        let payload = Vec::new();
                        return Ok(Delivery::Event(Message { event, payload }));
                    }
                }
                Notice::Lost(lost) if self.begun.is_none() => return Ok(Delivery::Lost(lost)),
                Notice::Lost(_) => {
                    return Err(ClientError::Misplaced("a gap inside a record"));
                }
                // A sign of life inside a long record says no more than that.
                Notice::Heartbeat(_) if self.begun.is_some() => {}
                Notice::Heartbeat(heartbeat) => {
                    return Ok(Delivery::CaughtUp(heartbeat.sequence));
                }
                Notice::Error(reply) => return Err(ClientError::Remote(reply)),
            }
        }
    }

    /// Takes the next event in; gives it back when it is whole.
    fn joined(&mut self, mut event: Event) -> Result<Option<Event>, ClientError> {
        if let Some(mut begun) = self.begun.take() {
            if begun.sequence != event.sequence {
                return Err(ClientError::Misplaced("a record inside another one"));
            }
            if begun.changes.len() + event.changes.len() > CHANGES_MAX {
                return Err(ClientError::OverLimit {
                    what: "changes in one record",
                    limit: CHANGES_MAX,
                });
            }
            begun.changes.append(&mut event.changes);
            begun.more = event.more;
            event = begun;
        }
        if event.more {
            self.begun = Some(event);
            return Ok(None);
        }
        if event.size > 0 {
            self.announced = Some(event);
            return Ok(None);
        }
        Ok(Some(event))
    }

    async fn in_time<T>(
        &self,
        received: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ClientError> {
        match timeout(self.silence, received).await {
            Ok(received) => received.map_err(|error| self.lost(error)),
            Err(_) => Err(ClientError::Silent {
                server: self.server.clone(),
                stall: self.silence,
            }),
        }
    }

    fn lost(&self, source: ConnectionError) -> ClientError {
        ClientError::Lost {
            server: self.server.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::DuplexStream;

    use super::*;

    const STALL: Duration = Duration::from_secs(5);

    /// The two ends of a pipe so narrow that every frame is cut.
    fn pipe() -> (Connection<DuplexStream>, Connection<DuplexStream>) {
        let (near, far) = tokio::io::duplex(8);
        (Connection::new(near, STALL), Connection::new(far, STALL))
    }

    fn event(sequence: u64, more: &serde_json::Value) -> serde_json::Value {
        let mut event = json!({"sequence": sequence, "time": "2026-11-25T10:00:00Z", "identity": "spiffe://a/b"});
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        json!({"event": event})
    }

    /// Sends notices, each with its payload, and says what came of them until the end.
    async fn deliver(sent: Vec<(serde_json::Value, &'static [u8])>) -> Vec<String> {
        let (mut near, mut far) = pipe();
        let sender = tokio::spawn(async move {
            for (notice, payload) in sent {
                far.queue_message(&notice);
                far.queue_data(payload);
            }
            far.flush().await.unwrap();
        });
        let mut notices = Notices::new("server".to_owned(), STALL);
        let mut seen = Vec::new();
        loop {
            // Cancelled again and again, as by a reader that takes only what is there.
            let delivery = tokio::select! {
                biased;
                delivery = notices.recv(&mut near) => delivery,
                () = tokio::task::yield_now() => continue,
            };
            match delivery {
                Ok(Delivery::Event(Message { event, payload })) => seen.push(format!(
                    "{} {} {}",
                    event.sequence,
                    event.changes.len(),
                    String::from_utf8(payload).unwrap()
                )),
                Ok(Delivery::Lost(lost)) => seen.push(format!("lost {}-{}", lost.from, lost.to)),
                Ok(Delivery::CaughtUp(sequence)) => seen.push(format!("caught up {sequence}")),
                Err(error) => {
                    seen.push(error.to_string());
                    break;
                }
            }
        }
        sender.await.unwrap();
        seen
    }

    #[tokio::test]
    async fn frames_become_whole_deliveries() {
        let removed = |path: &str| json!([{"change": "removed", "path": path}]);
        let sent = vec![
            (event(3, &json!({"topic": "a", "size": 2})), &b"hi"[..]),
            (event(4, &json!({"topic": "a"})), b""),
            (
                event(5, &json!({"changes": removed("/a"), "more": true})),
                b"",
            ),
            (
                json!({"heartbeat": {"sequence": 4, "time": "2026-11-25T10:00:00Z"}}),
                b"",
            ),
            (event(5, &json!({"changes": removed("/b")})), b""),
            (json!({"lost": {"from": 6, "to": 7}}), b""),
            (
                json!({"heartbeat": {"sequence": 7, "time": "2026-11-25T10:00:00Z"}}),
                b"",
            ),
            (json!({"error": {"code": "denied", "message": "no"}}), b""),
        ];
        let seen = deliver(sent).await;
        let expected = ["3 0 hi", "4 0 ", "5 2 ", "lost 6-7", "caught up 7", "no"];
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn what_stands_in_the_wrong_place_ends_the_stream() {
        let begun = event(5, &json!({"more": true}));
        let last = |seen: Vec<String>| seen.last().cloned().unwrap();
        let seen = deliver(vec![(begun.clone(), b""), (event(6, &json!({})), b"")]).await;
        assert!(last(seen).contains("a record inside another one"));
        let gap = json!({"lost": {"from": 6, "to": 7}});
        let seen = deliver(vec![(begun, b""), (gap, b"")]).await;
        assert!(last(seen).contains("a gap inside a record"));
        let short = event(3, &json!({"topic": "a", "size": 3}));
        let seen = deliver(vec![(short, b"hi")]).await;
        assert!(last(seen).contains("was lost"));
    }
}
