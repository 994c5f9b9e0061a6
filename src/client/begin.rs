//! How an upload is begun, and what is there of one that was begun before.
//!
//! What is to be begun is written down first, so that nothing is left at the server that no run of the
//! program knows of.

use std::sync::Arc;

use super::earlier::Left;
use super::file::Delta;
use super::put_parts::{Job, Source};
use super::retry::Patience;
use super::sidecar::Sidecar;
use super::{Client, ClientError, request_id};
use crate::connection::PIECE_SIZE;
use crate::label::DedupId;
use crate::protocol::{Begin, Begun, ErrorCode, FileInfo, Op, Status, UploadStatus};

/// What the parts of a file go into.
pub(super) enum Opened {
    Upload(Arc<Job>),
    /// An earlier run has done it.
    Done(FileInfo),
}

impl Client {
    /// The upload that an earlier run has left, or a new one.
    pub(super) async fn open_upload(
        &self,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Opened, ClientError> {
        let begun = match self.resume(source, patience).await? {
            Left::Done(file) => return Ok(Opened::Done(file)),
            Left::Upload(job) => return Ok(Opened::Upload(Arc::new(job))),
            Left::Begun(id, base) => self.begin_as(source, id, base, patience).await,
            Left::Nothing => self.begin_upload(source, patience).await,
        };
        let job = begun.inspect_err(|error| {
            // Where an answer was lost it is not known whether it was begun.
            let may_be_begun = self.was_connected() && error.is_passing();
            if !may_be_begun {
                source.sidecar.as_deref().map(Sidecar::remove);
            }
        })?;
        Ok(Opened::Upload(Arc::new(job)))
    }

    async fn begin_upload(
        &self,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Job, ClientError> {
        let base = match source.options.delta {
            Delta::Never => None,
            Delta::Auto | Delta::Always => self.base_version(source.remote, patience).await,
        };
        self.begin_as(source, request_id::fresh(), base, patience)
            .await
    }

    /// Begins under an id: an upload that was begun under it before is the same one.
    async fn begin_as(
        &self,
        source: &Source<'_>,
        id: Option<DedupId>,
        base: Option<u64>,
        patience: &mut Patience<'_>,
    ) -> Result<Job, ClientError> {
        let (mut id, mut base) = (id, base);
        let begun: Begun = loop {
            source.intend(id.clone(), base);
            let request = Op::Begin(Begin {
                path: source.remote.clone(),
                size: source.fingerprint.size,
                if_absent: source.options.conditions.if_absent,
                if_version: source.options.conditions.if_version,
                base,
                request_id: id.clone(),
            });
            match self.ask_once(request).await {
                Ok(begun) => break begun,
                // The base may be gone, or not be the client's to read: all can be sent without it.
                Err(error) if base.is_some() && is_of_base(&error) => {
                    (id, base) = (request_id::fresh(), None);
                }
                Err(error) => patience.wait(error).await?,
            }
        };
        if !begun.part_size.is_power_of_two() || begun.part_size < PIECE_SIZE as u64 {
            return Err(ClientError::Misplaced(
                "parts of an upload have a size that none has",
            ));
        }
        let job = source.job(begun.upload, begun.part_size)?;
        source.remember(&job, None);
        if let Some(version) = base {
            let delta = source.options.delta;
            let before = job.work.mark();
            let found = self.find_base(&job, source.remote, delta, version).await;
            // Of a sample that broke off some parts are there. What cannot be asked is sent again.
            if job.work.n_done() == 0 && job.work.has_moved_since(before) {
                let _ = self.learn(&job, patience).await;
            }
            if found.is_some() {
                source.remember(&job, base);
            }
            job.set_base(found);
        }
        Ok(job)
    }

    /// Asks which parts the server has; says whether the upload is still there.
    pub(super) async fn learn(
        &self,
        job: &Job,
        patience: &mut Patience<'_>,
    ) -> Result<bool, ClientError> {
        job.work.clear();
        let mut from = 0;
        loop {
            let status = Op::Status(Status {
                upload: job.upload,
                from,
            });
            let status: UploadStatus = match self.ask_once(status).await {
                Ok(status) => status,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => return Ok(false),
                Err(error) => {
                    patience.wait(error).await?;
                    continue;
                }
            };
            if status.size != job.work.size() || status.part_size != job.work.part_size() {
                return Ok(false);
            }
            for part in status.parts {
                let is_ours = job.work.digest_of(part.number) == Some(part.digest);
                job.work.set_done(part.number, is_ours);
            }
            match status.next {
                None => break,
                Some(next) if next > from => from = next,
                Some(_) => return Err(ClientError::Misplaced("a status that goes in circles")),
            }
        }
        if let Some(observer) = &job.observer {
            observer.begin_again();
            observer.moved(job.work.size_done());
        }
        Ok(true)
    }
}

/// Whether it may be the base that is refused.
fn is_of_base(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::Changed | ErrorCode::Denied | ErrorCode::NotFound)
    )
}
