//! Deletions at the end of a run: all of them or none.
//!
//! Each is of the file that was compared: what somebody writes meanwhile stays.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::destination;
use super::folder::{Folder, LocalFile};
use super::outcome::{Action, Happened, Outcome, TreeError};
use super::patience::Patience;
use super::run::Run;
use crate::client::request_id;
use crate::client::upload::on_thread;
use crate::client::{Client, ClientError};
use crate::protocol::{ErrorCode, FileInfo, Op, Remove, Removed};

/// A file that is to go.
pub(super) enum Deletion {
    Remote(FileInfo),
    Local { relative: String, file: LocalFile },
}

impl Run<'_> {
    pub(super) fn plan_deletion(&mut self, path: &str, size: u64, deletion: Deletion) {
        self.n_deletions += 1;
        let limit = self.transfer.deletions_max.unwrap_or_default();
        if self.transfer.dry_run {
            let action = Action::Delete;
            self.say(&Happened::Done { action, path, size });
        } else if self.n_deletions <= limit {
            self.deletions.push(deletion);
        }
    }

    /// Deletes what is to go, if it may. Says whether anything was.
    pub(super) async fn delete(&mut self, is_incomplete: bool) -> Result<bool, TreeError> {
        let deletions = std::mem::take(&mut self.deletions);
        let n_planned = std::mem::take(&mut self.n_deletions);
        let Some(limit) = self.transfer.deletions_max.filter(|_| n_planned > 0) else {
            return Ok(false);
        };
        if n_planned > limit {
            self.fail("", &TreeError::TooManyDeletions { n_planned, limit });
            return Ok(false);
        }
        if is_incomplete {
            self.fail("", &TreeError::Incomplete);
            return Ok(false);
        }
        let n_before = self.summary.n_deleted;
        let mut open = JoinSet::new();
        for deletion in deletions {
            while open.len() >= self.transfer.n_jobs.max(1) {
                self.deleted(open.join_next().await)?;
            }
            let (client, patience) = (self.client.clone(), self.patience.clone());
            let relative = match &deletion {
                Deletion::Remote(file) => self.relative(file).to_owned(),
                Deletion::Local { relative, .. } => relative.clone(),
            };
            let folder = self.folder.clone();
            open.spawn(async move {
                let result = match deletion {
                    Deletion::Remote(file) => delete_remote(&client, &patience, &file).await,
                    Deletion::Local { relative, file } => {
                        delete_local(folder, relative, file).await
                    }
                };
                Outcome { relative, result }
            });
        }
        while let Some(finished) = open.join_next().await {
            self.deleted(Some(finished))?;
        }
        Ok(self.summary.n_deleted > n_before)
    }

    fn deleted(&mut self, finished: Option<Result<Outcome, JoinError>>) -> Result<(), TreeError> {
        let Some(Ok(Outcome { relative, result })) = finished else {
            return Ok(());
        };
        let (path, action) = (relative.as_str(), Action::Delete);
        match result {
            Ok(size) => self.say(&Happened::Done { action, path, size }),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => self.fail(path, &error),
        }
        Ok(())
    }
}

/// Removes a file of the server, if it is the version that was listed.
pub(super) async fn delete_remote(
    client: &Client,
    patience: &Patience,
    file: &FileInfo,
) -> Result<u64, TreeError> {
    // The same request each time: what was removed by a try whose answer was lost is removed.
    let request = Op::Remove(Remove {
        path: file.path.clone(),
        if_version: file.version,
        request_id: request_id::fresh(),
    });
    let removed = patience
        .persist(|| client.ask_once::<Removed>(request.clone()))
        .await;
    match removed {
        Ok(_) => Ok(file.size),
        // Somebody else did it.
        Err(ClientError::Remote(reply)) if reply.code == ErrorCode::NotFound => Ok(file.size),
        Err(error) => Err(error.into()),
    }
}

async fn delete_local(
    folder: Option<Arc<Folder>>,
    relative: String,
    file: LocalFile,
) -> Result<u64, TreeError> {
    let Some(folder) = folder else { return Ok(0) };
    let size = file.fingerprint.size;
    let removed = on_thread(move || Ok(destination::remove(&folder, &relative, &file)));
    removed.await??;
    Ok(size)
}
