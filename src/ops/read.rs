//! Reading: files, their metadata, directories.
//!
//! A reader sees a file as it was before a change or after it, never a mix: what the tree holds is
//! given a version only if it is what the log says, to the nanosecond.

use std::time::Duration;

use super::{OpError, Service};
use crate::content::Stamp;
use crate::identity::Identity;
use crate::index::Indexed;
use crate::log::{Conflict, Sequence};
use crate::path::{Prefix, RemotePath};
use crate::policy::Action;
use crate::protocol::{Directory, FileInfo, Get, List, ListEntry, Listing, Stat};
use crate::store::{Content, Name, StoreError};

/// How long a reader waits for a publication.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a reader looks again at a file that keeps changing.
const ATTEMPTS_MAX: usize = 64;
/// Bytes of entries in one page: what a message holds, less its frame.
const PAGE_SIZE_MAX: usize = 60 << 10;
/// Names looked at for one page.
const PAGE_NAMES_MAX: usize = 512;

/// A file open for reading: one version, to the end.
pub struct OpenFile {
    pub info: FileInfo,
    pub content: Box<dyn Content>,
}

impl OpenFile {
    /// The version, by which the same content is found again.
    ///
    /// # Errors
    /// Another program wrote the file, and nobody has recorded it.
    pub(super) fn version(&self) -> Result<u64, OpError> {
        self.info.version.ok_or(OpError::BadRequest(
            "another program wrote the file, so it has no version: reconcile it first",
        ))
    }
}

impl Service {
    /// Opens a file.
    ///
    /// # Errors
    /// No grant covers it, or it is not there.
    pub fn open_file(&self, who: &Identity, get: &Get) -> Result<OpenFile, OpError> {
        let permit = self.policy().authorize(who, Action::Read, &get.path)?;
        let file = self.open_settled(permit.resource())?;
        if let Some(wanted) = get.if_version.map(Sequence) {
            let found = file.info.version.map(Sequence);
            check_version(permit.resource(), wanted, found).map_err(OpError::Conflict)?;
        }
        Ok(file)
    }

    /// Opens a file for whoever may do what is done with it.
    pub(super) fn open_settled(&self, path: &RemotePath) -> Result<OpenFile, OpError> {
        let (content, indexed) = self.settled(path, |path| {
            let content = self.parts.store.open(path)?;
            Ok((content.stamp(), content))
        })?;
        Ok(OpenFile {
            info: info(path, content.stamp(), indexed),
            content,
        })
    }

    /// A file's metadata.
    ///
    /// # Errors
    /// No grant covers it, or it is not there.
    pub fn stat(&self, who: &Identity, stat: &Stat) -> Result<FileInfo, OpError> {
        let permit = self.policy().authorize(who, Action::List, &stat.path)?;
        self.stat_settled(permit.resource())
    }

    /// One page of a directory. Of a set that is published meanwhile it shows all or nothing.
    ///
    /// # Errors
    /// No grant covers it, or it is not there.
    pub fn list(&self, who: &Identity, list: &List) -> Result<Listing, OpError> {
        let policy = self.policy();
        let permit = policy.authorize(who, Action::List, &list.path)?;
        let pending = self.committer.pending();
        for _ in 1..ATTEMPTS_MAX {
            let n_sets = pending.wait_sets(SETTLE_TIMEOUT);
            let listing = self.list_once(permit.resource(), list.after.as_deref());
            if pending.n_sets() == n_sets {
                return listing;
            }
        }
        self.list_once(permit.resource(), list.after.as_deref())
    }

    fn list_once(&self, directory: &Prefix, after: Option<&str>) -> Result<Listing, OpError> {
        let names = self.parts.store.list(directory, after, PAGE_NAMES_MAX);
        let names = names.map_err(|error| match error {
            StoreError::NotFound => OpError::NoDirectory(directory.clone()),
            StoreError::NotAFile(_) => OpError::NotADirectory(directory.clone()),
            error => OpError::Store(error),
        })?;
        let mut listing = Listing {
            path: directory.clone(),
            entries: Vec::new(),
            next: None,
            n_unnameable: names.n_unnameable,
        };
        let mut size = 0;
        let mut last_seen = None;
        for name in names.names {
            let text = match &name {
                Name::File { name, .. } | Name::Directory { name } => name.clone(),
            };
            if let Some(entry) = self.entry(directory, &text, &name)? {
                size += serde_json::to_vec(&entry).map_or(0, |bytes| bytes.len() + 1);
                if size > PAGE_SIZE_MAX {
                    listing.next = last_seen;
                    return Ok(listing);
                }
                listing.entries.push(entry);
            }
            last_seen = Some(text);
        }
        // Also when every name of this page went away meanwhile: there are others.
        if names.more {
            listing.next = last_seen;
        }
        Ok(listing)
    }

