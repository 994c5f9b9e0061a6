//! Failures on demand: named points in the code where a test makes a call fail or the process end.
//!
//! A release build has none: there [`point`] does nothing and [`arm`] refuses. A name that is not
//! in [`POINTS`] cannot be armed, so that a test with a misspelt name does not pass in vain.
//! A plan is text: `store.seal.fsync=EIO`, `commit.append.after=abort@3`, joined by commas.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use crate::escape::Escaped;

/// Every point. One that ends in `.after` stands behind the call, the others before it.
pub const POINTS: &[&str] = &[
    "store.stage.create",
    "store.stage.create.after",
    "store.stage.write",
    "store.stage.write.after",
    "store.seal.fsync",
    "store.seal.fsync.after",
    "store.whole.syncfs",
    "store.whole.syncfs.after",
    "store.mkdir",
    "store.mkdir.after",
    "store.publish.rename",
    "store.publish.rename.after",
    "store.publish.unlink",
    "store.publish.unlink.after",
    "store.prune.rmdir",
    "store.prune.rmdir.after",
    "store.sync.fsync",
    "store.sync.fsync.after",
    "store.attach",
    "store.attach.after",
    "put.seal.after",
    "commit.append",
    "commit.append.after",
    "database.sync",
    "database.sync.after",
];

/// The points of uploads, which no single request passes.
pub const PART_POINTS: &[&str] = &[
    "store.part.write",
    "store.part.sync",
    "store.note.write",
    "store.note.sync",
];

/// The points of small contents that come with many others, which no single request passes.
pub const PACK_POINTS: &[&str] = &[
    "store.pack.create",
    "store.pack.write",
    "store.pack.flush",
    "store.pack.flush.after",
    "store.pack.sync",
    "store.pack.sync.after",
    "store.pack.remove",
    "store.publish.link",
    "store.publish.link.after",
];

/// Most faults in one plan.
pub const FAULTS_MAX: usize = 32;

const ERRORS: &[(&str, Errno)] = &[
    ("EIO", Errno::IO),
    ("ENOSPC", Errno::NOSPC),
    ("EDQUOT", Errno::DQUOT),
    ("EROFS", Errno::ROFS),
    ("EACCES", Errno::ACCESS),
    ("EMFILE", Errno::MFILE),
    ("ENOMEM", Errno::NOMEM),
];

#[derive(Clone, Copy)]
enum Action {
    Fail(Errno),
    Abort,
}

struct Fault {
    name: &'static str,
    action: Action,
    /// The hit at which it happens; absent for all of them.
    at: Option<u32>,
    n_hits: AtomicU32,
}

static PLAN: OnceLock<Vec<Fault>> = OnceLock::new();

