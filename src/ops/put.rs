//! Putting a file: plan, stage, seal, commit.
//!
//! Each step gives what the next one needs, and only a permit gives the first. Whatever is dropped on
//! the way leaves nothing behind.

use super::job::{CommitError, Waiting};
use super::repeat::{file_of, written};
use super::staging::{Allowance, StagedContent, too_large};
use super::target::Target;
use super::{OpError, Service, draft};
use crate::content::Attributes;
use crate::identity::Identity;
use crate::label::DedupId;
use crate::log::{Change, Draft, Entry, Matter};
use crate::policy::Action;
use crate::protocol::{Conditions, Copy, FileInfo, Get, Put, Trailer};

/// All permission bits.
const MODE_MAX: u32 = 0o777;

/// A permitted put, before its body. Only a permit makes one.
#[derive(Debug)]
pub struct PutPlan {
    pub(super) target: Target,
    allowance: Allowance,
    attributes: Option<Attributes>,
    request_id: Option<DedupId>,
    /// A repetition has the same bytes; a copy may find others.
    pub(super) is_same_content: bool,
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
    entry: Entry,
    is_same_content: bool,
}

impl Committing {
    /// What the file is now.
    ///
    /// # Errors
    /// A condition does not hold, or a part failed.
    pub async fn file(self) -> Result<FileInfo, OpError> {
        let path = &self.target.path;
        match self.waiting.answer().await {
            Ok(sequence) => Ok(file_of(sequence, path, &self.entry)),
            Err(CommitError::Repeated(record)) => {
                let file = written(&record, path)?;
                if self.is_same_content && file.digest != self.entry.digest {
                    return Err(OpError::AnotherRequest(record.sequence));
                }
                Ok(file)
            }
            Err(error) => Err(self.target.explain(error.into())),
        }
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
            attributes: check_attributes(put.attributes)?,
            request_id: put.request_id.clone(),
            is_same_content: true,
            allowance: Allowance {
                size: put.size,
                size_max: self.file_size_max,
            },
        })
    }

    /// Commits what was put, or hands it to the next batch; either way it happens, waited for or
    /// not. Blocks.
    pub fn commit_put(&self, plan: PutPlan, staged: StagedContent) -> Committing {
        let PutPlan {
            target,
            attributes,
            request_id,
            is_same_content,
            ..
        } = plan;
        let entry = Entry {
            content: staged.sealed.content,
            stamp: staged.sealed.stamp,
            digest: Some(staged.digest),
            attributes,
        };
        let change = Change::Put {
            path: target.path.clone(),
            entry: entry.clone(),
        };
        let matter = Matter::Files(vec![change]);
        let draft = Draft {
            request_id,
            ..draft(&target.who, matter, target.log_conditions())
        };
        let content = staged.release();
        let waiting = self.committer.submit_blocking(draft, vec![content]);
        Committing {
            waiting,
            target,
            entry,
            is_same_content,
        }
    }

    /// Whether a file may be copied: `read` on it, the rights of a put on the new name.
    ///
    /// # Errors
    /// No grant covers it.
    pub fn may_copy(&self, who: &Identity, request: &Copy) -> Result<(), OpError> {
        self.policy().authorize(who, Action::Read, &request.from)?;
        let conditions = Conditions {
            if_absent: request.if_absent,
            if_version: None,
        };
        self.target(who, &request.to, conditions).map(drop)
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
            attributes: None,
            request_id: request.request_id.clone(),
            encoding: None,
        };
        let source = Get {
            if_version: request.if_version,
            ..Get::whole(request.from.clone())
        };
        let source = self.open_file(who, &source)?;
        let mut plan = self.plan_put(who, &put)?;
        if request.from == request.to {
            return Err(OpError::BadRequest("a file cannot be copied onto itself"));
        }
        plan.allowance.size = Some(source.info.size);
        plan.attributes = source.info.attributes;
        plan.is_same_content = false;
        let mut staging = self.begin(plan.allowance)?;
        staging.copy(&source)?;
        let (size, digest) = (staging.size(), staging.digest());
        let staged = staging.seal(&Trailer::Whole { size, digest })?;
        Ok((plan, staged))
    }
}

/// What of a sender's attributes may be kept.
pub(super) fn check_attributes(
    attributes: Option<Attributes>,
) -> Result<Option<Attributes>, OpError> {
    match attributes.and_then(|attributes| attributes.mode) {
        Some(mode) if mode > MODE_MAX => Err(OpError::BadRequest(
            "a mode has nothing but permission bits: at most 511, which is 0o777",
        )),
        _ => Ok(attributes),
    }
}
