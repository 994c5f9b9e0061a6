//! Directories of the server, name by name.
//!
//! Nothing that the server lists is believed: a page must be of the directory that was asked for, its
//! names in order and behind those before, and every page must come further than the last.

use std::collections::VecDeque;

use thiserror::Error;

use super::patience::Patience;
use crate::client::{Client, ClientError};
use crate::escape::Escaped;
use crate::path::Prefix;
use crate::protocol::{ErrorCode, FileInfo, List, ListEntry, Listing, Op};

/// Most entries of one page.
const PAGE_ENTRIES_MAX: usize = 512;
/// Pages without an entry, one after the other.
const EMPTY_PAGES_MAX: u32 = 1_000;
/// Most names of one directory.
const NAMES_MAX: u64 = 20_000_000;

/// Why a listing is not believed, or did not come.
#[derive(Debug, Error)]
pub enum ListingError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(
        "the server listed {} where {asked} was asked for",
        Escaped::new(found)
    )]
    OtherDirectory { asked: Prefix, found: String },
    #[error(
        "the server listed {} in {asked}, which is not directly in it",
        Escaped::new(found)
    )]
    Outside { asked: Prefix, found: String },
    #[error(
        "the server listed {} behind {}, out of order",
        Escaped::new(found),
        Escaped::new(before)
    )]
    Disorder { before: String, found: String },
    #[error(
        "the server's pages of {asked} do not come further: {}, then {}",
        Escaped::new(before),
        Escaped::new(found)
    )]
    Standstill {
        asked: Prefix,
        before: String,
        found: String,
    },
    #[error("the server listed more than {limit} {what} of {asked}")]
    Endless {
        asked: Prefix,
        what: &'static str,
        limit: u64,
    },
}

impl ListingError {
    /// Whether there is nothing of this name.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Client(error) if error.code() == Some(ErrorCode::NotFound))
    }
}

/// One name in a directory of the server.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Of a file, all that is known.
    pub(super) file: Option<Box<FileInfo>>,
}

/// A directory of the server, read page by page.
pub(super) struct Pages {
    directory: Prefix,
    after: Option<String>,
    last: Option<String>,
    is_done: bool,
    n_empty: u32,
    n_names: u64,
    queue: VecDeque<Listed>,
    /// Names that cannot be spelled, since the last look.
    pub(super) n_unnameable: u64,
}

impl Pages {
    pub(super) const fn new(directory: Prefix) -> Self {
        Self {
            directory,
            after: None,
            last: None,
            is_done: false,
            n_empty: 0,
            n_names: 0,
            queue: VecDeque::new(),
            n_unnameable: 0,
        }
    }

    /// A directory that is known to be empty.
    pub(super) const fn none(directory: Prefix) -> Self {
        let mut pages = Self::new(directory);
        pages.is_done = true;
        pages
    }

    pub(super) const fn directory(&self) -> &Prefix {
        &self.directory
    }

    /// The next name, if it was read already.
    pub(super) fn front(&self) -> Option<&Listed> {
        self.queue.front()
    }

    pub(super) fn pop(&mut self) -> Option<Listed> {
        self.queue.pop_front()
    }

    /// Whether there is nothing more to read.
    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Reads on, if nothing that was read is left and there is more.
    ///
    /// # Errors
    /// The request failed, or what it answered is not believed.
    pub(super) async fn fill(
        &mut self,
        client: &Client,
        patience: &Patience,
    ) -> Result<(), ListingError> {
        while self.queue.is_empty() && !self.is_done {
            let list = List {
                path: self.directory.clone(),
                after: self.after.clone(),
            };
            let ask = || client.ask_once::<Listing>(Op::List(list.clone()));
            let page = patience.persist(ask).await?;
            self.take(page)?;
        }
        Ok(())
    }

    fn take(&mut self, page: Listing) -> Result<(), ListingError> {
        if page.path != self.directory {
            return Err(ListingError::OtherDirectory {
                asked: self.directory.clone(),
                found: page.path.into(),
            });
        }
        self.n_names += page.entries.len() as u64;
        if page.entries.len() > PAGE_ENTRIES_MAX {
            return Err(self.endless("entries in one page", PAGE_ENTRIES_MAX as u64));
        }
        if self.n_names > NAMES_MAX {
            return Err(self.endless("names", NAMES_MAX));
        }
        self.n_empty = if page.entries.is_empty() {
            self.n_empty + 1
        } else {
            0
        };
        if self.n_empty > EMPTY_PAGES_MAX {
            return Err(self.endless("pages without a name", u64::from(EMPTY_PAGES_MAX)));
        }
        self.n_unnameable = self.n_unnameable.saturating_add(page.n_unnameable);
        for entry in page.entries {
            let listed = self.listed(entry)?;
            let before = self.last.replace(listed.name.clone());
            if let Some(before) = before.filter(|before| *before >= listed.name) {
                return Err(ListingError::Disorder {
                    before,
                    found: listed.name,
                });
            }
            self.queue.push_back(listed);
        }
        self.go_on(page.next)
    }

