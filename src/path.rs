//! Names that a peer may use: files, directories and topics.
//!
//! A value of these types is a checked name. They deserialise only into a valid value, so that an
//! unchecked name never gets past the decoder, and the same value is judged by the policy and
//! opened by the store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::is_nfc;

use crate::escape::{Escaped, is_hidden};

/// Longest name in bytes, the leading slash included.
pub const PATH_SIZE_MAX: usize = 1024;
/// Longest segment in bytes (what a Linux directory entry holds).
pub const SEGMENT_SIZE_MAX: usize = 255;
/// Most segments in a name.
pub const DEPTH_MAX: usize = 32;
/// First bytes of the names that belong to the server itself.
pub const RESERVED_PREFIX: &str = ".fsvc";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("a remote path begins with /")]
    NotAbsolute,
    #[error("a topic has no leading /")]
    TopicAbsolute,
    #[error("the name is empty")]
    Empty,
    #[error("{0} names a directory, a file is needed")]
    NotAFile(Escaped),
    #[error("the name has {size} bytes, at most {PATH_SIZE_MAX} are allowed")]
    TooLong { size: usize },
    #[error("a segment has {size} bytes, at most {SEGMENT_SIZE_MAX} are allowed")]
    SegmentTooLong { size: usize },
    #[error("the name has {depth} segments, at most {DEPTH_MAX} are allowed")]
    TooDeep { depth: usize },
    #[error("the name has an empty segment (//)")]
    EmptySegment,
    #[error("the name has a segment {0}, which is not allowed")]
    DotSegment(&'static str),
    #[error("the name holds the character U+{0:04X}, which is not allowed")]
    Character(u32),
    #[error("the name is not in Unicode normalisation form C")]
    NotNormalised,
    #[error("names that begin with {RESERVED_PREFIX} belong to the server")]
    Reserved,
    #[error("a segment ends in a space or a dot, or begins with a space")]
    Edge,
}

/// The name of one file on the server: `/`-rooted, checked, in one canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RemotePath(String);

/// The name of one directory on the server; ends in `/`. Directories are implicit: one is there
/// while a file is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix(String);

/// The name of one topic, such as `telemetry/line-4/temperature`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Topic(String);

impl RemotePath {
    /// The name as text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its leading slash: relative to the root of a store.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The segments, outermost first; at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.relative().split('/')
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or(self.relative(), |(_, name)| name)
    }

    /// Whether the directory that it is in has this name.
    pub fn is_in(&self, directory: &Prefix) -> bool {
        let name = self.0.strip_prefix(directory.as_str());
        name.is_some_and(|name| !name.contains('/'))
    }

    /// The directory that the file is in.
    pub fn parent(&self) -> Prefix {
        let end = self
            .0
            .rfind('/')
            .expect("a remote path begins with a slash");
        Prefix(self.0[..=end].to_owned())
    }

    /// The names that would have to be directories for this file to be there, innermost first,
    /// without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.0
            .char_indices()
            .rev()
            .filter(|(at, c)| *c == '/' && *at > 0)
            .map(|(at, _)| Self(self.0[..at].to_owned()))
    }

    /// This name taken as a directory.
    pub fn as_prefix(&self) -> Prefix {
        Prefix(format!("{}/", self.0))
    }
}

impl Prefix {
    /// The root directory.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The name as text, with its slashes at both ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name relative to the root of a store: no slash at either end, empty for the root.
    pub fn relative(&self) -> &str {
        self.0.trim_matches('/')
    }

    /// The segments, outermost first; none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.relative()
            .split('/')
            .filter(|segment| !segment.is_empty())
    }

    /// The file called `name` in this directory.
    ///
    /// # Errors
    /// The joined name does not fit the rules of a remote path.
    pub fn join(&self, name: &str) -> Result<RemotePath, PathError> {
        if name.contains('/') {
            return Err(PathError::Character(u32::from('/')));
        }
        format!("{}{name}", self.0).parse()
    }
}

impl Topic {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, outermost first; at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for RemotePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let relative = rooted(text)?;
        if relative.is_empty() || relative.ends_with('/') {
            check_segments(relative.trim_end_matches('/'))?;
            return Err(PathError::NotAFile(Escaped::new(text)));
        }
        check_segments(relative)?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Prefix {
    type Err = PathError;

    /// Takes a directory's name with or without its last slash.
    fn from_str(text: &str) -> Result<Self, PathError> {
        let relative = rooted(text)?;
        let relative = relative.strip_suffix('/').unwrap_or(relative);
        if relative.is_empty() {
            return if text == "/" {
                Ok(Self::root())
            } else {
                Err(PathError::EmptySegment)
            };
        }
        check_segments(relative)?;
        Ok(Self(format!("/{relative}/")))
    }
}

impl FromStr for Topic {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_SIZE_MAX {
            return Err(PathError::TooLong { size: text.len() });
        }
        if text.starts_with('/') {
            return Err(PathError::TopicAbsolute);
        }
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        check_segments(text)?;
        Ok(Self(text.to_owned()))
    }
}

