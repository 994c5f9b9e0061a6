//! What is to be done to make one side like the other: two listings that are merged in order.
//!
//! Nothing is changed here. A few directories are looked at side by side, each a piece at a time, so
//! that memory does not grow with the tree.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::digests::Digests;
use super::filter::Filters;
use super::folder::{Fingerprint, Folder, LocalFile, LocalName, Names};
use super::judge::{Here, Pair, Verdicts};
use super::listing::{Listed, ListingError, Pages};
use super::outcome::TreeError;
use super::patience::Patience;
use crate::client::Client;
use crate::client::upload::on_thread;
use crate::path::{Prefix, RemotePath};
use crate::protocol::FileInfo;

/// Directories that are looked at side by side.
const DIRECTORIES_OPEN_MAX: usize = 4;
/// Names that are judged at a time.
const PAIRS_MAX: usize = 512;

/// Which side is made like the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The server's, like the local folder.
    Up,
    /// The local folder, like the server's.
    Down,
}

/// A local file that the server should have.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    pub(super) relative: String,
    pub(super) path: RemotePath,
    pub(super) file: LocalFile,
}

/// A file of the server that should be here.
#[derive(Debug, Clone)]
pub(super) struct Fetching {
    pub(super) relative: String,
    pub(super) file: FileInfo,
    /// The file that is here now.
    pub(super) replaces: Option<Fingerprint>,
}

/// One thing to do, or to say.
#[derive(Debug)]
pub(super) enum Step {
    Send(Sending),
    Fetch(Fetching),
    DeleteRemote(FileInfo),
    DeleteLocal {
        relative: String,
        file: LocalFile,
    },
    Same,
    /// An upload of a file that is the same on both sides by now.
    Stale {
        relative: String,
        path: RemotePath,
    },
    Passed {
        relative: String,
        why: &'static str,
    },
    /// What another run has left of a file that was fetched, by its name here.
    Left(String),
    Failed {
        relative: String,
        error: TreeError,
    },
}

/// A directory that is still to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) relative: String,
    /// On which sides it is.
    pub(super) local: bool,
    pub(super) remote: bool,
    /// Directories in it are looked at only if they are on one side alone.
    pub(super) shallow: bool,
}

/// The two sides, and how they are compared.
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) patience: Patience,
    /// Absent where it is not made yet.
    pub(super) folder: Option<Arc<Folder>>,
    pub(super) remote: Prefix,
    pub(super) direction: Direction,
    /// Whether what the other side does not have is to go.
    pub(super) delete: bool,
    pub(super) filters: Filters,
    pub(super) digests: Digests,
    pub(super) pending: Mutex<VecDeque<Pending>>,
    /// A directory could not be read in full: what is gone is not known.
    pub(super) is_incomplete: AtomicBool,
}

/// The local side of one directory.
pub(super) struct Local {
    pub(super) names: Names,
    pub(super) here: Here,
}

impl Plan {
    /// Looks at all that is pending; gives the steps out as they are found. Ends early when nobody
    /// takes them any more.
    pub(super) async fn run(self: Arc<Self>, steps: mpsc::Sender<Vec<Step>>) {
        let mut open = JoinSet::new();
        loop {
            while open.len() < DIRECTORIES_OPEN_MAX && !steps.is_closed() {
                let Some(next) = self.take() else { break };
                open.spawn(Arc::clone(&self).visit(next, steps.clone()));
            }
            if open.join_next().await.is_none() {
                return;
            }
        }
    }

