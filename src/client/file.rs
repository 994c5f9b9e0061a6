//! Local files as sources and sinks.
//!
//! What is sent is one state of the file, or nothing: a file that changes meanwhile is sent again once,
//! then refused. A file that is being received has no name but a temporary one; the asked name appears
//! when the content is whole and verified, or not at all.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::NamedTempFile;
use thiserror::Error;

use super::fingerprint::{Fingerprint, settled};
use super::retry::Observer;
use super::upload::on_thread;
use super::{Client, ClientError, request_id};
use crate::path::RemotePath;
use crate::protocol::{Attributes, Conditions, FileInfo, Op, Put};

/// A new file's mode, less the umask.
pub(super) const MODE: u32 = 0o666;
/// Of a mode, what is told to the server.
const PERMISSIONS: u32 = 0o777;
/// Largest file that is read whole before it is sent; a larger one travels in parts.
pub const WHOLE_SIZE_MAX: u64 = 4 << 20;
/// How often a file that changes is begun anew.
const CHANGES_MAX: usize = 1;

/// How a file is moved.
#[derive(Clone, Default)]
pub struct TransferOptions {
    pub conditions: Conditions,
    /// What is kept with the file on the server; of a local file its own, if absent.
    pub attributes: Option<Attributes>,
    /// Connections that a large file is moved over; a default if absent.
    pub n_streams: Option<usize>,
    pub delta: Delta,
    pub observer: Option<Arc<dyn Observer>>,
}

/// Whether of a file that the server has, in another version, only what changed is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delta {
    /// Where the connection is slower than finding out what changed.
    #[default]
    Auto,
    Always,
    Never,
}

/// Connections that a large file is moved over, unless it is said.
pub const N_STREAMS: usize = 2;
/// Most of them.
pub const N_STREAMS_MAX: usize = 64;

impl TransferOptions {
    pub(super) fn n_streams(&self) -> usize {
        self.n_streams.unwrap_or(N_STREAMS).clamp(1, N_STREAMS_MAX)
    }

    pub(super) fn observer(&self) -> Option<&dyn Observer> {
        self.observer.as_deref()
    }
}

impl Client {
    /// Writes a local file's content to the server. A large one travels in parts, over several
    /// connections, and goes on after an interruption where it was; so does another run of the program,
    /// where [`super::Options`] name a directory for it.
    ///
    /// # Errors
    /// The connection failed and did not come back, or the server refused; the local file is not a
    /// regular file, or keeps changing. Nothing was changed, unless the connection was lost for good
    /// before the answer.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the transfer; nothing is published unless all was sent already.
    pub async fn put_file(
        &self,
        local: &Path,
        remote: &RemotePath,
        options: TransferOptions,
    ) -> Result<FileInfo, ClientError> {
        let path = local.to_owned();
        let open = move || open_regular(&path).map(|(file, _)| file);
        self.put_from(open, local, remote, &options).await
    }

    /// The same of a file that `open` opens; another run of the program knows it by its `place`.
    pub(super) async fn put_from(
        &self,
        open: impl Fn() -> io::Result<File> + Clone + Send + 'static,
        place: &Path,
        remote: &RemotePath,
        options: &TransferOptions,
    ) -> Result<FileInfo, ClientError> {
        settling(options, || {
            self.put_once(open.clone(), place, remote, options.clone())
        })
        .await
    }

    async fn put_once(
        &self,
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
        place: &Path,
        remote: &RemotePath,
        mut options: TransferOptions,
    ) -> Result<FileInfo, ClientError> {
        let opened = on_thread(move || {
            let opened = Opened::new(open()?)?;
            let size = opened.fingerprint.size;
            let content = (size <= WHOLE_SIZE_MAX).then(|| read_whole(&opened.file, size));
            Ok((opened, content.transpose()?))
        });
        let (opened, content) = opened.await.map_err(ClientError::Source)?;
        options.attributes.get_or_insert(opened.attributes);
        let Opened {
            file, fingerprint, ..
        } = opened;
        if let Some(observer) = options.observer() {
            observer.expect(fingerprint.size);
        }
        let Some(content) = content else {
            return self
                .put_large(file, fingerprint, place, remote, &options)
                .await;
        };
        if content.len() as u64 != fingerprint.size || !is_same(&file, fingerprint) {
            return Err(ClientError::SourceChanged);
        }
        let size = content.len() as u64;
        let put = self.put_whole(remote, Arc::from(content), &options).await?;
        if let Some(observer) = options.observer() {
            observer.moved(size);
        }
        Ok(put)
    }

