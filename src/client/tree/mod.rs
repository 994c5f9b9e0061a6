//! Trees: a local folder and a directory of the server, one made like the other.
//!
//! Sending, fetching and synchronising are one thing: a plan out of two listings, and what it says is
//! done. Neither side is believed: names are checked, links are not followed, and memory does not grow
//! with the tree.

mod deletions;
mod destination;
mod digests;
mod download;
mod filter;
mod folder;
mod judge;
mod listing;
mod moves;
mod outcome;
mod partial;
mod patience;
mod plan;
mod remembered;
mod remote_tree;
mod remove;
mod run;
mod set;
mod upload;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

pub use filter::{Choice, Filters, PATTERNS_MAX, PatternError};
pub use listing::ListingError;
pub use outcome::{Action, Happened, Progress, Reporter, Summary, TreeError};
pub use plan::Direction;
pub use remote_tree::{Found, RemoteTree};
pub use remove::remove;
pub use run::transfer;
pub use set::{Versions, put_set};
pub use watch::watch;

use crate::client::Delta;
use crate::path::Prefix;
use crate::protocol::Conditions;

/// Requests that are under way at a time, unless the user says otherwise: measured, more of them win
/// nothing where client and server share two cores.
pub const JOBS: usize = 4;
/// Most requests under way at a time.
pub const JOBS_MAX: usize = 64;
/// Files that may be deleted in one run, unless the user says otherwise.
pub const DELETIONS_MAX: u64 = 1_000;
/// Largest file that travels in one request with others.
pub const SMALL_SIZE_MAX: u64 = 128 << 10;

/// Which side is made like the other, and how.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub direction: Direction,
    pub local: PathBuf,
    pub remote: Prefix,
    pub filters: Filters,
    /// Whether what the other side does not have is deleted, and how many files at most.
    pub deletions_max: Option<u64>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Of every file that is sent.
    pub conditions: Conditions,
    /// Whether fetched files get the permission bits that their writers gave.
    pub keeps_modes: bool,
    /// Requests under way at a time.
    pub n_jobs: usize,
    /// Connections that a large file is moved over.
    pub n_streams: usize,
    /// Whether of a large file only what changed is sent.
    pub delta: Delta,
    /// Where digests of local files are kept between runs; nowhere if absent.
    pub cache: Option<PathBuf>,
    /// How long something that does not work is tried again.
    pub retry_for: Duration,
}
