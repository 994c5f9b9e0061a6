//! Contents that are being written, where no client can name them.
//!
//! A staged file is durable before it is sealed, and gone when its upload fails or is dropped. A
//! sync that failed is never tried again: the kernel reports the loss once and then forgets it.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fstat, fstatvfs, fsync, futimens,
    openat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr, write};

use super::loose::Naming;
use super::packs::Packs;
use super::whole::{MANY_MIN, WholeSync};
use super::{Health, confine, failed};
use crate::content::{ContentId, Stamp};
use crate::fault;
use crate::store::{Sealed, StoreError, Unsealed, Upload};

/// Bytes that an upload may write between two looks at the free space.
pub(super) const UNCHECKED_SIZE_MAX: u64 = 8 << 20;
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// One nanosecond before a multiple of every step in which file systems keep times.
const PROBE_NS: i64 = 1_700_000_000_000_000_000 - 1;
const SECOND_NS: i64 = 1_000_000_000;

/// The directory of staged files.
pub(super) struct Staging {
    pub(super) directory: OwnedFd,
    pub(super) packs: Packs,
    /// How files without a name get one, where they are worth it.
    pub(super) naming: Option<Naming>,
    pub(super) health: Health,
    pub(super) whole: WholeSync,
    /// Bytes of free space that uploads leave alone.
    reserve: u64,
    /// Bytes that uploads of a known size have yet to write.
    promised: AtomicU64,
    /// Bytes written in parts since the last look at the free space, by all who do so.
    pub(super) n_unchecked: AtomicU64,
    clock: Clock,
}

/// Gives every sealed content its own modification time.
struct Clock {
    /// The step in which the file system keeps times: within one, two files look alike.
    step_ns: i64,
    last: AtomicI64,
}

struct LocalUpload {
    staging: Arc<Staging>,
    content: ContentId,
    file: OwnedFd,
    n_unchecked: u64,
    /// This upload's part of what is promised.
    n_promised: u64,
    is_kept: bool,
}

impl Staging {
    /// Takes the directory; it must be on the file system of the tree.
    pub(super) fn new(directory: OwnedFd, packs: Packs, reserve: u64) -> Result<Self, StoreError> {
        let whole = directory
            .try_clone()
            .map_err(|error| failed("opening the staging directory again", error))?;
        let mut staging = Self {
            directory,
            packs,
            naming: None,
            whole: WholeSync::new(whole),
            health: Health::default(),
            reserve,
            promised: AtomicU64::new(0),
            n_unchecked: AtomicU64::new(0),
            clock: Clock {
                step_ns: 1,
                last: AtomicI64::new(0),
            },
        };
        staging.clock.step_ns = staging.probe_step()?;
        Ok(staging)
    }

    pub(super) fn begin(self: Arc<Self>, size: Option<u64>) -> Result<Box<dyn Upload>, StoreError> {
        self.health.check()?;
        let creating = |error| failed("creating a staged file", error);
        let (content, file) = self.create().map_err(creating)?;
        let mut upload = LocalUpload {
            staging: self,
            content,
            file,
            n_unchecked: 0,
            n_promised: 0,
            is_kept: false,
        };
        fault::point("store.stage.create.after").map_err(creating)?;
        upload.promise(size.unwrap_or_default())?;
        Ok(Box::new(upload))
    }

    pub(super) fn seal_all(&self, contents: &[Unsealed]) -> Result<Vec<Sealed>, StoreError> {
        self.health.check()?;
        let ids = || contents.iter().map(|unsealed| unsealed.content);
        let ends = self.packs.flush(ids());
        let ends = ends.map_err(|error| failed("writing small contents down", error))?;
        self.packs.sync(ends, &self.health)?;
        let files: Vec<ContentId> = ids().filter(|id| !self.packs.is_loose(*id)).collect();
        if files.len() >= MANY_MIN {
            self.whole.sync(&self.health)?;
        } else {
            for content in files {
                let synced = self.sync(content);
                synced.map_err(|source| {
                    self.health.lose(StoreError::Io {
                        during: "making a staged file durable",
                        source,
                    })
                })?;
            }
        }
        let seal = |unsealed: &Unsealed| Sealed {
            content: unsealed.content,
            stamp: unsealed.stamp,
        };
        Ok(contents.iter().map(seal).collect())
    }

