//! What is remembered of an upload beside its content: whose it is, and which parts are there.
//!
//! A line of JSON, then records of one size. Each has a checksum; the first that does not fit ends the
//! journal. A record of a part is written when the part is, which a crash of the process does no harm;
//! after a power cut only those count that a later mark says to be synced.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::PartDigest;
use crate::identity::SpiffeId;
use crate::label::DedupId;
use crate::path::RemotePath;

const RECORD_SIZE: usize = 4 + PAYLOAD_SIZE + CHECKSUM_SIZE;
const PAYLOAD_SIZE: usize = 32;
const CHECKSUM_SIZE: usize = 8;
/// What is not the number of a part says how many records before it are synced.
const SYNCED: u32 = u32::MAX;
/// Beside the number of a part: it is being written anew, and is not there.
const ANEW: u32 = 1 << 31;
/// Bytes of the first line, its end included.
const HEADER_SIZE_MAX: usize = 8 << 10;
/// Which start of the machine it is: what the last one had not synced may be gone.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// What does not change while an upload lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) owner: SpiffeId,
    pub(super) path: RemotePath,
    /// Bytes.
    pub(super) size: u64,
    pub(super) part_size: u64,
    /// The version of the file at `path` that patches copy from.
    pub(super) base: Option<u64>,
    pub(super) begun: Timestamp,
    /// What makes the request the same that began it.
    #[serde(default)]
    pub(super) request_id: Option<DedupId>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    header: Header,
    /// Absent where the kernel does not say it: then nothing outlives a start that was not synced.
    boot: Option<String>,
}

/// One thing that happened to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// A part is there.
    Part(u32, PartDigest),
    /// A part is being written anew.
    Anew(u32),
    /// So many records before this one are on the disk, with their parts.
    Synced(u64),
}

impl Header {
    /// Parts that make up the file.
    pub(super) fn n_parts(&self) -> u64 {
        self.size.div_ceil(self.part_size)
    }

    /// The first line of the journal.
    pub(super) fn encode(&self) -> Vec<u8> {
        let line = Line {
            header: self.clone(),
            boot: boot_id(),
        };
        let mut bytes = serde_json::to_vec(&line).expect("a header is plain JSON");
        bytes.push(b'\n');
        bytes
    }
}

impl Note {
    pub(super) fn encode(self) -> [u8; RECORD_SIZE] {
        let mut record = [0; RECORD_SIZE];
        let number = match self {
            Self::Part(number, digest) => {
                record[4..][..PAYLOAD_SIZE].copy_from_slice(digest.as_bytes());
                number
            }
            Self::Anew(number) => number | ANEW,
            Self::Synced(n) => {
                record[4..][..8].copy_from_slice(&n.to_le_bytes());
                SYNCED
            }
        };
        record[..4].copy_from_slice(&number.to_le_bytes());
        let sum = checksum(&record[..4 + PAYLOAD_SIZE]);
        record[4 + PAYLOAD_SIZE..].copy_from_slice(&sum);
        record
    }

    fn decode(record: &[u8; RECORD_SIZE]) -> Option<Self> {
        let (covered, sum) = record.split_at(4 + PAYLOAD_SIZE);
        if checksum(covered) != sum {
            return None;
        }
        let (number, payload) = covered.split_first_chunk::<4>()?;
        let payload = payload.first_chunk::<PAYLOAD_SIZE>()?;
        Some(match u32::from_le_bytes(*number) {
            SYNCED => Self::Synced(u64::from_le_bytes(*payload.first_chunk()?)),
            number if number & ANEW != 0 => Self::Anew(number & !ANEW),
            number => Self::Part(number, PartDigest::from_bytes(*payload)),
        })
    }
}

/// Parts that are there, by their number. What is not there takes no memory, however many parts were
/// announced.
pub(super) type PartMap = BTreeMap<u32, PartDigest>;

/// A journal that was read: the header, and the parts that are there.
pub(super) struct Read {
    pub(super) header: Header,
    pub(super) parts: PartMap,
}

/// Most bytes of a journal of an upload with so many parts: how long it may grow before it is written
/// anew, and a little more.
pub(super) const fn size_max(n_parts_max: u64) -> u64 {
    HEADER_SIZE_MAX as u64 + n_records_max(n_parts_max) * 2 * RECORD_SIZE as u64
}

/// Records after which a journal is written anew.
pub(super) const fn n_records_max(n_parts: u64) -> u64 {
    n_parts * 2 + 1024
}

