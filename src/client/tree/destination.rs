//! Where fetched files get their names: in directories that are held open, below the folder.
//!
//! A file is written beside its name and renamed when it is whole. A link is never followed and never
//! replaced, nor is a file that is not the one that was compared; owner, set-user-id and the like are
//! never taken over.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, unlinkat};

use super::folder::{Folder, Kind, LocalFile, look};
use super::outcome::TreeError;
use super::partial::Partial;
use super::plan::Fetching;
use super::remembered;
use crate::client::Client;
use crate::protocol::FileInfo;

/// Of the server's modes, what is ever taken over.
const MODE_MASK: u32 = 0o777;

/// The folder that files are fetched into.
pub(super) struct Destination {
    folder: Arc<Folder>,
    keeps_modes: bool,
    /// The directory of the last file: the next is often in it.
    last: Option<(String, Arc<OwnedFd>)>,
}

impl Destination {
    pub(super) const fn new(folder: Arc<Folder>, keeps_modes: bool) -> Self {
        Self {
            folder,
            keeps_modes,
            last: None,
        }
    }

    /// Begins a file of at most the listed size. Blocks.
    ///
    /// # Errors
    /// A directory of it cannot be made, or something is in the way.
    pub(super) fn begin(&mut self, fetching: &Fetching) -> io::Result<Partial> {
        let (parent, _) = split(&fetching.relative);
        Partial::passing(self.directory(parent)?, fetching.file.size)
    }

    /// The same of a file that another run of the program can go on with, if it has a place to be
    /// remembered in. Blocks.
    ///
    /// # Errors
    /// As [`Destination::begin`].
    pub(super) fn begin_kept(
        &mut self,
        client: &Client,
        fetching: &Fetching,
    ) -> io::Result<Partial> {
        let (parent, name) = split(&fetching.relative);
        let directory = self.directory(parent)?;
        let size = fetching.file.size;
        let sidecar = remembered::sidecar(client, &self.folder, &fetching.relative);
        if let Some(sidecar) = sidecar {
            match Partial::kept(&directory, name, Arc::clone(&sidecar), size) {
                Some(kept) => return Ok(kept),
                None => sidecar.remove(),
            }
        }
        Partial::passing(directory, size)
    }

    fn directory(&mut self, parent: &str) -> io::Result<Arc<OwnedFd>> {
        if let Some((name, directory)) = &self.last
            && name == parent
        {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(self.folder.make_directory(parent)?);
        self.last = Some((parent.to_owned(), Arc::clone(&directory)));
        Ok(directory)
    }

    /// Gives a whole file its name, the time of its writer's file, and if asked for its permission
    /// bits. Blocks.
    ///
    /// # Errors
    /// Something else has the name by now.
    pub(super) fn finish(
        &self,
        mut partial: Partial,
        fetching: &Fetching,
        got: &FileInfo,
    ) -> Result<(), TreeError> {
        // Whatever stops it now stops another run as well.
        partial.give_up();
        let attributes = got.attributes.unwrap_or_default();
        let modified = attributes.modified.unwrap_or(got.modified);
        let last_modification = Timespec {
            tv_sec: modified.as_second(),
            tv_nsec: modified.subsec_nanosecond().into(),
        };
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification,
        };
        futimens(partial.file(), &times).map_err(io::Error::from)?;
        if let Some(mode) = attributes.mode.filter(|_| self.keeps_modes) {
            let mode = Mode::from_raw_mode(mode & MODE_MASK);
            fchmod(partial.file(), mode).map_err(io::Error::from)?;
        }
        let (_, name) = split(&fetching.relative);
        match fetching.replaces {
            None => partial.appear(name),
            Some(expected) => match look(partial.directory(), name)? {
                Some(Kind::File(found)) if found.fingerprint == expected => partial.replace(name),
                None => partial.appear(name),
                Some(Kind::File(_)) => Err(TreeError::ChangedHere),
                Some(other) => Err(in_the_way(other)),
            },
        }
    }
}

/// Removes a file if it is the one that was compared, and then the directories above that are empty.
/// Blocks.
///
/// # Errors
/// It is another file by now, or cannot be removed.
pub(super) fn remove(
    folder: &Folder,
    relative: &str,
    expected: &LocalFile,
) -> Result<(), TreeError> {
    let (mut parent, name) = split(relative);
    let directory = folder.directory(parent)?;
    match look(&directory, name)? {
        Some(Kind::File(found)) if found.fingerprint == expected.fingerprint => {}
        None => return Ok(()),
        Some(_) => return Err(TreeError::ChangedHere),
    }
    unlinkat(&directory, name, AtFlags::empty()).map_err(io::Error::from)?;
    while !parent.is_empty() {
        let (above, name) = split(parent);
        let directory = folder.directory(above)?;
        if unlinkat(&directory, name, AtFlags::REMOVEDIR).is_err() {
            break;
        }
        parent = above;
    }
    Ok(())
}

