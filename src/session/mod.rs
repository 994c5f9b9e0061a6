//! One connection with one identity: requests in, answers out, in order.
//!
//! All control flow of a session is here and in `body`; what is asked is done in `ops`. Framing
//! alone keeps both sides in step: after an answer the connection lives on, unless the position in
//! the stream was lost.

mod append;
mod body;
mod coded;
mod content;
mod delta;
mod description;
mod many;
mod message;
mod standing;
mod stream;
mod upload;
mod words;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::config::Limits;
use crate::connection::{Connection, ConnectionError};
use crate::identity::Identity;
use crate::log::cursors::Reading;
use crate::ops::{OpError, Service, written};
use crate::protocol::{
    DATA_SIZE_MAX, ErrorCode, ErrorReply, FEATURE_ZSTD, Greeting, Hello, MESSAGE_SIZE_MAX, Op,
    Reconcile, Reconciled, Reply, Request, SOFTWARE,
};
use crate::socket::Transport;

pub use delta::SIGNATURES_MAX;
pub use standing::Standing;
pub use words::last_words;
use words::{queue_done, queue_last_words, queue_reply, queue_result};

/// What every session of a server shares.
#[derive(Clone)]
pub struct Shared {
    pub service: Arc<Service>,
    pub limits: Arc<Limits>,
    /// Slots for bodies that are moved by threads of their own.
    pub transfers: Arc<Semaphore>,
    /// Slots for lists of chunks that are being made.
    pub signatures: Arc<Semaphore>,
    /// No more requests are taken.
    pub draining: CancellationToken,
    /// Whatever runs is cut.
    pub stop: CancellationToken,
}

/// Why a session ended, where that was not the client's wish.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("no request for {0:?}")]
    Idle(Duration),
}

/// One session.
pub struct Session {
    shared: Shared,
    identity: Arc<Identity>,
    standing: Arc<Standing>,
}

/// What was answered, for the log line.
type Outcome = Result<(), OpError>;

impl Session {
    /// A session of a peer that is known.
    pub fn new(shared: Shared, identity: Identity, standing: Arc<Standing>) -> Self {
        Self {
            shared,
            identity: Arc::new(identity),
            standing,
        }
    }

    /// Greets, then answers requests until the peer closes, the server drains, or the connection
    /// fails.
    ///
    /// # Errors
    /// The connection failed, or the peer did not keep to the protocol or its limits.
    pub async fn run<IO: Transport>(self, connection: Connection<IO>) -> Result<(), SessionError> {
        let span =
            info_span!("session", identity = %self.identity.id, serial = %self.identity.serial);
        self.serve(connection).instrument(span).await
    }

    async fn serve<IO: Transport>(
        self,
        mut connection: Connection<IO>,
    ) -> Result<(), SessionError> {
        connection.queue_message(&Greeting::Hello(self.hello()));
        connection.flush().await?;
        debug!("session began");
        let mut was_unreadable = false;
        loop {
            let message = match self.next_message(&mut connection).await {
                Ok(Some(message)) => message,
                // What was asked is not known, but the frames are: this is its body.
                Err(SessionError::Connection(ConnectionError::OutOfPlace { .. }))
                    if was_unreadable =>
                {
                    connection = self.pass_over_body(connection).await?;
                    was_unreadable = false;
                    continue;
                }
                Ok(None) => {
                    match self.standing.verdict().cloned() {
                        Some(why) => last_words(connection, why.code, why.message).await,
                        None => connection.close().await,
                    }
                    return Ok(());
                }
                Err(error) => return Err(self.give_up(connection, error).await),
            };
            if let Some(why) = self.must_end() {
                last_words(connection, why.code, why.message).await;
                return Ok(());
            }
            let request = Request::decode(&message);
            was_unreadable = request.is_err();
            match request {
                Ok(request) => match self.answer(connection, request).await? {
                    Some(answered) => connection = answered,
                    None => return Ok(()),
                },
                Err(error) => {
                    info!(code = %error.code(), %error, "refused a request");
                    let error_reply = ErrorReply {
                        code: error.code(),
                        message: error.to_string(),
                    };
                    queue_reply::<()>(&mut connection, error.id(), Reply::Error(error_reply));
                    connection.flush().await?;
                }
            }
        }
    }

