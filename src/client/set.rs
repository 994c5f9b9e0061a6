//! Sets: several files that change in one step.
//!
//! Contents are staged one by one; nothing is visible of them before the commit, and all is after.

use std::io::Read;
use std::time::Duration;

use super::upload::{SMALL_SIZE_MAX, sync_time};
use super::{Client, ClientError, request_id};
use crate::label::DedupId;
use crate::protocol::{Commit, Committed, Member, Op, Stage, Staged};

/// Most members of a set.
pub const MEMBERS_MAX: usize = 10_000;

impl Client {
    /// Stages a content out of anything that can be read; of `size` bytes, where that is known.
    ///
    /// # Errors
    /// The source or the connection failed, or the server refused.
    ///
    /// # Cancel safety
    /// Dropping the future gives the content up.
    pub async fn stage(
        &self,
        source: impl Read + Send + 'static,
        size: Option<u64>,
    ) -> Result<Staged, ClientError> {
        let request = Op::Stage(Stage {
            size,
            encoding: None,
        });
        self.upload(request, source, size).await
    }

    /// Commits a set of at most [`MEMBERS_MAX`]. Every file of it has changed when this returns; else
    /// none has, unless the connection was lost before the answer.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the set was committed.
    pub async fn commit(&self, members: &[Member]) -> Result<Committed, ClientError> {
        self.commit_of(members, 0).await
    }

    /// The same with `size` bytes in uploads, which the commit makes durable.
    pub(super) async fn commit_of(
        &self,
        members: &[Member],
        size: u64,
    ) -> Result<Committed, ClientError> {
        let request_id = request_id::fresh();
        let limit = self.shared.options.stall_timeout + sync_time(size);
        let mut patience = self.patience(None);
        loop {
            match self.commit_once(members, request_id.clone(), limit).await {
                Err(error) => patience.wait(error).await?,
                committed => return committed,
            }
        }
    }

    /// Tries it once; the answer is waited for within `limit`, since large contents are made durable.
    pub(super) async fn commit_once(
        &self,
        members: &[Member],
        request_id: Option<DedupId>,
        limit: Duration,
    ) -> Result<Committed, ClientError> {
        let body = lines(members);
        let commit = Op::Commit(Commit { request_id });
        if body.len() as u64 > SMALL_SIZE_MAX {
            return self.upload_bytes(commit, body).await;
        }
        let mut link = self.link().await?;
        let committed = self.exchange(&mut link, commit, &body, limit).await?;
        self.keep(link);
        committed
    }
}

/// One member a line.
fn lines(members: &[Member]) -> Vec<u8> {
    let mut body = Vec::new();
    for (n, member) in members.iter().enumerate() {
        if n > 0 {
            body.push(b'\n');
        }
        serde_json::to_writer(&mut body, member).expect("a member is plain JSON");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_one_member_a_line() {
        let member = |path: &str, staged: Option<&str>| Member {
            path: path.parse().unwrap(),
            staged: staged.map(str::to_owned),
            remove: staged.is_none(),
            if_absent: false,
            if_version: None,
            digest: None,
            attributes: None,
        };
        let members = [member("/a", Some("x")), member("/b", None)];
        let body = lines(&members);
        let expected = "{\"path\":\"/a\",\"staged\":\"x\"}\n{\"path\":\"/b\",\"remove\":true}";
        assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
        let read: Vec<Member> = body
            .split(|byte| *byte == b'\n')
            .map(|line| Member::decode(line).unwrap())
            .collect();
        assert_eq!(read, members);
    }
}
