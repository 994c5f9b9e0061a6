//! Connections: made, kept, asked over.
//!
//! A connection that is kept is one on which nothing is outstanding.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use super::credentials::{DUE_LOOK_INTERVAL, LOOK_INTERVAL};
use super::{Client, ClientError, connect};
use crate::connection::{Connection, ConnectionError};
use crate::protocol::{Hello, Op, Reply, Request, Response};
use crate::socket::Socket;

/// Connections that are kept for the next request.
const IDLE_MAX: usize = 16;
/// A connection whose certificate ends within this is left for one with a new certificate.
const LEFT_MIN: Duration = Duration::from_secs(60);

/// A greeted connection.
pub(super) struct Link {
    pub(super) connection: Connection<TlsStream<Socket>>,
    pub(super) hello: Arc<Hello>,
    pub(super) next_id: u64,
    /// Which of the client's sets of files it was made with.
    pub(super) set: u64,
    /// When its certificate ends, by the server's clock.
    ends: Option<Instant>,
}

impl Client {
    /// Asks what may be asked again: it changes nothing, or has a request id.
    pub(super) async fn ask<T: DeserializeOwned>(&self, op: Op) -> Result<T, ClientError> {
        let mut patience = self.patience(None);
        loop {
            match self.ask_once(op.clone()).await {
                Err(error) => patience.wait(error).await?,
                answered => return answered,
            }
        }
    }

    pub(super) async fn ask_once<T: DeserializeOwned>(&self, op: Op) -> Result<T, ClientError> {
        let (link, value) = self.begin_once(op).await?;
        self.keep(link);
        Ok(value)
    }

    /// Asks what the connection is then needed for; one that was lost is replaced once.
    pub(super) async fn begin<T: DeserializeOwned>(
        &self,
        op: Op,
    ) -> Result<(Link, T), ClientError> {
        match self.begin_once(op.clone()).await {
            Err(ClientError::Lost { .. } | ClientError::Certificate { .. }) => {
                self.begin_once(op).await
            }
            result => result,
        }
    }

    pub(super) async fn begin_once<T: DeserializeOwned>(
        &self,
        op: Op,
    ) -> Result<(Link, T), ClientError> {
        let link = self.link().await?;
        self.begin_on(link, op).await
    }

    /// The same on this connection.
    pub(super) async fn begin_on<T: DeserializeOwned>(
        &self,
        mut link: Link,
        op: Op,
    ) -> Result<(Link, T), ClientError> {
        let id = link.queue(op);
        if let Err(error) = link.connection.flush().await {
            return Err(self.last_words(&mut link, id, error).await);
        }
        match self.answer(&mut link, id).await? {
            Ok(value) => Ok((link, value)),
            Err(refused) => {
                self.keep(link);
                Err(refused)
            }
        }
    }

    /// The answer to the request `id`; what the server refused is inside, the connection lives.
    pub(super) async fn answer<T: DeserializeOwned>(
        &self,
        link: &mut Link,
        id: u64,
    ) -> Result<Result<T, ClientError>, ClientError> {
        self.answer_within(self.shared.options.stall_timeout, link, id)
            .await
    }

    pub(super) async fn answer_within<T: DeserializeOwned>(
        &self,
        stall: Duration,
        link: &mut Link,
        id: u64,
    ) -> Result<Result<T, ClientError>, ClientError> {
        let message = tokio::time::timeout(stall, link.connection.recv_message()).await;
        let message = message.map_err(|_| ClientError::Silent {
            server: self.server(),
            stall,
        })?;
        let message = message.map_err(|error| self.lost(error))?;
        let Some(message) = message else {
            return Err(self.lost(ConnectionError::Truncated));
        };
        let response = Response::<T>::decode(&message).map_err(ClientError::Answer)?;
        match (response.id, response.reply) {
            (Some(found), Reply::Ok(value)) if found == id => Ok(Ok(value)),
            (Some(found), Reply::Error(error)) if found == id => Ok(Err(self.told(error))),
            // About the connection: it ends.
            (None, Reply::Error(error)) => Err(self.told(error)),
            (found, _) => Err(ClientError::OutOfStep { asked: id, found }),
        }
    }

