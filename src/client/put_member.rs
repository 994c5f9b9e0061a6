//! Large files of a set: each is an upload that is whole, and waits for the commit of the set.
//!
//! Nothing of it is visible before; whoever commits no set gives its uploads up.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::begin::Opened;
use super::file::{Opened as OpenedFile, TransferOptions, WHOLE_SIZE_MAX, settling};
use super::put_parts::{BEGINS_MAX, Job, Source};
use super::sidecar::Sidecar;
use super::upload::on_thread;
use super::{Client, ClientError};
use crate::digest::Digest;
use crate::path::RemotePath;
use crate::protocol::{ABORTED_MAX, Abort, Attributes, ContentId, ErrorCode, Member, Op};

/// How often all of a set is staged once more, because the server does not have it any more.
pub(super) const RESTAGES_MAX: usize = 1;

/// An upload all of whose parts are there.
pub(super) struct Uploaded {
    pub(super) upload: ContentId,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
    /// Where it is remembered.
    sidecar: Option<PathBuf>,
}

impl Uploaded {
    /// Its set is committed. Blocks.
    pub(super) fn forget(&self) {
        if let Some(path) = &self.sidecar {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Client {
    /// Uploads a file that `open` opens, in parts and over several connections; another run of the
    /// program knows it by its `place`.
    pub(super) async fn upload_member(
        &self,
        open: impl Fn() -> io::Result<File> + Clone + Send + 'static,
        place: &Path,
        remote: &RemotePath,
        options: &TransferOptions,
    ) -> Result<Uploaded, ClientError> {
        settling(options, || {
            self.upload_once(open.clone(), place, remote, options)
        })
        .await
    }

    async fn upload_once(
        &self,
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
        place: &Path,
        remote: &RemotePath,
        options: &TransferOptions,
    ) -> Result<Uploaded, ClientError> {
        let opened = on_thread(move || OpenedFile::new(open()?)).await;
        let opened = opened.map_err(ClientError::Source)?;
        if opened.fingerprint.size <= WHOLE_SIZE_MAX {
            return Err(ClientError::SourceChanged);
        }
        let source = Source {
            file: opened.file,
            fingerprint: opened.fingerprint,
            remote,
            options,
            sidecar: self.sidecar("put --atomic", place, remote.as_str()),
            is_member: true,
        };
        for _ in 0..BEGINS_MAX {
            let Some(job) = self.fill_member(&source).await? else {
                source.sidecar.as_deref().map(Sidecar::clear);
                continue;
            };
            let digest = job.work.digest();
            let sidecar = source.sidecar.as_deref().map(Sidecar::path);
            return Ok(Uploaded {
                upload: job.upload,
                digest: digest.ok_or(ClientError::Misplaced("parts that nobody has read"))?,
                size: job.work.size(),
                attributes: opened.attributes,
                sidecar: sidecar.map(Path::to_owned),
            });
        }
        source.sidecar.as_deref().map(Sidecar::remove);
        Err(ClientError::UploadLost(remote.clone()))
    }

    /// Goes through one upload; nothing if it went away.
    async fn fill_member(&self, source: &Source<'_>) -> Result<Option<Arc<Job>>, ClientError> {
        let mut patience = self.patience(source.options.observer());
        let Opened::Upload(job) = self.open_upload(source, &mut patience).await? else {
            return Err(ClientError::Misplaced("a member that was committed alone"));
        };
        let mut n_repairs = 0;
        let filled = self
            .fill_upload(&job, source, &mut n_repairs, &mut patience)
            .await;
        let is_there = self.end_if_over(filled, &job, source).await?;
        Ok(is_there.then_some(job))
    }

    /// Of a set that was not committed; where that may pass, what another run can go on with is left.
    pub(super) async fn give_up_members(
        &self,
        members: &[Member],
        uploads: &[Uploaded],
        is_passing: bool,
    ) {
        for uploaded in uploads {
            if !is_passing || uploaded.sidecar.is_none() {
                self.give_up(uploaded.upload).await;
                uploaded.forget();
            }
        }
        if is_passing {
            // Whoever cannot be asked forgets them in time.
            return;
        }
        let staged = members.iter().filter_map(|member| member.staged.as_ref());
        let staged = staged.filter_map(|name| name.parse::<ContentId>().ok());
        let is_upload = |content: &ContentId| uploads.iter().any(|one| one.upload == *content);
        let staged: Vec<ContentId> = staged.filter(|content| !is_upload(content)).collect();
        for some in staged.chunks(ABORTED_MAX) {
            let abort = Op::Abort(Abort {
                upload: None,
                staged: some.to_vec(),
            });
            if self.ask_once::<IgnoredAny>(abort).await.is_err() {
                return;
            }
        }
    }
}

impl ClientError {
    /// Whether the server may have lost what was staged, as when it was started anew.
    pub(super) const fn is_of_staged(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::NotFound | ErrorCode::BadRequest | ErrorCode::DigestMismatch)
        )
    }
}
