//! What the last run left undone.
//!
//! Every record behind the published mark is published again, in order; each step knows when it is
//! already done. Then whatever is still staged and no upload belongs to nobody, unless a record there
//! is damaged.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;
use tracing::{error, warn};

use super::Parts;
use super::publication::publications;
use super::upload::Uploads;
use crate::index::IndexError;
use crate::log::{LogError, Page, Sequence};
use crate::path::RemotePath;
use crate::store::StoreError;

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
    let mut next = parts.log.published()?.next();
    let (mut n_records, mut n_damaged) = (0, 0);
    let mut touched = BTreeSet::new();
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
        for record in &records {
            for publication in publications(&record.matter) {
                parts.store.publish(&publication)?;
            }
            let changes = record.matter.changes().iter();
            touched.extend(changes.flat_map(|change| change.paths().cloned()));
        }
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
    let recovered = Recovered {
        head,
        n_records,
        n_swept,
    };
    Ok((recovered, uploads))
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
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
