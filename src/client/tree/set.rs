//! A whole folder that becomes visible in one step.
//!
//! Every file is staged, a large one in parts; nothing is to be seen of them before the one commit. If
//! any cannot be read or staged nothing is committed: uploads are given up, unless the next run can go
//! on with them, and what was staged is forgotten by the server in its time.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::digests::Digests;
use super::folder::{Folder, describe};
use super::outcome::{Action, Happened, Reporter, Summary, TreeError};
use super::patience::Patience;
use super::plan::{Direction, Pending, Plan, Sending, Step};
use super::upload::{attributes, opening, read_small};
use super::{SMALL_SIZE_MAX, Transfer};
use crate::client::file::{Steady, WHOLE_SIZE_MAX};
use crate::client::put_member::{RESTAGES_MAX, Uploaded};
use crate::client::upload::on_thread;
use crate::client::{Client, ClientError, MEMBERS_MAX, TransferOptions};
use crate::path::RemotePath;
use crate::protocol::{ErrorCode, Member};

/// Small files in one request.
const BATCH_FILES_MAX: usize = 256;
/// Their bytes.
const BATCH_SIZE_MAX: u64 = 1 << 20;

/// The versions that files of a set must have before.
pub type Versions = BTreeMap<RemotePath, u64>;

/// Sends all files of the folder that the filters take and makes them visible in one step. What the
/// server has already is sent again: the set is all of the folder.
///
/// # Errors
/// A file cannot be read or staged, a condition does not hold, there are too many files: then nothing
/// was changed.
///
/// # Cancel safety
/// Dropping the future before the commit leaves nothing.
pub async fn put_set(
    client: &Client,
    transfer: &Transfer,
    versions: &Versions,
    reporter: &Arc<dyn Reporter>,
) -> Result<Summary, TreeError> {
    let path = transfer.local.clone();
    let folder = Arc::new(on_thread(move || Folder::open(&path)).await?);
    let mut set = Set {
        client: client.clone(),
        folder,
        transfer,
        reporter,
        patience: Patience::new(client, transfer.retry_for, Arc::clone(reporter)),
        summary: Summary {
            dry_run: transfer.dry_run,
            ..Summary::default()
        },
    };
    let files = set.list().await?;
    Set::check(&files, versions)?;
    if set.summary.n_failed > 0 {
        let error = TreeError::SetFailed;
        set.reporter.happened(&Happened::Failed {
            path: "",
            error: &error,
        });
        return Ok(set.summary);
    }
    if !transfer.dry_run && !files.is_empty() {
        set.commit(files, versions).await?;
    }
    set.summary.n_retries = set.patience.n_retries();
    Ok(set.summary)
}

/// What is ready for the commit.
#[derive(Default)]
struct Staged {
    members: Vec<Member>,
    /// Their names and sizes.
    files: Vec<(String, u64)>,
    uploads: Vec<Uploaded>,
}

impl Staged {
    fn add(&mut self, member: Member, relative: String, size: u64) {
        self.members.push(member);
        self.files.push((relative, size));
    }
}

struct Set<'a> {
    client: Client,
    folder: Arc<Folder>,
    transfer: &'a Transfer,
    reporter: &'a Arc<dyn Reporter>,
    patience: Patience,
    summary: Summary,
}

