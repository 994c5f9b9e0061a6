//! What can be done for a peer.
//!
//! Every operation asks the policy first and works with the names inside the permit. Operations
//! block and belong on a blocking thread, but for the wait for a commit.

mod commit;
mod error;
mod name;
mod pending;
mod put;
mod read;
mod recovery;
mod target;

use std::sync::Arc;

use jiff::Timestamp;
use target::Target;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

pub use commit::CommitError;
pub use error::OpError;
pub use put::{Committing, PutPlan, Ready, Staging};
pub use read::OpenFile;
pub use recovery::{Recovered, RecoveryError};

use crate::identity::Identity;
use crate::index::Index;
use crate::log::{Change, Condition, Draft, Log, Sequence};
use crate::policy::Policy;
use crate::protocol::{Question, Verdict, Whoami};
use crate::store::Store;

/// Operations at a time that block the thread they are called on. Each needs a stand-in from the
/// blocking pool; if that were used up, nothing would move.
const IN_PLACE_MAX: usize = 4;

/// The parts that hold all state.
#[derive(Clone)]
pub struct Parts {
    pub log: Arc<dyn Log>,
    pub index: Arc<dyn Index>,
    pub store: Arc<dyn Store>,
}

/// The operations, over their parts.
pub struct Service {
    parts: Parts,
    policy: Policy,
    committer: commit::Committer,
    file_size_max: u64,
    /// Slots for operations that block the thread they are called on.
    in_place: Semaphore,
}

impl Service {
    /// Makes the tree say what the log says, then takes requests.
    ///
    /// # Errors
    /// A part failed while the last run's work was finished.
    pub fn open(
        parts: Parts,
        policy: Policy,
        file_size_max: u64,
    ) -> Result<(Self, Recovered), RecoveryError> {
        let recovered = recovery::recover(&parts)?;
        let committer = commit::Committer::start(parts.clone(), recovered.head);
        Ok((
            Self {
                parts,
                policy,
                committer,
                file_size_max,
                in_place: Semaphore::new(IN_PLACE_MAX),
            },
            recovered,
        ))
    }

    /// Most bytes of a file.
    pub const fn file_size_max(&self) -> u64 {
        self.file_size_max
    }

    /// Whether something would be allowed. Everybody may ask about themselves.
    ///
    /// # Errors
    /// The question names no action, or nothing that can be acted on.
    pub fn can(&self, who: &Identity, question: &Question) -> Result<Verdict, OpError> {
        let answer = self
            .policy
            .ask(&who.id, &question.action, &question.on)
            .map_err(OpError::Question)?;
        Ok(Verdict {
            allowed: answer.is_allowed,
            reason: answer.reason,
        })
    }

    /// Who the certificate says the peer is.
    pub fn whoami(who: &Identity) -> Whoami {
        Whoami {
            identity: who.id.to_string(),
            serial: who.serial.clone(),
            ca: who.ca.clone(),
            expires_at: who.expires_at,
        }
    }

    /// Runs a blocking operation beside the runtime: on the calling thread, which another one then
    /// stands in for, or, beyond a few at a time, on a thread of the blocking pool.
    ///
    /// # Errors
    /// Those of the operation, or its thread panicked.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        operation: impl FnOnce(&Self) -> Result<T, OpError> + Send + 'static,
    ) -> Result<T, OpError> {
        if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
            && let Ok(_slot) = self.in_place.try_acquire()
        {
            return tokio::task::block_in_place(|| operation(self));
        }
        let service = Arc::clone(self);
        let thread = tokio::task::spawn_blocking(move || operation(&service));
        thread.await.map_err(|_| OpError::ThreadLost)?
    }

    /// Commits a draft that writes to `target` and publishes nothing staged.
    ///
    /// # Errors
    /// A condition does not hold, or a part failed.
    async fn commit(&self, draft: Draft, target: &Target) -> Result<Sequence, OpError> {
        let committed = self.committer.submit(draft, None).answer().await;
        committed.map_err(|error| target.explain(error.into()))
    }
}

fn draft(who: &Identity, changes: Vec<Change>, conditions: Vec<Condition>) -> Draft {
    Draft {
        identity: who.id.clone(),
        time: Timestamp::now(),
        changes,
        conditions,
    }
}