    fn go_on(&mut self, next: Option<String>) -> Result<(), ListingError> {
        let Some(next) = next else {
            self.is_done = true;
            return Ok(());
        };
        // Behind the page before, and no name of this page behind it: else some would come twice.
        let before = self.after.take().unwrap_or_default();
        let before = before.max(match (self.queue.back(), &self.last) {
            (Some(_), Some(last)) if *last > next => last.clone(),
            _ => String::new(),
        });
        if next <= before {
            return Err(ListingError::Standstill {
                asked: self.directory.clone(),
                before,
                found: next,
            });
        }
        self.last = self.last.take().max(Some(next.clone()));
        self.after = Some(next);
        Ok(())
    }

    fn listed(&self, entry: ListEntry) -> Result<Listed, ListingError> {
        let whole = entry.path();
        let name = whole.strip_prefix(self.directory.as_str());
        let name = name.map(|name| match &entry {
            ListEntry::Directory(_) => name.strip_suffix('/').unwrap_or(name),
            ListEntry::File(_) => name,
        });
        let Some(name) = name.filter(|name| !name.is_empty() && !name.contains('/')) else {
            return Err(ListingError::Outside {
                asked: self.directory.clone(),
                found: whole.to_owned(),
            });
        };
        Ok(Listed {
            name: name.to_owned(),
            file: match entry {
                ListEntry::File(file) => Some(Box::new(file)),
                ListEntry::Directory(_) => None,
            },
        })
    }

    fn endless(&self, what: &'static str, limit: u64) -> ListingError {
        ListingError::Endless {
            asked: self.directory.clone(),
            what,
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, names: &[&str], next: Option<&str>) -> Listing {
        let entry = |name: &&str| {
            let text = if name.ends_with('/') {
                format!(r#"{{"kind":"directory","path":"{name}"}}"#)
            } else {
                format!(
                    r#"{{"kind":"file","path":"{name}","size":1,"modified":"2026-01-01T00:00:00Z"}}"#
                )
            };
            serde_json::from_str(&text).unwrap()
        };
        Listing {
            path: path.parse().unwrap(),
            entries: names.iter().map(entry).collect(),
            next: next.map(str::to_owned),
            n_unnameable: 0,
        }
    }

    #[track_caller]
    fn refused(pages: Vec<Listing>, why: &str) {
        let mut read = Pages::new("/d".parse().unwrap());
        let n = pages.len();
        for (number, page) in pages.into_iter().enumerate() {
            match read.take(page) {
                Ok(()) => assert!(number + 1 < n, "believed"),
                Err(error) => return assert!(error.to_string().contains(why), "{error}"),
            }
        }
    }

    #[test]
    fn pages_that_come_further_are_believed() {
        let mut pages = Pages::new("/d".parse().unwrap());
        pages
            .take(page("/d", &["/d/a", "/d/b/", "/d/b.c"], Some("b.c")))
            .unwrap();
        pages.take(page("/d", &[], Some("c"))).unwrap();
        pages.take(page("/d", &["/d/e"], None)).unwrap();
        assert!(pages.is_done());
        let names: Vec<String> = pages.queue.into_iter().map(|listed| listed.name).collect();
        assert_eq!(names, ["a", "b", "b.c", "e"]);
    }

    #[test]
    fn pages_of_a_mean_server_are_refused() {
        refused(vec![page("/e", &[], None)], "listed /e/ where /d/");
        refused(vec![page("/d", &["/e/a"], None)], "not directly in it");
        refused(vec![page("/d", &["/d/a/b"], None)], "not directly in it");
        refused(vec![page("/d", &["/d/"], None)], "not directly in it");
        refused(vec![page("/d", &["/d/b", "/d/a"], None)], "out of order");
        refused(vec![page("/d", &["/d/a", "/d/a"], None)], "out of order");
        refused(vec![page("/d", &["/d/a", "/d/a/"], None)], "out of order");
        refused(
            vec![page("/d", &["/d/b"], Some("a"))],
            "do not come further",
        );
        let again = || page("/d", &[], Some("a"));
        refused(vec![again(), again()], "do not come further");
        let back = vec![
            page("/d", &["/d/b"], Some("b")),
            page("/d", &["/d/a"], None),
        ];
        refused(back, "out of order");
        let same = vec![
            page("/d", &["/d/b"], Some("b")),
            page("/d", &["/d/b"], None),
        ];
        refused(same, "out of order");
        let empty = (0..=EMPTY_PAGES_MAX)
            .map(|n| page("/d", &[], Some(&format!("{n:05}"))))
            .collect();
        refused(empty, "pages without a name");
    }
}
