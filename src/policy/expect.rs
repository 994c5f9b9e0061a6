//! Expectations: what a policy says about itself.
//!
//! They grant nothing. The first one that does not hold refuses the whole policy.

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use super::grant::{GrantError, each, pair_up};
use super::resource::{Action, Resource, Target};
use super::text::Texts;
use super::{Granted, Policy};
use crate::escape::Escaped;
use crate::identity::{SpiffeId, SpiffeIdError};
use crate::path::PathError;

/// Why an expectation is refused, or refuses the policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExpectError {
    #[error("\"who\" is one identity: {0}")]
    Who(#[from] SpiffeIdError),
    #[error("it says neither \"can\" nor \"cannot\"")]
    Nothing,
    #[error("{0}")]
    Field(#[from] GrantError),
    #[error("{on}: {reason}")]
    On { on: Escaped, reason: PathError },
    #[error("{who} should be able to {action} {on}, and no grant covers it")]
    Refused {
        who: SpiffeId,
        action: Action,
        on: String,
    },
    #[error("{who} should not be able to {action} {on}, and {granted} allows it")]
    Allowed {
        who: SpiffeId,
        action: Action,
        on: String,
        granted: Granted,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectText {
    who: Spanned<String>,
    can: Option<Spanned<Texts>>,
    cannot: Option<Spanned<Texts>>,
    on: Spanned<Texts>,
}

impl ExpectText {
    /// Asks the policy what it is expected to say.
    pub(super) fn verify(&self, policy: &Policy) -> Result<(), ExpectError> {
        let who: SpiffeId = self.who.get_ref().parse()?;
        let on: Vec<Target> = self
            .on
            .get_ref()
            .iter()
            .map(target)
            .collect::<Result<_, _>>()?;
        let can = actions(self.can.as_ref(), "can")?;
        let cannot = actions(self.cannot.as_ref(), "cannot")?;
        if can.is_empty() && cannot.is_empty() {
            return Err(ExpectError::Nothing);
        }
        let all = [can.as_slice(), cannot.as_slice()].concat();
        pair_up(&all, on.iter().map(|target| target.name().kind()))?;
        for target in &on {
            can.iter()
                .try_for_each(|action| allowed(policy, &who, *action, target))?;
            cannot
                .iter()
                .try_for_each(|action| refused(policy, &who, *action, target))?;
        }
        Ok(())
    }
}

fn target(text: &str) -> Result<Target, ExpectError> {
    text.parse().map_err(|reason| ExpectError::On {
        on: Escaped::new(text),
        reason,
    })
}

fn actions(
    field: Option<&Spanned<Texts>>,
    called: &'static str,
) -> Result<Vec<Action>, ExpectError> {
    let Some(field) = field else {
        return Ok(Vec::new());
    };
    let parsed = each(field, called, |text| Ok(text.parse()?));
    parsed.map_err(|mistake| mistake.error.into())
}

fn allowed(
    policy: &Policy,
    who: &SpiffeId,
    action: Action,
    target: &Target,
) -> Result<(), ExpectError> {
    let name = target.name();
    if action.kind() != name.kind() || policy.grant_for(who, action, name).is_some() {
        return Ok(());
    }
    Err(ExpectError::Refused {
        who: who.clone(),
        action,
        on: name.to_string(),
    })
}

fn refused(
    policy: &Policy,
    who: &SpiffeId,
    action: Action,
    target: &Target,
) -> Result<(), ExpectError> {
    match policy.grant_for(who, action, target.name()) {
        None => Ok(()),
        Some(granted) => Err(ExpectError::Allowed {
            who: who.clone(),
            action,
            on: target.name().to_string(),
            granted,
        }),
    }
}
