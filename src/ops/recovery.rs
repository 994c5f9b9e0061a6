//! What the last run left undone.
//!
//! Every record behind the published mark is published again, in order; each step knows when it is
//! already done. Then whatever is still staged belongs to nobody.

use std::collections::{BTreeSet, HashSet};

use thiserror::Error;
use tracing::warn;

use super::Parts;
use super::commit::publication;
use crate::index::IndexError;
use crate::log::{LogError, Sequence};
use crate::path::RemotePath;
use crate::store::StoreError;

/// Records that are read at a time.
const PAGE_SIZE: usize = 256;

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

pub(super) fn recover(parts: &Parts) -> Result<Recovered, RecoveryError> {
    let head = parts.log.head()?;
    let mut next = parts.log.published()?.next();
    let mut n_records = 0;
    let mut touched = BTreeSet::new();
    while next <= head {
        let records = parts.log.read(next, PAGE_SIZE)?;
        let Some(last) = records.last() else { break };
        next = last.sequence.next();
        n_records += records.len();
        for change in records.iter().flat_map(|record| &record.changes) {
            parts.store.publish(&publication(change))?;
            touched.extend(change.paths().cloned());
        }
    }
    parts.store.sync()?;
    for path in &touched {
        check(parts, path)?;
    }
    if n_records > 0 {
        parts.log.append(&[], head)?;
    }
    let n_swept = parts.store.sweep(&HashSet::new())?;
    Ok(Recovered {
        head,
        n_records,
        n_swept,
    })
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
