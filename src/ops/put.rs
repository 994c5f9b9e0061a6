//! Putting a file: plan, stage, seal, commit.
//!
//! Each step gives what the next one needs, and only a permit gives the first. Whatever is dropped on
//! the way leaves nothing behind.

use std::sync::Arc;

use super::commit::Waiting;
use super::target::Target;
use super::{OpError, Service, draft};
use crate::content::ContentId;
use crate::digest::{Digest, Hasher};
use crate::fault;
use crate::identity::Identity;
use crate::log::{Change, Conflict, Draft, Entry, Sequence};
use crate::path::RemotePath;
use crate::protocol::{Copy, FileInfo, Get, Put, Trailer};
use crate::store::{Sealed, Store, StoreError, Upload};

/// Bytes that a copy on the server reads at a time.
const COPY_PIECE_SIZE: usize = 256 << 10;

/// A permitted put, before its body. Only a permit makes one.
#[derive(Debug)]
pub struct PutPlan {
    target: Target,
    size: Option<u64>,
    size_max: u64,
}

/// A put whose body is arriving. Dropping it leaves nothing behind.
pub struct Staging {
    plan: PutPlan,
    upload: Box<dyn Upload>,
    hasher: Hasher,
    store: Arc<dyn Store>,
}

/// A content that is sealed, with the draft that publishes it. Dropping it uncommitted leaves
/// nothing behind.
pub struct Ready {
    draft: Draft,
    target: Target,
    sealed: Sealed,
    digest: Digest,
    discard: DiscardOnDrop,
}

/// A put on its way into the log.
pub struct Committing {
    waiting: Waiting,
    target: Target,
    sealed: Sealed,
    digest: Digest,
}

impl Committing {
    /// What the file is now.
    ///
    /// # Errors
    /// A condition does not hold, or a part failed.
    pub async fn file(self) -> Result<FileInfo, OpError> {
        let sequence = self
            .waiting
            .answer()
            .await
            .map_err(|error| self.target.explain(error.into()))?;
        Ok(FileInfo {
            path: self.target.path,
            size: self.sealed.stamp.size,
            modified: self.sealed.stamp.modified,
            version: Some(sequence.0),
            digest: Some(self.digest),
        })
    }
}

/// Removes a sealed content, unless a commit has taken it over.
struct DiscardOnDrop {
    store: Arc<dyn Store>,
    content: Option<ContentId>,
}

impl Drop for DiscardOnDrop {
    fn drop(&mut self) {
        if let Some(content) = self.content {
            self.store.discard(content);
        }
    }
}

impl Service {
    /// Whether a put may begin.
    ///
    /// # Errors
    /// No grant covers it, or its conditions or size cannot be met.
    pub fn plan_put(&self, who: &Identity, put: &Put) -> Result<PutPlan, OpError> {
        let target = self.target(who, &put.path, put.conditions())?;
        if let Some(size) = put.size.filter(|size| *size > self.file_size_max) {
            return Err(too_large(size, self.file_size_max));
        }
        Ok(PutPlan {
            target,
            size: put.size,
            size_max: self.file_size_max,
        })
    }

    /// Stages the body of a put. Blocks.
    ///
    /// # Errors
    /// The store is full, read-only or failed.
    pub fn begin(&self, plan: PutPlan) -> Result<Staging, OpError> {
        let upload = self.parts.store.begin(plan.size).map_err(OpError::Store)?;
        Ok(Staging {
            plan,
            upload,
            hasher: Hasher::new(),
            store: Arc::clone(&self.parts.store),
        })
    }

    /// Commits what was put, or hands it to the next batch; either way it happens, waited for or
    /// not. Blocks.
    pub fn commit_put(&self, ready: Ready) -> Committing {
        let Ready {
            draft,
            target,
            sealed,
            digest,
            mut discard,
        } = ready;
        discard.content = None;
        let waiting = self.committer.submit_blocking(draft, Some(sealed.content));
        Committing {
            waiting,
            target,
            sealed,
            digest,
        }
    }

