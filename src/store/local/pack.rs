//! One pack: a file of small contents, one behind the other.
//!
//! It is written from its beginning on, block by block, and never again, so that what is whole in it
//! stands before what is not. Each content follows its head: a mark, its id, its size.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl, ftruncate, openat};
use rustix::io::Errno;

use super::blocks::{BLOCK_SIZE, Buffer};
use super::staging::FILE_MODE;
use crate::content::ContentId;
use crate::fault;

/// Largest content that is worth a second copy: of larger ones the copy costs more than a sync.
pub(super) const PACKED_SIZE_MAX: u64 = 64 << 10;
/// Bytes for which space is set aside at a time.
const RESERVED_STEP: u64 = 8 << 20;
const MARK: [u8; 8] = *b"fsvcpk1\n";
const HEAD_SIZE: usize = MARK.len() + size_of::<u128>() + size_of::<u64>();

/// A pack, and what has yet to be written to it.
pub(super) struct Pack {
    pub(super) file: Arc<File>,
    buffer: Buffer,
    /// Whether a full disk did not take the buffer.
    pub(super) is_stuck: bool,
    /// Bytes in the file, and how many of them are durable.
    pub(super) size: u64,
    pub(super) n_durable: u64,
    /// Bytes for which the file system has set space aside.
    n_reserved: u64,
    pub(super) n_packed: usize,
}

/// Where a content is in a pack.
pub(super) struct Place {
    offset: u64,
    size: usize,
}

impl Pack {
    /// Makes an empty one.
    pub(super) fn create(directory: &OwnedFd, number: u64) -> io::Result<Self> {
        fault::point("store.pack.create")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(directory, number.to_string(), flags, FILE_MODE)?;
        // Nobody reads it but the next start: its pages would be in the way of others. Not every file
        // system can.
        let _ = fcntl_setfl(&file, OFlags::DIRECT);
        Ok(Self::new(File::from(file), 0))
    }

    /// Takes one that the last run left, and tells of each whole content in it.
    pub(super) fn read(file: File, mut tell: impl FnMut(ContentId, Place)) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let mut pack = Self::new(file, size);
        let mut head = [0; HEAD_SIZE];
        let mut at = 0;
        while at + HEAD_SIZE as u64 <= size {
            pack.file.read_exact_at(&mut head, at)?;
            let offset = at + HEAD_SIZE as u64;
            let found = decode(&head).filter(|(_, length)| *length <= size - offset);
            let Some((content, length)) = found else {
                // The rest of a block, or the end.
                let next = at.next_multiple_of(BLOCK_SIZE as u64);
                if next == at {
                    break;
                }
                at = next;
                continue;
            };
            let size = usize::try_from(length).map_err(io::Error::other)?;
            tell(content, Place { offset, size });
            pack.n_packed += 1;
            at = offset + length;
        }
        Ok(pack)
    }

    fn new(file: File, size: u64) -> Self {
        Self {
            file: Arc::new(file),
            buffer: Buffer::default(),
            is_stuck: false,
            size,
            n_durable: size,
            n_reserved: size,
            n_packed: 0,
        }
    }

    /// Up to where the pack has to be durable when all that was added is.
    pub(super) fn end(&self) -> u64 {
        self.size + self.buffer.len() as u64
    }

    /// Adds a content, in memory yet; but space is set aside for it, so that a full disk is found out
    /// before it is taken.
    pub(super) fn add(&mut self, content: ContentId, bytes: &[u8]) -> io::Result<()> {
        let size = HEAD_SIZE + bytes.len();
        if !self.buffer.has_room(size) {
            self.flush()?;
        }
        fault::point("store.pack.write")?;
        let needed = (self.end() + size as u64).next_multiple_of(BLOCK_SIZE as u64);
        if needed > self.n_reserved {
            let step = needed - self.n_reserved;
            // A disk that is nearly full has no room for more than what is needed.
            self.set_aside(step.max(RESERVED_STEP))
                .or_else(|_| self.set_aside(step))?;
        }
        let length = (bytes.len() as u64).to_be_bytes();
        for piece in [&MARK[..], &content.as_u128().to_be_bytes(), &length, bytes] {
            self.buffer.append(piece);
        }
        self.n_packed += 1;
        Ok(())
    }

    fn set_aside(&mut self, size: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, self.n_reserved, size) {
            // Not every file system can.
            Ok(()) | Err(Errno::OPNOTSUPP) => {
                self.n_reserved += size;
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Gives back memory and space that are not needed while nothing is added.
    pub(super) fn rest(&mut self) {
        // It is of no use where it fails, and does no harm.
        if self.buffer.len() == 0 && ftruncate(&self.file, self.size).is_ok() {
            self.buffer = Buffer::default();
            self.n_reserved = self.size;
        }
    }

    /// Writes out what is in memory. What a full disk took half of is written over by the next try.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.len() == 0 {
            return Ok(());
        }
        self.is_stuck = true;
        fault::point("store.pack.flush")?;
        let blocks = self.buffer.blocks();
        let mut written = self.file.write_all_at(blocks, self.size);
        if let Err(error) = &written
            && error.kind() == io::ErrorKind::InvalidInput
        {
            // The disk wants larger blocks.
            fcntl_setfl(&self.file, OFlags::empty())?;
            written = self.file.write_all_at(blocks, self.size);
        }
        written?;
        fault::point("store.pack.flush.after")?;
        self.size += blocks.len() as u64;
        self.buffer.clear();
        self.is_stuck = false;
        Ok(())
    }

    /// A content that is in the file.
    pub(super) fn content(&self, place: &Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; place.size];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        Ok(bytes)
    }
}

