//! Every prefix of a run's changes, then a second run.
//!
//! A [`Fuse`] ends a run after so many changes, in the middle of a file too; nothing of the run
//! happens after that, as after kill -9.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::disk::Disk;
use super::report::{PolicyState, Report};
use super::{Options, PkiError, State, ensure};

/// Burns down by one before each change.
pub(super) struct Fuse {
    left: Cell<Option<usize>>,
    /// Whether a fuse that burnt down fails every change from then on, or one.
    is_final: bool,
}

impl Fuse {
    pub(super) fn unlit() -> Self {
        Self {
            left: Cell::new(None),
            is_final: false,
        }
    }

    pub(super) fn kill_after(steps: usize) -> Self {
        Self {
            left: Cell::new(Some(steps)),
            is_final: true,
        }
    }

    pub(super) fn fail_once_after(steps: usize) -> Self {
        Self {
            left: Cell::new(Some(steps)),
            is_final: false,
        }
    }

    pub(super) fn burn(&self) -> io::Result<()> {
        match self.left.get() {
            None => Ok(()),
            Some(0) => {
                if !self.is_final {
                    self.left.set(None);
                }
                Err(io::Error::new(ErrorKind::StorageFull, "by the test"))
            }
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(())
            }
        }
    }
}

pub(super) fn options(dir: &Path, hosts: &[&str], clients: &[&str]) -> Options {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    Options {
        dir: dir.to_owned(),
        hosts: texts(hosts),
        default_hosts: true,
        host_name: Some("buildbox".to_owned()),
        clients: texts(clients),
        trust_domain: None,
        days: 365,
        ca_days: None,
        author: "ann@buildbox".to_owned(),
    }
}

pub(super) fn now() -> Timestamp {
    "2026-11-23T06:34:00Z".parse().unwrap()
}

pub(super) fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path.to_str().unwrap().to_owned(), bytes);
        }
    }
    found
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Ends the run at every step; the next one must complete it. Returns the number of steps.
#[track_caller]
fn check_every_step(
    before: Option<&Path>,
    hosts: &[&str],
    clients: &[&str],
    now: Timestamp,
    check_killed: fn(&Path),
    check_done: fn(&Report),
) -> usize {
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        if let Some(before) = before {
            copy(before, &dir);
        }
        let options = options(&dir, hosts, clients);
        let mut disk = Disk::new();
        disk.fuse = Fuse::kill_after(steps);
        match super::run::ensure(&options, now, &disk) {
            Ok(_) => return steps,
            Err(PkiError::Io { source, .. }) => {
                assert_eq!(source.to_string(), "by the test", "step {steps}");
            }
            Err(error) => panic!("step {steps}: {error}"),
        }
        check_killed(&dir);
        let report = ensure(&options, now).unwrap_or_else(|error| panic!("step {steps}: {error}"));
        check_done(&report);
        let after = tree(&dir);
        let stale: Vec<_> = after
            .keys()
            .filter(|name| name.contains(".fsvc-tmp"))
            .collect();
        assert!(stale.is_empty(), "step {steps}: {stale:?}");
        let again = ensure(&options, now).unwrap();
        assert!(again.is_unchanged(), "step {steps}: {again:?}");
        assert_eq!(tree(&dir), after, "step {steps}");
    }
    unreachable!("some number of steps is enough")
}

#[test]
fn a_first_run_may_end_anywhere() {
    let whole_or_unnamed = |dir: &Path| {
        let is_there = |name: &str| dir.join(name).is_file();
        if is_there("ca.pem") {
            for name in ["ca.crl", "server.pem", "server-key.pem", "clients/dev.pem"] {
                assert!(is_there(name), "{name} is missing beside ca.pem");
            }
        }
        let (key, certificate) = ("ca-private/ca-key.pem", "ca-private/ca-cert.pem");
        assert!(!is_there(certificate) || is_there(key));
    };
    let steps = check_every_step(
        None,
        &[],
        &["dev", "bob"],
        now(),
        whole_or_unnamed,
        |report| {
            assert_eq!(report.clients.len(), 2);
            let policy = fs::read_to_string(&report.policy.path).unwrap();
            assert!(policy.contains("client/dev") && policy.contains("client/bob"));
        },
    );
    assert!(steps > 40, "{steps} steps are too few to be all of them");
}

#[test]
fn a_renewal_may_end_anywhere() {
    let scratch = tempfile::tempdir().unwrap();
    let before = scratch.path().join("before");
    ensure(&options(&before, &[], &["dev"]), now()).unwrap();
    let later = now() + SignedDuration::from_hours(24 * 400);
    let steps = check_every_step(
        Some(&before),
        &["files.example.com"],
        &[],
        later,
        |dir| {
            for name in [
                "ca.pem",
                "server.pem",
                "server-key.pem",
                "clients/dev-key.pem",
            ] {
                assert!(fs::metadata(dir.join(name)).unwrap().len() > 0);
            }
        },
        |report| {
            let hosts: Vec<String> = report
                .server
                .hosts
                .iter()
                .map(ToString::to_string)
                .collect();
            assert!(hosts.contains(&"files.example.com".to_owned()), "{hosts:?}");
            assert!(hosts.contains(&"buildbox".to_owned()), "{hosts:?}");
            assert_eq!(report.ca.state, State::Kept);
        },
    );
    assert!(steps > 20, "{steps} steps are too few to be all of them");
}

#[test]
fn adding_a_client_may_end_anywhere() {
    let scratch = tempfile::tempdir().unwrap();
    let before = scratch.path().join("before");
    ensure(&options(&before, &[], &["dev"]), now()).unwrap();
    let steps = check_every_step(
        Some(&before),
        &[],
        &["carol"],
        now(),
        |_| {},
        |report| {
            let policy = fs::read_to_string(&report.policy.path).unwrap();
            assert!(policy.contains("client/carol"), "{policy}");
            assert!(!matches!(report.policy.state, PolicyState::Edited { .. }));
        },
    );
    assert!(steps > 8, "{steps} steps are too few to be all of them");
}

#[test]
fn a_full_disk_leaves_no_scrap_behind() {
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        let mut disk = Disk::new();
        disk.fuse = Fuse::fail_once_after(steps);
        let options = options(&dir, &[], &[]);
        let Err(error) = super::run::ensure(&options, now(), &disk) else {
            assert!(steps > 30, "{steps} steps are too few to be all of them");
            return;
        };
        assert_eq!(error.kind(), super::ErrorKind::Failed, "{error}");
        let left = if dir.is_dir() {
            tree(&dir)
        } else {
            BTreeMap::new()
        };
        assert!(!left.keys().any(|name| name.contains(".fsvc-tmp")));
        ensure(&options, now()).unwrap();
    }
}