    /// Stages the content of another file: `read` on it, the rights of a put on the new name. Blocks.
    ///
    /// # Errors
    /// No grant covers it, it is not there or not at the version asked for, or the disk failed.
    pub fn stage_copy(&self, who: &Identity, request: &Copy) -> Result<Ready, OpError> {
        let put = Put {
            path: request.to.clone(),
            size: None,
            if_absent: request.if_absent,
            if_version: None,
        };
        let source = self.open_file(
            who,
            &Get {
                path: request.from.clone(),
            },
        )?;
        let mut plan = self.plan_put(who, &put)?;
        if request.from == request.to {
            return Err(OpError::BadRequest("a file cannot be copied onto itself"));
        }
        if let Some(wanted) = request.if_version
            && source.info.version != Some(wanted)
        {
            return Err(OpError::Conflict(version_conflict(
                &request.from,
                wanted,
                source.info.version,
            )));
        }
        plan.size = Some(source.info.size);
        let mut staging = self.begin(plan)?;
        let mut buffer = vec![0; COPY_PIECE_SIZE];
        while staging.hasher.size() < source.info.size {
            let n = source.content.read_at(&mut buffer, staging.hasher.size());
            let n = n.map_err(|source| {
                OpError::Store(StoreError::Io {
                    during: "reading a file",
                    source,
                })
            })?;
            if n == 0 {
                return Err(OpError::Unsettled(request.from.clone()));
            }
            staging.write(&buffer[..n])?;
        }
        let (size, digest) = (staging.hasher.size(), staging.hasher.digest());
        if let Some(known) = source.info.digest.filter(|known| *known != digest) {
            let (announced, arrived) = (known.to_string(), digest.to_string());
            return Err(OpError::Mismatch {
                what: "the stored file's digest",
                announced,
                arrived,
            });
        }
        staging.seal(&Trailer::Whole { size, digest })
    }
}

impl Staging {
    /// Takes the next piece of the body. Blocks.
    ///
    /// # Errors
    /// The body is too large, or the disk is full or failed.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), OpError> {
        self.hasher.update(piece);
        if self.hasher.size() > self.plan.size_max {
            return Err(too_large(self.hasher.size(), self.plan.size_max));
        }
        self.upload.write(piece).map_err(OpError::Store)
    }

    /// Holds what arrived against what the sender says it sent, and makes it durable. Blocks.
    ///
    /// # Errors
    /// Size or digest differ, the sender gave up, or the disk failed.
    pub fn seal(self, trailer: &Trailer) -> Result<Ready, OpError> {
        let Self {
            plan,
            upload,
            hasher,
            store,
        } = self;
        let arrived = hasher.digest();
        match trailer {
            Trailer::Abort { abort } => return Err(OpError::Aborted(*abort)),
            Trailer::Whole { size, digest } => {
                check_size("the body's size", *size, hasher.size())?;
                check_size(
                    "the announced size",
                    plan.size.unwrap_or(*size),
                    hasher.size(),
                )?;
                if *digest != arrived {
                    let (announced, arrived) = (digest.to_string(), arrived.to_string());
                    return Err(OpError::Mismatch {
                        what: "the body's digest",
                        announced,
                        arrived,
                    });
                }
            }
        }
        let sealed = upload.seal().map_err(OpError::Store)?;
        let discard = DiscardOnDrop {
            store,
            content: Some(sealed.content),
        };
        let _ = fault::point("put.seal.after");
        let entry = Entry {
            content: sealed.content,
            stamp: sealed.stamp,
            digest: Some(arrived),
        };
        let change = Change::Put {
            path: plan.target.path.clone(),
            entry,
        };
        let draft = draft(&plan.target.who, vec![change], plan.target.log_conditions());
        Ok(Ready {
            draft,
            target: plan.target,
            sealed,
            digest: arrived,
            discard,
        })
    }
}

fn check_size(what: &'static str, announced: u64, arrived: u64) -> Result<(), OpError> {
    if announced == arrived {
        return Ok(());
    }
    Err(OpError::Mismatch {
        what,
        announced: announced.to_string(),
        arrived: arrived.to_string(),
    })
}

fn too_large(size: u64, size_max: u64) -> OpError {
    OpError::TooLarge {
        what: "the file",
        size,
        size_max,
    }
}

fn version_conflict(path: &RemotePath, wanted: u64, found: Option<u64>) -> Conflict {
    let (path, wanted) = (path.clone(), Sequence(wanted));
    match found {
        Some(found) => Conflict::Changed {
            path,
            found: Sequence(found),
            wanted,
        },
        None => Conflict::Gone { path, wanted },
    }
}
