//! Contents that are kept beside the tree, for messages that are too large for the log.
//!
//! Nobody names them but the log: a content is there from its record's publication until the record
//! has outlived its time.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::confine::{stamp, status};
use super::failed;
use crate::content::{ContentId, Stamp};
use crate::fault;
use crate::store::{Published, StoreError};

/// The directory of attached contents.
pub(super) struct Attachments(pub(super) OwnedFd);

impl Attachments {
    /// Takes a content out of `staging`, or finds that this is done; also gives the directory that
    /// has to be synced.
    pub(super) fn take(
        &self,
        staging: &OwnedFd,
        content: ContentId,
    ) -> Result<(Published, OwnedFd), StoreError> {
        let attaching = |error| failed("attaching a content", error);
        let name = content.to_string();
        fault::point("store.attach").map_err(attaching)?;
        let moved = renameat(staging, &name, &self.0, &name);
        let outcome = match moved {
            Ok(()) => Published::Done,
            Err(Errno::NOENT) => match status(&self.0, &name) {
                Ok(Some(_)) => Published::Done,
                Ok(None) => Published::Missing,
                Err(errno) => return Err(attaching(errno.into())),
            },
            Err(errno) => return Err(attaching(errno.into())),
        };
        fault::point("store.attach.after").map_err(attaching)?;
        let directory = self.0.try_clone().map_err(attaching)?;
        Ok((outcome, directory))
    }

    pub(super) fn open(&self, content: ContentId) -> Result<(File, Stamp), StoreError> {
        let opening = |error: Errno| match error {
            Errno::NOENT => StoreError::NotFound,
            other => failed("opening an attached content", other),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.0, content.to_string(), flags, Mode::empty()).map_err(opening)?;
        let found = fstat(&file).map_err(opening)?;
        let stamp = stamp(&found).ok_or(StoreError::NotFound)?;
        Ok((File::from(file), stamp))
    }

    /// Durable when it returns: whoever forgets the contents next leaves none behind.
    pub(super) fn remove(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        for content in contents {
            match unlinkat(&self.0, content.to_string(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("removing an attached content", errno)),
            }
        }
        fsync(&self.0).map_err(|errno| failed("syncing the attached contents", errno))
    }
}
