//! What is tried again: a request that met a server which is busy, going away, or out of reach.
//!
//! A command that never had a connection is told at once; a name that was mistyped answers no better
//! later.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::outcome::{Happened, Reporter};
use crate::client::back_off::BackOff;
use crate::client::{Client, ClientError, Observer};
use crate::protocol::ErrorCode;

/// How long something that does not work is tried again, and who hears of it.
#[derive(Clone)]
pub(super) struct Patience {
    client: Client,
    limit: Duration,
    reporter: Arc<dyn Reporter>,
    n_retries: Arc<AtomicU64>,
}

impl Patience {
    pub(super) fn new(client: &Client, limit: Duration, reporter: Arc<dyn Reporter>) -> Self {
        Self {
            client: client.clone(),
            limit,
            reporter,
            n_retries: Arc::default(),
        }
    }

    /// How often something was tried once more, in all.
    pub(super) fn n_retries(&self) -> u64 {
        self.n_retries.load(Ordering::Relaxed)
    }

    fn again(&self, error: &ClientError) {
        self.n_retries.fetch_add(1, Ordering::Relaxed);
        self.reporter.happened(&Happened::Again { error });
    }

    /// Does it until it works, or until it has not worked for too long.
    ///
    /// # Errors
    /// The last one.
    pub(super) async fn persist<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Result<T, ClientError> {
        let began = Instant::now();
        let mut back_off = BackOff::default();
        loop {
            let error = match work().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let may_work = error.is_passing()
                && error.code() != Some(ErrorCode::Unavailable)
                && self.client.was_connected()
                && began.elapsed() < self.limit;
            if !may_work {
                return Err(error);
            }
            self.again(&error);
            back_off.pause().await;
        }
    }
}

impl Observer for Patience {
    fn expect(&self, _size: u64) {}

    fn moved(&self, _size: u64) {}

    fn begin_again(&self) {}

    fn interrupted(&self, why: &ClientError) {
        self.again(why);
    }
}
