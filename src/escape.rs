//! Text from elsewhere, made harmless.
//!
//! What another machine sent is shown to a person, or written to a log, only through [`Escaped`].

use std::error::Error;
use std::fmt;

/// Characters that control, hide or reorder text.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{FEFF}'
            | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{FFF9}'..='\u{FFFF}' | '\u{E0000}'..='\u{E0FFF}')
}

/// An error with its causes, on one line. The error's own text is taken as it is, the causes are
/// escaped; one that the text ends with already is not said twice.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {}", Escaped::new(&next));
        }
        source = cause.source();
    }
    text
}

/// A text without the characters that a terminal or a log reader might act on, cut to a bounded
/// length.
#[derive(Clone, PartialEq, Eq)]
pub struct Escaped(String);

impl Escaped {
    /// Bytes shown before the cut.
    pub const SIZE_MAX: usize = 256;

    /// Escapes and cuts `text`, as for a message or a log line.
    pub fn new(text: &str) -> Self {
        let mut shown = String::new();
        for c in text.chars() {
            if shown.len() >= Self::SIZE_MAX {
                shown.push('…');
                break;
            }
            push(&mut shown, c);
        }
        Self(shown)
    }

    /// Escapes all of `text`, as for a listing.
    pub fn whole(text: &str) -> Self {
        let mut shown = String::with_capacity(text.len());
        text.chars().for_each(|c| push(&mut shown, c));
        Self(shown)
    }
}

fn push(shown: &mut String, c: char) {
    if is_hidden(c) {
        shown.extend(c.escape_default());
    } else {
        shown.push(c);
    }
}

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_holds_nothing_hidden_and_is_bounded() {
        let shown = Escaped::new("a\u{1b}]8;;x\u{7}\r\n\u{202e}b").to_string();
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert_eq!(shown, "a\\u{1b}]8;;x\\u{7}\\r\\n\\u{202e}b");
        assert!(Escaped::new(&"x".repeat(10_000)).to_string().len() < 300);
    }
}
