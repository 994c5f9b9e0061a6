//! Names of directories that were read, and not given yet: the next page is asked for at once.
//!
//! Without them a directory is read once for each page of it. They are used once, and only as long as
//! the directory is as it was.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// Names that are read at a time.
pub(super) const NAMES_MAX: usize = 4096;
/// Bytes of names that are kept of one directory.
const SIZE_MAX: usize = 256 << 10;
/// Directories of which there are any.
const DIRECTORIES_MAX: usize = 4;
/// A directory that changed so shortly before may change again and look the same: the clock of file
/// systems stands still for some milliseconds.
const CALM: Duration = Duration::from_millis(100);

/// Names to come, of a few directories.
#[derive(Default)]
pub(super) struct Ahead(Mutex<VecDeque<Rest>>);

/// Names of one directory, in order.
struct Rest {
    directory: State,
    after: String,
    names: Vec<String>,
    more: bool,
}

/// A directory, and how it was last changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    pub(super) fn of(status: &Stat) -> Self {
        let nanoseconds = |n| i64::try_from(n).unwrap_or_default();
        Self {
            inode: (status.st_dev, status.st_ino),
            modified: (status.st_mtime, nanoseconds(status.st_mtime_nsec)),
            changed: (status.st_ctime, nanoseconds(status.st_ctime_nsec)),
        }
    }

    /// Whether a change from now on would be seen.
    pub(super) fn is_calm(self) -> bool {
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        let since = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.is_ok_and(|now| now > since + CALM)
    }
}

impl Ahead {
    /// The names behind `after`, and whether there are more behind them.
    pub(super) fn take(&self, directory: State, after: &str) -> Option<(Vec<String>, bool)> {
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |rest: &Rest| rest.directory == directory && rest.after == after;
        let at = rests.iter().position(is_it)?;
        let rest = rests.remove(at)?;
        Some((rest.names, rest.more))
    }

    /// Keeps names behind `after`, in place of the oldest.
    pub(super) fn keep(&self, directory: State, after: String, names: Vec<String>, more: bool) {
        let mut rest = Rest {
            directory,
            after,
            names,
            more,
        };
        let mut size = 0;
        let mut fits = |name: &String| {
            size += name.len();
            size <= SIZE_MAX
        };
        let n = rest.names.iter().take_while(|name| fits(name)).count();
        if n < rest.names.len() {
            rest.names.truncate(n);
            rest.more = true;
        }
        if rest.names.is_empty() {
            return;
        }
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rests.len() == DIRECTORIES_MAX {
            rests.pop_front();
        }
        rests.push_back(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize, length: usize) -> Vec<String> {
        (0..n).map(|n| format!("{n:0length$}")).collect()
    }

    #[test]
    fn names_are_given_once_to_whoever_asks_for_these() {
        let state = |second| State {
            inode: (1, 2),
            modified: (second, 0),
            changed: (second, 0),
        };
        assert!(state(1).is_calm() && !state(i64::MAX).is_calm());
        let ahead = Ahead::default();
        ahead.keep(state(1), "a".to_owned(), names(3, 1), false);
        assert!(ahead.take(state(1), "b").is_none());
        assert!(ahead.take(state(2), "a").is_none());
        assert_eq!(ahead.take(state(1), "a"), Some((names(3, 1), false)));
        assert!(ahead.take(state(1), "a").is_none());
        // Too many names, and too many directories.
        ahead.keep(state(0), "a".to_owned(), names(NAMES_MAX, 200), false);
        let (kept, more) = ahead.take(state(0), "a").unwrap();
        assert!(more && kept.len() == SIZE_MAX / 200);
        for second in 0..5 {
            ahead.keep(state(second), "a".to_owned(), names(1, 1), true);
        }
        assert!(ahead.take(state(0), "a").is_none());
        assert!(ahead.take(state(4), "a").is_some());
    }
}
