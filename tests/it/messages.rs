//! Messages, from outside: published, read, remembered by cursors, shared by groups, replied to.

mod calls;
mod cursors;
mod fan_out;
mod groups;
mod interruptions;
mod publishing;
mod retention;
mod sets;
mod wrong;

use std::time::Duration;

use fsvc::client::{Client, ClientError, Delivery, Message, Options, PublishOptions, Subscription};
use fsvc::filter::TopicFilter;
use fsvc::label::CursorName;
use fsvc::path::Topic;
use fsvc::protocol::Start;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::harness::{Server, Setup};
use crate::raw::{Raw, body, message};

const POLICY: &str = r#"
    [[grant]]
    to = "spiffe://test.internal/client/*"
    allow = ["list", "read", "create", "replace", "delete", "admin"]
    on = "/**"
    [[grant]]
    to = "spiffe://test.internal/client/*"
    allow = ["publish", "subscribe"]
    on = "topic:**"
"#;

/// Longest wait for anything that must come.
pub const LIMIT: Duration = Duration::from_secs(30);

pub fn client(server: &Server, name: &str) -> Client {
    client_at(&server.address, server, name)
}

/// A client that reaches the server by another address.
pub fn client_at(address: &str, server: &Server, name: &str) -> Client {
    let mut options = Options::from_directory(address, server.certs(), name);
    options.retry_for = Duration::ZERO;
    Client::new(options).unwrap()
}

/// A server at which every client may do everything, also look after the log.
pub fn serve() -> Server {
    serve_with(&[])
}

pub fn serve_with(arguments: &[&str]) -> Server {
    Server::start_with(Setup {
        policy: Some(POLICY.to_owned()),
        arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        ..Setup::default()
    })
}

pub fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

pub fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

pub fn cursor(text: &str) -> CursorName {
    text.parse().unwrap()
}

pub fn filters(texts: &[&str]) -> Vec<TopicFilter> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub fn since(sequence: u64) -> Start {
    Start {
        since: Some(sequence),
        ..Start::default()
    }
}

/// A reader of a cursor that begins at the beginning.
pub fn with_cursor(name: &str) -> Start {
    Start {
        cursor: Some(cursor(name)),
        ..since(0)
    }
}

pub async fn subscribe(client: &Client, texts: &[&str], start: Start) -> Subscription {
    client.subscribe(filters(texts), start).await.unwrap()
}

/// Publishes a text; its sequence number.
pub async fn say(client: &Client, on: &str, text: &str) -> u64 {
    let on = topic(on);
    let published = client.publish(&on, text, PublishOptions::default());
    published.await.unwrap().sequence
}

/// What comes next, or why nothing does.
pub async fn next(stream: &mut Subscription) -> Result<Delivery, ClientError> {
    let next = timeout(LIMIT, stream.next()).await;
    next.expect("the stream is silent").expect("it has ended")
}

/// The next event; marks of being up to date are passed over.
pub async fn event(stream: &mut Subscription) -> Message {
    let event = async {
        loop {
            match next(stream).await.unwrap() {
                Delivery::Event(message) => return message,
                Delivery::CaughtUp(_) => {}
                Delivery::Lost(lost) => panic!("{lost:?}"),
            }
        }
    };
    timeout(LIMIT, event).await.expect("no event came")
}

/// The texts of the next events.
pub async fn texts(stream: &mut Subscription, n: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..n {
        texts.push(String::from_utf8(event(stream).await.payload).unwrap());
    }
    texts
}

/// Everything up to the first mark of being up to date.
pub async fn caught_up(stream: &mut Subscription) -> Vec<Delivery> {
    let mut seen = Vec::new();
    loop {
        match next(stream).await.unwrap() {
            Delivery::CaughtUp(_) => return seen,
            delivery => seen.push(delivery),
        }
    }
}

/// Why the stream ends; what it gives before is passed over.
pub async fn end(stream: &mut Subscription) -> ClientError {
    loop {
        if let Err(error) = next(stream).await {
            return error;
        }
    }
}

/// The code with which something was refused.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    let error = result.unwrap_err();
    let code = error.code().unwrap_or_else(|| panic!("{error}"));
    code.to_string()
}

/// Asks with a body.
#[track_caller]
pub fn ask_with(raw: &mut Raw, request: &str, content: &[u8]) -> serde_json::Value {
    raw.send(&[message(request), body(content)].concat());
    raw.answer()
}