    /// Puts what is in memory, until it is there.
    pub(super) async fn put_whole(
        &self,
        remote: &RemotePath,
        content: Arc<[u8]>,
        options: &TransferOptions,
    ) -> Result<FileInfo, ClientError> {
        let request = Op::Put(Put {
            path: remote.clone(),
            size: Some(content.len() as u64),
            if_absent: options.conditions.if_absent,
            if_version: options.conditions.if_version,
            attributes: options.attributes,
            request_id: request_id::fresh(),
            encoding: None,
        });
        let mut patience = self.patience(options.observer());
        loop {
            let put = self
                .upload_bytes(request.clone(), Arc::clone(&content))
                .await;
            match put {
                Err(error) => patience.wait(error).await?,
                put => return put,
            }
        }
    }
}

/// A local file as it was when it was opened.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) fingerprint: Fingerprint,
    pub(super) attributes: Attributes,
}

impl Opened {
    /// Blocks.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let fingerprint = settled(&file)?;
        // What changes from here on shows in the fingerprint.
        let attributes = attributes(&file)?;
        Ok(Self {
            file,
            fingerprint,
            attributes,
        })
    }
}

/// What the server keeps with a local file.
///
/// # Errors
/// The file system failed.
pub fn attributes(file: &File) -> io::Result<Attributes> {
    let metadata = file.metadata()?;
    let nanosecond = i32::try_from(metadata.mtime_nsec()).unwrap_or_default();
    Ok(Attributes {
        // A time that nobody can write down is not told.
        modified: Timestamp::new(metadata.mtime(), nanosecond).ok(),
        mode: Some(metadata.permissions().mode() & PERMISSIONS),
    })
}

/// Does it, and once more if the source changed meanwhile.
pub(super) async fn settling<T, F: Future<Output = Result<T, ClientError>>>(
    options: &TransferOptions,
    mut work: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let mut n_changes = 0;
    loop {
        match work().await {
            Err(ClientError::SourceChanged) if n_changes < CHANGES_MAX => {
                n_changes += 1;
                if let Some(observer) = options.observer() {
                    observer.begin_again();
                }
            }
            done => return done,
        }
    }
}

/// Whether a file is still what it was.
pub(super) fn is_same(file: &File, fingerprint: Fingerprint) -> bool {
    Fingerprint::of(file).is_ok_and(|now| now == fingerprint)
}

/// A file of so many bytes, as long as it stays as it was when it was opened.
pub(super) struct Steady<S> {
    file: File,
    n_left: u64,
    stays: S,
}

impl<S: Fn(&File) -> bool> Steady<S> {
    /// `stays` says at the end whether it did.
    pub(super) const fn new(file: File, size: u64, stays: S) -> Self {
        Self {
            file,
            n_left: size,
            stays,
        }
    }
}

impl<S: Fn(&File) -> bool> Read for Steady<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        let left = self.n_left.checked_sub(n as u64);
        let is_over = n == 0 && !buffer.is_empty();
        if left.is_none() || (is_over && !(self.stays)(&self.file)) {
            return Err(io::Error::other(Moved));
        }
        self.n_left = left.unwrap_or_default();
        Ok(n)
    }
}

/// A file that was changed while it was read.
#[derive(Debug, Error)]
#[error("it was changed while it was read")]
struct Moved;

/// Whether it is what a [`Steady`] says of a file that changed.
pub(super) fn is_moved(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Moved>)
}

/// A file, and one byte more than it should have.
fn read_whole(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(size + 1).read_to_end(&mut content)?;
    Ok(content)
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
    let permissions = std::fs::Permissions::from_mode(MODE);
    tempfile::Builder::new()
        .prefix(".fsvc-")
        .suffix(".part")
        .permissions(permissions)
        .tempfile_in(directory_of(local))
}

/// The directory that a file is in.
pub(super) fn directory_of(local: &Path) -> &Path {
    match local.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
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
