//! Certificates, keys, revocation lists and the policy, read anew while the server runs.
//!
//! All of them are one set: it is loaded and checked as a whole, and takes the place of the one before
//! as a whole or not at all. What they hold is compared, not when they were changed: a file system that
//! swaps links tells nothing else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::args::Serve;
use super::open::{StartError, bindings, load_policy, policy_file, tls_files};
use crate::escape::with_causes;
use crate::identity::{Binding, renew_after};
use crate::ops::Service;
use crate::policy::Policy;
use crate::tls::TlsError;
use crate::tls::pem::FILE_SIZE_MAX;
use crate::tls::server::{Files, Loaded, configure};

/// Days left of which is told once each, besides the beginning of the last third of a life.
const DAYS_LEFT_TOLD: [i64; 4] = [14, 7, 3, 1];

/// How long the files of a pair that is just replaced need.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks in a row at files that change meanwhile, before it is told.
const CHANGING_MAX: u32 = 10;

/// What the files hold, in few bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    tls: blake3::Hash,
    policy: blake3::Hash,
}

/// A set that was loaded, and what it was loaded from.
pub(super) struct Set {
    pub(super) policy: Policy,
    pub(super) loaded: Loaded,
    pub(super) from: Fingerprint,
}

/// Whoever looks at the files.
pub(super) struct Reload {
    arguments: Arc<Serve>,
    service: Arc<Service>,
    loaded: watch::Sender<Arc<Loaded>>,
    /// Of the set that holds.
    holds: Fingerprint,
    /// What was last said about a set that does not hold.
    complaint: Option<String>,
    /// Looks in a row at files that changed meanwhile.
    n_changing: u32,
    /// Certificates and lists of whose end was told, and how many days before.
    told: Vec<(String, i64)>,
}

impl Reload {
    /// Looks for other files than those that `loaded` was made of, whose fingerprint was taken before.
    pub(super) fn new(
        arguments: &Serve,
        service: &Arc<Service>,
        loaded: watch::Sender<Arc<Loaded>>,
        holds: Fingerprint,
    ) -> Self {
        Self {
            arguments: Arc::new(arguments.clone()),
            service: Arc::clone(service),
            loaded,
            holds,
            complaint: None,
            n_changing: 0,
            told: Vec::new(),
        }
    }

