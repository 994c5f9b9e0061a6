//! Digests of local files that were computed before, so that a file that did not change is not read
//! again.
//!
//! One file for each local folder, written anew by each whole run: a block for each directory, an
//! index, all with checksums. What is damaged is as if it were not there. A digest counts only for a
//! file whose fingerprint is the same, and is kept only if the file was last changed well before it
//! was read: within the same tick of the clock a change would not show.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tempfile::NamedTempFile;

use super::folder::{Fingerprint, LocalFile};
use crate::digest::Digest;

const MAGIC: &[u8; 16] = b"fsvc-digests-2\n\n";
/// Of one file: inode, device, size, both times, digest.
const ENTRY_SIZE: usize = 72;
/// Of one block in the index: the directory, where it is, how many entries, a checksum.
const INDEX_ENTRY_SIZE: usize = 40;
/// Entries of one directory that are kept.
const BLOCK_ENTRIES_MAX: usize = 65_536;
/// Directories that are kept.
const BLOCKS_MAX: usize = 262_144;
/// How long a file must have been left alone before a digest of it is kept.
const SETTLED: SignedDuration = SignedDuration::from_secs(2);
/// Magic, number of blocks, checksum of the index: at the end of the file.
const TAIL_SIZE: usize = 40;

type DirectoryKey = [u8; 16];

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    n_entries: u32,
    checksum: [u8; 8],
}

/// What an earlier run knew, and what this one learns.
pub(super) struct Digests {
    old: Option<(File, BTreeMap<DirectoryKey, Place>)>,
    new: Mutex<Option<Written>>,
}

struct Written {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
    size: u64,
    index: BTreeMap<DirectoryKey, Place>,
}

/// What is known of the files in one directory.
#[derive(Default)]
pub(super) struct Block {
    entries: Vec<u8>,
}

impl Digests {
    /// Opens what is kept for `folder` in `directory`, and if this run is whole makes ready to keep it
    /// anew. Without a directory nothing is kept; a file that cannot be read or written costs time,
    /// and is no error. Blocks.
    pub(super) fn open(directory: Option<&Path>, folder: &Path, is_whole: bool) -> Self {
        let path = directory.and_then(|directory| {
            let folder = folder.canonicalize().ok()?;
            let name = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
            Some(directory.join(&name[..32]))
        });
        let old = path.as_ref().and_then(|path| read_index(path).ok());
        let new = path.filter(|_| is_whole);
        let new = new.and_then(|path| Written::new(path).ok());
        Self {
            old,
            new: Mutex::new(new),
        }
    }

    /// What is known of the files in a directory. Blocks.
    pub(super) fn block(&self, relative: &str) -> Block {
        let found = self.old.as_ref().and_then(|(file, index)| {
            let place = index.get(&directory_key(relative))?;
            read_block(file, place)
        });
        Block {
            entries: found.unwrap_or_default(),
        }
    }

    /// Keeps what is known of a directory now. Blocks.
    pub(super) fn keep(&self, relative: &str, learned: Learned) {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(written) = new.as_mut() else { return };
        if written.add(directory_key(relative), learned).is_err() {
            *new = None;
        }
    }

    /// Puts what was kept in place for the next run. Blocks.
    pub(super) fn finish(&self) {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(written) = new.take() {
            // Without it the next run reads more.
            let _ = written.finish();
        }
    }
}

