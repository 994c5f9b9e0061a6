//! What is to be done with one name, by what has it on each side.
//!
//! A file is the same if it has the same digest; where the server does not know one, if it has the
//! same size and the time that its writer gave. Nothing that is not a regular file is ever sent,
//! replaced or deleted.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use jiff::Timestamp;

use super::digests::{Block, Learned};
use super::folder::{Kind, LocalFile, LocalName, Names, describe, look, open_file};
use super::listing::Listed;
use super::outcome::TreeError;
use super::plan::{Direction, Fetching, Pending, Plan, Sending, Step, below};
use crate::digest::{Digest, Hasher};
use crate::path::{RESERVED_PREFIX, RemotePath};
use crate::protocol::FileInfo;

/// Bytes that are hashed at a time.
const BUFFER_SIZE: usize = 256 << 10;

/// A name, and what has it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) local: Option<LocalName>,
    pub(super) remote: Option<Listed>,
}

/// One local directory, to look at names in it.
pub(super) struct Here {
    directory: Option<OwnedFd>,
    known: Block,
    pub(super) learned: Learned,
    buffer: Vec<u8>,
}

/// What was found out about some names.
#[derive(Default)]
pub(super) struct Verdicts {
    pub(super) steps: Vec<Step>,
    pub(super) below: Vec<Pending>,
}

impl Here {
    pub(super) fn new(directory: OwnedFd, known: Block) -> Self {
        Self {
            directory: Some(directory),
            known,
            learned: Learned::default(),
            buffer: Vec::new(),
        }
    }

    /// A directory that is not here.
    pub(super) fn nothing() -> Self {
        Self {
            directory: None,
            known: Block::default(),
            learned: Learned::default(),
            buffer: Vec::new(),
        }
    }

    fn kind(&self, local: &LocalName) -> io::Result<Option<Kind>> {
        match &self.directory {
            Some(_) if local.is_directory => Ok(Some(Kind::Directory)),
            Some(directory) => look(directory, &local.name),
            None => Ok(None),
        }
    }

    fn is_same(&mut self, name: &str, local: &LocalFile, remote: &FileInfo) -> io::Result<bool> {
        if local.fingerprint.size != remote.size {
            return Ok(false);
        }
        let Some(theirs) = remote.digest else {
            let written = remote.attributes.and_then(|attributes| attributes.modified);
            return Ok(written == Some(local.modified));
        };
        let ours = match self.known.digest(local) {
            Some(known) => known,
            None => match self.hash(name, local)? {
                Some(computed) => computed,
                None => return Ok(false),
            },
        };
        self.learned.add(local, ours, Timestamp::now());
        Ok(ours == theirs)
    }

    /// The digest of a file, unless it changes.
    fn hash(&mut self, name: &str, expected: &LocalFile) -> io::Result<Option<Digest>> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let (mut file, found) = open_file(directory, name)?;
        self.buffer.resize(BUFFER_SIZE, 0);
        let mut hasher = Hasher::new();
        loop {
            let n = file.read(&mut self.buffer)?;
            hasher.update(&self.buffer[..n]);
            if n == 0 || hasher.size() > expected.fingerprint.size {
                break;
            }
        }
        let stayed = found == *expected && describe(&file)? == *expected;
        Ok(stayed.then(|| hasher.digest()))
    }
}

impl Verdicts {
    fn fail(&mut self, relative: String, error: impl Into<TreeError>) {
        let error = error.into();
        self.steps.push(Step::Failed { relative, error });
    }

    fn pass(&mut self, relative: String, why: &'static str) {
        self.steps.push(Step::Passed { relative, why });
    }

    /// Names that one side cannot say to the other.
    pub(super) fn unspoken(
        &mut self,
        relative: &str,
        n_unnameable: u64,
        names: &mut Names,
        plan: &Plan,
    ) {
        for name in names.not_text.drain(..) {
            match plan.direction {
                Direction::Up => self.fail(below(relative, &name), TreeError::NotText),
                Direction::Down => self.pass(below(relative, &name), "its name is not UTF-8"),
            }
        }
        for _ in 0..n_unnameable.min(1) {
            let why = "the server has names here that it cannot say; they are left out";
            self.pass(relative.to_owned(), why);
        }
    }
}

impl Plan {
    /// Judges names of one directory. Blocks.
    pub(super) fn judge(
        &self,
        at: &Pending,
        here: &mut Here,
        pairs: Vec<Pair>,
        verdicts: &mut Verdicts,
    ) {
        for pair in pairs {
            let relative = below(&at.relative, &pair.name);
            let kind = pair.local.as_ref().map(|local| here.kind(local));
            let kind = match kind.transpose() {
                // It went away between two looks.
                Ok(kind) => kind.flatten(),
                Err(error) => {
                    verdicts.fail(relative, error);
                    continue;
                }
            };
            let may_be_own = self.direction == Direction::Down
                && kind.is_some()
                && pair.name.starts_with(RESERVED_PREFIX);
            if may_be_own
                && let Some(directory) = &here.directory
                && self.is_own(at, directory, &pair.name, &mut verdicts.steps)
            {
                continue;
            }
            let is_directory = match (&kind, &pair.remote) {
                (Some(kind), None) => *kind == Kind::Directory,
                (None, Some(listed)) => listed.file.is_none(),
                (Some(kind), Some(listed)) => *kind == Kind::Directory && listed.file.is_none(),
                (None, None) => continue,
            };
            if is_directory {
                if !self.filters.passes_over(&relative) {
                    self.directory(
                        at,
                        relative,
                        kind.is_some(),
                        pair.remote.is_some(),
                        verdicts,
                    );
                }
                continue;
            }
            // A link or a device where the other side has a directory stands in the way of all of it.
            if self.filters.takes(&relative)
                || pair.remote.as_ref().is_some_and(|r| r.file.is_none())
            {
                self.file(relative, &pair, kind, here, verdicts);
            } else if kind == Some(Kind::Directory) && !self.filters.passes_over(&relative) {
                self.directory(at, relative, true, false, verdicts);
            }
        }
    }

