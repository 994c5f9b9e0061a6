//! The store as a plain directory tree, that other programs can read.
//!
//! Nothing half-written is ever visible in the tree: a content is written under `.fsvc/staging`, on
//! the same file system, and appears by rename. After an error that may have cost content the store
//! takes no more changes.

mod ahead;
mod attached;
mod blocks;
mod confine;
mod content;
mod directories;
mod list;
mod loose;
mod pack;
mod packs;
mod parts;
mod private;
mod publish;
mod reaper;
mod staging;
mod whole;

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{Advice, fadvise};
use tracing::error;

use crate::content::{ContentId, Stamp};
use crate::path::{Prefix, RESERVED_PREFIX, RemotePath};
use crate::store::{
    Content, Names, Noted, Parts, Publication, Published, Sealed, Settling, Store, StoreError,
    Unsealed, Upload,
};
use ahead::Ahead;
use attached::Attachments;
use confine::Tree;
use content::LocalContent;
use directories::{Dirty, Near};
use packs::Packs;
use private::{is_worth_packing, lock, n_files_max, private_directory};
use publish::Publisher;
use reaper::Reaper;
use staging::Staging;
use whole::MANY_MIN;

/// A file from which the kernel is told to read ahead.
const LARGE_SIZE: u64 = 1 << 20;

/// A store in a directory, for one server at a time.
pub struct LocalStore {
    tree: Tree,
    staging: Arc<Staging>,
    attached: Attachments,
    /// Held while names of the tree change, so that no name is relied on before its directory is
    /// known to need a sync.
    dirty: Mutex<Dirty>,
    /// Held during a sync: whoever finds nothing to sync must wait for the one who took it.
    syncing: Mutex<()>,
    reaper: Reaper,
    ahead: Ahead,
    _lock: OwnedFd,
}

/// Whether the store takes changes, and if not, why.
#[derive(Default)]
struct Health(OnceLock<String>);

impl LocalStore {
    /// Opens the store in `root`, which is made if only its last name is missing. Uploads leave
    /// `reserve` bytes of the file system free.
    ///
    /// # Errors
    /// The root is not a directory, another server uses it, or the disk failed.
    pub fn open(root: &Path, reserve: u64) -> Result<Self, StoreError> {
        let tree = Tree::open(root)?;
        let opening = |error| failed("opening .fsvc in the root as a directory of its own", error);
        let top = tree.directory("").map_err(opening)?;
        let private = private_directory(&top, RESERVED_PREFIX).map_err(opening)?;
        let lock = lock(&private)?;
        let staged = private_directory(&private, "staging").map_err(opening)?;
        let attached = private_directory(&private, "attached").map_err(opening)?;
        let packs = private_directory(&private, "packs").map_err(opening)?;
        let packs = Packs::open(packs, n_files_max())
            .map_err(|error| failed("reading .fsvc/packs", error))?;
        let mut staging = Staging::new(staged, packs, reserve)?;
        if is_worth_packing(&private) {
            staging.naming = staging.probe_naming(&tree);
        }
        Ok(Self {
            tree,
            attached: Attachments(attached),
            staging: Arc::new(staging),
            dirty: Mutex::default(),
            syncing: Mutex::default(),
            reaper: Reaper::start(),
            ahead: Ahead::default(),
            _lock: lock,
        })
    }

