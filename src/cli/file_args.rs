//! The flags of the commands that move, list and remove files, one by one or as trees.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::args::{Common, Streams, delta};
use super::durations::duration;
use crate::client::Delta;
use crate::client::tree::{Choice, DELETIONS_MAX, Filters, JOBS};
use crate::path::{Prefix, RemotePath};

/// What names a directory of the server where a local path could stand as well.
const REMOTE_MARK: &str = "fsvc:";

#[derive(Debug, Args)]
pub(super) struct PutFlags {
    /// Local files, then the remote path; a remote path that ends in / is a directory
    #[arg(required = true, num_args = 2.., value_name = "LOCAL... REMOTE")]
    pub(super) paths: Vec<String>,
    /// Send all of a local folder into the remote directory; what is the same there is not sent again
    #[arg(long, short)]
    pub(super) recursive: bool,
    /// All of them become visible in one step, or none does
    #[arg(long)]
    pub(super) atomic: bool,
    /// Only if no file is there
    #[arg(long, conflicts_with = "if_version")]
    pub(super) if_absent: bool,
    /// Only if the file there has this version; with -r --atomic of one file, and may be repeated
    #[arg(long, value_name = "N|PATH=N")]
    pub(super) if_version: Vec<IfVersion>,
    /// Send only what differs from the file there: always, never, or where it pays
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = delta)]
    pub(super) delta: Delta,
    #[command(flatten)]
    pub(super) streams: Streams,
    #[command(flatten)]
    pub(super) filters: FilterFlags,
    #[command(flatten)]
    pub(super) run: RunFlags,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct GetFlags {
    pub(super) remote: String,
    /// Where to put it [default: its name, in this directory]
    pub(super) local: Option<PathBuf>,
    /// Only these bytes: FROM-TO, both included, FROM-, or -N for the last N
    #[arg(
        long,
        value_name = "RANGE",
        conflicts_with = "recursive",
        allow_hyphen_values = true
    )]
    pub(super) range: Option<ByteRange>,
    /// Only if the file has this version
    #[arg(long, value_name = "N", conflicts_with = "recursive")]
    pub(super) version: Option<u64>,
    /// Wait until the file is there
    #[arg(long, conflicts_with = "recursive")]
    pub(super) wait: bool,
    /// Wait until the file has this version or a later one
    #[arg(long, value_name = "N", requires = "wait")]
    pub(super) min_version: Option<u64>,
    /// Longest wait for the file
    #[arg(long, default_value = "1h", value_parser = duration, requires = "wait")]
    pub(super) timeout: Duration,
    /// Fetch all of a directory into the local folder; what is the same here is not fetched again
    #[arg(long, short)]
    pub(super) recursive: bool,
    /// Give files the permission bits that their writers gave, also that they can be executed
    #[arg(long, requires = "recursive")]
    pub(super) keep_modes: bool,
    #[command(flatten)]
    pub(super) streams: Streams,
    #[command(flatten)]
    pub(super) filters: FilterFlags,
    #[command(flatten)]
    pub(super) run: RunFlags,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct AppendFlags {
    /// The local file whose bytes come behind those of the remote one; - is standard input
    pub(super) local: String,
    pub(super) remote: RemotePath,
    /// Bytes that the remote file must have before [default: what it has]
    #[arg(long, value_name = "N")]
    pub(super) if_size: Option<u64>,
    /// Compress them on their way, where a sample of them shrinks
    #[arg(long)]
    pub(super) compress: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Some bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// From an offset on, so many, or all.
    From(u64, Option<u64>),
    Last(u64),
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it like 0-99, 100- or -100".to_owned();
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_number.then(|| text.parse::<u64>().ok());
            number.flatten().ok_or_else(wrong)
        };
        match text.split_once('-').ok_or_else(wrong)? {
            ("", "") => Err(wrong()),
            ("", n) => Ok(Self::Last(number(n)?)),
            (from, "") => Ok(Self::From(number(from)?, None)),
            (from, to) => {
                let (from, to) = (number(from)?, number(to)?);
                let before = to
                    .checked_sub(from)
                    .ok_or_else(|| format!("the range ends at {to}, before it begins at {from}"))?;
                // One that ends with the last number there is has no end.
                Ok(Self::From(from, before.checked_add(1)))
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct LsFlags {
    #[arg(default_value = "/")]
    pub(super) remote: Prefix,
    /// Size, time and version too
    #[arg(long, short)]
    pub(super) long: bool,
    /// All files below, with their whole names
    #[arg(long, short)]
    pub(super) recursive: bool,
    #[command(flatten)]
    pub(super) filters: FilterFlags,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RmFlags {
    #[arg(required = true)]
    pub(super) remote: Vec<String>,
    /// Only if the file has this version
    #[arg(long, value_name = "N")]
    pub(super) if_version: Option<u64>,
    /// Remove all files below a directory
    #[arg(long, short, conflicts_with = "if_version")]
    pub(super) recursive: bool,
    /// Really everything: what `rm -r /` needs
    #[arg(long, requires = "recursive")]
    pub(super) all: bool,
    /// Only say what would be removed
    #[arg(long, requires = "recursive")]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) filters: FilterFlags,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct SyncFlags {
    /// What is read: a local folder, or a directory of the server as `fsvc:/path`
    #[arg(value_name = "FROM")]
    pub(super) from: Place,
    /// What is made like it: the other kind
    #[arg(value_name = "TO")]
    pub(super) to: Place,
    /// Delete what is not in FROM; without this nothing is deleted
    #[arg(long)]
    pub(super) delete: bool,
    /// Most files that --delete may delete: if there are more, none is
    #[arg(long, value_name = "N", default_value_t = DELETIONS_MAX, requires = "delete")]
    pub(super) max_delete: u64,
    /// Go on as the local folder changes, until interrupted
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) watch: bool,
    /// Give fetched files the permission bits that their writers gave
    #[arg(long)]
    pub(super) keep_modes: bool,
    #[command(flatten)]
    pub(super) streams: Streams,
    #[command(flatten)]
    pub(super) filters: FilterFlags,
    #[command(flatten)]
    pub(super) run: RunFlags,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Trees")]
pub(super) struct RunFlags {
    /// With trees: only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With trees: requests under way at a time
    #[arg(long, value_name = "N", default_value_t = JOBS as u16, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) jobs: u16,
}

/// The version that a file must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IfVersion {
    /// Which file of several; every one if absent.
    pub(super) path: Option<RemotePath>,
    pub(super) version: u64,
}

impl FromStr for IfVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, number) = match text.rsplit_once('=') {
            Some((path, number)) => (Some(path), number),
            None => (None, text),
        };
        let path = path.map(str::parse).transpose();
        Ok(Self {
            path: path.map_err(|error: crate::path::PathError| error.to_string())?,
            version: number
                .parse()
                .map_err(|_| "write it like 7, or /models/a.bin=7".to_owned())?,
        })
    }
}

