//! JSON as the wire has it: one object, plain integers, bounded depth.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::escape::Escaped;
use crate::json::{Numbers, value};

/// Deepest nesting of objects and arrays.
pub const DEPTH_MAX: usize = 16;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct JsonError(pub(super) String);

impl JsonError {
    pub(super) fn of(error: &serde_json::Error) -> Self {
        Self(Escaped::new(&error.to_string()).to_string())
    }
}

/// Reads exactly one JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let value = value(bytes, DEPTH_MAX, Numbers::Plain);
    match value.map_err(|why| JsonError(why.to_string()))? {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError("a message is a JSON object".to_owned())),
    }
}

/// Reads one JSON object as a value of a type.
pub(super) fn typed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let value = Value::Object(object(bytes)?);
    serde_json::from_value(value).map_err(|error| JsonError::of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: impl AsRef<[u8]>, why: &str) {
        let error = object(text.as_ref()).unwrap_err().to_string();
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    }

    #[test]
    fn what_readers_disagree_on_is_refused() {
        refused(r#"{"a":1,"a":1}"#, "stands twice");
        refused(r#"{"a":1,"\u0061":2}"#, "stands twice");
        refused(r#"{"x":{"a":1,"a":2}}"#, "stands twice");
        refused(r#"{"a":1.0}"#, "not a plain integer");
        refused(r#"{"a":1e3}"#, "not a plain integer");
        refused(r#"{"a":-0}"#, "not a plain integer");
        refused(r#"{"a":-1}"#, "negative");
        refused(r#"{"a":9007199254740992}"#, "is over");
        refused(r#"{"a":18446744073709551616}"#, "not a plain integer");
        refused(r#"{"a":1e999}"#, "out of range");
        refused(r#"{"a":NaN}"#, "expected");
        refused("{}{}", "trailing");
        refused("{} x", "trailing");
        refused("{\"a\":1,}", "trailing comma");
        refused("{'a':1}", "key must be a string");
        refused("/* */{}", "expected value");
        refused("\u{feff}{}", "expected value");
        refused(b"{\"a\":\"\xff\"}", "invalid unicode");
        refused(b"{\"a\":\"\xc0\xae\"}", "invalid unicode");
        refused(r#"{"a":"\ud800"}"#, "hex escape");
        for text in ["[]", "\"x\"", "null", "1", "true"] {
            refused(text, "is a JSON object");
        }
        refused("", "EOF");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        refused(nested(DEPTH_MAX), "nested deeper");
        refused("[".repeat(64 << 10), "nested deeper");
    }
}
