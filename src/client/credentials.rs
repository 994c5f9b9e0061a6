//! The client's certificate, key and CAs, as they are on disk now.
//!
//! Files that changed are loaded as one set, which takes the place of the one before only if it is good;
//! else that one stays. What is wrong is told once for each reason.

use std::fs::File;
use std::io::Read;
use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::{Client, ClientError};
use crate::digest::Digest;
use crate::escape::with_causes;
use crate::protocol::ErrorCode;
use crate::tls::TlsError;
use crate::tls::client::Files;
use crate::tls::pem::FILE_SIZE_MAX;
use crate::tls::refusal::Refusal;
use crate::tls::renewal::{self, Loaded, Renewal};

/// How often the files are looked at while nobody connects.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The same while the certificate of a connection is about to end.
pub(super) const DUE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long files that do not fit are given to become whole, once.
const SETTLE: Duration = Duration::from_millis(100);
/// Clocks that differ by more are told of: certificates begin and end by both.
pub const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);
/// How often files are loaded that change while they are loaded, before they are left for later.
const LOADS_MAX: usize = 3;

/// What happened to a client's certificate files while it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateNews {
    /// New files are in use: whose certificate it is, and until when.
    Changed {
        certificate: Option<PathBuf>,
        expires_at: Option<Timestamp>,
    },
    /// New files cannot be used; the ones before are.
    Unusable {
        reason: String,
        hint: Option<String>,
    },
    /// The server does not take the new files (yet); a stream stays on its connection.
    NotTaken { reason: String },
    /// The certificate in use is over; a stream waits for new files, as long as this at most.
    Waiting {
        reason: String,
        hint: Option<String>,
        at_most: Duration,
    },
    /// A server's clock and this one differ by more than [`SKEW_MAX`]; told once a client.
    ClocksDiffer { server: Timestamp, own: Timestamp },
}

type Listener = Box<dyn Fn(&CertificateNews) + Send + Sync>;

/// A set of files that is in use.
pub(super) struct Set {
    /// Tells it from the others of this client.
    pub(super) number: u64,
    pub(super) connector: TlsConnector,
    loaded: Loaded,
}

/// The files, and the set that was made of them.
pub(super) struct Credentials {
    files: Files,
    set: RwLock<Arc<Set>>,
    looked: Mutex<Looked>,
    listener: OnceLock<Listener>,
    /// That clocks differ was told.
    is_skew_told: AtomicBool,
}

/// The last look at the files.
struct Looked {
    at: Instant,
    /// What is in use.
    contents: Contents,
    /// Why the files that are there now are not used, as it was told.
    unusable: Option<Unusable>,
    /// Why a server did not take the set in use, as it was told.
    not_taken: Option<String>,
}

/// Why files are not used. A reason that names the time is the same one later.
#[derive(Debug)]
struct Unusable {
    reason: String,
    kind: Discriminant<TlsError>,
    contents: Contents,
}

/// What the files held, in the order chain, key, CAs. A file that is not a plain one, such as a pipe, can
/// be read once only: it does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents([Option<Digest>; 3]);

impl Credentials {
    /// Loads the files for the first time. Blocks.
    ///
    /// # Errors
    /// A file is missing, or does not fit the others.
    pub(super) fn load(files: Files) -> Result<Self, TlsError> {
        let (contents, loaded) = match Self::load_once(&files) {
            // Who renews puts one file after the other.
            Err(TlsError::KeyMismatch { .. }) => {
                std::thread::sleep(SETTLE);
                Self::load_once(&files)?
            }
            loaded => loaded?,
        };
        let looked = Looked {
            at: Instant::now(),
            contents,
            unusable: None,
            not_taken: None,
        };
        Ok(Self {
            files,
            set: RwLock::new(Arc::new(Set::new(0, loaded))),
            looked: Mutex::new(looked),
            listener: OnceLock::new(),
            is_skew_told: AtomicBool::new(false),
        })
    }

    fn load_once(files: &Files) -> Result<(Contents, Loaded), TlsError> {
        let contents = Contents::read(files);
        let loaded = renewal::load(files, Timestamp::now())?;
        Ok((contents, loaded))
    }