/// One side of a synchronisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Local(PathBuf),
    Remote(Prefix),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(REMOTE_MARK) {
            Some(path) => path
                .parse()
                .map(Self::Remote)
                .map_err(|error: crate::path::PathError| error.to_string()),
            None if text.is_empty() => Err("the name is empty".to_owned()),
            None => Ok(Self::Local(text.into())),
        }
    }
}

/// --include and --exclude, in the order given.
#[derive(Debug, Clone, Default)]
pub(super) struct FilterFlags {
    pub(super) filters: Filters,
    /// Whether there are any.
    pub(super) is_given: bool,
}

const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

impl FromArgMatches for FilterFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str, choice| {
            let values = matches.get_many::<String>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            places
                .zip(values)
                .map(move |(place, value)| (place, choice, value.as_str()))
                .collect::<Vec<_>>()
        };
        let mut patterns = given(INCLUDE, Choice::Include);
        patterns.extend(given(EXCLUDE, Choice::Exclude));
        patterns.sort_unstable_by_key(|(place, _, _)| *place);
        let is_given = !patterns.is_empty();
        let patterns = patterns
            .into_iter()
            .map(|(_, choice, value)| (choice, value));
        let filters = Filters::new(patterns).map_err(|error| {
            let text = crate::escape::with_causes(&error);
            clap::Error::raw(ErrorKind::ValueValidation, format!("{text}\n"))
        })?;
        Ok(Self { filters, is_given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for FilterFlags {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name("GLOB")
                .action(ArgAction::Append)
                .help_heading("Trees")
        };
        command
            .arg(flag(INCLUDE).help(
                "With trees: take these files; the first pattern that matches decides, and once there \
                 is an include, what no pattern matches is left out. A leading / is the root of the \
                 tree, * part of a name, ** any depth, a / at the end a whole directory",
            ))
            .arg(flag(EXCLUDE).help("With trees: leave these files out, on both sides"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sides_of_a_sync_cannot_be_mistaken() {
        let local = |text: &str| Ok(Place::Local(text.into()));
        assert_eq!("a/b".parse(), local("a/b"));
        assert_eq!("/a/b".parse(), local("/a/b"));
        assert_eq!("./fsvc:".parse(), local("./fsvc:"));
        assert_eq!("fsvc:/a".parse(), Ok(Place::Remote("/a".parse().unwrap())));
        assert!("fsvc:a".parse::<Place>().is_err());
        assert!("fsvc:/a/../b".parse::<Place>().is_err());
        assert!("".parse::<Place>().is_err());
    }

    #[test]
    fn a_version_is_of_one_file_or_of_all() {
        let check = |text: &str, path: Option<&str>, version| {
            let path = path.map(|path| path.parse().unwrap());
            assert_eq!(text.parse(), Ok(IfVersion { path, version }));
        };
        check("7", None, 7);
        check("/a=b=7", Some("/a=b"), 7);
        for wrong in ["", "x", "a=7", "/a=", "/a=-1"] {
            assert!(wrong.parse::<IfVersion>().is_err(), "{wrong}");
        }
    }
}

#[cfg(test)]
mod range_tests {
    use super::ByteRange;

    #[test]
    fn ranges_are_as_in_http() {
        let range = |text: &str| text.parse::<ByteRange>();
        assert_eq!(range("0-0"), Ok(ByteRange::From(0, Some(1))));
        assert_eq!(range("2-9"), Ok(ByteRange::From(2, Some(8))));
        assert_eq!(range("7-"), Ok(ByteRange::From(7, None)));
        assert_eq!(range("-7"), Ok(ByteRange::Last(7)));
        let max = u64::MAX;
        assert_eq!(range(&format!("0-{max}")), Ok(ByteRange::From(0, None)));
        assert_eq!(
            range(&format!("1-{max}")),
            Ok(ByteRange::From(1, Some(max)))
        );
        let too_large = "99999999999999999999-";
        for text in [
            "", "-", "7", "9-2", "a-b", "1-2-3", "+1-2", "1--2", too_large,
        ] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
