//! Messages: publish.
//!
//! The writer is stamped by the server, and a message is acknowledged when it is durable.

use std::sync::Arc;

use super::job::{CommitError, Waiting};
use super::staging::{Allowance, StagedContent};
use super::{OpError, Service, draft};
use crate::identity::Identity;
use crate::label::DedupId;
use crate::log::{Attached, Conflict, Draft, Matter, Message, Payload, Sequence};
use crate::path::Topic;
use crate::policy::Action;
use crate::protocol::{Publish, Published, PublishedLines, RefusedLine};

/// Largest message that is kept in the log itself.
pub const INLINE_SIZE_MAX: usize = 64 << 10;
/// Largest body of several messages.
pub const LINES_SIZE_MAX: usize = 1 << 20;
/// Messages in one body.
const LINES_MAX: usize = 1024;
/// Lines of which it is said why they were refused.
const REFUSED_LINES_MAX: usize = 16;

/// A permitted message, before its content. Only a permit makes one.
#[derive(Debug, Clone)]
pub struct PublishPlan {
    pub(super) who: Identity,
    pub(super) topic: Topic,
    dedup_id: Option<DedupId>,
    pub(super) reply_wanted: bool,
    reply_to: Option<Sequence>,
    allowance: Allowance,
}

/// Messages on their way into the log.
pub struct Publishing(Waiting);

impl Publishing {
    /// Where the message is.
    ///
    /// # Errors
    /// A part failed.
    pub async fn published(self) -> Result<Published, OpError> {
        outcome(self.0.answer().await)
    }
}

/// Drafts, and whether each line became one of them.
type SplitLines = (Vec<Draft>, Vec<Result<(), OpError>>);

fn outcome(answer: Result<Sequence, CommitError>) -> Result<Published, OpError> {
    match answer {
        Ok(sequence) => Ok(Published {
            sequence: sequence.0,
            duplicate: false,
        }),
        Err(CommitError::Conflict(Conflict::Duplicate { sequence })) => Ok(Published {
            sequence: sequence.0,
            duplicate: true,
        }),
        Err(error) => Err(error.into()),
    }
}

impl PublishPlan {
    /// A reply of somebody who may read what it replies to.
    pub(super) fn reply(who: &Identity, topic: Topic, to: Sequence, size: Option<u64>) -> Self {
        Self {
            who: who.clone(),
            topic,
            dedup_id: None,
            reply_wanted: false,
            reply_to: Some(to),
            allowance: Allowance {
                size,
                size_max: INLINE_SIZE_MAX as u64,
            },
        }
    }

    /// What may be staged for a message that is too large for the log.
    pub const fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// The size that was announced.
    pub const fn size(&self) -> Option<u64> {
        self.allowance.size
    }

    pub(super) const fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) fn draft(&self, payload: Payload, dedup_id: Option<DedupId>) -> Draft {
        let message = Message {
            topic: self.topic.clone(),
            payload,
            dedup_id,
            reply_wanted: self.reply_wanted,
            reply_to: self.reply_to,
        };
        draft(&self.who, Matter::Message(message), Vec::new())
    }
}

impl Service {
    /// Whether a message may be sent.
    ///
    /// # Errors
    /// No grant covers it, or it is too large.
    pub fn plan_publish(&self, who: &Identity, publish: &Publish) -> Result<PublishPlan, OpError> {
        let mut plan = self.plan_message(who, &publish.topic, publish.size)?;
        plan.dedup_id.clone_from(&publish.dedup_id);
        Ok(plan)
    }

    pub(super) fn plan_message(
        &self,
        who: &Identity,
        topic: &Topic,
        size: Option<u64>,
    ) -> Result<PublishPlan, OpError> {
        let policy = self.policy();
        let permit = policy.authorize(who, Action::Publish, topic)?;
        if let Some(size) = size.filter(|size| *size > self.file_size_max) {
            return Err(super::staging::too_large(size, self.file_size_max));
        }
        Ok(PublishPlan {
            who: who.clone(),
            topic: permit.resource().clone(),
            dedup_id: None,
            reply_wanted: false,
            reply_to: None,
            allowance: Allowance {
                size,
                size_max: self.file_size_max,
            },
        })
    }

    /// Sends a message that fits the log.
    ///
    /// # Errors
    /// It does not fit the topic's schema.
    pub async fn publish(
        self: &Arc<Self>,
        plan: &PublishPlan,
        content: Vec<u8>,
    ) -> Result<Publishing, OpError> {
        // A schema may take its time, and others are served by this thread.
        if self.topics.has_schema(&plan.topic) {
            let on_thread = plan.clone();
            let publish = move |service: &Self| service.publish_checked(&on_thread, &content);
            return self.blocking(publish).await;
        }
        self.publish_checked(plan, &content)
    }

