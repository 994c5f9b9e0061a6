//! Chunks of files that are like each other, and what of one file the other has already.
//!
//! Chunks end where the content says (`FastCDC`, 2020), so that bytes put in or taken out change few of
//! them. A chunk is found by 16 bytes of its digest: whether the file that was put together is right is
//! said by its own digest, not here.

use std::collections::HashMap;
use std::io::{self, Read};

use fastcdc::v2020::{MAXIMUM_MAX, StreamCDC};

/// Bytes of a chunk in a signature.
pub const ENTRY_SIZE: usize = LENGTH_SIZE + NAME_SIZE;
/// Bytes that a chunk has on average, at least: small enough that scattered changes stay small.
const CHUNK_SIZE_MIN: u32 = 8 << 10;
/// Chunks that a file is cut into, as far as chunks can grow with it: what a client keeps in memory.
const N_CHUNKS_GOAL: u64 = 131_072;
/// The shortest chunk is so many times shorter than the average, the longest so many times longer.
const SPREAD: u32 = 4;
const LENGTH_SIZE: usize = 4;
const NAME_SIZE: usize = 16;

/// What a chunk is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkName {
    length: u32,
    digest: [u8; NAME_SIZE],
}

/// Bytes that chunks of a file of `size` bytes have on average.
pub fn chunk_size(size: u64) -> u32 {
    let mut chunk_size = CHUNK_SIZE_MIN;
    while size / u64::from(chunk_size) > N_CHUNKS_GOAL && fits(chunk_size * 2) {
        chunk_size *= 2;
    }
    chunk_size
}

/// Whether chunks can be cut so: what the other side names must be checked.
pub fn fits(chunk_size: u32) -> bool {
    chunk_size.is_power_of_two()
        && chunk_size >= CHUNK_SIZE_MIN
        && chunk_size as usize <= MAXIMUM_MAX / SPREAD as usize
}

/// The chunks of all that `source` has, each with its bytes; `chunk_size` is one that fits.
///
/// # Errors
/// Each item may be a failure of the source; it is the last one then.
pub fn chunks(
    source: impl Read,
    chunk_size: u32,
) -> impl Iterator<Item = io::Result<(ChunkName, Vec<u8>)>> {
    let size = |bytes: u32| bytes as usize;
    let cutter = StreamCDC::new(
        source,
        size(chunk_size / SPREAD),
        size(chunk_size),
        size(chunk_size * SPREAD),
    );
    cutter.map(|chunk| {
        let chunk = chunk.map_err(io::Error::from)?;
        Ok((ChunkName::of(&chunk.data), chunk.data))
    })
}

impl ChunkName {
    fn of(chunk: &[u8]) -> Self {
        let mut digest = [0; NAME_SIZE];
        digest.copy_from_slice(&blake3::hash(chunk).as_bytes()[..NAME_SIZE]);
        Self {
            length: u32::try_from(chunk.len()).unwrap_or(u32::MAX),
            digest,
        }
    }

    /// As it stands in a signature.
    pub fn encode(&self) -> [u8; ENTRY_SIZE] {
        let mut entry = [0; ENTRY_SIZE];
        entry[..LENGTH_SIZE].copy_from_slice(&self.length.to_be_bytes());
        entry[LENGTH_SIZE..].copy_from_slice(&self.digest);
        entry
    }

    fn decode(entry: [u8; ENTRY_SIZE]) -> Self {
        let (length, digest) = entry.split_at(LENGTH_SIZE);
        let mut name = Self {
            length: 0,
            digest: [0; NAME_SIZE],
        };
        name.digest.copy_from_slice(digest);
        for byte in length {
            name.length = name.length << 8 | u32::from(*byte);
        }
        name
    }
}

/// Where the chunks of a file are.
#[derive(Debug, Default)]
pub struct ChunkMap {
    offsets: HashMap<ChunkName, u64>,
    size: u64,
}

/// A signature that is none of such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list of chunks is none of a file of {size} bytes")]
pub struct WrongSignature {
    size: u64,
}

impl ChunkMap {
    /// Reads the signature of a file of `size` bytes.
    ///
    /// # Errors
    /// The chunks do not make up the file.
    pub fn read(signature: &[u8], size: u64) -> Result<Self, WrongSignature> {
        let (entries, rest) = signature.as_chunks::<ENTRY_SIZE>();
        let mut map = Self::default();
        for entry in entries {
            let name = ChunkName::decode(*entry);
            map.offsets.entry(name).or_insert(map.size);
            map.size += u64::from(name.length);
        }
        if map.size == size && rest.is_empty() {
            return Ok(map);
        }
        Err(WrongSignature { size })
    }

    /// Most bytes of the signature of such a file.
    pub fn signature_size_max(size: u64, chunk_size: u32) -> u64 {
        (size / u64::from((chunk_size / SPREAD).max(1)) + 1) * ENTRY_SIZE as u64
    }

    /// Where such a chunk begins.
    pub fn find(&self, name: &ChunkName) -> Option<u64> {
        self.offsets.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(seed: u32, size: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        (0..size).map(|_| next()).collect()
    }

    fn signature(content: &[u8]) -> Vec<u8> {
        let size = chunk_size(content.len() as u64);
        let entries = chunks(content, size).map(|chunk| chunk.unwrap().0.encode());
        entries.flatten().collect()
    }

    /// Bytes of `new` that are not in `old`.
    fn n_missing(old: &[u8], new: &[u8]) -> usize {
        let map = ChunkMap::read(&signature(old), old.len() as u64).unwrap();
        let chunks = chunks(new, chunk_size(old.len() as u64)).map(Result::unwrap);
        let missing = chunks.filter(|(name, bytes)| match map.find(name) {
            Some(offset) => {
                let at = usize::try_from(offset).unwrap();
                assert_eq!(&old[at..at + bytes.len()], bytes);
                false
            }
            None => true,
        });
        missing.map(|(_, bytes)| bytes.len()).sum()
    }

    #[test]
    fn what_is_put_in_changes_little() {
        let old = content(1, 4 << 20);
        assert_eq!(n_missing(&old, &old), 0);
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, *b"hello");
        new.drain(3_000_000..3_000_100);
        let n = n_missing(&old, &new);
        assert!((1..256 << 10).contains(&n), "{n}");
        assert!(n_missing(&old, &content(2, 1 << 20)) > 1 << 19);
    }

    #[test]
    fn a_signature_is_held_to_the_size() {
        let old = content(3, 300_000);
        let list = signature(&old);
        assert!(list.len() as u64 <= ChunkMap::signature_size_max(300_000, CHUNK_SIZE_MIN));
        assert!(ChunkMap::read(&list, 300_001).is_err());
        assert!(ChunkMap::read(&list[1..], 300_000).is_err());
        assert!(ChunkMap::read(&list[..list.len() - ENTRY_SIZE], 300_000).is_err());
        assert!(ChunkMap::read(&[], 0).is_ok());
    }

    #[test]
    fn chunks_grow_with_the_file() {
        assert_eq!(chunk_size(0), CHUNK_SIZE_MIN);
        assert_eq!(chunk_size(1 << 30), CHUNK_SIZE_MIN);
        assert!(chunk_size(1 << 40) > CHUNK_SIZE_MIN);
        assert!(fits(chunk_size(u64::MAX)));
        assert!(!fits(0) && !fits(12 << 10) && !fits(u32::MAX) && !fits(1 << 31));
    }
}