    /// The next message; `None` when the session is to end well.
    async fn next_message<IO: Transport>(
        &self,
        connection: &mut Connection<IO>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let idle = self.shared.limits.idle_timeout;
        let began = tokio::select! {
            biased;
            () = self.shared.draining.cancelled() => {
                queue_last_words(connection, ErrorCode::ShuttingDown, "the server is going away".to_owned());
                connection.flush().await?;
                return Ok(None);
            }
            () = self.standing.over() => return Ok(None),
            began = timeout(idle, connection.wait_frame()) => began.map_err(|_| SessionError::Idle(idle))??,
        };
        if !began {
            return Ok(None);
        }
        let stall = self.shared.limits.stall_timeout;
        let message = timeout(stall, connection.recv_message()).await;
        Ok(message.map_err(|_| ConnectionError::TooSlow { stall })??)
    }

    /// Why there may be no more of the session, if so.
    fn must_end(&self) -> Option<ErrorReply> {
        if let Some(why) = self.standing.verdict() {
            return Some(why.clone());
        }
        let expires_at = self.identity.expires_at;
        (expires_at < Timestamp::now()).then(|| expired(expires_at))
    }

    /// Tells the peer why, where it can still hear it.
    async fn give_up<IO: Transport>(
        &self,
        connection: Connection<IO>,
        error: SessionError,
    ) -> SessionError {
        if let Some(why) = self.standing.verdict() {
            last_words(connection, why.code, why.message.clone()).await;
            return error;
        }
        match &error {
            SessionError::Connection(fault) => {
                if let Some(reply) = body::last_reply(fault) {
                    last_words(connection, reply.code, reply.message).await;
                }
            }
            SessionError::Idle(_) => {
                last_words(connection, ErrorCode::Busy, error.to_string()).await;
            }
        }
        error
    }

