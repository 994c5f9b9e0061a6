//! Writing files and directories with exact modes, each whole or not at all.
//!
//! A file gets its name only after its content is durable; no link is ever followed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::PkiError;
use super::layout::DIR_PUBLIC;

/// Largest file that is read back.
const FILE_SIZE_MAX: u64 = 16 << 20;
/// Most names looked at in one directory.
pub(super) const ENTRIES_MAX: usize = 10_000;
/// End of the names of files that are being written.
const STAGED: &str = ".fsvc-tmp";

/// The writer of one run.
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) fuse: super::crash_tests::Fuse,
}

/// Whether a new file may take the place of an old one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    Old,
}

impl Disk {
    /// A writer to the real file system.
    pub(super) fn new() -> Self {
        Self {
            #[cfg(test)]
            fuse: super::crash_tests::Fuse::unlit(),
        }
    }

    /// Stands before each change, so that a test can end the process there.
    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        self.fuse.burn()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps)] // as in tests
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes sure `path` is a directory; a new one gets exactly `mode` and is durable.
    pub(super) fn make_dir(&self, path: &Path, mode: u32) -> Result<(), PkiError> {
        if is_dir(path)? {
            return Ok(());
        }
        let failed = |error| PkiError::io("make the directory", path, error);
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(DIR_PUBLIC)
                .create(parent)
                .map_err(|error| PkiError::io("make the directory", parent, error))?;
        }
        self.step().map_err(failed)?;
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(path, flags, Mode::empty());
        let dir = File::from(open.map_err(|errno| failed(errno.into()))?);
        set_mode(&dir, path, mode)?;
        sync_parent(path)
    }

    /// Gives `bytes` the name `path`, with exactly `mode`.
    pub(super) fn write(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: u32,
        over: Over,
    ) -> Result<(), PkiError> {
        if is_file(path)? && over == Over::Nothing {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(PkiError::io("create", path, error));
        }
        let staged = staged_name(path);
        let written = self
            .stage(&staged, bytes, mode)
            .and_then(|()| self.name(&staged, path, over));
        if written.is_err() {
            // Best effort: the next run sweeps what stays.
            let _ = self.step().and_then(|()| fs::remove_file(&staged));
        }
        written?;
        sync_parent(path)
    }

    /// Gives a key and its certificate their names, one right after the other: both are durable
    /// before. Whoever is interrupted in between leaves the certificate where [`adopt`] finds it.
    ///
    /// [`adopt`]: Self::adopt
    pub(super) fn write_pair(
        &self,
        key: (&Path, &[u8], u32),
        certificate: (&Path, &[u8], u32),
    ) -> Result<(), PkiError> {
        let staged = [key, certificate].map(|(path, ..)| staged_name(path));
        let begun = [key, certificate]
            .iter()
            .zip(&staged)
            .try_for_each(|((_, bytes, mode), staged)| self.stage(staged, bytes, *mode))
            .and_then(|()| self.name(&staged[0], key.0, Over::Old));
        if begun.is_err() {
            for path in &staged {
                let _ = self.step().and_then(|()| fs::remove_file(path));
            }
        }
        begun?;
        self.name(&staged[1], certificate.0, Over::Old)?;
        sync_parent(certificate.0)
    }

    /// Gives a file that was written and not named its name.
    pub(super) fn adopt(&self, path: &Path) -> Result<(), PkiError> {
        self.name(&staged_name(path), path, Over::Old)?;
        sync_parent(path)
    }

    fn stage(&self, staged: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
        let failed = |error| PkiError::io("write", staged, error);
        match fs::remove_file(staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        self.step().map_err(failed)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(staged)
            .map_err(failed)?;
        set_mode(&file, staged, mode)?;
        self.put(&mut file, bytes).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    fn name(&self, staged: &Path, path: &Path, over: Over) -> Result<(), PkiError> {
        let failed = |error| PkiError::io("name", path, error);
        self.step().map_err(failed)?;
        match over {
            Over::Old => fs::rename(staged, path),
            Over::Nothing => rename_new(staged, path),
        }
        .map_err(failed)
    }

    /// Adds `line` after the first `keep` bytes of `path`, which is made if it is missing.
    pub(super) fn append(
        &self,
        path: &Path,
        keep: u64,
        line: &[u8],
        mode: u32,
    ) -> Result<(), PkiError> {
        let failed = |error| PkiError::io("append to", path, error);
        let existed = is_file(path)?;
        self.step().map_err(failed)?;
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(mode)
            .custom_flags(no_follow())
            .open(path)
            .map_err(failed)?;
        if !existed {
            set_mode(&file, path, mode)?;
        }
        file.set_len(keep).map_err(failed)?;
        self.put(&mut file, line).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        if existed { Ok(()) } else { sync_parent(path) }
    }

    /// Writes in two parts, so that a test can end the process in the middle.
    fn put(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        self.step()?;
        file.write_all(rest)
    }

    /// Removes the file `path`, durably.
    pub(super) fn remove(&self, path: &Path) -> Result<(), PkiError> {
        let removed = self.step().and_then(|()| fs::remove_file(path));
        removed.map_err(|error| PkiError::io("remove", path, error))?;
        sync_parent(path)
    }

    /// Removes what an interrupted run left half written in `dir`.
    pub(super) fn sweep(&self, dir: &Path) -> Result<(), PkiError> {
        for name in list(dir)? {
            if name.starts_with('.') && name.ends_with(STAGED) {
                let path = dir.join(name);
                let removed = self.step().and_then(|()| fs::remove_file(&path));
                removed.map_err(|error| PkiError::io("remove", path, error))?;
            }
        }
        Ok(())
    }
}

/// Whether `path` is a file; anything but a file or nothing is refused.
pub(super) fn is_file(path: &Path) -> Result<bool, PkiError> {
    look(path, "a file", fs::FileType::is_file)
}

/// Whether `path` is a directory; anything but a directory or nothing is refused.
pub(super) fn is_dir(path: &Path) -> Result<bool, PkiError> {
    look(path, "a directory", fs::FileType::is_dir)
}

fn look(
    path: &Path,
    expected: &'static str,
    fits: fn(&fs::FileType) -> bool,
) -> Result<bool, PkiError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(PkiError::io("look at", path, error)),
    };
    if fits(&kind) {
        return Ok(true);
    }
    let found = if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a file"
    } else {
        "a special file"
    };
    Err(PkiError::WrongKind {
        path: path.to_owned(),
        found,
        expected,
    })
}

