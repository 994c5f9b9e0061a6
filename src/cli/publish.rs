//! publish: one message, or each line of an input as one.
//!
//! A line that is refused stops nothing; it is named by its number in the whole input.

use std::io::{self, Read};

use serde_json::json;

use super::exit::Exit;
use super::files::{Failure, Outcome, request};
use super::lines::{BATCH_SIZE_MAX, Batch, Cut, Cutter};
use super::output::Output;
use super::payload::Content;
use crate::client::{Client, ClientError, PAYLOAD_SIZE_MAX, PublishOptions};
use crate::label::DedupId;
use crate::path::Topic;
use crate::protocol::{ErrorCode, ErrorReply, PublishedLines};

pub(super) async fn publish(
    client: &Client,
    topic: &Topic,
    content: Content,
    dedup_id: Option<DedupId>,
    output: Output,
) -> Outcome {
    let (source, size) = content.into_reader();
    let options = PublishOptions { dedup_id };
    let published = client.publish_from(topic, source, size, options).await;
    let published = published.map_err(request("publish", topic.as_str()))?;
    let again = if published.duplicate {
        ", it was there already"
    } else {
        ""
    };
    let text = format!("published {topic} as {}{again}", published.sequence);
    Ok(output.note(&published, &text)?)
}

/// Publishes what has come, as it comes. Under a deduplication id the batches must be the same
/// ones when the input is sent again, so that then only full ones are sent.
pub(super) async fn publish_lines(
    client: &Client,
    topic: &Topic,
    content: Content,
    dedup_id: Option<DedupId>,
    output: Output,
) -> Outcome {
    let (mut source, _) = content.into_reader();
    let mut sender = LineSender {
        client,
        topic,
        dedup_id,
        output,
        n_published: 0,
        n_refused: 0,
    };
    let (mut cutter, mut cuts) = (Cutter::default(), Vec::new());
    let mut buffer = vec![0; BATCH_SIZE_MAX];
    loop {
        let (again, piece, n) = read_some(source, buffer)
            .await
            .map_err(|error| request("publish", topic.as_str())(ClientError::Source(error)))?;
        (source, buffer) = (again, piece);
        if n == 0 {
            cutter.finish(&mut cuts);
        } else {
            cutter.feed(&buffer[..n], &mut cuts);
            if sender.dedup_id.is_none() {
                cutter.flush(&mut cuts);
            }
        }
        for cut in cuts.drain(..) {
            sender.send(cut).await?;
        }
        if n == 0 {
            return sender.finish();
        }
    }
}

type Source = Box<dyn Read + Send>;

async fn read_some(
    mut source: Source,
    mut buffer: Vec<u8>,
) -> io::Result<(Source, Vec<u8>, usize)> {
    let read = tokio::task::spawn_blocking(move || {
        loop {
            match source.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|n| (source, buffer, n)),
            }
        }
    });
    read.await
        .unwrap_or_else(|lost| Err(io::Error::other(lost)))
}

struct LineSender<'a> {
    client: &'a Client,
    topic: &'a Topic,
    dedup_id: Option<DedupId>,
    output: Output,
    n_published: usize,
    n_refused: usize,
}

impl LineSender<'_> {
    async fn send(&mut self, cut: Cut) -> Outcome {
        match cut {
            Cut::TooLong(number) => {
                let reason = ErrorReply {
                    code: ErrorCode::TooLarge,
                    message: format!("longer than {PAYLOAD_SIZE_MAX} bytes"),
                };
                self.refuse(number, Some(reason));
                Ok(())
            }
            Cut::Batch(batch) => self.send_batch(batch).await,
        }
    }

    async fn send_batch(&mut self, Batch { numbers, body }: Batch) -> Outcome {
        let (first, last) = match numbers.as_slice() {
            [] => return Ok(()),
            [first, .., last] => (*first, *last),
            [only] => (*only, *only),
        };
        let dedup_id = match &self.dedup_id {
            Some(id) => Some(batch_id(id, first)?),
            None => None,
        };
        let options = PublishOptions { dedup_id };
        let answer = self.client.publish_lines(self.topic, body, options).await;
        let what = format!("{} (lines {first} to {last})", self.topic);
        let mut answer = answer.map_err(request("publish", &what))?;
        if answer.sequences.len() != numbers.len() {
            let error = ClientError::Misplaced("it does not answer each line");
            return Err(request("publish", &what)(error));
        }
        for (number, reason) in refusals(&answer, &numbers) {
            self.refuse(number, reason);
        }
        let n_published = answer.sequences.iter().filter(|it| **it > 0).count();
        self.n_published += n_published;
        if !self.output.is_json() {
            return Ok(());
        }
        renumber(&mut answer, &numbers);
        let mut object = serde_json::to_value(&answer).unwrap_or_default();
        object["first_line"] = first.into();
        object["last_line"] = last.into();
        Ok(self.output.note(&object, "")?)
    }

    fn refuse(&mut self, number: u64, reason: Option<ErrorReply>) {
        self.n_refused += 1;
        let (code, text) = match reason {
            Some(reason) => (Some(reason.code), reason.message),
            None => (None, "refused".to_owned()),
        };
        self.output.refused_line(number, code, &text);
    }

    fn finish(self) -> Outcome {
        if !self.output.is_json() {
            let text = format!("published {} messages to {}", self.n_published, self.topic);
            self.output.note(&json!({}), &text)?;
        }
        if self.n_refused > 0 {
            return Err(Failure::Refused(Exit::Failed));
        }
        Ok(())
    }
}

/// The server numbers the lines of each batch from 1: batches differ by where they begin.
fn batch_id(id: &DedupId, first: u64) -> Result<DedupId, Failure> {
    let nth = id.nth(usize::try_from(first).unwrap_or(usize::MAX));
    nth.map_err(|error| Failure::Usage(format!("--dedup-id with the number of a line: {error}")))
}

/// Where in the whole input the lines stand that are no messages, and why, for those of which the
/// server says it.
fn refusals(answer: &PublishedLines, numbers: &[u64]) -> Vec<(u64, Option<ErrorReply>)> {
    let lines = (1..).zip(&answer.sequences).zip(numbers);
    lines
        .filter(|((_, sequence), _)| **sequence == 0)
        .map(|((line, _), number)| {
            let reason = answer.refused.iter().find(|refused| refused.line == line);
            (*number, reason.map(|refused| refused.error.clone()))
        })
        .collect()
}

/// From the batch's numbers to the input's.
fn renumber(answer: &mut PublishedLines, numbers: &[u64]) {
    for refused in &mut answer.refused {
        let index = usize::try_from(refused.line).unwrap_or(0).wrapping_sub(1);
        if let Some(number) = numbers.get(index) {
            refused.line = *number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_lines_are_named_as_in_the_input() {
        let text = r#"{"sequences":[7,0,8,0],"n_refused":2,
            "refused":[{"line":2,"error":{"code":"too_large","message":"no"}}]}"#;
        let mut answer: PublishedLines = serde_json::from_str(text).unwrap();
        let numbers = [11, 12, 14, 15];
        let named: Vec<_> = refusals(&answer, &numbers)
            .into_iter()
            .map(|(number, reason)| (number, reason.map(|reason| reason.code)))
            .collect();
        assert_eq!(named, [(12, Some(ErrorCode::TooLarge)), (15, None)]);
        renumber(&mut answer, &numbers);
        assert_eq!(answer.refused[0].line, 12);
    }
}
