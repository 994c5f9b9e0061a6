//! Ranges of files, and files that are waited for.
//!
//! What the server says is believed as far as it fits what was asked: the name, the version, and a
//! body of exactly the bytes that the range has in a file of the announced size.

use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::download::{Stopped, receive, receive_behind};
use super::{Client, ClientError, Delivery};
use crate::connection::Connection;
use crate::digest::Hasher;
use crate::path::RemotePath;
use crate::protocol::{ErrorCode, FileInfo, Get, Got, Op, Start, Trailer};

impl Client {
    /// Reads a range of a file into anything that can be written: `length` bytes from `offset` on, or
    /// what there is of them. Only the whole file has a digest: a range is what the server says it is.
    ///
    /// # Errors
    /// As [`Client::get`]; the file does not have `if_version`, or ends before `offset`.
    ///
    /// # Cancel safety
    /// As [`Client::get`].
    pub async fn get_range<W: Write + Send + 'static>(
        &self,
        path: &RemotePath,
        (offset, length): (u64, Option<u64>),
        if_version: Option<u64>,
        mut sink: W,
    ) -> Result<(FileInfo, W), ClientError> {
        let get = Op::Get(Get {
            offset,
            length,
            if_version,
            accept: self.accept(),
            ..Get::whole(path.clone())
        });
        let (link, got) = self.begin_once::<Got>(get).await?;
        let (file, body) = self.body_of(got)?;
        if file.path != *path {
            return Err(ClientError::Misplaced("another file than was asked for"));
        }
        if if_version.is_some() && file.version != if_version {
            return Err(ClientError::Misplaced("another version than was asked for"));
        }
        let left = file.size.checked_sub(offset);
        let left = left.ok_or(ClientError::Misplaced("a range behind the end of its file"))?;
        let size = length.unwrap_or(left).min(left);
        let receive_all = async move |connection: &mut Connection<_>| {
            let received = receive(connection, body, &mut sink, size).await;
            received.map(|received| (received, sink))
        };
        let moved = link.on_thread(receive_all).await;
        let (mut link, received) = moved.map_err(|error| self.lost(error))?;
        let ((hasher, trailer), sink) = match received {
            Ok(received) => received,
            Err(stopped) => return Err(self.stopped(&mut link, stopped, size).await),
        };
        self.keep(link);
        verify(&file, size, &hasher, &trailer).map_err(|error| self.explained(error))?;
        Ok((file, sink))
    }

    /// Reads a file into what cannot be rewound, such as a pipe: after an interruption it goes on behind
    /// what was written, in the same version or not at all.
    ///
    /// # Errors
    /// As [`Client::get`]; the version that was begun is gone.
    ///
    /// # Cancel safety
    /// As [`Client::get`].
    pub async fn get_onward<W: Write + Send + 'static>(
        &self,
        path: &RemotePath,
        mut sink: W,
    ) -> Result<(FileInfo, W), ClientError> {
        let mut patience = self.patience(None);
        let mut hasher = Hasher::new();
        let mut begun: Option<FileInfo> = None;
        loop {
            let offset = hasher.size();
            let get = Op::Get(Get {
                offset,
                if_version: begun.as_ref().and_then(|file| file.version),
                accept: self.accept(),
                ..Get::whole(path.clone())
            });
            let (link, got) = match self.begin_once::<Got>(get).await {
                Err(error) => {
                    patience.wait(error).await?;
                    continue;
                }
                Ok(answered) => answered,
            };
            let (file, body) = self.body_of(got)?;
            let file = begun.get_or_insert(file).clone();
            let receive_rest = async move |connection: &mut Connection<_>| {
                let size = file.size;
                let received = receive_behind(connection, body, &mut sink, size, &mut hasher).await;
                (received, sink, hasher, file)
            };
            let moved = link.on_thread(receive_rest).await;
            let (mut link, (received, back, so_far, file)) =
                moved.map_err(|error| self.lost(error))?;
            (sink, hasher) = (back, so_far);
            let error = match received {
                Ok(trailer) => {
                    self.keep(link);
                    match finished(&file, &hasher, &trailer).map_err(|error| self.explained(error))
                    {
                        Ok(()) => return Ok((file, sink)),
                        Err(error) if error.is_of_certificate() => error,
                        Err(error) => return Err(error),
                    }
                }
                Err(stopped @ Stopped::Connection(_)) => {
                    self.stopped(&mut link, stopped, file.size).await
                }
                Err(stopped) => return Err(self.stopped(&mut link, stopped, file.size).await),
            };
            // What has no version cannot be gone on with: it may be another file by now.
            if file.version.is_none() && hasher.size() > 0 {
                return Err(error);
            }
            if hasher.size() > offset {
                patience.refresh();
            }
            patience.wait(error).await?;
        }
    }

    /// Waits until a file is there, at version `version_min` or a later one. Only the right to read it
    /// is needed, and nothing is missed: the watch begins before the first look.
    ///
    /// # Errors
    /// It is not there in time, the connection failed, or the server refused.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn wait_for(
        &self,
        path: &RemotePath,
        version_min: u64,
        limit: Duration,
    ) -> Result<FileInfo, ClientError> {
        let not_in_time = || ClientError::NotInTime {
            path: path.clone(),
            limit,
        };
        let until = Instant::now().checked_add(limit).ok_or_else(not_in_time)?;
        let waited = timeout_at(until, self.wait_until_there(path, version_min)).await;
        waited.unwrap_or_else(|_| Err(not_in_time()))
    }

    async fn wait_until_there(
        &self,
        path: &RemotePath,
        version_min: u64,
    ) -> Result<FileInfo, ClientError> {
        let mut changes = self.watch(path.as_prefix(), Start::default()).await?;
        loop {
            let nothing = (0, Some(0));
            match self.get_range(path, nothing, None, std::io::sink()).await {
                Ok((file, _)) if file.version.unwrap_or(0) >= version_min => return Ok(file),
                Ok(_) => {}
                Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
                Err(error) => return Err(error),
            }
            // A mark that says how far all was told is no news of the file.
            loop {
                match changes.next().await {
                    Some(Ok(Delivery::CaughtUp(_))) => {}
                    Some(Ok(Delivery::Event(_) | Delivery::Lost(_))) => break,
                    Some(Err(error)) => return Err(error),
                    None => return Err(ClientError::Misplaced("a watch that ended by itself")),
                }
            }
        }
    }
}

