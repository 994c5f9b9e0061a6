//! Changing names: remove and move.

use std::sync::Arc;

use super::repeat::{file_of, moved, removed};
use super::target::Target;
use super::{OpError, Service, draft};
use crate::content::{ContentId, Stamp};
use crate::identity::Identity;
use crate::log::{Change, Condition, Conflict, Draft, Entry, Matter, Sequence};
use crate::path::RemotePath;
use crate::policy::Action;
use crate::protocol::{Conditions, FileInfo, Move, Remove, Removed};

/// How often an unconditional change is tried again when another was faster.
const ATTEMPTS_MAX: usize = 16;

impl Service {
    /// Removes a file.
    ///
    /// # Errors
    /// No grant covers it, it is not there, or a condition does not hold.
    pub async fn remove(
        self: &Arc<Self>,
        who: &Identity,
        request: &Remove,
    ) -> Result<Removed, OpError> {
        let permit = self
            .policy()
            .authorize(who, Action::Delete, &request.path)?;
        let path = permit.resource();
        let answer = |record: &_| removed(record, path);
        let remove = self.remove_now(who, path, request);
        self.once(who, request.request_id.as_ref(), answer, remove)
            .await
    }

    async fn remove_now(
        self: &Arc<Self>,
        who: &Identity,
        path: &RemotePath,
        request: &Remove,
    ) -> Result<Removed, OpError> {
        for _ in 0..ATTEMPTS_MAX {
            let looked_at = path.clone();
            let found = self
                .blocking(move |service| service.stat_settled(&looked_at))
                .await?;
            let stamp = Stamp {
                size: found.size,
                modified: found.modified,
            };
            let conditions = from_conditions(path, request.if_version, &found);
            let change = Change::Remove {
                path: path.clone(),
                stamp,
            };
            let draft = Draft {
                request_id: request.request_id.clone(),
                ..draft(who, Matter::Files(vec![change]), conditions)
            };
            match self
                .committer
                .submit(draft, Vec::new())
                .answer()
                .await
                .map_err(OpError::from)
            {
                Ok(sequence) => {
                    return Ok(Removed {
                        path: path.clone(),
                        sequence: sequence.0,
                    });
                }
                Err(error) if request.if_version.is_none() && is_overtaken(&error, path) => {}
                Err(error) => return Err(error),
            }
        }
        Err(OpError::Unsettled(path.clone()))
    }

    /// Gives a file another name: `read` and `delete` on the old one, the rights of a put on the new
    /// one, so that a move is no way round them.
    ///
    /// # Errors
    /// No grant covers it, it is not there, or a condition does not hold.
    pub async fn rename(
        self: &Arc<Self>,
        who: &Identity,
        request: &Move,
    ) -> Result<FileInfo, OpError> {
        let permit = self.policy().authorize(who, Action::Read, &request.from)?;
        self.policy()
            .authorize(who, Action::Delete, &request.from)?;
        let from = permit.resource();
        let target = self.target(
            who,
            &request.to,
            Conditions {
                if_absent: request.if_absent,
                if_version: None,
            },
        )?;
        if request.from == request.to {
            return Err(OpError::BadRequest("a file cannot be moved onto itself"));
        }
        let answer = |record: &_| moved(record, from, &target.path);
        let rename = self.rename_now(from, &target, request);
        self.once(who, request.request_id.as_ref(), answer, rename)
            .await
    }

    async fn rename_now(
        self: &Arc<Self>,
        from: &RemotePath,
        target: &Target,
        request: &Move,
    ) -> Result<FileInfo, OpError> {
        for _ in 0..ATTEMPTS_MAX {
            let looked_at = from.clone();
            let (found, entry) = self
                .blocking(move |service| service.moved_entry(&looked_at))
                .await?;
            let mut conditions = from_conditions(from, request.if_version, &found);
            conditions.extend(target.log_conditions());
            let change = Change::Move {
                from: from.clone(),
                to: target.path.clone(),
                entry: entry.clone(),
            };
            let draft = Draft {
                request_id: request.request_id.clone(),
                ..draft(&target.who, Matter::Files(vec![change]), conditions)
            };
            match self.commit(draft, target).await {
                Ok(sequence) => return Ok(file_of(sequence, &target.path, &entry)),
                Err(error) if request.if_version.is_none() && is_overtaken(&error, from) => {}
                Err(error) => return Err(error),
            }
        }
        Err(OpError::Unsettled(from.clone()))
    }

    /// What a move records of a file, known to the log or not.
    fn moved_entry(&self, from: &RemotePath) -> Result<(FileInfo, Entry), OpError> {
        let found = self.stat_settled(from)?;
        let indexed = self.parts.index.lookup(from).map_err(OpError::Index)?;
        let stamp = Stamp {
            size: found.size,
            modified: found.modified,
        };
        let entry = match indexed {
            Some(indexed) if indexed.entry.stamp == stamp => indexed.entry,
            _ => Entry {
                content: new_content_id()?,
                stamp,
                digest: None,
                attributes: None,
            },
        };
        Ok((found, entry))
    }
}

/// The file that was looked at must still be the one there when the change is made.
fn from_conditions(path: &RemotePath, wanted: Option<u64>, found: &FileInfo) -> Vec<Condition> {
    let version = wanted.or(found.version);
    version
        .map(|version| Condition::Version(path.clone(), Sequence(version)))
        .into_iter()
        .collect()
}

/// Whether another commit was faster: an unconditional change looks again.
fn is_overtaken(error: &OpError, from: &RemotePath) -> bool {
    matches!(error, OpError::Conflict(Conflict::Changed { path, .. } | Conflict::Gone { path, .. }) if path == from)
}

/// An id for a content that was not staged here.
fn new_content_id() -> Result<ContentId, OpError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| OpError::ThreadLost)?;
    Ok(ContentId::from_random(bytes))
}
