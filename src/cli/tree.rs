//! put -r, get -r, ls -r and rm -r.

use std::path::PathBuf;
use std::time::Duration;

use super::exit::Exit;
use super::file_args::{FilterFlags, GetFlags, LsFlags, PutFlags, RmFlags, RunFlags};
use super::files::{Failure, Outcome};
use super::output::{Output, complain, long_line};
use super::tree_report::{Report, conclude};
use crate::client::tree::{self, Direction, Found, Transfer, TreeError, Versions};
use crate::client::{Client, Delta, N_STREAMS};
use crate::escape::Escaped;
use crate::path::Prefix;
use crate::protocol::{Conditions, ListEntry};

pub(super) async fn put(client: &Client, flags: PutFlags, output: Output) -> Outcome {
    let [local, remote] = flags.paths.as_slice() else {
        let text = "put -r takes one local folder and one remote directory";
        return Err(Failure::Usage(text.to_owned()));
    };
    let remote = directory(remote)?;
    let mut transfer = transfer(
        Direction::Up,
        local.into(),
        remote,
        &flags.filters,
        flags.run,
        flags.common.retry_for,
    );
    transfer.conditions.if_absent = flags.if_absent;
    transfer.n_streams = flags.streams.n_streams;
    transfer.delta = flags.delta;
    let reporter = Report::open(output, flags.run.dry_run);
    let what = format!("put -r {}", Escaped::new(local));
    let done = if flags.atomic {
        let mut versions = Versions::new();
        for condition in flags.if_version {
            let Some(path) = condition.path else {
                let text = "with -r, --if-version is about one file: --if-version /a/b=7";
                return Err(Failure::Usage(text.to_owned()));
            };
            versions.insert(path, condition.version);
        }
        tree::put_set(client, &transfer, &versions, &reporter).await
    } else {
        if !flags.if_version.is_empty() {
            let text = "--if-version goes with one file, or with -r --atomic";
            return Err(Failure::Usage(text.to_owned()));
        }
        tree::transfer(client, &transfer, &reporter).await
    };
    drop(reporter);
    conclude(
        &done.map_err(|error| Failure::Tree(what, Box::new(error)))?,
        output,
    )
}

pub(super) async fn get(client: &Client, flags: GetFlags, output: Output) -> Outcome {
    let remote = directory(&flags.remote)?;
    let name = remote.segments().next_back().map(PathBuf::from);
    let Some(local) = flags.local.or(name) else {
        let text = "the root has no name of its own: say which folder to fetch it into";
        return Err(Failure::Usage(text.to_owned()));
    };
    let what = format!("get -r {remote}");
    let mut transfer = transfer(
        Direction::Down,
        local,
        remote,
        &flags.filters,
        flags.run,
        flags.common.retry_for,
    );
    transfer.keeps_modes = flags.keep_modes;
    transfer.n_streams = flags.streams.n_streams;
    let reporter = Report::open(output, flags.run.dry_run);
    let done = tree::transfer(client, &transfer, &reporter).await;
    drop(reporter);
    conclude(
        &done.map_err(|error| Failure::Tree(what, Box::new(error)))?,
        output,
    )
}

pub(super) async fn list(client: &Client, flags: LsFlags, output: Output) -> Outcome {
    let reporter = Report::open(output, false);
    let root = flags.remote.clone();
    let filters = flags.filters.filters;
    let mut tree = tree::RemoteTree::open(
        client,
        root.clone(),
        filters,
        flags.common.retry_for,
        reporter,
    );
    let mut has_failed = false;
    while let Some(found) = tree.next().await {
        match found {
            Found::File(file) => {
                let name = file.path.as_str();
                let text = if flags.long {
                    long_line(&file, name)
                } else {
                    Escaped::whole(name).to_string()
                };
                output.result(&ListEntry::File(*file), &text)?;
            }
            Found::Unread(directory, error) if directory == root => {
                return Err(Failure::Tree(
                    format!("ls -r {root}"),
                    Box::new(error.into()),
                ));
            }
            Found::Unread(directory, error) => {
                has_failed = true;
                output.tree_fault(directory.as_str(), &TreeError::from(error));
            }
            Found::Unnameable(directory, n) => complain(
                &format!("{n} names in {directory} cannot be spelled here and are left out"),
                None,
            ),
        }
    }
    if has_failed {
        return Err(Failure::Refused(Exit::Failed));
    }
    Ok(())
}

pub(super) async fn remove(client: &Client, flags: RmFlags, output: Output) -> Outcome {
    let mut roots = Vec::with_capacity(flags.remote.len());
    for remote in &flags.remote {
        let root = directory(remote)?;
        if root == Prefix::root() && !flags.all && !flags.dry_run {
            let text =
                "rm -r / removes everything that you may remove: if that is meant, say --all";
            return Err(Failure::Usage(text.to_owned()));
        }
        roots.push(root);
    }
    let filters = &flags.filters.filters;
    let mut total = tree::Summary::default();
    for root in roots {
        let reporter = Report::open(output, flags.dry_run);
        let removed = tree::remove(
            client,
            &root,
            filters,
            flags.dry_run,
            flags.common.retry_for,
            &reporter,
        )
        .await;
        drop(reporter);
        let removed =
            removed.map_err(|error| Failure::Tree(format!("rm -r {root}"), Box::new(error)))?;
        total.add(&removed);
    }
    conclude(&total, output)
}

/// The conditions of a put that is not of a tree.
pub(super) fn plain_conditions(flags: &PutFlags) -> Result<Conditions, Failure> {
    no_tree(flags.filters.is_given || flags.run.dry_run)?;
    let if_version = match flags.if_version.as_slice() {
        [] => None,
        [one] if one.path.is_none() => Some(one.version),
        _ => {
            let text = "without -r, --if-version is one number, about every file that is sent";
            return Err(Failure::Usage(text.to_owned()));
        }
    };
    Ok(Conditions {
        if_absent: flags.if_absent,
        if_version,
    })
}

/// Flags about trees, given without one.
pub(super) fn no_tree(is_given: bool) -> Result<(), Failure> {
    if is_given {
        let text = "--include, --exclude and --dry-run go with -r";
        return Err(Failure::Usage(text.to_owned()));
    }
    Ok(())
}

pub(super) fn transfer(
    direction: Direction,
    local: PathBuf,
    remote: Prefix,
    filters: &FilterFlags,
    run: RunFlags,
    retry_for: Duration,
) -> Transfer {
    Transfer {
        direction,
        local,
        remote,
        filters: filters.filters.clone(),
        deletions_max: None,
        dry_run: run.dry_run,
        conditions: Conditions::default(),
        keeps_modes: false,
        n_jobs: usize::from(run.jobs),
        n_streams: N_STREAMS,
        delta: Delta::Auto,
        cache: cache(),
        retry_for,
    }
}

/// Where digests of local files are kept, by the rules of the desktop.
fn cache() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("fsvc").join("digests"))
}

fn directory(text: &str) -> Result<Prefix, Failure> {
    let wrong = |error| Failure::Usage(format!("{}: {error}", Escaped::new(text)));
    text.parse().map_err(wrong)
}
