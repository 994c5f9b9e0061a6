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
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    paths: HashMap<RemotePath, usize>,
    /// Sets that began to be published, and those that are.
    n_sets_begun: u64,
    n_sets_ended: u64,
}

impl Pending {
    pub(super) fn begin<'a>(&self, paths: impl Iterator<Item = &'a RemotePath>, has_set: bool) {
        let mut pending = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        pending.n_sets_begun += u64::from(has_set);
        for path in paths {
            *pending.paths.entry(path.clone()).or_default() += 1;
        }
    }

    pub(super) fn end<'a>(&self, paths: impl Iterator<Item = &'a RemotePath>, has_set: bool) {
        let mut pending = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        pending.n_sets_ended += u64::from(has_set);
        for path in paths {
            if let Some(count) = pending.paths.get_mut(path) {
                *count -= 1;
                if *count == 0 {
                    pending.paths.remove(path);
                }
            }
        }
        self.settled.notify_all();
    }

    /// Waits until no set is half visible; says how many there have been. Blocks, at most for
    /// `limit`.
    pub(super) fn wait_sets(&self, limit: Duration) -> u64 {
        let pending = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |pending: &mut State| pending.n_sets_begun != pending.n_sets_ended;
        let (pending, _) = self
            .settled
            .wait_timeout_while(pending, limit, is_open)
            .unwrap_or_else(PoisonError::into_inner);
        pending.n_sets_ended
    }

    /// How many sets have begun to be published.
    pub(super) fn n_sets(&self) -> u64 {
        let pending = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        pending.n_sets_begun
    }

    /// Waits until the path is not pending; says whether it was. Blocks, at most for `limit`.
    pub(super) fn wait(&self, path: &RemotePath, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut pending = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waited = false;
        while pending.paths.contains_key(path) {
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
