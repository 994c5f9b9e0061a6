//! How long to wait before the next try.
//!
//! Each failure doubles the wait, up to a limit; half of it is chance, so that a server that comes
//! back does not meet all of its readers at once.

use std::time::Duration;

use tokio::time::sleep;

/// Before the first try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between two tries, however many have failed.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Counts the tries since something last went well.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    n_tries: u32,
}

impl BackOff {
    /// Waits, longer than the last time.
    pub(super) async fn pause(&mut self) {
        sleep(self.next()).await;
    }

    /// Something went well.
    pub(super) const fn reset(&mut self) {
        self.n_tries = 0;
    }

    fn next(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.n_tries);
        let whole = PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX);
        self.n_tries = self.n_tries.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(chance())
    }
}

/// From 0 to 1; without a source of chance, all that is lost is the spread.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_begin_anew() {
        let mut back_off = BackOff::default();
        let first = back_off.next();
        assert!(first >= PAUSE_MIN / 2 && first <= PAUSE_MIN, "{first:?}");
        for _ in 0..100 {
            assert!(back_off.next() <= PAUSE_MAX);
        }
        assert!(back_off.next() >= PAUSE_MAX / 2);
        back_off.reset();
        assert!(back_off.next() <= PAUSE_MIN);
    }
}
