//! A file of the store, open for reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::content::Stamp;
use crate::store::Content;

/// The file, and what it was recognised by when it was opened.
pub(super) struct LocalContent {
    pub(super) file: File,
    pub(super) stamp: Stamp,
}

impl Content for LocalContent {
    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut n_read = 0;
        while n_read < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[n_read..], offset + n_read as u64)
            {
                Ok(0) => break,
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(n_read)
    }
}
