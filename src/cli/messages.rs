//! The commands on messages and cursors.
//!
//! Payloads are results: they go to standard output as they are, or as one line.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::event_text::{json_line, message_json, message_line};
use super::files::{Outcome, request};
use super::message_args::MessageCommand;
use super::output::{Output, line_out, seconds};
use super::payload::Content;
use super::publish::{publish, publish_lines};
use super::transfer::{STANDARD, StandardOutput, save, to_output};
use super::{administration, reader};
use crate::client::{Client, ClientError, Message};
use crate::filter::TopicFilter;
use crate::label::CursorName;
use crate::protocol::{CursorLag, Fetched, TopicInfo};

pub(super) async fn run(client: &Client, command: MessageCommand, output: Output) -> Outcome {
    match command {
        MessageCommand::Watch { prefix, reader, .. } => {
            reader::watch(client, prefix, reader, output).await
        }
        MessageCommand::Subscribe {
            filter,
            reader,
            attachments,
            ..
        } => reader::subscribe(client, filter, reader, attachments, output).await,
        MessageCommand::Publish {
            topic,
            content,
            lines,
            dedup_id,
            ..
        } => {
            if lines {
                let content = Content::of_lines(content)?;
                return publish_lines(client, &topic, content, dedup_id, output).await;
            }
            publish(client, &topic, Content::of(content)?, dedup_id, output).await
        }
        MessageCommand::Request {
            topic,
            content,
            timeout,
            ..
        } => {
            let payload = Content::of(content)?.read_whole().await?;
            let reply = client.request(&topic, payload, timeout).await;
            let reply = reply.map_err(request("request", topic.as_str()))?;
            print_reply(&reply, output)
        }
        MessageCommand::Reply {
            sequence, content, ..
        } => {
            let payload = Content::of(content)?.read_whole().await?;
            let published = client.reply(sequence, payload).await;
            let published = published.map_err(request("reply", &sequence.to_string()))?;
            let text = format!("replied to {sequence} as {}", published.sequence);
            Ok(output.note(&published, &text)?)
        }
        MessageCommand::Topics { filter, .. } => topics(client, filter, output).await,
        MessageCommand::Last { filter, .. } => last(client, filter, output).await,
        MessageCommand::Fetch {
            sequence, local, ..
        } => fetch(client, sequence, local, output).await,
        MessageCommand::Ack {
            cursor, sequence, ..
        } => ack(client, &cursor, sequence, output).await,
        MessageCommand::Forget { cursor, .. } => {
            let forgotten = client.forget(&cursor).await;
            forgotten.map_err(request("forget", cursor.as_str()))?;
            Ok(output.note(&json!({"cursor": cursor}), &format!("forgot {cursor}"))?)
        }
        MessageCommand::Reconcile { prefix, .. } => {
            administration::reconcile(client, &prefix, output).await
        }
    }
}

/// The reply's bytes as they are; a line feed ends what is text for sure.
fn print_reply(reply: &Message, output: Output) -> Outcome {
    if output.is_json() {
        return Ok(line_out(&message_json(reply).map_err(io::Error::other)?)?);
    }
    let mut out = io::stdout().lock();
    out.write_all(&reply.payload)?;
    if json_line(&reply.payload).is_some() {
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

async fn topics(client: &Client, filter: Option<TopicFilter>, output: Output) -> Outcome {
    let mut after = None;
    loop {
        let page = client.topics(filter.clone(), after.take()).await;
        let page = page.map_err(request(
            "topics",
            filter.as_ref().map_or("", |it| it.as_str()),
        ))?;
        for topic in &page.topics {
            output.result(topic, &topic_line(topic))?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn topic_line(topic: &TopicInfo) -> String {
    let lag = |lag: &CursorLag| format!("{}:{}", lag.cursor, lag.lag);
    let mut lags = topic.cursors.iter().map(lag).collect::<Vec<_>>().join(",");
    if lags.is_empty() {
        "-".clone_into(&mut lags);
    }
    format!(
        "{:>10}  {:>14}  {:>10}  {}  {lags:<16}  {}",
        topic.n_messages,
        topic.size,
        topic.last,
        seconds(topic.last_time),
        topic.topic
    )
}

async fn last(client: &Client, filter: Vec<TopicFilter>, output: Output) -> Outcome {
    let names: Vec<&str> = filter.iter().map(TopicFilter::as_str).collect();
    let what = names.join(" ");
    let mut out = BufWriter::new(io::stdout());
    let printed = client.last(filter, |message| {
        let line = if output.is_json() {
            message_json(&message)?
        } else {
            message_line(&message)
        };
        writeln!(out, "{line}")
    });
    printed.await.map_err(to_output("last", &what))?;
    Ok(out.flush()?)
}

async fn fetch(client: &Client, sequence: u64, local: Option<PathBuf>, output: Output) -> Outcome {
    let number = sequence.to_string();
    let local = local.unwrap_or_else(|| PathBuf::from(&number));
    if local.as_os_str() == STANDARD {
        let fetched = client.fetch(sequence, StandardOutput).await;
        return fetched.map(drop).map_err(to_output("fetch", &number));
    }
    let fetched = fetch_to(client, sequence, &local, output).await;
    let fetched = fetched.map_err(request("fetch", &number))?;
    let mut object = serde_json::to_value(fetched).unwrap_or_default();
    object["local"] = json!(local.display().to_string());
    let text = format!("{sequence} ({} bytes) -> {}", fetched.size, local.display());
    Ok(output.note(&object, &text)?)
}

/// Fetches what is attached to a message into a file, whole or not at all.
pub(super) async fn fetch_to(
    client: &Client,
    sequence: u64,
    local: &Path,
    output: Output,
) -> Result<Fetched, ClientError> {
    let fetch = async |sink| client.fetch(sequence, sink).await;
    save(local, &sequence.to_string(), output, fetch).await
}

async fn ack(client: &Client, cursor: &CursorName, sequence: u64, output: Output) -> Outcome {
    let acknowledged = client.ack(cursor, sequence).await;
    acknowledged.map_err(request("ack", cursor.as_str()))?;
    let object = json!({"cursor": cursor, "sequence": sequence});
    Ok(output.note(&object, &format!("acknowledged {sequence} for {cursor}"))?)
}
