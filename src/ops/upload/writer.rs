//! Parts on their way into an upload.
//!
//! A writer owns a part from its first byte to its last, or until another takes it; it asks before each
//! piece, so that what is written after a take-over is never an overtaken writer's.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::journal::{Header, Note};
use super::{UNSYNCED_SIZE_MAX, Upload};
use crate::content::ContentId;
use crate::digest::PartHasher;
use crate::identity::Identity;
use crate::log::{Conflict, Sequence};
use crate::ops::{OpError, Service};
use crate::protocol::{Signature, Write};
use crate::store::{Content, Parts, Store};

/// The right to write into a part, while nobody else has taken it.
#[derive(Default)]
pub(super) struct Claim(Mutex<Revoked>);

#[derive(Default)]
struct Revoked(bool);

impl Claim {
    /// From here on its holder writes nothing.
    pub(super) fn revoke(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
    }

    /// Writes, unless it was revoked; who revokes waits until the write is over.
    fn write<T>(&self, write: impl FnOnce() -> T) -> Option<T> {
        let revoked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!revoked.0).then(write)
    }
}

/// A part that is being written.
struct Current {
    number: u32,
    end: u64,
    hasher: PartHasher,
    claim: Arc<Claim>,
}

/// Writes a run of parts, in order.
pub struct UploadWriter {
    upload: Arc<Upload>,
    store: Arc<dyn Store>,
    parts: Box<dyn Parts>,
    offset: u64,
    end: u64,
    current: Option<Current>,
    n_parts: u64,
    /// What patches copy from.
    base: Option<Box<dyn Content>>,
}

impl Service {
    /// Whether parts may be written. Blocks.
    ///
    /// # Errors
    /// There is no such upload of this identity, it has no such parts, or it is being committed.
    pub fn plan_write(&self, who: &Identity, write: &Write) -> Result<UploadWriter, OpError> {
        let upload = self.uploads.of(&who.id, write.upload)?;
        let header = &upload.header;
        let end = write.offset.saturating_add(write.size);
        let is_run = write.offset.is_multiple_of(header.part_size)
            && write.size > 0
            && end <= header.size
            && (end == header.size || end.is_multiple_of(header.part_size));
        if !is_run {
            return Err(upload.wrong(format!(
                "{} bytes at {} are no run of parts of {} bytes in a file of {}",
                write.size, write.offset, header.part_size, header.size
            )));
        }
        let base = match (write.patch, header.base) {
            (false, _) => None,
            (true, None) => {
                return Err(upload.wrong("it was begun without a base to patch".to_owned()));
            }
            (true, Some(version)) => Some(self.reopen_base(who, header, version)?),
        };
        let parts = self.parts.store.parts(upload.content);
        Ok(UploadWriter {
            parts: parts.map_err(OpError::Store)?,
            store: Arc::clone(&self.parts.store),
            offset: write.offset,
            end,
            current: None,
            n_parts: 0,
            base,
            upload,
        })
    }

    /// Opens what patches copy from, as it was when the upload was begun.
    fn reopen_base(
        &self,
        who: &Identity,
        header: &Header,
        version: u64,
    ) -> Result<Box<dyn Content>, OpError> {
        let base = Signature {
            path: header.path.clone(),
            if_version: Some(version),
        };
        match self.open_base(who, &base) {
            Ok((_, content)) => Ok(content),
            // It was there, so that it is gone is a change.
            Err(OpError::NotFound(path)) => Err(OpError::Conflict(Conflict::Gone {
                path,
                wanted: Sequence(version),
            })),
            Err(error) => Err(error),
        }
    }
}

impl UploadWriter {
    /// The upload's name.
    pub fn upload(&self) -> ContentId {
        self.upload.content
    }

    /// Bytes that are still to come.
    pub const fn n_left(&self) -> u64 {
        self.end - self.offset
    }

    /// Parts that are there by this writer's doing.
    pub const fn n_parts(&self) -> u64 {
        self.n_parts
    }

