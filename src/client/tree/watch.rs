//! A local folder that is kept on the server as it changes.
//!
//! The kernel says which directories changed; those are compared anew once they are quiet. Whenever
//! that is not known for sure, all of the folder is compared: after a start, an overflow, a lost
//! connection.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::Transfer;
use super::outcome::{Happened, Reporter, TreeError};
use super::plan::Pending;
use super::run::{Run, transfer};
use crate::client::Client;
use crate::client::back_off::BackOff;
use crate::client::upload::on_thread;

/// How long nothing must change before what changed is compared.
const QUIET: Duration = Duration::from_millis(300);
/// How long a folder that is never quiet is waited for.
const NOISE_MAX: Duration = Duration::from_secs(5);
/// Changed directories that are remembered; more are as good as all.
const DIRECTORIES_MAX: usize = 4_096;
/// Events that wait to be looked at.
const EVENTS_MAX: usize = 16_384;

/// Keeps the server like the folder until it is dropped: first all of it, then what changes. What goes
/// wrong is reported and tried again with the next change.
///
/// # Errors
/// The folder cannot be read or watched, or the first comparison failed altogether.
///
/// # Cancel safety
/// Dropping the future gives up what is under way.
pub async fn watch(
    client: &Client,
    asked: &Transfer,
    reporter: &Arc<dyn Reporter>,
) -> Result<Infallible, TreeError> {
    let root = asked.local.clone();
    let root = on_thread(move || root.canonicalize()).await?;
    let mut changes = Changes::watch(root)?;
    let mut back_off = BackOff::default();
    let mut has_worked = false;
    loop {
        match whole(client, asked, reporter, &mut changes, &mut has_worked).await {
            // The folder itself is gone, or the user would want to know at once.
            Err(error) if !has_worked || !changes.root.is_dir() => return Err(error),
            Err(error) => {
                reporter.happened(&Happened::Stopped { error: &error });
                back_off.pause().await;
            }
            Ok(()) => back_off.reset(),
        }
    }
}

/// Compares all of the folder, then what changes, until that is not known any more.
async fn whole(
    client: &Client,
    asked: &Transfer,
    reporter: &Arc<dyn Reporter>,
    changes: &mut Changes,
    has_worked: &mut bool,
) -> Result<(), TreeError> {
    changes.is_lost.store(false, Ordering::Relaxed);
    let summary = transfer(client, asked, reporter).await?;
    *has_worked = true;
    reporter.happened(&Happened::Watching { summary: &summary });
    loop {
        let Some(found) = changes.next().await? else {
            return Ok(());
        };
        let mut run = Run::new(client, asked, reporter).await?;
        let roots = found.into_iter().map(|(relative, is_deep)| Pending {
            relative,
            local: true,
            remote: true,
            shallow: !is_deep,
        });
        let is_clear = run.pass(roots.collect(), false).await?;
        let summary = run.end();
        reporter.happened(&Happened::Watching { summary: &summary });
        // A directory that was to be compared may have gone meanwhile.
        if !is_clear || run.was_incomplete {
            return Ok(());
        }
    }
}

/// A directory, and whether all below it is to be compared.
type Changed = BTreeMap<String, bool>;

/// What changes in a folder.
struct Changes {
    root: PathBuf,
    events: mpsc::Receiver<(PathBuf, bool)>,
    /// Some change was missed.
    is_lost: Arc<AtomicBool>,
    _watcher: RecommendedWatcher,
}

