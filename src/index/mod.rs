//! The index: what the log says now, path by path.
//!
//! A pure fold over records: rebuilt from the log it comes out equal. Calls block.

pub mod embedded;
pub mod fold;

use thiserror::Error;

use crate::log::{Entry, Sequence};
use crate::path::{Prefix, RemotePath};

/// A file as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Indexed {
    /// The record that put it there.
    pub version: Sequence,
    pub entry: Entry,
}

/// A fault of the index itself.
#[derive(Debug, Error)]
pub enum IndexError {
    #[error("the index is damaged: {0}")]
    Damaged(String),
    #[error("the index cannot be used")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the log says now.
pub trait Index: Send + Sync {
    /// The file at a path.
    ///
    /// # Errors
    /// The engine failed.
    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, IndexError>;

    /// Up to `n_max` files under `prefix`, at any depth, after `after`, in the order of their bytes.
    ///
    /// # Errors
    /// The engine failed.
    fn range(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
        n_max: usize,
    ) -> Result<Vec<(RemotePath, Indexed)>, IndexError>;
}