thread_local! {
    static THREAD_PLAN: RefCell<Vec<Fault>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a plan armed for the thread that made it; dropping it disarms.
pub struct ThreadPlan(PhantomData<*const ()>);

fn is_known(name: &str) -> bool {
    [POINTS, PART_POINTS, PACK_POINTS]
        .iter()
        .any(|points| points.contains(&name))
}

/// Passes a point: does nothing, unless a plan says otherwise.
///
/// # Errors
/// The plan says that the call fails here.
#[inline]
pub fn point(name: &'static str) -> io::Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    debug_assert!(is_known(name), "{name} is not in the list");
    hit(PLAN.get().map_or(&[], Vec::as_slice), name)?;
    THREAD_PLAN.with_borrow(|plan| hit(plan, name))
}

/// Arms a plan for the whole process, once.
///
/// # Errors
/// The plan cannot be read, there is one already, or this is a release build.
pub fn arm(plan: &str) -> Result<(), String> {
    PLAN.set(parse(plan)?)
        .map_err(|_| "a fault plan is armed already".to_owned())
}

/// Arms a plan for the calling thread, in place of the one it had.
///
/// # Errors
/// The plan cannot be read, or this is a release build.
pub fn arm_thread(plan: &str) -> Result<ThreadPlan, String> {
    THREAD_PLAN.set(parse(plan)?);
    Ok(ThreadPlan(PhantomData))
}

impl Drop for ThreadPlan {
    fn drop(&mut self) {
        THREAD_PLAN.set(Vec::new());
    }
}

fn hit(plan: &[Fault], name: &str) -> io::Result<()> {
    for fault in plan.iter().filter(|fault| fault.name == name) {
        let n_hits = fault.n_hits.fetch_add(1, Ordering::Relaxed) + 1;
        if fault.at.is_some_and(|at| at != n_hits) {
            continue;
        }
        match fault.action {
            Action::Fail(errno) => return Err(errno.into()),
            Action::Abort => std::process::abort(),
        }
    }
    Ok(())
}

fn parse(plan: &str) -> Result<Vec<Fault>, String> {
    if !cfg!(debug_assertions) {
        return Err("this build has no fault points: use a debug build".to_owned());
    }
    let faults: Vec<Fault> = plan
        .split(',')
        .take(FAULTS_MAX + 1)
        .map(parse_fault)
        .collect::<Result<_, _>>()?;
    if faults.len() > FAULTS_MAX {
        return Err(format!(
            "the fault plan has more than {FAULTS_MAX} faults: name fewer"
        ));
    }
    Ok(faults)
}

fn parse_fault(text: &str) -> Result<Fault, String> {
    let shown = Escaped::new(text);
    let (name, action) = text
        .split_once('=')
        .ok_or_else(|| format!("the fault {shown} has no =: write POINT=EIO or POINT=abort@3"))?;
    let (action, at) = match action.split_once('@') {
        Some((action, at)) => (action, Some(at)),
        None => (action, None),
    };
    let name = *POINTS
        .iter()
        .chain(PART_POINTS)
        .chain(PACK_POINTS)
        .find(|point| **point == name)
        .ok_or_else(|| format!("the fault {shown} names no point of this program"))?;
    let at = at
        .map(str::parse)
        .transpose()
        .ok()
        .filter(|at| *at != Some(0))
        .ok_or_else(|| format!("the fault {shown} needs a number from 1 behind the @"))?;
    let action = if action == "abort" {
        Action::Abort
    } else {
        let (_, errno) = ERRORS
            .iter()
            .find(|(error, _)| *error == action)
            .ok_or_else(|| format!("the fault {shown} is neither abort nor a known error"))?;
        Action::Fail(*errno)
    };
    Ok(Fault {
        name,
        action,
        at,
        n_hits: AtomicU32::new(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_at_its_hit_and_ends_with_its_plan() {
        let plan = arm_thread("store.mkdir=ENOSPC@2,store.seal.fsync=EIO").unwrap();
        assert!(point("store.mkdir").is_ok());
        let error = point("store.mkdir").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(point("store.mkdir").is_ok());
        assert!(point("store.seal.fsync").is_err());
        assert!(point("store.seal.fsync").is_err());
        drop(plan);
        assert!(point("store.seal.fsync").is_ok());
    }

    #[test]
    fn another_thread_is_not_disturbed() {
        let _plan = arm_thread("store.mkdir=EIO").unwrap();
        let elsewhere = std::thread::spawn(|| point("store.mkdir").is_ok());
        assert!(elsewhere.join().unwrap());
        assert!(point("store.mkdir").is_err());
    }

    #[test]
    fn unusable_plans_are_refused() {
        let long = vec!["store.mkdir=EIO"; FAULTS_MAX + 1].join(",");
        for text in [
            "",
            "store.mkdir",
            "store.mkdri=EIO",
            "store.mkdir=EWHAT",
            "store.mkdir=EIO@0",
            "store.mkdir=EIO@x",
            "store.mkdir=EIO,",
            &long,
        ] {
            assert!(arm_thread(text).is_err(), "{text:?}");
        }
    }
}