/// What the server announced, in its answer and in the end of the body, is what arrived.
fn verify(
    file: &FileInfo,
    expected: u64,
    hasher: &Hasher,
    trailer: &Trailer,
) -> Result<(), ClientError> {
    let is_whole = expected == file.size;
    let (size, digest) = match trailer {
        Trailer::Abort { abort } => return Err(ClientError::Aborted(*abort)),
        Trailer::Whole { size, digest } if is_whole => (*size, Some(*digest)),
        Trailer::Range { size } if !is_whole => (*size, None),
        Trailer::Whole { .. } | Trailer::Range { .. } => {
            return Err(ClientError::Misplaced(
                "the end of a range and that of a whole file were taken for each other",
            ));
        }
    };
    for announced in [size, expected] {
        if announced != hasher.size() {
            return Err(ClientError::WrongSize {
                announced,
                arrived: hasher.size(),
            });
        }
    }
    let Some(digest) = digest else { return Ok(()) };
    let arrived = hasher.digest();
    for announced in file.digest.into_iter().chain([digest]) {
        if announced != arrived {
            return Err(ClientError::Corrupt { announced, arrived });
        }
    }
    Ok(())
}

/// Whether all of a file has come, over one connection or several.
fn finished(file: &FileInfo, hasher: &Hasher, trailer: &Trailer) -> Result<(), ClientError> {
    let said = match trailer {
        Trailer::Abort { abort } => return Err(ClientError::Aborted(*abort)),
        Trailer::Range { .. } => None,
        Trailer::Whole { digest, .. } => Some(*digest),
    };
    let (announced, arrived) = (file.size, hasher.size());
    if announced != arrived {
        return Err(ClientError::WrongSize { announced, arrived });
    }
    let arrived = hasher.digest();
    let mut digests = file.digest.into_iter().chain(said);
    match digests.find(|digest| *digest != arrived) {
        Some(announced) => Err(ClientError::Corrupt { announced, arrived }),
        None => Ok(()),
    }
}