    /// The set that is in use.
    pub(super) fn set(&self) -> Arc<Set> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the last look is longer ago than this.
    fn is_older_than(&self, age: Duration) -> bool {
        // Who looks just now is as good as one that has looked.
        self.looked
            .try_lock()
            .is_ok_and(|looked| looked.at.elapsed() >= age)
    }

    /// Looks at the files, and takes them if they are new and good.
    ///
    /// # Cancel safety
    /// The look goes on without whoever waits for it.
    pub(super) async fn look(self: &Arc<Self>) -> Arc<Set> {
        let on_thread = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || on_thread.look_now()).await;
        looked.unwrap_or_else(|_| self.set())
    }

    /// Blocks.
    fn look_now(&self) -> Arc<Set> {
        let (set, news) = self.look_quietly();
        // Without the lock: the listener may use the client.
        if let Some(news) = news {
            self.tell(&news);
        }
        set
    }

    fn look_quietly(&self) -> (Arc<Set>, Option<CertificateNews>) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.set();
        let mut taken = self.take(&looked.contents, &set);
        let told = looked.unusable.as_ref().map(|told| &told.contents);
        if matches!(&taken, Some((contents, Err(_))) if Some(contents) != told) {
            // Who renews puts one file after the other.
            std::thread::sleep(SETTLE);
            taken = self.take(&looked.contents, &set);
        }
        looked.at = Instant::now();
        match taken {
            None => {
                // Whoever put the old files back has mended it.
                looked.unusable = None;
                (set, None)
            }
            Some((contents, Ok(loaded))) => {
                looked.contents = contents;
                looked.unusable = None;
                looked.not_taken = None;
                let set = Arc::new(Set::new(set.number + 1, loaded));
                *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
                let own = self.files.own.as_ref();
                let news = CertificateNews::Changed {
                    certificate: own.map(|own| own.certificate.clone()),
                    expires_at: set.loaded.own.as_ref().map(|facts| facts.not_after),
                };
                (set, Some(news))
            }
            Some((contents, Err(error))) => {
                let now = Unusable {
                    reason: with_causes(&error),
                    kind: discriminant(&error),
                    contents,
                };
                let was_told = looked.unusable.as_ref().is_some_and(|told| told.is(&now));
                let news = CertificateNews::Unusable {
                    reason: now.reason.clone(),
                    hint: error.hint(),
                };
                looked.unusable = Some(now);
                (set, Some(news).filter(|_| !was_told))
            }
        }
    }

    /// The files, if they are other ones than those in use. Files that change under the load are loaded
    /// anew: half of the one set and half of the other may fit by chance.
    fn take(&self, in_use: &Contents, set: &Set) -> Option<(Contents, Result<Loaded, TlsError>)> {
        let mut contents = Contents::read(&self.files);
        for _ in 0..LOADS_MAX {
            if contents == *in_use {
                return None;
            }
            let loaded = renewal::load_anew(&self.files, &set.loaded, Timestamp::now());
            let after = Contents::read(&self.files);
            if after == contents {
                return Some((contents, loaded));
            }
            contents = after;
        }
        None
    }

    /// A stream could not move over to the set in use: told once, until there is another reason.
    pub(super) fn not_taken(&self, error: &ClientError) {
        let reason = with_causes(error);
        let before = {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.not_taken.replace(reason.clone())
        };
        if before.as_ref() != Some(&reason) {
            self.tell(&CertificateNews::NotTaken { reason });
        }
    }

    /// A stream waits for new files, since what is in use is over.
    pub(super) fn waiting(&self, error: &ClientError, at_most: Duration) {
        self.tell(&CertificateNews::Waiting {
            reason: with_causes(error),
            hint: error.hint(),
            at_most,
        });
    }

    /// Holds the time of a greeting that just came against this clock.
    pub(super) fn compare_clocks(&self, server: Timestamp) {
        let own = Timestamp::now();
        let differs = server.duration_since(own).abs() > SKEW_MAX;
        if differs && !self.is_skew_told.swap(true, Ordering::Relaxed) {
            self.tell(&CertificateNews::ClocksDiffer { server, own });
        }
    }

    fn tell(&self, news: &CertificateNews) {
        if let Some(listener) = self.listener.get() {
            return listener(news);
        }
        match news {
            CertificateNews::Changed { expires_at, .. } => {
                let expires_at = expires_at.map(|time| time.to_string());
                info!(expires_at, "new certificate files are in use");
            }
            CertificateNews::Unusable { reason, .. } => {
                warn!(
                    reason,
                    "new certificate files cannot be used: the ones before are"
                );
            }
            CertificateNews::ClocksDiffer { server, own } => {
                warn!(%server, %own, "the clocks of the server and of this machine differ");
            }
            CertificateNews::Waiting {
                reason, at_most, ..
            } => {
                warn!(reason, ?at_most, "new certificate files are waited for");
            }
            CertificateNews::NotTaken { reason } => {
                warn!(reason, "a server does not take the new certificate files");
            }
        }
    }

    /// Why files that are there now are not in use, if that is so.
    fn why_unusable(&self) -> Option<String> {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.unusable.as_ref().map(|told| told.reason.clone())
    }

    /// Why the set in use is good for no connection: its certificate has ended.
    pub(super) fn check(&self, set: &Set) -> Result<(), ClientError> {
        let own = set.loaded.own.as_ref();
        match renewal::expired(&self.files, own, Timestamp::now()) {
            Some(refusal) => Err(self.refused(ErrorCode::CertificateExpired, refusal)),
            None => Ok(()),
        }
    }

    /// What it means that a server ends a session for the certificate in use.
    pub(super) fn ended(&self, code: ErrorCode, message: &str) -> ClientError {
        let set = self.set();
        let own = set.loaded.own.as_ref();
        let refusal = renewal::ended(&self.files, own, (code, message), Timestamp::now());
        self.refused(code, refusal)
    }

    fn refused(&self, code: ErrorCode, mut refusal: Refusal) -> ClientError {
        if let Some(reason) = self.why_unusable() {
            refusal.cause = format!(
                "{}; the files that are there now cannot be used: {reason}",
                refusal.cause
            );
        }
        ClientError::Certificate { code, refusal }
    }
}

