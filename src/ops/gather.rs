//! What becomes one batch: all that waits, and what is about to come.
//!
//! Whoever was just answered is likely to ask again at once. A short wait for them saves a whole
//! sync, and is never longer than a part of what the last one took; a single writer waits for nobody.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Longest wait for what is likely to come.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// What the next batch is likely to be.
#[derive(Debug, Default)]
pub(super) struct Expected {
    n_jobs: usize,
    wait: Duration,
}

impl Expected {
    /// After a batch of `n_answered` that took some time, while `n_waiting` came.
    pub(super) fn after(n_answered: usize, n_waiting: usize, took: Duration) -> Self {
        Self {
            n_jobs: n_answered + n_waiting,
            wait: (took / 2).min(WAIT_MAX),
        }
    }
}

/// A batch that begins with `first`, of jobs that together have no more than `size_max` and those of
/// the job that goes over it.
pub(super) fn gather<J>(
    jobs: &Receiver<J>,
    first: J,
    expected: &Expected,
    size_max: usize,
    size: impl Fn(&J) -> usize,
) -> Vec<J> {
    let deadline = Instant::now() + expected.wait;
    let mut total = size(&first);
    let mut batch = vec![first];
    while total < size_max {
        let next = jobs.try_recv().ok().or_else(|| {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_worth_it = batch.len() < expected.n_jobs && !left.is_zero();
            is_worth_it.then(|| jobs.recv_timeout(left).ok()).flatten()
        });
        let Some(job) = next else { break };
        total += size(&job);
        batch.push(job);
    }
    batch
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[track_caller]
    fn check(waiting: &[usize], expected: &Expected, batch: &[usize]) {
        let (queue, jobs) = sync_channel(16);
        for job in waiting {
            queue.send(*job).unwrap();
        }
        assert_eq!(gather(&jobs, 1, expected, 8, |job| *job), batch);
    }

    #[test]
    fn a_batch_is_what_waits_up_to_its_size() {
        check(&[], &Expected::default(), &[1]);
        check(&[2, 3], &Expected::default(), &[1, 2, 3]);
        check(&[4, 5, 6], &Expected::default(), &[1, 4, 5]);
    }

    #[test]
    fn who_was_answered_is_waited_for_and_not_for_long() {
        let expected = Expected::after(2, 0, Duration::from_secs(60));
        check(&[], &expected, &[1]);
        let (queue, jobs) = sync_channel(16);
        let late = std::thread::spawn(move || queue.send(2).unwrap());
        let long = Expected {
            n_jobs: 2,
            wait: Duration::from_secs(60),
        };
        assert_eq!(gather(&jobs, 1, &long, 8, |job| *job), [1, 2]);
        late.join().unwrap();
    }
}
