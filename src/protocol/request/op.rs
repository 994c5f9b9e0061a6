//! What can be asked, and the name of each on the wire.

use serde_json::{Map, Value};

use super::{
    Abort, Ack, Answer, Append, Begin, Call, Commit, Copy, Fetch, Forget, Get, GetMany, Last, List,
    LogVerify, Move, Publish, Put, PutMany, Question, Reconcile, Remove, Signature, Stage, Stat,
    Status, Subscribe, Topics, Uploads, Watch, Write,
};

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
    Commit(Commit),
    /// Write bytes behind those of a file; a body follows.
    Append(Append),
    /// Begin an upload.
    Begin(Begin),
    /// Send some parts of an upload; a body follows.
    Write(Write),
    /// Ask which parts of an upload are there.
    Status(Status),
    /// Give an upload up.
    Abort(Abort),
    /// Read one page of the client's own uploads.
    Uploads(Uploads),
    /// Read the chunks of a file; a body follows the answer.
    Signature(Signature),
    /// Write many small files; a body follows.
    PutMany(PutMany),
    /// Read many small files; a body follows the answer.
    GetMany(GetMany),
    /// Read what the log says of itself.
    LogStats,
    /// Ask who the certificate says the client is.
    Whoami,
    /// Ask for a sign of life.
    Ping,
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
            Self::Commit(_) => "commit",
            Self::Append(_) => "append",
            Self::Begin(_) => "begin",
            Self::Write(_) => "write",
            Self::Status(_) => "status",
            Self::Abort(_) => "abort",
            Self::Uploads(_) => "uploads",
            Self::Signature(_) => "signature",
            Self::PutMany(_) => "put_many",
            Self::GetMany(_) => "get_many",
            Self::LogStats => "log_stats",
            Self::Whoami => "whoami",
            Self::Ping => "ping",
        }
    }

    pub(super) fn fields(&self) -> serde_json::Result<Value> {
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
            Self::Commit(fields) => serde_json::to_value(fields),
            Self::Append(fields) => serde_json::to_value(fields),
            Self::Begin(fields) => serde_json::to_value(fields),
            Self::Write(fields) => serde_json::to_value(fields),
            Self::Status(fields) => serde_json::to_value(fields),
            Self::Abort(fields) => serde_json::to_value(fields),
            Self::Uploads(fields) => serde_json::to_value(fields),
            Self::Signature(fields) => serde_json::to_value(fields),
            Self::PutMany(fields) => serde_json::to_value(fields),
            Self::GetMany(fields) => serde_json::to_value(fields),
            Self::LogStats | Self::Whoami | Self::Ping => Ok(Value::Object(Map::new())),
        }
    }
}
