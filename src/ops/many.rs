//! Many small files in one body, each a put of its own.
//!
//! A file is staged as it arrives, so that memory is bounded by one piece of the body and not by the
//! files. What is refused is noted and passed over, and the others go on; a body that breaks off puts
//! nothing.

use std::sync::Arc;

use tracing::warn;

use super::job::{CommitError, Waiting};
use super::put::check_attributes;
use super::repeat::written;
use super::staging::{Allowance, Arrived, StagedContent, Staging, check_trailer, too_large};
use super::target::Target;
use super::{OpError, Service, draft};
use crate::content::{Attributes, ContentId};
use crate::digest::{Digest, Hasher};
use crate::identity::Identity;
use crate::label::DedupId;
use crate::log::{Change, Draft, Entry, Matter};
use crate::protocol::{
    Conditions, ErrorCode, LINE_SIZE_MAX, MANY_FILES_MAX, MANY_SIZE_MAX, Packed, PackedPut,
    PutMany, PutManyDone, RefusedFile, Stage, Trailer, Unpacker,
};

/// Bytes of a body: what the most and largest files need.
const BODY_SIZE_MAX: u64 = MANY_FILES_MAX as u64 * (MANY_SIZE_MAX + LINE_SIZE_MAX as u64 + 1);
/// Bytes of reasons in one answer: what a message holds beside the names of the most files.
const REASONS_SIZE_MAX: usize = 20 << 10;

/// A body with many files, as it arrives. Dropping it leaves nothing behind.
pub struct Puts {
    service: Arc<Service>,
    who: Arc<Identity>,
    /// They are staged for a set.
    stage: bool,
    /// The n-th file, from 1, has the n-th id of this.
    request_id: Option<DedupId>,
    /// What may be staged of each.
    allowance: Allowance,
    unpacker: Unpacker,
    /// Of the whole body.
    hasher: Hasher,
    files: Vec<Result<Put, OpError>>,
    arriving: Option<Arriving>,
}

/// A file that has arrived.
struct Put {
    /// Absent where it is only staged.
    target: Option<Target>,
    attributes: Option<Attributes>,
    content: Arrived,
}

/// A file of which more is to come.
struct Arriving {
    size: u64,
    n_left: u64,
    digest: Digest,
    attributes: Option<Attributes>,
    /// Where it goes; once it is refused, its bytes are passed over.
    staging: Result<(Option<Target>, Staging), OpError>,
}

/// Many files that have arrived, on their way into the log or into a set.
pub struct ManyPuts {
    files: Vec<Result<(Target, Digest), OpError>>,
    waiting: Option<Waiting>,
    staged: Vec<Result<ContentId, OpError>>,
}

impl Service {
    /// Whether many files may come; each is asked about when it does.
    ///
    /// # Errors
    /// They are to be staged, and no grant covers any file; or the request id is too long.
    pub fn plan_puts(
        self: &Arc<Self>,
        who: &Arc<Identity>,
        request: &PutMany,
    ) -> Result<Puts, OpError> {
        let longest = request.request_id.as_ref();
        let longest = longest.map(|id| id.nth(MANY_FILES_MAX)).transpose();
        longest.map_err(OpError::Label)?;
        let allowance = if request.stage {
            self.plan_stage(who, Stage::default())?
        } else {
            Allowance {
                size: None,
                size_max: self.file_size_max,
            }
        };
        Ok(Puts {
            service: Arc::clone(self),
            who: Arc::clone(who),
            stage: request.stage,
            request_id: request.request_id.clone(),
            allowance: Allowance {
                size: None,
                size_max: allowance.size_max.min(MANY_SIZE_MAX),
            },
            unpacker: Unpacker::default(),
            hasher: Hasher::new(),
            files: Vec::new(),
            arriving: None,
        })
    }
}