impl Changes {
    fn watch(root: PathBuf) -> Result<Self, TreeError> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        let handler = move |event: notify::Result<notify::Event>| {
            let is_missed = match event {
                Ok(event) if event.need_rescan() => true,
                Ok(event) => is_change(event.kind).is_some_and(|is_name| {
                    let mut paths = event.paths.into_iter();
                    paths.any(|path| sender.try_send((path, is_name)).is_err())
                }),
                Err(_) => true,
            };
            if is_missed {
                lost.store(true, Ordering::Relaxed);
            }
        };
        let failed = |error: notify::Error| TreeError::Watch(error.to_string());
        let mut watcher = notify::recommended_watcher(handler).map_err(failed)?;
        watcher
            .watch(&root, RecursiveMode::Recursive)
            .map_err(failed)?;
        Ok(Self {
            root,
            events,
            is_lost,
            _watcher: watcher,
        })
    }

    /// Waits for changes, and until they are over; `None` if some were missed.
    async fn next(&mut self) -> Result<Option<Changed>, TreeError> {
        let ended = || TreeError::Watch("it ended".to_owned());
        let mut changed = Changed::new();
        let mut event = Some(self.events.recv().await.ok_or_else(ended)?);
        let until = Instant::now() + NOISE_MAX;
        while let Some((path, is_name)) = event {
            let root = self.root.clone();
            let found = on_thread(move || Ok(directories(&root, &path, is_name))).await?;
            for (relative, is_deep) in found {
                *changed.entry(relative).or_default() |= is_deep;
            }
            event = match timeout_at(until, timeout(QUIET, self.events.recv())).await {
                Ok(Ok(Some(event))) => Some(event),
                Ok(Ok(None)) => return Err(ended()),
                Ok(Err(_)) | Err(_) => None,
            };
        }
        let is_lost = self.is_lost.load(Ordering::Relaxed) || changed.len() > DIRECTORIES_MAX;
        Ok((!is_lost).then(|| outermost(&changed)))
    }
}

/// Whether an event is of a change, and if so whether of a name.
const fn is_change(kind: EventKind) -> Option<bool> {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            Some(true)
        }
        EventKind::Modify(_) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            Some(false)
        }
        EventKind::Any | EventKind::Access(_) | EventKind::Other => None,
    }
}

/// Which directories a change concerns: that of the name; and what has the name, if it is a directory
/// that may have come with all that is in it. Blocks.
fn directories(root: &Path, path: &Path, is_name: bool) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let relative = |path: &Path| {
        let relative = path.strip_prefix(root).ok()?;
        Some(relative.to_str()?.to_owned())
    };
    if is_name && path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        found.extend(relative(path).map(|relative| (relative, true)));
    }
    // The nearest directory that is still there sees what went.
    let there = path
        .ancestors()
        .skip(1)
        .find(|above| above.symlink_metadata().is_ok_and(|found| found.is_dir()));
    let above = there.and_then(relative);
    found.push((above.unwrap_or_default(), false));
    found
}

/// Leaves out what is below a directory that is compared whole.
fn outermost(changed: &Changed) -> Changed {
    let deep: Vec<String> = changed
        .iter()
        .filter(|(_, is_deep)| **is_deep)
        .map(|(relative, _)| format!("{relative}/"))
        .collect();
    let is_covered = |relative: &str| {
        let mut above = relative.match_indices('/').map(|(at, _)| &relative[..=at]);
        above.any(|above| {
            deep.binary_search_by(|deep| deep.as_str().cmp(above))
                .is_ok()
        })
    };
    let kept = changed.iter().filter(|(relative, _)| !is_covered(relative));
    kept.map(|(relative, is_deep)| (relative.clone(), *is_deep))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_directory_that_is_compared_whole_is_left_out() {
        let changed = [
            ("", false),
            ("a", true),
            ("a/b", false),
            ("a/b/c", true),
            ("a.b", false),
            ("ab", true),
            ("b/a", true),
        ];
        let changed = changed.map(|(relative, is_deep)| (relative.to_owned(), is_deep));
        let kept: Vec<String> = outermost(&Changed::from(changed)).into_keys().collect();
        assert_eq!(kept, ["", "a", "a.b", "ab", "b/a"]);
    }

    #[test]
    fn a_change_concerns_the_nearest_directory_that_is_there() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("a/b")).unwrap();
        let check = |name: &str, is_name, expected: &[(&str, bool)]| {
            let found = directories(place.path(), &place.path().join(name), is_name);
            let expected: Vec<_> = expected
                .iter()
                .map(|(r, d)| ((*r).to_owned(), *d))
                .collect();
            assert_eq!(found, expected, "{name}");
        };
        check("a/x", true, &[("a", false)]);
        check("a/b", true, &[("a/b", true), ("a", false)]);
        check("a/b", false, &[("a", false)]);
        check("x", true, &[("", false)]);
        check("gone/x/y", true, &[("", false)]);
    }
}
