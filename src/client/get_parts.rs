//! Large files in: ranges of one version, over several connections, that go on after interruptions.
//!
//! The first range says which version it is; all others are of that one or refused, so that two are
//! never stitched together. The file gets its name when the digest of the whole is right.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::file::{TransferOptions, WHOLE_SIZE_MAX};
use super::landing::Landing;
use super::partial::{Saved, part_size, resume};
use super::parts::{Run, Work};
use super::receive_parts::Stopped;
use super::retry::{Observer, Patience};
use super::sidecar::Sidecar;
use super::temporary::Temporary;
use super::upload::on_thread;
use super::{Client, ClientError, streams};
use crate::connection::{BodyReader, Connection};
use crate::digest::Digest;
use crate::path::RemotePath;
use crate::protocol::{ErrorCode, FileInfo, Get, Got, Op};

/// How often a file that changes meanwhile is begun anew.
const BEGINS_MAX: usize = 8;

/// A file under way.
pub(super) struct Job {
    pub(super) path: RemotePath,
    pub(super) version: u64,
    pub(super) file: File,
    pub(super) work: Arc<Work>,
    pub(super) sidecar: Option<Arc<Sidecar>>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) n_streams: usize,
}

impl Client {
    /// Reads a file of the server into a local file, which is replaced when all is verified. A large
    /// one comes in parts, over several connections, and goes on after an interruption where it was;
    /// so does another run of the program, where [`super::Options`] name a directory for it.
    ///
    /// # Errors
    /// The connection failed and did not come back, the server refused, the local disk failed, or what
    /// arrived is not what was announced; the local file is then as it was.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the transfer.
    pub async fn get_file(
        &self,
        remote: &RemotePath,
        local: &Path,
        options: TransferOptions,
    ) -> Result<FileInfo, ClientError> {
        let sidecar = self.sidecar("get", local, remote.as_str());
        let temporary = Temporary::open(local, sidecar.is_some()).map_err(ClientError::Sink)?;
        let get = async {
            let file = temporary.file().map_err(ClientError::Sink)?;
            let landing = Landing {
                remote,
                file: &file,
                sidecar: sidecar.as_ref(),
                size_max: None,
                options: &options,
            };
            self.get_into(&landing).await
        };
        match get.await {
            Ok(info) => {
                let local = local.to_owned();
                let named = on_thread(move || temporary.persist(&local)).await;
                sidecar.as_deref().map(Sidecar::remove);
                named.map_err(ClientError::Sink)?;
                Ok(info)
            }
            Err(error) => {
                // Only what was interrupted can be gone on with, if there is any of it.
                let is_begun = sidecar.as_deref().is_some_and(Sidecar::has_parts);
                if !is_begun || !error.is_passing() {
                    temporary.remove();
                    sidecar.as_deref().map(Sidecar::remove);
                }
                Err(error)
            }
        }
    }

    /// Fetches a file, in parts where it is large and the server knows its version. What it leaves when
    /// it was interrupted is for who looks after the file.
    pub(super) async fn get_into(&self, landing: &Landing<'_>) -> Result<FileInfo, ClientError> {
        let mut saved = landing.sidecar.and_then(|sidecar| sidecar.read::<Saved>());
        for _ in 0..BEGINS_MAX {
            if let Some(saved) = saved.take()
                && let Some((job, info)) = resume(landing, saved).await
            {
                if self.get_rest(&Arc::new(job), &info).await? {
                    return Ok(info);
                }
                begin_again(landing.options, info.size);
                continue;
            }
            if let Some(sidecar) = landing.sidecar {
                sidecar.clear();
            }
            let (job, info) = match self.get_first(landing).await? {
                First::Whole(info) => return Ok(info),
                First::Changed => continue,
                First::Part(job, info) => (job, info),
            };
            if self.get_rest(&job, &info).await? {
                return Ok(info);
            }
            begin_again(landing.options, info.size);
        }
        Err(ClientError::Unsettled(landing.remote.clone()))
    }

