//! What an earlier run of the program has left of a file that it fetched.
//!
//! Every part of it is hashed again: nobody knows how much came to the disk, or who has been at the
//! file since.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file::WHOLE_SIZE_MAX;
use super::get_parts::Job;
use super::landing::Landing;
use super::parts::Work;
use super::upload::on_thread;
use crate::digest::{PartDigest, PartHasher};
use crate::protocol::FileInfo;

/// Bytes of a part: what an interruption costs.
const PART_SIZE: u64 = 1 << 20;
/// Most parts of a file that is fetched so: what a client keeps in memory.
const PARTS_MAX: u64 = 1 << 17;

/// What a sidecar says of a file under way.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) info: FileInfo,
    pub(super) part_size: u64,
}

/// Goes on with what an earlier run has left.
pub(super) async fn resume(
    landing: &Landing<'_>,
    saved: super::sidecar::Saved<Saved>,
) -> Option<(Job, FileInfo)> {
    let Saved {
        info,
        part_size: said,
    } = saved.header;
    let (version, size) = (info.version?, info.size);
    let wanted = landing.options.conditions.if_version;
    if info.path != *landing.remote || wanted.is_some_and(|wanted| wanted != version) {
        return None;
    }
    let is_large = size > WHOLE_SIZE_MAX && landing.takes(size);
    if said != part_size(size) || !is_large || saved.parts.is_empty() {
        return None;
    }
    let file = landing.file.try_clone().ok()?;
    let work = Arc::new(Work::new(size, said));
    let (on_thread_file, on_thread_work) = (file.try_clone().ok()?, Arc::clone(&work));
    let parts = saved.parts;
    let checked = on_thread(move || {
        let mut buffer = Vec::new();
        // Whatever it is now, it becomes no longer than the file.
        on_thread_file.set_len(size)?;
        for (number, digest) in parts {
            if is_part(
                &on_thread_file,
                &on_thread_work,
                &mut buffer,
                (number, digest),
            ) {
                on_thread_work.set_digest(number, digest);
                on_thread_work.set_done(number, true);
            }
        }
        Ok(())
    });
    checked.await.ok()?;
    if let Some(observer) = landing.options.observer() {
        observer.expect(size);
        observer.moved(work.size_done());
    }
    Some((landing.job(version, file, work), info))
}

/// Whether a part is on the disk as it was written.
fn is_part(
    file: &File,
    work: &Work,
    buffer: &mut Vec<u8>,
    (number, digest): (u64, PartDigest),
) -> bool {
    let offset = number.saturating_mul(work.part_size());
    if offset >= work.size() {
        return false;
    }
    let size = work.part_size().min(work.size() - offset);
    buffer.resize(usize::try_from(size).unwrap_or_default(), 0);
    if file.read_exact_at(buffer, offset).is_err() {
        return false;
    }
    let mut hasher = PartHasher::at(offset);
    hasher.update(buffer);
    hasher.digest() == digest
}

pub(super) fn part_size(size: u64) -> u64 {
    let mut part_size = PART_SIZE;
    while size.div_ceil(part_size) > PARTS_MAX {
        part_size *= 2;
    }
    part_size
}