/// The names in a directory, sorted; none if it is missing. Names that are no text are passed over.
pub(super) fn list(dir: &Path) -> Result<Vec<String>, PkiError> {
    let failed = |error| PkiError::io("list", dir, error);
    if !is_dir(dir)? {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for (count, entry) in fs::read_dir(dir).map_err(failed)?.enumerate() {
        if count >= ENTRIES_MAX {
            return Err(PkiError::TooMany {
                what: "files in one directory",
                count: count + 1,
                max: ENTRIES_MAX,
            });
        }
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The bytes of a file, or nothing if it is missing.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    let failed = |error| PkiError::io("read", path, error);
    if !is_file(path)? {
        return Ok(None);
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Ok(Some(bytes))
}

/// Refuses a path that another user owns or, if it is `secret`, may look into.
pub(super) fn check_owner(path: &Path, secret: bool) -> Result<(), PkiError> {
    let metadata =
        fs::symlink_metadata(path).map_err(|error| PkiError::io("look at", path, error))?;
    let user = rustix::process::geteuid().as_raw();
    if ![user, 0].contains(&metadata.uid()) {
        return Err(PkiError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if secret && mode & 0o077 != 0 {
        return Err(PkiError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Where a file is before it has its name.
pub(super) fn staged_name(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .expect("every file of the layout has a name");
    let mut staged = std::ffi::OsString::from(".");
    staged.push(name);
    staged.push(STAGED);
    path.with_file_name(staged)
}

fn set_mode(file: &File, path: &Path, mode: u32) -> Result<(), PkiError> {
    let failed = |error| PkiError::io("set the mode of", path, error);
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?.mode();
    if found & 0o077 & !mode != 0 {
        return Err(PkiError::ModesIgnored {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn rename_new(staged: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE) {
        // A network file system may not know the flag; a link refuses an old name as well.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(staged, path).and_then(|()| fs::remove_file(staged))
        }
        renamed => Ok(renamed?),
    }
}

fn sync_parent(path: &Path) -> Result<(), PkiError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| PkiError::io("make durable", parent, error))
}

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).expect("an open flag fits the C type")
}
