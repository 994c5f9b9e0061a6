//! Drafts on their way into the log, and what is said of each.

use thiserror::Error;
use tokio::sync::oneshot;

use super::Parts;
use crate::content::ContentId;
use crate::index::IndexError;
use crate::log::{Conflict, Draft, LogError, Record, Sequence};
use crate::path::RemotePath;
use crate::store::StoreError;

/// Why a commit was refused.
#[derive(Debug, Error)]
pub enum CommitError {
    #[error(transparent)]
    Conflict(Conflict),
    /// Nothing was changed; the first time the request made this record, which is published.
    #[error("the request was done already, by record {}", .0.sequence.0)]
    Repeated(Box<Record>),
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

impl CommitError {
    /// Whether the draft may be in the log all the same, to be published by the next start.
    pub(super) const fn may_stand(&self) -> bool {
        match self {
            Self::Store(StoreError::ReadOnly(_))
            | Self::Log(LogError::Unknown(_))
            | Self::Stopped => true,
            Self::Store(_)
            | Self::Log(_)
            | Self::Conflict(_)
            | Self::Repeated(_)
            | Self::Occupied(_)
            | Self::Index(_)
            | Self::QueueFull => false,
        }
    }
}

pub(super) type Answer = Result<Sequence, CommitError>;

/// What became of a draft.
pub(super) struct Outcome {
    pub(super) answer: Answer,
    /// Whether it is in the log, or may be: then what it publishes is no longer ours to discard.
    pub(super) may_stand: bool,
}

impl Outcome {
    pub(super) const fn refused(error: CommitError) -> Self {
        Self {
            answer: Err(error),
            may_stand: false,
        }
    }

    pub(super) const fn stands(answer: Answer) -> Self {
        Self {
            answer,
            may_stand: true,
        }
    }
}

/// Drafts on their way, each for itself.
pub(super) struct Job {
    pub(super) drafts: Vec<Draft>,
    /// What each draft publishes, in their order.
    pub(super) staged: Vec<Vec<ContentId>>,
    pub(super) answer: oneshot::Sender<Vec<Answer>>,
}

impl Job {
    pub(super) fn refuse(self, parts: &Parts, error: impl Fn() -> CommitError) {
        for staged in &self.staged {
            discard(parts, staged);
        }
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
