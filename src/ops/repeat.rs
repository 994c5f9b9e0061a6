//! A request that is repeated: answered from the record that it made, as it was the first time.
//!
//! What was done is found by who asked and under which id, never by what is there now: the file may
//! have changed since. An id that was used for something else is refused.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{OpError, Service};
use crate::identity::{Identity, SpiffeId};
use crate::label::DedupId;
use crate::log::{Change, Entry, Log, LogError, Page, Record, Sequence};
use crate::path::RemotePath;
use crate::protocol::{Committed, FileInfo, Member, Removed};

/// How long the publication of what was done is waited for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a repetition waits for the request that it repeats.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that are being done. A repetition that comes meanwhile waits for the first one: what that
/// one has taken, such as staged contents, would not be there for it.
#[derive(Default)]
pub(super) struct Running {
    keys: Mutex<HashSet<Key>>,
    ended: Notify,
}

type Key = (SpiffeId, DedupId);

/// The right to do a request, until it is dropped.
struct Turn<'a> {
    running: &'a Running,
    key: Key,
}

impl Running {
    async fn turn(&self, key: Key) -> Result<Turn<'_>, OpError> {
        let wait = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                // Before the look: an end between the two would not be heard.
                ended.as_mut().enable();
                if self.keys().insert(key.clone()) {
                    return;
                }
                ended.await;
            }
        };
        timeout(TURN_TIMEOUT, wait)
            .await
            .map_err(|_| OpError::Busy)?;
        Ok(Turn { running: self, key })
    }

    fn keys(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.running.keys().remove(&self.key);
        self.running.ended.notify_waiters();
    }
}

impl Service {
    /// The record that a request of an identity made, once all can see what it did; none if no such
    /// request was done, or its record is not kept any more. Blocks.
    ///
    /// # Errors
    /// What it did is not visible in time, or a part failed.
    pub fn repeated(
        &self,
        who: &Identity,
        request_id: &DedupId,
    ) -> Result<Option<Record>, OpError> {
        let found = self.parts.index.request(&who.id, request_id);
        let Some(sequence) = found.map_err(OpError::Index)? else {
            return Ok(None);
        };
        let record = record_at(&*self.parts.log, sequence).map_err(OpError::Log)?;
        if let Some(record) = &record
            && sequence > self.tail.head()
        {
            self.wait_published(record)?;
        }
        Ok(record)
    }

    fn wait_published(&self, record: &Record) -> Result<(), OpError> {
        let mut paths = record.matter.changes().iter().flat_map(Change::paths);
        let Some(path) = paths.next() else {
            return Ok(());
        };
        self.committer.pending().wait(path, SETTLE_TIMEOUT);
        if record.sequence <= self.tail.head() {
            return Ok(());
        }
        self.parts.store.check().map_err(OpError::Store)?;
        Err(OpError::Unsettled(path.clone()))
    }

    /// Makes a change once. What was done under the id is answered from its record; what is being done
    /// is waited for. A put of the same id does not take turns: what it has done is looked for again
    /// when the change fails.
    ///
    /// # Errors
    /// Those of the change, or the id was used for another request.
    ///
    /// # Cancel safety
    /// That of `change`.
    pub async fn once<T>(
        self: &Arc<Self>,
        who: &Identity,
        request_id: Option<&DedupId>,
        answer: impl Fn(&Record) -> Result<T, OpError>,
        change: impl Future<Output = Result<T, OpError>>,
    ) -> Result<T, OpError> {
        let Some(id) = request_id else {
            return change.await;
        };
        let _turn = self.running.turn((who.id.clone(), id.clone())).await?;
        if let Some(record) = self.look_for(who, id).await? {
            return answer(&record);
        }
        let error = match change.await {
            Err(OpError::Repeated(record)) => return answer(&record),
            Err(error) => error,
            done => return done,
        };
        match self.look_for(who, id).await? {
            Some(record) => answer(&record),
            None => Err(error),
        }
    }

