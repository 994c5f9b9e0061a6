//! How far a change of the CA has come: one small file, which the others follow.
//!
//! The file is written before what it says is done, so whoever finds it can go on. Both CAs keep
//! their keys until it is gone; which one signs is decided by it alone.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::PkiError;
use super::disk::{self, Disk, Over};
use super::layout::{Layout, Pair, SECRET};
use crate::escape::Escaped;

/// How long a new CA is trusted before it signs, so that its certificate can reach everybody.
pub(super) const SPREAD: SignedDuration = SignedDuration::from_hours(24);

/// A change of the CA that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rotation {
    pub(super) phase: Phase,
    pub(super) started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) promoted_at: Option<Timestamp>,
    /// Serial number of the CA that is on its way out.
    pub(super) old: String,
    /// Serial number of the CA that takes its place.
    pub(super) new: String,
}

/// What is done, or being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The new CA is trusted, the old one signs.
    Started,
    /// The new CA signs, the old one is trusted.
    Promoted,
    /// The old CA is being taken out.
    Finishing,
    /// The new CA is being taken out.
    RollingBack,
}

impl Rotation {
    /// The change that is going on, if one is.
    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, PkiError> {
        let path = layout.rotation();
        let Some(bytes) = disk::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            RotationError::State {
                path,
                reason: Escaped::new(&error.to_string()),
            }
            .into()
        })
    }

    /// Makes this what the other files follow.
    pub(super) fn write(&self, disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
        let mut text = serde_json::to_vec_pretty(self).expect("a rotation is plain JSON");
        text.push(b'\n');
        disk.write(&layout.rotation(), &text, SECRET, Over::Old)
    }

    /// Whether the new CA signs.
    const fn new_signs(&self) -> bool {
        matches!(self.phase, Phase::Promoted | Phase::Finishing)
    }
}

/// The files of the CAs, given how far a change of them has come.
pub(super) struct CaFiles {
    pub(super) signing: Pair,
    /// Of the other CA, as long as it is trusted too.
    pub(super) other: Option<Pair>,
}

impl CaFiles {
    /// Which files are which.
    pub(super) fn of(layout: &Layout, rotation: Option<&Rotation>) -> Self {
        let (main, next) = (layout.ca_pair(), layout.next_ca_pair());
        let Some(rotation) = rotation else {
            return Self {
                signing: main,
                other: None,
            };
        };
        let (signing, other) = if rotation.new_signs() {
            (next, main)
        } else {
            (main, next)
        };
        let is_shared = matches!(rotation.phase, Phase::Started | Phase::Promoted);
        Self {
            signing,
            other: is_shared.then_some(other),
        }
    }
}

/// Removes the files of a new CA that no change of the CA needs: one that was not begun after all,
/// or one that is over.
pub(super) fn tidy(disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
    if disk::is_file(&layout.rotation())? {
        return Ok(());
    }
    let Pair { certificate, key } = layout.next_ca_pair();
    for path in [certificate, key] {
        if disk::is_file(&path)? {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

/// Why the CA is not changed.
#[derive(Debug, Error)]
pub enum RotationError {
    #[error("{} cannot be understood: {reason}", path.display())]
    State { path: PathBuf, reason: Escaped },
    #[error("there is no CA in {}", dir.display())]
    NoCa { dir: PathBuf },
    #[error("no rotation is going on in {}", dir.display())]
    NotStarted { dir: PathBuf },
    #[error("the new CA does not sign yet")]
    NotPromoted,
    #[error("the new CA is trusted since {since} only, and it is {now}")]
    Early { since: Timestamp, now: Timestamp },
    #[error("the rotation is being finished: the old CA is not trusted any more")]
    Over,
    #[error("the rotation is being taken back: the new CA is not trusted any more")]
    Undone,
    #[error("{count} certificates of the {which} CA would not be trusted any more: {shown}")]
    Left {
        which: &'static str,
        count: usize,
        shown: String,
    },
    #[error("the CA with the serial number {serial} is not here")]
    Absent { serial: String },
}

impl RotationError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::State { .. } => "restore it from a backup".to_owned(),
            Self::NoCa { .. } => "fsvc gen-certs makes one".to_owned(),
            Self::NotStarted { .. } => "begin with: fsvc certs rotate-ca start".to_owned(),
            Self::NotPromoted => "first: fsvc certs rotate-ca promote".to_owned(),
            Self::Early { since, .. } => format!(
                "give every server and client the new ca.pem, then run this from {} on, or at \
                 once with --now if all of them have it",
                since
                    .checked_add(SPREAD)
                    .map_or_else(|_| "the next day".to_owned(), |time| time.to_string())
            ),
            Self::Over => "end it: fsvc certs rotate-ca finish".to_owned(),
            Self::Undone => "end it: fsvc certs rotate-ca rollback".to_owned(),
            Self::Left { .. } => "renew each (fsvc certs renew --all) and hand out the new files, \
                                  or take it back (fsvc certs revoke --serial SERIAL); \
                                  fsvc certs rotate-ca status lists them"
                .to_owned(),
            Self::Absent { .. } => {
                "run this where ca-private/ lives (the machine that made the CA)".to_owned()
            }
        }
    }
}
