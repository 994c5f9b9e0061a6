//! What a client asks: one JSON object, `{"id":…,"op":"…",…}`.
//!
//! A field that is not known is refused: a condition that was passed over would be a lost file.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::ErrorCode;
use super::json::{self, JsonError};
use crate::escape::Escaped;
use crate::path::{Prefix, RemotePath};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client; the answer repeats it.
    pub id: u64,
    pub op: Op,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write a file; a body follows.
    Put(Put),
    /// Read a file; a body follows the answer.
    Get(Get),
    /// Read a file's metadata.
    Stat(Stat),
    /// Read one page of a directory.
    List(List),
    /// Remove a file.
    Remove(Remove),
    /// Give a file another name.
    Move(Move),
    /// Write a file with the content of another.
    Copy(Copy),
    /// Ask whether a request would be allowed.
    Can(Question),
    /// Ask who the certificate says the client is.
    Whoami,
    /// Ask for a sign of life.
    Ping,
}

/// What must hold about a file for a change to be made; checked inside the append.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// No file may be there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// The file must be there, at this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    pub path: RemotePath,
    /// How many bytes will come, where the sender knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    pub path: RemotePath,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    pub path: RemotePath,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    pub path: Prefix,
    /// The last name of the page before; names after it are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    pub path: RemotePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    pub from: RemotePath,
    pub to: RemotePath,
    /// No file may be at `to`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// The version that `from` must be at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    pub from: RemotePath,
    pub to: RemotePath,
    /// No file may be at `to`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// The version that `from` must be at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

/// `can`: an action as the policy spells it, and what it would be done on, as the policy spells it
/// (`/a/b` or `topic:a/b`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub action: String,
    pub on: String,
}

/// Why bytes are not a request. The frame was whole, so the connection lives on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("not a message: {0}")]
    Json(#[from] JsonError),
    #[error("a request needs an \"id\", an integer from 0 to 2^53-1")]
    NoId,
    #[error("a request needs an \"op\", a string")]
    NoOp { id: u64 },
    #[error("the op {op} is not known here")]
    UnknownOp { id: u64, op: Escaped },
    #[error("{op}: {source}")]
    Fields {
        id: u64,
        op: &'static str,
        source: JsonError,
    },
}

impl RequestError {
    /// The request's id, where it could be read.
    pub const fn id(&self) -> Option<u64> {
        match self {
            Self::Json(_) | Self::NoId => None,
            Self::NoOp { id } | Self::UnknownOp { id, .. } | Self::Fields { id, .. } => Some(*id),
        }
    }

    /// What the client is answered.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownOp { .. } => ErrorCode::Unsupported,
            Self::Json(_) | Self::NoId | Self::NoOp { .. } | Self::Fields { .. } => {
                ErrorCode::BadRequest
            }
        }
    }
}

impl Put {
    /// The conditions, as one value.
    pub const fn conditions(&self) -> Conditions {
        Conditions {
            if_absent: self.if_absent,
            if_version: self.if_version,
        }
    }
}

impl Op {
    /// The op's name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::Get(_) => "get",
            Self::Stat(_) => "stat",
            Self::List(_) => "list",
            Self::Remove(_) => "remove",
            Self::Move(_) => "move",
            Self::Copy(_) => "copy",
            Self::Can(_) => "can",
            Self::Whoami => "whoami",
            Self::Ping => "ping",
        }
    }

    fn fields(&self) -> serde_json::Result<Value> {
        match self {
            Self::Put(fields) => serde_json::to_value(fields),
            Self::Get(fields) => serde_json::to_value(fields),
            Self::Stat(fields) => serde_json::to_value(fields),
            Self::List(fields) => serde_json::to_value(fields),
            Self::Remove(fields) => serde_json::to_value(fields),
            Self::Move(fields) => serde_json::to_value(fields),
            Self::Copy(fields) => serde_json::to_value(fields),
            Self::Can(fields) => serde_json::to_value(fields),
            Self::Whoami | Self::Ping => Ok(Value::Object(Map::new())),
        }
    }
}

