//! The store as a plain directory tree, that other programs can read.
//!
//! Nothing half-written is ever visible in the tree: a content is written under `.fsvc/staging`, on
//! the same file system, and appears by rename. After an error that may have cost content the store
//! takes no more changes.

mod ahead;
mod attached;
mod confine;
mod directories;
mod list;
mod parts;
mod publish;
mod reaper;
mod staging;
mod whole;

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{
    Advice, FlockOperation, Mode, OFlags, fadvise, fchmod, flock, fsync, mkdirat, openat,
};
use rustix::io::Errno;
use tracing::error;

use crate::content::{ContentId, Stamp};
use crate::path::{Prefix, RESERVED_PREFIX, RemotePath};
use crate::store::{
    Content, Names, Noted, Parts, Publication, Published, Sealed, Store, StoreError, Unsealed,
    Upload,
};
use ahead::Ahead;
use attached::Attachments;
use confine::Tree;
use directories::{Dirty, Near};
use publish::Publisher;
use reaper::Reaper;
use staging::Staging;
use whole::MANY_MIN;

const PRIVATE_MODE: Mode = Mode::RWXU;
const LOCK_MODE: Mode = Mode::from_raw_mode(0o600);
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

struct LocalContent {
    file: File,
    stamp: Stamp,
}

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
        Ok(Self {
            tree,
            attached: Attachments(attached),
            staging: Arc::new(Staging::new(staged, reserve)?),
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
        self.prepare_all(&[path]).into_iter().collect()
    }

    fn prepare_all(&self, paths: &[&RemotePath]) -> Vec<Result<(), StoreError>> {
        let mut near = Near::default();
        let prepare = |path: &&RemotePath| {
            self.staging.health.check()?;
            let parent = match near.find(path) {
                Some(parent) => parent,
                None => near.keep(path, self.parent(path)?),
            };
            directories::check_name(&parent, path)
        };
        paths.iter().map(prepare).collect()
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
            let mut publisher = Publisher {
                tree: &self.tree,
                staging: &self.staging,
                attached: &self.attached,
                dirty: &mut dirty,
                near: &mut near,
                reaper: &self.reaper,
            };
            let outcome = publisher.publish(publication);
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

impl Content for LocalContent {
    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut n_read = 0;
        while n_read < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[n_read..], offset + n_read as u64)
            {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(n_read)
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

/// A directory for the owner alone, made if it is missing.
fn private_directory(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(above, name, PRIVATE_MODE) {
        Ok(()) => fsync(above)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let directory = confine::open_directory(above, name)?;
    fchmod(&directory, PRIVATE_MODE)?;
    Ok(directory)
}

fn lock(private: &OwnedFd) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(private, "lock", flags, LOCK_MODE)
        .map_err(|error| failed("opening .fsvc/lock", error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(failed(
            "locking the root, which another server uses (stop it or give another root),",
            Errno::WOULDBLOCK,
        )),
        Err(error) => Err(failed("locking .fsvc/lock", error)),
    }
}
