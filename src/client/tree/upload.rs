//! Files of a tree on their way to the server: small ones packed, large ones one by one.
//!
//! What is sent is what the file held at one time: a file that changes while it is read is read once
//! more, then refused.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::folder::{Folder, LocalFile, describe};
use super::outcome::{Outcome, TreeError};
use super::patience::Patience;
use super::plan::Sending;
use super::remembered::place;
use crate::client::request_id;
use crate::client::upload::on_thread;
use crate::client::{Client, ClientError, Delta, ManyPut, TransferOptions};
use crate::protocol::{Attributes, Conditions, MANY_SIZE_MAX};

/// How often a file is read that changes meanwhile.
const READS_MAX: u32 = 2;

/// What sending needs besides the files.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) folder: Arc<Folder>,
    pub(super) conditions: Conditions,
    pub(super) n_streams: usize,
    pub(super) delta: Delta,
    pub(super) patience: Patience,
}

impl Sender {
    /// Sends small files in one request; says of each what became of it.
    ///
    /// # Errors
    /// Nothing can be said of any.
    pub(super) async fn send_small(&self, batch: Vec<Sending>) -> Result<Vec<Outcome>, TreeError> {
        let folder = Arc::clone(&self.folder);
        let read = on_thread(move || {
            let read = batch.into_iter().map(|sending| {
                let content = read_small(&folder, &sending.relative);
                (sending, content)
            });
            Ok(read.collect::<Vec<_>>())
        });
        let mut outcomes = Vec::new();
        let (mut sent, mut files) = (Vec::new(), Vec::new());
        for (sending, content) in read.await? {
            match content {
                Ok((content, file)) => {
                    sent.push((sending.relative, content.len() as u64));
                    files.push(ManyPut {
                        path: sending.path,
                        content,
                        conditions: self.conditions,
                        attributes: Some(attributes(&file)),
                    });
                }
                Err(error) => outcomes.push(Outcome::failed(sending.relative, error)),
            }
        }
        if files.is_empty() {
            return Ok(outcomes);
        }
        // The same request each time, so that each file is put once.
        let request_id = request_id::fresh();
        let files = Arc::new(files);
        let put = || self.client.put_all(&files, request_id.clone());
        match self.patience.persist(put).await {
            Ok(answers) => {
                let answered = sent.into_iter().zip(answers);
                outcomes.extend(answered.map(|((relative, size), answer)| Outcome {
                    relative,
                    result: answer.map(|_| size).map_err(TreeError::Refused),
                }));
            }
            Err(error) => {
                let error = Arc::new(error);
                let each = |(relative, _)| {
                    Outcome::failed(relative, TreeError::Shared(Arc::clone(&error)))
                };
                outcomes.extend(sent.into_iter().map(each));
            }
        }
        Ok(outcomes)
    }

    /// Sends one large file: in parts, where it pays, and going on after an interruption.
    pub(super) async fn send_large(&self, sending: Sending) -> Outcome {
        let result = match self.send_once(&sending).await {
            Err(TreeError::Client(ClientError::SourceChanged)) => Err(TreeError::Changing),
            result => result,
        };
        Outcome {
            relative: sending.relative,
            result,
        }
    }

    async fn send_once(&self, sending: &Sending) -> Result<u64, TreeError> {
        let (open, place) = opening(&self.folder, &sending.relative).await?;
        let options = TransferOptions {
            conditions: self.conditions,
            n_streams: Some(self.n_streams),
            delta: self.delta,
            observer: Some(Arc::new(self.patience.clone())),
            ..TransferOptions::default()
        };
        let put = self.client.put_from(open, &place, &sending.path, &options);
        Ok(put.await?.size)
    }
}

/// How a file below the folder is opened, through no link, and what another run knows it by.
pub(super) async fn opening(
    folder: &Arc<Folder>,
    relative: &str,
) -> io::Result<(
    impl Fn() -> io::Result<File> + Clone + Send + 'static,
    PathBuf,
)> {
    let (folder, relative) = (Arc::clone(folder), relative.to_owned());
    let (of_place, name) = (Arc::clone(&folder), relative.clone());
    let place = on_thread(move || {
        let place = place(&of_place, &name);
        Ok(place.unwrap_or_else(|| of_place.path().join(&name)))
    });
    let open = move || folder.file(&relative).map(|(file, _)| file);
    Ok((open, place.await?))
}

/// What a small file held at one time, and what it was then. Blocks.
pub(super) fn read_small(
    folder: &Folder,
    relative: &str,
) -> Result<(Vec<u8>, LocalFile), TreeError> {
    for _ in 0..READS_MAX {
        let (file, before) = folder.file(relative)?;
        let size = before.fingerprint.size;
        if size > MANY_SIZE_MAX {
            break;
        }
        let content = read_whole(&file, usize::try_from(size).unwrap_or(0))?;
        if let Some(content) = content
            && describe(&file)? == before
        {
            return Ok((content, before));
        }
    }
    Err(TreeError::Changing)
}

/// What a source holds, if that is so many bytes; asked for one more, it says so in one call. What has
/// no size may hold something all the same, as under `/proc`.
fn read_whole(mut source: impl Read, size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut content = vec![0; size + 1];
    let mut n = 0;
    loop {
        match source.read(&mut content[n..]) {
            Ok(0) => break,
            Ok(n_read) => n += n_read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if n >= size {
            break;
        }
    }
    content.truncate(size);
    Ok((n == size).then_some(content))
}

/// What the server keeps with a file.
pub(super) const fn attributes(file: &LocalFile) -> Attributes {
    Attributes {
        modified: Some(file.modified),
        mode: Some(file.mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most so many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(self.1);
            self.0.read(&mut buffer[..n])
        }
    }

    #[test]
    fn only_what_has_the_size_that_was_said_is_whole() {
        let content = b"0123456789";
        for step in [1, 3, 10, 100] {
            let read = |size| read_whole(Slow(content, step), size).unwrap();
            assert_eq!(read(content.len()), Some(content.to_vec()));
            assert_eq!(read(content.len() + 1), None);
        }
        // With room for more it comes in one piece.
        assert_eq!(read_whole(&content[..], content.len() - 1).unwrap(), None);
        assert_eq!(read_whole(&content[..], 0).unwrap(), None);
        assert_eq!(read_whole(&b""[..], 0).unwrap(), Some(Vec::new()));
    }
}
