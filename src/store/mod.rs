//! The store: content, and nothing else.
//!
//! What is staged cannot be named by a client. What is published is whole. Calls block: they belong
//! on a blocking thread.

pub mod local;

use std::collections::HashSet;
use std::io;

use jiff::Timestamp;
use thiserror::Error;

use crate::content::{ContentId, Stamp};
use crate::path::{Prefix, RemotePath};

/// A content that is complete, durable, and not yet published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    pub content: ContentId,
    /// Unlike that of any other content that this store sealed.
    pub stamp: Stamp,
}

/// A content that is complete and not yet durable: [`Store::seal_all`] makes it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsealed {
    pub content: ContentId,
    /// Unlike that of any other content that this store sealed.
    pub stamp: Stamp,
}

/// One step that makes the tree say what the log says. Each can be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// The staged content becomes the file at `path`.
    Place {
        content: ContentId,
        stamp: Stamp,
        path: RemotePath,
    },
    /// The file at `from`, if it has this stamp, becomes the file at `to`.
    Rename {
        from: RemotePath,
        to: RemotePath,
        stamp: Stamp,
    },
    /// The file at `path`, if it has this stamp, is gone.
    Remove { path: RemotePath, stamp: Stamp },
    /// The staged content is kept beside the tree, where it is opened by its id.
    Attach { content: ContentId },
}

/// What is being settled.
#[derive(Debug)]
pub struct Settling {
    /// Packs, by their numbers.
    pub(in crate::store) packs: Vec<u64>,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The tree says it, because of this call or already.
    Done,
    /// The same, for a content that is durable beside the tree alone until all is settled.
    Unsettled,
    /// What should have been published is nowhere: the tree is as it was.
    Missing,
}

/// A fault, named as a client may have to know it; the source is for the log.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("no file is there")]
    NotFound,
    #[error("{0} is not a regular file")]
    NotAFile(RemotePath),
    #[error("{above} is a file, so {path} cannot be")]
    FileAbove { path: RemotePath, above: RemotePath },
    #[error("{0} is a directory")]
    Directory(RemotePath),
    #[error("a link or another file system is in the way of {0}")]
    Confined(RemotePath),
    #[error("no space is left")]
    OutOfSpace(#[source] io::Error),
    #[error("the store takes no changes since an I/O error: {0}")]
    ReadOnly(String),
    #[error("{during} failed")]
    Io {
        during: &'static str,
        #[source]
        source: io::Error,
    },
}

/// A content that is being written. Dropping it removes what was staged.
pub trait Upload: Send {
    /// Appends a piece.
    ///
    /// # Errors
    /// The disk is full or failed; the upload is worth nothing more.
    fn write(&mut self, piece: &[u8]) -> Result<(), StoreError>;

    /// Makes what was written durable. An error of the sync is final: what was staged is removed
    /// and the store takes no more changes.
    ///
    /// # Errors
    /// The disk is full or failed.
    fn seal(self: Box<Self>) -> Result<Sealed, StoreError>;

    /// Ends the content without making it durable. It is the caller's to seal or to discard, and
    /// holds nothing open meanwhile.
    ///
    /// # Errors
    /// The disk failed; what was staged is removed.
    fn finish(self: Box<Self>) -> Result<Unsealed, StoreError>;
}

/// A content that is written in parts, from any number of threads.
pub trait Parts: Send + Sync {
    /// Writes a piece at its place.
    ///
    /// # Errors
    /// The disk is full or failed.
    fn write_at(&self, piece: &[u8], offset: u64) -> Result<(), StoreError>;

    /// Makes durable what was written before the call. A failure is final, as that of a seal.
    ///
    /// # Errors
    /// The disk failed.
    fn sync(&self) -> Result<(), StoreError>;
}

/// A content that has notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    pub content: ContentId,
    /// When the last one was written.
    pub modified: Timestamp,
}

/// A file open for reading: the same content to the end, whatever is published meanwhile.
pub trait Content: Send {
    /// What the file is recognised by.
    fn stamp(&self) -> Stamp;

    /// Fills as much of `buffer` as the file holds from `offset` on; zero at its end.
    ///
    /// # Errors
    /// The disk failed.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// One name in a directory of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    File { name: String, stamp: Stamp },
    Directory { name: String },
}

/// Names of one directory, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub names: Vec<Name>,
    /// Whether there are names after the last of these.
    pub more: bool,
    /// How many names no remote path can spell: not among `names`.
    pub n_unnameable: u64,
}

/// Where content lives.
pub trait Store: Send + Sync {
    /// Whether the store takes changes.
    ///
    /// # Errors
    /// It does not, and why.
    fn check(&self) -> Result<(), StoreError>;

    /// Begins a content of `size` bytes, where that is known.
    ///
    /// # Errors
    /// The store is full, read-only or failed.
    fn begin(&self, size: Option<u64>) -> Result<Box<dyn Upload>, StoreError>;

    /// Begins a content of `size` bytes that comes with many others. A power cut may take a small one
    /// out of the tree again until all is settled: then it is still [`Store::is_left`].
    ///
    /// # Errors
    /// The store is full, read-only or failed.
    fn begin_many(&self, size: u64) -> Result<Box<dyn Upload>, StoreError>;

    /// Makes a content of `size` bytes that is written in parts; it outlives the process, with a
    /// first note beside it.
    ///
    /// # Errors
    /// The store is full, read-only or failed.
    fn allocate(&self, size: u64, note: &[u8]) -> Result<ContentId, StoreError>;

    /// Opens such a content for writing.
    ///
    /// # Errors
    /// It is not there, or the store is read-only or failed.
    fn parts(&self, content: ContentId) -> Result<Box<dyn Parts>, StoreError>;

