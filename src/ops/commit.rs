//! The commit: appends and publishes, one batch at a time.
//!
//! Whatever waits becomes one transaction with one sync, and one sync for each directory. The append
//! is the point of no return; what follows is done again after a crash. Batches never overlap, so a
//! change of the tree in the middle of one is another program's. Small files of many are not synced in
//! the tree here, but settled later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::error;

use super::Parts;
use super::gather::{Expected, gather};
use super::job::{CommitError, Job, Outcome, Waiting, discard};
use super::pending::Pending;
use super::prepare::{placed, prepare, repeated};
use super::publication::publications;
use super::settle::{self, UNSETTLED_SIZE_MAX};
use super::tail::Tail;
use crate::content::ContentId;
use crate::fault;
use crate::log::{Change, Conflict, Draft, LogError, Matter, Record, Sequence};
use crate::path::RemotePath;
use crate::store::{Publication, Published, StoreError};

/// Commits that may wait before more are refused.
const QUEUE_MAX: usize = 4096;
/// Commits in one transaction, and those of the job that goes over it.
const BATCH_MAX: usize = 512;

/// The queue, and the thread that serves it. Dropping it finishes what waits.
pub(super) struct Committer {
    queue: Option<SyncSender<Job>>,
    /// The one that commits, then the one that settles, which ends after it.
    threads: Vec<JoinHandle<()>>,
    worker: Arc<Mutex<Worker>>,
    /// Jobs in the queue: whoever sees none, and nobody at work, need not wait for the thread.
    n_queued: Arc<AtomicUsize>,
    pending: Arc<Pending>,
    parts: Parts,
}

impl Committer {
    /// Starts the thread; every record up to `published` stands in the tree. What is published is
    /// told to `tail`.
    pub(super) fn start(parts: Parts, published: Sequence, tail: Arc<Tail>) -> Self {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let pending = Arc::new(Pending::default());
        let worker = Worker {
            parts: parts.clone(),
            published,
            settled: published,
            pending: Arc::clone(&pending),
            tail,
        };
        let worker = Arc::new(Mutex::new(worker));
        let n_queued = Arc::new(AtomicUsize::new(0));
        let (tell, told) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn({
                let (worker, n_queued) = (Arc::clone(&worker), Arc::clone(&n_queued));
                move || serve(&jobs, &n_queued, &worker, &tell)
            });
        let thread = thread.expect("a process that can run a server can start its first thread");
        let settler = settle::start(parts.clone(), Arc::clone(&worker), told);
        Self {
            queue: Some(queue),
            threads: vec![thread, settler],
            worker,
            n_queued,
            pending,
            parts,
        }
    }

    /// Appends and publishes a draft. Once it is queued it happens, even if nobody waits for the
    /// answer.
    pub(super) fn submit(&self, draft: Draft, staged: Vec<ContentId>) -> Waiting {
        self.enqueue_all(vec![draft], vec![staged])
    }

    /// The same for drafts that do not depend on each other, in their order.
    pub(super) fn submit_all(&self, drafts: Vec<Draft>) -> Waiting {
        let staged = drafts.iter().map(|_| Vec::new()).collect();
        self.enqueue_all(drafts, staged)
    }

    /// The same, each with the content that it publishes.
    pub(super) fn submit_puts(&self, puts: Vec<(Draft, ContentId)>) -> Waiting {
        let puts = puts
            .into_iter()
            .map(|(draft, content)| (draft, vec![content]));
        let (drafts, staged) = puts.unzip();
        self.enqueue_all(drafts, staged)
    }

    fn enqueue_all(&self, drafts: Vec<Draft>, staged: Vec<Vec<ContentId>>) -> Waiting {
        let (answer, waiting) = oneshot::channel();
        self.enqueue(Job {
            drafts,
            staged,
            answer,
        });
        Waiting(waiting)
    }

    /// The same from a blocking thread, which does it itself while there is nothing to batch it
    /// with: a hand-over takes as long as a fast disk's sync.
    pub(super) fn submit_blocking(&self, draft: Draft, staged: Vec<ContentId>) -> Waiting {
        let (answer, waiting) = oneshot::channel();
        let job = Job {
            drafts: vec![draft],
            staged: vec![staged],
            answer,
        };
        let is_idle = self.n_queued.load(Ordering::Acquire) == 0;
        match self.worker.try_lock() {
            Ok(mut worker) if is_idle => worker.commit(vec![job]),
            _ => self.enqueue(job),
        }
        Waiting(waiting)
    }

