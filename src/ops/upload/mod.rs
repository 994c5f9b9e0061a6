//! Uploads: files that arrive in parts, over any connection of their owner, and outlive them all.
//!
//! A part counts when all its bytes have arrived and are hashed. Whoever begins a part takes it from
//! whoever was at it, who writes no more from then on: what is stored is what was hashed. Nobody but
//! the owner can name an upload.

mod begin;
mod end;
mod journal;
mod look;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use super::{OpError, Parts};
use crate::content::ContentId;
use crate::digest::{Digest, PartDigest, combine};
use crate::identity::SpiffeId;
use crate::store::{Store, StoreError};
use journal::{Header, Note, PartMap};
use writer::Claim;

pub use writer::UploadWriter;

/// Most parts of an upload.
const PARTS_MAX: u64 = 1 << 17;
/// Bytes of parts that a power cut may take back.
const UNSYNCED_SIZE_MAX: u64 = 256 << 20;

/// The uploads that live.
pub(super) struct Uploads {
    live: Mutex<HashMap<ContentId, Arc<Upload>>>,
    /// How long an upload lives after its last part.
    keep: Duration,
}

/// One upload.
pub(super) struct Upload {
    content: ContentId,
    header: Header,
    state: Mutex<State>,
}

struct State {
    parts: PartMap,
    /// Who is at a part.
    claims: HashMap<u32, Arc<Claim>>,
    n_records: u64,
    /// How often the notes were written anew.
    n_rewritten: u64,
    /// A note failed: the notes may end in half of it, behind which none would be read.
    is_torn: bool,
    /// Bytes of parts since the last sync.
    n_unsynced: u64,
    touched: Timestamp,
    /// It is being committed, or it has been: no part is taken any more.
    is_closed: bool,
}

impl State {
    fn new(parts: PartMap, n_records: u64, touched: Timestamp) -> Self {
        Self {
            parts,
            claims: HashMap::new(),
            n_records,
            n_rewritten: 0,
            is_torn: false,
            n_unsynced: 0,
            touched,
            is_closed: false,
        }
    }

    /// Takes every part from who is at it, and lets nobody begin one; false if that was done before.
    fn close(&mut self) -> bool {
        if self.is_closed {
            return false;
        }
        self.is_closed = true;
        for claim in std::mem::take(&mut self.claims).into_values() {
            claim.revoke();
        }
        true
    }
}

impl Upload {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, reason: String) -> OpError {
        OpError::Upload {
            upload: self.content,
            reason,
        }
    }

    fn expires_at(&self, keep: Duration) -> Timestamp {
        expiry(self.state().touched, keep)
    }

    /// Notes what happened, and writes the journal anew where it has become too long, or where its
    /// end is not known. The state is held meanwhile, so that notes stand in the order in which
    /// things happened.
    fn note(
        &self,
        state: &mut State,
        store: &dyn Store,
        note: Note,
        is_durable: bool,
    ) -> Result<(), OpError> {
        let n_records_max = journal::n_records_max(self.header.n_parts());
        let is_short = state.n_records < n_records_max && !state.is_torn;
        // Until it is known to be whole.
        state.is_torn = true;
        if is_short {
            let noted = store.note(self.content, &note.encode(), is_durable);
            noted.map_err(OpError::Store)?;
            state.n_records += 1;
        } else {
            let parts = store.parts(self.content).map_err(OpError::Store)?;
            parts.sync().map_err(OpError::Store)?;
            let (bytes, n_records) = journal::compact(&self.header, &state.parts);
            let replaced = store.replace_notes(self.content, &bytes);
            replaced.map_err(OpError::Store)?;
            state.n_records = n_records;
            state.n_rewritten += 1;
            state.n_unsynced = 0;
        }
        state.is_torn = false;
        Ok(())
    }

    /// All parts are there, and make this digest.
    fn check_whole(&self, digest: Digest) -> Result<(), OpError> {
        let state = self.state();
        let (n, n_all) = (state.parts.len() as u64, self.header.n_parts());
        if n != n_all {
            let there = state.parts.keys().zip(0..);
            let n_first = there.take_while(|(number, at)| *number == at).count();
            return Err(self.wrong(format!(
                "{n} of {n_all} parts are there, and not part {n_first}"
            )));
        }
        let parts: Vec<PartDigest> = state.parts.values().copied().collect();
        match combine(&parts) {
            Some(found) if found == digest => Ok(()),
            found => Err(OpError::Mismatch {
                what: "the digest of the upload",
                announced: digest.to_string(),
                arrived: found.map_or_else(|| "none".to_owned(), |found| found.to_string()),
            }),
        }
    }
}

impl Uploads {
    /// What the last run left: recovery has published what was committed.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn load(parts: &Parts, keep: Duration) -> Result<Self, StoreError> {
        let store = &parts.store;
        let mut live = HashMap::new();
        for noted in store.noted()? {
            match load(store.as_ref(), noted.content, noted.modified) {
                Ok(Some(upload)) => {
                    live.insert(noted.content, Arc::new(upload));
                }
                // It was published, or never came to be.
                Ok(None) => store.forget(noted.content),
                Err(error) => return Err(error),
            }
        }
        let live = Mutex::new(live);
        Ok(Self { live, keep })
    }

    fn live(&self) -> MutexGuard<'_, HashMap<ContentId, Arc<Upload>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contents(&self) -> std::collections::HashSet<ContentId> {
        self.live().keys().copied().collect()
    }

    fn of(&self, owner: &SpiffeId, content: ContentId) -> Result<Arc<Upload>, OpError> {
        let upload = self.live().get(&content).cloned();
        upload
            .filter(|upload| upload.header.owner == *owner)
            .ok_or(OpError::NoUpload(content))
    }

    /// Ends a closed upload: its content is published, or nothing is left of it. It is known until
    /// then, so that who hears that it is no more finds nothing of it.
    fn end(&self, store: &dyn Store, content: ContentId) {
        store.forget(content);
        self.live().remove(&content);
    }
}

fn load(
    store: &dyn Store,
    content: ContentId,
    touched: Timestamp,
) -> Result<Option<Upload>, StoreError> {
    match store.parts(content) {
        Ok(_) => {}
        Err(StoreError::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    }
    let size_max = usize::try_from(journal::size_max(PARTS_MAX)).unwrap_or(usize::MAX);
    let notes = store.notes(content, size_max)?;
    let Some(read) = journal::read(&notes) else {
        warn!(%content, "the notes of an upload make no sense: it is given up");
        return Ok(None);
    };
    let (bytes, n_records) = journal::compact(&read.header, &read.parts);
    // What is said to be synced must be.
    store.parts(content)?.sync()?;
    store.replace_notes(content, &bytes)?;
    Ok(Some(Upload {
        content,
        header: read.header,
        state: Mutex::new(State::new(read.parts, n_records, touched)),
    }))
}

fn expiry(touched: Timestamp, keep: Duration) -> Timestamp {
    let until = touched.saturating_add(keep);
    until.unwrap_or(Timestamp::MAX)
}