/// Reads a journal; `None` if it is none.
pub(super) fn read(bytes: &[u8]) -> Option<Read> {
    let end = bytes
        .iter()
        .take(HEADER_SIZE_MAX)
        .position(|byte| *byte == b'\n')?;
    let line: Line = serde_json::from_slice(&bytes[..end]).ok()?;
    let header = line.header;
    let is_sound = header.part_size.is_power_of_two() && header.size > header.part_size;
    if !is_sound || header.n_parts() >= u64::from(ANEW) {
        return None;
    }
    let (records, _torn) = bytes[end + 1..].as_chunks::<RECORD_SIZE>();
    let notes: Vec<Note> = records.iter().map_while(Note::decode).collect();
    let survives = line.boot.is_some() && line.boot == boot_id();
    let n_sure = if survives {
        notes.len()
    } else {
        n_synced(&notes)
    };
    let mut parts = PartMap::new();
    for (note, at) in notes.iter().zip(0..) {
        let (Note::Part(number, _) | Note::Anew(number)) = *note else {
            continue;
        };
        if u64::from(number) >= header.n_parts() {
            return None;
        }
        match *note {
            Note::Part(_, digest) if at < n_sure => {
                parts.insert(number, digest);
            }
            Note::Anew(_) => {
                // It is not there, whether or not that was synced.
                parts.remove(&number);
            }
            _ => {}
        }
    }
    Some(Read { header, parts })
}

/// Records that the last mark says to be synced.
fn n_synced(notes: &[Note]) -> usize {
    let marks = notes
        .iter()
        .enumerate()
        .filter_map(|(at, note)| match note {
            Note::Synced(n) => usize::try_from(*n).ok().map(|n| n.min(at)),
            _ => None,
        });
    marks.max().unwrap_or(0)
}

/// A journal that says what this one says, in as few records as can be; what is there is synced.
pub(super) fn compact(header: &Header, parts: &PartMap) -> (Vec<u8>, u64) {
    let mut bytes = header.encode();
    for (number, digest) in parts {
        bytes.extend_from_slice(&Note::Part(*number, *digest).encode());
    }
    let n = parts.len() as u64;
    bytes.extend_from_slice(&Note::Synced(n).encode());
    (bytes, n + 1)
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string(BOOT_ID_FILE).ok()?;
    Some(id.trim().to_owned())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_SIZE] {
    let mut sum = [0; CHECKSUM_SIZE];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_SIZE]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(n_parts: u64) -> Header {
        Header {
            owner: "spiffe://test.internal/client/dev".parse().unwrap(),
            path: "/a".parse().unwrap(),
            size: (n_parts << 20) - 1,
            part_size: 1 << 20,
            base: None,
            begun: Timestamp::UNIX_EPOCH,
            request_id: None,
        }
    }

    fn digest(n: u8) -> PartDigest {
        PartDigest::from_bytes([n; 32])
    }

    fn journal(notes: &[Note]) -> Vec<u8> {
        let mut bytes = header(4).encode();
        for note in notes {
            bytes.extend_from_slice(&note.encode());
        }
        bytes
    }

    fn elsewhere(bytes: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
        let boot = boot_id().unwrap();
        let at = text.find(&boot).unwrap();
        let mut other = bytes.to_vec();
        other[at] = if other[at] == b'0' { b'1' } else { b'0' };
        other
    }

    #[test]
    fn the_last_word_about_a_part_holds() {
        let notes = [
            Note::Part(0, digest(1)),
            Note::Part(3, digest(2)),
            Note::Anew(0),
            Note::Part(1, digest(3)),
            Note::Part(1, digest(4)),
        ];
        let read = read(&journal(&notes)).unwrap();
        assert_eq!(read.header, header(4));
        assert_eq!(read.parts, PartMap::from([(1, digest(4)), (3, digest(2))]));
    }

    #[test]
    fn after_a_power_cut_only_what_was_synced_counts() {
        let notes = [
            Note::Part(0, digest(1)),
            Note::Part(1, digest(2)),
            Note::Part(2, digest(3)),
            Note::Synced(2),
            Note::Part(3, digest(4)),
            Note::Anew(1),
        ];
        let bytes = journal(&notes);
        let same = read(&bytes).unwrap();
        assert_eq!(same.parts.len(), 3);
        let other = read(&elsewhere(&bytes)).unwrap();
        assert_eq!(other.parts, PartMap::from([(0, digest(1))]));
    }

    #[test]
    fn a_journal_cut_off_anywhere_says_less_and_nothing_wrong() {
        let notes: Vec<Note> = (0..4).map(|number| Note::Part(number, digest(1))).collect();
        let bytes = journal(&notes);
        let begin = header(4).encode().len();
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                None => assert!(end < begin),
                Some(read) => {
                    let n = (end - begin) / RECORD_SIZE;
                    assert_eq!(read.parts.len(), n);
                }
            }
        }
        let mut spoiled = bytes;
        spoiled[begin + RECORD_SIZE + 9] ^= 1;
        assert_eq!(read(&spoiled).unwrap().parts.len(), 1);
    }

    #[test]
    fn a_compact_journal_says_the_same_and_is_synced() {
        let parts = PartMap::from([(0, digest(1)), (2, digest(3))]);
        let (bytes, n_records) = compact(&header(4), &parts);
        assert_eq!(n_records, 3);
        assert_eq!(read(&bytes).unwrap().parts, parts);
        assert_eq!(read(&elsewhere(&bytes)).unwrap().parts, parts);
        assert!(bytes.len() as u64 <= size_max(4));
        let out_of_place = journal(&[Note::Part(4, digest(1))]);
        assert!(read(&out_of_place).is_none());
    }
}
