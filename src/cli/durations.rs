//! Times that a user types.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// A time, or none.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => duration(text),
    }
}

/// A time such as 30s, 1h30m or 7d; a day is 24 hours.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it like 30s, 5m, 1h30m or 7d".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    match duration.map(Duration::try_from) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        Ok(_) => Err("a time of more than nothing is needed".to_owned()),
        Err(_) => Err(wrong()),
    }
}