impl Request {
    /// Reads a request out of a message's bytes.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not a request; see [`RequestError::code`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        let mut map = json::object(bytes)?;
        let id = map
            .remove("id")
            .and_then(|id| id.as_u64())
            .ok_or(RequestError::NoId)?;
        let Some(Value::String(op)) = map.remove("op") else {
            return Err(RequestError::NoOp { id });
        };
        let op = match op.as_str() {
            "put" => Op::Put(fields(id, "put", map)?),
            "get" => Op::Get(fields(id, "get", map)?),
            "stat" => Op::Stat(fields(id, "stat", map)?),
            "list" => Op::List(fields(id, "list", map)?),
            "remove" => Op::Remove(fields(id, "remove", map)?),
            "move" => Op::Move(fields(id, "move", map)?),
            "copy" => Op::Copy(fields(id, "copy", map)?),
            "can" => Op::Can(fields(id, "can", map)?),
            "whoami" => fields::<Nothing>(id, "whoami", map).map(|_| Op::Whoami)?,
            "ping" => fields::<Nothing>(id, "ping", map).map(|_| Op::Ping)?,
            other => {
                return Err(RequestError::UnknownOp {
                    id,
                    op: Escaped::new(other),
                });
            }
        };
        Ok(Self { id, op })
    }

    /// The message's bytes.
    ///
    /// # Panics
    /// Never: every field is a string, an integer or a boolean.
    pub fn encode(&self) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("id".to_owned(), self.id.into());
        map.insert("op".to_owned(), self.op.name().into());
        if let Value::Object(fields) = self.op.fields().expect("plain fields are JSON") {
            map.extend(fields);
        }
        serde_json::to_vec(&map).expect("a map of JSON values is JSON")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn fields<T: DeserializeOwned>(
    id: u64,
    op: &'static str,
    map: Map<String, Value>,
) -> Result<T, RequestError> {
    let refused = |source| RequestError::Fields { id, op, source };
    // Taken for absent, a condition of null would be passed over.
    if let Some((name, _)) = map.iter().find(|(_, value)| value.is_null()) {
        let name = Escaped::new(name);
        let text = format!("the field \"{name}\" is null; leave out what has no value");
        return Err(refused(JsonError(text)));
    }
    serde_json::from_value(Value::Object(map)).map_err(|error| refused(JsonError::of(&error)))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn golden(text: &str) {
        let request = Request::decode(text.as_bytes()).unwrap();
        let again = Request::decode(&request.encode()).unwrap();
        assert_eq!(request, again);
        let (a, b): (Value, Value) = (
            serde_json::from_str(text).unwrap(),
            serde_json::from_slice(&request.encode()).unwrap(),
        );
        assert_eq!(a, b);
    }

    #[test]
    fn golden_requests_round_trip() {
        golden(r#"{"id":1,"op":"put","path":"/a","size":3,"if_absent":true}"#);
        golden(r#"{"id":2,"op":"put","path":"/a/b","if_version":7}"#);
        golden(r#"{"id":3,"op":"get","path":"/a"}"#);
        golden(r#"{"id":4,"op":"stat","path":"/a"}"#);
        golden(r#"{"id":5,"op":"list","path":"/a/","after":"x"}"#);
        golden(r#"{"id":6,"op":"remove","path":"/a","if_version":1}"#);
        golden(r#"{"id":7,"op":"move","from":"/a","to":"/b","if_absent":true}"#);
        golden(r#"{"id":8,"op":"copy","from":"/a","to":"/b","if_version":2}"#);
        golden(r#"{"id":9,"op":"can","action":"read","on":"/a"}"#);
        golden(r#"{"id":10,"op":"whoami"}"#);
        golden(r#"{"id":11,"op":"ping"}"#);
    }

    #[track_caller]
    fn refused(text: &str, id: Option<u64>, code: ErrorCode) {
        let error = Request::decode(text.as_bytes()).unwrap_err();
        assert_eq!((error.id(), error.code()), (id, code), "{error}");
    }

    #[test]
    fn bad_requests_name_their_id_where_it_is_known() {
        refused("{}", None, ErrorCode::BadRequest);
        refused(r#"{"id":"1","op":"ping"}"#, None, ErrorCode::BadRequest);
        refused(r#"{"id":1}"#, Some(1), ErrorCode::BadRequest);
        refused(r#"{"id":1,"op":7}"#, Some(1), ErrorCode::BadRequest);
        refused(r#"{"id":1,"op":"format"}"#, Some(1), ErrorCode::Unsupported);
        refused(
            r#"{"id":1,"op":"ping","x":1}"#,
            Some(1),
            ErrorCode::BadRequest,
        );
        refused(
            r#"{"id":1,"op":"put","path":"/a","if_absnt":true}"#,
            Some(1),
            ErrorCode::BadRequest,
        );
        refused(
            r#"{"id":1,"op":"put","path":"/a","size":"3"}"#,
            Some(1),
            ErrorCode::BadRequest,
        );
        refused(
            r#"{"id":1,"op":"get","path":"/../a"}"#,
            Some(1),
            ErrorCode::BadRequest,
        );
        refused(r#"{"id":1,"op":"get"}"#, Some(1), ErrorCode::BadRequest);
    }
}
