//! Large files out: an upload in parts, over several connections, that goes on after interruptions.
//!
//! Each part is hashed once, as it is sent; what the server says it has is held against that. The
//! file is there when the commit is answered, and is what was read here, or nothing is.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::base::Base;
use super::file::{Delta, TransferOptions, is_same};
use super::fingerprint::Fingerprint;
use super::parts::{Run, Work};
use super::retry::{Observer, Patience};
use super::send_parts::Failed;
use super::sidecar::Sidecar;
use super::upload::sync_time;
use super::{Client, ClientError, request_id};
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
    upload: ContentId,
    pub(super) sidecar: Option<Arc<Sidecar>>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) base: Option<Arc<Base>>,
    n_streams: usize,
}

/// What a sidecar says of an upload.
#[derive(Serialize, Deserialize)]
struct Saved {
    upload: ContentId,
    part_size: u64,
    fingerprint: Fingerprint,
}

/// A file that is to be put.
struct Source<'a> {
    file: File,
    fingerprint: Fingerprint,
    remote: &'a RemotePath,
    options: &'a TransferOptions,
    sidecar: Option<Arc<Sidecar>>,
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
        let request_id = request_id::fresh();
        for _ in 0..BEGINS_MAX {
            match self.put_upload(&source, request_id.as_ref()).await {
                Ok(Some(file)) => {
                    source.sidecar.as_deref().map(Sidecar::remove);
                    return Ok(file);
                }
                // The upload is gone.
                Ok(None) => {
                    source.sidecar.as_deref().map(Sidecar::remove);
                    if let Some(observer) = options.observer() {
                        observer.begin_again();
                    }
                }
                Err(error) => return Err(error),
            }
        }
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
    async fn put_upload(
        &self,
        source: &Source<'_>,
        request_id: Option<&DedupId>,
    ) -> Result<Option<FileInfo>, ClientError> {
        let mut patience = self.patience(source.options.observer());
        let job = match self.resume(source, &mut patience).await? {
            Some(job) => job,
            None => self.begin_upload(source, &mut patience).await?,
        };
        let job = Arc::new(job);
        let mut n_repairs = 0;
        loop {
            let before = job.work.mark();
            let error = match self.send_parts(&job).await {
                Ok(()) if !is_same(&job.file, source.fingerprint) => {
                    self.give_up(job.upload).await;
                    source.sidecar.as_deref().map(Sidecar::remove);
                    return Err(ClientError::SourceChanged);
                }
                Ok(()) => {
                    patience.refresh();
                    let committed = self.commit_upload(&job, source, request_id, &mut patience);
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
                    n_before = Some(job.work.n_done());
                }
                _ => patience.wait(error).await?,
            }
            if !self.learn(&job, &mut patience).await? {
                return Ok(None);
            }
            if n_before == Some(job.work.n_done()) || n_repairs > REPAIRS_MAX {
                return Err(ClientError::UploadLost(source.remote.clone()));
            }
        }
    }

    /// The upload of an earlier run, if it was of the same file and is still there.
    async fn resume(
        &self,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Option<Job>, ClientError> {
        let saved = source.sidecar.as_ref().and_then(|sidecar| sidecar.read());
        let Some(saved) = saved else { return Ok(None) };
        let header: Saved = saved.header;
        if header.fingerprint != source.fingerprint || !header.part_size.is_power_of_two() {
            // It is of no use to anybody.
            self.give_up(header.upload).await;
            return Ok(None);
        }
        let job = source.job(header.upload, header.part_size)?;
        for (number, digest) in saved.parts {
            job.work.set_digest(number, digest);
        }
        let is_there = self.learn(&job, patience).await?;
        Ok(is_there.then_some(job))
    }

    async fn begin_upload(
        &self,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Job, ClientError> {
        let base = match source.options.delta {
            Delta::Never => None,
            Delta::Auto | Delta::Always => self.base_version(source.remote).await,
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
        if let Some(sidecar) = &source.sidecar {
            sidecar.begin(&Saved {
                upload: begun.upload,
                part_size: begun.part_size,
                fingerprint: source.fingerprint,
            });
        }
        let mut job = source.job(begun.upload, begun.part_size)?;
        if let Some(version) = base {
            job.base = self
                .find_base(&job, source.remote, source.options.delta, version)
                .await
                .map(Arc::new);
        }
        Ok(job)
    }

    /// Asks which parts the server has; says whether the upload is still there.
    async fn learn(&self, job: &Job, patience: &mut Patience<'_>) -> Result<bool, ClientError> {
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

    /// Sends what is missing, over all streams; what one leaves behind another takes.
    async fn send_parts(&self, job: &Arc<Job>) -> Result<(), ClientError> {
        job.work.plan();
        let n_left = job.work.n_parts() - job.work.n_done();
        let n_streams = job
            .n_streams
            .min(usize::try_from(n_left).unwrap_or(usize::MAX));
        let mut streams = JoinSet::new();
        for _ in 0..n_streams {
            let (client, job) = (self.clone(), Arc::clone(job));
            streams.spawn(async move {
                while let Some(run) = job.work.next(job.n_streams) {
                    client.send_run(&job, run).await?;
                    job.work.finish(run);
                }
                Ok(())
            });
        }
        let mut outcome: Result<(), ClientError> = Ok(());
        while let Some(ended) = streams.join_next().await {
            let ended = ended.unwrap_or(Err(ClientError::Source(io::Error::other(
                "a stream of the transfer ended by itself",
            ))));
            // A refusal says more than an interruption.
            outcome = match (outcome, ended) {
                (Err(first), Err(other)) if !first.is_passing() || other.is_passing() => Err(first),
                (outcome, Ok(())) => outcome,
                (_, ended) => ended,
            };
        }
        outcome
    }

    pub(super) async fn send_run(&self, job: &Job, run: Run) -> Result<(), ClientError> {
        let write = Op::Write(Write {
            upload: job.upload,
            offset: run.offset,
            size: run.size,
            patch: job.base.is_some(),
        });
        let mut link = self.link().await?;
        let id = link.queue(write);
        let sender = job.sender()?;
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

    async fn commit_upload(
        &self,
        job: &Job,
        source: &Source<'_>,
        request_id: Option<&DedupId>,
        patience: &mut Patience<'_>,
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
        // An answer that was lost is asked for again, under the same id: the upload may be gone because
        // it is done.
        let committed: Committed = loop {
            let members = std::slice::from_ref(&member);
            match self.commit_once(members, request_id.cloned(), limit).await {
                Err(error) => patience.wait(error).await?,
                Ok(committed) => break committed,
            }
        };
        let file = committed.file.filter(|file| file.digest == Some(digest));
        file.ok_or(ClientError::Misplaced("a commit of another file"))
    }

    /// Says that nobody will go on with an upload, as far as that can be said now.
    async fn give_up(&self, upload: ContentId) {
        let abort = Op::Abort(Abort { upload });
        let _ = self.ask_once::<serde::de::IgnoredAny>(abort).await;
    }
}

impl Source<'_> {
    fn job(&self, upload: ContentId, part_size: u64) -> Result<Job, ClientError> {
        Ok(Job {
            file: self.file.try_clone().map_err(ClientError::Source)?,
            work: Arc::new(Work::new(self.fingerprint.size, part_size)),
            upload,
            sidecar: self.sidecar.clone(),
            observer: self.options.observer.clone(),
            base: None,
            n_streams: self.options.n_streams(),
        })
    }
}
