//! The commit: appends and publishes, one batch at a time.
//!
//! Whatever waits becomes one transaction with one sync, and one sync for each directory. The append
//! is the point of no return; what follows is done again after a crash. Batches never overlap, so a
//! change of the tree in the middle of one is another program's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::oneshot;
use tracing::error;

use super::Parts;
use super::pending::Pending;
use crate::content::ContentId;
use crate::fault;
use crate::index::IndexError;
use crate::log::{Change, Condition, Conflict, Draft, LogError, Sequence};
use crate::path::RemotePath;
use crate::store::{Publication, Published, StoreError};

/// Commits that may wait before more are refused.
const QUEUE_MAX: usize = 4096;
/// Commits in one transaction.
const BATCH_MAX: usize = 512;

/// Why a commit was refused.
#[derive(Debug, Error)]
pub enum CommitError {
    #[error(transparent)]
    Conflict(Conflict),
    #[error("{0} is there already, put there by another program")]
    Occupied(RemotePath),
    #[error("the store failed")]
    Store(#[source] StoreError),
    #[error("the log failed")]
    Log(#[source] LogError),
    #[error("the index failed")]
    Index(#[source] IndexError),
    #[error("too many commits are waiting")]
    QueueFull,
    #[error("the service is stopping")]
    Stopped,
}

type Answer = Result<Sequence, CommitError>;

/// One draft on its way, with the content that it publishes.
struct Job {
    draft: Draft,
    staged: Option<ContentId>,
    answer: oneshot::Sender<Answer>,
}

impl Job {
    fn refuse(self, parts: &Parts, error: CommitError) {
        if let Some(content) = self.staged {
            parts.store.discard(content);
        }
        let _ = self.answer.send(Err(error));
    }
}

/// A commit on its way.
pub(super) struct Waiting(oneshot::Receiver<Answer>);

impl Waiting {
    /// Which record the draft became.
    pub(super) async fn answer(self) -> Answer {
        self.0.await.map_err(|_| CommitError::Stopped)?
    }
}

/// The queue, and the thread that serves it. Dropping it finishes what waits.
pub(super) struct Committer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    worker: Arc<Mutex<Worker>>,
    /// Jobs in the queue: whoever sees none, and nobody at work, need not wait for the thread.
    n_queued: Arc<AtomicUsize>,
    pending: Arc<Pending>,
    parts: Parts,
}

impl Committer {
    /// Starts the thread; every record up to `published` stands in the tree.
    pub(super) fn start(parts: Parts, published: Sequence) -> Self {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let pending = Arc::new(Pending::default());
        let worker = Worker {
            parts: parts.clone(),
            published,
            pending: Arc::clone(&pending),
        };
        let worker = Arc::new(Mutex::new(worker));
        let n_queued = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn({
                let (worker, n_queued) = (Arc::clone(&worker), Arc::clone(&n_queued));
                move || serve(&jobs, &n_queued, &worker)
            });
        let thread = thread.expect("a process that can run a server can start its first thread");
        Self {
            queue: Some(queue),
            thread: Some(thread),
            worker,
            n_queued,
            pending,
            parts,
        }
    }

    /// Appends and publishes a draft. Once it is queued it happens, even if nobody waits for the
    /// answer.
    pub(super) fn submit(&self, draft: Draft, staged: Option<ContentId>) -> Waiting {
        let (answer, waiting) = oneshot::channel();
        self.enqueue(Job {
            draft,
            staged,
            answer,
        });
        Waiting(waiting)
    }

    /// The same from a blocking thread, which does it itself while there is nothing to batch it
    /// with: a hand-over takes as long as a fast disk's sync.
    pub(super) fn submit_blocking(&self, draft: Draft, staged: Option<ContentId>) -> Waiting {
        let (answer, waiting) = oneshot::channel();
        let job = Job {
            draft,
            staged,
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
        let (job, error) = match queue.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Full(job)) => (job, CommitError::QueueFull),
            Err(TrySendError::Disconnected(job)) => (job, CommitError::Stopped),
        };
        self.n_queued.fetch_sub(1, Ordering::AcqRel);
        job.refuse(&self.parts, error);
    }

    /// The paths between their append and their publication.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    parts: Parts,
    /// Every record up to here stands in the tree, durably.
    published: Sequence,
    pending: Arc<Pending>,
}

/// Takes whatever waits as one batch, again and again.
fn serve(jobs: &Receiver<Job>, n_queued: &AtomicUsize, worker: &Mutex<Worker>) {
    while let Ok(first) = jobs.recv() {
        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        n_queued.fetch_sub(batch.len(), Ordering::AcqRel);
        worker.commit(batch);
    }
}

impl Worker {
    fn commit(&mut self, batch: Vec<Job>) {
        let mut ready = Vec::with_capacity(batch.len());
        for mut job in batch {
            match self.prepare(&mut job.draft) {
                Ok(()) => ready.push(job),
                Err(error) => job.refuse(&self.parts, error),
            }
        }
        let (drafts, waiting): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .map(
                |Job {
                     draft,
                     staged,
                     answer,
                 }| (draft, (staged, answer)),
            )
            .unzip();
        if drafts.is_empty() {
            return;
        }
        self.pending.begin(drafts.iter().flat_map(paths));
        let answers = self.append_and_publish(
            &drafts,
            &waiting
                .iter()
                .map(|(staged, _)| *staged)
                .collect::<Vec<_>>(),
        );
        self.pending.end(drafts.iter().flat_map(paths));
        for ((_, waiter), answer) in waiting.into_iter().zip(answers) {
            // Nobody waits any more when the session ended; the commit stands.
            let _ = waiter.send(answer);
        }
    }

