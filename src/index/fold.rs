//! The fold: what a record does to the entries, and whether a draft fits among them.
//!
//! Pure: the same for every place that the entries may be kept in. `check` promises that `apply`
//! leaves no file above or below another.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use super::Indexed;
use crate::log::{Change, Condition, Conflict, Draft, Entry, Record, Sequence};
use crate::path::{Prefix, RemotePath};

/// Where entries are kept.
pub trait Entries {
    /// A fault of the place.
    type Error;

    /// The file at a path.
    ///
    /// # Errors
    /// The place failed.
    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, Self::Error>;

    /// The first file under `prefix`, at any depth, after `after`.
    ///
    /// # Errors
    /// The place failed.
    fn first_below(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
    ) -> Result<Option<RemotePath>, Self::Error>;

    /// Makes `indexed` the file at a path; the version of the one that was there.
    ///
    /// # Errors
    /// The place failed.
    fn insert(
        &mut self,
        path: &RemotePath,
        indexed: Indexed,
    ) -> Result<Option<Sequence>, Self::Error>;

    /// Makes sure that no file is at a path; the version of the one that was there.
    ///
    /// # Errors
    /// The place failed.
    fn remove(&mut self, path: &RemotePath) -> Result<Option<Sequence>, Self::Error>;
}

/// What a record did to the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Which of its changes, by their number from 0, took the place of another file.
    pub replaced: Vec<u32>,
    /// Records of which one change each no longer says how a file is.
    pub superseded: Vec<Sequence>,
}

/// Takes a record in.
///
/// # Errors
/// The place failed.
pub fn apply<E: Entries>(record: &Record, entries: &mut E) -> Result<Effect, E::Error> {
    let indexed = |entry: &Entry| Indexed {
        version: record.sequence,
        entry: entry.clone(),
    };
    let mut effect = Effect::default();
    for (change, number) in record.matter.changes().iter().zip(0..) {
        let (vacated, occupied) = match change {
            Change::Put { path, entry } | Change::Found { path, entry } => {
                (None, entries.insert(path, indexed(entry))?)
            }
            Change::Remove { path, .. } | Change::Gone { path } => (entries.remove(path)?, None),
            Change::Move { from, to, entry } => {
                (entries.remove(from)?, entries.insert(to, indexed(entry))?)
            }
        };
        if occupied.is_some() {
            effect.replaced.push(number);
        }
        effect
            .superseded
            .extend(vacated.into_iter().chain(occupied));
    }
    Ok(effect)
}

/// Whether a draft's conditions hold before it, and the names of its changes, one after the
/// other, fit among the files that are there.
///
/// # Errors
/// The place failed.
pub fn check<E: Entries>(draft: &Draft, entries: &E) -> Result<Result<(), Conflict>, E::Error> {
    for condition in &draft.conditions {
        if let Err(conflict) = holds(condition, entries)? {
            return Ok(Err(conflict));
        }
    }
    let mut after = Overlay {
        entries,
        touched: BTreeMap::new(),
    };
    for change in draft.matter.changes() {
        if let Some(path) = after.vacate(change)
            && let Err(conflict) = after.occupy(path)?
        {
            return Ok(Err(conflict));
        }
    }
    Ok(Ok(()))
}

fn holds<E: Entries>(condition: &Condition, entries: &E) -> Result<Result<(), Conflict>, E::Error> {
    let path = match condition {
        Condition::Absent(path) | Condition::Present(path) | Condition::Version(path, _) => {
            path.clone()
        }
    };
    let found = entries.lookup(&path)?.map(|indexed| indexed.version);
    Ok(match (condition, found) {
        (Condition::Absent(_), None) | (Condition::Present(_), Some(_)) => Ok(()),
        (Condition::Present(_), None) => Err(Conflict::Missing { path }),
        (Condition::Absent(_), Some(found)) => Err(Conflict::Exists { path, found }),
        (&Condition::Version(_, wanted), None) => Err(Conflict::Gone { path, wanted }),
        (&Condition::Version(_, wanted), Some(found)) => same(path, wanted, found),
    })
}

fn same(path: RemotePath, wanted: Sequence, found: Sequence) -> Result<(), Conflict> {
    if wanted == found {
        return Ok(());
    }
    Err(Conflict::Changed {
        path,
        found,
        wanted,
    })
}

