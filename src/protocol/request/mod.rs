//! What a client asks: one JSON object, `{"id":…,"op":"…",…}`.
//!
//! A field that is not known is refused: a condition that was passed over would be a lost file.

mod files;
mod messages;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use super::ErrorCode;
use super::json::{self, JsonError};
use crate::escape::Escaped;

pub use files::{Conditions, Copy, Get, List, Move, Put, Question, Remove, Stat};
pub use messages::{
    Ack, Answer, Call, Fetch, Forget, Last, LogVerify, Member, Publish, Reconcile, Stage, Start,
    Subscribe, Topics, Watch,
};

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
    /// Send a message, or several; a body follows.
    Publish(Publish),
    /// Turn the connection into a stream of messages.
    Subscribe(Subscribe),
    /// Turn the connection into a stream of changes of files.
    Watch(Watch),
    /// Say that what a cursor gave is done with.
    Ack(Ack),
    /// Take a cursor away.
    Forget(Forget),
    /// Read what is attached to a message; a body follows the answer.
    Fetch(Fetch),
    /// Send a message and wait for its reply; a body follows.
    Call(Call),
    /// Reply to a message; a body follows.
    Answer(Answer),
    /// Read one page of the topics.
    Topics(Topics),
    /// Read the latest message of each topic.
    Last(Last),
    /// Stage a content for a set; a body follows.
    Stage(Stage),
    /// Record what other programs did in the tree.
    Reconcile(Reconcile),
    /// Look for damaged records.
    LogVerify(LogVerify),
    /// Commit a set of files, its members line by line in the body that follows.
    Commit,
    /// Read what the log says of itself.
    LogStats,
    /// Ask who the certificate says the client is.
    Whoami,
    /// Ask for a sign of life.
    Ping,
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
            Self::Publish(_) => "publish",
            Self::Subscribe(_) => "subscribe",
            Self::Watch(_) => "watch",
            Self::Ack(_) => "ack",
            Self::Forget(_) => "forget",
            Self::Fetch(_) => "fetch",
            Self::Call(_) => "request",
            Self::Answer(_) => "reply",
            Self::Topics(_) => "topics",
            Self::Last(_) => "last",
            Self::Stage(_) => "stage",
            Self::Reconcile(_) => "reconcile",
            Self::LogVerify(_) => "log_verify",
            Self::Commit => "commit",
            Self::LogStats => "log_stats",
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
            Self::Publish(fields) => serde_json::to_value(fields),
            Self::Subscribe(fields) => serde_json::to_value(fields),
            Self::Watch(fields) => serde_json::to_value(fields),
            Self::Ack(fields) => serde_json::to_value(fields),
            Self::Forget(fields) => serde_json::to_value(fields),
            Self::Fetch(fields) => serde_json::to_value(fields),
            Self::Call(fields) => serde_json::to_value(fields),
            Self::Answer(fields) => serde_json::to_value(fields),
            Self::Topics(fields) => serde_json::to_value(fields),
            Self::Last(fields) => serde_json::to_value(fields),
            Self::Stage(fields) => serde_json::to_value(fields),
            Self::Reconcile(fields) => serde_json::to_value(fields),
            Self::LogVerify(fields) => serde_json::to_value(fields),
            Self::Commit | Self::LogStats | Self::Whoami | Self::Ping => {
                Ok(Value::Object(Map::new()))
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
        let op = match op.as_str() {
            "put" => Op::Put(fields(id, "put", map)?),
            "get" => Op::Get(fields(id, "get", map)?),
            "stat" => Op::Stat(fields(id, "stat", map)?),
            "list" => Op::List(fields(id, "list", map)?),
            "remove" => Op::Remove(fields(id, "remove", map)?),
            "move" => Op::Move(fields(id, "move", map)?),
            "copy" => Op::Copy(fields(id, "copy", map)?),
            "can" => Op::Can(fields(id, "can", map)?),
            "publish" => Op::Publish(fields(id, "publish", map)?),
            "subscribe" => Op::Subscribe(fields(id, "subscribe", map)?),
            "watch" => Op::Watch(fields(id, "watch", map)?),
            "ack" => Op::Ack(fields(id, "ack", map)?),
            "forget" => Op::Forget(fields(id, "forget", map)?),
            "fetch" => Op::Fetch(fields(id, "fetch", map)?),
            "request" => Op::Call(fields(id, "request", map)?),
            "reply" => Op::Answer(fields(id, "reply", map)?),
            "topics" => Op::Topics(fields(id, "topics", map)?),
            "last" => Op::Last(fields(id, "last", map)?),
            "stage" => Op::Stage(fields(id, "stage", map)?),
            "reconcile" => Op::Reconcile(fields(id, "reconcile", map)?),
            "log_verify" => Op::LogVerify(fields(id, "log_verify", map)?),
            "commit" => fields::<Nothing>(id, "commit", map).map(|_| Op::Commit)?,
            "log_stats" => fields::<Nothing>(id, "log_stats", map).map(|_| Op::LogStats)?,
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

impl Member {
    /// Reads one line of the body of `commit`.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not a member.
    pub fn decode(line: &[u8]) -> Result<Self, JsonError> {
        let map = json::object(line)?;
        serde_json::from_value(Value::Object(map)).map_err(|error| JsonError::of(&error))
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
