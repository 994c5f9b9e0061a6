//! Packs: where small contents are durable until the tree has them for good.
//!
//! A small content that came with others becomes a file that nobody synced. Until the whole file system
//! was, its bytes are durable in a pack, and a pack stays until all that is in it is settled: then the
//! tree needs nothing of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fdatasync, fsync, openat, unlinkat};
use rustix::io::Errno;

use super::Health;
use super::pack::{Pack, Place};
use crate::content::ContentId;
use crate::fault;
use crate::store::StoreError;

/// Bytes of all packs; what comes while there are more is made durable as a file.
const PACKS_SIZE_MAX: u64 = 256 << 20;
/// Contents of all packs, each of which the next start may have to look at.
const PACKED_MAX: usize = 1 << 17;
/// Packs, each with a descriptor, and with space set aside. Whoever sends its files slowly keeps one.
const PACKS_MAX: usize = 32;
/// Contents that wait for their names, each with a descriptor.
const LOOSE_MAX: usize = 4096;

/// The packs of a store.
pub(super) struct Packs {
    directory: OwnedFd,
    written: Mutex<Written>,
    /// Taken after `written`, where both are.
    loose: Mutex<Loose>,
    /// Held during a sync: whoever waits for it may find that it was made for them too.
    syncing: Mutex<()>,
    loose_max: usize,
    /// The number of the first one of this run.
    first: u64,
}

#[derive(Default)]
struct Written {
    packs: BTreeMap<u64, Pack>,
    /// The one that is written.
    current: Option<u64>,
    /// The number of the next one.
    next: u64,
    /// Where the contents of the last run's packs are.
    left: HashMap<ContentId, (u64, Place)>,
}

/// Contents that are in a pack and have no name yet.
#[derive(Default)]
struct Loose {
    contents: HashMap<ContentId, LooseContent>,
    /// How many of them each pack has.
    n_of_pack: HashMap<u64, usize>,
}

/// A file without a name, and up to where its pack is durable when it is.
struct LooseContent {
    file: OwnedFd,
    pack: u64,
    end: u64,
}

