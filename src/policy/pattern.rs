//! Patterns over identities and names: literal segments, `*`, `{capture}`, and `**` at the end.
//!
//! Matching compares whole segments, once each from the left: `/team-a/**` never covers a name in
//! `/team-ab/`, and a captured value can never be more than one segment.

use std::cmp::Ordering;

use thiserror::Error;

use super::resource::{Kind, Name, TOPIC_MARK};
use crate::escape::Escaped;
use crate::filter::{Step, TopicFilter};
use crate::identity::{SpiffeId, SpiffeIdError};
use crate::path::{PathError, Prefix, RemotePath, Topic};

const ANY: &str = "*";
const REST: &str = "**";
/// Stands in for what is not literal while the rest is checked as a name.
const STAND_IN: &str = "x";

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    #[error("{0}")]
    Name(#[from] PathError),
    #[error("{0}")]
    Identity(#[from] SpiffeIdError),
    #[error("the trust domain has to be written out")]
    TrustDomain,
    #[error("{0}: a * stands for a whole segment, and stands alone in it")]
    PartOfSegment(Escaped),
    #[error("** can only be the last segment")]
    RestNotLast,
    #[error("{0}: a capture is a whole segment like {{name}}: a-z, 0-9 and _ in braces")]
    Capture(Escaped),
    #[error("the capture {{{0}}} stands twice")]
    CaptureTwice(String),
}

/// What a pattern over identities found at its captures.
pub(super) type Captured<'a> = Vec<(&'a str, &'a str)>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
    Capture(String),
}

/// A pattern over identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdPattern {
    trust_domain: String,
    segments: Vec<Segment>,
    /// Whether at least one more segment follows.
    has_rest: bool,
}

/// A pattern over names of files, directories or topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamePattern {
    pub(super) kind: Kind,
    segments: Vec<Segment>,
    tail: Tail,
}

/// What a pattern over names ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// A segment: one file or topic.
    Leaf,
    /// A slash: the directory, but nothing in it.
    Directory,
    /// `**`: everything under the directory at any depth, and the directory itself.
    Rest,
}

impl IdPattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        if domain.contains(['*', '{', '}']) {
            return Err(PatternError::TrustDomain);
        }
        let (segments, has_rest) = split(path)?;
        let mut checked = vec![format!("{scheme}://{domain}")];
        checked.extend(segments.iter().map(|s| s.checkable().to_owned()));
        checked.extend(has_rest.then(|| STAND_IN.to_owned()));
        // Without a scheme the text is shown as it was written.
        let checked = if scheme.is_empty() {
            text.to_owned()
        } else {
            checked.join("/")
        };
        let id: SpiffeId = checked.parse()?;
        let pattern = Self {
            trust_domain: id.trust_domain().to_owned(),
            segments,
            has_rest,
        };
        pattern.refuse_double_captures()?;
        Ok(pattern)
    }

    fn refuse_double_captures(&self) -> Result<(), PatternError> {
        let names: Vec<&str> = self.captures().collect();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                return Err(PatternError::CaptureTwice((*name).to_owned()));
            }
        }
        Ok(())
    }

    /// The names of the captures.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::capture)
    }

    /// What the captures are in `id`, if the pattern matches it.
    pub(super) fn capture<'a>(&'a self, id: &'a SpiffeId) -> Option<Captured<'a>> {
        if self.trust_domain != id.trust_domain() {
            return None;
        }
        let mut captured = Vec::new();
        let mut names = id.segments();
        for segment in &self.segments {
            let name = names.next()?;
            match segment {
                Segment::Literal(literal) if literal != name => return None,
                Segment::Literal(_) | Segment::Any => {}
                Segment::Capture(capture) => captured.push((capture.as_str(), name)),
            }
        }
        (names.next().is_some() == self.has_rest).then_some(captured)
    }
}

