//! What becomes of a tree: file by file as it happens, and counted at the end.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

use super::filter::PatternError;
use super::listing::ListingError;
use crate::client::ClientError;
use crate::escape::Escaped;
use crate::path::{PathError, RemotePath};
use crate::protocol::{ErrorCode, ErrorReply};

/// Why a file, a directory or all of a tree did not get where it should.
#[derive(Debug, Error)]
pub enum TreeError {
    #[error("{0}")]
    Local(#[from] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The same for every file of a request.
    #[error(transparent)]
    Shared(Arc<ClientError>),
    #[error(transparent)]
    Listing(#[from] ListingError),
    #[error("{}", Escaped::new(&.0.message))]
    Refused(ErrorReply),
    #[error("{0}; the server could not call it so")]
    Name(#[from] PathError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("its name is not UTF-8; the server could not call it so")]
    NotText,
    #[error("a pipe, a socket or a device: only files and directories are sent")]
    Special,
    #[error("a symbolic link has the name here: it is neither followed nor replaced")]
    LinkInTheWay,
    #[error("a pipe, a socket or a device has the name here, and is not replaced")]
    SpecialInTheWay,
    #[error("it is a file {file} and a directory {directory}")]
    Obstacle {
        file: &'static str,
        directory: &'static str,
    },
    #[error("it was changed while it was read, twice: try again when nobody writes to it")]
    Changing,
    #[error(
        "it was changed here since it was compared, and is left as it is: the next run decides anew"
    )]
    ChangedHere,
    #[error("a file whose name differs only by case or Unicode form is there already")]
    Twin,
    #[error("the server listed {listed} bytes and then gave more")]
    Larger { listed: u64 },
    #[error("{}: {source}", Escaped::new(path))]
    Member { path: String, source: Box<Self> },
    #[error("--if-version is about {0}, which is not among the files of the set")]
    NoMember(RemotePath),
    #[error("a set is all of a folder, and not all of it can be sent: nothing was changed")]
    SetFailed,
    #[error("a set has at most {limit} files, there are more in the tree")]
    SetTooLarge { limit: usize },
    #[error(
        "{n_planned} files would be deleted, --max-delete allows {limit}: nothing was deleted. If \
         that many should go, say --max-delete {n_planned}"
    )]
    TooManyDeletions { n_planned: u64, limit: u64 },
    #[error(
        "a directory could not be read in full, so it is not known what is gone: nothing was deleted"
    )]
    Incomplete,
    #[error("watching the folder failed: {0}")]
    Watch(String),
}

impl TreeError {
    /// The request that failed, if it was one.
    pub fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error) | Self::Listing(ListingError::Client(error)) => Some(error),
            Self::Shared(error) => Some(error),
            Self::Member { source, .. } => source.client(),
            _ => None,
        }
    }

    /// What the server says that went wrong, where it said so.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(reply) => Some(reply.code),
            error => error.client().and_then(ClientError::code),
        }
    }

    /// Whether what comes after it would fail as well.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Local(error) => is_full(error),
            Self::Client(error) | Self::Listing(ListingError::Client(error)) => is_final(error),
            Self::Shared(error) => is_final(error),
            _ => false,
        }
    }
}

/// Without a connection, or room on the disk, no file gets anywhere.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Sink(error) => is_full(error),
        ClientError::Connect { .. }
        | ClientError::Refused(_)
        | ClientError::Closed(_)
        | ClientError::NotGreeted { .. }
        | ClientError::Silent { .. }
        | ClientError::Lost { .. }
        | ClientError::Tls(_)
        | ClientError::ServerName(_) => true,
        _ => false,
    }
}

/// What became of one file.
pub(super) struct Outcome {
    pub(super) relative: String,
    /// Its size, when it is where it should be.
    pub(super) result: Result<u64, TreeError>,
}

impl Outcome {
    pub(super) fn failed(relative: String, error: impl Into<TreeError>) -> Self {
        Self {
            relative,
            result: Err(error.into()),
        }
    }
}

/// The disk has no room: for this file, and for the next.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What was done, or would be, with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Send,
    Fetch,
    /// On the side that is made like the other.
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Send => "send",
            Self::Fetch => "fetch",
            Self::Delete => "delete",
        })
    }
}

/// One thing that happened.
#[derive(Debug)]
pub enum Happened<'a> {
    /// A file was moved or removed. In a dry run: it would be.
    Done {
        action: Action,
        path: &'a str,
        size: u64,
    },
    /// A name that is passed over, which is not an error.
    Passed { path: &'a str, why: &'static str },
    /// A file or directory for which it did not work; the others go on.
    Failed { path: &'a str, error: &'a TreeError },
    /// Something is tried once more.
    Again { error: &'a ClientError },
    /// A round of a watch failed altogether; there will be another.
    Stopped { error: &'a TreeError },
    /// A whole folder is on the server, and is watched.
    Watching { summary: &'a Summary },
    /// How far it has come.
    Progress(Progress),
}

/// Who is told what happens. Called in order, and must not take long.
pub trait Reporter: Send + Sync {
    /// Something happened.
    fn happened(&self, what: &Happened<'_>);
}

/// How far a transfer has come, and how much there is to do as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub n_done: u64,
    pub n_planned: u64,
    pub bytes_done: u64,
    pub bytes_planned: u64,
    /// Files that were looked at and are the same on both sides.
    pub n_same: u64,
    pub n_retries: u64,
    /// Whether all is known that is to do.
    pub is_planned: bool,
}

/// The counts at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Files that were sent or fetched, and their bytes.
    pub n_moved: u64,
    pub bytes_moved: u64,
    /// Files that are the same on both sides, and were left as they are.
    pub n_same: u64,
    pub n_deleted: u64,
    /// Links, and names that are not the server's or not ours.
    pub n_passed: u64,
    pub n_failed: u64,
    pub n_retries: u64,
    /// Nothing was changed: these are the counts of what would be.
    pub dry_run: bool,
    /// The version of a set that was committed in one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

impl Summary {
    /// Counts another run with this one.
    pub fn add(&mut self, other: &Self) {
        self.n_moved += other.n_moved;
        self.bytes_moved += other.bytes_moved;
        self.n_same += other.n_same;
        self.n_deleted += other.n_deleted;
        self.n_passed += other.n_passed;
        self.n_failed += other.n_failed;
        self.n_retries += other.n_retries;
        self.dry_run |= other.dry_run;
        self.sequence = self.sequence.or(other.sequence);
    }

    /// Counts one thing that happened.
    pub(super) fn count(&mut self, what: &Happened<'_>) {
        match what {
            Happened::Done {
                action: Action::Delete,
                ..
            } => self.n_deleted += 1,
            Happened::Done { size, .. } => {
                self.n_moved += 1;
                self.bytes_moved += size;
            }
            Happened::Passed { .. } => self.n_passed += 1,
            Happened::Failed { .. } => self.n_failed += 1,
            Happened::Again { .. }
            | Happened::Stopped { .. }
            | Happened::Watching { .. }
            | Happened::Progress(_) => {}
        }
    }
}