fn rooted(text: &str) -> Result<&str, PathError> {
    if text.len() > PATH_SIZE_MAX {
        return Err(PathError::TooLong { size: text.len() });
    }
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    text.strip_prefix('/').ok_or(PathError::NotAbsolute)
}

fn check_segments(relative: &str) -> Result<(), PathError> {
    if relative.is_empty() {
        return Ok(());
    }
    if let Some(c) = relative.chars().find(|c| is_hidden(*c) || *c == '\\') {
        return Err(PathError::Character(u32::from(c)));
    }
    if !is_nfc(relative) {
        return Err(PathError::NotNormalised);
    }
    let depth = relative.split('/').count();
    if depth > DEPTH_MAX {
        return Err(PathError::TooDeep { depth });
    }
    relative.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    if segment.len() > SEGMENT_SIZE_MAX {
        return Err(PathError::SegmentTooLong {
            size: segment.len(),
        });
    }
    match segment {
        "" => return Err(PathError::EmptySegment),
        "." => return Err(PathError::DotSegment(".")),
        ".." => return Err(PathError::DotSegment("..")),
        _ => {}
    }
    // A peer on a file system without case must not reach the reserved names either.
    let head = segment.as_bytes().get(..RESERVED_PREFIX.len());
    if head.is_some_and(|head| head.eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes())) {
        return Err(PathError::Reserved);
    }
    if segment.starts_with(' ') || segment.ends_with([' ', '.']) {
        return Err(PathError::Edge);
    }
    Ok(())
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = PathError;

            fn try_from(text: String) -> Result<Self, PathError> {
                text.parse()
            }
        }
    };
}

text_form!(RemotePath);
text_form!(Prefix);
text_form!(Topic);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, why: &PathError) {
        assert_eq!(text.parse::<RemotePath>().as_ref(), Err(why), "{text:?}");
    }

    #[test]
    fn good_names_keep_their_bytes() {
        let long = format!("/{}", "x".repeat(SEGMENT_SIZE_MAX));
        let deep = "/d".repeat(DEPTH_MAX);
        for text in [
            "/a",
            "/a/b.txt",
            "/ü/日本/a b",
            "/-rf",
            "/~",
            "/*?[x]",
            "/%2e%2e%2f",
            "/CON",
            "/a:b",
            &long,
            &deep,
        ] {
            assert_eq!(
                text.parse::<RemotePath>().map(String::from).as_deref(),
                Ok(text)
            );
        }
    }

    #[test]
    fn bad_names_are_refused_with_their_reason() {
        refused("", &PathError::Empty);
        refused("a", &PathError::NotAbsolute);
        refused("/a//b", &PathError::EmptySegment);
        refused("/a/./b", &PathError::DotSegment("."));
        refused("/../etc/passwd", &PathError::DotSegment(".."));
        refused("/a/..", &PathError::DotSegment(".."));
        refused("/a\\..\\b", &PathError::Character(0x5c));
        refused("/a\0b", &PathError::Character(0));
        refused("/a\u{1b}[2J", &PathError::Character(0x1b));
        refused("/a\u{202e}b", &PathError::Character(0x202e));
        refused("/e\u{301}", &PathError::NotNormalised);
        refused("/.fsvc/log.redb", &PathError::Reserved);
        refused("/a/.FSVC-tmp", &PathError::Reserved);
        refused("/a.", &PathError::Edge);
        refused("/a ", &PathError::Edge);
        refused(
            &"/d".repeat(DEPTH_MAX + 1),
            &PathError::TooDeep {
                depth: DEPTH_MAX + 1,
            },
        );
        refused(
            &format!("/{}", "x".repeat(256)),
            &PathError::SegmentTooLong { size: 256 },
        );
        refused(&"/xxx".repeat(300), &PathError::TooLong { size: 1200 });
        assert!(matches!(
            "/".parse::<RemotePath>(),
            Err(PathError::NotAFile(_))
        ));
        assert!(matches!(
            "/a/".parse::<RemotePath>(),
            Err(PathError::NotAFile(_))
        ));
    }

    #[test]
    fn prefixes_have_one_form() {
        assert_eq!("/".parse(), Ok(Prefix::root()));
        assert_eq!("/a/b".parse::<Prefix>(), "/a/b/".parse());
        assert_eq!(
            "/a/b".parse::<Prefix>().map(String::from).as_deref(),
            Ok("/a/b/")
        );
        assert_eq!("//".parse::<Prefix>(), Err(PathError::EmptySegment));
    }

    #[test]
    fn relations_between_names() {
        let path: RemotePath = "/a/b/c".parse().unwrap();
        assert_eq!(path.file_name(), "c");
        assert_eq!(path.parent().as_str(), "/a/b/");
        let ancestors: Vec<String> = path.ancestors().map(String::from).collect();
        assert_eq!(ancestors, ["/a/b", "/a"]);
        assert_eq!(path.parent().join("d").unwrap().as_str(), "/a/b/d");
        assert!(path.parent().join("../d").is_err());
    }
}