fn decode(head: &[u8; HEAD_SIZE]) -> Option<(ContentId, u64)> {
    let (mark, rest) = head.split_first_chunk::<8>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let size = u64::from_be_bytes(rest.try_into().ok()?);
    (*mark == MARK && size <= PACKED_SIZE_MAX).then(|| (ContentId::from_random(*id), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(n: u8) -> (ContentId, Vec<u8>) {
        (
            ContentId::from_random([n; 16]),
            vec![n; usize::from(n) * 97],
        )
    }

    fn written(directory: &OwnedFd) -> (Pack, u64) {
        let mut pack = Pack::create(directory, 0).unwrap();
        for n in 0..40 {
            let (id, bytes) = content(n);
            pack.add(id, &bytes).unwrap();
            if n % 7 == 0 {
                pack.flush().unwrap();
            }
        }
        pack.flush().unwrap();
        let end = pack.end();
        (pack, end)
    }

    fn read(file: &File) -> Vec<u8> {
        let mut found = Vec::new();
        let mut places = Vec::new();
        let pack = Pack::read(file.try_clone().unwrap(), |id, place| {
            places.push((id, place));
        });
        let pack = pack.unwrap();
        for (id, place) in places {
            let n = u8::try_from(found.len()).unwrap();
            assert_eq!((id, pack.content(&place).unwrap()), content(n));
            found.push(n);
        }
        assert_eq!(pack.n_packed, found.len());
        found
    }

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = File::open(scratch.path()).unwrap();
        (scratch, directory.into())
    }

    #[test]
    fn what_is_whole_is_found_wherever_a_pack_ends() {
        let (scratch, directory) = scratch();
        let (_pack, end) = written(&directory);
        let options = || {
            File::options()
                .read(true)
                .write(true)
                .open(scratch.path().join("0"))
        };
        let file = options().unwrap();
        let all = read(&file);
        assert_eq!(all, (0..40).collect::<Vec<_>>());
        let mut last = all;
        for size in (0..end).rev().step_by(61) {
            file.set_len(size).unwrap();
            let found = read(&file);
            assert!(last.starts_with(&found), "{size}: {found:?} after {last:?}");
            last = found;
        }
        assert_eq!(last, Vec::<u8>::new());
    }

    #[test]
    fn what_a_power_cut_left_behind_the_end_is_passed_over() {
        let (scratch, directory) = scratch();
        let (_pack, end) = written(&directory);
        let file = File::options()
            .read(true)
            .write(true)
            .open(scratch.path().join("0"))
            .unwrap();
        for junk in [
            &[0; 9000][..],
            &[0xff; 9000],
            &MARK,
            &[b"fsvcpk1\n".as_slice(), &[0xff; 9000]].concat(),
        ] {
            file.set_len(end).unwrap();
            file.write_all_at(junk, end).unwrap();
            assert_eq!(read(&file).len(), 40);
        }
    }
}