    /// The right to change names, with the directories that wait for a sync.
    fn changing(&self) -> Result<MutexGuard<'_, Dirty>, StoreError> {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        self.staging.health.check()?;
        self.make_room(&mut dirty)?;
        Ok(dirty)
    }

    fn publisher<'a>(&'a self, near: &'a mut Near, dirty: &'a mut Dirty) -> Publisher<'a> {
        Publisher {
            tree: &self.tree,
            staging: &self.staging,
            attached: &self.attached,
            dirty,
            near,
            reaper: &self.reaper,
        }
    }

    fn make_room(&self, dirty: &mut Dirty) -> Result<(), StoreError> {
        if dirty.is_full() {
            self.sync_directories(dirty)?;
        }
        Ok(())
    }

    /// The directory for the file at `path`, made where it is missing.
    fn parent(&self, path: &RemotePath) -> Result<OwnedFd, StoreError> {
        match directories::parent(&self.tree, path)? {
            Some(parent) => Ok(parent),
            None => directories::make_parent(&self.tree, path, &mut *self.changing()?),
        }
    }

    /// Makes the names in them durable and forgets them all: an error is final.
    fn sync_directories(&self, dirty: &mut Dirty) -> Result<(), StoreError> {
        if dirty.n() >= MANY_MIN {
            // Also when it fails: nothing is synced twice in the hope that it went well.
            dirty.forget();
            return self.staging.whole.sync(&self.staging.health);
        }
        dirty
            .sync()
            .map_err(|error| self.staging.health.lose(error))
    }
}

impl Store for LocalStore {
    fn check(&self) -> Result<(), StoreError> {
        self.staging.health.check()
    }

    fn begin(&self, size: Option<u64>) -> Result<Box<dyn Upload>, StoreError> {
        Arc::clone(&self.staging).begin(size)
    }

    fn begin_many(&self, size: u64) -> Result<Box<dyn Upload>, StoreError> {
        Arc::clone(&self.staging).begin_many(size)
    }

    fn allocate(&self, size: u64, note: &[u8]) -> Result<ContentId, StoreError> {
        self.staging.allocate(size, note)
    }

    fn parts(&self, content: ContentId) -> Result<Box<dyn Parts>, StoreError> {
        Arc::clone(&self.staging).parts(content)
    }

    fn seal_parts(&self, content: ContentId, size: u64) -> Result<Sealed, StoreError> {
        self.staging.seal_parts(content, size)
    }

    fn note(&self, content: ContentId, note: &[u8], is_durable: bool) -> Result<(), StoreError> {
        self.staging.note(content, note, is_durable)
    }

    fn replace_notes(&self, content: ContentId, notes: &[u8]) -> Result<(), StoreError> {
        self.staging.replace_notes(content, notes)
    }

    fn noted(&self) -> Result<Vec<Noted>, StoreError> {
        self.staging.noted()
    }

    fn notes(&self, content: ContentId, size_max: usize) -> Result<Vec<u8>, StoreError> {
        self.staging.notes(content, size_max)
    }

    fn forget(&self, content: ContentId) {
        self.staging.forget(content);
    }

    fn seal_all(&self, contents: &[Unsealed]) -> Result<Vec<Sealed>, StoreError> {
        self.staging.seal_all(contents)
    }

    fn discard(&self, content: ContentId) {
        // A file that stays behind is swept at the next start.
        let _ = self.staging.discard(content);
    }

    /// The new directories are durable with the next [`Store::sync`], which an acknowledgement
    /// waits for anyway; until then a crash leaves nothing that publishing would not make again.
    fn prepare(&self, path: &RemotePath) -> Result<(), StoreError> {
        self.prepare_all(&[(path, None)]).into_iter().collect()
    }

    fn prepare_all(&self, places: &[(&RemotePath, Option<Sealed>)]) -> Vec<Result<(), StoreError>> {
        let mut near = Near::default();
        let prepare = |(path, sealed): &(&RemotePath, Option<Sealed>)| {
            self.staging.health.check()?;
            let parent = match near.find(path) {
                Some(parent) => parent,
                None => near.keep(path, self.parent(path)?),
            };
            let there = directories::check_name(&parent, path)?;
            match (there, sealed) {
                (Some(there), Some(sealed)) if there.modified >= sealed.stamp.modified => {
                    self.staging.keep_as_file(&self.tree, sealed.content)
                }
                _ => Ok(()),
            }
        };
        places.iter().map(prepare).collect()
    }

    fn unsettled(&self) -> u64 {
        self.staging.packs.size()
    }

    fn is_left(&self, content: ContentId) -> bool {
        self.staging.packs.is_left(content)
    }

