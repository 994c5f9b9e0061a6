//! One run: the plan is made, and done as it is made.
//!
//! Deletions come last, all of them or none: only when every directory could be read, and when there
//! are not more of them than the user allows.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Transfer;
use super::deletions::Deletion;
use super::digests::Digests;
use super::folder::Folder;
use super::outcome::{Action, Happened, Outcome, Progress, Reporter, Summary, TreeError};
use super::patience::Patience;
use super::plan::{Direction, Fetching, Pending, Plan, Sending, Step};
use crate::client::Client;
use crate::client::upload::on_thread;
use crate::protocol::FileInfo;

/// Pieces of the plan that are made ahead of what is done.
const STEPS_AHEAD_MAX: usize = 8;
/// Obstacles that a second look may find gone.
const OBSTACLES_MAX: usize = 1_000;

/// Makes one side like the other. What goes wrong with single files is reported and counted; the
/// others go on.
///
/// # Errors
/// The folder cannot be opened, there is no connection, or the disk is full: nothing more would work.
///
/// # Cancel safety
/// Dropping the future gives up what is under way; files that have their names stay.
pub async fn transfer(
    client: &Client,
    transfer: &Transfer,
    reporter: &Arc<dyn Reporter>,
) -> Result<Summary, TreeError> {
    let root = Pending {
        relative: String::new(),
        local: true,
        remote: true,
        shallow: false,
    };
    let mut run = Run::new(client, transfer, reporter).await?;
    let is_clear = run.pass(vec![root.clone()], true).await?;
    if !is_clear {
        // What stood in the way was deleted.
        run.summary.n_same = 0;
        run.has_looked = true;
        run.pass(vec![root], true).await?;
    }
    Ok(run.end())
}

/// What a run is made of, and how far it has come.
pub(super) struct Run<'a> {
    pub(super) transfer: &'a Transfer,
    pub(super) client: Client,
    pub(super) folder: Option<Arc<Folder>>,
    pub(super) reporter: Arc<dyn Reporter>,
    pub(super) patience: Patience,
    pub(super) summary: Summary,
    pub(super) progress: Progress,
    pub(super) open: JoinSet<Result<Vec<Outcome>, TreeError>>,
    pub(super) sends: Vec<Sending>,
    pub(super) fetches: Vec<Fetching>,
    pub(super) batch_size: u64,
    /// Bytes of the paths in the request, at most.
    pub(super) names_size: usize,
    pub(super) deletions: Vec<Deletion>,
    pub(super) n_deletions: u64,
    pub(super) obstacles: Vec<(String, TreeError)>,
    /// Files that are not whole, of other runs.
    pub(super) left: Vec<String>,
    /// Some directory could not be looked at.
    pub(super) was_incomplete: bool,
    /// This is the second look: what stands in the way now stays.
    pub(super) has_looked: bool,
}

