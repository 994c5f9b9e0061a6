//! Removing all of a directory of the server, file by file.
//!
//! Each removal is of the version that was listed: what somebody writes meanwhile stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::deletions::delete_remote;
use super::filter::Filters;
use super::outcome::{Action, Happened, Outcome, Reporter, Summary, TreeError};
use super::patience::Patience;
use super::remote_tree::{Found, RemoteTree};
use crate::client::Client;
use crate::path::Prefix;

/// Removals under way at a time: the server makes those that come together durable together.
const REMOVALS_OPEN_MAX: usize = 16;

/// Removes the files below `root` that the filters take. What goes wrong with single files is reported
/// and counted.
///
/// # Errors
/// The root could not be read, or there is no connection.
pub async fn remove(
    client: &Client,
    root: &Prefix,
    filters: &Filters,
    dry_run: bool,
    retry_for: Duration,
    reporter: &Arc<dyn Reporter>,
) -> Result<Summary, TreeError> {
    let patience = Patience::new(client, retry_for, Arc::clone(reporter));
    let mut counts = Counts {
        summary: Summary {
            dry_run,
            ..Summary::default()
        },
        reporter,
    };
    let mut tree = RemoteTree::new(client, patience.clone(), root.clone(), filters.clone());
    let mut open = JoinSet::new();
    while let Some(found) = tree.next().await {
        match found {
            Found::Unread(directory, error) if directory == *root => return Err(error.into()),
            Found::Unread(directory, error) => {
                let error = TreeError::from(error);
                if error.is_final() {
                    return Err(error);
                }
                let path = directory.as_str();
                counts.say(&Happened::Failed {
                    path,
                    error: &error,
                });
            }
            Found::Unnameable(directory, _) => counts.say(&Happened::Passed {
                path: directory.as_str(),
                why: "the server has names here that it cannot say; they stay",
            }),
            Found::File(file) if dry_run => counts.say(&Happened::Done {
                action: Action::Delete,
                path: file.path.as_str(),
                size: file.size,
            }),
            Found::File(file) => {
                while open.len() >= REMOVALS_OPEN_MAX {
                    counts.finished(open.join_next().await)?;
                }
                let (client, patience) = (client.clone(), patience.clone());
                open.spawn(async move {
                    let result = delete_remote(&client, &patience, &file).await;
                    Outcome {
                        relative: file.path.into(),
                        result,
                    }
                });
            }
        }
    }
    while let Some(finished) = open.join_next().await {
        counts.finished(Some(finished))?;
    }
    counts.summary.n_retries = patience.n_retries();
    Ok(counts.summary)
}

struct Counts<'a> {
    summary: Summary,
    reporter: &'a Arc<dyn Reporter>,
}

impl Counts<'_> {
    fn say(&mut self, what: &Happened<'_>) {
        self.summary.count(what);
        self.reporter.happened(what);
    }

    fn finished(
        &mut self,
        finished: Option<Result<Outcome, tokio::task::JoinError>>,
    ) -> Result<(), TreeError> {
        let Some(Ok(Outcome { relative, result })) = finished else {
            return Ok(());
        };
        let (path, action) = (relative.as_str(), Action::Delete);
        match result {
            Ok(size) => self.say(&Happened::Done { action, path, size }),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => self.say(&Happened::Failed {
                path,
                error: &error,
            }),
        }
        Ok(())
    }
}
