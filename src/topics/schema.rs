//! One JSON Schema: loaded from a document, held against messages.
//!
//! A schema is used only when it needs nothing outside its document and no message can make the
//! check of it long or deep; how much work it makes at most is known from when it is loaded.

use std::fmt;

use jsonschema::{Draft, Validator};
use serde_json::Value;
use thiserror::Error;

use super::cost::{self, CHECKS_MAX};
use super::pattern;
use super::subschemas::{self, POINTER_SIZE_MAX, SUBSCHEMAS_MAX};
use crate::escape::Escaped;
use crate::json::{self, Numbers};

/// Largest schema, in bytes.
pub const SCHEMA_SIZE_MAX: usize = 256 << 10;
/// Deepest nesting of objects and arrays in a message that has a schema.
pub const MESSAGE_DEPTH_MAX: usize = 32;
/// Deepest nesting of objects and arrays in a schema.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Most checks for which the place of a misfit is looked for in a schema with alternatives. There
/// the validator collects what is wrong with each of them, which costs far more than the verdict.
const EXPLAINED_CHECKS_MAX: usize = 50_000;

/// Why a document cannot be used as a schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    #[error("cannot be read: {0}")]
    Unreadable(Escaped),
    #[error("it has {size} bytes, at most {SCHEMA_SIZE_MAX} are allowed")]
    TooLarge { size: usize },
    #[error("it is not JSON: {0}")]
    Json(Escaped),
    #[error("its \"$schema\" {0} is no known draft; leave it out for draft 2020-12")]
    Draft(Escaped),
    #[error("it has more than {SUBSCHEMAS_MAX} subschemas")]
    TooMany,
    #[error("the names around one of its subschemas have more than {POINTER_SIZE_MAX} bytes")]
    LongPointer,
    #[error(
        "at {at:?}: $ref {reference} leaves the document, and nothing else is loaded; \
        copy it to \"$defs\" and write #/$defs/NAME"
    )]
    External { at: Place, reference: Escaped },
    #[error("at {at:?}: $ref {reference} is no subschema of this document; write #/$defs/NAME")]
    Missing { at: Place, reference: Escaped },
    #[error("at {at:?}: {keyword} is not supported; write $ref")]
    Dynamic { at: Place, keyword: Escaped },
    #[error("at {at:?}: {keyword} can only stand at the top of the document")]
    Embedded { at: Place, keyword: Escaped },
    #[error(
        "at {at:?}: the schema applies itself to the same value without end; \
        a recursive $ref belongs inside \"properties\" or \"items\""
    )]
    Circular { at: Place },
    #[error(
        "one value of a message could take more than {CHECKS_MAX} checks; \
        recurse in one alternative only, and nest fewer references and unevaluated* keywords"
    )]
    TooCostly,
    #[error("at {at:?}: {reason}")]
    Invalid { at: Place, reason: Escaped },
}

/// Where in a document: a JSON pointer; shown in quotes.
#[derive(Clone, PartialEq, Eq)]
pub struct Place(Escaped);

/// Why a message does not fit the schema of its topic.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the message does not fit the topic's schema{}: {reason}", at(pointer))]
pub struct Misfit {
    /// JSON pointer to the field; empty for the whole message. Escaped and cut.
    pub pointer: String,
    /// Escaped and cut.
    pub reason: String,
}

fn at(pointer: &str) -> String {
    match pointer {
        "" => String::new(),
        pointer => format!(" at {pointer}"),
    }
}

/// A schema that is ready to check.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    /// The most checks that one value takes.
    n_checks: usize,
    has_alternatives: bool,
}

impl Schema {
    /// Reads a schema's document.
    ///
    /// # Errors
    /// It is no schema, needs another document, or could make a check long.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        if bytes.len() > SCHEMA_SIZE_MAX {
            return Err(SchemaError::TooLarge { size: bytes.len() });
        }
        let document =
            json::value(bytes, SCHEMA_DEPTH_MAX, Numbers::Finite).map_err(SchemaError::Json)?;
        let draft = Draft::Draft202012.detect(&document);
        if draft == Draft::Unknown {
            let text = document.get("$schema").and_then(Value::as_str);
            return Err(SchemaError::Draft(Escaped::new(text.unwrap_or_default())));
        }
        let all = subschemas::subschemas(&document, draft.id_keyword())?;
        let n_checks = cost::bound(&all, MESSAGE_DEPTH_MAX)?;
        let options = jsonschema::options()
            .offline()
            .with_draft(draft)
            .with_pattern_options(pattern::engine());
        let validator = options.build(&document).map_err(|error| {
            let at = Place::new(error.instance_path().as_str());
            let reason = Escaped::new(&error.to_string());
            SchemaError::Invalid { at, reason }
        })?;
        Ok(Self {
            validator,
            n_checks,
            has_alternatives: all.iter().any(|one| one.has_alternatives),
        })
    }

    /// Whether a message fits.
    pub(super) fn check(&self, payload: &[u8]) -> Result<(), Misfit> {
        let whole = |reason: String| Misfit {
            pointer: String::new(),
            reason,
        };
        let message = json::value(payload, MESSAGE_DEPTH_MAX, Numbers::Finite)
            .map_err(|reason| whole(format!("not JSON: {reason}")))?;
        if self.validator.is_valid(&message) {
            return Ok(());
        }
        let is_costly = n_values(&message).saturating_mul(self.n_checks) > EXPLAINED_CHECKS_MAX;
        if self.has_alternatives && is_costly {
            return Err(whole("the message is too large to say where".to_owned()));
        }
        let Err(error) = self.validator.validate(&message) else {
            return Err(whole("it is not valid".to_owned()));
        };
        Err(Misfit {
            pointer: Escaped::new(error.instance_path().as_str()).to_string(),
            // Without the value, which can be the whole message.
            reason: Escaped::new(&error.masked().to_string()).to_string(),
        })
    }
}

fn n_values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(n_values).sum(),
        Value::Object(fields) => fields.values().map(n_values).sum(),
        _ => 0,
    }
}

impl Place {
    pub(super) fn new(pointer: &str) -> Self {
        Self(Escaped::new(pointer))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}
