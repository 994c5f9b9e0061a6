//! What can be done, and what it can be done to.
//!
//! The one place that spells the actions and says which kind of name each applies to.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::escape::Escaped;
use crate::path::{PathError, Prefix, RemotePath, Topic};

/// What a topic begins with where it could be taken for a path.
pub const TOPIC_MARK: &str = "topic:";

/// A right that a grant can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See the names in a directory.
    List,
    /// Read a file.
    Read,
    /// Make a file where none is.
    Create,
    /// Make a file in the place of another.
    Replace,
    /// Take a file away.
    Delete,
    /// Send to a topic.
    Publish,
    /// Receive from a topic.
    Subscribe,
    /// Administer what is under a directory; the server itself is `/`.
    Admin,
}

/// Why a text is not an action.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is not an action; actions are {names}", names = all_names())]
pub struct ActionError(Escaped);

/// What an action can apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Files and directories.
    Path,
    Topic,
}

/// A name that something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    File(&'a RemotePath),
    Directory(&'a Prefix),
    Topic(&'a Topic),
}

/// A type of names that a policy judges.
pub trait Resource {
    /// This name, whatever its type.
    fn name(&self) -> Name<'_>;
}

/// A name as it is written in a policy or on a command line: `/a/b`, `/a/` or `topic:a/b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    File(RemotePath),
    Directory(Prefix),
    Topic(Topic),
}

impl Action {
    /// All of them, in the order that they are listed in.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::Read,
        Self::Create,
        Self::Replace,
        Self::Delete,
        Self::Publish,
        Self::Subscribe,
        Self::Admin,
    ];

    /// The action as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
        }
    }

    /// What the action can apply to.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Publish | Self::Subscribe => Kind::Topic,
            Self::List | Self::Read | Self::Create | Self::Replace | Self::Delete | Self::Admin => {
                Kind::Path
            }
        }
    }
}

fn all_names() -> String {
    Action::ALL.map(Action::as_str).join(", ")
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == text);
        found.ok_or_else(|| ActionError(Escaped::new(text)))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Path => "files and directories",
            Self::Topic => "topics",
        })
    }
}

impl Name<'_> {
    /// What the name is of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::File(_) | Self::Directory(_) => Kind::Path,
            Self::Topic(_) => Kind::Topic,
        }
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Directory(prefix) => prefix.fmt(f),
            Self::Topic(topic) => write!(f, "{TOPIC_MARK}{topic}"),
        }
    }
}

impl Resource for RemotePath {
    fn name(&self) -> Name<'_> {
        Name::File(self)
    }
}

impl Resource for Prefix {
    fn name(&self) -> Name<'_> {
        Name::Directory(self)
    }
}

impl Resource for Topic {
    fn name(&self) -> Name<'_> {
        Name::Topic(self)
    }
}

impl Resource for Target {
    fn name(&self) -> Name<'_> {
        match self {
            Self::File(path) => Name::File(path),
            Self::Directory(prefix) => Name::Directory(prefix),
            Self::Topic(topic) => Name::Topic(topic),
        }
    }
}

impl FromStr for Target {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        match text.strip_prefix(TOPIC_MARK) {
            Some(topic) => topic.parse().map(Self::Topic),
            None if text.ends_with('/') => text.parse().map(Self::Directory),
            None => text.parse().map(Self::File),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_read_back_as_they_are_written() {
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        for text in ["", "Read", "write", "read ", "*", "\u{1b}[2J"] {
            let error = text.parse::<Action>().unwrap_err().to_string();
            assert!(error.contains("actions are list, read"), "{error}");
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn targets_are_told_apart_by_their_form() {
        assert!(matches!("/a/b".parse(), Ok(Target::File(_))));
        assert!(matches!("/a/b/".parse(), Ok(Target::Directory(_))));
        assert!(matches!("/".parse(), Ok(Target::Directory(_))));
        assert!(matches!("topic:a/b".parse(), Ok(Target::Topic(_))));
        for text in ["", "a", "//", "topic:", "topic:/a", "/a/../b"] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }
}
