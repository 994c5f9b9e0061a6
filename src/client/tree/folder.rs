//! A local folder, and what is below it: never outside, and through no symbolic link.
//!
//! Every name is resolved by the kernel from a held directory, in one step (`openat2`), so that
//! whoever may write in the folder cannot lead a transfer out of it.

use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat, openat2,
    statat,
};
use rustix::io::Errno;

/// How often an opening is tried again that the kernel broke off, as it may while names around it
/// move.
const ATTEMPTS_MAX: usize = 64;
/// Names of a directory that are held at a time; a larger one is read more than once.
const NAMES_HELD_MAX: usize = 16_384;
/// A new directory's mode, less the umask.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// Opens no device in earnest, and waits for nobody at the other end of a pipe.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What a file is recognised by: if any of it differs, the content may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970, of the content and of the inode.
    pub modified_ns: i64,
    pub changed_ns: i64,
}

/// What is known about a local file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalFile {
    pub fingerprint: Fingerprint,
    pub modified: Timestamp,
    /// Permission bits.
    pub mode: u32,
}

/// What has a local name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File(LocalFile),
    Directory,
    Link,
    /// A pipe, a socket, a device: opening one can be an act.
    Special,
}

/// The folder that a transfer reads or writes.
#[derive(Debug)]
pub(super) struct Folder {
    directory: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder; a link that the user named himself is followed. Blocks.
    ///
    /// # Errors
    /// It is not there, or not a directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let directory = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self {
            directory,
            path: path.to_owned(),
        })
    }

    /// Opens the folder, and makes it and what is missing above it. Blocks.
    ///
    /// # Errors
    /// It cannot be made, or something else has its name.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// Where it is, as the user said.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory below, by its name relative to the folder; the empty name is the folder. Blocks.
    ///
    /// # Errors
    /// It is not there, or a link is in the way.
    pub(super) fn directory(&self, relative: &str) -> io::Result<OwnedFd> {
        let name = if relative.is_empty() { "." } else { relative };
        beneath(&self.directory, name, DIRECTORY)
    }

    /// A regular file below, open for reading. Blocks.
    ///
    /// # Errors
    /// It is gone, something else by now, or a link is in the way.
    pub(super) fn file(&self, relative: &str) -> io::Result<(File, LocalFile)> {
        let file = File::from(beneath(&self.directory, relative, READ)?);
        let found = describe(&file)?;
        Ok((file, found))
    }

    /// A directory below; makes what is missing. Blocks.
    ///
    /// # Errors
    /// A link or a file is in the way, or a directory cannot be made.
    pub(super) fn make_directory(&self, relative: &str) -> io::Result<OwnedFd> {
        match self.directory(relative) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        let mut at = self.directory("")?;
        for segment in relative.split('/') {
            match mkdirat(&at, segment, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = beneath(&at, segment, DIRECTORY)?;
        }
        Ok(at)
    }
}

