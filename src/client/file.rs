//! Local files as sources and sinks.
//!
//! A file that is being received has no name but a temporary one; the asked name appears when the
//! content is whole and verified, or not at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{Client, ClientError, PutOptions};
use crate::path::RemotePath;
use crate::protocol::{Conditions, FileInfo};

/// A new file's mode, less the umask.
const MODE: u32 = 0o666;

impl Client {
    /// Writes a local file's content to the server.
    ///
    /// # Errors
    /// As [`Client::put`]; the local file is not a regular file, or changed while it was read.
    pub async fn put_file(
        &self,
        local: &Path,
        remote: &RemotePath,
        conditions: Conditions,
    ) -> Result<FileInfo, ClientError> {
        let (file, size) = open_regular(local).map_err(ClientError::Source)?;
        self.put(
            remote,
            file,
            PutOptions {
                size: Some(size),
                conditions,
            },
        )
        .await
    }

    /// Reads a file of the server into a local file, which is replaced when all is verified.
    ///
    /// # Errors
    /// As [`Client::get`]; the local file is then as it was.
    pub async fn get_file(
        &self,
        remote: &RemotePath,
        local: &Path,
    ) -> Result<FileInfo, ClientError> {
        let temporary = temporary_beside(local).map_err(ClientError::Sink)?;
        let (info, temporary) = self.get(remote, temporary).await?;
        persist(temporary, local).map_err(ClientError::Sink)?;
        Ok(info)
    }
}

/// Opens a regular file for reading, and says its size.
///
/// # Errors
/// It is not there, or not a regular file.
pub fn open_regular(local: &Path) -> io::Result<(File, u64)> {
    let file = File::open(local)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok((file, metadata.len()))
}

/// A file in the same directory, so that the rename to the asked name is atomic.
///
/// # Errors
/// The directory is not there or not writable.
pub fn temporary_beside(local: &Path) -> io::Result<NamedTempFile> {
    let directory = match local.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let permissions = std::fs::Permissions::from_mode(MODE);
    tempfile::Builder::new()
        .prefix(".fsvc-")
        .suffix(".part")
        .permissions(permissions)
        .tempfile_in(directory)
}

/// Gives the temporary its name.
///
/// # Errors
/// A directory has it, or the file system failed.
pub fn persist(temporary: NamedTempFile, local: &Path) -> io::Result<()> {
    temporary
        .persist(local)
        .map(drop)
        .map_err(|error| error.error)
}
