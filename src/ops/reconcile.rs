//! Reconciliation: what other programs did in the tree becomes records.
//!
//! A file that is in the tree and not in the log as it is there was found; one that is in the log
//! and not in the tree is gone. Whoever changes a file meanwhile is faster, and is right.

use std::time::{Duration, Instant};

use super::{OpError, Service, draft};
use crate::content::{ContentId, Stamp};
use crate::digest::{Digest, Hasher};
use crate::identity::Identity;
use crate::index::Indexed;
use crate::log::{Change, Condition, Draft, Entry, Matter};
use crate::path::{Prefix, RemotePath};
use crate::policy::Action;
use crate::protocol::{Reconcile, Reconciled};
use crate::store::{Name, StoreError};

/// Files that are looked at for one page.
const PAGE_FILES_MAX: usize = 1000;
/// How long one page may take before it ends, but for the file it is at.
const PAGE_TIME_MAX: Duration = Duration::from_secs(5);
/// Names of a directory that are read at a time.
const NAMES_MAX: usize = 512;
/// Larger files are recorded without a digest: they would hold up the others.
const HASHED_SIZE_MAX: u64 = 1 << 30;
const PIECE_SIZE: usize = 256 << 10;
/// How long a commit is waited for that may explain what is seen.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The two passes, as `next` spells them before the name.
const GONE: &str = "gone:";
const FOUND: &str = "found:";

/// What one page has come to.
struct Page {
    drafts: Vec<Draft>,
    n_files: u64,
    n_found: u64,
    n_gone: u64,
    next: Option<String>,
    until: Instant,
}

impl Page {
    fn is_full(&self, n_looked_at: usize) -> bool {
        n_looked_at >= PAGE_FILES_MAX || Instant::now() >= self.until
    }
}

impl Service {
    /// One page of a reconciliation: `admin` on the directory. Blocks.
    ///
    /// # Errors
    /// No grant covers it, or a part failed.
    pub fn reconcile(
        &self,
        who: &Identity,
        request: &Reconcile,
    ) -> Result<(Vec<Draft>, Reconciled), OpError> {
        let policy = self.policy();
        let permit = policy.authorize(who, Action::Admin, &request.path)?;
        let prefix = permit.resource();
        let mut page = Page {
            drafts: Vec::new(),
            n_files: 0,
            n_found: 0,
            n_gone: 0,
            next: None,
            until: Instant::now() + PAGE_TIME_MAX,
        };
        let after = |text: &str| match text {
            "" => Ok(None),
            name => name.parse().map(Some).map_err(|_| wrong_next()),
        };
        match request.after.as_deref() {
            None => self.look_for_gone(who, prefix, None, &mut page)?,
            Some(text) => match (text.strip_prefix(GONE), text.strip_prefix(FOUND)) {
                (Some(name), _) => self.look_for_gone(who, prefix, after(name)?, &mut page)?,
                (_, Some(name)) => self.look_for_found(who, prefix, after(name)?, &mut page)?,
                (None, None) => return Err(wrong_next()),
            },
        }
        let reconciled = Reconciled {
            n_files: page.n_files,
            n_found: page.n_found,
            n_gone: page.n_gone,
            next: page.next,
        };
        Ok((page.drafts, reconciled))
    }