impl Puts {
    /// Takes the next piece of the body. Blocks.
    ///
    /// # Errors
    /// The body is not packed as it should be, or has too much in it; nothing is put.
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), OpError> {
        self.hasher.update(piece);
        if self.hasher.size() > BODY_SIZE_MAX {
            return Err(OpError::TooLarge {
                what: "the body",
                size: self.hasher.size(),
                size_max: BODY_SIZE_MAX,
            });
        }
        while let Some(next) = self.unpacker.next(&mut piece)? {
            match next {
                Packed::Line(line) => self.begin(&line)?,
                Packed::Bytes(bytes) => {
                    if let Some(arriving) = &mut self.arriving {
                        arriving.write(bytes);
                    }
                }
            }
            self.arriving = match self.arriving.take() {
                Some(arriving) if arriving.n_left == 0 => {
                    self.files.push(arriving.finish());
                    None
                }
                other => other,
            };
        }
        Ok(())
    }

    /// Takes the end of the body, makes what has arrived durable, and hands it on. Blocks.
    ///
    /// # Errors
    /// The body is not whole, or the disk failed; nothing is put.
    pub fn finish(self, trailer: &Trailer) -> Result<ManyPuts, OpError> {
        check_trailer(trailer, None, self.hasher.size(), self.hasher.digest())?;
        self.unpacker.finish()?;
        let mut places = Vec::with_capacity(self.files.len());
        let mut arrived = Vec::with_capacity(self.files.len());
        for file in self.files {
            places.push(file.and_then(|put| {
                // The policy may have changed while the body came.
                let target = put.target.map(|target| self.service.renew(&target));
                let target = target.transpose()?;
                arrived.push(put.content);
                Ok((target, put.attributes))
            }));
        }
        let mut contents = self.service.seal_all(arrived)?.into_iter();
        let mut done = ManyPuts {
            files: Vec::new(),
            waiting: None,
            staged: Vec::new(),
        };
        if self.stage {
            let kept = self.service.keep_all_staged(&self.who, contents.collect());
            let mut kept = kept.into_iter();
            let staged = places
                .into_iter()
                .map(|place| place.and_then(|_| kept.next().unwrap_or(Err(OpError::ThreadLost))));
            done.staged = staged.collect();
            return Ok(done);
        }
        let mut drafts = Vec::with_capacity(places.len());
        for (place, number) in places.into_iter().zip(1..) {
            done.files.push(place.and_then(|(target, attributes)| {
                let id = self.request_id.as_ref();
                let request_id = id.map(|id| id.nth(number)).transpose();
                let request_id = request_id.map_err(OpError::Label)?;
                let (Some(target), Some(content)) = (target, contents.next()) else {
                    return Err(OpError::ThreadLost);
                };
                let digest = content.digest;
                let (draft, content) = put_draft(&target, attributes, content);
                drafts.push((
                    Draft {
                        request_id,
                        ..draft
                    },
                    content,
                ));
                Ok((target, digest))
            }));
        }
        if !drafts.is_empty() {
            done.waiting = Some(self.service.committer.submit_puts(drafts));
        }
        Ok(done)
    }

    /// The line of the next file.
    fn begin(&mut self, line: &[u8]) -> Result<(), OpError> {
        let number = self.files.len();
        if number == MANY_FILES_MAX {
            return Err(OpError::TooMany {
                what: "files in one body",
                n_max: MANY_FILES_MAX,
            });
        }
        let line = PackedPut::decode(line).map_err(|error| OpError::PackedLine {
            number,
            error: error.to_string(),
        })?;
        let is_free = !line.if_absent && line.if_version.is_none();
        if self.stage && (line.path.is_some() || line.attributes.is_some() || !is_free) {
            return Err(OpError::BadRequest(
                "what is staged has no path, conditions or attributes yet",
            ));
        }
        if !self.stage && line.path.is_none() {
            return Err(OpError::BadRequest("a file that is put has a path"));
        }
        self.unpacker.expect(line.size);
        self.arriving = Some(Arriving {
            size: line.size,
            n_left: line.size,
            digest: line.digest,
            attributes: line.attributes,
            staging: self.plan(&line),
        });
        Ok(())
    }

    fn plan(&self, line: &PackedPut) -> Result<(Option<Target>, Staging), OpError> {
        let conditions = Conditions {
            if_absent: line.if_absent,
            if_version: line.if_version,
        };
        let target = line.path.as_ref();
        let target = target.map(|path| self.service.target(&self.who, path, conditions));
        let target = target.transpose()?;
        check_attributes(line.attributes)?;
        if line.size > self.allowance.size_max {
            return Err(too_large(line.size, self.allowance.size_max));
        }
        let allowance = Allowance {
            size: Some(line.size),
            ..self.allowance
        };
        // What waits for the request of its set waits for too long to hold a descriptor.
        let staging = if self.stage {
            self.service.begin(allowance)?
        } else {
            self.service.begin_many(allowance)?
        };
        Ok((target, staging))
    }
}

