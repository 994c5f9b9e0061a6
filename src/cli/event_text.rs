//! One event, as lines: for people, and for programs.
//!
//! Whatever it holds, a message is one line.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::output::seconds;
use crate::client::Message;
use crate::escape::Escaped;
use crate::protocol::{Event, FileChange, FileState};

/// A line for each change.
pub(super) fn change_lines(event: &Event) -> Vec<String> {
    let by = Escaped::new(&event.identity);
    let head = format!("{} {}", event.sequence, seconds(event.time));
    let line = |change| format!("{head} {} by {by}", change_text(change));
    event.changes.iter().map(line).collect()
}

fn change_text(change: &FileChange) -> String {
    match change {
        FileChange::Created(file) => format!("created {}", file_text(file)),
        FileChange::Replaced(file) => format!("replaced {}", file_text(file)),
        FileChange::Removed { path } => format!("removed {path}"),
        FileChange::Moved { from, file } => format!("moved {from} -> {}", file_text(file)),
    }
}

fn file_text(file: &FileState) -> String {
    let found = if file.found { ", found" } else { "" };
    format!("{} ({} bytes{found})", file.path, file.size)
}

/// The topic, and what was said.
pub(super) fn message_line(message: &Message) -> String {
    let Message { event, payload } = message;
    let topic = event.topic.as_ref().map_or("-", |topic| topic.as_str());
    let said = match &event.attachment {
        Some(attachment) => format!(
            "({} bytes attached to {}, {})",
            attachment.size, event.sequence, attachment.digest
        ),
        None => Escaped::whole(&String::from_utf8_lossy(payload)).to_string(),
    };
    format!("{topic}: {said}")
}

/// The event, with the payload as JSON where it is JSON, else in base 64.
///
/// A number in it keeps every digit: the payload is not read into values.
pub(super) fn message_json(message: &Message) -> serde_json::Result<String> {
    let Message { event, payload } = message;
    let mut line = serde_json::to_string(event)?;
    if event.attachment.is_some() {
        return Ok(line);
    }
    line.pop();
    match json_line(payload) {
        Some(json) => line.extend([",\"payload\":", &json, "}"]),
        None => line.extend([",\"payload_base64\":\"", &STANDARD.encode(payload), "\"}"]),
    }
    Ok(line)
}

/// A JSON text on one line, if it is JSON: a line feed in it can only be white space.
pub(super) fn json_line(payload: &[u8]) -> Option<Cow<'_, str>> {
    serde_json::from_slice::<IgnoredAny>(payload).ok()?;
    let text = std::str::from_utf8(payload).ok()?.trim();
    if text.contains(['\n', '\r']) {
        return Some(text.replace(['\n', '\r'], " ").into());
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(more: &Value) -> Event {
        let mut event =
            json!({"sequence": 7, "time": "2026-11-25T10:00:00.25Z", "identity": "spiffe://a/b"});
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn each_change_is_a_line() {
        let time = "2026-11-25T10:00:00Z";
        let state = |change: &str, path: &str| json!({"change": change, "path": path, "size": 3, "modified": time});
        let mut moved = state("moved", "/d");
        moved["from"] = "/c".into();
        let removed = json!({"change": "removed", "path": "/b"});
        let changes = json!([
            state("created", "/a"),
            state("replaced", "/a"),
            removed,
            moved
        ]);
        let lines = change_lines(&event(&json!({"changes": changes})));
        let expected = [
            "7 2026-11-25T10:00:00Z created /a (3 bytes) by spiffe://a/b",
            "7 2026-11-25T10:00:00Z replaced /a (3 bytes) by spiffe://a/b",
            "7 2026-11-25T10:00:00Z removed /b by spiffe://a/b",
            "7 2026-11-25T10:00:00Z moved /c -> /d (3 bytes) by spiffe://a/b",
        ];
        assert_eq!(lines, expected);
    }

    #[track_caller]
    fn check(payload: &[u8], line: &str, json: &str) {
        let message = Message {
            event: event(&json!({"topic": "a/b"})),
            payload: payload.to_owned(),
        };
        assert_eq!(message_line(&message), format!("a/b: {line}"));
        let text = message_json(&message).unwrap();
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        let (_, payload) = text.split_once(r#""topic":"a/b","#).unwrap();
        assert_eq!(payload, format!("{json}}}"));
    }

    #[test]
    fn a_message_is_one_line_whatever_it_holds() {
        check(b"21.50", "21.50", r#""payload":21.50"#);
        check(b"\"hi\"", "\"hi\"", r#""payload":"hi""#);
        check(
            b"{\n\"a\": 1}\n",
            "{\\n\"a\": 1}\\n",
            r#""payload":{ "a": 1}"#,
        );
        check(b"a\nb", "a\\nb", r#""payload_base64":"YQpi""#);
        check(b"\x1b[2J", "\\u{1b}[2J", r#""payload_base64":"G1sySg==""#);
        check(b"\xff", "\\u{fffd}", r#""payload_base64":"/w==""#);
        check(b"", "", r#""payload_base64":"""#);
    }

    #[test]
    fn an_attachment_is_named_not_shown() {
        let digest = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        let attachment = json!({"size": 100_000, "digest": digest});
        let message = Message {
            event: event(&json!({"topic": "a", "attachment": attachment})),
            payload: Vec::new(),
        };
        let expected = format!("a: (100000 bytes attached to 7, {digest})");
        assert_eq!(message_line(&message), expected);
        assert!(!message_json(&message).unwrap().contains("payload"));
    }
}
