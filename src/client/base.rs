//! A version of a file that the server has, as the base of another: where it pays to know its chunks.
//!
//! Whatever goes wrong with it, the file is sent whole.

use std::time::{Duration, Instant};

use super::Client;
use super::file::Delta;
use super::parts::Run;
use super::put_parts::Job;
use super::retry::Patience;
use crate::delta::ChunkMap;
use crate::path::RemotePath;
use crate::protocol::{FileInfo, Op, Stat};

/// Bytes of the sample that says how fast the connection is.
const SAMPLE_SIZE: u64 = 8 << 20;
/// Bytes per second at which what changed is found out; a connection this fast does without.
const DELTA_RATE: u64 = 50 << 20;

/// What the server has that is like the file.
pub(super) struct Base {
    pub(super) chunks: ChunkMap,
    pub(super) chunk_size: u32,
}

impl Client {
    /// The version that the server has of the file, where it says it.
    pub(super) async fn base_version(
        &self,
        remote: &RemotePath,
        patience: &mut Patience<'_>,
    ) -> Option<u64> {
        let stat = Op::Stat(Stat {
            path: remote.clone(),
        });
        let file: FileInfo = loop {
            match self.ask_once(stat.clone()).await {
                Err(error) => patience.wait(error).await.ok()?,
                Ok(file) => break file,
            }
        };
        file.version.filter(|_| file.size > SAMPLE_SIZE)
    }

    /// The chunks of that version, where it pays to know them.
    pub(super) async fn find_base(
        &self,
        job: &Job,
        remote: &RemotePath,
        delta: Delta,
        version: u64,
    ) -> Option<Base> {
        if delta == Delta::Auto && !self.is_slow(job).await {
            return None;
        }
        self.chunks_of(remote, version).await
    }

    /// The chunks of a version, if they can be had.
    pub(super) async fn chunks_of(&self, remote: &RemotePath, version: u64) -> Option<Base> {
        let (list, chunks) = self.signature(remote, version).await.ok()?;
        Some(Base {
            chunks,
            chunk_size: list.chunk_size,
        })
    }

    /// Sends the first parts, and looks at the time that it takes.
    async fn is_slow(&self, job: &Job) -> bool {
        let size = SAMPLE_SIZE.max(job.work.part_size());
        let run = Run {
            offset: 0,
            size: size.min(job.work.size()),
        };
        let began = Instant::now();
        match self.send_run(job, run).await {
            Ok(()) => job.work.finish(run),
            Err(_) => return false,
        }
        let limit = Duration::from_millis(run.size * 1_000 / DELTA_RATE);
        began.elapsed() > limit && run.end() < job.work.size()
    }
}