impl Set<'_> {
    /// All files of the folder.
    async fn list(&mut self) -> Result<Vec<Sending>, TreeError> {
        let root = Pending {
            relative: String::new(),
            local: true,
            remote: false,
            shallow: false,
        };
        let plan = Plan {
            client: self.client.clone(),
            patience: self.patience.clone(),
            folder: Some(Arc::clone(&self.folder)),
            remote: self.transfer.remote.clone(),
            direction: Direction::Up,
            delete: false,
            filters: self.transfer.filters.clone(),
            digests: Digests::open(None, &self.transfer.local, false),
            pending: Mutex::new(VecDeque::from([root])),
            is_incomplete: AtomicBool::new(false),
        };
        let (sender, mut steps) = mpsc::channel(1);
        let mut planner = JoinSet::new();
        planner.spawn(Arc::new(plan).run(sender));
        let mut files = Vec::new();
        while let Some(steps) = steps.recv().await {
            for step in steps {
                match step {
                    Step::Send(sending) => {
                        let size = sending.file.fingerprint.size;
                        let (path, action) = (sending.relative.as_str(), Action::Send);
                        if self.transfer.dry_run {
                            self.say(&Happened::Done { action, path, size });
                        }
                        files.push(sending);
                    }
                    Step::Passed { relative, why } => self.say(&Happened::Passed {
                        path: &relative,
                        why,
                    }),
                    Step::Failed { relative, error } => self.say(&Happened::Failed {
                        path: &relative,
                        error: &error,
                    }),
                    // Of a comparison, and nothing was compared.
                    Step::Fetch(_)
                    | Step::DeleteRemote(_)
                    | Step::DeleteLocal { .. }
                    | Step::Left(_)
                    | Step::Stale { .. }
                    | Step::Same => {}
                }
            }
            if files.len() > MEMBERS_MAX {
                let limit = MEMBERS_MAX;
                return Err(TreeError::SetTooLarge { limit });
            }
        }
        Ok(files)
    }

    fn check(files: &[Sending], versions: &Versions) -> Result<(), TreeError> {
        let names: std::collections::BTreeSet<_> = files.iter().map(|file| &file.path).collect();
        match versions.keys().find(|path| !names.contains(path)) {
            Some(path) => Err(TreeError::NoMember(path.clone())),
            None => Ok(()),
        }
    }

    /// Stages all files and commits them; of a set that is not committed nothing is left that another
    /// run could not go on with.
    async fn commit(&mut self, files: Vec<Sending>, versions: &Versions) -> Result<(), TreeError> {
        let mut n_restages = 0;
        loop {
            let mut staged = Staged::default();
            let committed = self.try_commit(&files, versions, &mut staged).await;
            let error = match committed {
                Ok(sequence) => {
                    for (path, size) in &staged.files {
                        let (action, size) = (Action::Send, *size);
                        self.say(&Happened::Done { action, path, size });
                    }
                    self.summary.sequence = Some(sequence);
                    staged.uploads.iter().for_each(Uploaded::forget);
                    return Ok(());
                }
                Err(error) => error,
            };
            let is_gone = error.client().is_some_and(ClientError::is_of_staged);
            let again = is_gone && n_restages < RESTAGES_MAX;
            let is_passing = again || error.client().is_some_and(ClientError::is_passing);
            let (members, uploads) = (&staged.members, &staged.uploads);
            self.client
                .give_up_members(members, uploads, is_passing)
                .await;
            match error {
                TreeError::Client(error) if again => {
                    self.say(&Happened::Again { error: &error });
                }
                error => return Err(error),
            }
            n_restages += 1;
        }
    }

    async fn try_commit(
        &self,
        files: &[Sending],
        versions: &Versions,
        staged: &mut Staged,
    ) -> Result<u64, TreeError> {
        let (mut batch, mut batch_size) = (Vec::new(), 0);
        for sending in files {
            let size = sending.file.fingerprint.size;
            if size > SMALL_SIZE_MAX {
                self.stage_large(sending.clone(), staged).await?;
                continue;
            }
            if batch.len() >= BATCH_FILES_MAX || batch_size + size > BATCH_SIZE_MAX {
                self.stage_small(std::mem::take(&mut batch), staged).await?;
                batch_size = 0;
            }
            batch_size += size;
            batch.push(sending.clone());
        }
        if !batch.is_empty() {
            self.stage_small(batch, staged).await?;
        }
        for member in &mut staged.members {
            member.if_absent = self.transfer.conditions.if_absent;
            member.if_version = versions.get(&member.path).copied();
        }
        let size = staged.uploads.iter().map(|uploaded| uploaded.size).sum();
        let committed = self.client.commit_of(&staged.members, size).await?;
        Ok(committed.sequence)
    }

    async fn stage_small(&self, batch: Vec<Sending>, set: &mut Staged) -> Result<(), TreeError> {
        let folder = Arc::clone(&self.folder);
        let read = on_thread(move || {
            let read = batch.into_iter().map(|sending| {
                let content = read_small(&folder, &sending.relative);
                (sending, content)
            });
            Ok(read.collect::<Vec<_>>())
        });
        let (mut files, mut contents) = (Vec::new(), Vec::new());
        for (mut sending, content) in read.await? {
            let (content, file) = content.map_err(|error| of(&sending, error))?;
            sending.file = file;
            files.push(sending);
            contents.push(content);
        }
        let stage = || self.client.stage_many(contents.clone());
        let staged = self.patience.persist(stage).await?;
        for (sending, staged) in files.into_iter().zip(staged) {
            let staged = staged.map_err(|reply| of(&sending, TreeError::Refused(reply)))?;
            let size = sending.file.fingerprint.size;
            let mut member = member(&sending, staged.staged.to_string());
            member.digest = Some(staged.digest);
            set.add(member, sending.relative, size);
        }
        Ok(())
    }

    /// One large file: in parts, where it has some and the server has room for uploads.
    async fn stage_large(&self, sending: Sending, set: &mut Staged) -> Result<(), TreeError> {
        if sending.file.fingerprint.size > WHOLE_SIZE_MAX {
            match self.upload(&sending).await {
                Ok(uploaded) => {
                    let mut member = member(&sending, uploaded.upload.to_string());
                    member.digest = Some(uploaded.digest);
                    member.attributes = Some(uploaded.attributes);
                    set.add(member, sending.relative, uploaded.size);
                    set.uploads.push(uploaded);
                    return Ok(());
                }
                // It became small, or keeps changing.
                Err(TreeError::Changing) => {}
                Err(error) if error.code() == Some(ErrorCode::Quota) => {}
                Err(error) => return Err(of(&sending, error)),
            }
        }
        self.stage_whole(sending, set).await
    }

    async fn upload(&self, sending: &Sending) -> Result<Uploaded, TreeError> {
        let (open, place) = opening(&self.folder, &sending.relative).await?;
        let options = TransferOptions {
            n_streams: Some(self.transfer.n_streams),
            delta: self.transfer.delta,
            observer: Some(Arc::new(self.patience.clone())),
            ..TransferOptions::default()
        };
        let uploaded = self
            .client
            .upload_member(open, &place, &sending.path, &options)
            .await;
        uploaded.map_err(|error| match error {
            ClientError::SourceChanged => TreeError::Changing,
            error => error.into(),
        })
    }

    async fn stage_whole(&self, mut sending: Sending, set: &mut Staged) -> Result<(), TreeError> {
        let stage = || async {
            let (folder, relative) = (Arc::clone(&self.folder), sending.relative.clone());
            let opened = on_thread(move || folder.file(&relative)).await;
            let (file, before) = opened.map_err(ClientError::Source)?;
            let size = before.fingerprint.size;
            let stays = move |file: &_| describe(file).is_ok_and(|now| now == before);
            let source = Steady::new(file, size, stays);
            let staged = self.client.stage(source, Some(size)).await?;
            Ok((staged, before))
        };
        let staged = self.patience.persist(stage).await;
        let (staged, file) = staged.map_err(|error| of(&sending, error.into()))?;
        sending.file = file;
        let mut member = member(&sending, staged.staged);
        member.digest = Some(staged.digest);
        set.add(member, sending.relative, staged.size);
        Ok(())
    }

    fn say(&mut self, what: &Happened<'_>) {
        self.summary.count(what);
        self.reporter.happened(what);
    }
}

fn member(sending: &Sending, staged: String) -> Member {
    Member {
        path: sending.path.clone(),
        staged: Some(staged),
        remove: false,
        if_absent: false,
        if_version: None,
        digest: None,
        attributes: Some(attributes(&sending.file)),
    }
}

/// Says which file it was that stops the whole set.
fn of(sending: &Sending, error: TreeError) -> TreeError {
    TreeError::Member {
        path: sending.relative.clone(),
        source: Box::new(error),
    }
}