    /// Records what a page has found; what was changed meanwhile is left to the next time.
    ///
    /// # Errors
    /// A part failed.
    pub async fn record_found(&self, drafts: Vec<Draft>) -> Result<(), OpError> {
        if drafts.is_empty() {
            return Ok(());
        }
        let answers = self.committer.submit_all(drafts).answers().await;
        for answer in answers.map_err(OpError::from)? {
            match answer.map_err(OpError::from) {
                Ok(_) | Err(OpError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn look_for_gone(
        &self,
        who: &Identity,
        prefix: &Prefix,
        mut after: Option<RemotePath>,
        page: &mut Page,
    ) -> Result<(), OpError> {
        let mut n_looked_at = 0;
        loop {
            let indexed = self
                .parts
                .index
                .range(prefix, after.as_ref(), NAMES_MAX)
                .map_err(OpError::Index)?;
            if indexed.is_empty() {
                page.next = Some(FOUND.to_owned());
                return Ok(());
            }
            for (path, indexed) in indexed {
                if page.is_full(n_looked_at) {
                    let after = after.map_or_else(String::new, String::from);
                    page.next = Some(format!("{GONE}{after}"));
                    return Ok(());
                }
                n_looked_at += 1;
                if self.is_gone(&path, &indexed)? {
                    page.n_gone += 1;
                    let change = Change::Gone { path: path.clone() };
                    let condition = Condition::Version(path.clone(), indexed.version);
                    let matter = Matter::Files(vec![change]);
                    page.drafts.push(draft(who, matter, vec![condition]));
                }
                after = Some(path);
            }
        }
    }

    fn is_gone(&self, path: &RemotePath, indexed: &Indexed) -> Result<bool, OpError> {
        for _ in 0..2 {
            match self.parts.store.stat(path) {
                Ok(_) => return Ok(false),
                Err(error) if is_no_file(&error) => {}
                Err(error) => return Err(OpError::Store(error)),
            }
            if !self.committer.pending().wait(path, SETTLE_TIMEOUT) {
                break;
            }
        }
        let now = self.parts.index.lookup(path).map_err(OpError::Index)?;
        Ok(now.is_some_and(|now| now.version == indexed.version))
    }

    fn look_for_found(
        &self,
        who: &Identity,
        prefix: &Prefix,
        after: Option<RemotePath>,
        page: &mut Page,
    ) -> Result<(), OpError> {
        let mut walk = Walk::from(prefix, after.as_ref());
        let mut last = after;
        let mut n_looked_at = 0;
        while let Some(path) = walk.next(self)? {
            if page.is_full(n_looked_at) {
                let last = last.map_or_else(String::new, String::from);
                page.next = Some(format!("{FOUND}{last}"));
                return Ok(());
            }
            n_looked_at += 1;
            page.n_files += 1;
            if let Some(draft) = self.found(who, &path)? {
                page.n_found += 1;
                page.drafts.push(draft);
            }
            last = Some(path);
        }
        Ok(())
    }

    /// The draft that records a file, if the log does not know it as it is.
    fn found(&self, who: &Identity, path: &RemotePath) -> Result<Option<Draft>, OpError> {
        let info = match self.stat_settled(path) {
            Ok(info) => info,
            Err(OpError::NotFound(_) | OpError::Unsettled(_)) => return Ok(None),
            Err(OpError::Store(error)) if is_no_file(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if info.version.is_some() {
            return Ok(None);
        }
        let before = self.parts.index.lookup(path).map_err(OpError::Index)?;
        let Some((stamp, digest)) = self.read_found(path)? else {
            return Ok(None);
        };
        // It was put meanwhile, and is known.
        if before
            .as_ref()
            .is_some_and(|known| known.entry.stamp == stamp)
        {
            return Ok(None);
        }
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| OpError::ThreadLost)?;
        let entry = Entry {
            content: ContentId::from_random(id),
            stamp,
            digest,
            attributes: None,
        };
        let condition = match before {
            Some(indexed) => Condition::Version(path.clone(), indexed.version),
            None => Condition::Absent(path.clone()),
        };
        let path = path.clone();
        let matter = Matter::Files(vec![Change::Found { path, entry }]);
        Ok(Some(draft(who, matter, vec![condition])))
    }

    /// What the file is, if it is the same after it was read.
    fn read_found(&self, path: &RemotePath) -> Result<Option<(Stamp, Option<Digest>)>, OpError> {
        let content = match self.parts.store.open(path) {
            Ok(content) => content,
            Err(error) if is_no_file(&error) => return Ok(None),
            Err(error) => return Err(OpError::Store(error)),
        };
        let stamp = content.stamp();
        if stamp.size > HASHED_SIZE_MAX {
            return Ok(Some((stamp, None)));
        }
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; PIECE_SIZE];
        while hasher.size() < stamp.size {
            let n = content.read_at(&mut buffer, hasher.size());
            let n = n.map_err(|source| {
                OpError::Store(StoreError::Io {
                    during: "reading a file",
                    source,
                })
            })?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
        let is_same = self.parts.store.stat(path).is_ok_and(|now| now == stamp);
        let is_whole = hasher.size() == stamp.size;
        Ok((is_same && is_whole).then(|| (stamp, Some(hasher.digest()))))
    }
}

/// Whether no file of the tree is there, whatever else is: a link, a directory, another file system.
const fn is_no_file(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotFound
            | StoreError::NotAFile(_)
            | StoreError::Directory(_)
            | StoreError::Confined(_)
    )
}

const fn wrong_next() -> OpError {
    OpError::BadRequest("\"after\" is the \"next\" of the page before")
}

/// The files under a directory, depth first, names in the order of their bytes.
struct Walk {
    /// The directories on the way down, with the last name that was seen in each.
    open: Vec<(Prefix, Option<String>)>,
    names: Vec<Name>,
}

impl Walk {
    /// Begins after a file, or at the beginning.
    fn from(prefix: &Prefix, after: Option<&RemotePath>) -> Self {
        let mut open = vec![(prefix.clone(), None)];
        let inside = after.and_then(|after| after.as_str().strip_prefix(prefix.as_str()));
        for segment in inside.into_iter().flat_map(|inside| inside.split('/')) {
            let Some((directory, last)) = open.last_mut() else {
                break;
            };
            *last = Some(segment.to_owned());
            if let Ok(below) = directory.join(segment) {
                open.push((below.as_prefix(), None));
            }
        }
        // The last segment is the file itself.
        if inside.is_some() {
            open.pop();
        }
        Self {
            open,
            names: Vec::new(),
        }
    }

    fn next(&mut self, service: &Service) -> Result<Option<RemotePath>, OpError> {
        loop {
            let Some((directory, last)) = self.open.last_mut() else {
                return Ok(None);
            };
            let Some(name) = self.names.pop() else {
                let page = service
                    .parts
                    .store
                    .list(directory, last.as_deref(), NAMES_MAX);
                match page {
                    Ok(page) if page.names.is_empty() => drop(self.open.pop()),
                    Ok(page) => self.names = page.names.into_iter().rev().collect(),
                    Err(error) if is_no_file(&error) => drop(self.open.pop()),
                    Err(error) => return Err(OpError::Store(error)),
                }
                continue;
            };
            let (Name::File { name: text, .. } | Name::Directory { name: text }) = &name;
            *last = Some(text.clone());
            let Ok(path) = directory.join(text) else {
                continue;
            };
            match name {
                Name::File { .. } => return Ok(Some(path)),
                Name::Directory { .. } => {
                    // The rest of this directory is read again when the one below is done.
                    self.names.clear();
                    self.open.push((path.as_prefix(), None));
                }
            }
        }
    }
}