    /// Directories are made and taken names found before the append: after it there is no way back.
    fn prepare(&self, draft: &mut Draft) -> Result<(), CommitError> {
        self.parts.store.check().map_err(CommitError::Store)?;
        for change in &draft.changes {
            if let Change::Put { path, .. } | Change::Move { to: path, .. } = change {
                self.parts.store.prepare(path).map_err(CommitError::Store)?;
            }
        }
        // A file that another program put there counts as there, though the log does not know it.
        let mut conditions = Vec::with_capacity(draft.conditions.len());
        for condition in std::mem::take(&mut draft.conditions) {
            match &condition {
                Condition::Absent(path) if self.is_foreign(path)? => {
                    return Err(CommitError::Occupied(path.clone()));
                }
                Condition::Present(path) if self.is_foreign(path)? => {}
                _ => conditions.push(condition),
            }
        }
        draft.conditions = conditions;
        Ok(())
    }

    fn is_foreign(&self, path: &RemotePath) -> Result<bool, CommitError> {
        if self
            .parts
            .index
            .lookup(path)
            .map_err(CommitError::Index)?
            .is_some()
        {
            return Ok(false);
        }
        match self.parts.store.stat(path) {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound) => Ok(false),
            Err(error) => Err(CommitError::Store(error)),
        }
    }

    fn append_and_publish(
        &mut self,
        drafts: &[Draft],
        staged: &[Option<ContentId>],
    ) -> Vec<Answer> {
        let appended = match self.append(drafts) {
            Ok(appended) => appended,
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    n_drafts = drafts.len(),
                    "append failed"
                );
                // What may be in the log after all is published by the next start.
                if !matches!(error, LogError::Unknown(_)) {
                    let staged = staged.iter().flatten();
                    staged.for_each(|content| self.parts.store.discard(*content));
                }
                return drafts
                    .iter()
                    .map(|_| Err(CommitError::Log(error.clone())))
                    .collect();
            }
        };
        for (result, staged) in appended.iter().zip(staged) {
            if let (Err(_), Some(content)) = (result, staged) {
                self.parts.store.discard(*content);
            }
        }
        let head = appended.iter().flatten().max().copied();
        let accepted = drafts
            .iter()
            .zip(&appended)
            .filter(|(_, result)| result.is_ok());
        match self.publish(accepted.flat_map(|(draft, _)| &draft.changes)) {
            Ok(()) => {
                self.published = head.unwrap_or(self.published);
                appended
                    .into_iter()
                    .map(|result| result.map_err(CommitError::Conflict))
                    .collect()
            }
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "publish failed; the next start does it again"
                );
                let failed = |result: Result<Sequence, Conflict>| match result {
                    Ok(_) => Err(CommitError::Store(StoreError::ReadOnly(error.to_string()))),
                    Err(conflict) => Err(CommitError::Conflict(conflict)),
                };
                appended.into_iter().map(failed).collect()
            }
        }
    }

    fn append(&self, drafts: &[Draft]) -> Result<Vec<Result<Sequence, Conflict>>, LogError> {
        let point = |name| fault::point(name).map_err(|error| LogError::Engine(Arc::new(error)));
        point("commit.append")?;
        let appended = self.parts.log.append(drafts, self.published)?;
        // Past the point of no return only a crash can be asked for.
        let _ = point("commit.append.after");
        Ok(appended)
    }

    fn publish<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), StoreError> {
        for change in changes {
            let publication = publication(change);
            if self.parts.store.publish(&publication)? == Published::Missing {
                error!(
                    ?publication,
                    "what should be published is gone: another program took it"
                );
            }
        }
        self.parts.store.sync()
    }
}

/// What the tree needs so that it says what a change says.
pub(super) fn publication(change: &Change) -> Publication {
    match change.clone() {
        Change::Put { path, entry } => Publication::Place {
            content: entry.content,
            stamp: entry.stamp,
            path,
        },
        Change::Remove { path, stamp } => Publication::Remove { path, stamp },
        Change::Move { from, to, entry } => Publication::Rename {
            from,
            to,
            stamp: entry.stamp,
        },
    }
}

fn paths(draft: &Draft) -> impl Iterator<Item = &RemotePath> {
    draft.changes.iter().flat_map(Change::paths)
}
