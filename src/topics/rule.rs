//! One entry of the file: which topics it is for, and what holds for them.
//!
//! An entry that says nothing is a mistake and is refused.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use thiserror::Error;
use toml::Spanned;

use super::schema::SchemaError;
use crate::escape::Escaped;
use crate::filter::{FilterError, TopicFilter};
use crate::log::Retention;

/// Why an entry cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    #[error("{name}: {reason}")]
    Name { name: Escaped, reason: FilterError },
    #[error("\"name\" is an empty list: the entry would be for no topic")]
    NoNames,
    #[error("it says nothing about its topics; give \"keep\", \"keep_size\" or \"schema\"")]
    Nothing,
    #[error("{name} stands already at line {line}, which alone decides; remove one of them")]
    Repeated { name: TopicFilter, line: usize },
    #[error("\"keep\" is {0}, which is no time of more than nothing; write it like 7d or 12h")]
    Keep(Escaped),
    #[error("\"keep_size\" is {0}, which is no size of more than nothing; write it like 1GiB")]
    KeepSize(Escaped),
    #[error("schema {file}: {error}")]
    Schema { file: Escaped, error: SchemaError },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    name: Spanned<Names>,
    keep: Option<Spanned<String>>,
    keep_size: Option<Spanned<String>>,
    pub(super) schema: Option<Spanned<String>>,
}

/// Where a mistake is, in bytes from the beginning of the file.
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) error: RuleError,
}

impl RuleText {
    /// The filters of the entry, and where they stand.
    pub(super) fn names(&self) -> Result<(usize, Vec<TopicFilter>), Mistake> {
        let at = self.name.span().start;
        let Names(names) = self.name.get_ref();
        if names.is_empty() {
            let error = RuleError::NoNames;
            return Err(Mistake { at, error });
        }
        let parsed = names.iter().map(|name| {
            name.parse().map_err(|reason| {
                let name = Escaped::new(name);
                let error = RuleError::Name { name, reason };
                Mistake { at, error }
            })
        });
        Ok((at, parsed.collect::<Result<_, _>>()?))
    }

    /// How long messages are kept, by default as `defaults` say.
    pub(super) fn retention(&self, defaults: Retention) -> Result<Retention, Mistake> {
        if self.keep.is_none() && self.keep_size.is_none() && self.schema.is_none() {
            let (at, error) = (self.name.span().start, RuleError::Nothing);
            return Err(Mistake { at, error });
        }
        let age = field(self.keep.as_ref(), age, RuleError::Keep)?;
        let size = field(self.keep_size.as_ref(), size, RuleError::KeepSize)?;
        Ok(Retention {
            age: age.unwrap_or(defaults.age),
            size: size.unwrap_or(defaults.size),
        })
    }
}

fn field<T>(
    field: Option<&Spanned<String>>,
    parse: impl Fn(&str) -> Option<T>,
    error: impl Fn(Escaped) -> RuleError,
) -> Result<Option<T>, Mistake> {
    let Some(field) = field else {
        return Ok(None);
    };
    let parsed = parse(field.get_ref()).ok_or_else(|| Mistake {
        at: field.span().start,
        error: error(Escaped::new(field.get_ref())),
    });
    parsed.map(Some)
}

/// A day has 24 hours; months and years have no length and are refused.
fn age(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    let duration = Duration::try_from(duration).ok()?;
    (!duration.is_zero()).then_some(duration)
}

fn size(text: &str) -> Option<u64> {
    let ByteSize(size) = text.parse().ok()?;
    (size > 0).then_some(size)
}

/// One name or a list of names.
#[derive(Debug)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<Names, E> {
        Ok(Names(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = items.next_element()? {
            names.push(name);
        }
        Ok(Names(names))
    }
}
