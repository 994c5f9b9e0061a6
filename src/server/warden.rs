//! The certificates of the sessions that live, and what becomes of those that end meanwhile.
//!
//! Each session is judged again when a certificate of its chain, a trusted CA or a revocation list
//! ends, and whenever other files hold: by the same verifier that lets new ones in. Only those that it
//! would not let in any more are ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::identity::{Identity, SpiffeId};
use crate::protocol::{ErrorCode, ErrorReply};
use crate::session::{Standing, expired};
use crate::tls::identity::identify;
use crate::tls::server::{Loaded, Unfit};
use crate::tls::x509::Facts;

/// How often it is looked for certificates that ended.
const TICK: Duration = Duration::from_secs(1);

/// The sessions that live, and what holds for them.
pub(super) struct Warden {
    loaded: watch::Receiver<Arc<Loaded>>,
    stop: CancellationToken,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    next: u64,
    /// When it was last looked for what ended.
    looked_at: Option<Timestamp>,
    wards: HashMap<u64, Ward>,
}

/// One session, as far as its certificate goes.
struct Ward {
    chain: Vec<CertificateDer<'static>>,
    id: SpiffeId,
    expires_at: Timestamp,
    /// When those end that the client sent with its own, the next one last.
    others_end: Vec<Timestamp>,
    standing: Arc<Standing>,
}

/// A session's place; given back when it is dropped.
pub(super) struct Watched {
    warden: Arc<Warden>,
    number: u64,
    pub(super) standing: Arc<Standing>,
}

impl Warden {
    /// `stop` ends what runs, whatever it is.
    pub(super) fn new(loaded: watch::Receiver<Arc<Loaded>>, stop: CancellationToken) -> Self {
        Self {
            loaded,
            stop,
            ledger: Mutex::default(),
        }
    }

    /// What holds now.
    pub(super) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.borrow())
    }

    /// Takes a session in whose certificate was good for `judged_by`, which may hold no more.
    pub(super) fn admit(
        self: &Arc<Self>,
        chain: &[CertificateDer<'_>],
        identity: &Identity,
        judged_by: &Arc<Loaded>,
    ) -> Watched {
        let owned = chain.iter().cloned().map(CertificateDer::into_owned);
        let ward = Ward {
            chain: owned.collect(),
            id: identity.id.clone(),
            expires_at: identity.expires_at,
            others_end: others_end(chain),
            standing: Arc::new(Standing::new(&self.stop)),
        };
        let standing = Arc::clone(&ward.standing);
        let mut ledger = self.lock();
        let number = ledger.next;
        ledger.next += 1;
        // Whoever comes between a change and its judgement is judged here.
        let now_holds = self.loaded();
        if !Arc::ptr_eq(&now_holds, judged_by) {
            ward.judge(&now_holds, Timestamp::now());
        }
        ledger.wards.insert(number, ward);
        drop(ledger);
        Watched {
            warden: Arc::clone(self),
            number,
            standing,
        }
    }

    /// Watches until the future is dropped.
    pub(super) async fn watch(&self) {
        let mut loaded = self.loaded.clone();
        loaded.mark_unchanged();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = loaded.changed() => match changed {
                    Ok(()) => {
                        // Not borrowed any more: who loads the next set does not wait for this.
                        let now_holds = Arc::clone(&loaded.borrow_and_update());
                        self.judge_all(&now_holds);
                    }
                    // Nobody loads any more: what ends by itself is left.
                    Err(_) => { ticks.tick().await; }
                },
                _ = ticks.tick() => {}
            }
            self.end_expired();
        }
    }

    fn end_expired(&self) {
        let now = Timestamp::now();
        let now_holds = self.loaded();
        let mut ledger = self.lock();
        let before = ledger.looked_at.replace(now);
        let is_less = before.is_some_and(|before| now_holds.has_ended_between(before, now));
        for ward in ledger.wards.values_mut() {
            if ward.expires_at < now {
                ward.standing.end(expired(ward.expires_at));
            } else if ward.has_lost_one(now) || is_less {
                // It may do without: another way may lead to a trusted CA.
                ward.judge(&now_holds, now);
            }
        }
    }

    fn judge_all(&self, loaded: &Loaded) {
        let now = Timestamp::now();
        let ledger = self.lock();
        let n_closed = ledger.wards.values().filter(|ward| ward.judge(loaded, now));
        info!(
            n_closed = n_closed.count(),
            n_sessions = ledger.wards.len(),
            "sessions were judged anew"
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the CAs between a certificate and those that are trusted end, the next one last.
fn others_end(chain: &[CertificateDer<'_>]) -> Vec<Timestamp> {
    let others = chain.iter().skip(1).map(Facts::read);
    let mut ends: Vec<_> = others.flatten().map(|facts| facts.not_after).collect();
    ends.sort_unstable();
    ends.reverse();
    ends
}

impl Ward {
    /// Whether one of the certificates between has ended since this was asked last.
    fn has_lost_one(&mut self, now: Timestamp) -> bool {
        // In whole seconds, as the verifier compares them.
        let is_over = |end: &mut Timestamp| end.as_second() < now.as_second();
        let n_before = self.others_end.len();
        while self.others_end.pop_if(is_over).is_some() {}
        self.others_end.len() < n_before
    }

    /// Ends the session if its certificate would not be let in now; says whether it did.
    fn judge(&self, loaded: &Loaded, now: Timestamp) -> bool {
        let Err(unfit) = loaded.verify(&self.chain, now) else {
            return self.judge_name(loaded, now);
        };
        let (code, message) = match unfit {
            Unfit::Expired if self.expires_at < now => {
                return self.standing.end(expired(self.expires_at));
            }
            Unfit::Expired => (
                ErrorCode::CertificateExpired,
                "a CA above your certificate expired: connect with one of a CA that is trusted here"
                    .to_owned(),
            ),
            Unfit::Revoked => (
                ErrorCode::CertificateRevoked,
                "your certificate was revoked".to_owned(),
            ),
            Unfit::Untrusted(why) => (
                ErrorCode::CertificateRevoked,
                format!("your certificate is not trusted any more: {why}"),
            ),
        };
        self.standing.end(ErrorReply { code, message })
    }

    /// Ends the session of a certificate that is good, and is somebody else or nobody by what is said
    /// of its CA now.
    fn judge_name(&self, loaded: &Loaded, now: Timestamp) -> bool {
        let why = match identify(&self.chain, &loaded.anchors, now) {
            Ok(identity) if identity.id == self.id => return false,
            Ok(identity) => format!("it names {} now", identity.id),
            Err(error) => error.to_string(),
        };
        self.standing.end(ErrorReply {
            code: ErrorCode::Denied,
            message: format!("you are not {} any more: {why}", self.id),
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.warden.lock().wards.remove(&self.number);
    }
}
