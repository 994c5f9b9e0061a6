//! The policy: who may do what. Grants and nothing else; no grant, no right. Beside them stands
//! which CA may name whom, which grants nothing either.
//!
//! Only [`Policy::authorize`] makes a [`Permit`], and without a permit nothing is done to a file,
//! a topic or the server.

mod expect;
mod grant;
mod pattern;
mod resource;
mod text;
mod trust;

use std::fmt;

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

pub use self::expect::ExpectError;
use self::expect::ExpectText;
pub use self::grant::GrantError;
use self::grant::{Grant, GrantText};
pub use self::pattern::PatternError;
pub use self::resource::{Action, ActionError, Kind, Name, Resource, TOPIC_MARK, Target};
use self::text::Lines;
pub use self::trust::TrustError;
use self::trust::TrustText;
use crate::escape::Escaped;
use crate::filter::TopicFilter;
use crate::identity::{Binding, Identity, SpiffeId};
use crate::path::{PathError, Prefix};

/// Largest text of a policy, in bytes.
pub const POLICY_SIZE_MAX: usize = 1 << 20;
/// Most grants in a policy.
pub const GRANTS_MAX: usize = 10_000;
/// Most expectations in a policy.
pub const EXPECTATIONS_MAX: usize = 1_000;
/// Most trust settings in a policy.
pub const TRUST_MAX: usize = 100;

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("the policy has {size} bytes, at most {POLICY_SIZE_MAX} are allowed")]
    TooLarge { size: usize },
    #[error("the policy has {n} grants, at most {GRANTS_MAX} are allowed")]
    TooManyGrants { n: usize },
    #[error("the policy has {n} expectations, at most {EXPECTATIONS_MAX} are allowed")]
    TooManyExpectations { n: usize },
    #[error("the policy has {n} trust settings, at most {TRUST_MAX} are allowed")]
    TooManyTrustSettings { n: usize },
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: Escaped },
    #[error(
        "the policy grants nothing, so nobody may do anything; a grant is written\n\n{EXAMPLE}"
    )]
    Empty,
    #[error("line {line}: grant {number}: {error}")]
    Grant {
        number: usize,
        line: usize,
        error: GrantError,
    },
    #[error("line {line}: expectation {number}: {error}")]
    Expectation {
        number: usize,
        line: usize,
        error: ExpectError,
    },
    #[error("line {line}: trust setting {number}: {error}")]
    Trust {
        number: usize,
        line: usize,
        error: TrustError,
    },
}

const EXAMPLE: &str = r#"[[grant]]
to    = "spiffe://TRUST-DOMAIN/client/NAME"
allow = ["list", "read", "create", "replace", "delete"]
on    = "/**"
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    #[serde(default)]
    grant: Vec<Spanned<GrantText>>,
    #[serde(default)]
    expect: Vec<Spanned<ExpectText>>,
    #[serde(default)]
    trust: Vec<TrustText>,
}

/// All grants of a server.
#[derive(Debug, Clone)]
pub struct Policy {
    grants: Vec<(Granted, Grant)>,
    bindings: Vec<Binding>,
}

/// Which grant it was: its number from 1, and the line it begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    pub number: usize,
    pub line: usize,
}

/// Proof that this identity may do this action on this resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit<'a, R> {
    identity: &'a Identity,
    action: Action,
    resource: &'a R,
}

/// No grant covers what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{who} may not {action} {on}: no grant covers it")]
pub struct Denied {
    pub who: SpiffeId,
    pub action: Action,
    pub on: String,
}

/// What a policy says to a question, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub is_allowed: bool,
    /// The grant that covers it, or that none does.
    pub reason: String,
}