fn beneath(directory: impl AsFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let directory = directory.as_fd();
    for _ in 0..ATTEMPTS_MAX {
        match openat2(directory, name, flags, Mode::empty(), RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::LOOP | Errno::XDEV) => {
                return Err(io::Error::other(
                    "a symbolic link is in the way, and not followed",
                ));
            }
            outcome => return Ok(outcome?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// What is called `name` in a directory; a link is itself. Blocks.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn look(directory: impl AsFd, name: &str) -> io::Result<Option<Kind>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(kind(&status))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A regular file, open for reading. Blocks.
///
/// # Errors
/// It is gone, or something else by now.
pub(super) fn open_file(directory: impl AsFd, name: &str) -> io::Result<(File, LocalFile)> {
    let opened = openat(directory, name, READ, Mode::empty());
    let opened = opened.map_err(|error| match error {
        Errno::LOOP => io::Error::other("it became a symbolic link, which is not followed"),
        error => error.into(),
    })?;
    let file = File::from(opened);
    let found = describe(&file)?;
    Ok((file, found))
}

/// What an open file is now. Blocks.
///
/// # Errors
/// It cannot be looked at, or is not a regular file.
pub(super) fn describe(file: &File) -> io::Result<LocalFile> {
    match kind(&fstat(file)?) {
        Kind::File(found) => Ok(found),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

fn kind(status: &Stat) -> Kind {
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File(local_file(status)),
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Special,
    }
}

fn local_file(status: &Stat) -> LocalFile {
    let nanosecond = i32::try_from(status.st_mtime_nsec).unwrap_or_default();
    let beyond = if status.st_mtime < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    LocalFile {
        fingerprint: Fingerprint {
            device: status.st_dev,
            inode: status.st_ino,
            size: u64::try_from(status.st_size).unwrap_or_default(),
            modified_ns: nanoseconds(status.st_mtime, nanosecond),
            changed_ns: nanoseconds(
                status.st_ctime,
                i32::try_from(status.st_ctime_nsec).unwrap_or_default(),
            ),
        },
        modified: Timestamp::new(status.st_mtime, nanosecond).unwrap_or(beyond),
        mode: status.st_mode & 0o777,
    }
}

fn nanoseconds(second: i64, nanosecond: i32) -> i64 {
    second
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanosecond))
}

/// A name in a local directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalName {
    pub(super) name: String,
    /// What the directory says it is; a look may say something else.
    pub(super) is_directory: bool,
}

/// The names in a local directory, in the order of their bytes.
pub(super) struct Names {
    open: Option<Dir>,
    after: Vec<u8>,
    queue: VecDeque<LocalName>,
    /// Names that are not text, since the last look.
    pub(super) not_text: Vec<String>,
}

impl Names {
    /// A directory that is there. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn new(directory: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            open: Some(Dir::new(directory)?),
            ..Self::none()
        })
    }

    /// A directory without names.
    pub(super) const fn none() -> Self {
        Self {
            open: None,
            after: Vec::new(),
            queue: VecDeque::new(),
            not_text: Vec::new(),
        }
    }

    pub(super) fn front(&self) -> Option<&LocalName> {
        self.queue.front()
    }

    pub(super) fn pop(&mut self) -> Option<LocalName> {
        self.queue.pop_front()
    }

    /// Whether there is nothing more to read.
    pub(super) const fn is_done(&self) -> bool {
        self.open.is_none()
    }

    /// Reads on, if nothing that was read is left and there is more. Blocks.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        while self.queue.is_empty() {
            let Some(open) = &mut self.open else {
                return Ok(());
            };
            let (names, more) = smallest(open, &self.after)?;
            if let Some((last, _)) = names.last().filter(|_| more) {
                self.after.clone_from(last);
                open.rewind();
            } else {
                self.open = None;
            }
            for (name, is_directory) in names {
                match String::from_utf8(name) {
                    Ok(name) => self.queue.push_back(LocalName { name, is_directory }),
                    Err(error) => {
                        let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
                        self.not_text.push(shown);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A name as the directory has it, and whether it is a directory's.
type RawName = (Vec<u8>, bool);

/// The smallest names behind `after`, in order, and whether there are more.
fn smallest(open: &mut Dir, after: &[u8]) -> io::Result<(Vec<RawName>, bool)> {
    let mut held = BinaryHeap::new();
    let mut more = false;
    while let Some(entry) = open.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name <= after || matches!(name, b"." | b"..") {
            continue;
        }
        if held.len() >= NAMES_HELD_MAX {
            more = true;
            let beyond = held
                .peek()
                .is_some_and(|(last, _): &RawName| name > last.as_slice());
            if beyond {
                continue;
            }
            held.pop();
        }
        let is_directory = match entry.file_type() {
            // Some file systems have directories that do not say what their names are.
            FileType::Unknown => {
                let status = statat(open.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                status.is_ok_and(|status| kind(&status) == Kind::Directory)
            }
            kind => kind.is_dir(),
        };
        held.push((name.to_vec(), is_directory));
    }
    Ok((held.into_sorted_vec(), more))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_come_in_the_order_of_their_bytes_however_many_there_are() {
        let place = tempfile::tempdir().unwrap();
        let n = NAMES_HELD_MAX + 100;
        for number in 0..n {
            std::fs::write(place.path().join(format!("{number}")), "").unwrap();
        }
        std::fs::create_dir(place.path().join("d")).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let mut names = Names::new(folder.directory("").unwrap()).unwrap();
        let mut seen = Vec::new();
        loop {
            names.fill().unwrap();
            let Some(name) = names.pop() else { break };
            assert_eq!(name.is_directory, name.name == "d");
            seen.push(name.name);
        }
        assert_eq!(seen.len(), n + 1);
        assert!(seen.is_sorted());
    }

    #[test]
    fn no_link_is_followed_below_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("in"), place.path().join("out"));
        std::fs::create_dir_all(inside.join("d")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink("d", inside.join("near")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        for name in ["link", "near", "link/x", ".."] {
            assert!(folder.directory(name).is_err(), "{name}");
            assert!(folder.make_directory(name).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        folder.make_directory("d/e/f").unwrap();
        assert!(inside.join("d/e/f").is_dir());
        assert_eq!(look(&folder.directory, "link").unwrap(), Some(Kind::Link));
        assert!(open_file(&folder.directory, "link").is_err());
    }
}
