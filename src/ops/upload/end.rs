//! How uploads end: committed, given up, or too old.
//!
//! Who ends one closes it first, so that nobody writes to what is being published or removed. It is
//! opened again only where it is sure that the log does not name it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Upload, expiry};
use crate::content::ContentId;
use crate::digest::Digest;
use crate::identity::Identity;
use crate::ops::{OpError, Service};
use crate::protocol::{ABORTED_MAX, Abort};
use crate::store::{Sealed, StoreError};

impl Upload {
    /// Closes it if nobody is at it, or was for too long.
    fn close_if_old(&self, keep: Duration, now: Timestamp) -> bool {
        let mut state = self.state();
        let is_old = state.claims.is_empty() && expiry(state.touched, keep) < now;
        is_old && state.close()
    }
}

fn close(upload: &Upload) -> Result<(), OpError> {
    if upload.state().close() {
        return Ok(());
    }
    Err(OpError::Busy)
}

impl Service {
    /// Gives up an upload, or what was staged. Blocks.
    ///
    /// # Errors
    /// It is not an upload of this identity, or is being committed; the request says neither or both.
    pub fn abort(&self, who: &Identity, abort: &Abort) -> Result<(), OpError> {
        match (abort.upload, abort.staged.as_slice()) {
            (Some(upload), []) => self.abort_upload(who, upload),
            (None, staged @ [_, ..]) if staged.len() <= ABORTED_MAX => {
                self.discard_staged(who, staged);
                Ok(())
            }
            (None, [_, ..]) => Err(OpError::TooMany {
                what: "staged contents in one request",
                n_max: ABORTED_MAX,
            }),
            _ => Err(OpError::BadRequest(
                "what is given up is either \"upload\", or \"staged\", a list",
            )),
        }
    }

    /// Gives an upload up. Blocks.
    ///
    /// # Errors
    /// It is not one of this identity, or is being committed.
    pub fn abort_upload(&self, who: &Identity, content: ContentId) -> Result<(), OpError> {
        let upload = self.uploads.of(&who.id, content)?;
        close(&upload)?;
        self.uploads.end(self.parts.store.as_ref(), content);
        Ok(())
    }

    /// Makes a whole upload a content that can be committed; `None` if there is no such upload. Until
    /// [`Service::reopen_upload`] or [`Service::end_upload`] nobody else gets it. Blocks.
    pub(in crate::ops) fn seal_upload(
        &self,
        who: &Identity,
        content: ContentId,
        digest: Option<Digest>,
    ) -> Result<Option<(Sealed, Digest)>, OpError> {
        let Ok(upload) = self.uploads.of(&who.id, content) else {
            return Ok(None);
        };
        let digest = digest.ok_or_else(|| {
            upload.wrong("a member that names an upload needs its \"digest\"".to_owned())
        })?;
        close(&upload)?;
        let sealed = upload.check_whole(digest).and_then(|()| {
            let sealed = self.parts.store.seal_parts(content, upload.header.size);
            sealed.map_err(OpError::Store)
        });
        match sealed {
            Ok(sealed) => Ok(Some((sealed, digest))),
            Err(error) => {
                upload.state().is_closed = false;
                Err(error)
            }
        }
    }

    /// The commit was refused, and is in no log: the upload lives on.
    pub(in crate::ops) fn reopen_upload(&self, content: ContentId) {
        if let Some(upload) = self.uploads.live().get(&content) {
            upload.state().is_closed = false;
        }
    }

    /// The commit is done.
    pub(in crate::ops) fn end_upload(&self, content: ContentId) {
        self.uploads.end(self.parts.store.as_ref(), content);
    }

    /// Removes uploads that nobody has gone on with for too long, and those that were published when
    /// nobody waited any more. Blocks.
    pub(in crate::ops) fn expire_uploads(&self, now: Timestamp) {
        let store = &self.parts.store;
        let live: Vec<Arc<Upload>> = self.uploads.live().values().cloned().collect();
        for upload in live {
            if upload.close_if_old(self.uploads.keep, now) {
                self.uploads.end(store.as_ref(), upload.content);
                continue;
            }
            let is_closed = upload.state().is_closed;
            if is_closed && matches!(store.parts(upload.content), Err(StoreError::NotFound)) {
                self.uploads.end(store.as_ref(), upload.content);
            }
        }
    }
}