    fn take(&self) -> Option<Pending> {
        self.lock().pop_back()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn visit(self: Arc<Self>, at: Pending, steps: mpsc::Sender<Vec<Step>>) {
        let relative = at.relative.clone();
        if let Err(error) = self.merge(at, &steps).await {
            self.is_incomplete.store(true, Ordering::Relaxed);
            let failed = Step::Failed { relative, error };
            // Whoever took the steps has stopped.
            let _ = steps.send(vec![failed]).await;
        }
    }

    /// Goes through the names of a directory on both sides.
    async fn merge(
        self: &Arc<Self>,
        at: Pending,
        steps: &mpsc::Sender<Vec<Step>>,
    ) -> Result<(), TreeError> {
        let prefix = self.prefix(&at.relative)?;
        let mut remote = if at.remote {
            Pages::new(prefix)
        } else {
            Pages::none(prefix)
        };
        let mut local = self.open(&at).await?;
        loop {
            let reading = on_thread(move || {
                let filled = local.names.fill();
                filled.map(|()| local)
            });
            let (filled, listed) = tokio::join!(reading, remote.fill(&self.client, &self.patience));
            local = filled?;
            if let Err(error) = listed {
                remote = self.absent(&at, error, remote.directory().clone())?;
            }
            let pairs = pairs(&mut local.names, &mut remote);
            let is_last = pairs.is_empty();
            let n_unnameable = std::mem::take(&mut remote.n_unnameable);
            let (plan, asked) = (Arc::clone(self), at.clone());
            let judged = on_thread(move || {
                let mut verdicts = Verdicts::default();
                verdicts.unspoken(&asked.relative, n_unnameable, &mut local.names, &plan);
                plan.judge(&asked, &mut local.here, pairs, &mut verdicts);
                if is_last {
                    let learned = std::mem::take(&mut local.here.learned);
                    plan.digests.keep(&asked.relative, learned);
                }
                Ok((verdicts, local))
            });
            let (verdicts, back) = judged.await?;
            local = back;
            self.lock().extend(verdicts.below);
            if !verdicts.steps.is_empty() && steps.send(verdicts.steps).await.is_err() {
                return Ok(());
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn open(self: &Arc<Self>, at: &Pending) -> Result<Local, TreeError> {
        let (plan, relative, is_there) = (Arc::clone(self), at.relative.clone(), at.local);
        let opened = on_thread(move || {
            let Some(folder) = plan.folder.as_ref().filter(|_| is_there) else {
                return Ok(Local {
                    names: Names::none(),
                    here: Here::nothing(),
                });
            };
            let names = Names::new(folder.directory(&relative)?)?;
            let here = Here::new(folder.directory(&relative)?, plan.digests.block(&relative));
            Ok(Local { names, here })
        });
        Ok(opened.await?)
    }

    /// A directory of the server that is not there has no names. That is nothing to go by for what
    /// should be deleted here.
    fn absent(
        &self,
        at: &Pending,
        error: ListingError,
        directory: Prefix,
    ) -> Result<Pages, TreeError> {
        let is_needed = self.direction == Direction::Down;
        if !error.is_absence() || (is_needed && (at.relative.is_empty() || self.delete)) {
            return Err(error.into());
        }
        Ok(Pages::none(directory))
    }

    pub(super) fn prefix(&self, relative: &str) -> Result<Prefix, TreeError> {
        if relative.is_empty() {
            return Ok(self.remote.clone());
        }
        Ok(format!("{}{relative}", self.remote).parse()?)
    }
}

/// The next names of both sides, each once. Ends where one side must be read on.
fn pairs(names: &mut Names, remote: &mut Pages) -> Vec<Pair> {
    let mut pairs = Vec::new();
    while pairs.len() < PAIRS_MAX {
        let runs_dry = (names.front().is_none() && !names.is_done())
            || (remote.front().is_none() && !remote.is_done());
        if runs_dry {
            break;
        }
        let (takes_local, takes_remote) = match (names.front(), remote.front()) {
            (None, None) => break,
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(local), Some(listed)) => (local.name <= listed.name, listed.name <= local.name),
        };
        let local = if takes_local { names.pop() } else { None };
        let listed = if takes_remote { remote.pop() } else { None };
        pairs.extend(pair(local, listed));
    }
    pairs
}

fn pair(local: Option<LocalName>, remote: Option<Listed>) -> Option<Pair> {
    let name = local.as_ref().map(|local| local.name.clone());
    let name = name.or_else(|| remote.as_ref().map(|listed| listed.name.clone()))?;
    Some(Pair {
        name,
        local,
        remote,
    })
}

/// A name in a directory, relative to the root of the transfer.
pub(super) fn below(relative: &str, name: &str) -> String {
    if relative.is_empty() {
        return name.to_owned();
    }
    format!("{relative}/{name}")
}
