//! What their owner can know about uploads, a page at a time.

use std::sync::Arc;

use super::Upload;
use crate::content::ContentId;
use crate::identity::Identity;
use crate::ops::{OpError, Service};
use crate::protocol::{Part, UploadInfo, UploadPage, UploadStatus};

/// Parts in one page of a status: what a message holds.
const PAGE_PARTS_MAX: usize = 512;
/// Bytes of the entries of one page of a list: what a message holds.
const PAGE_SIZE_MAX: usize = 60 << 10;

impl Service {
    /// Which parts of an upload are there. Blocks.
    ///
    /// # Errors
    /// It is not one of this identity.
    pub fn upload_status(
        &self,
        who: &Identity,
        content: ContentId,
        from: u64,
    ) -> Result<UploadStatus, OpError> {
        let upload = self.uploads.of(&who.id, content)?;
        let expires_at = upload.expires_at(self.uploads.keep);
        let state = upload.state();
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        let there = state.parts.range(from..).map(|(number, digest)| Part {
            number: u64::from(*number),
            digest: *digest,
        });
        let mut parts: Vec<Part> = there.take(PAGE_PARTS_MAX + 1).collect();
        let next = (parts.len() > PAGE_PARTS_MAX).then(|| parts.pop().map(|part| part.number));
        Ok(UploadStatus {
            path: upload.header.path.clone(),
            size: upload.header.size,
            part_size: upload.header.part_size,
            n_parts: state.parts.len() as u64,
            expires_at,
            parts,
            next: next.flatten(),
        })
    }

    /// One page of the uploads of an identity, in the order of their names. Blocks.
    pub fn list_uploads(&self, who: &Identity, after: Option<ContentId>) -> UploadPage {
        let live = self.uploads.live();
        let own = live.values().filter(|upload| {
            upload.header.owner == who.id && after.is_none_or(|after| upload.content > after)
        });
        let mut own: Vec<Arc<Upload>> = own.cloned().collect();
        drop(live);
        own.sort_by_key(|upload| upload.content);
        let mut page = UploadPage {
            uploads: Vec::new(),
            next: None,
        };
        let mut size = 0;
        for upload in own {
            // Both take the state, so not in one expression.
            let n_parts = upload.state().parts.len() as u64;
            let info = UploadInfo {
                upload: upload.content,
                path: upload.header.path.clone(),
                size: upload.header.size,
                n_parts,
                expires_at: upload.expires_at(self.uploads.keep),
            };
            size += serde_json::to_vec(&info).map_or(0, |bytes| bytes.len() + 1);
            if size > PAGE_SIZE_MAX {
                page.next = page.uploads.last().map(|last| last.upload);
                break;
            }
            page.uploads.push(info);
        }
        page
    }
}
