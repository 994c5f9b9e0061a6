//! Paths between their append and their publication.
//!
//! A reader that finds log and tree apart waits here for the commit that explains it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::path::RemotePath;

/// Paths of which the log may say one thing and the tree still another.
#[derive(Default)]
pub(super) struct Pending {
    paths: Mutex<HashMap<RemotePath, usize>>,
    settled: Condvar,
}

impl Pending {
    pub(super) fn begin<'a>(&self, paths: impl Iterator<Item = &'a RemotePath>) {
        let mut pending = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths {
            *pending.entry(path.clone()).or_default() += 1;
        }
    }

    pub(super) fn end<'a>(&self, paths: impl Iterator<Item = &'a RemotePath>) {
        let mut pending = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths {
            if let Some(count) = pending.get_mut(path) {
                *count -= 1;
                if *count == 0 {
                    pending.remove(path);
                }
            }
        }
        self.settled.notify_all();
    }

    /// Waits until the path is not pending; says whether it was. Blocks, at most for `limit`.
    pub(super) fn wait(&self, path: &RemotePath, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut pending = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waited = false;
        while pending.contains_key(path) {
            waited = true;
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            let (guard, _) = self
                .settled
                .wait_timeout(pending, left)
                .unwrap_or_else(PoisonError::into_inner);
            pending = guard;
        }
        waited
    }
}
