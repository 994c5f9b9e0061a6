//! Which parts of a large file are still to be moved, and what is known of the others.
//!
//! Work is handed out in runs of parts; near the end runs are shorter, so that all streams end together.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::{Digest, PartDigest, combine};

/// Bytes of the longest run.
const RUN_SIZE_MAX: u64 = 64 << 20;

/// A run of parts: `size` bytes from `offset` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Run {
    pub(super) const fn end(self) -> u64 {
        self.offset + self.size
    }
}

/// The parts of one file.
pub(super) struct Work {
    size: u64,
    part_size: u64,
    state: Mutex<State>,
    /// Bytes that went over a connection, to be of use or not.
    n_moved: AtomicU64,
}

struct State {
    /// What was hashed here.
    digests: Vec<Option<PartDigest>>,
    is_done: Vec<bool>,
    n_done: u64,
    /// Runs of parts that are not done: the first one, and the one after the last.
    waiting: VecDeque<(u64, u64)>,
    n_waiting: u64,
}

impl Work {
    /// A file of `size` bytes of which nothing is done.
    pub(super) fn new(size: u64, part_size: u64) -> Self {
        let n_parts = usize::try_from(size.div_ceil(part_size)).unwrap_or(usize::MAX);
        let state = State {
            digests: vec![None; n_parts],
            is_done: vec![false; n_parts],
            n_done: 0,
            waiting: VecDeque::new(),
            n_waiting: 0,
        };
        Self {
            size,
            part_size,
            state: Mutex::new(state),
            n_moved: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn part_size(&self) -> u64 {
        self.part_size
    }

    pub(super) fn n_parts(&self) -> u64 {
        self.size.div_ceil(self.part_size)
    }

    /// The number of the part that ends at `offset`, if one does.
    pub(super) fn ending_at(&self, offset: u64) -> Option<u64> {
        let ends = offset > 0 && (offset.is_multiple_of(self.part_size) || offset == self.size);
        ends.then(|| (offset - 1) / self.part_size)
    }

    /// What the bytes of a part are, as they were read here.
    pub(super) fn set_digest(&self, number: u64, digest: PartDigest) {
        if let Some(known) = self.state().digests.get_mut(at(number)) {
            *known = Some(digest);
        }
    }

    /// What the bytes of a part are, if they were read here.
    pub(super) fn digest_of(&self, number: u64) -> Option<PartDigest> {
        *self.state().digests.get(at(number))?
    }

    /// The other side has the part, or has it no more.
    pub(super) fn set_done(&self, number: u64, is_done: bool) {
        let mut state = self.state();
        let Some(known) = state.is_done.get_mut(at(number)) else {
            return;
        };
        let was_done = std::mem::replace(known, is_done);
        state.n_done = state.n_done + u64::from(is_done) - u64::from(was_done);
    }

    /// All parts of a run are done.
    pub(super) fn finish(&self, run: Run) {
        let first = run.offset / self.part_size;
        for number in first..run.end().div_ceil(self.part_size) {
            self.set_done(number, true);
        }
    }

    /// Nothing is done.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.is_done.fill(false);
        state.n_done = 0;
    }

    /// Makes runs of all that is not done.
    pub(super) fn plan(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.n_waiting = 0;
        let mut first = None;
        for number in 0..=self.n_parts() {
            let is_open = state
                .is_done
                .get(at(number))
                .is_some_and(|is_done| !is_done);
            match (first, is_open) {
                (None, true) => first = Some(number),
                (Some(begin), false) => {
                    state.waiting.push_back((begin, number));
                    state.n_waiting += number - begin;
                    first = None;
                }
                _ => {}
            }
        }
    }

    /// Gives out no more runs: after an interruption what is left is planned anew, for all streams.
    pub(super) fn halt(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.n_waiting = 0;
    }

    /// The next run for one of `n_streams`.
    pub(super) fn next(&self, n_streams: usize) -> Option<Run> {
        let mut state = self.state();
        let fair = state.n_waiting.div_ceil(2 * n_streams as u64);
        let n_max = fair.clamp(1, (RUN_SIZE_MAX / self.part_size).max(1));
        let (first, end) = state.waiting.front_mut()?;
        let begin = *first;
        let n = n_max.min(*end - begin);
        *first += n;
        if *first == *end {
            state.waiting.pop_front();
        }
        state.n_waiting -= n;
        let offset = begin * self.part_size;
        Some(Run {
            offset,
            size: (n * self.part_size).min(self.size - offset),
        })
    }

    /// Counts bytes that went over a connection.
    pub(super) fn count(&self, n: usize) {
        self.n_moved.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// How far it is: for [`Work::has_moved_since`].
    pub(super) fn mark(&self) -> (u64, u64) {
        (self.n_done(), self.n_moved.load(Ordering::Relaxed))
    }

    /// Whether it is a part further, or that many bytes have moved.
    pub(super) fn has_moved_since(&self, (n_done, n_moved): (u64, u64)) -> bool {
        let now = self.mark();
        now.0 > n_done || now.1 - n_moved >= self.part_size
    }

    /// Parts that are done.
    pub(super) fn n_done(&self) -> u64 {
        self.state().n_done
    }

    /// Bytes that are done.
    pub(super) fn size_done(&self) -> u64 {
        (self.n_done() * self.part_size).min(self.size)
    }

    /// The digest of the whole file, once every part was read here.
    pub(super) fn digest(&self) -> Option<Digest> {
        let state = self.state();
        let parts: Option<Vec<PartDigest>> = state.digests.iter().copied().collect();
        combine(&parts?)
    }
}

fn at(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(work: &Work, n_streams: usize) -> Vec<Run> {
        std::iter::from_fn(|| work.next(n_streams)).collect()
    }

    #[test]
    fn runs_cover_what_is_not_done_once() {
        let work = Work::new((10 << 20) + 5, 1 << 20);
        assert_eq!(work.n_parts(), 11);
        for number in [0, 4, 5] {
            work.set_done(number, true);
        }
        work.set_done(99, true);
        work.plan();
        let runs = all(&work, 2);
        let covered: u64 = runs.iter().map(|run| run.size).sum();
        assert_eq!(covered, (7 << 20) + 5);
        assert!(
            runs.iter()
                .all(|run| run.offset != 0 && run.offset != 4 << 20)
        );
        for run in runs {
            work.finish(run);
        }
        assert_eq!(work.n_done(), 11);
        assert_eq!(work.size_done(), work.size());
        work.plan();
        assert_eq!(work.next(1), None);
        work.set_done(3, false);
        work.plan();
        work.halt();
        assert_eq!(work.next(1), None);
    }

    #[test]
    fn runs_are_bounded_and_shorter_at_the_end() {
        let work = Work::new(1 << 30, 1 << 20);
        work.plan();
        let runs = all(&work, 2);
        assert!(runs.iter().all(|run| run.size <= RUN_SIZE_MAX));
        assert_eq!(runs[0].size, RUN_SIZE_MAX);
        assert_eq!(runs.last().unwrap().size, 1 << 20);
        assert_eq!(work.ending_at(1 << 20), Some(0));
        assert_eq!(work.ending_at((1 << 20) + 1), None);
        assert_eq!(work.ending_at(1 << 30), Some(1023));
    }
}
