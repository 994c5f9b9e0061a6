//! Settling: making the tree as durable as the log says it is, behind the answers.
//!
//! Small contents of many are acknowledged while they are durable beside the tree alone. The mark of what
//! is published for good stays behind their records until the whole file system was synced; only when
//! that is kept are their second copies given up.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tracing::error;

use super::Parts;
use super::commit::Worker;
use super::job::Job;
use crate::log::{Change, LogError};
use crate::store::StoreError;

/// Time between two looks. What both find is settled: so that more can come together, and nothing waits
/// for longer than two of it.
const PERIOD: Duration = Duration::from_secs(1);
/// Bytes that do not wait for that.
pub(super) const UNSETTLED_SIZE_MAX: u64 = 64 << 20;

/// Why something is not settled.
#[derive(Debug, Error)]
pub(super) enum SettleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Starts the thread. It settles now and then, at once when it is told to, and ends when nobody can tell
/// it anything any more.
pub(super) fn start(
    parts: Parts,
    worker: Arc<Mutex<Worker>>,
    told: Receiver<()>,
) -> JoinHandle<()> {
    let work = move || {
        let mut was_found = false;
        loop {
            match told.recv_timeout(PERIOD) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if !was_found => {
                    was_found = parts.store.unsettled() > 0;
                }
                Ok(()) | Err(RecvTimeoutError::Timeout) => {
                    settle_and_say(&parts, &worker);
                    was_found = false;
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("settle".to_owned());
    let thread = thread.spawn(work);
    thread.expect("a process that can run a server can start its first threads")
}

/// Settles what is published. A failure goes to the log: the next start finds everything where it is.
pub(super) fn settle_and_say(parts: &Parts, worker: &Mutex<Worker>) {
    // A store that takes no more changes has said so.
    if parts.store.unsettled() == 0 || parts.store.check().is_err() {
        return;
    }
    if let Err(error) = settle(parts, worker) {
        let error = &error as &dyn std::error::Error;
        error!(
            error,
            "small files were not settled; the next start looks at them again"
        );
    }
}

fn settle(parts: &Parts, worker: &Mutex<Worker>) -> Result<(), SettleError> {
    let (published, is_settled, settling) = {
        let worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
        // A commit that failed while this waited has not given its contents their names.
        parts.store.check()?;
        let settling = parts.store.begin_settling();
        (worker.published, worker.is_settled(), settling)
    };
    if !is_settled {
        parts.store.settle()?;
    }
    {
        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.settled = worker.settled.max(published);
        worker.keep_mark()?;
    }
    parts.store.end_settling(settling)?;
    Ok(())
}

impl Worker {
    /// Whether the next start need not look at anything that is published.
    pub(super) fn is_settled(&self) -> bool {
        self.settled == self.published
    }

    /// Keeps up to where the next start need not look. Blocks.
    pub(super) fn keep_mark(&self) -> Result<(), LogError> {
        self.parts.log.append(&[], self.settled).map(drop)
    }

    /// Settles what has to be before a batch: what the next start brings back to a name must not have
    /// gone from there by another record, and what another program took away must not be in its way
    /// again. The mark goes with the append of the batch. Blocks.
    pub(super) fn settle_for(&mut self, batch: &[Job]) -> Result<(), StoreError> {
        let is_needed = !self.is_settled() && !batch.iter().all(only_puts);
        if is_needed || batch.iter().any(has_gone) {
            self.parts.store.settle()?;
            self.settled = self.published;
        }
        Ok(())
    }
}

/// Jobs that belong together: nothing but puts, or anything else.
pub(super) fn runs(batch: Vec<Job>) -> Vec<Vec<Job>> {
    let mut runs: Vec<Vec<Job>> = Vec::with_capacity(1);
    for job in batch {
        match runs.last_mut() {
            Some(run) if run.first().map(only_puts) == Some(only_puts(&job)) => run.push(job),
            _ => runs.push(vec![job]),
        }
    }
    runs
}

fn only_puts(job: &Job) -> bool {
    changes(job).all(|change| matches!(change, Change::Put { .. } | Change::Found { .. }))
}

fn has_gone(job: &Job) -> bool {
    changes(job).any(|change| matches!(change, Change::Gone { .. }))
}

fn changes(job: &Job) -> impl Iterator<Item = &Change> {
    job.drafts.iter().flat_map(|draft| draft.matter.changes())
}