    fn enqueue(&self, job: Job) {
        self.n_queued.fetch_add(1, Ordering::AcqRel);
        let queue = self
            .queue
            .as_ref()
            .expect("the queue is there until the drop");
        let refused = queue.try_send(job);
        if refused.is_err() {
            self.n_queued.fetch_sub(1, Ordering::AcqRel);
        }
        match refused {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => job.refuse(&self.parts, || CommitError::QueueFull),
            Err(TrySendError::Disconnected(job)) => {
                job.refuse(&self.parts, || CommitError::Stopped);
            }
        }
    }

    /// Keeps how far the tree says what the log says. Blocks.
    pub(super) fn keep_mark(&self) -> Result<(), LogError> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.keep_mark()
    }

    /// The paths between their append and their publication.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        settle::settle_and_say(&self.parts, &self.worker);
        // The next start has less to do; without the mark it does it all again.
        let _ = self.keep_mark();
    }
}

pub(super) struct Worker {
    pub(super) parts: Parts,
    /// Every record up to here stands in the tree, and a crash does not lose it.
    pub(super) published: Sequence,
    /// Every record up to here stands in the tree, and the next start need not look at it again.
    pub(super) settled: Sequence,
    pending: Arc<Pending>,
    tail: Arc<Tail>,
}

/// Takes whatever waits as one batch, again and again.
fn serve(
    jobs: &Receiver<Job>,
    n_queued: &AtomicUsize,
    worker: &Mutex<Worker>,
    settler: &SyncSender<()>,
) {
    let mut expected = Expected::default();
    while let Ok(first) = jobs.recv() {
        let batch = gather(jobs, first, &expected, BATCH_MAX, |job| job.drafts.len());
        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
        let n_jobs = batch.len();
        n_queued.fetch_sub(n_jobs, Ordering::AcqRel);
        let began = Instant::now();
        worker.commit(batch);
        if worker.parts.store.unsettled() >= UNSETTLED_SIZE_MAX {
            // It is enough that it is told already.
            let _ = settler.try_send(());
        }
        let n_waiting = n_queued.load(Ordering::Acquire);
        expected = Expected::after(n_jobs, n_waiting, began.elapsed());
    }
}

impl Worker {
    fn commit(&mut self, batch: Vec<Job>) {
        for run in settle::runs(batch) {
            match self.settle_for(&run) {
                Ok(()) => self.commit_run(run),
                Err(error) => {
                    let error = error.to_string();
                    let refusal = || CommitError::Store(StoreError::ReadOnly(error.clone()));
                    for job in run {
                        job.refuse(&self.parts, refusal);
                    }
                }
            }
        }
    }

    fn commit_run(&mut self, mut batch: Vec<Job>) {
        let mut drafts = Vec::with_capacity(batch.len());
        let mut outcomes: Vec<Vec<Option<Outcome>>> = Vec::with_capacity(batch.len());
        let mut jobs = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        let queued = batch.iter_mut().flat_map(|job| &mut job.drafts);
        let mut verdicts = prepare(&self.parts, self.published, queued.collect()).into_iter();
        for job in batch {
            let mut prepared = Vec::with_capacity(job.drafts.len());
            for draft in job.drafts {
                let verdict = verdicts.next();
                prepared.push(match verdict.expect("every draft has a verdict") {
                    Ok(()) => {
                        drafts.push(draft);
                        None
                    }
                    Err(error) => {
                        // What else it says was looked at before directories were made.
                        if matches!(error, CommitError::Store(_)) {
                            refused.push(draft);
                        }
                        Some(Outcome::refused(error))
                    }
                });
            }
            outcomes.push(prepared);
            jobs.push((job.staged, job.answer));
        }
        let published = self.append_and_publish(&drafts);
        let without = drafts.iter().zip(&published);
        let without = without.filter(|(_, outcome)| !outcome.may_stand);
        self.release(refused.iter().chain(without.map(|(draft, _)| draft)));
        let mut rest = published.into_iter();
        for ((staged, waiter), prepared) in jobs.into_iter().zip(outcomes) {
            let mut answers = Vec::with_capacity(prepared.len());
            for (outcome, staged) in prepared.into_iter().zip(&staged) {
                let outcome = outcome.or_else(|| rest.next());
                let outcome = outcome.expect("every draft that was prepared has an outcome");
                if !outcome.may_stand {
                    discard(&self.parts, staged);
                }
                answers.push(outcome.answer);
            }
            // Nobody waits any more when the session ended; the commit stands.
            let _ = waiter.send(answers);
        }
    }

