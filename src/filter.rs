//! Filters over topics: literal segments, `*` for one segment, `**` at the end for the rest.
//!
//! A filter selects among what a reader may have; it never gives a right.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::escape::Escaped;
use crate::path::{PathError, Topic};

/// Stands for one segment.
const ANY: &str = "*";
/// Stands for one segment or more, at the end.
const REST: &str = "**";
/// Stands in for what is not literal while the rest is checked as a name.
const STAND_IN: &str = "x";

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    #[error("{0}")]
    Name(#[from] PathError),
    #[error("{0}: a * stands for a whole segment, and stands alone in it")]
    PartOfSegment(Escaped),
    #[error("** can only be the last segment")]
    RestNotLast,
}

/// Which topics a reader wants, such as `telemetry/*/temperature` or `chat/**`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TopicFilter {
    text: String,
    /// Whether at least one more segment follows those before the `**`.
    has_rest: bool,
}

/// One step of a pattern over names: what a segment has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    Literal(&'a str),
    Any,
}

impl TopicFilter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a topic is one of those that are wanted.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut names = topic.segments();
        for step in self.steps() {
            let Some(name) = names.next() else {
                return false;
            };
            if matches!(step, Step::Literal(literal) if literal != name) {
                return false;
            }
        }
        names.next().is_some() == self.has_rest
    }

    /// The one topic that is wanted, if it is one.
    pub fn literal(&self) -> Option<Topic> {
        self.text.parse().ok().filter(|_| !self.is_pattern())
    }

    /// What the segments before the `**` have to be.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let n_rest = usize::from(self.has_rest);
        let n_steps = self.text.split('/').count() - n_rest;
        self.text
            .split('/')
            .take(n_steps)
            .map(|segment| match segment {
                ANY => Step::Any,
                literal => Step::Literal(literal),
            })
    }

    /// Whether one segment or more follow the steps.
    pub const fn has_rest(&self) -> bool {
        self.has_rest
    }

    fn is_pattern(&self) -> bool {
        self.has_rest || self.steps().any(|step| step == Step::Any)
    }
}

impl FromStr for TopicFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let segments: Vec<&str> = text.split('/').collect();
        let has_rest = segments.last() == Some(&REST);
        let n_steps = segments.len() - usize::from(has_rest);
        let mut checkable = Vec::with_capacity(segments.len());
        for segment in &segments[..n_steps] {
            match *segment {
                ANY => checkable.push(STAND_IN),
                REST => return Err(FilterError::RestNotLast),
                part if part.contains('*') => {
                    return Err(FilterError::PartOfSegment(Escaped::new(part)));
                }
                literal => checkable.push(literal),
            }
        }
        checkable.extend(has_rest.then_some(STAND_IN));
        checkable.join("/").parse::<Topic>()?;
        Ok(Self {
            text: text.to_owned(),
            has_rest,
        })
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<TopicFilter> for String {
    fn from(filter: TopicFilter) -> Self {
        filter.text
    }
}

impl TryFrom<String> for TopicFilter {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, FilterError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, matching: &[&str], others: &[&str]) {
        let filter: TopicFilter = filter.parse().unwrap();
        for topic in matching {
            assert!(filter.matches(&topic.parse().unwrap()), "{filter} {topic}");
        }
        for topic in others {
            assert!(!filter.matches(&topic.parse().unwrap()), "{filter} {topic}");
        }
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        check("a/b", &["a/b"], &["a", "a/b/c", "a/bc", "b/b"]);
        check("a/*", &["a/b", "a/c"], &["a", "a/b/c", "b/a"]);
        check("*/b", &["a/b"], &["a/b/b", "b"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "ab/c"]);
        check("**", &["a", "a/b/c"], &[]);
        check("*/**", &["a/b", "a/b/c"], &["a"]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "", "/a", "a/", "a//b", "a/**/b", "a*/b", "a/***", "../a", "a/.fsvc", "a\n",
        ] {
            assert!(text.parse::<TopicFilter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_filter_without_stars_is_a_topic() {
        let literal = |text: &str| text.parse::<TopicFilter>().unwrap().literal();
        assert_eq!(literal("a/b"), Some("a/b".parse().unwrap()));
        assert_eq!(literal("a/*"), None);
        assert_eq!(literal("**"), None);
    }
}
