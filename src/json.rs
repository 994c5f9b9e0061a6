//! Strict reading of JSON: what two readers could understand differently is refused.
//!
//! Exactly one value in UTF-8, no duplicate keys at any level, bounded depth, and numbers that every
//! reader holds exactly, or at least holds (RFC 7493, sections 2.2 and 2.3).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::escape::Escaped;

/// Largest integer that every reader holds exactly, 2^53 - 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Which numbers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Plain integers from 0 to [`INTEGER_MAX`].
    Plain,
    /// All that are finite.
    Finite,
}

/// Reads exactly one JSON value, nested at most `depth_max` levels; the error says why it is none.
///
/// # Errors
/// The bytes are not such a value.
pub fn value(bytes: &[u8], depth_max: usize, numbers: Numbers) -> Result<Value, Escaped> {
    let why = |error: serde_json::Error| Escaped::new(&error.to_string());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let strict = Strict {
        depth: 0,
        depth_max,
        numbers,
    };
    let value = strict.deserialize(&mut reader).map_err(why)?;
    reader.end().map_err(why)?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
    depth_max: usize,
    numbers: Numbers,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == self.depth_max {
            let text = format_args!("nested deeper than {} levels", self.depth_max);
            return Err(E::custom(text));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
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

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        if self.numbers == Numbers::Plain && value > INTEGER_MAX {
            let text = format_args!("the number {value} is over {INTEGER_MAX}");
            return Err(E::custom(text));
        }
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        if self.numbers == Numbers::Plain {
            return Err(E::custom(format_args!("the number {value} is negative")));
        }
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if self.numbers == Numbers::Plain {
            let text = format_args!("the number {value} is not a plain integer in range");
            return Err(E::custom(text));
        }
        let number = Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom(format_args!("{value} is not finite")))?;
        Ok(Value::Number(number))
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
                let text = format_args!("the key \"{key}\" stands twice");
                return Err(A::Error::custom(text));
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
        let error = value(text.as_ref(), 4, Numbers::Finite)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    }

    #[test]
    fn what_readers_disagree_on_is_refused() {
        refused(r#"{"a":1,"a":1}"#, "stands twice");
        refused(r#"{"a":1,"\u0061":2}"#, "stands twice");
        refused(r#"[{"x":{"a":1,"a":2}}]"#, "stands twice");
        refused("1e999", "out of range");
        refused("-1e999", "out of range");
        refused("NaN", "expected");
        refused("Infinity", "expected");
        refused("-Infinity", "invalid number");
        refused("01", "invalid number");
        refused("{}{}", "trailing");
        refused("[1,]", "trailing comma");
        refused("\u{feff}{}", "expected value");
        refused(b"\"\xff\"", "invalid unicode");
        refused(r#""\ud800""#, "hex escape");
        refused("", "EOF");
        refused("[[[[[]]]]]", "nested deeper than 4 levels");
        refused("[".repeat(64 << 10), "nested deeper");
        refused(r#"{"\u001b[2J":1,"\u001b[2J":1}"#, r"\u{1b}[2J");
    }

    #[test]
    fn numbers_of_telemetry_are_read() {
        for text in ["-1", "0.25", "-1.5e-300", "1e308", "18446744073709551615"] {
            let read = value(text.as_bytes(), 0, Numbers::Finite).unwrap();
            assert_eq!(read, text.parse::<Value>().unwrap(), "{text}");
        }
        assert!(value(b"[[[[1]]]]", 4, Numbers::Finite).is_ok());
    }
}