    /// Makes such a content durable once its parts are there: `size` bytes. It can be done again.
    ///
    /// # Errors
    /// It does not have this size, or the disk failed.
    fn seal_parts(&self, content: ContentId, size: u64) -> Result<Sealed, StoreError>;

    /// Remembers something more beside such a content; durable when it returns, if that is asked.
    ///
    /// # Errors
    /// The disk is full or failed; the notes may then end in half of this one.
    fn note(&self, content: ContentId, note: &[u8], is_durable: bool) -> Result<(), StoreError>;

    /// Puts other notes in the place of all those of a content, in one durable step.
    ///
    /// # Errors
    /// The disk is full or failed; the notes are as they were.
    fn replace_notes(&self, content: ContentId, notes: &[u8]) -> Result<(), StoreError>;

    /// The contents that have notes, in no order.
    ///
    /// # Errors
    /// The disk failed.
    fn noted(&self) -> Result<Vec<Noted>, StoreError>;

    /// The notes of a content, up to `size_max` bytes. The last one may be torn by a power cut.
    ///
    /// # Errors
    /// They are not there, or the disk failed.
    fn notes(&self, content: ContentId, size_max: usize) -> Result<Vec<u8>, StoreError>;

    /// Removes the notes of a content; and the content too, unless it is published.
    fn forget(&self, content: ContentId);

    /// Makes contents durable, many of them at the cost of a few. Blocks. An error is final, as
    /// that of [`Upload::seal`].
    ///
    /// # Errors
    /// The disk failed: none of them is sealed, and the store takes no more changes.
    fn seal_all(&self, contents: &[Unsealed]) -> Result<Vec<Sealed>, StoreError>;

    /// Removes a staged content that will not be published.
    fn discard(&self, content: ContentId);

    /// Bytes that are durable beside the tree alone, of this run and the last one.
    fn unsettled(&self) -> u64;

    /// Whether a content of the last run was not settled.
    fn is_left(&self, content: ContentId) -> bool;

    /// Makes such a content, once more, the file at `path`; durable when all is settled. It may be
    /// there already.
    ///
    /// # Errors
    /// The name is taken, or the disk failed.
    fn restore(
        &self,
        content: ContentId,
        stamp: Stamp,
        path: &RemotePath,
    ) -> Result<(), StoreError>;

    /// Begins to settle: what is published before the call is durable in the tree after
    /// [`Store::settle`]. It has nothing of what the last run left.
    fn begin_settling(&self) -> Settling;

    /// What the last run did not settle.
    fn left(&self) -> Settling;

    /// Makes the whole tree durable. Blocks. An error is final.
    ///
    /// # Errors
    /// The disk failed: the store takes no more changes.
    fn settle(&self) -> Result<(), StoreError>;

    /// Gives back the space of what was settled, and is not asked for by the next start.
    ///
    /// # Errors
    /// The disk failed.
    fn end_settling(&self, settling: Settling) -> Result<(), StoreError>;

    /// Makes sure that a file can be published at `path`: its directories are there, durable with
    /// the next [`Store::sync`], and nothing that is not a file has its name.
    ///
    /// # Errors
    /// The name is taken, or the disk is full or failed.
    fn prepare(&self, path: &RemotePath) -> Result<(), StoreError>;

    /// The same for several, each for itself, with the content that is to be published there, if it
    /// is a new one.
    fn prepare_all(&self, places: &[(&RemotePath, Option<Sealed>)]) -> Vec<Result<(), StoreError>>;

    /// Takes back the directories for files at `paths` that will not be published after all, as far
    /// as they are empty: a directory is there while a file is in it.
    ///
    /// # Errors
    /// The disk failed.
    fn release(&self, paths: &[&RemotePath]) -> Result<(), StoreError>;

    /// Publishes one step; it is visible at once and durable after [`Store::sync`].
    ///
    /// # Errors
    /// The disk failed: the store takes no more changes.
    fn publish(&self, publication: &Publication) -> Result<Published, StoreError>;

    /// The same for several, in their order; after one that fails there are no more.
    ///
    /// # Errors
    /// As [`Store::publish`].
    fn publish_all(&self, publications: &[Publication]) -> Result<Vec<Published>, StoreError>;

    /// Makes every publication since the last call durable, but those that are to be settled.
    ///
    /// # Errors
    /// The disk failed: the store takes no more changes.
    fn sync(&self) -> Result<(), StoreError>;

    /// Opens a file for reading. No link is followed; what is not a regular file is refused.
    ///
    /// # Errors
    /// No file is there, or the disk failed.
    fn open(&self, path: &RemotePath) -> Result<Box<dyn Content>, StoreError>;

    /// Opens a content that was attached.
    ///
    /// # Errors
    /// It is not there, or the disk failed.
    fn open_attached(&self, content: ContentId) -> Result<Box<dyn Content>, StoreError>;

    /// Removes contents that were attached; they may be gone already.
    ///
    /// # Errors
    /// The disk failed.
    fn detach(&self, contents: &[ContentId]) -> Result<(), StoreError>;

    /// What the file at a path is recognised by.
    ///
    /// # Errors
    /// No file is there, or the disk failed.
    fn stat(&self, path: &RemotePath) -> Result<Stamp, StoreError>;

    /// Up to `n_max` names of a directory after `after`, in the order of their bytes. Memory is
    /// bounded by `n_max`, not by the directory.
    ///
    /// # Errors
    /// No such directory is there, or the disk failed.
    fn list(
        &self,
        directory: &Prefix,
        after: Option<&str>,
        n_max: usize,
    ) -> Result<Names, StoreError>;

    /// Removes every staged content that is not in `keep`; says how many.
    ///
    /// # Errors
    /// The disk failed.
    fn sweep(&self, keep: &HashSet<ContentId>) -> Result<usize, StoreError>;
}