    /// Looks at once, every so often, and on each SIGHUP, until the future is dropped. The handler of
    /// the signal stands when this returns.
    pub(super) fn run(mut self) -> impl Future<Output = ()> + Send + 'static {
        let handler = signal(SignalKind::hangup());
        let period = self.arguments.reload_every;
        async move {
            let Ok(mut hangup) = handler else {
                warn!("SIGHUP cannot be watched: files are looked at every {period:?} only");
                loop {
                    self.look(false).await;
                    sleep(self.pause(period)).await;
                }
            };
            let mut is_asked = false;
            loop {
                self.look(is_asked).await;
                is_asked = tokio::select! {
                    asked = hangup.recv() => asked.is_some(),
                    () = sleep(self.pause(period)) => false,
                };
            }
        }
    }

    /// Files that are being changed are looked at again soon.
    fn pause(&self, period: Duration) -> Duration {
        match self.n_changing {
            0 => period,
            _ => period.min(SETTLE),
        }
    }

    async fn look(&mut self, is_asked: bool) {
        let (arguments, holds) = (Arc::clone(&self.arguments), self.holds.clone());
        let is_refused = self.complaint.is_some();
        let n_changing = std::mem::take(&mut self.n_changing);
        let old = Arc::clone(&self.loaded.borrow());
        let look = move || {
            let from = fingerprint(&arguments, old.anchors.bindings());
            if holds == from && !is_refused && !is_asked {
                return Ok(None);
            }
            let set = load(&arguments)?;
            set.loaded.check_succeeds(&old)?;
            Ok(Some(set))
        };
        let looked: Result<Result<Option<Set>, StartError>, _> =
            tokio::task::spawn_blocking(look).await;
        match looked {
            Ok(Ok(Some(set))) => self.take(set, n_changing).await,
            // Once more what holds already.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => self.refuse(with_causes(&error)),
            Err(_) => self.refuse("the thread that read the files failed".to_owned()),
        }
        self.tell_ends();
    }

    /// Takes a set, unless the files changed while it was read: then the next look will.
    async fn take(&mut self, set: Set, n_changing: u32) {
        let arguments = Arc::clone(&self.arguments);
        let bound = set.loaded.anchors.bindings().to_vec();
        let now = tokio::task::spawn_blocking(move || fingerprint(&arguments, &bound)).await;
        if now.ok().as_ref() != Some(&set.from) {
            self.n_changing = n_changing + 1;
            debug!("the files changed while they were read");
            if self.n_changing >= CHANGING_MAX {
                self.refuse("the files changed whenever they were read".to_owned());
            }
            return;
        }
        self.complaint = None;
        let before = std::mem::replace(&mut self.holds, set.from.clone());
        if before.policy != set.from.policy {
            info!(n_grants = set.policy.n_grants(), "another policy holds now");
        }
        self.service.replace_policy(set.policy);
        if before.tls == set.from.tls {
            return;
        }
        let serial = |loaded: &Loaded| loaded.certificates[0].serial.clone();
        info!(
            serial = serial(&set.loaded),
            serial_before = serial(&self.loaded.borrow()),
            expires_at = %set.loaded.certificates[0].not_after,
            n_cas = set.loaded.certificates.len() - 1,
            lists = set.loaded.list_numbers().join(", "),
            "other certificates hold now"
        );
        self.loaded.send_replace(Arc::new(set.loaded));
    }

    fn refuse(&mut self, why: String) {
        if self.complaint.as_ref() != Some(&why) {
            warn!(
                error = why,
                "nothing was read anew: what held before still holds"
            );
        }
        self.complaint = Some(why);
    }

    /// Tells of certificates of the server that are near their end.
    fn tell_ends(&mut self) {
        let now = Timestamp::now();
        let loaded = Arc::clone(&self.loaded.borrow());
        for certificate in &loaded.certificates {
            let life = (certificate.not_before, certificate.not_after);
            let Some(days_left) = days_left_told(life, now) else {
                continue;
            };
            if !self.is_news(&certificate.serial, days_left) {
                continue;
            }
            warn!(
                subject = certificate.subject,
                serial = certificate.serial,
                expires_at = %certificate.not_after,
                "a certificate of the server is near its end: renew it"
            );
        }
        self.tell_ends_of_lists(&loaded, now);
    }

    /// Whether this step of the end of `what` was not told yet; it is now.
    fn is_news(&mut self, what: &str, days_left: i64) -> bool {
        let is_told = |(told, at): &(String, i64)| told == what && *at == days_left;
        if self.told.iter().any(is_told) {
            return false;
        }
        self.told.retain(|(told, _)| told != what);
        self.told.push((what.to_owned(), days_left));
        true
    }

    /// From the end of its list on, no client of a CA is let in.
    fn tell_ends_of_lists(&mut self, loaded: &Loaded, now: Timestamp) {
        // A CA may have a list for each part of what it signed.
        for (at, list) in loaded.lists.iter().enumerate() {
            let Some(end) = list.next_update else {
                continue;
            };
            let Some(days_left) = days_left_told((list.this_update, end), now) else {
                continue;
            };
            if !self.is_news(&format!("list {at} of {}", list.issuer), days_left) {
                continue;
            }
            warn!(
                ca = list.issuer,
                next_update = %end,
                "a revocation list is near its end: get the next one, or no client of its CA is let in"
            );
        }
    }
}

