//! What can be done for a peer.
//!
//! Every operation asks the policy first and works with the names inside the permit. Operations
//! block and belong on a blocking thread, but for the wait for a commit.

mod admin;
mod append;
mod call;
mod commit;
mod cursor_reader;
mod cursors;
mod delta;
mod error;
mod event;
mod feed;
mod gather;
mod job;
mod many;
mod many_read;
mod message;
mod name;
mod pending;
mod prepare;
mod publication;
mod put;
mod read;
mod reader;
mod reconcile;
mod recovery;
mod repeat;
mod set;
mod settle;
mod staged;
mod staging;
mod still;
mod tail;
mod target;
mod topic;
mod upkeep;
mod upload;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use target::Target;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

pub use append::Appending;
pub use call::CallPlan;
pub use error::OpError;
pub use feed::Item;
pub use job::CommitError;
pub use many::{ManyPuts, Puts};
pub use message::{INLINE_SIZE_MAX, LINES_SIZE_MAX, PublishPlan, Publishing};
pub use put::{Committing, PutPlan};
pub use read::OpenFile;
pub use reader::{Reader, Taken};
pub use recovery::{Recovered, RecoveryError};
pub use repeat::written;
pub use set::MEMBERS_SIZE_MAX;
pub use staging::{Allowance, StagedContent, Staging, check_trailer};
pub use still::Still;
pub use upkeep::Upkeep;
pub use upload::UploadWriter;

use crate::identity::Identity;
use crate::index::Index;
use crate::label::CursorName;
use crate::log::cursors::{CursorKey, Cursors};
use crate::log::{Condition, Draft, Log, Matter, Sequence};
use crate::policy::Policy;
use crate::protocol::{Ack, Question, Verdict, Whoami};
use crate::store::Store;
use crate::topics::Topics;

/// Operations at a time that block the thread they are called on. Each needs a stand-in from the
/// blocking pool; if that were used up, nothing would move.
const IN_PLACE_MAX: usize = 4;

/// The parts that hold all state.
#[derive(Clone)]
pub struct Parts {
    pub log: Arc<dyn Log>,
    pub index: Arc<dyn Index>,
    pub store: Arc<dyn Store>,
    pub cursors: Arc<dyn Cursors>,
}

/// What a service is told about files and uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of a file.
    pub file_size_max: u64,
    /// How long an upload lives after its last part.
    pub keep_uploads: Duration,
}

/// The operations, over their parts.
pub struct Service {
    parts: Parts,
    policy: RwLock<Arc<Policy>>,
    topics: Arc<Topics>,
    committer: commit::Committer,
    tail: Arc<tail::Tail>,
    cursors: cursors::OpenCursors,
    calls: call::Calls,
    staged: staged::StagedContents,
    uploads: upload::Uploads,
    running: repeat::Running,
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
        topics: Arc<Topics>,
        bounds: Bounds,
    ) -> Result<(Self, Recovered), RecoveryError> {
        let (recovered, uploads) = recovery::recover(&parts, bounds.keep_uploads)?;
        let tail = Arc::new(tail::Tail::new(recovered.head));
        let committer = commit::Committer::start(parts.clone(), recovered.head, Arc::clone(&tail));
        let cursors = cursors::OpenCursors::open(Arc::clone(&parts.cursors))?;
        Ok((
            Self {
                parts,
                policy: RwLock::new(Arc::new(policy)),
                topics,
                committer,
                tail,
                cursors,
                calls: call::Calls::default(),
                staged: staged::StagedContents::default(),
                uploads,
                running: repeat::Running::default(),
                file_size_max: bounds.file_size_max,
                in_place: Semaphore::new(IN_PLACE_MAX),
            },
            recovered,
        ))
    }

    /// Most bytes of a file.
    pub const fn file_size_max(&self) -> u64 {
        self.file_size_max
    }

    /// The last record that readers can see.
    pub fn head(&self) -> u64 {
        self.tail.head().0
    }

    /// The policy that holds now.
    fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&policy)
    }

    /// From here on another policy holds, for readers that are here too.
    pub fn replace_policy(&self, policy: Policy) {
        let mut held = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(policy);
    }

    /// Takes what a reader says it is done with.
    ///
    /// # Errors
    /// There is no such cursor, or no such record yet.
    pub fn acknowledge(&self, who: &Identity, ack: &Ack) -> Result<(), OpError> {
        let sequence = Sequence(ack.sequence);
        if sequence > self.tail.head() {
            return Err(OpError::NotGiven(sequence));
        }
        let key = cursor_key(who, &ack.cursor);
        self.cursors.acknowledge(&key, sequence)
    }

    /// Takes a cursor away. Blocks.
    ///
    /// # Errors
    /// There is no such cursor, or the log failed.
    pub fn forget(&self, who: &Identity, cursor: &CursorName) -> Result<(), OpError> {
        self.cursors.forget(&cursor_key(who, cursor))
    }

    /// Whether something would be allowed. Everybody may ask about themselves.
    ///
    /// # Errors
    /// The question names no action, or nothing that can be acted on.
    pub fn can(&self, who: &Identity, question: &Question) -> Result<Verdict, OpError> {
        let answer = self
            .policy()
            .ask(&who.id, &question.action, &question.on)
            .map_err(OpError::Question)?;
        Ok(Verdict {
            allowed: answer.is_allowed,
            reason: answer.reason,
        })
    }

    /// Who the certificate says the peer is, and how much the policy has for it.
    pub fn whoami(&self, who: &Identity) -> Whoami {
        Whoami {
            identity: who.id.to_string(),
            serial: who.serial.clone(),
            ca: who.ca.clone(),
            expires_at: who.expires_at,
            n_grants: u64::try_from(self.policy().n_grants_to(&who.id)).ok(),
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
        let committed = self.committer.submit(draft, Vec::new()).answer().await;
        committed.map_err(|error| target.explain(error.into()))
    }
}

fn cursor_key(who: &Identity, name: &CursorName) -> CursorKey {
    CursorKey {
        identity: who.id.clone(),
        name: name.clone(),
    }
}

fn draft(who: &Identity, matter: Matter, conditions: Vec<Condition>) -> Draft {
    Draft {
        identity: who.id.clone(),
        time: Timestamp::now(),
        matter,
        conditions,
        request_id: None,
    }
}
