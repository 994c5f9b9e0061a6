//! How near its end a certificate is: by time, or by the part of its life that is left.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use super::issue::Validity;
use crate::escape::Escaped;

/// Longest window in hours: a hundred years.
const HOURS_MAX: i64 = 36_500 * 24;

/// How much of a certificate's life is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// So much of its life, in percent.
    Share(i32),
    Time(SignedDuration),
}

/// A text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text} is neither a part of a life, such as 33%, nor a time, such as 30d or 12h")]
pub struct WindowError {
    text: Escaped,
}

impl Window {
    /// Whether no more than this is left of a life.
    pub(super) fn holds(self, life: Validity, now: Timestamp) -> bool {
        let left = life.not_after.duration_since(now);
        let whole = life.not_after.duration_since(life.not_before);
        match self {
            Self::Share(percent) => left <= whole / 100 * percent,
            Self::Time(time) => left <= time,
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let refused = || WindowError {
            text: Escaped::new(text),
        };
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse::<i64>().ok().filter(|_| is_plain);
            number.ok_or_else(refused)
        };
        if let Some(digits) = text.strip_suffix('%') {
            let percent = i32::try_from(number(digits)?).map_err(|_| refused())?;
            return match percent {
                1..=100 => Ok(Self::Share(percent)),
                _ => Err(refused()),
            };
        }
        let hours = if let Some(digits) = text.strip_suffix('d') {
            number(digits)?.checked_mul(24).ok_or_else(refused)?
        } else if let Some(digits) = text.strip_suffix('h') {
            number(digits)?
        } else {
            return Err(refused());
        };
        match hours {
            1..=HOURS_MAX => Ok(Self::Time(SignedDuration::from_hours(hours))),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_part_or_a_time_and_nothing_else() {
        assert_eq!("33%".parse(), Ok(Window::Share(33)));
        let days = |days: i64| Ok(Window::Time(SignedDuration::from_hours(24 * days)));
        assert_eq!("30d".parse(), days(30));
        assert_eq!("24h".parse(), days(1));
        for text in [
            "",
            "%",
            "d",
            "0%",
            "101%",
            "0d",
            "-1d",
            "+1d",
            "1",
            "1w",
            "1.5d",
            "99999999d",
            "1 d",
            "9223372036854775807d",
            "\u{1b}[2J",
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert!(!error.to_string().contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn a_window_holds_at_its_edge_and_after_the_end() {
        let at = |hour: i64| Timestamp::from_second(hour * 3_600).unwrap();
        let life = Validity {
            not_before: at(0),
            not_after: at(100),
        };
        for (window, hour, expected) in [
            ("33%", 66, false),
            ("33%", 67, true),
            ("10h", 89, false),
            ("10h", 90, true),
            ("10h", 500, true),
            ("1%", 500, true),
        ] {
            let window: Window = window.parse().unwrap();
            assert_eq!(
                window.holds(life, at(hour)),
                expected,
                "{window:?} at {hour}"
            );
        }
    }
}