impl Packs {
    /// Takes the directory, with what the last run left in it. Of `n_files` descriptors that the
    /// process may have, a part is used.
    pub(super) fn open(directory: OwnedFd, n_files: u64) -> io::Result<Self> {
        let mut written = Written::default();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or_default();
            let Ok(number) = name.parse::<u64>() else {
                continue;
            };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(openat(&directory, name, flags, Mode::empty())?);
            let left = &mut written.left;
            let pack = Pack::read(file, |content, place| {
                left.insert(content, (number, place));
            })?;
            written.next = written.next.max(number.saturating_add(1));
            written.packs.insert(number, pack);
        }
        Ok(Self {
            first: written.next,
            directory,
            written: Mutex::new(written),
            loose: Mutex::default(),
            syncing: Mutex::default(),
            loose_max: usize::try_from(n_files / 4).map_or(LOOSE_MAX, |n| n.min(LOOSE_MAX)),
        })
    }

    /// Whether one more content may come.
    pub(super) fn has_room(&self) -> bool {
        if self.loose().contents.len() >= self.loose_max {
            return false;
        }
        let written = self.written();
        let (mut n_packed, mut size) = (0, 0);
        for pack in written.packs.values() {
            // What a full disk did not take is tried again by the next sync.
            if pack.is_stuck {
                return false;
            }
            n_packed += pack.n_packed;
            size += pack.end();
        }
        written.packs.len() < PACKS_MAX && n_packed < PACKED_MAX && size < PACKS_SIZE_MAX
    }

    /// Writes a content down and keeps its file, which is in no directory, until it is taken; it is
    /// durable after [`Packs::sync`].
    pub(super) fn add(&self, content: ContentId, bytes: &[u8], file: OwnedFd) -> io::Result<()> {
        let mut written = self.written();
        let number = written.current(&self.directory)?;
        let Some(pack) = written.packs.get_mut(&number) else {
            return Err(Errno::NOENT.into());
        };
        pack.add(content, bytes)?;
        let added = LooseContent {
            file,
            pack: number,
            end: pack.end(),
        };
        // Before anybody can close the pack: it has this content.
        let mut loose = self.loose();
        *loose.n_of_pack.entry(number).or_default() += 1;
        loose.contents.insert(content, added);
        Ok(())
    }

    /// Whether this content has no name yet.
    pub(super) fn is_loose(&self, content: ContentId) -> bool {
        self.loose().contents.contains_key(&content)
    }

    /// The file of a content, for whoever gives it a name or lets go of it.
    pub(super) fn take(&self, content: ContentId) -> Option<OwnedFd> {
        let mut loose = self.loose();
        let taken = loose.contents.remove(&content)?;
        if let Some(n) = loose.n_of_pack.get_mut(&taken.pack) {
            *n -= 1;
            if *n == 0 {
                loose.n_of_pack.remove(&taken.pack);
            }
        }
        Some(taken.file)
    }

    /// Writes out these contents, as far as they are in packs, and says up to where each pack has to
    /// be durable. A disk that is full now may take them later.
    pub(super) fn flush(
        &self,
        contents: impl Iterator<Item = ContentId>,
    ) -> io::Result<BTreeMap<u64, u64>> {
        let mut ends = BTreeMap::new();
        let loose = self.loose();
        for content in contents.filter_map(|content| loose.contents.get(&content)) {
            let end = ends.entry(content.pack).or_insert(content.end);
            *end = content.end.max(*end);
        }
        drop(loose);
        let mut written = self.written();
        for (number, end) in &ends {
            if let Some(pack) = written.packs.get_mut(number)
                && pack.size < *end
            {
                pack.flush()?;
            }
        }
        Ok(ends)
    }

    /// Makes packs durable up to these ends. An error is final, before anybody else can try.
    pub(super) fn sync(&self, ends: BTreeMap<u64, u64>, health: &Health) -> Result<(), StoreError> {
        if ends.is_empty() {
            return Ok(());
        }
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        health.check()?;
        for (number, end) in ends {
            let found = self.written().packs.get(&number).and_then(|pack| {
                (pack.n_durable < end).then(|| (Arc::clone(&pack.file), pack.n_durable, pack.size))
            });
            let Some((file, n_durable, size)) = found else {
                continue;
            };
            self.sync_one(&file, n_durable == 0).map_err(|source| {
                health.lose(StoreError::Io {
                    during: "making small contents durable",
                    source,
                })
            })?;
            if let Some(pack) = self.written().packs.get_mut(&number) {
                pack.n_durable = size;
            }
        }
        Ok(())
    }

    fn sync_one(&self, file: &File, is_new: bool) -> io::Result<()> {
        fault::point("store.pack.sync")?;
        fdatasync(file)?;
        if is_new {
            fsync(&self.directory)?;
        }
        fault::point("store.pack.sync.after")
    }

    /// Bytes of all packs.
    pub(super) fn size(&self) -> u64 {
        self.written().packs.values().map(Pack::end).sum()
    }

    /// Writes no more to the current pack, and names those of this run of which every content has its
    /// name, or will have none.
    pub(super) fn close(&self) -> Vec<u64> {
        let mut written = self.written();
        let current = written.current.and_then(|n| written.packs.get_mut(&n));
        // What cannot be written out keeps its pack.
        if current.is_none_or(|pack| pack.flush().is_ok()) {
            written.current = None;
        }
        let current = written.current;
        let loose = self.loose();
        let mut named = Vec::new();
        for (number, pack) in written.packs.range_mut(self.first..) {
            pack.rest();
            if Some(*number) != current && !loose.n_of_pack.contains_key(number) {
                named.push(*number);
            }
        }
        named
    }

    /// Those of the last run.
    pub(super) fn left_packs(&self) -> Vec<u64> {
        let written = self.written();
        let left = written.packs.range(..self.first);
        left.map(|(number, _)| *number).collect()
    }

    /// Removes packs of which nothing is needed any more.
    pub(super) fn remove(&self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            fault::point("store.pack.remove")?;
            match unlinkat(&self.directory, number.to_string(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut written = self.written();
            written.packs.remove(number);
            written.left.retain(|_, (pack, _)| pack != number);
        }
        Ok(())
    }

    /// Whether a content is in a pack that the last run left.
    pub(super) fn is_left(&self, content: ContentId) -> bool {
        self.written().left.contains_key(&content)
    }

    /// A content of a pack that the last run left.
    pub(super) fn left(&self, content: ContentId) -> io::Result<Option<Vec<u8>>> {
        let written = self.written();
        let Some((number, place)) = written.left.get(&content) else {
            return Ok(None);
        };
        let pack = written.packs.get(number);
        pack.map(|pack| pack.content(place)).transpose()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loose(&self) -> MutexGuard<'_, Loose> {
        self.loose.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// The pack that is written, made if there is none.
    fn current(&mut self, directory: &OwnedFd) -> io::Result<u64> {
        if let Some(current) = self.current {
            return Ok(current);
        }
        let number = self.next;
        // Also when it fails: its file may be there.
        self.next += 1;
        let pack = Pack::create(directory, number)?;
        self.packs.insert(number, pack);
        self.current = Some(number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_few_descriptors_keeps_some_for_others() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = || OwnedFd::from(File::open(scratch.path()).unwrap());
        let packs = Packs::open(directory(), 16).unwrap();
        for n in 0..4 {
            assert!(packs.has_room());
            let id = ContentId::from_random([n; 16]);
            packs.add(id, &[n], directory()).unwrap();
        }
        assert!(!packs.has_room());
        assert_eq!(packs.close(), Vec::<u64>::new());
        for n in 0..4 {
            assert!(packs.take(ContentId::from_random([n; 16])).is_some());
        }
        assert!(packs.has_room());
        let closed = packs.close();
        assert_eq!(closed, [0]);
        packs.remove(&closed).unwrap();
        assert_eq!(packs.size(), 0);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
