//! What a transfer remembers, so that another run of the program goes on with it.
//!
//! One small file for a transfer: a line about it, then a line for each part. Who has it locked has the
//! transfer; another run at the same time does its own. It is a help and never needed: what cannot be
//! read is begun anew.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::PartDigest;

/// Longest sidecar that is read: of the file with most parts.
const SIZE_MAX: u64 = 16 << 20;
/// How long one is kept that nobody goes on with.
const LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const SUFFIX: &str = ".transfer";

/// An open sidecar.
pub(super) struct Sidecar {
    path: PathBuf,
    file: Mutex<File>,
}

/// What a sidecar said.
pub(super) struct Saved<T> {
    pub(super) header: T,
    pub(super) parts: Vec<(u64, PartDigest)>,
}

impl Sidecar {
    /// Opens the sidecar of the transfer that `names` tell from all others; nothing if another run of
    /// the program has it, or there is no place for it.
    pub(super) fn open(directory: &Path, names: &[&str]) -> Option<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).ok()?;
        clean(directory);
        let path = path(directory, names);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).open(&path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        // Who had the lock before may have removed the file.
        let is_named = std::fs::metadata(&path)
            .and_then(|named| Ok(same_file(&named, &file.metadata()?)))
            .unwrap_or(false);
        is_named.then(|| Self {
            path,
            file: Mutex::new(file),
        })
    }

    /// What it says, if it is one.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<Saved<T>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(0)).ok()?;
        let mut text = String::new();
        (&*file).take(SIZE_MAX).read_to_string(&mut text).ok()?;
        // What is added must not stand behind half a line.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).ok()?;
        }
        let mut lines = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        let header = serde_json::from_str(lines.next()?).ok()?;
        let parts = lines.map_while(|line| {
            let (number, digest) = line.split_once(' ')?;
            let digest = PartDigest::try_from(digest.to_owned()).ok()?;
            Some((number.parse().ok()?, digest))
        });
        Some(Saved {
            header,
            parts: parts.collect(),
        })
    }

    /// Begins it anew.
    pub(super) fn begin(&self, header: &impl Serialize) {
        let mut line = serde_json::to_vec(header).unwrap_or_default();
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&line));
        // Without it this run goes on all the same.
        let _ = begun;
    }

    /// It says nothing any more.
    pub(super) fn clear(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.set_len(0);
    }

    /// Adds a part.
    pub(super) fn add(&self, number: u64, digest: PartDigest) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{number} {digest}\n");
        let _ = file
            .seek(SeekFrom::End(0))
            .and_then(|_| file.write_all(line.as_bytes()));
    }

    /// Whether there is something to go on with.
    pub(super) fn has_parts(&self) -> bool {
        let saved = self.read::<serde::de::IgnoredAny>();
        saved.is_some_and(|saved| !saved.parts.is_empty())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The transfer is over.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where the sidecar of a transfer is, if it has one.
pub(super) fn path(directory: &Path, names: &[&str]) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    let name = &hasher.finalize().to_hex()[..32];
    directory.join(format!("{name}{SUFFIX}"))
}

fn same_file(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Removes what nobody goes on with any more.
fn clean(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().ends_with(SUFFIX);
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .and_then(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .map_err(io::Error::other)
            });
        if is_ours && age.is_ok_and(|age| age > LIFETIME) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::PartHasher;

    fn digest(byte: u8) -> PartDigest {
        let mut hasher = PartHasher::at(0);
        hasher.update(&[byte]);
        hasher.digest()
    }

    #[test]
    fn another_run_reads_what_was_written_and_a_second_one_gets_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let names = ["server", "/a"];
        let sidecar = Sidecar::open(directory.path(), &names).unwrap();
        assert!(sidecar.read::<String>().is_none());
        sidecar.begin(&"header");
        sidecar.add(0, digest(1));
        sidecar.add(7, digest(2));
        assert!(Sidecar::open(directory.path(), &names).is_none());
        assert!(Sidecar::open(directory.path(), &["server/a"]).is_some());
        drop(sidecar);
        let sidecar = Sidecar::open(directory.path(), &names).unwrap();
        let saved = sidecar.read::<String>().unwrap();
        assert_eq!(saved.header, "header");
        assert_eq!(saved.parts, [(0, digest(1)), (7, digest(2))]);
        sidecar.remove();
        drop(sidecar);
        let sidecar = Sidecar::open(directory.path(), &names).unwrap();
        assert!(sidecar.read::<String>().is_none());
    }

    #[test]
    fn what_is_torn_is_passed_over() {
        let directory = tempfile::TempDir::new().unwrap();
        let sidecar = Sidecar::open(directory.path(), &["x"]).unwrap();
        sidecar.begin(&1);
        sidecar.add(0, digest(1));
        sidecar.add(1, digest(2));
        let whole = std::fs::read(&sidecar.path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&sidecar.path, &whole[..length]).unwrap();
            let saved = sidecar.read::<u32>();
            let n_lines = whole[..length].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(saved.is_some(), n_lines > 0);
            let Some(saved) = saved else { continue };
            assert_eq!((saved.header, saved.parts.len()), (1, n_lines - 1));
            // What comes next is not lost behind it.
            sidecar.add(2, digest(3));
            let saved = sidecar.read::<u32>().unwrap();
            assert_eq!(saved.parts.last(), Some(&(2, digest(3))));
            assert_eq!(saved.parts.len(), n_lines);
        }
    }
}