impl<'a> Run<'a> {
    pub(super) async fn new(
        client: &Client,
        transfer: &'a Transfer,
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Self, TreeError> {
        let path = transfer.local.clone();
        let is_source = transfer.direction == Direction::Up;
        let dry_run = transfer.dry_run;
        let folder = on_thread(move || {
            if !is_source && !dry_run {
                return Folder::make(&path).map(Some);
            }
            match Folder::open(&path) {
                Err(error) if !is_source && error.kind() == ErrorKind::NotFound => Ok(None),
                opened => opened.map(Some),
            }
        });
        Ok(Self {
            transfer,
            client: client.clone(),
            folder: folder.await?.map(Arc::new),
            reporter: Arc::clone(reporter),
            patience: Patience::new(client, transfer.retry_for, Arc::clone(reporter)),
            summary: Summary {
                dry_run,
                ..Summary::default()
            },
            progress: Progress::default(),
            open: JoinSet::new(),
            sends: Vec::new(),
            fetches: Vec::new(),
            batch_size: 0,
            names_size: 0,
            deletions: Vec::new(),
            n_deletions: 0,
            obstacles: Vec::new(),
            left: Vec::new(),
            was_incomplete: false,
            has_looked: false,
        })
    }

    /// Looks at these directories and does what is to be done. False if obstacles were deleted, so
    /// that a second look would find more to do.
    pub(super) async fn pass(
        &mut self,
        roots: Vec<Pending>,
        is_whole: bool,
    ) -> Result<bool, TreeError> {
        let plan = Arc::new(self.plan(roots, is_whole));
        let (sender, mut steps) = mpsc::channel(STEPS_AHEAD_MAX);
        let mut planner = JoinSet::new();
        planner.spawn(Arc::clone(&plan).run(sender));
        while let Some(steps) = steps.recv().await {
            for step in steps {
                self.take(step).await?;
            }
            while let Some(finished) = self.open.try_join_next() {
                self.finished(finished)?;
            }
            self.tell();
        }
        self.progress.is_planned = true;
        self.flush().await?;
        while let Some(finished) = self.open.join_next().await {
            self.finished(finished)?;
        }
        let is_incomplete = plan.is_incomplete.load(Ordering::Relaxed);
        self.was_incomplete |= is_incomplete;
        self.clear_left(&plan).await?;
        if !is_incomplete {
            let keep = on_thread(move || {
                plan.digests.finish();
                Ok(())
            });
            keep.await?;
        }
        let has_deleted = self.delete(is_incomplete).await?;
        let obstacles = std::mem::take(&mut self.obstacles);
        if has_deleted && !obstacles.is_empty() {
            return Ok(false);
        }
        for (path, error) in obstacles {
            self.fail(&path, &error);
        }
        Ok(true)
    }

    fn plan(&self, roots: Vec<Pending>, is_whole: bool) -> Plan {
        let local = self.folder.as_ref().map(|folder| folder.path());
        let local = local.unwrap_or(&self.transfer.local);
        Plan {
            client: self.client.clone(),
            patience: self.patience.clone(),
            folder: self.folder.clone(),
            remote: self.transfer.remote.clone(),
            direction: self.transfer.direction,
            delete: self.transfer.deletions_max.is_some(),
            filters: self.transfer.filters.clone(),
            digests: Digests::open(self.transfer.cache.as_deref(), local, is_whole),
            pending: Mutex::new(VecDeque::from(roots)),
            is_incomplete: AtomicBool::new(false),
        }
    }

    /// The counts so far.
    pub(super) fn end(&mut self) -> Summary {
        self.summary.n_retries = self.patience.n_retries();
        self.tell();
        std::mem::replace(
            &mut self.summary,
            Summary {
                dry_run: self.transfer.dry_run,
                ..Summary::default()
            },
        )
    }

    async fn take(&mut self, step: Step) -> Result<(), TreeError> {
        match step {
            Step::Same => {
                self.summary.n_same += 1;
                self.progress.n_same += 1;
            }
            Step::Passed { relative, why } => self.say(&Happened::Passed {
                path: &relative,
                why,
            }),
            Step::Left(relative) => self.left(relative),
            Step::Stale { relative, path } => self.stale(relative, &path).await?,
            // Of the root there is nothing else to say.
            Step::Failed { relative, error } if relative.is_empty() || error.is_final() => {
                return Err(error);
            }
            Step::Failed { relative, error } => self.failed(relative, error),
            Step::Send(sending) => {
                let size = sending.file.fingerprint.size;
                if self.is_to_do(Action::Send, &sending.relative, size) {
                    self.send(sending).await?;
                }
            }
            Step::Fetch(fetching) => {
                let size = fetching.file.size;
                if self.is_to_do(Action::Fetch, &fetching.relative, size) {
                    self.fetch(fetching).await?;
                }
            }
            Step::DeleteRemote(file) => {
                let relative = self.relative(&file).to_owned();
                self.plan_deletion(&relative, file.size, Deletion::Remote(file));
            }
            Step::DeleteLocal { relative, file } => {
                let size = file.fingerprint.size;
                let deletion = Deletion::Local {
                    relative: relative.clone(),
                    file,
                };
                self.plan_deletion(&relative, size, deletion);
            }
        }
        Ok(())
    }

    fn is_to_do(&mut self, action: Action, path: &str, size: u64) -> bool {
        self.progress.n_planned += 1;
        self.progress.bytes_planned += size;
        if self.transfer.dry_run {
            self.say(&Happened::Done { action, path, size });
        }
        !self.transfer.dry_run
    }

    fn failed(&mut self, relative: String, error: TreeError) {
        let is_obstacle = matches!(error, TreeError::Obstacle { .. });
        let may_go = self.transfer.deletions_max.is_some() && !self.has_looked;
        if is_obstacle && may_go && !self.transfer.dry_run && self.obstacles.len() < OBSTACLES_MAX {
            self.obstacles.push((relative, error));
        } else {
            self.fail(&relative, &error);
        }
    }

    pub(super) fn finished(
        &mut self,
        finished: Result<Result<Vec<Outcome>, TreeError>, tokio::task::JoinError>,
    ) -> Result<(), TreeError> {
        let gone = |_| TreeError::Local(std::io::Error::other("the task that moved files is gone"));
        let action = match self.transfer.direction {
            Direction::Up => Action::Send,
            Direction::Down => Action::Fetch,
        };
        let mut stops = None;
        for outcome in finished.map_err(gone)?? {
            let path = &outcome.relative;
            self.progress.n_done += 1;
            match outcome.result {
                Ok(size) => {
                    self.progress.bytes_done += size;
                    self.say(&Happened::Done { action, path, size });
                }
                Err(error) if error.is_final() => stops = Some(error),
                Err(error) => self.fail(path, &error),
            }
        }
        stops.map_or(Ok(()), Err)
    }

    pub(super) fn relative<'f>(&self, file: &'f FileInfo) -> &'f str {
        let whole = file.path.as_str();
        whole
            .strip_prefix(self.transfer.remote.as_str())
            .unwrap_or(whole)
    }

    pub(super) fn fail(&mut self, path: &str, error: &TreeError) {
        self.say(&Happened::Failed { path, error });
    }

    pub(super) fn say(&mut self, what: &Happened<'_>) {
        self.summary.count(what);
        self.reporter.happened(what);
    }

    pub(super) fn tell(&mut self) {
        self.progress.n_retries = self.patience.n_retries();
        self.reporter.happened(&Happened::Progress(self.progress));
    }
}
