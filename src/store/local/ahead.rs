//! Names of directories that were read, and may be asked for next: the next page is asked for at once.
//!
//! Without them a directory is read once for each page of it. A page may end before the last of its
//! names, so that names are kept until those behind them are asked for; and only as long as the
//! directory is as it was.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// Names that are read at a time.
pub(super) const NAMES_MAX: usize = 8192;
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
        let is_it = |rest: &Rest| {
            let reaches = !rest.more || rest.names.last().is_some_and(|last| last.as_str() > after);
            rest.directory == directory && rest.after.as_str() <= after && reaches
        };
        let at = rests.iter().position(is_it)?;
        let mut rest = rests.remove(at)?;
        let n_before = rest.names.partition_point(|name| name.as_str() <= after);
        rest.names.drain(..n_before);
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
    fn names_are_given_behind_any_of_them() {
        let state = |second| State {
            inode: (1, 2),
            modified: (second, 0),
            changed: (second, 0),
        };
        assert!(state(1).is_calm() && !state(i64::MAX).is_calm());
        let ahead = Ahead::default();
        ahead.keep(state(1), "/".to_owned(), names(3, 1), true);
        // From before them, from behind them, of a directory that changed.
        for (second, after) in [(1, ""), (1, "2"), (1, "3"), (2, "1")] {
            assert!(ahead.take(state(second), after).is_none(), "{after}");
        }
        assert_eq!(
            ahead.take(state(1), "1"),
            Some((names(3, 1)[2..].to_vec(), true))
        );
        assert!(ahead.take(state(1), "1").is_none());
        ahead.keep(state(1), "/".to_owned(), names(3, 1), false);
        assert_eq!(ahead.take(state(1), "2"), Some((Vec::new(), false)));
        // Too many names, and too many directories.
        ahead.keep(state(0), "/".to_owned(), names(NAMES_MAX, 200), false);
        let (kept, more) = ahead.take(state(0), "/").unwrap();
        assert!(more && kept.len() == SIZE_MAX / 200);
        for second in 0..5 {
            ahead.keep(state(second), "/".to_owned(), names(1, 1), true);
        }
        assert!(ahead.take(state(0), "/").is_none());
        assert!(ahead.take(state(4), "/").is_some());
    }
}
