//! Going on after an interruption, for as long as something moves now and then.
//!
//! What was refused is refused; what was only interrupted is tried again, on another server where
//! there are several.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::back_off::BackOff;
use super::{Client, ClientError};
use crate::protocol::ErrorCode;

/// Follows transfers: for a progress bar, or for a program that wants to know.
pub trait Observer: Send + Sync {
    /// Bytes that will move in all; also when that is known later, or anew.
    fn expect(&self, size: u64);

    /// More bytes have moved; those that were there already count too.
    fn moved(&self, size: u64);

    /// What moved so far is worth nothing: it begins again.
    fn begin_again(&self);

    /// Something was interrupted, and is tried again after a pause.
    fn interrupted(&self, why: &ClientError);
}

/// How long an interruption is waited out.
pub(super) struct Patience<'a> {
    client: &'a Client,
    observer: Option<&'a dyn Observer>,
    back_off: BackOff,
    /// When it was interrupted, if nothing has moved since. How long it went well before does not count.
    since: Option<Instant>,
    /// That new certificate files are waited for was told in this interruption.
    told_of_certificate: bool,
}

impl Client {
    /// Whether a server was ever reached.
    pub(super) fn was_connected(&self) -> bool {
        self.shared.was_connected.load(Ordering::Relaxed)
    }

    /// Patience for one piece of work.
    pub(super) fn patience<'a>(&'a self, observer: Option<&'a dyn Observer>) -> Patience<'a> {
        Patience {
            client: self,
            observer,
            back_off: BackOff::default(),
            since: None,
            told_of_certificate: false,
        }
    }
}

impl Patience<'_> {
    /// Something moved: the wait begins anew.
    pub(super) fn refresh(&mut self) {
        self.since = None;
        self.told_of_certificate = false;
        self.back_off.reset();
    }

    /// Waits a while after an interruption.
    ///
    /// # Errors
    /// The error itself, where it was none, has lasted for too long, or no server was ever reached.
    pub(super) async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        let limit: Duration = self.client.shared.options.retry_for;
        let was_connected = self.client.was_connected();
        let is_first = self.since.is_none();
        let since = *self.since.get_or_insert_with(Instant::now);
        if !was_connected || !is_interruption(&error) || since.elapsed() >= limit {
            return Err(error);
        }
        // Once, but for the one cause that somebody must mend: a connection may just have been lost
        // before it was known.
        let is_of_certificate = error.is_of_certificate();
        let is_news = is_first || (is_of_certificate && !self.told_of_certificate);
        self.told_of_certificate |= is_of_certificate;
        if let Some(observer) = self.observer.filter(|_| is_news) {
            observer.interrupted(&error);
        }
        self.back_off.pause().await;
        Ok(())
    }
}

/// Whether the same may be asked again. A full disk is not waited for.
fn is_interruption(error: &ClientError) -> bool {
    error.is_passing() && error.code() != Some(ErrorCode::Unavailable)
}
