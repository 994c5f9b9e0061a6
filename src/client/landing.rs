//! What a file is fetched into, and under which terms.
//!
//! Whoever gives the file gives it its name afterwards, or takes it away.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::ClientError;
use super::file::TransferOptions;
use super::get_parts::Job;
use super::parts::Work;
use super::sidecar::Sidecar;
use crate::path::RemotePath;

/// A file that is to come, and where to.
pub(super) struct Landing<'a> {
    pub(super) remote: &'a RemotePath,
    /// Open for reading and writing; what is in it is of worth only as far as the sidecar says.
    pub(super) file: &'a File,
    pub(super) sidecar: Option<&'a Arc<Sidecar>>,
    /// Most bytes that are taken.
    pub(super) size_max: Option<u64>,
    pub(super) options: &'a TransferOptions,
}

impl Landing<'_> {
    /// # Errors
    /// The file is larger than what is taken.
    pub(super) fn check(&self, size: u64) -> Result<(), ClientError> {
        if self.takes(size) {
            return Ok(());
        }
        Err(ClientError::Sink(io::ErrorKind::FileTooLarge.into()))
    }

    pub(super) fn takes(&self, size: u64) -> bool {
        self.size_max.is_none_or(|limit| size <= limit)
    }

    /// What fetches the file in parts.
    pub(super) fn job(&self, version: u64, file: File, work: Arc<Work>) -> Job {
        Job {
            path: self.remote.clone(),
            version,
            file,
            work,
            sidecar: self.sidecar.cloned(),
            observer: self.options.observer.clone(),
            n_streams: self.options.n_streams(),
        }
    }

    /// The file from its beginning, emptied, for one body.
    pub(super) fn rewound(&self) -> io::Result<Limited> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        file.set_len(0)?;
        let n_left = self.size_max.unwrap_or(u64::MAX);
        Ok(Limited::new(file, n_left))
    }
}

/// A file to which no more bytes are written than are taken.
pub(super) struct Limited {
    file: File,
    n_left: u64,
}

impl Limited {
    pub(super) const fn new(file: File, n_left: u64) -> Self {
        Self { file, n_left }
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.n_left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let n = self.file.write(bytes)?;
        self.n_left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
