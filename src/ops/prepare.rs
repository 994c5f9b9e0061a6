//! What is looked at before a batch is appended: after the append there is no way back.
//!
//! Conditions come before names: a directory that is made for one draft is not there yet for another
//! of the same batch.

use super::Parts;
use super::job::CommitError;
use super::repeat::record_at;
use crate::index::IndexError;
use crate::log::{Change, Condition, Conflict, Draft, Sequence};
use crate::path::RemotePath;
use crate::store::{Sealed, StoreError};

/// Whether each draft may be appended, in their order. Those that may have their directories, and
/// are left the conditions that the log is to check; every record up to `published` stands in the
/// tree. Blocks.
pub(super) fn prepare(
    parts: &Parts,
    published: Sequence,
    mut drafts: Vec<&mut Draft>,
) -> Vec<Result<(), CommitError>> {
    let repeats = match repeats(parts, &drafts) {
        Ok(repeats) => repeats,
        Err(error) => {
            let refused = |_| Err(CommitError::Index(error.clone()));
            return drafts.iter().map(refused).collect();
        }
    };
    let settled: Vec<_> = drafts
        .iter_mut()
        .zip(repeats)
        .map(|(draft, repeats)| settle(parts, published, draft, repeats))
        .collect();
    let accepted = drafts.iter().zip(&settled);
    let accepted = accepted.filter(|(_, settled)| settled.is_ok());
    let places: Vec<_> = accepted.flat_map(|(draft, _)| places(draft)).collect();
    let mut names = parts.store.prepare_all(&places).into_iter();
    let verdicts = settled.into_iter().zip(&drafts).map(|(settled, draft)| {
        settled?;
        let names = names.by_ref().take(placed(draft).count());
        // All of them, also after one that is refused: the next are those of the next draft.
        let names: Vec<_> = names.collect();
        let names: Result<(), _> = names.into_iter().collect();
        names.map_err(CommitError::Store)
    });
    verdicts.collect()
}

/// The names that a draft gives to files.
pub(super) fn placed(draft: &Draft) -> impl Iterator<Item = &RemotePath> {
    places(draft).map(|(path, _)| path)
}

/// The same, each with the content that is new there.
fn places(draft: &Draft) -> impl Iterator<Item = (&RemotePath, Option<Sealed>)> {
    let changes = draft.matter.changes().iter();
    changes.filter_map(|change| match change {
        Change::Put { path, entry } => {
            let (content, stamp) = (entry.content, entry.stamp);
            Some((path, Some(Sealed { content, stamp })))
        }
        Change::Move { to: path, .. } => Some((path, None)),
        Change::Found { .. } | Change::Remove { .. } | Change::Gone { .. } => None,
    })
}

/// The record that each draft repeats, in their order.
fn repeats(parts: &Parts, drafts: &[&mut Draft]) -> Result<Vec<Option<Sequence>>, IndexError> {
    let mut asked = Vec::new();
    for draft in drafts {
        asked.extend(draft.request_id.as_ref().map(|id| (&draft.identity, id)));
    }
    if asked.is_empty() {
        return Ok(vec![None; drafts.len()]);
    }
    let mut found = parts.index.requests(&asked)?.into_iter();
    let of_draft = |draft: &&mut Draft| {
        let id = draft.request_id.as_ref();
        id.and_then(|_| found.next().flatten())
    };
    Ok(drafts.iter().map(of_draft).collect())
}

/// Holds a draft against what the log does not know. What was done already is not held against the
/// tree of today.
fn settle(
    parts: &Parts,
    published: Sequence,
    draft: &mut Draft,
    repeats: Option<Sequence>,
) -> Result<(), CommitError> {
    if let Some(sequence) = repeats.filter(|sequence| *sequence <= published) {
        return Err(repeated(parts, sequence));
    }
    parts.store.check().map_err(CommitError::Store)?;
    // What was found is there by another program's doing, as the draft says itself.
    let is_found = |change: &Change| matches!(change, Change::Found { .. });
    if draft.matter.changes().iter().any(is_found) {
        return Ok(());
    }
    // A file that another program put there counts as there, though the log does not know it.
    let mut conditions = Vec::with_capacity(draft.conditions.len());
    for condition in std::mem::take(&mut draft.conditions) {
        match &condition {
            Condition::Absent(path) if is_foreign(parts, path)? => {
                return Err(CommitError::Occupied(path.clone()));
            }
            Condition::Present(path) if is_foreign(parts, path)? => {}
            _ => conditions.push(condition),
        }
    }
    draft.conditions = conditions;
    Ok(())
}

fn is_foreign(parts: &Parts, path: &RemotePath) -> Result<bool, CommitError> {
    let known = parts.index.lookup(path).map_err(CommitError::Index)?;
    if known.is_some() {
        return Ok(false);
    }
    match parts.store.stat(path) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound) => Ok(false),
        Err(error) => Err(CommitError::Store(error)),
    }
}

/// Why a request that made a record already makes no other one.
pub(super) fn repeated(parts: &Parts, sequence: Sequence) -> CommitError {
    match record_at(&*parts.log, sequence) {
        Ok(Some(record)) => CommitError::Repeated(Box::new(record)),
        Ok(None) => CommitError::Conflict(Conflict::Duplicate { sequence }),
        Err(error) => CommitError::Log(error),
    }
}
