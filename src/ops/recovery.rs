//! What the last run left undone.
//!
//! Every record behind the published mark is published again, in order; each step knows when it is
//! already done. A small content that was not settled is brought back, unless the file there came
//! after it: that of a later record or, if it is newer, of another program. Then whatever is still
//! staged and no upload belongs to nobody, unless a record there is damaged.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use thiserror::Error;
use tracing::{error, warn};

use super::Parts;
use super::publication::publications;
use super::upload::Uploads;
use crate::content::Stamp;
use crate::index::IndexError;
use crate::log::{Change, LogError, Page, Record, Sequence};
use crate::path::RemotePath;
use crate::store::{Publication, Published, StoreError};

/// Records that are read at a time.
const PAGE: Page = Page {
    n_max: 256,
    size_max: 4 << 20,
};

/// What recovery found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// The last record in the log.
    pub head: Sequence,
    /// Records looked at again.
    pub n_records: usize,
    /// Staged contents that nobody owned.
    pub n_swept: usize,
}

/// A part failed during recovery; nothing is served.
#[derive(Debug, Error)]
pub enum RecoveryError {
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error("the index cannot be read")]
    Index(#[from] IndexError),
    #[error("the store cannot be brought up to date")]
    Store(#[from] StoreError),
}

pub(super) fn recover(
    parts: &Parts,
    keep_uploads: Duration,
) -> Result<(Recovered, Uploads), RecoveryError> {
    let head = parts.log.head()?;
    let mut claims = Claims::default();
    if parts.store.unsettled() > 0 {
        read_on(parts, |record| {
            claims.note(record);
            Ok(())
        })?;
    }
    let mut touched = BTreeSet::new();
    let (n_records, n_damaged) = read_on(parts, |record| {
        for publication in publications(&record.matter) {
            publish(parts, &claims, record.sequence, &publication)?;
        }
        let changes = record.matter.changes().iter();
        touched.extend(changes.flat_map(|change| change.paths().cloned()));
        Ok(())
    })?;
    let left = parts.store.left();
    if parts.store.unsettled() > 0 {
        parts.store.settle()?;
    }
    parts.store.sync()?;
    for path in &touched {
        check(parts, path)?;
    }
    if n_records + n_damaged > 0 {
        parts.log.append(&[], head)?;
    }
    let uploads = Uploads::load(parts, keep_uploads)?;
    // What a damaged record would have published may still be staged.
    let n_swept = match n_damaged {
        0 => parts.store.sweep(&uploads.contents())?,
        _ => 0,
    };
    if n_damaged == 0 {
        parts.store.end_settling(left)?;
    }
    let recovered = Recovered {
        head,
        n_records,
        n_swept,
    };
    Ok((recovered, uploads))
}

/// Reads the records behind the mark, in order; says how many there are, and how many are damaged.
fn read_on(
    parts: &Parts,
    mut take: impl FnMut(&Record) -> Result<(), RecoveryError>,
) -> Result<(usize, usize), RecoveryError> {
    let head = parts.log.head()?;
    let mut next = parts.log.published()?.next();
    let (mut n_records, mut n_damaged) = (0, 0);
    while next <= head {
        let records = match parts.log.read(next, PAGE) {
            Err(LogError::DamagedRecord { sequence, reason }) => {
                error!(
                    sequence = sequence.0,
                    reason, "a record is damaged and passed over"
                );
                n_damaged += 1;
                next = sequence.next();
                continue;
            }
            read => read?,
        };
        let Some(last) = records.last() else { break };
        next = last.sequence.next();
        n_records += records.len();
        records.iter().try_for_each(&mut take)?;
    }
    Ok((n_records, n_damaged))
}

/// What records say of names, in their order.
#[derive(Default)]
struct Claims(HashMap<RemotePath, Vec<(Sequence, Claim)>>);

enum Claim {
    /// The file is the record's own.
    Own(Stamp),
    /// The file was another program's, or it took the file away.
    Seen(Option<Stamp>),
}

impl Claims {
    fn note(&mut self, record: &Record) {
        for change in record.matter.changes() {
            let (path, claim) = match change {
                Change::Put { path, entry }
                | Change::Move {
                    to: path, entry, ..
                } => (path, Claim::Own(entry.stamp)),
                Change::Found { path, entry } => (path, Claim::Seen(Some(entry.stamp))),
                Change::Gone { path } => (path, Claim::Seen(None)),
                // It is done again: what it removes has to be there.
                Change::Remove { .. } => continue,
            };
            let claims = self.0.entry(path.clone()).or_default();
            claims.push((record.sequence, claim));
        }
    }

    /// Whether a later record than the one at `sequence` has the name. What another program did may
    /// be lost, so that the file is as `wanted` again.
    fn is_later(
        &self,
        sequence: Sequence,
        path: &RemotePath,
        wanted: Stamp,
        there: Option<Stamp>,
    ) -> bool {
        let mut later = self.of(path).iter().filter(|(at, _)| *at > sequence);
        later.any(|(_, claim)| match claim {
            Claim::Own(_) => true,
            Claim::Seen(_) => there != Some(wanted),
        })
    }

    /// Whether a file is newer than `wanted`, and no record's: another program's.
    fn is_foreign(&self, path: &RemotePath, wanted: Stamp, there: Option<Stamp>) -> bool {
        let is_newer = there.is_some_and(|there| there.modified > wanted.modified);
        let is_known = self.of(path).iter().any(|(_, claim)| match claim {
            Claim::Own(stamp) => Some(*stamp) == there,
            Claim::Seen(stamp) => *stamp == there,
        });
        is_newer && !is_known
    }

    fn of(&self, path: &RemotePath) -> &[(Sequence, Claim)] {
        self.0.get(path).map_or(&[], Vec::as_slice)
    }
}

fn publish(
    parts: &Parts,
    claims: &Claims,
    sequence: Sequence,
    publication: &Publication,
) -> Result<(), RecoveryError> {
    let Publication::Place {
        content,
        stamp,
        path,
    } = publication
    else {
        parts.store.publish(publication)?;
        return Ok(());
    };
    let there = match parts.store.stat(path) {
        Ok(there) => Some(there),
        // An empty directory may go; and one that is not is found out below.
        Err(StoreError::NotFound | StoreError::Directory(_)) => None,
        Err(error) if is_in_the_way(&error) => {
            say_taken(path, &error);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if claims.is_later(sequence, path, *stamp, there) {
        return Ok(());
    }
    // It may be a staged file all the same; and what is there may have nothing but its stamp.
    let published = parts.store.publish(publication)?;
    let is_ours = published != Published::Missing || !claims.is_foreign(path, *stamp, there);
    if !is_ours || !parts.store.is_left(*content) {
        return Ok(());
    }
    match parts.store.restore(*content, *stamp, path) {
        Err(error) if is_in_the_way(&error) => {
            say_taken(path, &error);
            Ok(())
        }
        restored => Ok(restored?),
    }
}

/// Says where the tree does not hold what the log says: another program was there first.
fn check(parts: &Parts, path: &RemotePath) -> Result<(), RecoveryError> {
    let Some(indexed) = parts.index.lookup(path)? else {
        return Ok(());
    };
    match parts.store.stat(path) {
        Ok(stamp) if stamp == indexed.entry.stamp => {}
        Ok(_) => warn!(%path, version = indexed.version.0, "another program has replaced the file"),
        Err(StoreError::NotFound) => {
            warn!(%path, version = indexed.version.0, "the file is gone from the tree");
        }
        Err(error) if is_in_the_way(&error) => {
            warn!(%path, version = indexed.version.0, "something else is there in place of the file");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn say_taken(path: &RemotePath, error: &StoreError) {
    let error = error as &dyn std::error::Error;
    warn!(error, %path, "another program has taken the name of a file");
}

/// Whether it is another program's doing, which stays as it is.
fn is_in_the_way(error: &StoreError) -> bool {
    match error {
        StoreError::NotAFile(_)
        | StoreError::FileAbove { .. }
        | StoreError::Directory(_)
        | StoreError::Confined(_) => true,
        StoreError::NotFound
        | StoreError::OutOfSpace(_)
        | StoreError::ReadOnly(_)
        | StoreError::Io { .. } => false,
    }
}