impl Unusable {
    fn is(&self, other: &Self) -> bool {
        self.reason == other.reason || (self.kind == other.kind && self.contents == other.contents)
    }
}

impl Set {
    fn new(number: u64, loaded: Loaded) -> Self {
        Self {
            number,
            connector: TlsConnector::from(Arc::clone(&loaded.config)),
            loaded,
        }
    }
}

impl Contents {
    /// Blocks.
    fn read(files: &Files) -> Self {
        let own = files.own.as_ref();
        let certificate = own.and_then(|own| digest(&own.certificate));
        let key = own.and_then(|own| digest(&own.key));
        Self([certificate, key, digest(&files.ca)])
    }
}

/// Nothing for what cannot be read, now or twice.
fn digest(path: &Path) -> Option<Digest> {
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_SIZE_MAX + 1)
        .read_to_end(&mut content)
        .ok()?;
    Some(Digest::of(&content))
}

impl Client {
    /// Calls `listener` with what happens to the certificate files, on any thread, instead of logging it.
    /// The first listener stays.
    pub fn on_certificates(&self, listener: impl Fn(&CertificateNews) + Send + Sync + 'static) {
        let _ = self.shared.credentials.listener.set(Box::new(listener));
    }

    /// When the certificate in use is to be renewed, and how; nothing without one.
    pub fn renewal(&self) -> Option<Renewal> {
        let credentials = &self.shared.credentials;
        let own = credentials.set().loaded.own.clone();
        renewal::of(&credentials.files, own.as_ref())
    }

    /// The number of the set in use, after a look if the last one is longer ago than this.
    pub(super) async fn set_within(&self, age: Duration) -> u64 {
        let credentials = &self.shared.credentials;
        if credentials.is_older_than(age) {
            credentials.look().await;
        }
        credentials.set().number
    }

    /// Whether there are other files by now than those that `set` was made of.
    pub(super) async fn has_renewed_since(&self, set: u64) -> bool {
        self.shared.credentials.look().await.number != set
    }
}
