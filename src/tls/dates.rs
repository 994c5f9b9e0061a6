//! Times as people read them.
//!
//! A time is shown to the minute, in UTC, with how far it is from now: that is what one looks for.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A time to the minute.
pub fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// A time to the minute, and how long ago it was or how soon it will be.
pub fn with_distance(time: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", minute(time), distance(time, now))
}

/// How long ago `time` was, or how soon it will be.
pub fn distance(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.as_second().saturating_sub(now.as_second());
    let length = length(seconds.saturating_abs());
    if seconds > 0 {
        format!("in {length}")
    } else {
        format!("{length} ago")
    }
}

fn length(seconds: i64) -> String {
    let (n, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        HOUR.. => (seconds / HOUR, "hour"),
        MINUTE.. => (seconds / MINUTE, "minute"),
        _ => (seconds, "second"),
    };
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_with_its_distance() {
        let now: Timestamp = "2026-11-23T06:34:10Z".parse().unwrap();
        for (time, expected) in [
            ("2026-11-20T06:34:00Z", "2026-11-20 06:34Z (3 days ago)"),
            ("2026-11-23T06:39:30Z", "2026-11-23 06:39Z (in 5 minutes)"),
            ("2026-11-23T05:34:09Z", "2026-11-23 05:34Z (1 hour ago)"),
            ("2026-11-23T06:34:11Z", "2026-11-23 06:34Z (in 1 second)"),
            ("2026-11-23T06:34:10Z", "2026-11-23 06:34Z (0 seconds ago)"),
        ] {
            assert_eq!(with_distance(time.parse().unwrap(), now), expected);
        }
        let far = with_distance(Timestamp::MAX, Timestamp::MIN);
        assert!(far.starts_with("9999-12-30 "), "{far}");
    }
}
