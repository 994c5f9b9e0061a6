//! All files of a directory of the server, in order, for whoever wants them one by one.
//!
//! A directory that cannot be read is told of, and the others go on.

use std::sync::Arc;
use std::time::Duration;

use super::filter::Filters;
use super::listing::{ListingError, Pages};
use super::outcome::Reporter;
use super::patience::Patience;
use crate::client::Client;
use crate::path::Prefix;
use crate::protocol::FileInfo;

/// All files of the server below a directory, in the order of their names' bytes within each
/// directory. Memory holds one page for each level.
pub struct RemoteTree {
    client: Client,
    patience: Patience,
    filters: Filters,
    root: Prefix,
    open: Vec<Pages>,
}

/// What comes next of a tree.
#[derive(Debug)]
pub enum Found {
    File(Box<FileInfo>),
    /// A directory could not be read, all of it or from some name on; the others go on.
    Unread(Prefix, ListingError),
    /// Names in a directory that cannot be spelled.
    Unnameable(Prefix, u64),
}

impl RemoteTree {
    /// The files below `root` that the filters take; a request that meets a server that is busy or out
    /// of reach is tried again for `retry_for`.
    pub fn open(
        client: &Client,
        root: Prefix,
        filters: Filters,
        retry_for: Duration,
        reporter: Arc<dyn Reporter>,
    ) -> Self {
        let patience = Patience::new(client, retry_for, reporter);
        Self::new(client, patience, root, filters)
    }

    pub(super) fn new(client: &Client, patience: Patience, root: Prefix, filters: Filters) -> Self {
        Self {
            client: client.clone(),
            patience,
            filters,
            open: vec![Pages::new(root.clone())],
            root,
        }
    }

    /// What comes next; `None` at the end.
    ///
    /// # Cancel safety
    /// A name that was read is not lost.
    pub async fn next(&mut self) -> Option<Found> {
        loop {
            let pages = self.open.last_mut()?;
            let directory = pages.directory().clone();
            if let Err(error) = pages.fill(&self.client, &self.patience).await {
                self.open.pop();
                // A directory goes with its last file.
                if error.is_absence() && !self.open.is_empty() {
                    continue;
                }
                return Some(Found::Unread(directory, error));
            }
            if pages.n_unnameable > 0 {
                let n = std::mem::take(&mut pages.n_unnameable);
                return Some(Found::Unnameable(directory, n));
            }
            let Some(listed) = pages.pop() else {
                self.open.pop();
                continue;
            };
            let whole = format!("{directory}{}", listed.name);
            let relative = &whole[self.root.as_str().len()..];
            match listed.file {
                Some(file) if self.filters.takes(relative) => return Some(Found::File(file)),
                Some(_) => {}
                None if self.filters.passes_over(relative) => {}
                None => {
                    let Ok(below) = whole.parse() else {
                        let (asked, found) = (directory.clone(), whole);
                        let error = ListingError::Outside { asked, found };
                        return Some(Found::Unread(directory, error));
                    };
                    self.open.push(Pages::new(below));
                }
            }
        }
    }
}
