//! Large files out: an upload in parts, over several connections, that goes on after interruptions.
//!
//! Each part is hashed once, as it is sent; what the server says it has is held against that. The
//! file is there when the commit is answered, and is what was read here, or nothing is.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::base::Base;
use super::begin::Opened;
use super::file::{TransferOptions, is_same};
use super::fingerprint::Fingerprint;
use super::parts::{Run, Work};
use super::retry::{Observer, Patience};
use super::send_parts::Failed;
use super::sidecar::Sidecar;
use super::upload::{on_thread, sync_time};
use super::{Client, ClientError, request_id, streams};
use crate::connection::Connection;
use crate::label::DedupId;
use crate::path::RemotePath;
use crate::protocol::{
    Abort, Committed, ContentId, ErrorCode, FileInfo, Member, Op, Write, Written,
};

/// How often an upload is begun anew that went away, or did not become what was sent.
pub(super) const BEGINS_MAX: usize = 3;
/// How often parts are sent again that arrived as something else.
const REPAIRS_MAX: usize = 2;

/// An upload under way.
pub(super) struct Job {
    pub(super) file: File,
    pub(super) work: Arc<Work>,
    pub(super) upload: ContentId,
    pub(super) sidecar: Option<Arc<Sidecar>>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    /// What parts are patched from, as long as the server has it.
    pub(super) base: Mutex<Option<Arc<Base>>>,
    /// Of the commit: whoever asks again under it commits once.
    pub(super) request_id: Option<DedupId>,
    n_streams: usize,
}

/// A file that is to be put.
pub(super) struct Source<'a> {
    pub(super) file: File,
    pub(super) fingerprint: Fingerprint,
    pub(super) remote: &'a RemotePath,
    pub(super) options: &'a TransferOptions,
    pub(super) sidecar: Option<Arc<Sidecar>>,
    /// It is committed with others, and never alone.
    pub(super) is_member: bool,
}

impl Client {
    /// Puts a file of more than two parts.
    pub(super) async fn put_large(
        &self,
        file: File,
        fingerprint: Fingerprint,
        local: &Path,
        remote: &RemotePath,
        options: &TransferOptions,
    ) -> Result<FileInfo, ClientError> {
        let source = Source {
            file,
            fingerprint,
            remote,
            options,
            sidecar: self.sidecar("put", local, remote.as_str()),
            is_member: false,
        };
        for _ in 0..BEGINS_MAX {
            match self.put_upload(&source).await {
                Ok(Some(file)) => {
                    source.sidecar.as_deref().map(Sidecar::remove);
                    return Ok(file);
                }
                // The upload is gone.
                Ok(None) => {
                    source.sidecar.as_deref().map(Sidecar::clear);
                    if let Some(observer) = options.observer() {
                        observer.begin_again();
                    }
                }
                Err(error) => return Err(error),
            }
        }
        source.sidecar.as_deref().map(Sidecar::remove);
        Err(ClientError::UploadLost(remote.clone()))
    }

    /// Goes through one upload; nothing if it went away.
    async fn put_upload(&self, source: &Source<'_>) -> Result<Option<FileInfo>, ClientError> {
        let mut patience = self.patience(source.options.observer());
        let job = match self.open_upload(source, &mut patience).await? {
            Opened::Done(file) => return Ok(Some(file)),
            Opened::Upload(job) => job,
        };
        let put = self.finish_upload(&job, source, &mut patience).await;
        self.end_if_over(put, &job, source).await
    }

    /// Only what was interrupted can be gone on with, and only where it is remembered.
    pub(super) async fn end_if_over<T>(
        &self,
        outcome: Result<T, ClientError>,
        job: &Job,
        source: &Source<'_>,
    ) -> Result<T, ClientError> {
        let is_over = |error: &ClientError| source.sidecar.is_none() || !error.is_passing();
        if outcome.as_ref().is_err_and(is_over) {
            self.give_up(job.upload).await;
            source.sidecar.as_deref().map(Sidecar::remove);
        }
        outcome
    }