    /// A write that failed since the file was closed is told to whoever opens it next.
    fn sync(&self, content: ContentId) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, content.to_string(), flags, Mode::empty())?;
        sync_file(&file)
    }

    /// Removes a staged content, if it is there.
    pub(super) fn discard(&self, content: ContentId) -> Result<(), Errno> {
        if self.packs.take(content).is_some() {
            return Ok(());
        }
        match unlinkat(&self.directory, content.to_string(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Removes every staged content that is not in `keep`.
    pub(super) fn sweep(&self, keep: &HashSet<ContentId>) -> Result<usize, StoreError> {
        let sweeping = |error: Errno| failed("sweeping the staged files", error);
        let mut n_removed = 0;
        for entry in Dir::read_from(&self.directory).map_err(sweeping)? {
            let entry = entry.map_err(sweeping)?;
            let name = entry.file_name().to_str().unwrap_or_default();
            if let Ok(content) = name.parse()
                && !keep.contains(&content)
            {
                self.discard(content).map_err(sweeping)?;
                n_removed += 1;
            }
            self.sweep_notes(name, keep);
        }
        Ok(n_removed)
    }

    pub(super) fn create(&self) -> io::Result<(ContentId, OwnedFd)> {
        fault::point("store.stage.create")?;
        let content = new_content()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, content.to_string(), flags, FILE_MODE)?;
        Ok((content, file))
    }

    /// Whether `size` more bytes leave alone the reserve and what is promised to uploads.
    pub(super) fn check_space(&self, size: u64) -> Result<(), StoreError> {
        self.check_needed(size, self.promised.load(Ordering::Relaxed))
    }

    fn check_needed(&self, size: u64, promised: u64) -> Result<(), StoreError> {
        let space = fstatvfs(&self.directory)
            .map_err(|error| failed("looking at the free space", error))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let needed = self.reserve.saturating_add(promised).saturating_add(size);
        if free >= needed {
            return Ok(());
        }
        Err(StoreError::OutOfSpace(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "{free} bytes are free and {needed} are needed: {size} more, {promised} for \
                 uploads under way, {} in reserve",
                self.reserve
            ),
        )))
    }

    /// Gives a content its own modification time, and makes it durable.
    pub(super) fn make_durable(&self, file: &OwnedFd) -> io::Result<Stamp> {
        set_modified(file, self.clock.next())?;
        sync_file(file)?;
        stamp(file)
    }

    /// Gives a content its own modification time.
    pub(super) fn stamp(&self, file: &OwnedFd) -> io::Result<Stamp> {
        set_modified(file, self.clock.next())?;
        stamp(file)
    }

    fn probe_step(&self) -> Result<i64, StoreError> {
        let probing = |error| failed("trying out the times of the file system", error);
        let (content, file) = self.create().map_err(probing)?;
        let kept = set_modified(&file, PROBE_NS)
            .and_then(|()| fstat(&file))
            .map(|status| {
                status.st_mtime * SECOND_NS + i64::try_from(status.st_mtime_nsec).unwrap_or(0)
            });
        self.discard(content)
            .map_err(|error| probing(error.into()))?;
        let kept = kept.map_err(|error| probing(error.into()))?;
        Ok((PROBE_NS - kept).max(0) + 1)
    }
}

impl Clock {
    /// Now, or the next time that was not given out yet, in nanoseconds since 1970.
    fn next(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(0));
        let step = |last: i64| (now / self.step_ns).max(last + 1);
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(step(last))
            });
        step(last.unwrap_or_default()) * self.step_ns
    }
}

impl LocalUpload {
    /// Takes the space into account before it is written: a full disk is found out before the
    /// transfer instead of in the middle of it. Space set aside by the file system would cost a
    /// second pass over it, while the peer waits.
    fn promise(&mut self, size: u64) -> Result<(), StoreError> {
        // Promised before it is looked at: another upload may look at the same space at this moment.
        let others = self.staging.promised.fetch_add(size, Ordering::Relaxed);
        self.n_promised = size;
        self.staging.check_needed(size, others)
    }

    fn fulfil(&mut self, size: u64) {
        let n = size.min(self.n_promised);
        self.n_promised -= n;
        self.staging.promised.fetch_sub(n, Ordering::Relaxed);
    }
}

/// Writes a piece behind what a staged file has.
pub(super) fn append(file: &OwnedFd, mut piece: &[u8]) -> io::Result<()> {
    fault::point("store.stage.write")?;
    while !piece.is_empty() {
        let n = retry_on_intr(|| write(file, piece))?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        piece = &piece[n..];
    }
    fault::point("store.stage.write.after")
}

/// What a staged file is recognised by.
fn stamp(file: &OwnedFd) -> io::Result<Stamp> {
    confine::stamp(&fstat(file)?)
        .ok_or_else(|| io::Error::other("the staged file is not a regular file"))
}

impl Upload for LocalUpload {
    fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        if self.n_unchecked >= UNCHECKED_SIZE_MAX {
            self.staging.check_space(0)?;
            self.n_unchecked = 0;
        }
        let size = piece.len() as u64;
        self.n_unchecked += size;
        append(&self.file, piece).map_err(|error| failed("writing a staged file", error))?;
        self.fulfil(size);
        Ok(())
    }

    fn seal(mut self: Box<Self>) -> Result<Sealed, StoreError> {
        self.staging.health.check()?;
        let stamp = self.staging.make_durable(&self.file).map_err(|source| {
            self.staging.health.lose(StoreError::Io {
                during: "making a staged file durable",
                source,
            })
        })?;
        self.is_kept = true;
        Ok(Sealed {
            content: self.content,
            stamp,
        })
    }

    fn finish(mut self: Box<Self>) -> Result<Unsealed, StoreError> {
        let stamp = self.staging.stamp(&self.file);
        let stamp = stamp.map_err(|error| failed("ending a staged file", error))?;
        self.is_kept = true;
        Ok(Unsealed {
            content: self.content,
            stamp,
        })
    }
}

impl Drop for LocalUpload {
    fn drop(&mut self) {
        self.fulfil(self.n_promised);
        if !self.is_kept {
            // A file that stays behind is swept at the next start.
            let _ = self.staging.discard(self.content);
        }
    }
}

pub(super) fn new_content() -> io::Result<ContentId> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| io::Error::other("no random numbers are to be had"))?;
    Ok(ContentId::from_random(random))
}

pub(super) fn sync_file(file: &OwnedFd) -> io::Result<()> {
    fault::point("store.seal.fsync")?;
    // Linux file systems log the name of a new file together with its inode, so that the staging
    // directory needs no sync of its own for recovery to find the file.
    fsync(file)?;
    fault::point("store.seal.fsync.after")
}

pub(super) fn set_modified(file: &OwnedFd, time_ns: i64) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: time_ns / SECOND_NS,
            tv_nsec: time_ns % SECOND_NS,
        },
    };
    futimens(file, &times)
}
