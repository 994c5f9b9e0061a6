//! Contents that arrive in parts, and what is remembered beside each of them.
//!
//! Both outlive the process: a content that is written in parts goes away when it is published or
//! discarded, and by nothing else. Notes are appended whole or not at all, as far as the process
//! lives; after a power cut the last ones may be torn, so that their reader checks each.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, fdatasync, fstat, fsync, openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr, write};

use super::confine::stamp;
use super::failed;
use super::staging::{FILE_MODE, Staging, UNCHECKED_SIZE_MAX};
use crate::content::ContentId;
use crate::fault;
use crate::store::{Noted, Parts, Sealed, StoreError};

const NOTES_SUFFIX: &str = ".notes";
/// What takes the place of notes, until it has their name.
const NEW_SUFFIX: &str = ".notes-new";
/// Bytes of notes that are read at a time.
const READ_SIZE: usize = 64 << 10;

/// A content open for writing in parts.
struct LocalParts {
    staging: Arc<Staging>,
    file: OwnedFd,
}

impl Parts for LocalParts {
    fn write_at(&self, mut piece: &[u8], mut offset: u64) -> Result<(), StoreError> {
        let (size, n_unchecked) = (piece.len() as u64, &self.staging.n_unchecked);
        if n_unchecked.load(Ordering::Relaxed) >= UNCHECKED_SIZE_MAX {
            self.staging.check_space(0)?;
            n_unchecked.store(0, Ordering::Relaxed);
        }
        n_unchecked.fetch_add(size, Ordering::Relaxed);
        let writing = |error: io::Error| failed("writing a part", error);
        fault::point("store.part.write").map_err(writing)?;
        while !piece.is_empty() {
            let n = retry_on_intr(|| pwrite(&self.file, piece, offset))
                .map_err(|errno| writing(errno.into()))?;
            if n == 0 {
                return Err(writing(io::ErrorKind::WriteZero.into()));
            }
            piece = &piece[n..];
            offset += n as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let syncing = |source: io::Error| {
            self.staging.health.lose(StoreError::Io {
                during: "making parts durable",
                source,
            })
        };
        fault::point("store.part.sync").map_err(syncing)?;
        fdatasync(&self.file).map_err(|errno| syncing(errno.into()))
    }
}

impl Staging {
    /// Makes a content that is written in parts, with its first note.
    pub(super) fn allocate(&self, size: u64, note: &[u8]) -> Result<ContentId, StoreError> {
        self.health.check()?;
        self.check_space(size)?;
        let creating = |error: io::Error| failed("creating an upload", error);
        let (content, _file) = self.create().map_err(creating)?;
        if let Err(error) = self.note(content, note, true) {
            self.forget(content);
            return Err(error);
        }
        Ok(content)
    }

    pub(super) fn parts(self: Arc<Self>, content: ContentId) -> Result<Box<dyn Parts>, StoreError> {
        self.health.check()?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, content.to_string(), flags, Mode::empty());
        let file = file.map_err(|errno| match errno {
            Errno::NOENT => StoreError::NotFound,
            errno => failed("opening an upload", errno),
        })?;
        Ok(Box::new(LocalParts {
            staging: self,
            file,
        }))
    }

