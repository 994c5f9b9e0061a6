//! What a message says, from the command line, a file or standard input.
//!
//! On the command line it is JSON, so that a forgotten quote is found before it is sent; anything
//! else is bytes as they come.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::IgnoredAny;

use super::files::{Failure, request};
use super::message_args::ContentFlags;
use super::transfer::STANDARD;
use crate::client::file::open_regular;
use crate::client::{ClientError, PAYLOAD_SIZE_MAX};
use crate::escape::Escaped;

/// Where a message is.
#[derive(Debug)]
pub(super) enum Content {
    Json(String),
    /// A file, and its size.
    File(File, u64),
    StandardInput,
}

impl Content {
    /// What the flags name.
    pub(super) fn of(flags: ContentFlags) -> Result<Self, Failure> {
        match (flags.content, flags.file) {
            (Some(text), None) if text == STANDARD => Ok(Self::StandardInput),
            (Some(text), None) => match check_json(&text) {
                Ok(()) => Ok(Self::Json(text)),
                Err(text) => Err(Failure::Usage(text)),
            },
            (None, Some(path)) => Self::open(&path),
            (None, None) | (Some(_), Some(_)) => Err(Failure::Usage(
                "what is the message? give JSON, - for standard input, or --file FILE".to_owned(),
            )),
        }
    }

    /// An input of many messages.
    pub(super) fn of_lines(flags: ContentFlags) -> Result<Self, Failure> {
        match (flags.content, flags.file) {
            (None, Some(path)) => Self::open(&path),
            (Some(text), None) if text != STANDARD => Err(Failure::Usage(
                "--lines reads standard input or --file FILE, not the command line".to_owned(),
            )),
            _ => Ok(Self::StandardInput),
        }
    }

    fn open(path: &Path) -> Result<Self, Failure> {
        let opened = open_regular(path)
            .map_err(|error| request("read", &path.to_string_lossy())(ClientError::Source(error)));
        opened.map(|(file, size)| Self::File(file, size))
    }

    /// The bytes as they come.
    pub(super) fn into_reader(self) -> (Box<dyn Read + Send>, Option<u64>) {
        match self {
            Self::Json(text) => {
                let size = text.len() as u64;
                (Box::new(io::Cursor::new(text)), Some(size))
            }
            Self::File(file, size) => (Box::new(file), Some(size)),
            Self::StandardInput => (Box::new(io::stdin()), None),
        }
    }

    /// All of it, where it must fit one message.
    pub(super) async fn read_whole(self) -> Result<Vec<u8>, Failure> {
        let (reader, _) = self.into_reader();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let limit = PAYLOAD_SIZE_MAX as u64 + 1;
            reader.take(limit).read_to_end(&mut bytes).map(|_| bytes)
        });
        let read = read
            .await
            .unwrap_or_else(|lost| Err(io::Error::other(lost)));
        let bytes = read.map_err(|error| request("read", "")(ClientError::Source(error)))?;
        if bytes.len() > PAYLOAD_SIZE_MAX {
            return Err(Failure::Usage(format!(
                "a request or a reply is at most {PAYLOAD_SIZE_MAX} bytes: put more into a file, and say its name"
            )));
        }
        Ok(bytes)
    }
}

fn check_json(text: &str) -> Result<(), String> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "{} is not JSON ({error}): a string is written '\"hello\"'; any bytes go with - or --file",
            Escaped::new(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_refused_with_advice() {
        for text in ["1", "21.50", "\"hello\"", "{\"a\": [null]}", " true "] {
            assert_eq!(check_json(text), Ok(()), "{text}");
        }
        for text in ["", "hello", "{a: 1}", "'hello'", "1 2"] {
            let refused = check_json(text).unwrap_err();
            assert!(refused.contains("'\"hello\"'"), "{refused}");
        }
    }
}
