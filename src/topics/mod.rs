//! The rules about topics that an operator writes: how long messages are kept, what they look like.
//!
//! The first entry that matches a topic decides alone; what it leaves out has the default.

mod cost;
mod pattern;
mod rule;
mod schema;
mod subschemas;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod work_tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

pub use self::rule::RuleError;
use self::rule::{Mistake, RuleText};
use self::schema::Schema;
pub use self::schema::{
    MESSAGE_DEPTH_MAX, Misfit, Place, SCHEMA_DEPTH_MAX, SCHEMA_SIZE_MAX, SchemaError,
};
use crate::escape::Escaped;
use crate::filter::TopicFilter;
use crate::log::Retention;
use crate::path::Topic;

/// Largest file, in bytes.
pub const TOPICS_FILE_SIZE_MAX: usize = 1 << 20;
/// Most entries in a file.
pub const RULES_MAX: usize = 1_000;
/// Most names in all entries of a file.
pub const NAMES_MAX: usize = 10_000;

/// Why a text is not a file of rules about topics.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicsError {
    #[error("the file has {size} bytes, at most {TOPICS_FILE_SIZE_MAX} are allowed")]
    TooLarge { size: usize },
    #[error("the file has {n} entries, at most {RULES_MAX} are allowed")]
    TooMany { n: usize },
    #[error("the file has more than {NAMES_MAX} names")]
    TooManyNames,
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: Escaped },
    #[error("line {line}: topic {number}: {error}")]
    Rule {
        number: usize,
        line: usize,
        error: RuleError,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicsText {
    #[serde(default)]
    topic: Vec<Spanned<RuleText>>,
}

/// All rules about topics.
#[derive(Debug)]
pub struct Topics {
    rules: Vec<Rule>,
    defaults: Retention,
}

#[derive(Debug)]
struct Rule {
    names: Vec<TopicFilter>,
    retention: Retention,
    schema: Option<Arc<Schema>>,
}

impl Topics {
    /// No rules: the defaults hold for every topic, and every message fits.
    pub const fn none(defaults: Retention) -> Self {
        let rules = Vec::new();
        Self { rules, defaults }
    }

    /// Reads a file of rules; `load` reads a schema's file by the name that is written.
    ///
    /// # Errors
    /// The text is no such file, or a schema cannot be used.
    pub fn parse(
        text: &str,
        defaults: Retention,
        load: impl FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TopicsError> {
        if text.len() > TOPICS_FILE_SIZE_MAX {
            return Err(TopicsError::TooLarge { size: text.len() });
        }
        let parsed: TopicsText = toml::from_str(text).map_err(|error| TopicsError::Syntax {
            line: line(text, error.span().map_or(0, |span| span.start)),
            message: Escaped::new(error.message()),
        })?;
        let n = parsed.topic.len();
        if n > RULES_MAX {
            return Err(TopicsError::TooMany { n });
        }
        let mut reader = Reader {
            text,
            defaults,
            load,
            stands_at: HashMap::new(),
            schemas: HashMap::new(),
        };
        let mut rules = Vec::with_capacity(n);
        for (entry, number) in parsed.topic.iter().zip(1..) {
            let rule = reader.rule(entry.get_ref());
            rules.push(rule.map_err(|Mistake { at, error }| TopicsError::Rule {
                number,
                line: line(text, at),
                error,
            })?);
            if reader.stands_at.len() > NAMES_MAX {
                return Err(TopicsError::TooManyNames);
            }
        }
        Ok(Self { rules, defaults })
    }

    /// How long messages of a topic are kept.
    pub fn retention(&self, topic: &Topic) -> Retention {
        self.rule(topic)
            .map_or(self.defaults, |rule| rule.retention)
    }

    /// Whether a message fits the schema of its topic; any does where there is none.
    ///
    /// # Errors
    /// It does not fit, or is not JSON.
    pub fn check(&self, topic: &Topic, payload: &[u8]) -> Result<(), Misfit> {
        self.schema(topic)
            .map_or(Ok(()), |schema| schema.check(payload))
    }

    /// Whether messages of a topic are checked.
    pub fn has_schema(&self, topic: &Topic) -> bool {
        self.schema(topic).is_some()
    }

    fn rule(&self, topic: &Topic) -> Option<&Rule> {
        let matches = |rule: &&Rule| rule.names.iter().any(|name| name.matches(topic));
        self.rules.iter().find(matches)
    }

    fn schema(&self, topic: &Topic) -> Option<&Schema> {
        self.rule(topic)?.schema.as_deref()
    }
}

/// What is known while the entries are read in order.
struct Reader<'a, L> {
    text: &'a str,
    defaults: Retention,
    load: L,
    /// The line of each name so far.
    stands_at: HashMap<TopicFilter, usize>,
    /// One schema for all entries that name its file.
    schemas: HashMap<String, Arc<Schema>>,
}

impl<L: FnMut(&str) -> io::Result<Vec<u8>>> Reader<'_, L> {
    fn rule(&mut self, entry: &RuleText) -> Result<Rule, Mistake> {
        let (at, names) = entry.names()?;
        let here = line(self.text, at);
        for name in &names {
            if let Some(line) = self.stands_at.insert(name.clone(), here) {
                let name = name.clone();
                let error = RuleError::Repeated { name, line };
                return Err(Mistake { at, error });
            }
        }
        let retention = entry.retention(self.defaults)?;
        let schema = entry.schema.as_ref().map(|file| {
            self.schema(file.get_ref()).map_err(|error| Mistake {
                at: file.span().start,
                error: RuleError::Schema {
                    file: Escaped::new(file.get_ref()),
                    error,
                },
            })
        });
        Ok(Rule {
            names,
            retention,
            schema: schema.transpose()?,
        })
    }

    fn schema(&mut self, file: &str) -> Result<Arc<Schema>, SchemaError> {
        if let Some(schema) = self.schemas.get(file) {
            return Ok(Arc::clone(schema));
        }
        let unreadable =
            |error: io::Error| SchemaError::Unreadable(Escaped::new(&error.to_string()));
        let bytes = (self.load)(file).map_err(unreadable)?;
        let schema = Arc::new(Schema::parse(&bytes)?);
        self.schemas.insert(file.to_owned(), Arc::clone(&schema));
        Ok(schema)
    }
}

/// The number of the line that the byte at `at` is in, from 1.
fn line(text: &str, at: usize) -> usize {
    let ends = text.match_indices('\n').map(|(end, _)| end);
    ends.take_while(|end| *end < at).count() + 1
}