impl Block {
    /// The digest of a file, if it is as it was.
    pub(super) fn digest(&self, file: &LocalFile) -> Option<Digest> {
        let wanted = encode(&file.fingerprint);
        let n = self.entries.len() / ENTRY_SIZE;
        let entry = |at: usize| &self.entries[at * ENTRY_SIZE..(at + 1) * ENTRY_SIZE];
        let (mut low, mut high) = (0, n);
        while low < high {
            let middle = low.midpoint(high);
            if entry(middle)[..wanted.len()] < wanted[..] {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = (low < n).then(|| entry(low))?;
        let bytes: [u8; 32] = found[wanted.len()..].try_into().ok()?;
        (found[..wanted.len()] == wanted).then(|| Digest::from_bytes(bytes))
    }
}

/// The digests of files in one directory.
#[derive(Default)]
pub(super) struct Learned {
    entries: Vec<[u8; ENTRY_SIZE]>,
}

impl Learned {
    /// A digest that was computed at `now`, or found.
    pub(super) fn add(&mut self, file: &LocalFile, digest: Digest, now: Timestamp) {
        let fingerprint = &file.fingerprint;
        let latest = fingerprint.modified_ns.max(fingerprint.changed_ns);
        let settled = Timestamp::from_nanosecond(i128::from(latest))
            .is_ok_and(|latest| now.duration_since(latest) >= SETTLED);
        if !settled || self.entries.len() >= BLOCK_ENTRIES_MAX {
            return;
        }
        let mut entry = [0; ENTRY_SIZE];
        entry[..40].copy_from_slice(&encode(fingerprint));
        entry[40..].copy_from_slice(digest.as_bytes());
        self.entries.push(entry);
    }
}

impl Written {
    fn new(path: PathBuf) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let temporary = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(directory)?;
        let mut file = BufWriter::with_capacity(256 << 10, temporary);
        file.write_all(MAGIC)?;
        Ok(Self {
            file,
            path,
            size: MAGIC.len() as u64,
            index: BTreeMap::new(),
        })
    }

    fn add(&mut self, key: DirectoryKey, mut learned: Learned) -> io::Result<()> {
        if learned.entries.is_empty() || self.index.len() >= BLOCKS_MAX {
            return Ok(());
        }
        learned.entries.sort_unstable();
        let bytes = learned.entries.as_flattened();
        self.file.write_all(bytes)?;
        let place = Place {
            offset: self.size,
            n_entries: u32::try_from(learned.entries.len()).unwrap_or(u32::MAX),
            checksum: checksum(bytes),
        };
        self.size += bytes.len() as u64;
        self.index.insert(key, place);
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let mut index = Vec::with_capacity(self.index.len() * INDEX_ENTRY_SIZE);
        for (key, place) in &self.index {
            index.extend_from_slice(key);
            index.extend_from_slice(&place.offset.to_le_bytes());
            index.extend_from_slice(&u64::from(place.n_entries).to_le_bytes());
            index.extend_from_slice(&place.checksum);
        }
        let mut tail = [0; TAIL_SIZE];
        tail[..16].copy_from_slice(MAGIC);
        tail[16..24].copy_from_slice(&(self.index.len() as u64).to_le_bytes());
        tail[24..32].copy_from_slice(&self.size.to_le_bytes());
        tail[32..].copy_from_slice(&checksum(&index));
        self.file.write_all(&index)?;
        self.file.write_all(&tail)?;
        let temporary = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        temporary
            .persist(&self.path)
            .map(drop)
            .map_err(|error| error.error)
    }
}

fn read_index(path: &Path) -> io::Result<(File, BTreeMap<DirectoryKey, Place>)> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut tail = [0; TAIL_SIZE];
    let tail_at = size.checked_sub(TAIL_SIZE as u64).ok_or_else(damaged)?;
    file.read_exact_at(&mut tail, tail_at)?;
    let n_blocks = usize::try_from(number(&tail[16..24])).map_err(|_| damaged())?;
    let index_at = number(&tail[24..32]);
    let fits = tail[..16] == MAGIC[..]
        && n_blocks <= BLOCKS_MAX
        && index_at.checked_add((n_blocks * INDEX_ENTRY_SIZE) as u64) == Some(tail_at);
    if !fits {
        return Err(damaged());
    }
    let mut bytes = vec![0; n_blocks * INDEX_ENTRY_SIZE];
    file.read_exact_at(&mut bytes, index_at)?;
    if checksum(&bytes) != tail[32..] {
        return Err(damaged());
    }
    let mut index = BTreeMap::new();
    for entry in bytes.chunks_exact(INDEX_ENTRY_SIZE) {
        let key: DirectoryKey = entry[..16].try_into().map_err(|_| damaged())?;
        let n_entries = u32::try_from(number(&entry[24..32])).map_err(|_| damaged())?;
        let place = Place {
            offset: number(&entry[16..24]),
            n_entries,
            checksum: entry[32..].try_into().map_err(|_| damaged())?,
        };
        if n_entries as usize > BLOCK_ENTRIES_MAX {
            return Err(damaged());
        }
        index.insert(key, place);
    }
    Ok((file, index))
}

