//! What an earlier run of the program has left of a file that it sent.
//!
//! The digests of its parts are believed as long as the file is the same; the server says which of them
//! it has.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::put_parts::{Job, Source};
use super::retry::Patience;
use super::{Client, ClientError};
use crate::label::DedupId;
use crate::path::RemotePath;
use crate::protocol::{Begin, Begun, ContentId, FileInfo, Op, Stat};

/// What a sidecar says of an upload.
#[derive(Serialize, Deserialize)]
struct Saved {
    /// Absent as long as it is not known: it may have been begun.
    upload: Option<ContentId>,
    /// Under which it is begun.
    begin_id: Option<DedupId>,
    part_size: u64,
    fingerprint: Fingerprint,
    request_id: Option<DedupId>,
    /// The version that parts may be patched from.
    base: Option<u64>,
}

/// What an earlier run has left.
pub(super) enum Left {
    Nothing,
    Upload(Job),
    /// Maybe an upload under this id, of this base.
    Begun(Option<DedupId>, Option<u64>),
    /// It was committed, and nobody heard the answer.
    Done(FileInfo),
}

impl Client {
    /// The upload of an earlier run, if it was of the same file and is still there.
    pub(super) async fn resume(
        &self,
        source: &Source<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Left, ClientError> {
        let saved = source.sidecar.as_ref().and_then(|sidecar| sidecar.read());
        let Some(saved) = saved else {
            return Ok(Left::Nothing);
        };
        let header: Saved = saved.header;
        let is_same = header.fingerprint == source.fingerprint;
        let Some(upload) = header.upload else {
            if is_same {
                return Ok(Left::Begun(header.begin_id, header.base));
            }
            self.give_up_begun(source, header).await;
            return Ok(Left::Nothing);
        };
        if !is_same || !header.part_size.is_power_of_two() {
            // It is of no use to anybody.
            self.give_up(upload).await;
            return Ok(Left::Nothing);
        }
        let mut job = source.job(upload, header.part_size)?;
        if !source.is_member {
            job.request_id = header.request_id;
        }
        for (number, digest) in saved.parts {
            job.work.set_digest(number, digest);
        }
        if !self.learn(&job, patience).await? {
            let done = self.find_done(&job, source).await;
            return Ok(done.map_or(Left::Nothing, Left::Done));
        }
        if let Some(version) = header.base {
            job.set_base(self.chunks_of(source.remote, version).await);
        }
        Ok(Left::Upload(job))
    }

    /// The file is there already: what an earlier run has left of it is of no use to anybody.
    pub(super) async fn give_up_earlier(&self, place: &Path, remote: &RemotePath) {
        let Some(sidecar) = self.sidecar("put", place, remote.as_str()) else {
            return;
        };
        if let Some(saved) = sidecar.read::<Saved>()
            && let Some(upload) = saved.header.upload
        {
            self.give_up(upload).await;
        }
        sidecar.remove();
    }

    /// Finds an upload that was begun, if it was, and gives it up.
    async fn give_up_begun(&self, source: &Source<'_>, header: Saved) {
        let begin = Op::Begin(Begin {
            path: source.remote.clone(),
            size: header.fingerprint.size,
            if_absent: false,
            if_version: None,
            base: header.base,
            request_id: header.begin_id,
        });
        if let Ok(begun) = self.ask_once::<Begun>(begin).await {
            self.give_up(begun.upload).await;
        }
    }

    /// An upload that is gone may have been committed, before the last run heard of it. It is what was
    /// asked for only if nobody has changed the file since.
    async fn find_done(&self, job: &Job, source: &Source<'_>) -> Option<FileInfo> {
        job.request_id.as_ref()?;
        let file = self.commit_once_upload(job, source).await.ok()?;
        let stat = Op::Stat(Stat {
            path: source.remote.clone(),
        });
        let now: FileInfo = self.ask_once(stat).await.ok()?;
        (now.version == file.version).then_some(file)
    }
}

impl Source<'_> {
    /// Writes down that an upload is about to be begun.
    pub(super) fn intend(&self, begin_id: Option<DedupId>, base: Option<u64>) {
        let Some(sidecar) = &self.sidecar else { return };
        sidecar.begin(&Saved {
            upload: None,
            begin_id,
            part_size: 0,
            fingerprint: self.fingerprint,
            request_id: None,
            base,
        });
    }

    /// Writes down what another run needs to go on with the upload.
    pub(super) fn remember(&self, job: &Job, base: Option<u64>) {
        let Some(sidecar) = &self.sidecar else { return };
        sidecar.begin(&Saved {
            upload: Some(job.upload),
            begin_id: None,
            part_size: job.work.part_size(),
            fingerprint: self.fingerprint,
            request_id: job.request_id.clone(),
            base,
        });
        for number in 0..job.work.n_parts() {
            if let Some(digest) = job.work.digest_of(number) {
                sidecar.add(number, digest);
            }
        }
    }
}
