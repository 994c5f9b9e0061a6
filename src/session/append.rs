//! Bytes behind those of a file.

use std::sync::Arc;

use super::body::{Intake, Progress};
use super::{Outcome, Session, SessionError, queue_result};
use crate::connection::Connection;
use crate::ops::{Appending, Committing, Service};
use crate::protocol::Append;
use crate::socket::Transport;

impl Session {
    pub(super) async fn append<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        append: Append,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let encoding = append.encoding;
        let who = Arc::clone(&self.identity);
        let plan = move |service: &Service| service.plan_append(&who, &append);
        let (plan, file) = match self.shared.service.blocking(plan).await {
            Ok(Appending::Plan(plan, file)) => (plan, file),
            Ok(Appending::Done(file)) => {
                let mut connection = connection;
                let outcome = queue_result(&mut connection, id, Ok(file));
                connection.flush().await?;
                return Ok((self.pass_over_body(connection).await?, outcome));
            }
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let mut into = Intake::new(plan.allowance(), plan.still());
        into.behind = file;
        let commit = move |service: &Service, staged| {
            Ok::<Committing, _>(service.commit_put(service.renew_put(*plan)?, staged))
        };
        let received = self.receive(connection, encoding, into, commit).await?;
        let (mut connection, progress, committing) = received;
        let committing = match committing {
            Ok(committing) => committing,
            Err(error) => return self.refuse(connection, id, error, progress).await,
        };
        let outcome = queue_result(&mut connection, id, committing.file().await);
        connection.flush().await?;
        Ok((connection, outcome))
    }
}
