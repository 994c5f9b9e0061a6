//! Requests about messages and sets that have a body.
//!
//! A message that fits the log is taken whole; a larger one is staged like a file.

use std::sync::Arc;

use jiff::Timestamp;

use super::body::{Intake, Progress};
use super::{Outcome, Session, SessionError, queue_reply, queue_result};
use crate::connection::Connection;
use crate::ops::{INLINE_SIZE_MAX, LINES_SIZE_MAX, MEMBERS_SIZE_MAX, OpError, Service, Still};
use crate::path::Topic;
use crate::protocol::{
    Answer, Call, Commit, Event, Heartbeat, Last, Notice, Publish, Reply, Stage,
};
use crate::socket::Transport;

impl Session {
    pub(super) async fn publish<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        publish: Publish,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let service = &self.shared.service;
        let plan = match service.plan_publish(&self.identity, &publish) {
            Ok(plan) => plan,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let (connection, progress, published) = if publish.lines {
            let received = self.receive_lines(connection, publish.size).await?;
            let (mut connection, progress, body) = received;
            let published = match body {
                Ok(body) => service.publish_lines(&plan, body).await,
                Err(error) => return self.refuse(connection, id, error, progress).await,
            };
            let outcome = queue_result(&mut connection, id, published);
            connection.flush().await?;
            return Ok((connection, outcome));
        } else if publish.size.is_some_and(|n| n <= INLINE_SIZE_MAX as u64) {
            let received = self.receive_whole(connection, publish.size, INLINE_SIZE_MAX);
            let (connection, progress, body) = received.await?;
            let published = match body {
                Ok(body) => service.publish(&plan, body).await,
                Err(error) => Err(error),
            };
            (connection, progress, published)
        } else {
            let still = plan.still();
            let into = Intake::new(plan.allowance(), plan.still());
            let hand_on = move |service: &Service, staged| {
                still.ask(service)?;
                service.publish_staged(&plan, staged)
            };
            self.receive(connection, None, into, hand_on).await?
        };
        let mut connection = connection;
        let published = match published {
            Ok(publishing) => publishing.published().await,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, published);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    /// A body of several messages, or of the members of a set: larger than most, so that not every
    /// connection may have one at a time.
    async fn receive_lines<IO: Transport>(
        &self,
        connection: Connection<IO>,
        announced: Option<u64>,
    ) -> Result<super::body::Received<IO, Vec<u8>>, SessionError> {
        match self.transfer_slot().await {
            Ok(_slot) => {
                self.receive_whole(connection, announced, LINES_SIZE_MAX)
                    .await
            }
            Err(error) => Ok((connection, Progress::Open, Err(error))),
        }
    }

    pub(super) async fn call<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        call: Call,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let plan = match self.shared.service.plan_call(&self.identity, &call) {
            Ok(plan) => plan,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let received = self.receive_whole(connection, plan.size(), INLINE_SIZE_MAX);
        let (mut connection, progress, body) = received.await?;
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let replied = {
            let reply = self.shared.service.call(&plan, body);
            tokio::pin!(reply);
            tokio::select! {
                replied = &mut reply => replied,
                () = self.shared.draining.cancelled() => Err(OpError::ShuttingDown),
                closed = connection.wait_frame() => match closed {
                    // Nobody is there any more to whom the reply would be given.
                    Ok(false) | Err(_) => Err(OpError::ShuttingDown),
                    Ok(true) => tokio::select! {
                        replied = &mut reply => replied,
                        () = self.shared.draining.cancelled() => Err(OpError::ShuttingDown),
                    },
                },
            }
        };
        let outcome = queue_replied(&mut connection, id, replied);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    pub(super) async fn reply<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        answer: Answer,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let (who, to, announced) = (Arc::clone(&self.identity), answer.to, answer.size);
        let service = &self.shared.service;
        let plan = service
            .blocking(move |service| service.plan_reply(&who, &answer))
            .await;
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let received = self.receive_whole(connection, announced, INLINE_SIZE_MAX);
        let (mut connection, progress, body) = received.await?;
        let published = match body {
            Ok(body) => service.reply(&plan, to, &body).await,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, published);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    pub(super) async fn stage<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        stage: Stage,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let allowance = match self.shared.service.plan_stage(&self.identity, stage) {
            Ok(allowance) => allowance,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let who = Arc::clone(&self.identity);
        let keep = move |service: &Service, staged| service.keep_staged(&who, staged);
        let into = Intake::new(allowance, Still::always());
        let received = self.receive(connection, stage.encoding, into, keep).await?;
        let (mut connection, progress, staged) = received;
        let staged = match staged {
            Ok(staged) => staged,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, Ok(staged));
        connection.flush().await?;
        Ok((connection, outcome))
    }

    pub(super) async fn commit<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        commit: Commit,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let received = self.receive_whole(connection, None, MEMBERS_SIZE_MAX);
        let (mut connection, progress, list) = received.await?;
        drop(slot);
        let committed = match list {
            Ok(list) => {
                let committed = self.shared.service.commit_set(&self.identity, list, commit);
                committed.await
            }
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, committed);
        connection.flush().await?;
        Ok((connection, outcome))
    }

    /// The latest messages: an answer, an event for each, and a mark at the end.
    pub(super) async fn last<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        last: Last,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let service = &self.shared.service;
        if let Err(error) = service.plan_last(&self.identity, &last.topics) {
            let outcome = queue_result::<()>(&mut connection, id, Err(error));
            connection.flush().await?;
            return Ok((connection, outcome));
        }
        let _slot = match self.transfer_slot().await {
            Ok(slot) => slot,
            Err(error) => {
                let outcome = queue_result::<()>(&mut connection, id, Err(error));
                connection.flush().await?;
                return Ok((connection, outcome));
            }
        };
        let ok = serde_json::Map::new();
        queue_reply(&mut connection, Some(id), Reply::Ok(ok));
        for filter in last.topics {
            let mut after: Option<Topic> = None;
            loop {
                let (who, filter, from) = (Arc::clone(&self.identity), filter.clone(), after);
                let page = service.blocking(move |s| s.last(&who, &filter, from.as_ref()));
                let (frames, next) = match page.await {
                    Ok(page) => page,
                    Err(error) => {
                        connection.queue_message(&Notice::Error(error.reply()));
                        connection.flush().await?;
                        return Ok((connection, Err(error)));
                    }
                };
                connection.queue_frames(&frames);
                connection.flush().await?;
                if next.is_none() {
                    break;
                }
                after = next;
            }
        }
        let heartbeat = Heartbeat {
            sequence: service.head(),
            time: Timestamp::now(),
        };
        connection.queue_message(&Notice::Heartbeat(heartbeat));
        connection.flush().await?;
        Ok((connection, Ok(())))
    }
}

fn queue_replied(
    connection: &mut Connection<impl Transport>,
    id: u64,
    replied: Result<(Event, Vec<u8>), OpError>,
) -> Outcome {
    match replied {
        Ok((event, content)) => {
            queue_reply(connection, Some(id), Reply::Ok(&event));
            // At most one data frame, as after an event.
            connection.queue_data(&content);
            Ok(())
        }
        Err(error) => queue_result::<()>(connection, id, Err(error)),
    }
}