/// The names that are there after some of a draft's changes.
struct Overlay<'a, E> {
    entries: &'a E,
    /// Whether a file is at a path that the draft touched.
    touched: BTreeMap<&'a str, (&'a RemotePath, bool)>,
}

impl<'a, E: Entries> Overlay<'a, E> {
    /// Takes away the name that the change gives up; says which one it takes.
    fn vacate(&mut self, change: &'a Change) -> Option<&'a RemotePath> {
        match change {
            Change::Put { path, .. } | Change::Found { path, .. } => Some(path),
            Change::Remove { path, .. } | Change::Gone { path } => {
                self.touch(path, false);
                None
            }
            Change::Move { from, to, .. } => {
                self.touch(from, false);
                Some(to)
            }
        }
    }

    fn touch(&mut self, path: &'a RemotePath, is_there: bool) {
        self.touched.insert(path.as_str(), (path, is_there));
    }

    fn occupy(&mut self, path: &'a RemotePath) -> Result<Result<(), Conflict>, E::Error> {
        for file in path.ancestors() {
            if self.is_file(&file)? {
                let path = path.clone();
                return Ok(Err(Conflict::FileAbove { path, file }));
            }
        }
        if let Some(file) = self.first_below(&path.as_prefix())? {
            let path = path.clone();
            return Ok(Err(Conflict::FileBelow { path, file }));
        }
        self.touch(path, true);
        Ok(Ok(()))
    }

    fn is_file(&self, path: &RemotePath) -> Result<bool, E::Error> {
        match self.touched.get(path.as_str()) {
            Some((_, is_there)) => Ok(*is_there),
            None => Ok(self.entries.lookup(path)?.is_some()),
        }
    }

    fn first_below(&self, prefix: &Prefix) -> Result<Option<RemotePath>, E::Error> {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let touched = self.touched.range::<str, _>(from);
        let mut below = touched.take_while(|(path, _)| path.starts_with(prefix.as_str()));
        if let Some((_, (path, _))) = below.find(|(_, (_, is_there))| *is_there) {
            return Ok(Some((*path).clone()));
        }
        // Every round passes one of the names that the draft touched.
        let mut found = self.entries.first_below(prefix, None)?;
        while let Some(path) = &found
            && self.touched.contains_key(path.as_str())
        {
            found = self.entries.first_below(prefix, Some(path))?;
        }
        Ok(found)
    }
}

/// The names under a prefix after another name, as bounds over the bytes of names.
pub fn bounds<'a>(
    prefix: &'a Prefix,
    after: Option<&'a RemotePath>,
    end: &'a mut String,
) -> Option<(Bound<&'a str>, Bound<&'a str>)> {
    // Every name under "/a/" is before "/a0", the digit being what follows the slash.
    end.push_str(prefix.as_str().trim_end_matches('/'));
    end.push('0');
    let start = match after.map(RemotePath::as_str) {
        Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
        _ => Bound::Included(prefix.as_str()),
    };
    let is_past = matches!(start, Bound::Excluded(after) if after >= end.as_str());
    (!is_past).then_some((start, Bound::Excluded(end)))
}

impl Entries for BTreeMap<RemotePath, Indexed> {
    type Error = Infallible;

    fn lookup(&self, path: &RemotePath) -> Result<Option<Indexed>, Infallible> {
        Ok(self.get(path).cloned())
    }

    fn first_below(
        &self,
        prefix: &Prefix,
        after: Option<&RemotePath>,
    ) -> Result<Option<RemotePath>, Infallible> {
        Ok(self
            .keys()
            .filter(|path| path.as_str().starts_with(prefix.as_str()))
            .find(|path| after.is_none_or(|after| *path > after))
            .cloned())
    }

    fn insert(
        &mut self,
        path: &RemotePath,
        indexed: Indexed,
    ) -> Result<Option<Sequence>, Infallible> {
        Ok(Self::insert(self, path.clone(), indexed).map(|before| before.version))
    }

    fn remove(&mut self, path: &RemotePath) -> Result<Option<Sequence>, Infallible> {
        Ok(Self::remove(self, path).map(|before| before.version))
    }
}
