//! What new clients change in the policy: looked at first, written before their certificates.
//!
//! Interrupted in between, a certificate without its grant would look like a grant that was taken
//! away.

use super::PkiError;
use super::disk::{self, Disk, Over};
use super::layout::{Layout, PUBLIC};
use super::name::{ClientName, TrustDomain};
use super::policy_file::{self, Change};
use super::report::{PolicyItem, PolicyState};

/// What is to be done about the policy.
pub(super) struct PolicyPlan {
    state: PolicyState,
    text: Option<(String, Over)>,
}

impl PolicyPlan {
    /// What the policy needs, given the clients that were there before and those that should be.
    pub(super) fn new(
        layout: &Layout,
        domain: &TrustDomain,
        is_signer: bool,
        before: &[ClientName],
        wanted: &[ClientName],
    ) -> Result<Self, PkiError> {
        let is_new = |name: &&ClientName| !before.contains(name);
        let new: Vec<ClientName> = wanted.iter().filter(is_new).cloned().collect();
        let (state, text) = match disk::read(&layout.policy())? {
            None if !is_signer => (PolicyState::Missing, None),
            None => {
                let text = policy_file::render(domain, wanted);
                (PolicyState::Made, Some((text, Over::Nothing)))
            }
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                match policy_file::extend(&text, domain, before, &new) {
                    Change::None => (PolicyState::Kept, None),
                    Change::Tell(grants) => (PolicyState::Edited { grants }, None),
                    Change::Rewrite(text) => (PolicyState::Extended, Some((text, Over::Old))),
                }
            }
        };
        Ok(Self { state, text })
    }

    /// Does what the plan asks for.
    pub(super) fn settle(self, disk: &Disk, layout: &Layout) -> Result<PolicyItem, PkiError> {
        let path = layout.policy();
        if let Some((text, over)) = self.text {
            disk.write(&path, text.as_bytes(), PUBLIC, over)?;
        }
        Ok(PolicyItem {
            path,
            state: self.state,
        })
    }
}
