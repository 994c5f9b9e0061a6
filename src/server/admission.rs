//! How many connections each identity has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::SpiffeId;

/// Counts the connections of each identity that is here.
pub(super) struct Admission {
    limit: usize,
    guests: Mutex<HashMap<SpiffeId, usize>>,
}

/// One counted connection; dropping it gives the place back.
pub(super) struct Guest {
    admission: Arc<Admission>,
    id: SpiffeId,
}

impl Admission {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            guests: Mutex::default(),
        }
    }

    /// A place for one more connection; `None` over the limit.
    pub(super) fn admit(self: &Arc<Self>, id: &SpiffeId) -> Option<Guest> {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = guests.entry(id.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Guest {
            admission: Arc::clone(self),
            id: id.clone(),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self
            .admission
            .guests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = guests.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.id);
            }
        }
    }
}