pub(super) fn in_the_way(kind: Kind) -> TreeError {
    match kind {
        Kind::File(_) => TreeError::ChangedHere,
        Kind::Link => TreeError::LinkInTheWay,
        Kind::Special => TreeError::SpecialInTheWay,
        Kind::Directory => TreeError::Obstacle {
            file: "on the server",
            directory: "here",
        },
    }
}

/// The directory of a name, and the name in it.
pub(super) fn split(relative: &str) -> (&str, &str) {
    relative.rsplit_once('/').unwrap_or(("", relative))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::super::folder::open_file;
    use super::super::partial::{Found, reclaim};
    use super::*;

    fn fetching(relative: &str, size: u64) -> Fetching {
        let text = format!(
            r#"{{"path":"/{relative}","size":{size},"modified":"2026-01-01T00:00:00Z",
                "attributes":{{"modified":"1999-01-01T00:00:00.5Z","mode":511}}}}"#
        );
        Fetching {
            relative: relative.to_owned(),
            file: serde_json::from_str(&text).unwrap(),
            replaces: None,
        }
    }

    fn write(folder: &Path, fetching: &Fetching, keeps_modes: bool) -> Result<(), TreeError> {
        let folder = Arc::new(Folder::open(folder).unwrap());
        let mut destination = Destination::new(folder, keeps_modes);
        let mut partial = destination.begin(fetching)?;
        partial.sink().write_all(b"new")?;
        destination.finish(partial, fetching, &fetching.file)
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_gets_its_time_and_only_if_asked_its_mode() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), &fetching("a/b/c", 3), false).unwrap();
        write(place.path(), &fetching("a/b/d", 3), true).unwrap();
        let at = |name: &str| fs::metadata(place.path().join(name)).unwrap();
        assert_eq!(at("a/b/c").mtime(), 915_148_800);
        assert_eq!(at("a/b/c").permissions().mode() & 0o111, 0);
        assert_eq!(at("a/b/d").permissions().mode() & 0o7777, 0o777);
        let mut mean = fetching("a/b/e", 3);
        mean.file.attributes.as_mut().unwrap().mode = Some(0o6755);
        write(place.path(), &mean, true).unwrap();
        assert_eq!(at("a/b/e").permissions().mode() & 0o7777, 0o755);
        assert_eq!(names(&place.path().join("a/b")), ["c", "d", "e"]);
    }

    #[test]
    fn what_has_the_name_meanwhile_stays() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("file"), "old").unwrap();
        symlink(outside.path().join("x"), at("link")).unwrap();
        symlink(outside.path(), at("out")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        let check = |name: &str, why: &str| {
            let error = write(place.path(), &fetching(name, 3), false).unwrap_err();
            assert!(error.to_string().contains(why), "{name}: {error}");
        };
        check("file", "differs only by case");
        check("link", "symbolic link");
        check("out/x", "symbolic link");
        check("file/x", "Not a directory");
        check("directory", "a directory here");
        let mut other = fetching("file", 3);
        let (_, mut found) = open_file(
            Folder::open(place.path()).unwrap().directory("").unwrap(),
            "file",
        )
        .unwrap();
        found.fingerprint.size += 1;
        other.replaces = Some(found.fingerprint);
        let error = write(place.path(), &other, false).unwrap_err();
        assert!(matches!(error, TreeError::ChangedHere), "{error}");
        assert_eq!(fs::read(at("file")).unwrap(), b"old");
        assert_eq!(names(place.path()), ["directory", "file", "link", "out"]);
        assert!(names(outside.path()).is_empty());
    }

    #[test]
    fn no_more_is_written_than_was_announced_and_what_is_left_behind_is_reclaimed() {
        let place = tempfile::tempdir().unwrap();
        let error = write(place.path(), &fetching("a", 2), false).unwrap_err();
        assert!(
            matches!(error, TreeError::Local(error) if error.kind() == io::ErrorKind::FileTooLarge)
        );
        assert!(names(place.path()).is_empty());

        let folder = Arc::new(Folder::open(place.path()).unwrap());
        let directory = Arc::new(folder.directory("").unwrap());
        let held = Partial::named(directory, 3).unwrap();
        let of_held = names(place.path()).remove(0);
        let left = ".fsvc-tree-0-0.part";
        fs::write(place.path().join(left), "half").unwrap();
        let here = folder.directory("").unwrap();
        assert_eq!(reclaim(&here, "a.part", || true), Found::Other);
        assert_eq!(reclaim(&here, left, || true), Found::Kept);
        assert_eq!(names(place.path()).len(), 2);
        assert_eq!(reclaim(&here, left, || false), Found::Settled);
        assert_eq!(reclaim(&here, &of_held, || false), Found::Settled);
        assert_eq!(names(place.path()), [of_held]);
        drop(held);
        assert!(names(place.path()).is_empty());
    }
}
