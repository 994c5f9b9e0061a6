//! watch and subscribe: prints what a reader of the log is given.
//!
//! With a cursor an event is acknowledged when it was printed and the output is flushed, never
//! before. Output is flushed, and a run of events acknowledged at once, when no more is ready.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::event_text::{change_lines, message_json, message_line};
use super::files::{Failure, Outcome, request};
use super::message_args::ReaderFlags;
use super::messages::fetch_to;
use super::output::{Output, complain};
use super::since::start;
use crate::client::{Client, ClientError, Delivery, Message, Subscription};
use crate::filter::TopicFilter;
use crate::label::CursorName;
use crate::path::Prefix;
use crate::protocol::Lost;

/// Events that are printed before they are flushed and acknowledged, also if more are ready.
const UNSETTLED_MAX: usize = 256;

/// What of an event is shown.
enum View {
    Changes,
    /// Messages; what is attached to them goes into the directory.
    Messages {
        attachments: Option<PathBuf>,
    },
}

/// What was printed of a stream, and how far that is settled.
struct Page<'a> {
    client: &'a Client,
    output: Output,
    view: View,
    out: BufWriter<Stdout>,
    cursor: Option<CursorName>,
    /// Each event is acknowledged for itself.
    is_group: bool,
    /// Somebody else acknowledges.
    no_ack: bool,
    /// Printed, not flushed or not acknowledged.
    unsettled: Vec<u64>,
}

pub(super) async fn watch(
    client: &Client,
    prefix: Prefix,
    flags: ReaderFlags,
    output: Output,
) -> Outcome {
    let start = start(&flags, Timestamp::now())?;
    let page = Page::new(client, output, View::Changes, start.cursor.clone(), &flags);
    let what = prefix.to_string();
    let subscription = client.watch(prefix, start).await;
    let subscription = subscription.map_err(request("watch", &what))?;
    let read = read(page, subscription, &flags).await;
    read.map_err(|stopped| stopped.failure("watch", &what))
}

pub(super) async fn subscribe(
    client: &Client,
    topics: Vec<TopicFilter>,
    flags: ReaderFlags,
    attachments: Option<PathBuf>,
    output: Output,
) -> Outcome {
    let start = start(&flags, Timestamp::now())?;
    let view = View::Messages { attachments };
    let page = Page::new(client, output, view, start.cursor.clone(), &flags);
    let names: Vec<&str> = topics.iter().map(TopicFilter::as_str).collect();
    let what = names.join(" ");
    let subscription = client.subscribe(topics, start).await;
    let subscription = subscription.map_err(request("subscribe", &what))?;
    let read = read(page, subscription, &flags).await;
    read.map_err(|stopped| stopped.failure("subscribe", &what))
}

/// Why printing stopped.
enum Stopped {
    Stream(ClientError),
    Other(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl Stopped {
    fn failure(self, command: &str, what: &str) -> Failure {
        match self {
            Self::Stream(error) => request(command, what)(error),
            Self::Other(failure) => failure,
        }
    }
}

async fn read(
    mut page: Page<'_>,
    mut subscription: Subscription,
    flags: &ReaderFlags,
) -> Result<(), Stopped> {
    // Everything up to here was asked for, where a reader does not follow.
    let end = flags.no_follow.then_some(subscription.head());
    let mut n_left = flags.count.map(std::num::NonZero::get);
    let stopped = loop {
        let next = tokio::select! {
            biased;
            next = subscription.next() => next,
            () = std::future::ready(()), if page.is_unsettled() => {
                page.settle().await?;
                continue;
            }
        };
        let reached = match next {
            None => break Ok(()),
            Some(Err(error)) => break Err(Stopped::Stream(error)),
            Some(Ok(Delivery::Event(message))) => {
                let sequence = message.event.sequence;
                if end.is_some_and(|end| sequence > end) {
                    break Ok(());
                }
                page.print(&message).await?;
                n_left = n_left.map(|n| n - 1);
                sequence
            }
            // What is left of it comes next.
            Some(Ok(Delivery::Lost(lost))) => {
                // What the log still holds of it comes after the news.
                page.print_lost(lost)?;
                continue;
            }
            Some(Ok(Delivery::CaughtUp(sequence))) => sequence,
        };
        if n_left == Some(0) || end.is_some_and(|end| reached >= end) {
            break Ok(());
        }
    };
    page.settle().await?;
    stopped
}

impl<'a> Page<'a> {
    fn new(
        client: &'a Client,
        output: Output,
        view: View,
        cursor: Option<CursorName>,
        flags: &ReaderFlags,
    ) -> Self {
        Self {
            client,
            output,
            view,
            out: BufWriter::new(io::stdout()),
            cursor,
            is_group: flags.group,
            no_ack: flags.no_ack,
            unsettled: Vec::new(),
        }
    }

    fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    async fn print(&mut self, message: &Message) -> Outcome {
        let sequence = message.event.sequence;
        if let (
            Some(_),
            View::Messages {
                attachments: Some(directory),
            },
        ) = (message.event.attachment, &self.view)
        {
            save(self.client, directory, sequence, self.output).await?;
        }
        for line in self.lines(message)? {
            writeln!(self.out, "{line}")?;
        }
        self.unsettled.push(sequence);
        if self.unsettled.len() >= UNSETTLED_MAX {
            self.settle().await?;
        }
        Ok(())
    }

    fn lines(&self, message: &Message) -> io::Result<Vec<String>> {
        let line = match (&self.view, self.output.is_json()) {
            (View::Changes, true) => serde_json::to_string(&message.event),
            (View::Changes, false) => return Ok(change_lines(&message.event)),
            (View::Messages { .. }, true) => message_json(message),
            (View::Messages { .. }, false) => Ok(message_line(message)),
        };
        Ok(vec![line.map_err(io::Error::other)?])
    }

    fn print_lost(&mut self, lost: Lost) -> Result<(), Failure> {
        if self.output.is_json() {
            writeln!(self.out, "{}", json!({"lost": lost}))?;
        } else {
            complain(&lost_text(lost), None);
        }
        // The news is done with by the number before the gap: the rest of it is still to come.
        self.unsettled.push(lost.from.saturating_sub(1));
        Ok(())
    }

    /// Flushes, and then acknowledges what was printed.
    async fn settle(&mut self) -> Outcome {
        self.out.flush()?;
        let Some(cursor) = self.cursor.as_ref().filter(|_| !self.no_ack) else {
            self.unsettled.clear();
            return Ok(());
        };
        let covered = if self.is_group {
            0
        } else {
            self.unsettled.len().saturating_sub(1)
        };
        for sequence in self.unsettled.drain(..).skip(covered) {
            let acknowledged = self.client.ack(cursor, sequence).await;
            acknowledged.map_err(request("ack", cursor.as_str()))?;
        }
        Ok(())
    }
}

async fn save(client: &Client, directory: &Path, sequence: u64, output: Output) -> Outcome {
    let local = directory.join(sequence.to_string());
    let made = std::fs::create_dir_all(directory).map_err(ClientError::Sink);
    let saved = match made {
        Ok(()) => fetch_to(client, sequence, &local, output).await.map(drop),
        Err(error) => Err(error),
    };
    saved.map_err(request("fetch", &sequence.to_string()))
}

fn lost_text(lost: Lost) -> String {
    format!(
        "records {} to {} are no longer in the log: what they said is lost to this reader",
        lost.from, lost.to
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_named() {
        let expected =
            "records 3 to 9 are no longer in the log: what they said is lost to this reader";
        assert_eq!(lost_text(Lost { from: 3, to: 9 }), expected);
    }
}
