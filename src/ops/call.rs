//! Call and answer: a message that waits for its reply.
//!
//! The reply is a record like any other, and only the one who asked is given it. One reply is taken,
//! from somebody who may read the message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::message::PublishPlan;
use super::{OpError, Service, event};
use crate::identity::Identity;
use crate::log::{Matter, Payload, Record, Sequence};
use crate::policy::Action;
use crate::protocol::{Answer, Call, Event, Published};

/// How long a reply is waited for, if the client does not say.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that it may say.
const REPLY_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How long a very fast reply waits for the call that it answers to be known.
const CALL_GRACE: Duration = Duration::from_secs(1);
/// Calls that wait at a time.
const CALLS_MAX: usize = 10_000;

/// Who waits for replies.
#[derive(Default)]
pub(super) struct Calls {
    waiting: Mutex<HashMap<Sequence, oneshot::Sender<Record>>>,
    added: Notify,
}

/// A permitted call, before its content.
#[derive(Debug)]
pub struct CallPlan {
    message: PublishPlan,
    timeout: Duration,
}

/// Takes the waiting place away again.
struct Place<'a> {
    calls: &'a Calls,
    sequence: Sequence,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.calls.waiting().remove(&self.sequence);
    }
}

impl Calls {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Sequence, oneshot::Sender<Record>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, sequence: Sequence) -> Result<(Place<'_>, oneshot::Receiver<Record>), OpError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.len() >= CALLS_MAX {
            return Err(OpError::Busy);
        }
        waiting.insert(sequence, sender);
        drop(waiting);
        self.added.notify_waiters();
        let calls = self;
        Ok((Place { calls, sequence }, receiver))
    }

    /// Who waits for a reply to the message; waits a little, since the call may just be coming.
    async fn take(&self, sequence: Sequence) -> Option<oneshot::Sender<Record>> {
        let until = Instant::now() + CALL_GRACE;
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            if let Some(sender) = self.waiting().remove(&sequence) {
                return Some(sender);
            }
            timeout_at(until, added).await.ok()?;
        }
    }
}

impl CallPlan {
    /// The size that was announced.
    pub const fn size(&self) -> Option<u64> {
        self.message.size()
    }
}

impl Service {
    /// Whether a message that waits for its reply may be sent.
    ///
    /// # Errors
    /// No grant covers it, or it would wait for too long.
    pub fn plan_call(&self, who: &Identity, call: &Call) -> Result<CallPlan, OpError> {
        let mut message = self.plan_message(who, &call.topic, call.size)?;
        message.reply_wanted = true;
        let timeout = call.timeout.map_or(REPLY_TIMEOUT, Duration::from_secs);
        if timeout.is_zero() || timeout > REPLY_TIMEOUT_MAX {
            return Err(OpError::BadRequest(
                "a timeout is at least 1 second and at most 300",
            ));
        }
        Ok(CallPlan { message, timeout })
    }

    /// Sends the message and waits for the reply: its event and its content.
    ///
    /// # Errors
    /// It does not fit the topic's schema, nobody replied in time, or a part failed.
    pub async fn call(
        self: &Arc<Self>,
        plan: &CallPlan,
        content: Vec<u8>,
    ) -> Result<(Event, Vec<u8>), OpError> {
        let until = Instant::now() + plan.timeout;
        let publishing = self.publish(&plan.message, content).await?;
        let published = publishing.published().await?;
        let (_place, reply) = self.calls.enter(Sequence(published.sequence))?;
        let no_reply = || OpError::NoReply {
            topic: plan.message.topic().clone(),
            timeout: plan.timeout,
        };
        let reply = timeout_at(until, reply).await.map_err(|_| no_reply())?;
        let record = reply.map_err(|_| no_reply())?;
        let content = match record.matter.message().map(|message| &message.payload) {
            Some(Payload::Inline(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
        Ok((event::of_message(&record), content))
    }

    /// Whether a reply may be sent: `subscribe` on the topic of the message that asks. Blocks.
    ///
    /// # Errors
    /// No grant covers it, or it asks for none.
    pub fn plan_reply(&self, who: &Identity, answer: &Answer) -> Result<PublishPlan, OpError> {
        let to = Sequence(answer.to);
        let record = self.record(to)?.ok_or(OpError::NobodyWaits(to))?;
        let Matter::Message(message) = &record.matter else {
            return Err(OpError::NobodyWaits(to));
        };
        let policy = self.policy();
        let permit = policy.authorize(who, Action::Subscribe, &message.topic);
        let topic = permit
            .map_err(|_| OpError::NobodyWaits(to))?
            .resource()
            .clone();
        if !message.reply_wanted {
            return Err(OpError::NobodyWaits(to));
        }
        Ok(PublishPlan::reply(who, topic, to, answer.size))
    }

    /// Sends the reply to whoever waits for it.
    ///
    /// # Errors
    /// Nobody does, or a part failed.
    pub async fn reply(
        self: &Arc<Self>,
        plan: &PublishPlan,
        to: u64,
        content: &[u8],
    ) -> Result<Published, OpError> {
        let to = Sequence(to);
        let waiter = self.calls.take(to).await.ok_or(OpError::NobodyWaits(to))?;
        let draft = plan.draft(Payload::Inline(Arc::from(content)), None);
        let mut record = draft.clone().into_record(Sequence(0));
        match self.committer.submit(draft, Vec::new()).answer().await {
            Ok(sequence) => {
                record.sequence = sequence;
                // Whoever asked may be gone meanwhile; the reply stands.
                let _ = waiter.send(record);
                Ok(Published {
                    sequence: sequence.0,
                    duplicate: false,
                })
            }
            Err(error) => {
                if !waiter.is_closed() {
                    self.calls.waiting().insert(to, waiter);
                }
                Err(error.into())
            }
        }
    }
}