    fn restore(
        &self,
        content: ContentId,
        stamp: Stamp,
        path: &RemotePath,
    ) -> Result<(), StoreError> {
        let bytes = self.staging.packs.left(content);
        let bytes = bytes.map_err(|error| failed("reading a pack", error))?;
        let Some(bytes) = bytes else { return Ok(()) };
        let mut dirty = self.changing()?;
        self.make_room(&mut dirty)?;
        let restored = self
            .publisher(&mut Near::default(), &mut dirty)
            .restore(&bytes, stamp, path);
        restored.map_err(|error| match error {
            StoreError::Io { .. } | StoreError::OutOfSpace(_) => self.staging.health.lose(error),
            // The name is another program's.
            other => other,
        })
    }

    fn begin_settling(&self) -> Settling {
        Settling {
            packs: self.staging.packs.close(),
        }
    }

    fn left(&self) -> Settling {
        Settling {
            packs: self.staging.packs.left_packs(),
        }
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.staging.whole.sync(&self.staging.health)
    }

    fn end_settling(&self, settling: Settling) -> Result<(), StoreError> {
        let removed = self.staging.packs.remove(&settling.packs);
        removed.map_err(|error| failed("removing a pack", error))
    }

    fn release(&self, paths: &[&RemotePath]) -> Result<(), StoreError> {
        let mut dirty = self.changing()?;
        for path in paths {
            self.make_room(&mut dirty)?;
            directories::prune(&self.tree, path, &mut dirty)?;
        }
        Ok(())
    }

    fn publish(&self, publication: &Publication) -> Result<Published, StoreError> {
        let published = self.publish_all(std::slice::from_ref(publication))?;
        Ok(published.first().copied().unwrap_or(Published::Done))
    }

    fn publish_all(&self, publications: &[Publication]) -> Result<Vec<Published>, StoreError> {
        let mut outcomes = Vec::with_capacity(publications.len());
        let (mut near, mut dirty) = (Near::default(), self.changing()?);
        for publication in publications {
            self.make_room(&mut dirty)?;
            let outcome = self.publisher(&mut near, &mut dirty).publish(publication);
            outcomes.push(outcome.map_err(|error| self.staging.health.lose(error))?);
        }
        Ok(outcomes)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.staging.health.check()?;
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut *dirty);
        drop(dirty);
        self.sync_directories(&mut taken)
    }

    fn open(&self, path: &RemotePath) -> Result<Box<dyn Content>, StoreError> {
        let (file, stamp) = self.tree.file(path)?;
        if stamp.size > LARGE_SIZE {
            // Advice only: a file system that takes none reads all the same.
            let _ = fadvise(&file, 0, None, Advice::Sequential);
        }
        Ok(Box::new(LocalContent { file, stamp }))
    }

    fn open_attached(&self, content: ContentId) -> Result<Box<dyn Content>, StoreError> {
        let (file, stamp) = self.attached.open(content)?;
        Ok(Box::new(LocalContent { file, stamp }))
    }

    fn detach(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        self.attached.remove(contents)
    }

    fn stat(&self, path: &RemotePath) -> Result<Stamp, StoreError> {
        self.tree.stamp(path)
    }

    fn list(
        &self,
        directory: &Prefix,
        after: Option<&str>,
        n_max: usize,
    ) -> Result<Names, StoreError> {
        list::list(&self.tree, &self.ahead, directory, after, n_max)
    }

    fn sweep(&self, keep: &HashSet<ContentId>) -> Result<usize, StoreError> {
        self.staging.sweep(keep)
    }
}

impl Health {
    fn check(&self) -> Result<(), StoreError> {
        match self.0.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::ReadOnly(reason.clone())),
        }
    }

    /// Ends all changes because of `error`; the first reason stays.
    fn lose(&self, error: StoreError) -> StoreError {
        self.0.get_or_init(|| {
            let reason = match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            error!(reason, "the store takes no changes until a restart");
            reason
        });
        error
    }
}

/// Names an I/O failure; a full disk is its own refusal wherever it is met.
fn failed(during: &'static str, error: impl Into<io::Error>) -> StoreError {
    let source = error.into();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::OutOfSpace(source),
        _ => StoreError::Io { during, source },
    }
}