    /// Makes a content durable that was written in parts, once all are there.
    pub(super) fn seal_parts(&self, content: ContentId, size: u64) -> Result<Sealed, StoreError> {
        self.health.check()?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&self.directory, content.to_string(), flags, Mode::empty());
        let file = opened.map_err(|errno| failed("opening an upload", errno))?;
        let found = fstat(&file).map_err(|errno| failed("looking at an upload", errno))?;
        if u64::try_from(found.st_size).unwrap_or_default() != size {
            let text = format!("the upload has {} bytes and not {size}", found.st_size);
            return Err(failed("sealing an upload", io::Error::other(text)));
        }
        let stamp = self.make_durable(&file).map_err(|source| {
            self.health.lose(StoreError::Io {
                during: "making an upload durable",
                source,
            })
        })?;
        Ok(Sealed { content, stamp })
    }

    /// Remembers something more about a content.
    pub(super) fn note(
        &self,
        content: ContentId,
        note: &[u8],
        is_durable: bool,
    ) -> Result<(), StoreError> {
        let noting = |errno: Errno| failed("writing notes of an upload", errno);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = notes_name(content);
        let file = openat(&self.directory, name, flags, FILE_MODE).map_err(noting)?;
        fault::point("store.note.write").map_err(|error| failed("writing notes", error))?;
        write_all(&file, note).map_err(noting)?;
        if is_durable {
            self.sync_notes(&file)?;
        }
        Ok(())
    }

    /// Puts other notes in the place of those of a content, in one step.
    pub(super) fn replace_notes(&self, content: ContentId, notes: &[u8]) -> Result<(), StoreError> {
        let replacing = |errno: Errno| failed("replacing notes of an upload", errno);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = format!("{content}{NEW_SUFFIX}");
        let file = openat(&self.directory, &new, flags, FILE_MODE).map_err(replacing)?;
        write_all(&file, notes).map_err(replacing)?;
        self.sync_notes(&file)?;
        let name = notes_name(content);
        renameat(&self.directory, &new, &self.directory, name).map_err(replacing)?;
        // The notes before might come back else, and say that a part is there which is not.
        self.sync_notes(&self.directory)
    }

    fn sync_notes(&self, file: &OwnedFd) -> Result<(), StoreError> {
        let syncing = |source: io::Error| {
            self.health.lose(StoreError::Io {
                during: "making notes durable",
                source,
            })
        };
        fault::point("store.note.sync").map_err(syncing)?;
        fsync(file).map_err(|errno| syncing(errno.into()))
    }

    /// Every content with notes, and when it was noted last.
    pub(super) fn noted(&self) -> Result<Vec<Noted>, StoreError> {
        let looking = |errno: Errno| failed("looking for uploads", errno);
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(looking)? {
            let entry = entry.map_err(looking)?;
            let name = entry.file_name().to_str().unwrap_or_default();
            let Some(Ok(content)) = name.strip_suffix(NOTES_SUFFIX).map(str::parse) else {
                continue;
            };
            let status = statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
            if let Some(stamp) = stamp(&status.map_err(looking)?) {
                found.push(Noted {
                    content,
                    modified: stamp.modified,
                });
            }
        }
        Ok(found)
    }

    /// The notes of a content, up to `size_max` bytes of them.
    pub(super) fn notes(&self, content: ContentId, size_max: usize) -> Result<Vec<u8>, StoreError> {
        let reading = |errno: Errno| failed("reading notes of an upload", errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = notes_name(content);
        let file = openat(&self.directory, name, flags, Mode::empty()).map_err(reading)?;
        let mut notes = Vec::new();
        let mut buffer = vec![0; READ_SIZE];
        while notes.len() < size_max {
            let n = retry_on_intr(|| pread(&file, &mut buffer, notes.len() as u64));
            match n.map_err(reading)? {
                0 => break,
                n => notes.extend_from_slice(&buffer[..n]),
            }
        }
        notes.truncate(size_max);
        Ok(notes)
    }

    /// Removes a content and its notes, the content first: what is left by a crash is known by its
    /// notes.
    pub(super) fn forget(&self, content: ContentId) {
        let _ = self.discard(content);
        self.forget_notes(content);
    }

    fn forget_notes(&self, content: ContentId) {
        for suffix in [NOTES_SUFFIX, NEW_SUFFIX] {
            let name = format!("{content}{suffix}");
            let _ = unlinkat(&self.directory, name, AtFlags::empty());
        }
    }

    /// Removes notes whose content is not in `keep`, given one of the names of this directory.
    pub(super) fn sweep_notes(&self, name: &str, keep: &HashSet<ContentId>) {
        if let Some(content) = owner(name).filter(|content| !keep.contains(content)) {
            self.forget_notes(content);
        }
    }
}

/// The content that a file beside the contents belongs to, if it is one of notes.
fn owner(name: &str) -> Option<ContentId> {
    let stem = [NOTES_SUFFIX, NEW_SUFFIX]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))?;
    stem.parse().ok()
}

fn notes_name(content: ContentId) -> String {
    format!("{content}{NOTES_SUFFIX}")
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = retry_on_intr(|| write(file, bytes))?;
        bytes = &bytes[n..];
    }
    Ok(())
}
