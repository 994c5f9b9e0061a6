//! Where a reader begins, as the user types it.
//!
//! The forms are told apart by their shape alone: a number, a time, a duration, else a cursor.

use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use super::files::Failure;
use super::message_args::ReaderFlags;
use crate::label::CursorName;
use crate::protocol::Start;

/// A place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Since {
    /// After this record.
    Sequence(u64),
    /// At the first record that is not older.
    Time(Timestamp),
    /// That long ago.
    Ago(Duration),
    /// Where this cursor stands.
    Cursor(CursorName),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(sequence) = text.parse() {
            return Ok(Self::Sequence(sequence));
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        if let Ok(span) = text.parse::<Span>() {
            return ago(span).map(Self::Ago);
        }
        // A mistyped time must not become a new cursor.
        let cursor = match text.as_bytes().first() {
            Some(b'0'..=b'9') | None => None,
            Some(_) => text.parse().ok(),
        };
        cursor.map(Self::Cursor).ok_or_else(|| {
            "give a sequence number, a time such as 2026-11-25T10:00:00Z, a duration such as 1h or 7d, \
             or the name of a cursor (--cursor also takes one that begins with a digit)"
                .to_owned()
        })
    }
}

/// Days are of 24 hours: how long ago does not depend on where.
fn ago(span: Span) -> Result<Duration, String> {
    let wrong = || "a duration such as 1h or 7d is counted back from now".to_owned();
    let duration: SignedDuration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// What the flags say together.
pub(super) fn start(flags: &ReaderFlags, now: Timestamp) -> Result<Start, Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    let mut start = Start {
        cursor: flags.cursor.clone(),
        group: flags.group,
        ack_timeout: flags.ack_timeout.map(whole_seconds),
        ..Start::default()
    };
    match &flags.since {
        None => {}
        Some(Since::Sequence(sequence)) => start.since = Some(*sequence),
        Some(Since::Time(time)) => start.since_time = Some(*time),
        Some(Since::Ago(ago)) => match now.checked_sub(*ago) {
            Ok(time) => start.since_time = Some(time),
            // Longer ago than time goes back: from the beginning.
            Err(_) => start.since = Some(0),
        },
        Some(Since::Cursor(cursor)) if flags.cursor.as_ref().is_some_and(|it| it != cursor) => {
            return usage("--since and --cursor name two cursors: give one");
        }
        Some(Since::Cursor(cursor)) => start.cursor = Some(cursor.clone()),
    }
    if start.cursor.is_none() && (start.group || start.ack_timeout.is_some()) {
        return usage(
            "--group and --ack-timeout are for readers of a cursor: name it with --cursor",
        );
    }
    Ok(start)
}

/// The wire counts seconds; nothing is sent again too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&Since>) {
        assert_eq!(text.parse::<Since>().ok().as_ref(), expected, "{text}");
    }

    #[test]
    fn each_form_is_told_apart() {
        let hours = |n: u64| Since::Ago(Duration::from_secs(n * 3600));
        check("0", Some(&Since::Sequence(0)));
        check("4711", Some(&Since::Sequence(4711)));
        check("1h", Some(&hours(1)));
        check("90m", Some(&Since::Ago(Duration::from_secs(5400))));
        check("7d", Some(&hours(7 * 24)));
        check("1w", Some(&hours(7 * 24)));
        let time = "2026-11-25T10:00:00Z";
        check(time, Some(&Since::Time(time.parse().unwrap())));
        check("loader", Some(&Since::Cursor("loader".parse().unwrap())));
        for text in ["", "-1h", "1h ago", "Loader", "2026-11-25", "a b", "1month"] {
            check(text, None);
        }
    }

    fn flags(since: Option<&str>, cursor: Option<&str>) -> ReaderFlags {
        ReaderFlags {
            since: since.map(|text| text.parse().unwrap()),
            cursor: cursor.map(|text| text.parse().unwrap()),
            group: false,
            ack_timeout: None,
            no_ack: false,
            count: None,
            no_follow: false,
        }
    }

    #[test]
    fn flags_make_a_start() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        let made = |since, cursor| start(&flags(since, cursor), now).ok();
        let hour = made(Some("1h"), None).unwrap();
        assert_eq!(hour.since_time.unwrap().to_string(), "2026-11-25T09:00:00Z");
        assert_eq!(made(Some("99999d"), None).unwrap().since, None);
        assert_eq!(made(Some("7000000d"), None).unwrap().since, Some(0));
        let cursor = made(Some("loader"), None).unwrap().cursor;
        assert_eq!(cursor.unwrap().as_str(), "loader");
        assert!(made(Some("loader"), Some("loader")).is_some());
        assert!(made(Some("loader"), Some("other")).is_none());
        let alone = ReaderFlags {
            ack_timeout: Some(Duration::from_millis(1500)),
            ..flags(None, None)
        };
        assert!(start(&alone, now).is_err());
        let named = ReaderFlags {
            ack_timeout: Some(Duration::from_millis(1500)),
            ..flags(None, Some("loader"))
        };
        assert_eq!(start(&named, now).ok().unwrap().ack_timeout, Some(2));
    }
}
