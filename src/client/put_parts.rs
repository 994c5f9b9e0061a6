//! Large files out: an upload in parts, over several connections, that goes on after interruptions.
//!
//! Each part is hashed once, as it is sent; what the server says it has is held against that. The
//! file is there when the commit is answered, and is what was read here, or nothing is.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::base::Base;
use super::earlier::Left;
use super::file::{Delta, TransferOptions, is_same};
use super::fingerprint::Fingerprint;
use super::parts::{Run, Work};
use super::retry::{Observer, Patience};
use super::send_parts::Failed;
use super::sidecar::Sidecar;
use super::upload::sync_time;
use super::{Client, ClientError, request_id, streams};
use crate::connection::{Connection, PIECE_SIZE};
use crate::label::DedupId;
use crate::path::RemotePath;
use crate::protocol::{
    Abort, Begin, Begun, Committed, ContentId, ErrorCode, FileInfo, Member, Op, Status,
    UploadStatus, Write, Written,
};

/// How often an upload is begun anew that went away, or did not become what was sent.
const BEGINS_MAX: usize = 3;
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
    file: File,
    pub(super) fingerprint: Fingerprint,
    pub(super) remote: &'a RemotePath,
    options: &'a TransferOptions,
    pub(super) sidecar: Option<Arc<Sidecar>>,
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
            sidecar: self.sidecar("put", local, remote),
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

    /// A place where the transfer is remembered, if there is one.
    pub(super) fn sidecar(
        &self,
        kind: &str,
        local: &Path,
        remote: &RemotePath,
    ) -> Option<Arc<Sidecar>> {
        let options = &self.shared.options;
        let directory = options.resume_directory.as_ref()?;
        let local = std::path::absolute(local).ok()?;
        let own = options.files.own.as_ref()?;
        let names = [
            kind,
            &options.server,
            &own.certificate.to_string_lossy(),
            &local.to_string_lossy(),
            remote.as_str(),
        ];
        Sidecar::open(directory, &names).map(Arc::new)
    }

    /// Goes through one upload; nothing if it went away.
    async fn put_upload(&self, source: &Source<'_>) -> Result<Option<FileInfo>, ClientError> {
        let mut patience = self.patience(source.options.observer());
        let job = match self.resume(source, &mut patience).await? {
            Left::Done(file) => return Ok(Some(file)),
            Left::Upload(job) => job,
            Left::Nothing => {
                let begun = self.begin_upload(source, &mut patience).await;
                begun.inspect_err(|_| {
                    source.sidecar.as_deref().map(Sidecar::remove);
                })?
            }
        };
        let job = Arc::new(job);
        let put = self.finish_upload(&job, source, &mut patience).await;
        // Only what was interrupted can be gone on with, and only where it is remembered.
        let is_over = |error: &ClientError| source.sidecar.is_none() || !error.is_passing();
        if put.as_ref().is_err_and(is_over) {
            self.give_up(job.upload).await;
            source.sidecar.as_deref().map(Sidecar::remove);
        }
        put
    }

    async fn finish_upload(
        &self,
        job: &Arc<Job>,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Option<FileInfo>, ClientError> {
        let mut n_repairs = 0;
        loop {
            let before = job.work.mark();
            let error = match self.send_parts(job).await {
                Ok(()) if !is_same(&job.file, source.fingerprint) => {
                    return Err(ClientError::SourceChanged);
                }
                Ok(()) => {
                    patience.refresh();
                    let committed = self.commit_upload(job, source, patience);
                    match committed.await {
                        Ok(file) => return Ok(Some(file)),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if job.work.has_moved_since(before) {
                patience.refresh();
            }
            let mut n_before = None;
            match error.code() {
                Some(ErrorCode::NotFound) => return Ok(None),
                // What arrived is something else, or a crash took parts back: the status says which.
                Some(ErrorCode::DigestMismatch | ErrorCode::BadRequest) => {
                    n_repairs += 1;
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
                return Ok(None);
            }
            if n_before == Some(job.work.n_done()) || n_repairs > REPAIRS_MAX {
                return Err(ClientError::UploadLost(source.remote.clone()));
            }
        }
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
        let request = Op::Begin(Begin {
            path: source.remote.clone(),
            size: source.fingerprint.size,
            if_absent: source.options.conditions.if_absent,
            if_version: source.options.conditions.if_version,
            base,
            request_id: request_id::fresh(),
        });
        let begun: Begun = loop {
            match self.ask_once(request.clone()).await {
                Err(error) => patience.wait(error).await?,
                Ok(begun) => break begun,
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
            let found = self.find_base(&job, source.remote, delta, version).await;
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
        let write = Op::Write(Write {
            upload: job.upload,
            offset: run.offset,
            size: run.size,
            patch: sender.is_patching(),
        });
        let mut link = self.link().await?;
        let id = link.queue(write);
        let work = async move |connection: &mut Connection<_>| sender.send(connection, run).await;
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
        let abort = Op::Abort(Abort { upload });
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
            request_id: request_id::fresh(),
            n_streams: self.options.n_streams(),
        })
    }
}
