//! The names of one directory, a page at a time.
//!
//! Memory is bounded by the page: a pass over the directory keeps the smallest names behind the
//! cursor, and only those are looked at.

use std::collections::BinaryHeap;
use std::os::fd::BorrowedFd;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::ahead::{self, Ahead, State};
use super::confine::{Tree, kind, refused, stamp, status};
use super::failed;
use crate::path::{PathError, Prefix, RESERVED_PREFIX, RemotePath};
use crate::store::{Name, Names, StoreError};

/// Passes over a directory for one page, when all names of a page go before they are looked at.
const PASSES_MAX: usize = 16;

/// One pass over a directory.
struct Page<'a> {
    directory: &'a Prefix,
    after: Option<String>,
    n_max: usize,
    smallest: BinaryHeap<String>,
    more: bool,
    n_unnameable: u64,
}

/// See [`crate::store::Store::list`].
pub(super) fn list(
    tree: &Tree,
    ahead: &Ahead,
    directory: &Prefix,
    after: Option<&str>,
    n_max: usize,
) -> Result<Names, StoreError> {
    let mut open = open(tree, directory)?;
    let reading = |error| failed("reading a directory", error);
    let mut n_unnameable = 0;
    let mut after = after.map(str::to_owned);
    for _ in 0..PASSES_MAX {
        let state = State::of(&open.stat().map_err(reading)?);
        let known = after.as_deref().and_then(|after| ahead.take(state, after));
        let (names, more) = if let Some(known) = known {
            known
        } else {
            let n_ahead = n_max.max(ahead::NAMES_MAX);
            let mut page = Page::new(directory, after.clone(), n_ahead);
            page.read(&mut open).map_err(reading)?;
            if page.n_unnameable > 0 && page.smallest.len() > n_max {
                // They are counted page by page.
                open.rewind();
                page = Page::new(directory, after.clone(), n_max);
                page.read(&mut open).map_err(reading)?;
            }
            n_unnameable += page.n_unnameable;
            (page.smallest.into_sorted_vec(), page.more)
        };
        let page = &names[..names.len().min(n_max)];
        let last = page.last().cloned();
        let fd = open.fd();
        let looked = fd
            .and_then(|fd| page.iter().filter_map(|name| look(fd, name)).collect())
            .map_err(|error| failed("looking at the names of a directory", error))?;
        let looked = Names {
            more: more || page.len() < names.len(),
            names: looked,
            n_unnameable,
        };
        if looked.more && state.is_calm() {
            ahead.keep(state, after.unwrap_or_default(), names, more);
        }
        if !looked.names.is_empty() || !looked.more || n_max == 0 {
            return Ok(looked);
        }
        after = last;
        open.rewind();
    }
    Err(failed(
        "reading a directory that keeps changing",
        Errno::AGAIN,
    ))
}

fn open(tree: &Tree, directory: &Prefix) -> Result<Dir, StoreError> {
    let opened = tree.directory(directory.relative());
    let opened = opened.map_err(|errno| match (errno, as_path(directory)) {
        (Errno::NOTDIR, Some(path)) => match tree.stamp(&path) {
            Ok(_) | Err(StoreError::NotAFile(_)) => StoreError::NotAFile(path),
            Err(refusal) => refusal,
        },
        (errno, Some(path)) => refused(errno, &path),
        (errno, None) => failed("opening the root of the store", errno),
    })?;
    Dir::new(opened).map_err(|error| failed("reading a directory", error))
}

/// What a name is now; none if it went, or became something that is not listed.
fn look(directory: BorrowedFd<'_>, name: &str) -> Option<Result<Name, Errno>> {
    let status = match status(directory, name) {
        Ok(status) => status?,
        Err(errno) => return Some(Err(errno)),
    };
    let name = name.to_owned();
    match (stamp(&status), kind(&status)) {
        (Some(stamp), _) => Some(Ok(Name::File { name, stamp })),
        (None, FileType::Directory) => Some(Ok(Name::Directory { name })),
        (None, _) => None,
    }
}

impl<'a> Page<'a> {
    fn new(directory: &'a Prefix, after: Option<String>, n_max: usize) -> Self {
        Self {
            directory,
            after,
            n_max,
            smallest: BinaryHeap::new(),
            more: false,
            n_unnameable: 0,
        }
    }

    fn read(&mut self, open: &mut Dir) -> Result<(), Errno> {
        self.pass(open, Self::take)?;
        // Which unnameable names are in the page is known only once its last name is.
        if self.more && self.n_unnameable > 0 {
            self.n_unnameable = 0;
            open.rewind();
            self.pass(open, Self::count)?;
        }
        Ok(())
    }

    /// Gives every listed name behind the cursor to `each`.
    fn pass(&mut self, open: &mut Dir, each: fn(&mut Self, &[u8])) -> Result<(), Errno> {
        while let Some(entry) = open.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let after = self.after.as_deref().unwrap_or_default().as_bytes();
            if name <= after || matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems have directories that do not say what their names are.
                FileType::Unknown => status(open.fd()?, entry.file_name())?
                    .map_or(FileType::Unknown, |status| kind(&status)),
                kind => kind,
            };
            if kind.is_file() || kind.is_dir() {
                each(self, name);
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &[u8]) {
        let full = self.smallest.len() >= self.n_max;
        let beyond = full
            && self
                .smallest
                .peek()
                .is_none_or(|last| name > last.as_bytes());
        if beyond && self.more {
            return;
        }
        match spell(self.directory, name) {
            Spelling::Reserved => {}
            Spelling::Unnameable => self.n_unnameable += 1,
            Spelling::Name(_) if beyond => self.more = true,
            Spelling::Name(name) => {
                self.smallest.push(name.to_owned());
                if full {
                    self.smallest.pop();
                    self.more = true;
                }
            }
        }
    }

    fn count(&mut self, name: &[u8]) {
        let within = self
            .smallest
            .peek()
            .is_some_and(|last| name < last.as_bytes());
        if within && matches!(spell(self.directory, name), Spelling::Unnameable) {
            self.n_unnameable += 1;
        }
    }
}

enum Spelling<'a> {
    Name(&'a str),
    Reserved,
    Unnameable,
}

fn spell<'a>(directory: &Prefix, name: &'a [u8]) -> Spelling<'a> {
    if name.starts_with(RESERVED_PREFIX.as_bytes()) {
        return Spelling::Reserved;
    }
    let Ok(text) = str::from_utf8(name) else {
        return Spelling::Unnameable;
    };
    match directory.join(text) {
        Ok(_) => Spelling::Name(text),
        Err(PathError::Reserved) => Spelling::Reserved,
        Err(_) => Spelling::Unnameable,
    }
}

/// The directory's own name, to speak of it in a refusal; the root has none.
fn as_path(directory: &Prefix) -> Option<RemotePath> {
    directory.as_str().strip_suffix('/')?.parse().ok()
}
