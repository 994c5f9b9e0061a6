//! Giving back the space of large files, while nobody waits for it.
//!
//! A file that lost its name is freed when its last descriptor is closed. Held open over the change
//! of names, it is closed by a thread of its own: freeing a gigabyte takes as long as hundreds of
//! small commits.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

use super::confine::kind;

/// Smallest file that is worth it.
const SIZE_MIN: i64 = 4 << 20;
/// Files that may wait; one more is freed on the spot.
const QUEUE_MAX: usize = 64;

/// The thread that closes.
pub(super) struct Reaper {
    queue: Option<SyncSender<OwnedFd>>,
    thread: Option<JoinHandle<()>>,
}

/// A file held over a change of names; dropped after it, it goes to the thread.
pub(super) struct Held<'a> {
    reaper: &'a Reaper,
    file: Option<OwnedFd>,
}

impl Reaper {
    pub(super) fn start() -> Self {
        let (queue, files) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || files.into_iter().for_each(drop::<OwnedFd>));
        // Without the thread the receiver is gone, and every file is freed on the spot.
        Self {
            queue: Some(queue),
            thread: thread.ok(),
        }
    }

    /// Holds what is about to lose its name, if it is a large file.
    pub(super) fn hold(&self, directory: impl AsFd, name: &str) -> Held<'_> {
        Held {
            reaper: self,
            file: large_file(directory, name),
        }
    }
}

fn large_file(directory: impl AsFd, name: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let status = fstat(&file).ok()?;
    (kind(&status) == FileType::RegularFile && status.st_size >= SIZE_MIN).then_some(file)
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let (Some(file), Some(queue)) = (self.file.take(), &self.reaper.queue) {
            let _ = queue.try_send(file);
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
