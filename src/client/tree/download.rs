//! Files of the server on their way here: small ones packed, large ones one by one.
//!
//! No file gets its name before it is verified. What the server gives in the place of a file that it
//! listed may be another version of it, but never more bytes than it listed.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use super::destination::Destination;
use super::folder::Folder;
use super::outcome::{Outcome, TreeError, is_full};
use super::patience::Patience;
use super::plan::Fetching;
use crate::client::file::WHOLE_SIZE_MAX;
use crate::client::landing::Landing;
use crate::client::upload::on_thread;
use crate::client::{Client, ClientError, ManyGot, TransferOptions};
use crate::protocol::FileInfo;

/// What fetching needs besides the files.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) client: Client,
    pub(super) folder: Arc<Folder>,
    pub(super) keeps_modes: bool,
    pub(super) n_streams: usize,
    pub(super) patience: Patience,
}

/// Files that are being fetched in one request, and what became of those that came.
struct Arrivals {
    files: Vec<Fetching>,
    destination: Destination,
    outcomes: Vec<Option<Result<u64, TreeError>>>,
}

impl Fetcher {
    /// Fetches small files in one request; says of each what became of it.
    ///
    /// # Errors
    /// Nothing can be said of any.
    pub(super) async fn fetch_small(
        &self,
        batch: Vec<Fetching>,
    ) -> Result<Vec<Outcome>, TreeError> {
        let arrivals = Arc::new(Mutex::new(Arrivals {
            outcomes: batch.iter().map(|_| None).collect(),
            files: batch,
            destination: Destination::new(Arc::clone(&self.folder), self.keeps_modes),
        }));
        let got = self.patience.persist(|| self.ask(&arrivals)).await;
        let mut arrivals = lock(&arrivals);
        let outcomes = std::mem::take(&mut arrivals.outcomes);
        let files = std::mem::take(&mut arrivals.files);
        let is_complete = outcomes.iter().all(Option::is_some);
        let error = match got {
            // What came may be good; the server that sent it is not.
            Err(error) if is_complete => return Err(error.into()),
            Ok(()) => Arc::new(ClientError::Misplaced(
                "a file that was asked for did not come",
            )),
            Err(error) => Arc::new(error),
        };
        let each = files
            .into_iter()
            .zip(outcomes)
            .map(|(file, outcome)| Outcome {
                relative: file.relative,
                result: outcome.unwrap_or_else(|| Err(TreeError::Shared(Arc::clone(&error)))),
            });
        Ok(each.collect())
    }

    /// Asks for those that have not come yet.
    async fn ask(&self, arrivals: &Arc<Mutex<Arrivals>>) -> Result<(), ClientError> {
        let (numbers, paths): (Vec<usize>, Vec<_>) = {
            let arrivals = lock(arrivals);
            let missing = arrivals.outcomes.iter().zip(&arrivals.files).enumerate();
            missing
                .filter(|(_, (outcome, _))| outcome.is_none())
                .map(|(number, (_, file))| (number, file.file.path.clone()))
                .unzip()
        };
        if paths.is_empty() {
            return Ok(());
        }
        let arrivals = Arc::clone(arrivals);
        let sink = move |asked: usize, got: ManyGot<'_>| {
            let mut arrivals = lock(&arrivals);
            match numbers.get(asked) {
                Some(number) => arrivals.take(*number, got),
                None => Ok(()),
            }
        };
        self.client.get_many(paths, sink).await.map(drop)
    }

    /// Fetches one large file: in parts, and going on where an earlier run was interrupted.
    pub(super) async fn fetch_large(&self, fetching: Fetching) -> Outcome {
        let result = self.fetch_once(&fetching).await;
        Outcome {
            relative: fetching.relative,
            result,
        }
    }

    async fn fetch_once(&self, fetching: &Fetching) -> Result<u64, TreeError> {
        let (fetcher, wanted) = (self.clone(), fetching.clone());
        let begun = on_thread(move || {
            let mut destination = Destination::new(fetcher.folder, fetcher.keeps_modes);
            let partial = if has_parts(&wanted.file) {
                destination.begin_kept(&fetcher.client, &wanted)?
            } else {
                destination.begin(&wanted)?
            };
            Ok((destination, partial))
        });
        let (destination, mut partial) = begun.await?;
        let options = TransferOptions {
            n_streams: Some(self.n_streams),
            observer: Some(Arc::new(self.patience.clone())),
            ..TransferOptions::default()
        };
        let landing = Landing {
            remote: &fetching.file.path,
            file: partial.file(),
            sidecar: partial.sidecar(),
            size_max: Some(fetching.file.size),
            options: &options,
        };
        let got = if is_versioned(&fetching.file) {
            self.client.get_into(&landing).await
        } else {
            self.client.get_whole(&landing).await
        };
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                if !error.is_passing() {
                    partial.give_up();
                }
                return Err(larger(error, fetching));
            }
        };
        let wanted = fetching.clone();
        let named = on_thread(move || {
            let size = got.size;
            Ok(destination.finish(partial, &wanted, &got).map(|()| size))
        });
        named.await?
    }
}

/// Whether ranges can be asked for that are all of one file.
const fn is_versioned(file: &FileInfo) -> bool {
    file.version.is_some() && file.digest.is_some()
}

/// Whether it comes in more than one range.
const fn has_parts(file: &FileInfo) -> bool {
    is_versioned(file) && file.size > WHOLE_SIZE_MAX
}

impl Arrivals {
    /// Takes one file that came. Only what concerns all of them is an error.
    fn take(&mut self, number: usize, got: ManyGot<'_>) -> io::Result<()> {
        let (Some(fetching), Some(outcome)) =
            (self.files.get(number), self.outcomes.get_mut(number))
        else {
            return Ok(());
        };
        let result = match got {
            Ok((got, _)) if got.size > fetching.file.size => Err(TreeError::Larger {
                listed: fetching.file.size,
            }),
            Ok((got, content)) => {
                let begun = self.destination.begin(fetching).map_err(TreeError::from);
                begun.and_then(|mut partial| {
                    partial.sink().write_all(content)?;
                    self.destination.finish(partial, fetching, &got)?;
                    Ok(got.size)
                })
            }
            Err(reply) => Err(TreeError::Refused(reply)),
        };
        // A full disk is full for the others as well.
        if let Err(TreeError::Local(error)) = &result
            && is_full(error)
        {
            return Err(error.kind().into());
        }
        *outcome = Some(result);
        Ok(())
    }
}

fn larger(error: ClientError, fetching: &Fetching) -> TreeError {
    match error {
        ClientError::Sink(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            TreeError::Larger {
                listed: fetching.file.size,
            }
        }
        ClientError::Sink(error) => TreeError::Local(error),
        error => TreeError::Client(error),
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> std::sync::MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}