/// How many days are left, in steps that are told of; nothing while there are many.
fn days_left_told((begin, end): (Timestamp, Timestamp), now: Timestamp) -> Option<i64> {
    if now < renew_after(begin, end) {
        return None;
    }
    let left = end.duration_since(now);
    let days = left.as_secs().div_euclid(24 * 3600);
    let step = DAYS_LEFT_TOLD.into_iter().rev().find(|step| days < *step);
    // In the last days each day.
    let is_last = days < DAYS_LEFT_TOLD[2];
    Some(if is_last {
        days
    } else {
        step.unwrap_or(i64::MAX)
    })
}

/// Loads all that is one set. Blocks.
///
/// # Errors
/// A file cannot be read or used, or does not fit the others.
pub(super) fn load(arguments: &Serve) -> Result<Set, StartError> {
    // Before it is read: if it changes meanwhile, what was loaded does not have its fingerprint.
    let file = policy_file(arguments);
    let policy_from = hash(&file);
    check_plain(&file)?;
    let policy = load_policy(&file)?;
    let bindings = bindings(&file, &policy);
    let files = tls_files(arguments)?;
    let bound = bindings.iter().map(|binding| &binding.ca);
    each(&files)
        .chain(bound)
        .try_for_each(|path| check_plain(path))?;
    let from = Fingerprint {
        tls: tls_hash(arguments, &bindings),
        policy: policy_from,
    };
    let loaded = configure(&files, &bindings, Timestamp::now())?;
    Ok(Set {
        policy,
        loaded,
        from,
    })
}

/// The same at the start: a key that does not fit is looked at once more, since whoever renews puts one
/// file after the other. Blocks.
///
/// # Errors
/// As for [`load`].
pub(super) fn load_settled(arguments: &Serve) -> Result<Set, StartError> {
    match load(arguments) {
        Err(StartError::Tls(TlsError::KeyMismatch { .. })) => {
            std::thread::sleep(SETTLE);
            load(arguments)
        }
        loaded => loaded,
    }
}

/// Of the files as they are now. Blocks.
fn fingerprint(arguments: &Serve, bindings: &[Binding]) -> Fingerprint {
    Fingerprint {
        tls: tls_hash(arguments, bindings),
        policy: hash(&policy_file(arguments)),
    }
}

/// Of all that is no policy, what the trust settings name among it.
fn tls_hash(arguments: &Serve, bindings: &[Binding]) -> blake3::Hash {
    let files = tls_files(arguments);
    let mut tls = blake3::Hasher::new();
    let named = files.as_ref().map_or_else(
        // Which files they are cannot be said: the load will say why.
        |_| Vec::new(),
        |files| each(files).collect(),
    );
    for file in named {
        tls.update(hash(file).as_bytes());
    }
    for binding in bindings {
        // What is said of a CA is as much a part of the set as the CA.
        tls.update(format!("{binding:?}").as_bytes());
        tls.update(hash(&binding.ca).as_bytes());
    }
    tls.finalize()
}

fn each(files: &Files) -> impl Iterator<Item = &PathBuf> {
    let others = [&files.certificate, &files.key, &files.ca];
    others.into_iter().chain(&files.crl)
}

/// Refuses what would keep a reader waiting. What is not there is for the reader to tell.
fn check_plain(path: &Path) -> Result<(), StartError> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() || found.is_dir() => Ok(()),
        Ok(_) => Err(StartError::NotPlain {
            path: path.to_owned(),
        }),
        Err(_) => Ok(()),
    }
}

/// Of what a file holds; of why it cannot be read, if so.
fn hash(path: &Path) -> blake3::Hash {
    let read = || -> io::Result<blake3::Hash> {
        if check_plain(path).is_err() {
            return Err(io::Error::other("no plain file"));
        }
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut File::open(path)?.take(FILE_SIZE_MAX + 1), &mut hasher)?;
        Ok(hasher.finalize())
    };
    read().unwrap_or_else(|error| blake3::hash(format!("unreadable: {error}").as_bytes()))
}
