//! A name that an identity may write to.
//!
//! What it may not do to a name that is taken becomes a condition of the append, so that `create`
//! without `replace` holds against every race and by every way.

use super::read::check_version;
use super::{OpError, Service};
use crate::identity::Identity;
use crate::log::{Condition, Conflict, Sequence};
use crate::path::RemotePath;
use crate::policy::Action;
use crate::protocol::{Conditions, FileInfo};

/// A name that an identity may write to, and under which conditions.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) path: RemotePath,
    pub(super) who: Identity,
    right: Right,
    pub(super) conditions: Conditions,
}

/// Which of the two rights to a name an identity has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Both,
    CreateOnly,
    ReplaceOnly,
}

impl Service {
    /// Whether an identity may write to a name, and what then has to hold.
    ///
    /// # Errors
    /// No grant covers it, or the conditions contradict each other.
    pub(super) fn target(
        &self,
        who: &Identity,
        path: &RemotePath,
        conditions: Conditions,
    ) -> Result<Target, OpError> {
        if conditions.if_absent && conditions.if_version.is_some() {
            return Err(OpError::BadRequest(
                "if_absent and if_version exclude each other",
            ));
        }
        let create = self.policy().authorize(who, Action::Create, path);
        let replace = self.policy().authorize(who, Action::Replace, path);
        let (permit, right) = match (create, replace) {
            (Ok(permit), Ok(_)) => (permit, Right::Both),
            (Ok(permit), Err(_)) => (permit, Right::CreateOnly),
            (Err(_), Ok(permit)) => (permit, Right::ReplaceOnly),
            (Err(denied), Err(_)) => return Err(denied.into()),
        };
        Ok(Target {
            path: permit.resource().clone(),
            who: who.clone(),
            right,
            conditions,
        })
    }
}

impl Target {
    /// What the append has to check.
    pub(super) fn log_conditions(&self) -> Vec<Condition> {
        let path = || self.path.clone();
        let mut conditions = Vec::new();
        if self.conditions.if_absent || self.right == Right::CreateOnly {
            conditions.push(Condition::Absent(path()));
        }
        if let Some(version) = self.conditions.if_version {
            conditions.push(Condition::Version(path(), Sequence(version)));
        }
        if self.right == Right::ReplaceOnly {
            conditions.push(Condition::Present(path()));
        }
        conditions
    }

    /// Whether the conditions hold for what is there now.
    ///
    /// # Errors
    /// They do not; what holds is said by the append.
    pub(super) fn look(&self, found: Option<&FileInfo>) -> Result<(), OpError> {
        let path = || self.path.clone();
        let refused = match found {
            Some(_) if self.conditions.if_absent || self.right == Right::CreateOnly => {
                OpError::Exists(path())
            }
            None if self.right == Right::ReplaceOnly => {
                OpError::Conflict(Conflict::Missing { path: path() })
            }
            found => match self.conditions.if_version.map(Sequence) {
                Some(wanted) => {
                    let found = found.and_then(|file| file.version).map(Sequence);
                    return check_version(&self.path, wanted, found).map_err(OpError::Conflict);
                }
                None => return Ok(()),
            },
        };
        Err(self.explain(refused))
    }

    /// A condition that the policy set is a denial; one that the client set is a conflict.
    pub(super) fn explain(&self, error: OpError) -> OpError {
        let on_target = match &error {
            OpError::Exists(path)
            | OpError::Conflict(Conflict::Exists { path, .. } | Conflict::Missing { path }) => {
                *path == self.path
            }
            _ => false,
        };
        let who = self.who.id.to_string();
        match self.right {
            Right::CreateOnly if on_target && !self.conditions.if_absent => OpError::CreateOnly {
                who,
                path: self.path.clone(),
            },
            Right::ReplaceOnly if on_target => OpError::ReplaceOnly {
                who,
                path: self.path.clone(),
            },
            _ => error,
        }
    }
}
