//! Upkeep: what has to be done now and then, by one thread.
//!
//! The time that it goes by is the earlier of the machine's and that of the start, carried on by a
//! clock that nobody sets: whoever sets the machine's clock makes no message old.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, warn};

use super::{OpError, Service};

/// How often cursors are kept.
const SAVE_PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked for what has outlived its time.
const EXPIRE_PERIOD: Duration = Duration::from_secs(10);
/// Records that are removed in one step: no writer waits for longer.
const EXPIRED_MAX: usize = 2_000;
/// Steps at a time.
const STEPS_MAX: usize = 50;
/// Contents that are removed in one step.
const DETACHED_MAX: usize = 256;

/// The thread. Dropping it ends it.
pub struct Upkeep {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Starts the thread; it ends by itself when the service is gone.
    ///
    /// # Panics
    /// The process cannot start one more thread.
    pub fn start(service: &Arc<Service>) -> Self {
        let (stop, stopped) = sync_channel(1);
        let service = Arc::downgrade(service);
        let work = move || {
            let (began, at) = (Timestamp::now(), Instant::now());
            let mut expired_at = Instant::now();
            while matches!(
                stopped.recv_timeout(SAVE_PERIOD),
                Err(RecvTimeoutError::Timeout)
            ) {
                let Some(service) = Weak::upgrade(&service) else {
                    return;
                };
                service.save_cursors();
                if expired_at.elapsed() >= EXPIRE_PERIOD {
                    let passed = SignedDuration::try_from(at.elapsed());
                    let now = began.saturating_add(passed.unwrap_or_default());
                    // A start with a clock that was ahead makes nothing old either.
                    service.expire(now.unwrap_or(began).min(Timestamp::now()));
                    expired_at = Instant::now();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("upkeep".to_owned())
            .spawn(work);
        Self {
            stop: Some(stop),
            thread: Some(thread.expect("a process that runs a server can start a thread")),
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Service {
    /// Keeps how far readers have come. Blocks.
    pub fn save_cursors(&self) {
        if let Err(error) = self.cursors.save() {
            let error = &error as &dyn std::error::Error;
            warn!(
                error,
                "cursors were not kept: their readers may see records again"
            );
        }
    }

    /// Removes what has outlived its time at `now`. Blocks.
    pub fn expire(&self, now: Timestamp) {
        self.staged.expire();
        self.expire_uploads(now);
        // What was published last may be old, too.
        if let Err(error) = self.committer.keep_mark() {
            let error = &error as &dyn std::error::Error;
            warn!(error, "it was not kept what is published");
        }
        let mut n_removed = 0;
        for _ in 0..STEPS_MAX {
            match self.parts.log.expire(now, EXPIRED_MAX) {
                Ok(0) => break,
                Ok(n) => n_removed += n,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "old records were not removed");
                    return;
                }
            }
        }
        if n_removed > 0 {
            debug!(n_removed, "removed old records");
        }
        self.detach();
    }

    fn detach(&self) {
        for _ in 0..STEPS_MAX {
            match self.detach_some() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "old contents were not removed");
                    return;
                }
            }
        }
    }

    /// Removes contents, and then forgets them; says whether there were any.
    fn detach_some(&self) -> Result<bool, OpError> {
        let log = &self.parts.log;
        let contents = log.detached(DETACHED_MAX).map_err(OpError::Log)?;
        if contents.is_empty() {
            return Ok(false);
        }
        let detached = self.parts.store.detach(&contents);
        detached.map_err(OpError::Store)?;
        log.forget_detached(&contents).map_err(OpError::Log)?;
        Ok(true)
    }
}