    /// What is listed for a name; nothing for one that went away meanwhile.
    fn entry(
        &self,
        directory: &Prefix,
        text: &str,
        name: &Name,
    ) -> Result<Option<ListEntry>, OpError> {
        let Ok(path) = directory.join(text) else {
            return Ok(None);
        };
        Ok(match name {
            Name::Directory { .. } => Some(ListEntry::Directory(Directory {
                path: path.as_prefix(),
            })),
            Name::File { stamp, .. } => self.list_file(&path, *stamp)?.map(ListEntry::File),
        })
    }

    fn list_file(&self, path: &RemotePath, stamp: Stamp) -> Result<Option<FileInfo>, OpError> {
        let indexed = self.parts.index.lookup(path).map_err(OpError::Index)?;
        if indexed
            .as_ref()
            .is_some_and(|indexed| indexed.entry.stamp == stamp)
        {
            return Ok(Some(info(path, stamp, indexed)));
        }
        match self.stat_settled(path) {
            Ok(file) => Ok(Some(file)),
            Err(OpError::NotFound(_) | OpError::Store(StoreError::NotAFile(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn stat_settled(&self, path: &RemotePath) -> Result<FileInfo, OpError> {
        let (stamp, indexed) = self.settled(path, |path| {
            let stamp = self.parts.store.stat(path)?;
            Ok((stamp, stamp))
        })?;
        Ok(info(path, stamp, indexed))
    }

    /// Looks at a file in the tree and in the index until both say the same, or until it is clear
    /// that another program wrote it.
    fn settled<T>(
        &self,
        path: &RemotePath,
        look: impl Fn(&RemotePath) -> Result<(Stamp, T), StoreError>,
    ) -> Result<(T, Option<Indexed>), OpError> {
        let mut seen_before = None;
        for _ in 0..ATTEMPTS_MAX {
            let before = self.parts.index.lookup(path).map_err(OpError::Index)?;
            let found = match look(path) {
                Ok(found) => Some(found),
                Err(StoreError::NotFound) => None,
                Err(error) => return Err(OpError::Store(error)),
            };
            let stamp = found.as_ref().map(|(stamp, _)| *stamp);
            if stamp == before.as_ref().map(|indexed| indexed.entry.stamp) {
                let (_, value) = found.ok_or_else(|| OpError::NotFound(path.clone()))?;
                return Ok((value, before));
            }
            let was_pending = self.committer.pending().wait(path, SETTLE_TIMEOUT);
            // Only what is seen twice, with no commit on the way, is another program's doing.
            let seen = Some((stamp, before));
            if was_pending || seen != seen_before {
                seen_before = seen;
                continue;
            }
            let (_, value) = found.ok_or_else(|| OpError::NotFound(path.clone()))?;
            return Ok((value, None));
        }
        Err(OpError::Unsettled(path.clone()))
    }
}

/// Whether a file has the version that was asked for.
pub(super) fn check_version(
    path: &RemotePath,
    wanted: Sequence,
    found: Option<Sequence>,
) -> Result<(), Conflict> {
    let path = path.clone();
    match found {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(Conflict::Changed {
            path,
            found,
            wanted,
        }),
        None => Err(Conflict::Gone { path, wanted }),
    }
}

pub(super) fn info(path: &RemotePath, stamp: Stamp, indexed: Option<Indexed>) -> FileInfo {
    FileInfo {
        path: path.clone(),
        size: stamp.size,
        modified: stamp.modified,
        version: indexed.as_ref().map(|indexed| indexed.version.0),
        digest: indexed.as_ref().and_then(|indexed| indexed.entry.digest),
        attributes: indexed.and_then(|indexed| indexed.entry.attributes),
    }
}
