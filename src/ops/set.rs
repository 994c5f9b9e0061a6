//! Sets: several files in one record, all visible or none.
//!
//! What is staged for a set belongs to who staged it, until it is committed, forgotten for its age,
//! or the server ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::staging::{Allowance, StagedContent};
use super::target::Target;
use super::{OpError, Service, draft};
use crate::content::{ContentId, Stamp};
use crate::identity::{Identity, SpiffeId};
use crate::log::{Change, Condition, Entry, Matter, Sequence};
use crate::path::{Prefix, RemotePath};
use crate::policy::Action;
use crate::protocol::{Committed, Conditions, Member, Stage, Staged};

/// Files in one set.
const MEMBERS_MAX: usize = 10_000;
/// Bytes of the list of a set's members.
pub const MEMBERS_SIZE_MAX: usize = 4 << 20;
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

    fn take(&self, owner: &SpiffeId, id: ContentId) -> Option<StagedContent> {
        let mut kept = self.kept();
        if kept.get(&id)?.owner != *owner {
            return None;
        }
        Some(kept.remove(&id)?.content)
    }
}

/// A member whose rights are checked.
enum Planned {
    Put {
        target: Target,
        content: ContentId,
    },
    Remove {
        path: RemotePath,
        if_version: Option<u64>,
    },
}

/// A set that is ready to be a draft.
#[derive(Default)]
struct PreparedSet {
    changes: Vec<Change>,
    conditions: Vec<Condition>,
    targets: Vec<Target>,
    staged: Vec<StagedContent>,
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
            return Err(super::staging::too_large(size, self.file_size_max));
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
            return Err(OpError::TooMany {
                what: "staged contents of one identity",
                n_max: STAGED_PER_IDENTITY_MAX,
            });
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

    /// Commits a set: each member under its own rights and conditions, all of them or none.
    ///
    /// # Errors
    /// A member is refused; then nothing was changed, and what was staged is gone.
    pub async fn commit_set(
        self: &Arc<Self>,
        who: &Arc<Identity>,
        list: Vec<u8>,
    ) -> Result<Committed, OpError> {
        let on_thread = Arc::clone(who);
        let prepare = move |service: &Self| {
            let members = parse(&list)?;
            let planned = members
                .iter()
                .map(|member| service.plan_member(&on_thread, member));
            let planned = planned.collect::<Result<_, _>>()?;
            service.prepare_set(&on_thread, planned)
        };
        let PreparedSet {
            changes,
            conditions,
            targets,
            staged,
        } = self.blocking(prepare).await?;
        let n_members = changes.len() as u64;
        let draft = draft(who, Matter::Files(changes), conditions);
        let staged = staged.into_iter().map(StagedContent::release).collect();
        let committed = self.committer.submit(draft, staged).answer().await;
        let sequence = committed.map_err(|error| {
            let error = OpError::from(error);
            targets
                .iter()
                .fold(error, |error, target| target.explain(error))
        })?;
        Ok(Committed {
            sequence: sequence.0,
            n_members,
        })
    }

    fn plan_member(&self, who: &Identity, member: &Member) -> Result<Planned, OpError> {
        let wrong = |reason| OpError::Member {
            path: member.path.clone(),
            reason,
        };
        match (&member.staged, member.remove) {
            (Some(_), true) | (None, false) => Err(wrong("it has either \"staged\" or \"remove\"")),
            (None, true) if member.if_absent => Err(wrong("what is removed cannot be absent")),
            (None, true) => {
                let policy = self.policy();
                let permit = policy.authorize(who, Action::Delete, &member.path)?;
                Ok(Planned::Remove {
                    path: permit.resource().clone(),
                    if_version: member.if_version,
                })
            }
            (Some(staged), false) => {
                let conditions = Conditions {
                    if_absent: member.if_absent,
                    if_version: member.if_version,
                };
                let target = self.target(who, &member.path, conditions)?;
                let content = staged.parse();
                Ok(Planned::Put {
                    target,
                    content: content.map_err(|_| wrong("\"staged\" is what stage answered"))?,
                })
            }
        }
    }

    fn prepare_set(&self, who: &Identity, planned: Vec<Planned>) -> Result<PreparedSet, OpError> {
        let mut set = PreparedSet::default();
        for member in planned {
            match member {
                Planned::Remove { path, if_version } => {
                    let found = self.stat_settled(&path)?;
                    let version = if_version.or(found.version).map(Sequence);
                    set.conditions
                        .extend(version.map(|v| Condition::Version(path.clone(), v)));
                    let stamp = Stamp {
                        size: found.size,
                        modified: found.modified,
                    };
                    set.changes.push(Change::Remove { path, stamp });
                }
                Planned::Put { target, content } => {
                    let kept = self.staged.take(&who.id, content).ok_or(OpError::Member {
                        path: target.path.clone(),
                        reason: "what was staged for it is not there any more: stage it again",
                    })?;
                    set.conditions.extend(target.log_conditions());
                    set.changes.push(Change::Put {
                        path: target.path.clone(),
                        entry: Entry {
                            content,
                            stamp: kept.sealed.stamp,
                            digest: Some(kept.digest),
                        },
                    });
                    set.targets.push(target);
                    set.staged.push(kept);
                }
            }
        }
        Ok(set)
    }
}

fn parse(list: &[u8]) -> Result<Vec<Member>, OpError> {
    let list = list.strip_suffix(b"\n").unwrap_or(list);
    let mut members = Vec::new();
    let mut paths = HashSet::new();
    for (line, number) in list.split(|byte| *byte == b'\n').zip(1..) {
        let member = Member::decode(line).map_err(|error| OpError::MemberLine {
            line: number,
            error: error.to_string(),
        })?;
        if !paths.insert(member.path.clone()) {
            return Err(OpError::Member {
                path: member.path,
                reason: "it stands twice in the set",
            });
        }
        members.push(member);
        if members.len() > MEMBERS_MAX {
            return Err(OpError::TooMany {
                what: "members of a set",
                n_max: MEMBERS_MAX,
            });
        }
    }
    Ok(members)
}
