//! What a client asks: one JSON object, `{"id":…,"op":"…",…}`.
//!
//! A field that is not known is refused: a condition that was passed over would be a lost file.

mod files;
mod messages;
mod op;
mod uploads;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use super::ErrorCode;
use super::json::{self, JsonError};
use crate::escape::Escaped;
use crate::path::RemotePath;

pub use files::{Append, Conditions, Copy, Get, List, Move, Put, Question, Remove, Stat};
pub use messages::{
    Ack, Answer, Call, Fetch, Forget, Last, LogVerify, Member, Publish, Reconcile, Stage, Start,
    Subscribe, Topics, Watch,
};
pub use op::Op;
pub use uploads::{
    ABORTED_MAX, Abort, Begin, Commit, GetMany, PutMany, Signature, Status, Uploads, Write,
};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client; the answer repeats it.
    pub id: u64,
    pub op: Op,
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
        let op = Op::decode(id, &op, map)?;
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

impl Op {
    /// Reads the op of this name out of its fields.
    fn decode(id: u64, name: &str, map: Map<String, Value>) -> Result<Self, RequestError> {
        Ok(match name {
            "put" => Self::Put(fields(id, "put", map)?),
            "get" => Self::Get(fields(id, "get", map)?),
            "stat" => Self::Stat(fields(id, "stat", map)?),
            "list" => Self::List(fields(id, "list", map)?),
            "remove" => Self::Remove(fields(id, "remove", map)?),
            "move" => Self::Move(fields(id, "move", map)?),
            "copy" => Self::Copy(fields(id, "copy", map)?),
            "can" => Self::Can(fields(id, "can", map)?),
            "stage" => Self::Stage(fields(id, "stage", map)?),
            "commit" => Self::Commit(fields(id, "commit", map)?),
            "append" => Self::Append(fields(id, "append", map)?),
            "begin" => Self::Begin(fields(id, "begin", map)?),
            "write" => Self::Write(fields(id, "write", map)?),
            "status" => Self::Status(fields(id, "status", map)?),
            "abort" => Self::Abort(fields(id, "abort", map)?),
            "uploads" => Self::Uploads(fields(id, "uploads", map)?),
            "signature" => Self::Signature(fields(id, "signature", map)?),
            "put_many" => Self::PutMany(fields(id, "put_many", map)?),
            "get_many" => Self::GetMany(fields(id, "get_many", map)?),
            _ => return Self::decode_other(id, name, map),
        })
    }

    /// The same of an op that is not about the content of files.
    fn decode_other(id: u64, name: &str, map: Map<String, Value>) -> Result<Self, RequestError> {
        Ok(match name {
            "publish" => Self::Publish(fields(id, "publish", map)?),
            "subscribe" => Self::Subscribe(fields(id, "subscribe", map)?),
            "watch" => Self::Watch(fields(id, "watch", map)?),
            "ack" => Self::Ack(fields(id, "ack", map)?),
            "forget" => Self::Forget(fields(id, "forget", map)?),
            "fetch" => Self::Fetch(fields(id, "fetch", map)?),
            "request" => Self::Call(fields(id, "request", map)?),
            "reply" => Self::Answer(fields(id, "reply", map)?),
            "topics" => Self::Topics(fields(id, "topics", map)?),
            "last" => Self::Last(fields(id, "last", map)?),
            "reconcile" => Self::Reconcile(fields(id, "reconcile", map)?),
            "log_verify" => Self::LogVerify(fields(id, "log_verify", map)?),
            "log_stats" => fields::<Nothing>(id, "log_stats", map).map(|_| Self::LogStats)?,
            "whoami" => fields::<Nothing>(id, "whoami", map).map(|_| Self::Whoami)?,
            "ping" => fields::<Nothing>(id, "ping", map).map(|_| Self::Ping)?,
            _ => {
                let op = Escaped::new(name);
                return Err(RequestError::UnknownOp { id, op });
            }
        })
    }
}

impl Member {
    /// The file at `path` becomes what was staged.
    pub const fn put(path: RemotePath, staged: String) -> Self {
        Self {
            path,
            staged: Some(staged),
            remove: false,
            if_absent: false,
            if_version: None,
            digest: None,
            attributes: None,
        }
    }

    /// Reads one line of the body of `commit`.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not a member.
    pub fn decode(line: &[u8]) -> Result<Self, JsonError> {
        json::typed(line)
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
        golden(r#"{"id":12,"op":"publish","topic":"a/b","size":3,"dedup_id":"x","lines":true}"#);
        golden(
            r#"{"id":13,"op":"subscribe","topics":["a/*","b/**"],"since":0,"cursor":"c","group":true,"ack_timeout":5}"#,
        );
        golden(r#"{"id":14,"op":"watch","path":"/a/","since_time":"2026-11-25T10:00:00Z"}"#);
        golden(r#"{"id":15,"op":"ack","cursor":"c","sequence":7}"#);
        golden(r#"{"id":16,"op":"forget","cursor":"c"}"#);
        golden(r#"{"id":17,"op":"fetch","sequence":7}"#);
        golden(r#"{"id":18,"op":"request","topic":"a","size":3,"timeout":5}"#);
        golden(r#"{"id":19,"op":"reply","to":7,"size":3}"#);
        golden(r#"{"id":20,"op":"topics","filter":"a/**","after":"a/b"}"#);
        golden(r#"{"id":21,"op":"last","topics":["a/*"]}"#);
        golden(r#"{"id":22,"op":"stage","size":3}"#);
        golden(r#"{"id":23,"op":"commit"}"#);
        golden(r#"{"id":24,"op":"reconcile","path":"/a/","after":"/a/b"}"#);
        golden(r#"{"id":25,"op":"log_stats"}"#);
        golden(r#"{"id":26,"op":"log_verify","from":1}"#);
        golden(r#"{"id":27,"op":"put","path":"/a","request_id":"x"}"#);
        golden(r#"{"id":28,"op":"remove","path":"/a","request_id":"x"}"#);
        golden(r#"{"id":29,"op":"move","from":"/a","to":"/b","request_id":"x"}"#);
        golden(r#"{"id":30,"op":"copy","from":"/a","to":"/b","request_id":"x"}"#);
        golden(r#"{"id":31,"op":"commit","request_id":"x"}"#);
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
