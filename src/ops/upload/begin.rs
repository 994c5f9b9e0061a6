//! How uploads begin.
//!
//! What would be refused at the end is refused here, where it can be known: the rights and conditions
//! of the put that it is to become.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::journal::{Header, PartMap};
use super::{PARTS_MAX, State, Upload};
use crate::content::ContentId;
use crate::identity::Identity;
use crate::ops::{OpError, Service};
use crate::protocol::{Begin, Begun, Conditions, Put, Signature};

/// Bytes of a part, unless that makes too many.
const PART_SIZE_MIN: u64 = 1 << 20;
/// Uploads that one identity has at a time.
const UPLOADS_PER_IDENTITY_MAX: usize = 1_024;

/// Bytes of the parts of a file of `size` bytes.
fn part_size(size: u64) -> u64 {
    let mut part_size = PART_SIZE_MIN;
    while size.div_ceil(part_size) > PARTS_MAX {
        part_size *= 2;
    }
    part_size
}

impl Service {
    /// Begins an upload. Blocks.
    ///
    /// # Errors
    /// No grant covers the put that it is to become, its conditions do not hold now, the file has only
    /// one part, or there are too many uploads.
    pub fn begin_upload(&self, who: &Identity, begin: &Begin) -> Result<Begun, OpError> {
        let put = Put {
            path: begin.path.clone(),
            size: Some(begin.size),
            if_absent: begin.if_absent,
            if_version: begin.if_version,
            attributes: None,
            request_id: None,
            encoding: None,
        };
        self.plan_put(who, &put)?;
        self.look_early(who, begin)?;
        let part_size = part_size(begin.size);
        if begin.size <= part_size {
            return Err(OpError::Small {
                size: begin.size,
                part_size,
            });
        }
        if begin.base.is_some() {
            let base = Signature {
                path: begin.path.clone(),
                if_version: begin.base,
            };
            self.open_base(who, &base)?;
        }
        let header = Header {
            owner: who.id.clone(),
            path: begin.path.clone(),
            size: begin.size,
            part_size,
            base: begin.base,
            begun: Timestamp::now(),
            request_id: begin.request_id.clone(),
        };
        let content = self.add_upload(header)?;
        let upload = self.uploads.of(&who.id, content)?;
        Ok(Begun {
            upload: content,
            part_size,
            expires_at: upload.expires_at(self.uploads.keep),
        })
    }

    fn add_upload(&self, header: Header) -> Result<ContentId, OpError> {
        let store = &self.parts.store;
        let mut live = self.uploads.live();
        let own = live
            .values()
            .filter(|upload| upload.header.owner == header.owner);
        // The answer to a first request may have been lost.
        let mut repeated = own.clone().filter(|upload| {
            header.request_id.is_some() && upload.header.request_id == header.request_id
        });
        if let Some(upload) = repeated.next() {
            let before = &upload.header;
            if (&before.path, before.size, before.base) == (&header.path, header.size, header.base)
            {
                return Ok(upload.content);
            }
            return Err(OpError::BadRequest(
                "this request_id was used for another upload: take a new one",
            ));
        }
        let n_own = own.count();
        if n_own >= UPLOADS_PER_IDENTITY_MAX {
            return Err(OpError::TooMany {
                what: "uploads of one identity",
                n_max: UPLOADS_PER_IDENTITY_MAX,
            });
        }
        let content = store.allocate(header.size, &header.encode());
        let content = content.map_err(OpError::Store)?;
        let state = State::new(PartMap::new(), 0, header.begun);
        let upload = Upload {
            content,
            header,
            state: Mutex::new(state),
        };
        live.insert(content, Arc::new(upload));
        Ok(content)
    }

    /// What cannot hold at the end is better said at the beginning.
    fn look_early(&self, who: &Identity, begin: &Begin) -> Result<(), OpError> {
        let conditions = Conditions {
            if_absent: begin.if_absent,
            if_version: begin.if_version,
        };
        let target = self.target(who, &begin.path, conditions)?;
        let found = match self.stat_settled(&begin.path) {
            Ok(found) => Some(found),
            Err(OpError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        target.look(found.as_ref())
    }
}