    fn publish_checked(&self, plan: &PublishPlan, content: &[u8]) -> Result<Publishing, OpError> {
        self.topics.check(&plan.topic, content)?;
        let draft = plan.draft(Payload::Inline(Arc::from(content)), plan.dedup_id.clone());
        Ok(Publishing(self.committer.submit(draft, Vec::new())))
    }

    /// Sends a message whose content was staged. Blocks.
    ///
    /// # Errors
    /// The topic has a schema, which is for messages that fit the log.
    pub fn publish_staged(
        &self,
        plan: &PublishPlan,
        staged: StagedContent,
    ) -> Result<Publishing, OpError> {
        if self.topics.has_schema(&plan.topic) {
            return Err(OpError::TooLarge {
                what: "a message to a topic with a schema",
                size: staged.size(),
                size_max: INLINE_SIZE_MAX as u64,
            });
        }
        let attached = Attached {
            content: staged.sealed.content,
            size: staged.size(),
            digest: staged.digest,
        };
        let draft = plan.draft(Payload::Attached(attached), plan.dedup_id.clone());
        let content = staged.release();
        Ok(Publishing(
            self.committer.submit_blocking(draft, vec![content]),
        ))
    }

    /// Sends each line as a message; one that is refused does not stop the others.
    ///
    /// # Errors
    /// There are too many, or a part failed.
    pub async fn publish_lines(
        self: &Arc<Self>,
        plan: &PublishPlan,
        body: Vec<u8>,
    ) -> Result<PublishedLines, OpError> {
        let on_thread = plan.clone();
        let split = move |service: &Self| service.split_lines(&on_thread, &body);
        let (drafts, verdicts) = if self.topics.has_schema(&plan.topic) {
            self.blocking(split).await?
        } else {
            split(self)?
        };
        let mut answers = Vec::new();
        if !drafts.is_empty() {
            let committed = self.committer.submit_all(drafts).answers().await;
            answers = committed.map_err(OpError::from)?;
        }
        let mut answers = answers.into_iter();
        let mut published = PublishedLines {
            sequences: Vec::with_capacity(verdicts.len()),
            n_refused: 0,
            refused: Vec::new(),
        };
        for (verdict, line) in verdicts.into_iter().zip(1..) {
            let answer = verdict.and_then(|()| match answers.next() {
                Some(answer) => outcome(answer),
                None => Err(OpError::ShuttingDown),
            });
            add(&mut published, line, answer);
        }
        Ok(published)
    }

    /// A draft for each line that may be a message, and a verdict on every line.
    fn split_lines(&self, plan: &PublishPlan, body: &[u8]) -> Result<SplitLines, OpError> {
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        if lines.len() > LINES_MAX {
            return Err(OpError::TooMany {
                what: "lines in one body",
                n_max: LINES_MAX,
            });
        }
        let mut drafts = Vec::with_capacity(lines.len());
        let mut verdicts = Vec::with_capacity(lines.len());
        for (line, number) in lines.into_iter().zip(1..) {
            let draft = self.line(plan, line, number);
            verdicts.push(draft.map(|draft| drafts.push(draft)));
        }
        Ok((drafts, verdicts))
    }

    fn line(&self, plan: &PublishPlan, line: &[u8], number: usize) -> Result<Draft, OpError> {
        if line.len() > INLINE_SIZE_MAX {
            return Err(OpError::TooLarge {
                what: "the line",
                size: line.len() as u64,
                size_max: INLINE_SIZE_MAX as u64,
            });
        }
        if line.is_empty() {
            return Err(OpError::BadRequest("the line is empty"));
        }
        self.topics.check(&plan.topic, line)?;
        let dedup_id = plan.dedup_id.as_ref().map(|id| id.nth(number));
        let dedup_id = dedup_id.transpose().map_err(OpError::Label)?;
        Ok(plan.draft(Payload::Inline(Arc::from(line)), dedup_id))
    }
}

fn add(published: &mut PublishedLines, line: u64, answer: Result<Published, OpError>) {
    match answer {
        Ok(one) => published.sequences.push(one.sequence),
        Err(error) => {
            published.sequences.push(0);
            published.n_refused += 1;
            if published.refused.len() < REFUSED_LINES_MAX {
                let error = error.reply();
                published.refused.push(RefusedLine { line, error });
            }
        }
    }
}
