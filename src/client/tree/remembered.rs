//! What another run of the program finds of a tree's large files, however the folder is named then.
//!
//! A file that is sent is known by its real place, one that is fetched by that of the file that is not
//! whole. What no run needs any more goes at the end of one that left nothing undone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::destination::split;
use super::folder::{Folder, look};
use super::outcome::TreeError;
use super::partial::{self, Found, kept_name};
use super::plan::{Direction, Pending, Plan, Step, below};
use super::run::Run;
use crate::client::Client;
use crate::client::file::WHOLE_SIZE_MAX;
use crate::client::sidecar::Sidecar;
use crate::client::upload::on_thread;
use crate::path::RemotePath;
use crate::protocol::FileInfo;

/// Files left behind that a run looks at again at its end. More are left to the next run.
const LEFT_MAX: usize = 1_000;
/// What a sidecar of a tree's file that is fetched is known by, beside its place.
const KIND: &str = "get -r";

/// Where a file of the folder is, by no link; absent if that cannot be told. Blocks.
pub(super) fn place(folder: &Folder, relative: &str) -> Option<PathBuf> {
    let root = folder.path().canonicalize().ok()?;
    Some(root.join(relative))
}

/// The sidecar of a file that is fetched; nothing if another run has it, or there is no place for it.
/// Blocks.
pub(super) fn sidecar(client: &Client, folder: &Folder, relative: &str) -> Option<Arc<Sidecar>> {
    client.sidecar(KIND, &place(folder, &partial_of(relative))?, "")
}

/// The name that a file has until it is whole.
fn partial_of(relative: &str) -> String {
    let (parent, name) = split(relative);
    below(parent, &kept_name(name))
}

impl Plan {
    /// Whether a local name is that of what an earlier run has left here, which is no file of the tree.
    pub(super) fn is_own(
        &self,
        at: &Pending,
        directory: impl std::os::fd::AsFd,
        name: &str,
        steps: &mut Vec<Step>,
    ) -> bool {
        let relative = below(&at.relative, name);
        let is_remembered = || self.is_remembered(KIND, &relative, "");
        match partial::reclaim(directory, name, is_remembered) {
            Found::Other => return false,
            Found::Settled => {}
            Found::Kept => steps.push(Step::Left(relative)),
        }
        true
    }
}

impl Plan {
    fn is_remembered(&self, kind: &str, relative: &str, remote: &str) -> bool {
        let place = self.folder.as_ref().and_then(|f| place(f, relative));
        place.is_some_and(|place| self.client.is_remembered(kind, &place, remote))
    }

    /// A large file that is the same on both sides may be remembered all the same: by a run that was
    /// killed when all was done but that. Blocks.
    pub(super) fn same(&self, relative: &str, file: &FileInfo, steps: &mut Vec<Step>) {
        if file.size <= WHOLE_SIZE_MAX {
            return;
        }
        let (relative, path) = (relative.to_owned(), file.path.clone());
        match self.direction {
            Direction::Up if self.is_remembered("put", &relative, path.as_str()) => {
                steps.push(Step::Stale { relative, path });
            }
            Direction::Down if self.is_remembered(KIND, &partial_of(&relative), "") => {
                steps.push(Step::Left(partial_of(&relative)));
            }
            Direction::Up | Direction::Down => {}
        }
    }
}

impl Run<'_> {
    pub(super) async fn stale(&self, relative: String, path: &RemotePath) -> Result<(), TreeError> {
        let Some(folder) = self.folder.clone().filter(|_| !self.transfer.dry_run) else {
            return Ok(());
        };
        let place = on_thread(move || Ok(place(&folder, &relative))).await?;
        if let Some(place) = place {
            self.client.give_up_earlier(&place, path).await;
        }
        Ok(())
    }

    pub(super) fn left(&mut self, relative: String) {
        if self.left.len() < LEFT_MAX {
            self.left.push(relative);
        }
    }

    /// Takes away what a run that had all of the tree did not go on with: its file is gone, or came in
    /// another way.
    pub(super) async fn clear_left(&mut self, plan: &Plan) -> Result<(), TreeError> {
        let left = std::mem::take(&mut self.left);
        let is_incomplete = plan.is_incomplete.load(Ordering::Relaxed);
        let has_all = !is_incomplete && self.summary.n_failed == 0 && self.obstacles.is_empty();
        let is_whole = self.transfer.filters.takes_all() && !self.transfer.dry_run;
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        if left.is_empty() || !has_all || !is_whole || plan.direction != Direction::Down {
            return Ok(());
        }
        let client = self.client.clone();
        let clear = on_thread(move || {
            for relative in left {
                let (parent, name) = split(&relative);
                let Ok(directory) = folder.directory(parent) else {
                    continue;
                };
                let is_gone = partial::discard(&directory, name)
                    || look(&directory, name).is_ok_and(|found| found.is_none());
                if let Some(place) = place(&folder, &relative).filter(|_| is_gone) {
                    client.forget_transfer(KIND, &place, "");
                }
            }
            Ok(())
        });
        Ok(clear.await?)
    }
}
