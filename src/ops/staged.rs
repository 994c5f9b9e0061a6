//! Contents that wait for their set.
//!
//! What is staged belongs to who staged it, until it is committed, forgotten for its age, or the server
//! ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::set::MEMBERS_MAX;
use super::staging::{Allowance, StagedContent, too_large};
use super::{OpError, Service};
use crate::content::ContentId;
use crate::identity::{Identity, SpiffeId};
use crate::path::Prefix;
use crate::policy::Action;
use crate::protocol::{Stage, Staged};

/// Contents that one identity has staged at a time.
const STAGED_PER_IDENTITY_MAX: usize = MEMBERS_MAX;
/// How long a content waits for its set.
const STAGED_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Contents that wait for their set.
#[derive(Default)]
pub(super) struct StagedContents(Mutex<HashMap<ContentId, Kept>>);

struct Kept {
    owner: SpiffeId,
    content: StagedContent,
    since: Instant,
}

impl StagedContents {
    fn kept(&self) -> MutexGuard<'_, HashMap<ContentId, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what has waited for too long.
    pub(super) fn expire(&self) {
        self.kept()
            .retain(|_, kept| kept.since.elapsed() < STAGED_LIFETIME);
    }

    pub(super) fn take(&self, owner: &SpiffeId, id: ContentId) -> Option<StagedContent> {
        let mut kept = self.kept();
        if kept.get(&id)?.owner != *owner {
            return None;
        }
        Some(kept.remove(&id)?.content)
    }
}

impl Service {
    /// Whether a content may be staged: for whoever may write some file.
    ///
    /// # Errors
    /// No grant covers any.
    pub fn plan_stage(&self, who: &Identity, stage: Stage) -> Result<Allowance, OpError> {
        let (policy, root) = (self.policy(), Prefix::root());
        let create = policy.check_directory(&who.id, Action::Create, &root);
        create.or_else(|denied| {
            let replace = policy.check_directory(&who.id, Action::Replace, &root);
            replace.map_err(|_| denied)
        })?;
        if let Some(size) = stage.size.filter(|size| *size > self.file_size_max) {
            return Err(too_large(size, self.file_size_max));
        }
        Ok(Allowance {
            size: stage.size,
            size_max: self.file_size_max,
        })
    }

    /// Keeps a content for a set.
    ///
    /// # Errors
    /// The identity has too many.
    pub fn keep_staged(&self, who: &Identity, content: StagedContent) -> Result<Staged, OpError> {
        let id = content.sealed.content;
        let staged = Staged {
            staged: id.to_string(),
            size: content.size(),
            digest: content.digest,
        };
        let mut kept = self.staged.kept();
        let n_own = kept.values().filter(|kept| kept.owner == who.id).count();
        if n_own >= STAGED_PER_IDENTITY_MAX {
            return Err(too_many_staged());
        }
        let (owner, since) = (who.id.clone(), Instant::now());
        kept.insert(
            id,
            Kept {
                owner,
                content,
                since,
            },
        );
        Ok(staged)
    }

    /// Removes contents that this identity has staged; others are passed over. Blocks.
    pub(super) fn discard_staged(&self, who: &Identity, contents: &[ContentId]) {
        for content in contents {
            drop(self.staged.take(&who.id, *content));
        }
    }

    /// The same as [`Service::keep_staged`] for several; each that is one too many is refused for itself.
    pub(super) fn keep_all_staged(
        &self,
        who: &Identity,
        contents: Vec<StagedContent>,
    ) -> Vec<Result<ContentId, OpError>> {
        let mut kept = self.staged.kept();
        let mut n_own = kept.values().filter(|kept| kept.owner == who.id).count();
        let since = Instant::now();
        let keep = contents.into_iter().map(|content| {
            if n_own >= STAGED_PER_IDENTITY_MAX {
                return Err(too_many_staged());
            }
            n_own += 1;
            let (id, owner) = (content.sealed.content, who.id.clone());
            let content = Kept {
                owner,
                content,
                since,
            };
            kept.insert(id, content);
            Ok(id)
        });
        keep.collect()
    }
}

fn too_many_staged() -> OpError {
    OpError::TooMany {
        what: "staged contents of one identity",
        n_max: STAGED_PER_IDENTITY_MAX,
    }
}