    /// Asks for the first range of a file, and so what it is.
    async fn ask_first(
        &self,
        landing: &Landing<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<(Ranged, FileInfo), ClientError> {
        let (remote, options) = (landing.remote, landing.options);
        let begin = Get {
            length: Some(WHOLE_SIZE_MAX),
            if_version: options.conditions.if_version,
            accept: self.accept(),
            ..Get::whole(remote.clone())
        };
        let (link, got) = loop {
            match self.begin_once::<Got>(Op::Get(begin.clone())).await {
                Err(error) => patience.wait(error).await?,
                Ok(asked) => break asked,
            }
        };
        let (info, body) = self.body_of(got)?;
        if info.path != *remote {
            return Err(ClientError::Misplaced("another file than was asked for"));
        }
        landing.check(info.size)?;
        if let Some(observer) = options.observer() {
            observer.expect(info.size);
        }
        Ok((Ranged { link, body }, info))
    }

    /// The beginning of a file; all of it, if it is not large.
    async fn get_first(&self, landing: &Landing<'_>) -> Result<First, ClientError> {
        let options = landing.options;
        let mut patience = self.patience(options.observer());
        loop {
            let (ranged, info) = self.ask_first(landing, &mut patience).await?;
            let Some(job) = begin_job(landing, &info)? else {
                // Nothing says that two ranges are of one file: it comes in one go.
                drop(ranged);
                return self.get_whole(landing).await.map(First::Whole);
            };
            let run = Run {
                offset: 0,
                size: info.size.min(WHOLE_SIZE_MAX),
            };
            let error = match self.receive_run(ranged, &job, run).await {
                Ok(_) if run.size < info.size => return Ok(First::Part(job, info)),
                Ok(whole) if whole.is_some() && whole == info.digest => {
                    return Ok(First::Whole(info));
                }
                Ok(_) => {
                    return Err(ClientError::Misplaced(
                        "a body that is not what was announced",
                    ));
                }
                Err(ClientError::Aborted(ErrorCode::Changed)) => return Ok(First::Changed),
                Err(error) => error,
            };
            if job.work.has_moved_since((0, 0)) {
                patience.refresh();
            }
            patience.wait(error).await?;
            // A file of one part is begun anew.
            if job.work.n_parts() > 1 {
                return Ok(First::Part(job, info));
            }
            begin_again(options, info.size);
        }
    }

    /// A file of which there are no ranges, until it is there.
    pub(super) async fn get_whole(&self, landing: &Landing<'_>) -> Result<FileInfo, ClientError> {
        let mut patience = self.patience(landing.options.observer());
        loop {
            let sink = landing.rewound().map_err(ClientError::Sink)?;
            match self.get(landing.remote, sink).await {
                Ok((info, _)) => return Ok(info),
                Err(error) => patience.wait(error).await?,
            }
            begin_again(landing.options, 0);
        }
    }

    /// Fetches what is missing; not all of it if the version is gone.
    async fn get_rest(&self, job: &Arc<Job>, info: &FileInfo) -> Result<bool, ClientError> {
        let mut patience: Patience<'_> = self.patience(job.observer.as_deref());
        loop {
            let before = job.work.mark();
            let received = self.receive_parts(job).await;
            if job.work.has_moved_since(before) {
                patience.refresh();
            }
            match received {
                Ok(()) => break,
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => patience.wait(error).await?,
            }
            if let Some(observer) = &job.observer {
                observer.begin_again();
                observer.moved(job.work.size_done());
            }
        }
        let arrived = job.work.digest();
        let arrived = arrived.ok_or(ClientError::Misplaced("parts that did not come"))?;
        match info.digest {
            Some(announced) if announced != arrived => {
                Err(ClientError::Corrupt { announced, arrived })
            }
            _ => Ok(true),
        }
    }

    async fn receive_parts(&self, job: &Arc<Job>) -> Result<(), ClientError> {
        let (client, on_stream) = (self.clone(), Arc::clone(job));
        let get_run = move |run| {
            let (client, job) = (client.clone(), Arc::clone(&on_stream));
            async move { client.get_run(&job, run).await }
        };
        streams::run(&job.work, job.n_streams, get_run).await
    }

    async fn get_run(&self, job: &Arc<Job>, run: Run) -> Result<(), ClientError> {
        let get = Op::Get(Get {
            path: job.path.clone(),
            offset: run.offset,
            length: Some(run.size),
            if_version: Some(job.version),
            accept: self.accept(),
        });
        let (link, got) = self.begin_once::<Got>(get).await?;
        let (got, body) = self.body_of(got)?;
        if got.version != Some(job.version) || got.size != job.work.size() {
            return Err(ClientError::Misplaced("a range of another version"));
        }
        let ranged = Ranged { link, body };
        self.receive_run(ranged, job, run).await.map(drop)
    }

    /// Takes the body of a range; its digest, if it is that of a whole file.
    async fn receive_run(
        &self,
        Ranged { link, body }: Ranged,
        job: &Arc<Job>,
        run: Run,
    ) -> Result<Option<Digest>, ClientError> {
        let on_job = Arc::clone(job);
        let receive =
            async move |connection: &mut Connection<_>| on_job.receive(connection, body, run).await;
        let moved = link.on_thread(receive).await;
        let (mut link, received) = moved.map_err(|error| self.lost(error))?;
        match received {
            Ok(digest) => {
                self.keep(link);
                Ok(digest)
            }
            Err(Stopped::Connection(error)) => Err(self.broken(&mut link, error).await),
            Err(Stopped::Sink(error)) => Err(ClientError::Sink(error)),
            Err(Stopped::Aborted(code)) => {
                self.keep(link);
                Err(self.explained(ClientError::Aborted(code)))
            }
            Err(Stopped::WrongSize(arrived)) => Err(ClientError::WrongSize {
                announced: run.size,
                arrived,
            }),
        }
    }
}

/// A connection on which the body of a range comes.
struct Ranged {
    link: super::Link,
    body: BodyReader,
}

/// What the first range of a file turned out to be.
enum First {
    Whole(FileInfo),
    /// It changed meanwhile, or was lost.
    Changed,
    Part(Arc<Job>, FileInfo),
}

/// A file of which ranges can be asked for, of the version that was announced; nothing if it has none.
fn begin_job(landing: &Landing<'_>, info: &FileInfo) -> Result<Option<Arc<Job>>, ClientError> {
    let (Some(version), Some(_)) = (info.version, info.digest) else {
        return Ok(None);
    };
    // What came before may have been of a longer version.
    let file = landing.file.try_clone().map_err(ClientError::Sink)?;
    file.set_len(0).map_err(ClientError::Sink)?;
    let part_size = part_size(info.size);
    if let Some(sidecar) = landing.sidecar {
        sidecar.begin(&Saved {
            info: info.clone(),
            part_size,
        });
    }
    let work = Arc::new(Work::new(info.size, part_size));
    Ok(Some(Arc::new(landing.job(version, file, work))))
}

/// Whether a version cannot be had any more.
fn is_gone(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::Changed | ErrorCode::NotFound | ErrorCode::BadRequest)
    ) || matches!(error, ClientError::Aborted(ErrorCode::Changed))
}

fn begin_again(options: &TransferOptions, size: u64) {
    if let Some(observer) = options.observer() {
        observer.begin_again();
        if size > 0 {
            observer.expect(size);
        }
    }
}