impl Arriving {
    fn write(&mut self, bytes: &[u8]) {
        self.n_left = self.n_left.saturating_sub(bytes.len() as u64);
        if let Ok((_, staging)) = &mut self.staging
            && let Err(error) = staging.write(bytes)
        {
            self.staging = Err(error);
        }
    }

    fn finish(self) -> Result<Put, OpError> {
        let (target, staging) = self.staging?;
        let content = staging.finish(&Trailer::Whole {
            size: self.size,
            digest: self.digest,
        })?;
        Ok(Put {
            target,
            attributes: self.attributes,
            content,
        })
    }
}

impl ManyPuts {
    /// What became of each.
    ///
    /// # Errors
    /// The service is stopping.
    pub async fn done(self) -> Result<PutManyDone, OpError> {
        let mut done = PutManyDone::default();
        let mut reasons = Reasons::default();
        for (staged, number) in self.staged.into_iter().zip(0..) {
            let staged = staged.map_err(|error| reasons.add(&mut done, number, &error));
            done.staged.push(staged.ok());
        }
        let mut answers = Vec::new().into_iter();
        if let Some(waiting) = self.waiting {
            answers = waiting.answers().await.map_err(OpError::from)?.into_iter();
        }
        for (file, number) in self.files.into_iter().zip(0..) {
            let version = file.and_then(|(target, digest)| match answers.next() {
                Some(Ok(sequence)) => Ok(sequence.0),
                // It was put before, and the answer was lost: if it was this one.
                Some(Err(CommitError::Repeated(record))) => {
                    let file = written(&record, &target.path)?;
                    let is_same = file.digest == Some(digest);
                    let sequence = is_same.then_some(record.sequence.0);
                    sequence.ok_or(OpError::AnotherRequest(record.sequence))
                }
                Some(Err(error)) => Err(target.explain(error.into())),
                None => Err(OpError::ShuttingDown),
            });
            let version = version.map_err(|error| reasons.add(&mut done, number, &error));
            done.versions.push(version.unwrap_or(0));
        }
        Ok(done)
    }
}

/// Room for reasons in an answer.
#[derive(Default)]
struct Reasons {
    size: usize,
    is_fault_logged: bool,
}

impl Reasons {
    fn add(&mut self, done: &mut PutManyDone, number: u64, error: &OpError) {
        done.n_refused += 1;
        let reply = error.reply();
        if matches!(reply.code, ErrorCode::Internal | ErrorCode::Unavailable)
            && !std::mem::replace(&mut self.is_fault_logged, true)
        {
            let error = error as &dyn std::error::Error;
            warn!(number, error, "the first of many files that failed");
        }
        let refused = RefusedFile {
            number,
            error: reply,
        };
        let size = serde_json::to_vec(&refused).map_or(REASONS_SIZE_MAX, |text| text.len() + 1);
        if self.size + size <= REASONS_SIZE_MAX {
            self.size += size;
            done.refused.push(refused);
        } else {
            // The first ones that fit, without a gap.
            self.size = REASONS_SIZE_MAX;
        }
    }
}

fn put_draft(
    target: &Target,
    attributes: Option<Attributes>,
    staged: StagedContent,
) -> (Draft, ContentId) {
    let entry = Entry {
        content: staged.sealed.content,
        stamp: staged.sealed.stamp,
        digest: Some(staged.digest),
        attributes,
    };
    let change = Change::Put {
        path: target.path.clone(),
        entry,
    };
    let matter = Matter::Files(vec![change]);
    let draft = draft(&target.who, matter, target.log_conditions());
    (draft, staged.release())
}