/// Why a question is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuestionError {
    #[error("{0}")]
    Action(#[from] ActionError),
    #[error("{0}")]
    Name(#[from] PathError),
    #[error("{action} applies to {}, {on} is none of them", action.kind())]
    Kind { action: Action, on: String },
}

impl Policy {
    /// Reads a policy, and asks it what it expects of itself.
    ///
    /// # Errors
    /// The text is not a policy, grants nothing, or does not meet its own expectations.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_SIZE_MAX {
            return Err(PolicyError::TooLarge { size: text.len() });
        }
        let lines = Lines::of(text);
        let parsed: PolicyText = toml::from_str(text).map_err(|error| PolicyError::Syntax {
            line: lines.line(error.span().map_or(0, |span| span.start)),
            message: Escaped::new(error.message()),
        })?;
        let (n, n_expectations) = (parsed.grant.len(), parsed.expect.len());
        match n {
            0 => return Err(PolicyError::Empty),
            n if n > GRANTS_MAX => return Err(PolicyError::TooManyGrants { n }),
            _ if n_expectations > EXPECTATIONS_MAX => {
                return Err(PolicyError::TooManyExpectations { n: n_expectations });
            }
            _ if parsed.trust.len() > TRUST_MAX => {
                let n = parsed.trust.len();
                return Err(PolicyError::TooManyTrustSettings { n });
            }
            _ => {}
        }
        let policy = Self {
            grants: grants(&parsed.grant, &lines)?,
            bindings: bindings(&parsed.trust, &lines)?,
        };
        policy.meets(&parsed.expect, &lines)?;
        Ok(policy)
    }

    /// The only way to a permit.
    ///
    /// # Errors
    /// No grant covers it.
    pub fn authorize<'a, R: Resource>(
        &self,
        identity: &'a Identity,
        action: Action,
        resource: &'a R,
    ) -> Result<Permit<'a, R>, Denied> {
        if self.may(&identity.id, action, resource) {
            return Ok(Permit {
                identity,
                action,
                resource,
            });
        }
        Err(Denied {
            who: identity.id.clone(),
            action,
            on: resource.name().to_string(),
        })
    }

    /// Whether a grant covers it. Knowing it opens nothing: that takes a [`Permit`].
    pub fn may(&self, who: &SpiffeId, action: Action, resource: &impl Resource) -> bool {
        self.grant_for(who, action, resource.name()).is_some()
    }

    /// Whether a grant may cover a file in the directory, or of its name: who reads there sees
    /// what each single name allows.
    ///
    /// # Errors
    /// No grant may.
    pub fn check_directory(
        &self,
        who: &SpiffeId,
        action: Action,
        directory: &Prefix,
    ) -> Result<(), Denied> {
        let mut grants = self.grants.iter();
        if grants.any(|(_, grant)| grant.meets_directory(who, action, directory)) {
            return Ok(());
        }
        Err(Denied {
            who: who.clone(),
            action,
            on: directory.to_string(),
        })
    }

    /// Whether a grant may cover a topic that the filter matches: who reads them gets what each
    /// single topic allows.
    ///
    /// # Errors
    /// No grant may.
    pub fn check_filter(
        &self,
        who: &SpiffeId,
        action: Action,
        filter: &TopicFilter,
    ) -> Result<(), Denied> {
        let mut grants = self.grants.iter();
        if grants.any(|(_, grant)| grant.meets_filter(who, action, filter)) {
            return Ok(());
        }
        Err(Denied {
            who: who.clone(),
            action,
            on: format!("{TOPIC_MARK}{filter}"),
        })
    }

    /// Answers and says why.
    pub fn explain(&self, who: &SpiffeId, action: Action, resource: &impl Resource) -> Verdict {
        let name = resource.name();
        let granted = self.grant_for(who, action, name);
        let reason = match granted {
            Some(granted) => format!("{who} may {action} {name}: {granted} covers it"),
            None => format!("{who} may not {action} {name}: no grant covers it"),
        };
        Verdict {
            is_allowed: granted.is_some(),
            reason,
        }
    }

    /// Answers a question in text, such as `read` and `/a/b`, `/a/` or `topic:a/b`.
    ///
    /// # Errors
    /// The action or the name is none, or the one does not apply to the other.
    pub fn ask(&self, who: &SpiffeId, action: &str, on: &str) -> Result<Verdict, QuestionError> {
        let action: Action = action.parse()?;
        let target: Target = on.parse()?;
        if action.kind() != target.name().kind() {
            let on = target.name().to_string();
            return Err(QuestionError::Kind { action, on });
        }
        Ok(self.explain(who, action, &target))
    }

    /// How many grants there are; at least one.
    pub fn n_grants(&self) -> usize {
        self.grants.len()
    }

    /// How many grants are for this identity, whatever they allow.
    pub fn n_grants_to(&self, who: &SpiffeId) -> usize {
        let grants = self.grants.iter();
        grants.filter(|(_, grant)| grant.is_to(who)).count()
    }

    /// What the certificates of single CAs may say, in the order of the text. The files are as they
    /// stand there: beside the policy, where they do not begin with `/`.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    fn grant_for(&self, who: &SpiffeId, action: Action, name: Name<'_>) -> Option<Granted> {
        let covers = |(_, grant): &&(Granted, Grant)| grant.covers(who, action, name);
        self.grants.iter().find(covers).map(|(granted, _)| *granted)
    }

    fn meets(&self, texts: &[Spanned<ExpectText>], lines: &Lines) -> Result<(), PolicyError> {
        for (text, number) in texts.iter().zip(1..) {
            let held = text.get_ref().verify(self);
            held.map_err(|error| PolicyError::Expectation {
                number,
                line: lines.line(text.span().start),
                error,
            })?;
        }
        Ok(())
    }
}

fn grants(
    texts: &[Spanned<GrantText>],
    lines: &Lines,
) -> Result<Vec<(Granted, Grant)>, PolicyError> {
    let mut grants = Vec::with_capacity(texts.len());
    for (text, number) in texts.iter().zip(1..) {
        let grant = Grant::parse(text.get_ref()).map_err(|mistake| PolicyError::Grant {
            number,
            line: lines.line(mistake.at),
            error: mistake.error,
        })?;
        let line = lines.line(text.span().start);
        grants.push((Granted { number, line }, grant));
    }
    Ok(grants)
}

fn bindings(texts: &[TrustText], lines: &Lines) -> Result<Vec<Binding>, PolicyError> {
    let each = texts.iter().zip(1..).map(|(text, number)| {
        text.parse().map_err(|(at, error)| PolicyError::Trust {
            number,
            line: lines.line(at),
            error,
        })
    });
    each.collect()
}

impl<'a, R> Permit<'a, R> {
    /// Who may.
    pub const fn identity(&self) -> &'a Identity {
        self.identity
    }

    /// What may be done.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// What it may be done to.
    pub const fn resource(&self) -> &'a R {
        self.resource
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant {} (line {})", self.number, self.line)
    }
}