impl NamePattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        match text.strip_prefix(TOPIC_MARK) {
            Some(topic) => Self::parse_topic(topic),
            None => Self::parse_path(text),
        }
    }

    fn parse_topic(text: &str) -> Result<Self, PatternError> {
        let (segments, has_rest) = split(text)?;
        let checked = checkable(&segments, has_rest);
        checked.parse::<Topic>()?;
        Ok(Self {
            kind: Kind::Topic,
            segments,
            tail: if has_rest { Tail::Rest } else { Tail::Leaf },
        })
    }

    fn parse_path(text: &str) -> Result<Self, PatternError> {
        let relative = text.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        if relative.is_empty() {
            return Ok(Self {
                kind: Kind::Path,
                segments: Vec::new(),
                tail: Tail::Directory,
            });
        }
        let inner = relative.strip_suffix('/');
        let (segments, has_rest) = split(inner.unwrap_or(relative))?;
        let checked = format!("/{}", checkable(&segments, has_rest));
        let tail = match (inner, has_rest) {
            (Some(_), true) => return Err(PatternError::RestNotLast),
            (Some(_), false) => Tail::Directory,
            (None, true) => Tail::Rest,
            (None, false) => Tail::Leaf,
        };
        match tail {
            Tail::Directory => drop(format!("{checked}/").parse::<Prefix>()?),
            Tail::Leaf | Tail::Rest => drop(checked.parse::<RemotePath>()?),
        }
        Ok(Self {
            kind: Kind::Path,
            segments,
            tail,
        })
    }

    /// The names of the captures.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::capture)
    }

    /// Whether the pattern, with these values for its captures, covers the name.
    pub(super) fn covers(&self, name: Name<'_>, captured: &Captured<'_>) -> bool {
        if self.kind != name.kind() {
            return false;
        }
        match name {
            Name::File(path) => self.covers_leaf(path.segments(), captured),
            Name::Topic(topic) => self.covers_leaf(topic.segments(), captured),
            Name::Directory(prefix) => match (self.tail, self.rest(prefix.segments(), captured)) {
                (Tail::Directory, Some(n_more)) => n_more == 0,
                (Tail::Rest, Some(_)) => true,
                (Tail::Leaf, _) | (_, None) => false,
            },
        }
    }

    fn covers_leaf<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        captured: &Captured<'_>,
    ) -> bool {
        match (self.tail, self.rest(names, captured)) {
            (Tail::Leaf, Some(n_more)) => n_more == 0,
            (Tail::Rest, Some(n_more)) => n_more > 0,
            (Tail::Directory, _) | (_, None) => false,
        }
    }

    /// Whether there may be a file in the directory, or of its name, that the pattern covers.
    pub(super) fn meets_directory(&self, directory: &Prefix, captured: &Captured<'_>) -> bool {
        if self.kind != Kind::Path || self.tail == Tail::Directory {
            return false;
        }
        let names: Vec<&str> = directory.segments().collect();
        let mut pairs = self.segments.iter().zip(&names);
        pairs.all(|(segment, name)| segment.matches(name, captured))
            && (self.segments.len() >= names.len() || self.tail == Tail::Rest)
    }

    /// Whether there may be a topic that both the filter and the pattern cover.
    pub(super) fn meets_filter(&self, filter: &TopicFilter, captured: &Captured<'_>) -> bool {
        if self.kind != Kind::Topic {
            return false;
        }
        let steps: Vec<Step<'_>> = filter.steps().collect();
        let mut pairs = self.segments.iter().zip(&steps);
        let is_alike = pairs.all(|(segment, step)| match step {
            Step::Any => true,
            Step::Literal(name) => segment.matches(name, captured),
        });
        let (has_rest, filter_has_rest) = (self.tail == Tail::Rest, filter.has_rest());
        is_alike
            && match self.segments.len().cmp(&steps.len()) {
                Ordering::Equal => has_rest == filter_has_rest,
                Ordering::Less => has_rest,
                Ordering::Greater => filter_has_rest,
            }
    }

    /// How many segments follow those that the pattern names, if it matches so far.
    fn rest<'a>(
        &self,
        mut names: impl Iterator<Item = &'a str>,
        captured: &Captured<'_>,
    ) -> Option<usize> {
        for segment in &self.segments {
            let name = names.next()?;
            if !segment.matches(name, captured) {
                return None;
            }
        }
        Some(names.count())
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text == ANY {
            return Ok(Self::Any);
        }
        if text == REST {
            return Err(PatternError::RestNotLast);
        }
        if text.contains('*') {
            return Err(PatternError::PartOfSegment(Escaped::new(text)));
        }
        if !text.contains(['{', '}']) {
            return Ok(Self::Literal(text.to_owned()));
        }
        let name = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let well_formed = |name: &&str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        name.filter(well_formed)
            .map(|name| Self::Capture(name.to_owned()))
            .ok_or_else(|| PatternError::Capture(Escaped::new(text)))
    }

    fn matches(&self, name: &str, captured: &Captured<'_>) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Any => true,
            Self::Capture(capture) => captured.contains(&(capture.as_str(), name)),
        }
    }

    fn checkable(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Any | Self::Capture(_) => STAND_IN,
        }
    }

    fn capture(&self) -> Option<&str> {
        match self {
            Self::Capture(name) => Some(name),
            Self::Literal(_) | Self::Any => None,
        }
    }
}

/// The segments of a pattern before its `**`, and whether it has one.
fn split(text: &str) -> Result<(Vec<Segment>, bool), PatternError> {
    let (before, has_rest) = match text.strip_suffix(REST) {
        Some("") => return Ok((Vec::new(), true)),
        Some(before) if before.ends_with('/') => (&before[..before.len() - 1], true),
        _ => (text, false),
    };
    if before.is_empty() && !has_rest {
        return Ok((Vec::new(), false));
    }
    let segments = before.split('/').map(Segment::parse);
    Ok((segments.collect::<Result<_, _>>()?, has_rest))
}

fn checkable(segments: &[Segment], has_rest: bool) -> String {
    let segments = segments.iter().map(Segment::checkable);
    let parts: Vec<&str> = segments.chain(has_rest.then_some(STAND_IN)).collect();
    parts.join("/")
}
