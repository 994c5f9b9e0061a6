//! Which refused handshakes are news.
//!
//! One that happens again and again is told once in a while, with how often it happened; all are
//! counted. What is held for that is bounded, whoever knocks.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one source's reason is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// Reasons of one source that are told in that time.
const REASONS_MAX: usize = 30;
/// Sources that are told apart.
const SOURCES_MAX: usize = 1024;
/// An IPv6 network of one holder.
const NETWORK_BITS: u32 = 64;

/// Counts refused handshakes, and says which are worth a line.
#[derive(Default)]
pub(super) struct Complaints {
    sources: Mutex<HashMap<IpAddr, Source>>,
    n_refused: AtomicU64,
}

struct Source {
    since: Instant,
    told: HashSet<u64>,
    n_untold: u64,
}

impl Complaints {
    /// Counts one refusal. Where it is worth a line: how many of this source were not told before.
    pub(super) fn count(&self, from: IpAddr, reason: impl Hash, now: Instant) -> Option<u64> {
        self.n_refused.fetch_add(1, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        reason.hash(&mut hasher);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let from = network(from);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&from) {
            sources.retain(|_, source| now.saturating_duration_since(source.since) < QUIET);
            if sources.len() >= SOURCES_MAX {
                return None;
            }
        }
        let source = sources.entry(from).or_insert_with(|| Source {
            since: now,
            told: HashSet::new(),
            n_untold: 0,
        });
        if now.saturating_duration_since(source.since) >= QUIET {
            source.since = now;
            source.told.clear();
        }
        if source.told.len() >= REASONS_MAX || !source.told.insert(hasher.finish()) {
            source.n_untold += 1;
            return None;
        }
        Some(std::mem::take(&mut source.n_untold))
    }

    /// How many handshakes were refused so far.
    pub(super) fn n_refused(&self) -> u64 {
        self.n_refused.load(Ordering::Relaxed)
    }
}

/// Who has one address of IPv6 has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or_else(
            || {
                let bits = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            },
            IpAddr::V4,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn a_reason_is_told_once_in_a_while_and_always_counted() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.count(source(1), "expired", start), Some(0));
        assert_eq!(complaints.count(source(1), "expired", start), None);
        assert_eq!(complaints.count(source(2), "expired", start), Some(0));
        assert_eq!(complaints.count(source(1), "revoked", start), Some(1));
        assert_eq!(
            complaints.count(source(1), "expired", start + QUIET / 2),
            None
        );
        assert_eq!(
            complaints.count(source(1), "expired", start + QUIET),
            Some(1)
        );
        assert_eq!(complaints.n_refused(), 6);
    }

    #[test]
    fn one_source_with_many_reasons_is_bounded() {
        let complaints = Complaints::default();
        let now = Instant::now();
        let told = (0..10_000).filter(|n| complaints.count(source(1), n, now).is_some());
        assert_eq!(told.count(), REASONS_MAX);
        let v6 = |n: u128| IpAddr::V6(Ipv6Addr::from_bits((0xfd00 << 112) + n));
        let told = (0..10_000).filter(|n| complaints.count(v6(*n), n, now).is_some());
        assert_eq!(told.count(), REASONS_MAX);
        assert_eq!(complaints.n_refused(), 20_000);
    }

    #[test]
    fn many_sources_are_bounded_and_make_room_again() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let told = (0..10_000).filter(|n| complaints.count(source(*n), "x", start).is_some());
        assert_eq!(told.count(), SOURCES_MAX);
        assert_eq!(complaints.sources.lock().unwrap().len(), SOURCES_MAX);
        assert_eq!(
            complaints.count(source(20_000), "x", start + QUIET),
            Some(0)
        );
        assert_eq!(complaints.sources.lock().unwrap().len(), 1);
    }
}