    /// Takes back what was made for drafts that come to nothing.
    fn release<'a>(&self, drafts: impl Iterator<Item = &'a Draft>) {
        let paths: Vec<&RemotePath> = drafts.flat_map(placed).collect();
        // A store that takes no more changes has said so.
        if paths.is_empty() || self.parts.store.check().is_err() {
            return;
        }
        if let Err(error) = self.parts.store.release(&paths) {
            error!(
                error = &error as &dyn std::error::Error,
                "removing empty directories failed"
            );
        }
    }

    fn append_and_publish(&mut self, drafts: &[Draft]) -> Vec<Outcome> {
        if drafts.is_empty() {
            return Vec::new();
        }
        let is_set = |draft: &Draft| draft.matter.changes().len() > 1;
        let has_set = drafts.iter().any(is_set);
        self.pending.begin(drafts.iter().flat_map(paths), has_set);
        let outcomes = self.append_all(drafts);
        self.pending.end(drafts.iter().flat_map(paths), has_set);
        outcomes
    }

    fn append_all(&mut self, drafts: &[Draft]) -> Vec<Outcome> {
        let appended = match self.append(drafts) {
            Ok(appended) => appended,
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    n_drafts = drafts.len(),
                    "append failed"
                );
                // What may be in the log after all is published by the next start.
                let may_stand = matches!(error, LogError::Unknown(_));
                let outcome = || Outcome {
                    answer: Err(CommitError::Log(error.clone())),
                    may_stand,
                };
                return drafts.iter().map(|_| outcome()).collect();
            }
        };
        let published = self.publish(appended.iter().flatten());
        let outcomes = appended.iter().zip(drafts);
        let outcomes = outcomes
            .map(|(result, draft)| self.outcome(draft, result, &published))
            .collect();
        match published {
            Ok(is_for_good) => {
                let accepted: Vec<_> = appended.into_iter().flatten().collect();
                if let Some(last) = accepted.last() {
                    if is_for_good && self.is_settled() {
                        self.settled = last.sequence;
                    }
                    self.published = last.sequence;
                }
                self.tail.push(accepted);
            }
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "publish failed; the next start does it again"
            ),
        }
        outcomes
    }

    fn outcome(
        &self,
        draft: &Draft,
        result: &Result<Record, Conflict>,
        published: &Result<bool, StoreError>,
    ) -> Outcome {
        let failed =
            |error: &StoreError| CommitError::Store(StoreError::ReadOnly(error.to_string()));
        match (result, published) {
            (Ok(record), Ok(_)) => Outcome::stands(Ok(record.sequence)),
            (Ok(_), Err(error)) => Outcome::stands(Err(failed(error))),
            // What it repeats was not published either.
            (Err(Conflict::Duplicate { sequence }), Err(error)) if *sequence > self.published => {
                Outcome::refused(failed(error))
            }
            (Err(Conflict::Duplicate { sequence }), _)
                if matches!(draft.matter, Matter::Files(_)) =>
            {
                Outcome::refused(repeated(&self.parts, *sequence))
            }
            (Err(conflict), _) => Outcome::refused(CommitError::Conflict(conflict.clone())),
        }
    }

    fn append(&self, drafts: &[Draft]) -> Result<Vec<Result<Record, Conflict>>, LogError> {
        let point = |name| fault::point(name).map_err(|error| LogError::Engine(Arc::new(error)));
        point("commit.append")?;
        let appended = self.parts.log.append(drafts, self.settled)?;
        // Past the point of no return only a crash can be asked for.
        let _ = point("commit.append.after");
        Ok(appended)
    }

    /// Says whether the tree has all of it for good.
    fn publish<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Result<bool, StoreError> {
        let publications: Vec<Publication> = records
            .flat_map(|record| publications(&record.matter))
            .collect();
        let published = self.parts.store.publish_all(&publications)?;
        for (publication, published) in publications.iter().zip(&published) {
            if *published == Published::Missing {
                error!(
                    ?publication,
                    "what should be published is gone: another program took it"
                );
            }
        }
        // Directories made for what is not settled are made again by the next start, if need be.
        if published.iter().any(|one| *one != Published::Unsettled) {
            self.parts.store.sync()?;
        }
        Ok(!published.contains(&Published::Unsettled))
    }
}

fn paths(draft: &Draft) -> impl Iterator<Item = &RemotePath> {
    draft.matter.changes().iter().flat_map(Change::paths)
}