    /// Takes the next bytes. Blocks.
    ///
    /// # Errors
    /// There are more than were announced, another writer has taken the part, or the disk failed.
    pub fn write(&mut self, mut piece: &[u8]) -> Result<(), OpError> {
        if piece.len() as u64 > self.n_left() {
            return Err(self.wrong("more bytes came than were announced"));
        }
        while !piece.is_empty() {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.begin()?,
            };
            let room = usize::try_from(current.end - self.offset).unwrap_or(usize::MAX);
            let (now, rest) = piece.split_at(room.min(piece.len()));
            current.hasher.update(now);
            let written = current
                .claim
                .write(|| self.parts.write_at(now, self.offset));
            written
                .ok_or(OpError::Overtaken(self.upload.content))?
                .map_err(OpError::Store)?;
            self.offset += now.len() as u64;
            piece = rest;
            if self.offset == current.end {
                self.finish(&current)?;
            } else {
                self.current = Some(current);
            }
        }
        Ok(())
    }

    /// Takes bytes of the base. Blocks.
    ///
    /// # Errors
    /// The base does not have them, or as [`UploadWriter::write`].
    pub fn copy(&mut self, offset: u64, size: u64, buffer: &mut [u8]) -> Result<(), OpError> {
        if size > self.n_left() {
            return Err(self.wrong("more bytes came than were announced"));
        }
        let mut done = 0;
        while done < size {
            let n = usize::try_from(size - done).unwrap_or(usize::MAX);
            let room = n.min(buffer.len());
            let base = self.base.as_ref();
            let base = base.ok_or_else(|| self.wrong("only a patch copies"))?;
            match base.read_at(&mut buffer[..room], offset.saturating_add(done)) {
                Ok(n) if n > 0 => {
                    self.write(&buffer[..n])?;
                    done += n as u64;
                }
                _ => {
                    return Err(
                        self.wrong("the base does not have the bytes that are to be copied")
                    );
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, reason: &str) -> OpError {
        self.upload.wrong(reason.to_owned())
    }

    /// Takes the next part over from whoever was at it.
    fn begin(&self) -> Result<Current, OpError> {
        let part_size = self.upload.header.part_size;
        let number = u32::try_from(self.offset / part_size).unwrap_or(u32::MAX);
        let claim = Arc::new(Claim::default());
        let mut state = self.upload.state();
        if state.is_closed {
            return Err(OpError::Overtaken(self.upload.content));
        }
        if let Some(before) = state.claims.remove(&number) {
            before.revoke();
        }
        // The notes on the disk may still say that the part is there, also where a note failed.
        if state.parts.remove(&number).is_some() || state.is_torn {
            let note = Note::Anew(number);
            self.upload
                .note(&mut state, self.store.as_ref(), note, true)?;
        }
        state.claims.insert(number, Arc::clone(&claim));
        Ok(Current {
            number,
            end: (self.offset + part_size).min(self.upload.header.size),
            hasher: PartHasher::at(self.offset),
            claim,
        })
    }

    fn finish(&mut self, current: &Current) -> Result<(), OpError> {
        let mut state = self.upload.state();
        let is_mine = state
            .claims
            .get(&current.number)
            .is_some_and(|claim| Arc::ptr_eq(claim, &current.claim));
        if !is_mine {
            return Err(OpError::Overtaken(self.upload.content));
        }
        state.claims.remove(&current.number);
        let digest = current.hasher.digest();
        state.parts.insert(current.number, digest);
        state.n_unsynced += current.hasher.size();
        state.touched = Timestamp::now();
        let note = Note::Part(current.number, digest);
        self.upload
            .note(&mut state, self.store.as_ref(), note, false)?;
        self.n_parts += 1;
        if state.n_unsynced < UNSYNCED_SIZE_MAX {
            return Ok(());
        }
        state.n_unsynced = 0;
        let (n_synced, n_rewritten) = (state.n_records, state.n_rewritten);
        drop(state);
        self.parts.sync().map_err(OpError::Store)?;
        let mut state = self.upload.state();
        // A journal that was written anew meanwhile has a mark of its own, and counts anew.
        if state.n_rewritten != n_rewritten {
            return Ok(());
        }
        let note = Note::Synced(n_synced);
        self.upload
            .note(&mut state, self.store.as_ref(), note, false)
    }
}

impl Drop for UploadWriter {
    fn drop(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        let mut state = self.upload.state();
        let is_mine = state
            .claims
            .get(&current.number)
            .is_some_and(|claim| Arc::ptr_eq(claim, &current.claim));
        if is_mine {
            state.claims.remove(&current.number);
        }
    }
}