    async fn finish_upload(
        &self,
        job: &Arc<Job>,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Option<FileInfo>, ClientError> {
        let mut n_repairs = 0;
        while self
            .fill_upload(job, source, &mut n_repairs, patience)
            .await?
        {
            patience.refresh();
            let error = match self.commit_upload(job, source, patience).await {
                Ok(file) => return Ok(Some(file)),
                Err(error) => error,
            };
            if !self
                .mend(job, source, error, &mut n_repairs, patience)
                .await?
            {
                break;
            }
        }
        Ok(None)
    }

    /// Sends until all parts are there; false if the upload went away.
    pub(super) async fn fill_upload(
        &self,
        job: &Arc<Job>,
        source: &Source<'_>,
        n_repairs: &mut usize,
        patience: &mut Patience<'_>,
    ) -> Result<bool, ClientError> {
        loop {
            let before = job.work.mark();
            let error = match self.send_parts(job).await {
                Ok(()) if !is_same(&job.file, source.fingerprint) => {
                    return Err(ClientError::SourceChanged);
                }
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            if job.work.has_moved_since(before) {
                patience.refresh();
            }
            if !self.mend(job, source, error, n_repairs, patience).await? {
                return Ok(false);
            }
        }
    }

    /// After an error, asks what is there, so that the rest can be sent; false if the upload went away.
    async fn mend(
        &self,
        job: &Job,
        source: &Source<'_>,
        error: ClientError,
        n_repairs: &mut usize,
        patience: &mut Patience<'_>,
    ) -> Result<bool, ClientError> {
        let mut n_before = None;
        match error.code() {
            Some(ErrorCode::NotFound) => return Ok(false),
            // What arrived is something else, or a crash took parts back: the status says which.
            Some(ErrorCode::DigestMismatch | ErrorCode::BadRequest) => {
                *n_repairs += 1;
                // It may be the base that is not what it was.
                if job.base().is_none() {
                    n_before = Some(job.work.n_done());
                }
                job.set_base(None);
            }
            // The base may be gone: the parts can be sent without it.
            Some(ErrorCode::Changed | ErrorCode::Denied) if job.base().is_some() => {
                job.set_base(None);
            }
            _ => patience.wait(error).await?,
        }
        if !self.learn(job, patience).await? {
            return Ok(false);
        }
        if n_before == Some(job.work.n_done()) || *n_repairs > REPAIRS_MAX {
            return Err(ClientError::UploadLost(source.remote.clone()));
        }
        Ok(true)
    }

    /// Sends what is missing, over all streams.
    async fn send_parts(&self, job: &Arc<Job>) -> Result<(), ClientError> {
        let (client, on_stream) = (self.clone(), Arc::clone(job));
        let send_run = move |run| {
            let (client, job) = (client.clone(), Arc::clone(&on_stream));
            async move {
                client.send_run(&job, run).await?;
                job.work.finish(run);
                Ok(())
            }
        };
        streams::run(&job.work, job.n_streams, send_run).await
    }

    pub(super) async fn send_run(&self, job: &Job, run: Run) -> Result<(), ClientError> {
        let sender = job.sender()?;
        let mut link = self.link().await?;
        let tries = self.compresses && link.takes_zstd();
        let looked = on_thread(move || {
            let encoding = tries.then(|| sender.choose(run)).flatten();
            Ok((sender, encoding))
        });
        let (sender, encoding) = looked.await.map_err(ClientError::Source)?;
        let write = Op::Write(Write {
            upload: job.upload,
            offset: run.offset,
            size: run.size,
            patch: sender.is_patching(),
            encoding,
        });
        let id = link.queue(write);
        let work = async move |connection: &mut Connection<_>| {
            sender.send(connection, run, encoding).await
        };
        let moved = link.on_thread(work).await;
        let (mut link, sent) = moved.map_err(|error| self.lost(error))?;
        let failed = match sent {
            Ok(failed) => failed,
            Err(error) => return Err(self.last_words(&mut link, id, error).await),
        };
        let limit = self.shared.options.stall_timeout + sync_time(run.size);
        let reply = self.answer_within::<Written>(limit, &mut link, id).await?;
        self.keep(link);
        match failed {
            Some(Failed::Changed) => Err(ClientError::SourceChanged),
            Some(Failed::Source(error)) => Err(ClientError::Source(error)),
            None => reply.map(drop),
        }
    }

    /// An answer that was lost is asked for again, under the same id: the upload may be gone because it
    /// is done.
    async fn commit_upload(
        &self,
        job: &Job,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<FileInfo, ClientError> {
        loop {
            match self.commit_once_upload(job, source).await {
                Err(error) => patience.wait(error).await?,
                Ok(file) => return Ok(file),
            }
        }
    }

    pub(super) async fn commit_once_upload(
        &self,
        job: &Job,
        source: &Source<'_>,
    ) -> Result<FileInfo, ClientError> {
        let digest = job.work.digest();
        let digest = digest.ok_or(ClientError::Misplaced("parts that nobody has read"))?;
        let conditions = source.options.conditions;
        let member = Member {
            digest: Some(digest),
            attributes: source.options.attributes,
            if_absent: conditions.if_absent,
            if_version: conditions.if_version,
            ..Member::put(source.remote.clone(), job.upload.to_string())
        };
        let limit = self.shared.options.stall_timeout + sync_time(job.work.size());
        let request_id = job.request_id.clone();
        let committed: Committed = self.commit_once(&[member], request_id, limit).await?;
        let file = committed.file.filter(|file| file.digest == Some(digest));
        file.ok_or(ClientError::Misplaced("a commit of another file"))
    }

    /// Says that nobody will go on with an upload, as far as that can be said now.
    pub(super) async fn give_up(&self, upload: ContentId) {
        let abort = Op::Abort(Abort {
            upload: Some(upload),
            staged: Vec::new(),
        });
        let _ = self.ask_once::<serde::de::IgnoredAny>(abort).await;
    }
}

impl Source<'_> {
    pub(super) fn job(&self, upload: ContentId, part_size: u64) -> Result<Job, ClientError> {
        Ok(Job {
            file: self.file.try_clone().map_err(ClientError::Source)?,
            work: Arc::new(Work::new(self.fingerprint.size, part_size)),
            upload,
            sidecar: self.sidecar.clone(),
            observer: self.options.observer.clone(),
            base: Mutex::default(),
            request_id: if self.is_member {
                None
            } else {
                request_id::fresh()
            },
            n_streams: self.options.n_streams(),
        })
    }
}
