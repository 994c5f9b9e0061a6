//! Whether a session may go on: the verdict of whoever watches over certificates.
//!
//! The first verdict counts and is final. A session hears of it wherever it waits; a body that is taken
//! is broken off at once, one that is sent is given time to end with the reason.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ops::{OpError, Service, Still};
use crate::protocol::{ErrorCode, ErrorReply};

/// How long a body that is sent may take to come to its abort: then it is cut.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a session may take to say why it ends.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the policy is asked again while a body moves.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// The standing of one session.
#[derive(Debug)]
pub struct Standing {
    verdict: OnceLock<ErrorReply>,
    /// Cancelled with the verdict.
    over: CancellationToken,
    /// Cancelled some time after it.
    cut: CancellationToken,
}

impl Standing {
    /// A session that may go on until `stop`.
    pub fn new(stop: &CancellationToken) -> Self {
        Self {
            verdict: OnceLock::new(),
            over: stop.child_token(),
            cut: stop.child_token(),
        }
    }

    /// Ends the session, for this reason; says whether it had not ended before.
    pub fn end(&self, why: ErrorReply) -> bool {
        let is_first = self.verdict.set(why).is_ok();
        self.over.cancel();
        is_first
    }

    /// Waits for the verdict, and as long as a session may take to end by itself.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub async fn outlived(&self) {
        self.over.cancelled().await;
        if self.verdict().is_none() {
            // The server stops: it looks after its sessions itself.
            return std::future::pending().await;
        }
        sleep(ABORT_TIMEOUT).await;
        self.cut.cancel();
        sleep(END_TIMEOUT).await;
    }

    /// Why the session is to end, if it is.
    pub fn verdict(&self) -> Option<&ErrorReply> {
        self.verdict.get()
    }

    /// Waits until the session is to end.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Ends threads that take a body.
    pub(super) const fn stop_taking(&self) -> &CancellationToken {
        &self.over
    }

    /// Ends threads that send a body.
    pub(super) const fn stop_sending(&self) -> &CancellationToken {
        &self.cut
    }
}

/// Looks at the standing and the rights of a session while a thread moves a body for it.
pub(super) struct Watch {
    standing: Arc<Standing>,
    service: Arc<Service>,
    still: Still,
    looked_at: Instant,
}

impl Watch {
    pub(super) fn new(standing: &Arc<Standing>, service: &Arc<Service>, still: Still) -> Self {
        Self {
            standing: Arc::clone(standing),
            service: Arc::clone(service),
            still,
            looked_at: Instant::now(),
        }
    }

    /// Asks the policy, if it was not asked just now.
    ///
    /// # Errors
    /// What is done is not allowed any more.
    pub(super) fn look(&mut self) -> Result<(), OpError> {
        if self.looked_at.elapsed() < LOOK_PERIOD {
            return Ok(());
        }
        self.looked_at = Instant::now();
        self.still.ask(&self.service)
    }

    /// Why a body that is sent is to be broken off, if it is.
    pub(super) fn abort(&mut self) -> Option<ErrorCode> {
        if let Some(why) = self.standing.verdict() {
            return Some(why.code);
        }
        self.look().err().map(|error| error.reply().code)
    }
}