    /// Gives the connection back, unless it became a stream and ended.
    async fn answer<IO: Transport>(
        &self,
        connection: Connection<IO>,
        request: Request,
    ) -> Result<Option<Connection<IO>>, SessionError> {
        let Request { id, op } = request;
        let name = op.name();
        let began = std::time::Instant::now();
        let what = description::of(&op);
        let (connection, outcome) = match op {
            // Boxed: an idle session does not carry the state of a body.
            Op::Put(put) => Box::pin(self.put(connection, id, put)).await?,
            Op::Get(get) => Box::pin(self.get(connection, id, get)).await?,
            Op::Publish(publish) => Box::pin(self.publish(connection, id, publish)).await?,
            Op::Call(call) => Box::pin(self.call(connection, id, call)).await?,
            Op::Answer(answer) => Box::pin(self.reply(connection, id, answer)).await?,
            Op::Fetch(fetch) => Box::pin(self.fetch(connection, id, fetch)).await?,
            Op::Last(last) => Box::pin(self.last(connection, id, last)).await?,
            Op::Stage(stage) => Box::pin(self.stage(connection, id, stage)).await?,
            Op::Commit(commit) => Box::pin(self.commit(connection, id, commit)).await?,
            Op::Append(append) => Box::pin(self.append(connection, id, append)).await?,
            op @ (Op::Begin(_) | Op::Status(_) | Op::Abort(_) | Op::Uploads(_)) => {
                Box::pin(self.about_upload(connection, id, op)).await?
            }
            Op::Write(write) => Box::pin(self.write(connection, id, write)).await?,
            Op::PutMany(many) => Box::pin(self.put_many(connection, id, many)).await?,
            Op::GetMany(many) => Box::pin(self.get_many(connection, id, many)).await?,
            Op::Signature(signature) => Box::pin(self.signature(connection, id, signature)).await?,
            Op::Subscribe(subscribe) => {
                let start = subscribe.start();
                let reading = Reading::Topics(subscribe.topics);
                return Box::pin(self.stream(connection, id, reading, start)).await;
            }
            Op::Watch(watch) => {
                let start = watch.start();
                let reading = Reading::Files(watch.path);
                return Box::pin(self.stream(connection, id, reading, start)).await;
            }
            other => Box::pin(self.answer_without_body(connection, id, other)).await?,
        };
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(()) => info!(op = name, %what, elapsed_ms, "done"),
            Err(error) => {
                let ErrorReply { code, message } = error.reply();
                if matches!(code, ErrorCode::Internal | ErrorCode::Unavailable) {
                    let error = &error as &dyn std::error::Error;
                    warn!(op = name, %what, elapsed_ms, %code, error, "failed");
                } else {
                    info!(op = name, %what, elapsed_ms, %code, message, "refused");
                }
            }
        }
        Ok(Some(connection))
    }

    async fn answer_without_body<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        op: Op,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let service = &self.shared.service;
        let who = &self.identity;
        let on_thread = Arc::clone(&self.identity);
        let out = &mut connection;
        let outcome = match op {
            Op::Stat(stat) => queue_result(
                &mut connection,
                id,
                service.blocking(move |s| s.stat(&on_thread, &stat)).await,
            ),
            Op::List(list) => queue_result(
                &mut connection,
                id,
                service.blocking(move |s| s.list(&on_thread, &list)).await,
            ),
            Op::Remove(remove) => queue_result(out, id, service.remove(who, &remove).await),
            Op::Move(rename) => queue_result(out, id, service.rename(who, &rename).await),
            Op::Copy(copy) => queue_result(out, id, self.copy(copy).await),
            Op::Can(question) => queue_result(&mut connection, id, service.can(who, &question)),
            Op::Whoami => queue_result(&mut connection, id, Ok(service.whoami(who))),
            Op::Ping => queue_result(&mut connection, id, Ok(serde_json::Map::new())),
            Op::Ack(ack) => queue_done(&mut connection, id, service.acknowledge(who, &ack)),
            Op::Forget(forget) => {
                let forgotten = service.blocking(move |s| s.forget(&on_thread, &forget.cursor));
                queue_done(&mut connection, id, forgotten.await)
            }
            Op::Topics(topics) => {
                let page = service.blocking(move |s| s.topics(&on_thread, &topics));
                queue_result(&mut connection, id, page.await)
            }
            Op::Reconcile(reconcile) => queue_result(out, id, self.reconcile(reconcile).await),
            Op::LogStats => {
                let stats = service.blocking(move |s| s.log_stats(&on_thread));
                queue_result(&mut connection, id, stats.await)
            }
            Op::LogVerify(verify) => {
                let verified = service.blocking(move |s| s.log_verify(&on_thread, verify));
                queue_result(&mut connection, id, verified.await)
            }
            _ => unreachable!("these have a place of their own"),
        };
        connection.flush().await?;
        Ok((connection, outcome))
    }

    async fn copy(
        &self,
        copy: crate::protocol::Copy,
    ) -> Result<crate::protocol::FileInfo, OpError> {
        let _slot = self.transfer_slot().await?;
        let service = &self.shared.service;
        service.may_copy(&self.identity, &copy)?;
        let (to, request_id) = (copy.to.clone(), copy.request_id.clone());
        let who = Arc::clone(&self.identity);
        let stage = move |service: &Service| {
            let (plan, staged) = service.stage_copy(&who, &copy)?;
            Ok(service.commit_put(plan, staged))
        };
        let answer = |record: &_| written(record, &to);
        let copied = async { service.blocking(stage).await?.file().await };
        let copied = service.once(&self.identity, request_id.as_ref(), answer, copied);
        copied.await
    }

    async fn reconcile(&self, reconcile: Reconcile) -> Result<Reconciled, OpError> {
        let _slot = self.transfer_slot().await?;
        let who = Arc::clone(&self.identity);
        let service = &self.shared.service;
        let looked = service.blocking(move |s| s.reconcile(&who, &reconcile));
        let (drafts, reconciled) = looked.await?;
        service.record_found(drafts).await?;
        Ok(reconciled)
    }

    /// A slot for a body; waited for within a limit.
    async fn transfer_slot(&self) -> Result<tokio::sync::OwnedSemaphorePermit, OpError> {
        let slot = Arc::clone(&self.shared.transfers).acquire_owned();
        match timeout(self.shared.limits.stall_timeout, slot).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(OpError::ShuttingDown),
            Err(_) => Err(OpError::Busy),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            server: SOFTWARE.to_owned(),
            identity: self.identity.id.to_string(),
            expires_at: self.identity.expires_at,
            renew_after: Some(self.identity.renew_after()),
            time: Timestamp::now(),
            limits: crate::protocol::Limits {
                message_size_max: MESSAGE_SIZE_MAX as u64,
                data_size_max: DATA_SIZE_MAX as u64,
                file_size_max: self.shared.service.file_size_max(),
            },
            features: vec![FEATURE_ZSTD.to_owned()],
        }
    }
}

/// What whoever's certificate ended is told.
pub fn expired(at: Timestamp) -> ErrorReply {
    ErrorReply {
        code: ErrorCode::CertificateExpired,
        message: format!("your certificate expired {at}: connect with a new one"),
    }
}
