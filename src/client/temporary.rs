//! Where a file is while it arrives: beside the one that it is to become, under another name.
//!
//! A name that another run finds is only used where that is wanted, and only if nobody else can have
//! put something there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::file::{MODE, directory_of, persist, temporary_beside};

/// Where what arrives is kept: under a name that another run finds, or under any.
pub(super) enum Temporary {
    /// Locked: no other run writes into it.
    Kept(PathBuf, File),
    Passing(tempfile::NamedTempFile),
}

impl Temporary {
    /// Beside the file that it is to become.
    pub(super) fn open(local: &Path, is_kept: bool) -> io::Result<Self> {
        if is_kept
            && let Some(path) = kept_path(local)
            && let Some(file) = open_kept(&path)
        {
            return Ok(Self::Kept(path, file));
        }
        temporary_beside(local).map(Self::Passing)
    }

    pub(super) fn file(&self) -> io::Result<File> {
        match self {
            Self::Kept(_, file) => file.try_clone(),
            Self::Passing(file) => file.as_file().try_clone(),
        }
    }

    pub(super) fn persist(self, local: &Path) -> io::Result<()> {
        match self {
            Self::Kept(path, _locked) => std::fs::rename(&path, local).inspect_err(|_| {
                let _ = std::fs::remove_file(&path);
            }),
            Self::Passing(file) => persist(file, local),
        }
    }

    pub(super) fn remove(self) {
        if let Self::Kept(path, _locked) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Nothing if another run has it, or somebody else may have.
fn open_kept(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = options.mode(MODE).custom_flags(flags).open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let found = file.metadata().ok()?;
    let is_own = found.uid() == rustix::process::geteuid().as_raw() && found.nlink() == 1;
    // Who had the lock before may have given it its last name, or taken its name away.
    let named = std::fs::symlink_metadata(path).ok()?;
    let is_named = (named.dev(), named.ino()) == (found.dev(), found.ino());
    (found.is_file() && is_own && is_named).then_some(file)
}

/// A name that is the same for every run.
fn kept_path(local: &Path) -> Option<PathBuf> {
    let name = local.file_name()?.as_encoded_bytes();
    let hash = blake3::hash(name).to_hex();
    Some(directory_of(local).join(format!(".fsvc-{}.part", &hash[..16])))
}
