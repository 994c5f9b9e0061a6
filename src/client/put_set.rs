//! Local files that become visible in one step.
//!
//! Each is staged for itself, a large one in parts; nothing is to be seen of them before the one commit.
//! If any cannot be staged nothing is committed: uploads are given up, unless the next run can go on
//! with them, and what was staged is forgotten by the server in its time.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::file::{
    Opened, Steady, TransferOptions, WHOLE_SIZE_MAX, is_moved, is_same, open_regular, settling,
};
use super::put_member::{RESTAGES_MAX, Uploaded};
use super::upload::on_thread;
use super::{Client, ClientError};
use crate::path::RemotePath;
use crate::protocol::{Committed, ErrorCode, Member};

/// A local file, and what it is to become.
#[derive(Clone)]
pub struct SetFile {
    pub local: PathBuf,
    pub remote: RemotePath,
    pub options: TransferOptions,
}

/// Why a set of files was not put.
#[derive(Debug, Error)]
pub enum SetError {
    #[error("cannot put {local}")]
    File {
        local: PathBuf,
        #[source]
        source: ClientError,
    },
    #[error("cannot commit the set")]
    Commit(#[source] ClientError),
}

/// What is ready for the commit.
#[derive(Default)]
struct Ready {
    members: Vec<Member>,
    uploads: Vec<Uploaded>,
}

impl Client {
    /// Puts local files and `others`, members that are staged already or removed, in one step: at most
    /// [`super::MEMBERS_MAX`] together. Large files travel as by [`Client::put_file`].
    ///
    /// # Errors
    /// A file cannot be read or keeps changing, the connection failed and did not come back, or the
    /// server refused; nothing was changed, unless the connection was lost for good before the answer
    /// to the commit.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the set was committed, if all was staged; else nothing
    /// is.
    pub async fn put_set(
        &self,
        files: &[SetFile],
        others: &[Member],
    ) -> Result<Committed, SetError> {
        let mut n_restages = 0;
        loop {
            let mut ready = Ready::default();
            let error = match self.try_set(files, others, &mut ready).await {
                Ok(committed) => {
                    ready.uploads.iter().for_each(Uploaded::forget);
                    return Ok(committed);
                }
                Err(error) => error,
            };
            let (SetError::File { source, .. } | SetError::Commit(source)) = &error;
            let is_gone = matches!(error, SetError::Commit(_)) && source.is_of_staged();
            let again = is_gone && n_restages < RESTAGES_MAX;
            let is_passing = again || source.is_passing();
            ready.members.extend_from_slice(others);
            self.give_up_members(&ready.members, &ready.uploads, is_passing)
                .await;
            if !again {
                return Err(error);
            }
            n_restages += 1;
        }
    }

    async fn try_set(
        &self,
        files: &[SetFile],
        others: &[Member],
        ready: &mut Ready,
    ) -> Result<Committed, SetError> {
        for file in files {
            let staged = self.stage_file(file, ready).await;
            let member = staged.map_err(|source| SetError::File {
                local: file.local.clone(),
                source,
            })?;
            ready.members.push(member);
        }
        let members = [&ready.members, others].concat();
        let size = ready.uploads.iter().map(|uploaded| uploaded.size).sum();
        let committed = self.commit_of(&members, size).await;
        committed.map_err(SetError::Commit)
    }

    /// One file: in parts, where it has some and the server has room for uploads.
    async fn stage_file(&self, file: &SetFile, ready: &mut Ready) -> Result<Member, ClientError> {
        let path = file.local.clone();
        let open = move || open_regular(&path).map(|(file, _)| file);
        let look = open.clone();
        let size = on_thread(move || Ok(look()?.metadata()?.len())).await;
        let size = size.map_err(ClientError::Source)?;
        if let Some(observer) = file.options.observer() {
            observer.expect(size);
        }
        if size > WHOLE_SIZE_MAX {
            let (local, options) = (&file.local, &file.options);
            let uploaded = self.upload_member(open.clone(), local, &file.remote, options);
            match uploaded.await {
                Ok(uploaded) => {
                    let mut member = member(file, uploaded.upload.to_string());
                    member.digest = Some(uploaded.digest);
                    member.attributes.get_or_insert(uploaded.attributes);
                    ready.uploads.push(uploaded);
                    return Ok(member);
                }
                // It became small, or keeps changing.
                Err(ClientError::SourceChanged) => {}
                Err(error) if error.code() == Some(ErrorCode::Quota) => {}
                Err(error) => return Err(error),
            }
        }
        settling(&file.options, || self.stage_whole(file, open.clone())).await
    }

    /// Stages a file in one go, again after an interruption.
    async fn stage_whole(
        &self,
        file: &SetFile,
        open: impl Fn() -> io::Result<File> + Clone + Send + 'static,
    ) -> Result<Member, ClientError> {
        let mut patience = self.patience(file.options.observer());
        loop {
            let open = open.clone();
            let opened = on_thread(move || Opened::new(open()?)).await;
            let opened = opened.map_err(ClientError::Source)?;
            let (before, size) = (opened.fingerprint, opened.fingerprint.size);
            let source = Steady::new(opened.file, size, move |file| is_same(file, before));
            match self.stage(source, Some(size)).await {
                Ok(staged) => {
                    if let Some(observer) = file.options.observer() {
                        observer.moved(size);
                    }
                    let mut member = member(file, staged.staged);
                    member.digest = Some(staged.digest);
                    member.attributes.get_or_insert(opened.attributes);
                    return Ok(member);
                }
                Err(ClientError::Source(error)) if is_moved(&error) => {
                    return Err(ClientError::SourceChanged);
                }
                Err(error) => patience.wait(error).await?,
            }
        }
    }
}

fn member(file: &SetFile, staged: String) -> Member {
    Member {
        path: file.remote.clone(),
        staged: Some(staged),
        remove: false,
        if_absent: file.options.conditions.if_absent,
        if_version: file.options.conditions.if_version,
        digest: None,
        attributes: file.options.attributes,
    }
}