    async fn look_for(
        self: &Arc<Self>,
        who: &Identity,
        request_id: &DedupId,
    ) -> Result<Option<Record>, OpError> {
        let (who, id) = (who.clone(), request_id.clone());
        self.blocking(move |service| service.repeated(&who, &id))
            .await
    }
}

/// The record of this number, if it is kept.
pub(super) fn record_at(log: &dyn Log, sequence: Sequence) -> Result<Option<Record>, LogError> {
    let page = Page {
        n_max: 1,
        size_max: 0,
    };
    let found = log.read(sequence, page)?.into_iter().next();
    Ok(found.filter(|record| record.sequence == sequence))
}

/// What a record made of a file.
pub(super) fn file_of(sequence: Sequence, path: &RemotePath, entry: &Entry) -> FileInfo {
    FileInfo {
        path: path.clone(),
        size: entry.stamp.size,
        modified: entry.stamp.modified,
        version: Some(sequence.0),
        digest: entry.digest,
        attributes: entry.attributes,
    }
}

/// The answer to a request that wrote this file: `put`, `append`, `copy`.
///
/// # Errors
/// The record is of another request.
pub fn written(record: &Record, path: &RemotePath) -> Result<FileInfo, OpError> {
    match record.matter.changes() {
        [Change::Put { path: found, entry }] if found == path => {
            Ok(file_of(record.sequence, path, entry))
        }
        _ => Err(OpError::AnotherRequest(record.sequence)),
    }
}

/// The answer to a request that gave a file another name.
///
/// # Errors
/// The record is of another request.
pub(super) fn moved(
    record: &Record,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<FileInfo, OpError> {
    match record.matter.changes() {
        [
            Change::Move {
                from: found_from,
                to: found_to,
                entry,
            },
        ] if (found_from, found_to) == (from, to) => Ok(file_of(record.sequence, to, entry)),
        _ => Err(OpError::AnotherRequest(record.sequence)),
    }
}

/// The answer to a request that removed this file.
///
/// # Errors
/// The record is of another request.
pub(super) fn removed(record: &Record, path: &RemotePath) -> Result<Removed, OpError> {
    match record.matter.changes() {
        [Change::Remove { path: found, .. }] if found == path => Ok(Removed {
            path: path.clone(),
            sequence: record.sequence.0,
        }),
        _ => Err(OpError::AnotherRequest(record.sequence)),
    }
}

/// The answer to a request that committed this set. Of a set that is history in part only what is
/// left can be compared.
///
/// # Errors
/// The record is of another request.
pub(super) fn committed(record: &Record, members: &[Member]) -> Result<Committed, OpError> {
    let asked: HashMap<&RemotePath, &Member> = members
        .iter()
        .map(|member| (&member.path, member))
        .collect();
    let is_asked = |change: &Change| match change {
        Change::Put { path, entry } => asked.get(path).is_some_and(|member| {
            let is_other = member
                .digest
                .is_some_and(|digest| entry.digest != Some(digest));
            !member.remove && !is_other
        }),
        Change::Remove { path, .. } => asked.get(path).is_some_and(|member| member.remove),
        Change::Found { .. } | Change::Gone { .. } | Change::Move { .. } => false,
    };
    let n_members = record.n_changes();
    if n_members != members.len() as u64 || !record.matter.changes().iter().all(is_asked) {
        return Err(OpError::AnotherRequest(record.sequence));
    }
    Ok(Committed {
        sequence: record.sequence.0,
        n_members,
        // Of a larger set one may be all that is left.
        file: only_file(record.sequence, record.matter.changes()).filter(|_| n_members == 1),
    })
}

/// The file, where putting it was all that was done.
pub(super) fn only_file(sequence: Sequence, changes: &[Change]) -> Option<FileInfo> {
    match changes {
        [Change::Put { path, entry }] => Some(file_of(sequence, path, entry)),
        _ => None,
    }
}
