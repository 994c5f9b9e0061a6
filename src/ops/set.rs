//! Sets: several files in one record, all visible or none.
//!
//! What is staged for a set belongs to who staged it, until it is committed, forgotten for its age,
//! or the server ends.

use std::collections::HashSet;
use std::sync::Arc;

use super::put::check_attributes;
use super::repeat::{committed, only_file};
use super::staging::StagedContent;
use super::target::Target;
use super::{OpError, Service, draft};
use crate::content::{Attributes, ContentId, Stamp};
use crate::digest::Digest;
use crate::identity::Identity;
use crate::label::DedupId;
use crate::log::{Change, Condition, Draft, Entry, Matter, Sequence};
use crate::path::RemotePath;
use crate::policy::Action;
use crate::protocol::{Commit, Committed, Conditions, FileInfo, Member};

/// Files in one set.
pub(super) const MEMBERS_MAX: usize = 10_000;
/// Bytes of the list of a set's members.
pub const MEMBERS_SIZE_MAX: usize = 4 << 20;

/// A member whose rights are checked.
enum Planned {
    Put {
        target: Box<Target>,
        content: ContentId,
        digest: Option<Digest>,
        attributes: Option<Attributes>,
    },
    Remove {
        path: RemotePath,
        if_version: Option<u64>,
    },
}

impl Planned {
    const fn staged(&self) -> Option<ContentId> {
        match self {
            Self::Put { content, .. } => Some(*content),
            Self::Remove { .. } => None,
        }
    }
}

/// A set that is ready to be a draft.
#[derive(Default)]
struct PreparedSet {
    changes: Vec<Change>,
    conditions: Vec<Condition>,
    targets: Vec<Target>,
    staged: Vec<StagedContent>,
    uploads: Vec<ContentId>,
}

impl Service {
    /// Commits a set: each member under its own rights and conditions, all of them or none.
    ///
    /// # Errors
    /// A member is refused; then nothing was changed, and what was staged is gone. Uploads live on.
    pub async fn commit_set(
        self: &Arc<Self>,
        who: &Arc<Identity>,
        list: Vec<u8>,
        commit: Commit,
    ) -> Result<Committed, OpError> {
        let on_thread = Arc::clone(who);
        let plan = move |service: &Self| {
            let members = parse(&list)?;
            let planned = members
                .iter()
                .map(|member| service.plan_member(&on_thread, member));
            let planned = planned.collect::<Result<Vec<_>, _>>()?;
            Ok((members, planned))
        };
        let (members, planned) = self.blocking(plan).await?;
        let Some(request_id) = commit.request_id else {
            return self.commit_planned(who, planned, None).await;
        };
        let staged = planned
            .iter()
            .filter_map(Planned::staged)
            .collect::<Vec<_>>();
        let answer = |record: &_| committed(record, &members);
        let change = self.commit_planned(who, planned, Some(request_id.clone()));
        let done = self.once(who, Some(&request_id), answer, change).await?;
        // What was staged once more for a set that was there already is of no use.
        let owner = Arc::clone(who);
        let discard = move |service: &Self| {
            service.discard_staged(&owner, &staged);
            Ok(())
        };
        self.blocking(discard).await?;
        Ok(done)
    }

    async fn commit_planned(
        self: &Arc<Self>,
        who: &Arc<Identity>,
        planned: Vec<Planned>,
        request_id: Option<DedupId>,
    ) -> Result<Committed, OpError> {
        let on_thread = Arc::clone(who);
        let prepare = move |service: &Self| service.prepare_set(&on_thread, planned);
        let PreparedSet {
            changes,
            conditions,
            targets,
            staged,
            uploads,
        } = self.blocking(prepare).await?;
        let n_members = changes.len() as u64;
        let file = only_file(Sequence::default(), &changes);
        let draft = Draft {
            request_id,
            ..draft(who, Matter::Files(changes), conditions)
        };
        let staged = staged.into_iter().map(StagedContent::release).collect();
        let committed = self.committer.submit(draft, staged).answer().await;
        let (is_done, may_stand) = match &committed {
            Ok(_) => (true, true),
            Err(error) => (false, error.may_stand()),
        };
        let end_uploads = move |service: &Self| {
            for upload in uploads {
                if is_done {
                    service.end_upload(upload);
                } else if !may_stand {
                    service.reopen_upload(upload);
                }
            }
            Ok(())
        };
        self.blocking(end_uploads).await?;
        let sequence = committed.map_err(|error| {
            let error = OpError::from(error);
            targets
                .iter()
                .fold(error, |error, target| target.explain(error))
        })?;
        Ok(Committed {
            sequence: sequence.0,
            n_members,
            file: file.map(|file| FileInfo {
                version: Some(sequence.0),
                ..file
            }),
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
                    target: Box::new(target),
                    digest: member.digest,
                    attributes: check_attributes(member.attributes)?,
                    content: content.map_err(|_| wrong("\"staged\" is what stage answered"))?,
                })
            }
        }
    }

    fn prepare_set(&self, who: &Identity, planned: Vec<Planned>) -> Result<PreparedSet, OpError> {
        let mut set = PreparedSet::default();
        let mut planned = planned.into_iter();
        while let Some(member) = planned.next() {
            if let Err(error) = self.prepare_member(who, member, &mut set) {
                for upload in set.uploads {
                    self.reopen_upload(upload);
                }
                // As what was staged for the members before goes, so does that for those behind.
                let behind: Vec<_> = planned.filter_map(|member| member.staged()).collect();
                self.discard_staged(who, &behind);
                return Err(error);
            }
        }
        Ok(set)
    }

    fn prepare_member(
        &self,
        who: &Identity,
        member: Planned,
        set: &mut PreparedSet,
    ) -> Result<(), OpError> {
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
            Planned::Put {
                target,
                content,
                digest,
                attributes,
            } => {
                let (stamp, found) = self.hold(who, &target, content, digest, set)?;
                set.conditions.extend(target.log_conditions());
                set.changes.push(Change::Put {
                    path: target.path.clone(),
                    entry: Entry {
                        content,
                        stamp,
                        digest: Some(found),
                        attributes,
                    },
                });
                set.targets.push(*target);
            }
        }
        Ok(())
    }

    /// Takes a content into the set, staged or uploaded.
    fn hold(
        &self,
        who: &Identity,
        target: &Target,
        content: ContentId,
        digest: Option<Digest>,
        set: &mut PreparedSet,
    ) -> Result<(Stamp, Digest), OpError> {
        if let Some((sealed, digest)) = self.seal_upload(who, content, digest)? {
            set.uploads.push(content);
            return Ok((sealed.stamp, digest));
        }
        let kept = self.staged.take(&who.id, content);
        let kept = kept.ok_or_else(|| match digest {
            // What names an upload has a digest.
            Some(_) => OpError::NothingToPut(target.path.clone()),
            None => OpError::Member {
                path: target.path.clone(),
                reason: "what was staged for it is not there any more: stage it again",
            },
        })?;
        let (stamp, found) = (kept.sealed.stamp, kept.digest);
        set.staged.push(kept);
        match digest {
            Some(wanted) if wanted != found => Err(OpError::Mismatch {
                what: "the digest of what was staged",
                announced: wanted.to_string(),
                arrived: found.to_string(),
            }),
            _ => Ok((stamp, found)),
        }
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
