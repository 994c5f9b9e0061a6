//! One grant: who may do what on which names.
//!
//! A grant that could never apply, in whole or in part, is a mistake and is refused.

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use super::pattern::{Captured, IdPattern, NamePattern, PatternError};
use super::resource::{Action, ActionError, Kind, Name};
use super::text::Texts;
use crate::escape::Escaped;
use crate::filter::TopicFilter;
use crate::identity::SpiffeId;
use crate::path::Prefix;

/// Why a grant cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrantError {
    #[error("{0}")]
    Action(#[from] ActionError),
    #[error("{pattern}: {reason}")]
    Pattern {
        pattern: Escaped,
        reason: PatternError,
    },
    #[error("\"{0}\" is an empty list: it would grant nothing")]
    Nothing(&'static str),
    #[error("{action} applies to {kind}, and \"on\" names none{hint}", kind = action.kind(),
        hint = topic_hint(action.kind()))]
    NoName { action: Action },
    #[error("\"on\" names {0}, and no action in \"allow\" applies to them")]
    NoAction(Kind),
    #[error("\"on\" uses {{{name}}}, which {pattern} in \"to\" does not capture")]
    Unbound { name: String, pattern: Escaped },
    #[error("{pattern} captures {{{name}}}, which \"on\" does not use; write * to match any")]
    Unused { name: String, pattern: Escaped },
}

fn topic_hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Topic => "; a topic is written like topic:a/b",
        Kind::Path => "; a path begins with /",
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantText {
    to: Spanned<Texts>,
    allow: Spanned<Texts>,
    on: Spanned<Texts>,
}

/// Where a mistake is, in bytes from the beginning of the policy.
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) error: GrantError,
}

/// One grant, checked.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    to: Vec<IdPattern>,
    allow: Vec<Action>,
    on: Vec<NamePattern>,
}

impl Grant {
    pub(super) fn parse(text: &GrantText) -> Result<Self, Mistake> {
        let to = each(&text.to, "to", |t| pattern(t, IdPattern::parse))?;
        let allow = each(&text.allow, "allow", |t| Ok(t.parse()?))?;
        let on = each(&text.on, "on", |t| pattern(t, NamePattern::parse))?;
        let grant = Self { to, allow, on };
        let at = |field: &Spanned<Texts>| field.span().start;
        let mistake = |at, error| Mistake { at, error };
        grant
            .check_kinds()
            .map_err(|error| mistake(at(&text.allow), error))?;
        grant
            .check_captures(text.to.get_ref())
            .map_err(|error| mistake(at(&text.to), error))?;
        Ok(grant)
    }

    /// Whether it is for this identity.
    pub(super) fn is_to(&self, who: &SpiffeId) -> bool {
        self.to.iter().any(|to| to.capture(who).is_some())
    }

    /// Whether this grant covers it.
    pub(super) fn covers(&self, who: &SpiffeId, action: Action, name: Name<'_>) -> bool {
        self.allow.contains(&action)
            && action.kind() == name.kind()
            && self.to.iter().any(|to| {
                let captured = to.capture(who);
                captured.is_some_and(|captured| self.on.iter().any(|on| on.covers(name, &captured)))
            })
    }

    /// Whether this grant may cover a file in the directory, or of its name.
    pub(super) fn meets_directory(
        &self,
        who: &SpiffeId,
        action: Action,
        directory: &Prefix,
    ) -> bool {
        self.meets(who, action, |on, captured| {
            on.meets_directory(directory, captured)
        })
    }

    /// Whether this grant may cover a topic that the filter matches.
    pub(super) fn meets_filter(
        &self,
        who: &SpiffeId,
        action: Action,
        filter: &TopicFilter,
    ) -> bool {
        self.meets(who, action, |on, captured| {
            on.meets_filter(filter, captured)
        })
    }

    fn meets(
        &self,
        who: &SpiffeId,
        action: Action,
        on_meets: impl Fn(&NamePattern, &Captured<'_>) -> bool,
    ) -> bool {
        let mut captures = self.to.iter().filter_map(|to| to.capture(who));
        self.allow.contains(&action)
            && captures.any(|captured| self.on.iter().any(|on| on_meets(on, &captured)))
    }

    fn check_kinds(&self) -> Result<(), GrantError> {
        let kinds = self.on.iter().map(|on| on.kind);
        pair_up(&self.allow, kinds)
    }

    fn check_captures(&self, to_texts: &Texts) -> Result<(), GrantError> {
        let used: Vec<&str> = self.on.iter().flat_map(NamePattern::captures).collect();
        for (to, text) in self.to.iter().zip(to_texts.iter()) {
            let pattern = Escaped::new(text);
            let bound: Vec<&str> = to.captures().collect();
            if let Some(name) = used.iter().find(|name| !bound.contains(name)) {
                let name = (*name).to_owned();
                return Err(GrantError::Unbound { name, pattern });
            }
            if let Some(name) = bound.iter().find(|name| !used.contains(name)) {
                let name = (*name).to_owned();
                return Err(GrantError::Unused { name, pattern });
            }
        }
        Ok(())
    }
}

/// Refuses an action without a name of its kind, and a name without an action of its kind.
pub(super) fn pair_up(
    actions: &[Action],
    kinds: impl Iterator<Item = Kind>,
) -> Result<(), GrantError> {
    let kinds: Vec<Kind> = kinds.collect();
    if let Some(action) = actions
        .iter()
        .find(|action| !kinds.contains(&action.kind()))
    {
        return Err(GrantError::NoName { action: *action });
    }
    let has_action = |kind: &Kind| actions.iter().any(|action| action.kind() == *kind);
    match kinds.into_iter().find(|kind| !has_action(kind)) {
        Some(kind) => Err(GrantError::NoAction(kind)),
        None => Ok(()),
    }
}

/// Parses every text of a field.
pub(super) fn each<T>(
    field: &Spanned<Texts>,
    called: &'static str,
    parse: impl Fn(&str) -> Result<T, GrantError>,
) -> Result<Vec<T>, Mistake> {
    let at = field.span().start;
    let mistake = |error| Mistake { at, error };
    if field.get_ref().iter().next().is_none() {
        return Err(mistake(GrantError::Nothing(called)));
    }
    let parsed = field.get_ref().iter().map(parse);
    parsed.collect::<Result<_, _>>().map_err(mistake)
}

fn pattern<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, PatternError>,
) -> Result<T, GrantError> {
    parse(text).map_err(|reason| GrantError::Pattern {
        pattern: Escaped::new(text),
        reason,
    })
}