    fn directory(
        &self,
        at: &Pending,
        relative: String,
        local: bool,
        remote: bool,
        verdicts: &mut Verdicts,
    ) {
        let (source, target) = match self.direction {
            Direction::Up => (local, remote),
            Direction::Down => (remote, local),
        };
        let is_wanted = (source || (target && self.delete)) && !(at.shallow && local && remote);
        if !is_wanted {
            return;
        }
        if let Err(error) = self.prefix(&relative) {
            match self.direction {
                Direction::Up => verdicts.fail(relative, error),
                Direction::Down => {}
            }
            return;
        }
        verdicts.below.push(Pending {
            relative,
            local,
            remote,
            shallow: false,
        });
    }

    fn file(
        &self,
        relative: String,
        pair: &Pair,
        kind: Option<Kind>,
        here: &mut Here,
        verdicts: &mut Verdicts,
    ) {
        let listed = pair.remote.as_ref().map(|listed| listed.file.as_deref());
        match (self.direction, kind, listed) {
            (Direction::Up, Some(Kind::Link), _) => {
                verdicts.pass(relative, "a symbolic link: links are not followed");
            }
            (Direction::Up, Some(Kind::Special), _) => verdicts.fail(relative, TreeError::Special),
            (Direction::Down, Some(Kind::Link), Some(_)) => {
                verdicts.fail(relative, TreeError::LinkInTheWay);
            }
            (Direction::Down, Some(Kind::Special), Some(_)) => {
                verdicts.fail(relative, TreeError::SpecialInTheWay);
            }
            (_, Some(Kind::File(local)), Some(Some(remote))) => {
                match here.is_same(&pair.name, &local, remote) {
                    Ok(true) => {
                        verdicts.steps.push(Step::Same);
                        self.same(&relative, remote, &mut verdicts.steps);
                    }
                    Ok(false) => self.replace(relative, local, remote, verdicts),
                    Err(error) => verdicts.fail(relative, error),
                }
            }
            (Direction::Up, Some(Kind::File(file)), None) => self.send(relative, file, verdicts),
            (Direction::Down, None, Some(Some(file))) => {
                verdicts.steps.push(Step::Fetch(Fetching {
                    relative,
                    file: file.clone(),
                    replaces: None,
                }));
            }
            (Direction::Up, None, Some(Some(file))) if self.delete => {
                verdicts.steps.push(Step::DeleteRemote(file.clone()));
            }
            (Direction::Down, Some(Kind::File(file)), None)
                if self.delete && self.spell(&relative).is_ok() =>
            {
                verdicts.steps.push(Step::DeleteLocal { relative, file });
            }
            (_, Some(Kind::File(local)), Some(None)) => {
                self.file_and_directory(relative, Some(local), None, verdicts);
            }
            (_, Some(Kind::Directory), Some(Some(remote))) => {
                self.file_and_directory(relative, None, Some(remote), verdicts);
            }
            _ => {}
        }
    }

    /// A file on one side and a directory on the other. With leave to delete, what stands in the way
    /// goes; a second look then finds the way free.
    fn file_and_directory(
        &self,
        relative: String,
        local: Option<LocalFile>,
        remote: Option<&FileInfo>,
        verdicts: &mut Verdicts,
    ) {
        let (file, directory) = if local.is_some() {
            ("here", "on the server")
        } else {
            ("on the server", "here")
        };
        if self.delete {
            match (self.direction, local, remote) {
                (Direction::Up, None, Some(file)) => {
                    verdicts.steps.push(Step::DeleteRemote(file.clone()));
                }
                (Direction::Down, Some(file), None) => {
                    let relative = relative.clone();
                    verdicts.steps.push(Step::DeleteLocal { relative, file });
                }
                (direction, _, _) => verdicts.below.push(Pending {
                    relative: relative.clone(),
                    local: direction == Direction::Down,
                    remote: direction == Direction::Up,
                    shallow: false,
                }),
            }
        }
        verdicts.fail(relative, TreeError::Obstacle { file, directory });
    }

    fn replace(
        &self,
        relative: String,
        local: LocalFile,
        remote: &FileInfo,
        verdicts: &mut Verdicts,
    ) {
        match self.direction {
            Direction::Up => self.send(relative, local, verdicts),
            Direction::Down => verdicts.steps.push(Step::Fetch(Fetching {
                relative,
                file: remote.clone(),
                replaces: Some(local.fingerprint),
            })),
        }
    }

    fn send(&self, relative: String, file: LocalFile, verdicts: &mut Verdicts) {
        match self.spell(&relative) {
            Ok(path) => verdicts.steps.push(Step::Send(Sending {
                relative,
                path,
                file,
            })),
            Err(error) => verdicts.fail(relative, error),
        }
    }

    pub(super) fn spell(&self, relative: &str) -> Result<RemotePath, TreeError> {
        Ok(format!("{}{relative}", self.remote).parse()?)
    }
}