fn read_block(file: &File, place: &Place) -> Option<Vec<u8>> {
    let mut bytes = vec![0; place.n_entries as usize * ENTRY_SIZE];
    file.read_exact_at(&mut bytes, place.offset).ok()?;
    (checksum(&bytes) == place.checksum).then_some(bytes)
}

fn encode(fingerprint: &Fingerprint) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&fingerprint.inode.to_le_bytes());
    bytes[8..16].copy_from_slice(&fingerprint.device.to_le_bytes());
    bytes[16..24].copy_from_slice(&fingerprint.size.to_le_bytes());
    bytes[24..32].copy_from_slice(&fingerprint.modified_ns.to_le_bytes());
    bytes[32..].copy_from_slice(&fingerprint.changed_ns.to_le_bytes());
    bytes
}

fn directory_key(relative: &str) -> DirectoryKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(relative.as_bytes()).as_bytes()[..16]);
    key
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    sum
}

fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64, size: u64) -> LocalFile {
        LocalFile {
            fingerprint: Fingerprint {
                device: 1,
                inode,
                size,
                modified_ns: 1_000_000_000,
                changed_ns: 2_000_000_000,
            },
            modified: Timestamp::from_second(1).unwrap(),
            mode: 0o644,
        }
    }

    fn kept(place: &Path) -> PathBuf {
        let mut entries = fs::read_dir(place).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    #[test]
    fn a_digest_is_found_again_for_the_same_file_only() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("digests");
        let digests = Digests::open(Some(&directory), place.path(), true);
        let mut learned = Learned::default();
        let now = Timestamp::from_second(100).unwrap();
        for inode in [7_u64, 3, 300, 5] {
            learned.add(&file(inode, inode), Digest::of(&inode.to_le_bytes()), now);
        }
        let young = Timestamp::from_second(3).unwrap();
        learned.add(&file(9, 9), Digest::of(b"9"), young);
        digests.keep("a/b", learned);
        digests.finish();

        let digests = Digests::open(Some(&directory), place.path(), true);
        let block = digests.block("a/b");
        for inode in [3_u64, 5, 7, 300] {
            let expected = Digest::of(&inode.to_le_bytes());
            assert_eq!(block.digest(&file(inode, inode)), Some(expected));
            assert_eq!(block.digest(&file(inode, inode + 1)), None);
        }
        assert_eq!(block.digest(&file(9, 9)), None, "read while it was young");
        assert_eq!(digests.block("a").digest(&file(3, 3)), None);
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("digests");
        let digests = Digests::open(Some(&directory), place.path(), true);
        let mut learned = Learned::default();
        learned.add(
            &file(3, 3),
            Digest::of(b"3"),
            Timestamp::from_second(100).unwrap(),
        );
        digests.keep("", learned);
        digests.finish();
        let path = kept(&directory);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            let found = Digests::open(Some(&directory), place.path(), true)
                .block("")
                .digest(&file(3, 3));
            assert!(
                found.is_none_or(|found| found == Digest::of(b"3")),
                "byte {at}"
            );
        }
        for size in 0..good.len() {
            fs::write(&path, &good[..size]).unwrap();
            let digests = Digests::open(Some(&directory), place.path(), true);
            assert_eq!(digests.block("").digest(&file(3, 3)), None, "{size} bytes");
        }
    }
}
