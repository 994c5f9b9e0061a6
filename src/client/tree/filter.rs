//! Which files of a tree are meant: patterns in the order given, of which the first that matches
//! decides.
//!
//! The same patterns choose on both sides, so that what is left out is neither sent nor removed.

use globset::{GlobBuilder, GlobMatcher};
use thiserror::Error;

use crate::escape::Escaped;

/// Most patterns of one command.
pub const PATTERNS_MAX: usize = 1_000;
/// Longest pattern in bytes.
const PATTERN_SIZE_MAX: usize = 1_024;

/// Why a text is not a pattern.
#[derive(Debug, Error)]
pub enum PatternError {
    #[error("the pattern is empty")]
    Empty,
    #[error("the pattern has {size} bytes, at most {PATTERN_SIZE_MAX} are allowed")]
    TooLong { size: usize },
    #[error("{n} patterns, at most {PATTERNS_MAX} are allowed")]
    TooMany { n: usize },
    #[error("the pattern {pattern} makes no sense")]
    Glob {
        pattern: Escaped,
        #[source]
        source: globset::Error,
    },
}

/// Whether what a pattern matches is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Include,
    Exclude,
}

#[derive(Debug, Clone)]
struct Rule {
    choice: Choice,
    file: GlobMatcher,
    /// A directory of which all is matched.
    whole: Option<GlobMatcher>,
}

/// The patterns of one command; without any, every file is taken.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    rules: Vec<Rule>,
    /// What no pattern matches is left out.
    only_included: bool,
}

impl Filters {
    /// Patterns in order. One that begins with `/` stands for names from the root of the transfer,
    /// another for names at any depth; `**` stands for any depth, `*` for part of one segment; one
    /// that ends in `/` for a directory and all below.
    ///
    /// # Errors
    /// One of them makes no sense.
    pub fn new<'a>(
        patterns: impl IntoIterator<Item = (Choice, &'a str)>,
    ) -> Result<Self, PatternError> {
        let mut filters = Self::default();
        for (choice, pattern) in patterns {
            filters.rules.push(Rule::new(choice, pattern)?);
            filters.only_included |= choice == Choice::Include;
        }
        if filters.rules.len() > PATTERNS_MAX {
            return Err(PatternError::TooMany {
                n: filters.rules.len(),
            });
        }
        Ok(filters)
    }

    /// Whether every file is meant.
    pub(super) const fn takes_all(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a file is meant, by its name relative to the root of the transfer.
    pub fn takes(&self, relative: &str) -> bool {
        let rule = self.rules.iter().find(|rule| rule.file.is_match(relative));
        rule.map_or(!self.only_included, |rule| rule.choice == Choice::Include)
    }

    /// Whether nothing in a directory can be meant, so that it need not be looked at.
    pub fn passes_over(&self, relative: &str) -> bool {
        let mut leading = self
            .rules
            .iter()
            .take_while(|rule| rule.choice == Choice::Exclude);
        leading.any(|rule| {
            let whole = rule.whole.as_ref();
            whole.is_some_and(|whole| whole.is_match(relative))
        })
    }
}

impl Rule {
    fn new(choice: Choice, pattern: &str) -> Result<Self, PatternError> {
        let size = pattern.len();
        if size > PATTERN_SIZE_MAX {
            return Err(PatternError::TooLong { size });
        }
        let anchored = pattern.strip_prefix('/');
        let body = anchored.unwrap_or(pattern);
        if body.is_empty() {
            return Err(PatternError::Empty);
        }
        let rooted = if anchored.is_some() {
            body.to_owned()
        } else {
            format!("**/{body}")
        };
        let file = match rooted.strip_suffix('/') {
            Some(directory) => format!("{directory}/**"),
            None => rooted,
        };
        let whole = match file.as_str() {
            "**" | "**/**" => Some("**"),
            file => file.strip_suffix("/**"),
        };
        let glob = |text: &str| {
            let glob = GlobBuilder::new(text)
                .literal_separator(true)
                .backslash_escape(true)
                .build();
            glob.map(|glob| glob.compile_matcher())
                .map_err(|source| PatternError::Glob {
                    pattern: Escaped::new(pattern),
                    source,
                })
        };
        Ok(Self {
            choice,
            whole: whole.map(glob).transpose()?,
            file: glob(&file)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Choice::{Exclude, Include};
    use super::*;

    #[track_caller]
    fn check(patterns: &[(Choice, &str)], taken: &[&str], left: &[&str]) {
        let filters = Filters::new(patterns.iter().copied()).unwrap();
        for name in taken {
            assert!(filters.takes(name), "{patterns:?} should take {name}");
            for (at, _) in name.match_indices('/') {
                let directory = &name[..at];
                assert!(
                    !filters.passes_over(directory),
                    "{patterns:?} passes over {directory}"
                );
            }
        }
        for name in left {
            assert!(!filters.takes(name), "{patterns:?} should not take {name}");
        }
    }

    #[test]
    fn the_first_pattern_that_matches_decides() {
        check(&[], &["a", "a/b"], &[]);
        check(
            &[(Exclude, "*.tmp")],
            &["a", "tmp", "d/a.tmpx"],
            &["a.tmp", "d/e/a.tmp"],
        );
        check(&[(Exclude, "/*.tmp")], &["d/a.tmp"], &["a.tmp"]);
        check(
            &[(Include, "*.rs")],
            &["a.rs", "src/a.rs"],
            &["a", "src/a.c"],
        );
        check(
            &[(Exclude, "/a/*.rs"), (Include, "*.rs")],
            &["b.rs", "a/b/c.rs"],
            &["a/b.rs", "x"],
        );
        check(
            &[(Include, "keep.tmp"), (Exclude, "*.tmp"), (Include, "**")],
            &["keep.tmp", "d/keep.tmp", "x"],
            &["a.tmp", "d/a.tmp"],
        );
    }

    #[test]
    fn directories_and_depth() {
        check(
            &[(Exclude, "target/")],
            &["target", "src/target", "target2/x"],
            &["target/x", "a/target/b/c"],
        );
        check(&[(Exclude, "/target/")], &["a/target/x"], &["target/x/y"]);
        check(&[(Include, "/d/**")], &["d/a", "d/e/a"], &["d", "x/d/a"]);
        check(&[(Include, "/d/*")], &["d/a"], &["d/e/a", "e/a"]);
        check(
            &[(Include, "a?c"), (Include, "[xy].z"), (Include, "{p,q}r")],
            &["abc", "x.z", "d/qr"],
            &["ac", "w.z", "a/c"],
        );
        check(&[(Exclude, "**")], &[], &["a", "a/b"]);
    }

    #[test]
    fn a_directory_is_passed_over_only_if_nothing_in_it_is_meant() {
        let filters = |patterns: &[(Choice, &str)]| Filters::new(patterns.iter().copied()).unwrap();
        let over = [(Exclude, "target/")];
        assert!(filters(&over).passes_over("target"));
        assert!(filters(&over).passes_over("a/target"));
        assert!(!filters(&over).passes_over("targets"));
        let kept = [(Include, "/target/keep"), (Exclude, "target/")];
        assert!(!filters(&kept).passes_over("target"));
        assert!(!filters(&[(Exclude, "*")]).passes_over("a"));
        assert!(filters(&[(Exclude, "**")]).passes_over("a/b"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for pattern in ["", "/", "[a", &"x".repeat(2_000)] {
            assert!(Filters::new([(Include, pattern)]).is_err(), "{pattern}");
        }
        assert!(Filters::new(vec![(Include, "x"); PATTERNS_MAX + 1]).is_err());
    }
}