    /// A connection that nobody uses: a kept one that is still silent and was made with the certificate of
    /// now, or a new one.
    pub(super) async fn link(&self) -> Result<Link, ClientError> {
        loop {
            let kept = self
                .shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            match kept {
                // What can be read from an idle connection is its end.
                Some(link) if link.connection.readable() => {}
                Some(link) => {
                    if link.set == self.set_within(link.look_interval()).await {
                        return Ok(link);
                    }
                    link.connection.close().await;
                }
                // Boxed: who has a connection already does not carry the state of making one.
                None => return Box::pin(self.connect()).await,
            }
        }
    }

    pub(super) async fn connect(&self) -> Result<Link, ClientError> {
        let shared = &self.shared;
        let set = shared.credentials.look().await;
        shared.credentials.check(&set)?;
        let preferred = shared.preferred.load(Ordering::Relaxed);
        let connected = connect::connect(&shared.options, &set, preferred).await;
        // One that has no room now was reached all the same.
        if matches!(connected, Ok(_) | Err(ClientError::NotGreeted { .. })) {
            shared.was_connected.store(true, Ordering::Relaxed);
        }
        let (link, server) = connected.map_err(|error| self.explained(error))?;
        shared.preferred.store(server, Ordering::Relaxed);
        shared.credentials.compare_clocks(link.hello.time);
        Ok(link)
    }

    pub(super) fn keep(&self, link: Link) {
        let mut idle = self
            .shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(link);
        }
    }

    pub(super) fn server(&self) -> String {
        self.shared.options.server.clone()
    }

    pub(super) fn lost(&self, source: ConnectionError) -> ClientError {
        match source {
            ConnectionError::Body(error) => ClientError::Body(error),
            source => ClientError::Lost {
                server: self.server(),
                source,
            },
        }
    }
}

impl Link {
    /// One that was greeted a moment ago.
    pub(super) fn greeted(
        connection: Connection<TlsStream<Socket>>,
        hello: Hello,
        set: u64,
    ) -> Self {
        let left = hello.expires_at.duration_since(hello.time);
        let left = Duration::try_from(left).unwrap_or_default();
        Self {
            connection,
            ends: Instant::now().checked_add(left),
            hello: Arc::new(hello),
            next_id: 1,
            set,
        }
    }

    /// How often new certificate files are looked for while this connection is used.
    pub(super) fn look_interval(&self) -> Duration {
        let left = self
            .ends
            .map(|ends| ends.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left < LEFT_MIN) {
            DUE_LOOK_INTERVAL
        } else {
            LOOK_INTERVAL
        }
    }

    /// Runs work on a thread of its own, which has the connection meanwhile.
    pub(super) async fn on_thread<T: Send + 'static>(
        self,
        work: impl AsyncFnOnce(&mut Connection<TlsStream<Socket>>) -> T + Send + 'static,
    ) -> Result<(Self, T), ConnectionError> {
        let Self {
            connection,
            hello,
            next_id,
            set,
            ends,
        } = self;
        let moved = connection.on_thread(&CancellationToken::new(), work).await;
        moved.map(|(connection, value)| {
            let link = Self {
                connection,
                hello,
                next_id,
                set,
                ends,
            };
            (link, value)
        })
    }

    /// The id of a request that is queued later.
    pub(super) const fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    pub(super) fn queue(&mut self, mut op: Op) -> u64 {
        // A server that does not know the field refuses the request.
        if let Some(accept) = op.accept_mut().filter(|_| !self.takes_zstd()) {
            accept.clear();
        }
        let id = self.next_id();
        self.connection.queue_encoded(&Request { id, op }.encode());
        id
    }
}
