//! Putting a file: plan, stage, seal, commit.
//!
//! Each step gives what the next one needs, and only a permit gives the first. Whatever is dropped on
//! the way leaves nothing behind.

use super::job::Waiting;
use super::staging::{Allowance, StagedContent, too_large};
use super::target::Target;
use super::{OpError, Service, draft};
use crate::digest::Digest;
use crate::identity::Identity;
use crate::log::{Change, Conflict, Entry, Matter, Sequence};
use crate::path::RemotePath;
use crate::protocol::{Copy, FileInfo, Get, Put, Trailer};
use crate::store::{Sealed, StoreError};

/// Bytes that a copy on the server reads at a time.
const COPY_PIECE_SIZE: usize = 256 << 10;

/// A permitted put, before its body. Only a permit makes one.
#[derive(Debug)]
pub struct PutPlan {
    target: Target,
    allowance: Allowance,
}

impl PutPlan {
    /// What may be staged for it.
    pub const fn allowance(&self) -> Allowance {
        self.allowance
    }
}

/// A put on its way into the log.
pub struct Committing {
    waiting: Waiting,
    target: Target,
    sealed: Sealed,
    digest: Digest,
}

impl Committing {
    /// What the file is now.
    ///
    /// # Errors
    /// A condition does not hold, or a part failed.
    pub async fn file(self) -> Result<FileInfo, OpError> {
        let sequence = self
            .waiting
            .answer()
            .await
            .map_err(|error| self.target.explain(error.into()))?;
        Ok(FileInfo {
            path: self.target.path,
            size: self.sealed.stamp.size,
            modified: self.sealed.stamp.modified,
            version: Some(sequence.0),
            digest: Some(self.digest),
        })
    }
}

impl Service {
    /// Whether a put may begin.
    ///
    /// # Errors
    /// No grant covers it, or its conditions or size cannot be met.
    pub fn plan_put(&self, who: &Identity, put: &Put) -> Result<PutPlan, OpError> {
        let target = self.target(who, &put.path, put.conditions())?;
        if let Some(size) = put.size.filter(|size| *size > self.file_size_max) {
            return Err(too_large(size, self.file_size_max));
        }
        Ok(PutPlan {
            target,
            allowance: Allowance {
                size: put.size,
                size_max: self.file_size_max,
            },
        })
    }

    /// Commits what was put, or hands it to the next batch; either way it happens, waited for or
    /// not. Blocks.
    pub fn commit_put(&self, plan: PutPlan, staged: StagedContent) -> Committing {
        let PutPlan { target, .. } = plan;
        let (sealed, digest) = (staged.sealed, staged.digest);
        let entry = Entry {
            content: sealed.content,
            stamp: sealed.stamp,
            digest: Some(digest),
        };
        let change = Change::Put {
            path: target.path.clone(),
            entry,
        };
        let matter = Matter::Files(vec![change]);
        let draft = draft(&target.who, matter, target.log_conditions());
        let content = staged.release();
        let waiting = self.committer.submit_blocking(draft, vec![content]);
        Committing {
            waiting,
            target,
            sealed,
            digest,
        }
    }

    /// Stages the content of another file: `read` on it, the rights of a put on the new name. Blocks.
    ///
    /// # Errors
    /// No grant covers it, it is not there or not at the version asked for, or the disk failed.
    pub fn stage_copy(
        &self,
        who: &Identity,
        request: &Copy,
    ) -> Result<(PutPlan, StagedContent), OpError> {
        let put = Put {
            path: request.to.clone(),
            size: None,
            if_absent: request.if_absent,
            if_version: None,
        };
        let source = self.open_file(
            who,
            &Get {
                path: request.from.clone(),
            },
        )?;
        let mut plan = self.plan_put(who, &put)?;
        if request.from == request.to {
            return Err(OpError::BadRequest("a file cannot be copied onto itself"));
        }
        if let Some(wanted) = request.if_version
            && source.info.version != Some(wanted)
        {
            return Err(OpError::Conflict(version_conflict(
                &request.from,
                wanted,
                source.info.version,
            )));
        }
        plan.allowance.size = Some(source.info.size);
        let mut staging = self.begin(plan.allowance)?;
        let mut buffer = vec![0; COPY_PIECE_SIZE];
        while staging.size() < source.info.size {
            let n = source.content.read_at(&mut buffer, staging.size());
            let n = n.map_err(|source| {
                OpError::Store(StoreError::Io {
                    during: "reading a file",
                    source,
                })
            })?;
            if n == 0 {
                return Err(OpError::Unsettled(request.from.clone()));
            }
            staging.write(&buffer[..n])?;
        }
        let (size, digest) = (staging.size(), staging.digest());
        if let Some(known) = source.info.digest.filter(|known| *known != digest) {
            let (announced, arrived) = (known.to_string(), digest.to_string());
            return Err(OpError::Mismatch {
                what: "the stored file's digest",
                announced,
                arrived,
            });
        }
        let staged = staging.seal(&Trailer::Whole { size, digest })?;
        Ok((plan, staged))
    }
}

fn version_conflict(path: &RemotePath, wanted: u64, found: Option<u64>) -> Conflict {
    let (path, wanted) = (path.clone(), Sequence(wanted));
    match found {
        Some(found) => Conflict::Changed {
            path,
            found: Sequence(found),
            wanted,
        },
        None => Conflict::Gone { path, wanted },
    }
}
