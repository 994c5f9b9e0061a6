//! Drafts on their way into the log, and what is said of each.

use thiserror::Error;
use tokio::sync::oneshot;

use super::Parts;
use crate::content::ContentId;
use crate::index::IndexError;
use crate::log::{Conflict, Draft, LogError, Sequence};
use crate::path::RemotePath;
use crate::store::StoreError;

/// Why a commit was refused.
#[derive(Debug, Error)]
pub enum CommitError {
    #[error(transparent)]
    Conflict(Conflict),
    #[error("{0} is there already, put there by another program")]
    Occupied(RemotePath),
    #[error("the store failed")]
    Store(#[source] StoreError),
    #[error("the log failed")]
    Log(#[source] LogError),
    #[error("the index failed")]
    Index(#[source] IndexError),
    #[error("too many commits are waiting")]
    QueueFull,
    #[error("the service is stopping")]
    Stopped,
}

pub(super) type Answer = Result<Sequence, CommitError>;

/// Drafts on their way, each for itself.
pub(super) struct Job {
    pub(super) drafts: Vec<Draft>,
    /// What the draft publishes; a job with several drafts has nothing staged.
    pub(super) staged: Vec<ContentId>,
    pub(super) answer: oneshot::Sender<Vec<Answer>>,
}

impl Job {
    pub(super) fn refuse(self, parts: &Parts, error: impl Fn() -> CommitError) {
        discard(parts, &self.staged);
        let answers = self.drafts.iter().map(|_| Err(error())).collect();
        let _ = self.answer.send(answers);
    }
}

pub(super) fn discard(parts: &Parts, staged: &[ContentId]) {
    for content in staged {
        parts.store.discard(*content);
    }
}

/// Commits on their way.
pub(super) struct Waiting(pub(super) oneshot::Receiver<Vec<Answer>>);

impl Waiting {
    /// Which record the draft became.
    pub(super) async fn answer(self) -> Answer {
        let answers = self.answers().await?;
        answers
            .into_iter()
            .next()
            .unwrap_or(Err(CommitError::Stopped))
    }

    /// Which record each draft became.
    pub(super) async fn answers(self) -> Result<Vec<Answer>, CommitError> {
        self.0.await.map_err(|_| CommitError::Stopped)
    }
}
