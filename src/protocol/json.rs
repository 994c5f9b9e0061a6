//! Strict reading of JSON: what two readers could understand differently is refused.
//!
//! No duplicate keys at any level, bounded depth, integers only, within the range that every JSON
//! reader holds exactly (RFC 7493, sections 2.2 and 2.3).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::escape::Escaped;

/// Deepest nesting of objects and arrays.
pub const DEPTH_MAX: usize = 16;
/// Largest integer, 2^53 - 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

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
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }
        .deserialize(&mut reader)
        .map_err(|error| JsonError::of(&error))?;
    reader.end().map_err(|error| JsonError::of(&error))?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError("a message is a JSON object".to_owned())),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!(
                "nested deeper than {DEPTH_MAX} levels"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            return Err(E::custom(format_args!(
                "the number {value} is over {INTEGER_MAX}"
            )));
        }
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        Err(E::custom(format_args!("the number {value} is negative")))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Err(E::custom(format_args!(
            "the number {value} is not a plain integer in range"
        )))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key \"{key}\" stands twice"
                )));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
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
