//! Every prefix of each step of a rotation, of a signature, of a change of the bundle; then the
//! same step again.
//!
//! Between the two the directory is one that a server loads and gen-certs takes.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::bearer::{Holder, NewBearer};
use super::bundle::{Bundle, ListSource, Pick};
use super::crash_tests::{Fuse, copy, now, options, tree};
use super::disk::Disk;
use super::rotate::{Change, NewCa};
use super::rotate_report::RotationReport;
use super::rotation::Phase;
use super::sign::{SignOptions, sign};
use super::{PkiError, State, ensure, inspect};
use crate::tls::pem;

const AUTHOR: NewCa<'static> = NewCa {
    author: "ann@buildbox",
    days: None,
};

fn after(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

/// One step, as a command asks for it.
#[derive(Clone, Copy)]
enum Step {
    Status,
    Start,
    Promote,
    Finish,
    Rollback,
}

fn step(dir: &Path, disk: &Disk, now: Timestamp, step: Step) -> Result<RotationReport, PkiError> {
    let change = Change::open(disk, dir, now)?;
    match step {
        Step::Status => change.status(),
        Step::Start => change.start(AUTHOR),
        Step::Promote => change.promote(false),
        Step::Finish => change.finish(),
        Step::Rollback => change.rollback(),
    }
}

#[track_caller]
fn done(dir: &Path, now: Timestamp, which: Step) -> RotationReport {
    step(dir, &Disk::new(), now, which).unwrap()
}

/// A directory with a server, the client dev, and what `prepare` does to it.
fn place(prepare: impl FnOnce(&Path)) -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("before");
    ensure(&options(&dir, &[], &["dev"]), now()).unwrap();
    prepare(&dir);
    (scratch, dir)
}

/// What holds whatever was interrupted: each trusted CA has a list, what is in use is trusted.
#[track_caller]
fn assert_sound(dir: &Path, at: &str) {
    let cas = pem::read_certificates(&dir.join("ca.pem")).unwrap();
    let lists = pem::read_revocation_lists(&dir.join("ca.crl")).unwrap();
    for (index, ca) in cas.iter().enumerate() {
        let mine = lists.iter().filter(|list| inspect::is_list_of(list, ca));
        assert_eq!(mine.count(), 1, "{at}: a list for each CA");
        assert!(!cas[..index].contains(ca), "{at}: a CA stands there twice");
    }
    for name in ["server.pem", "clients/dev.pem"] {
        let chain = pem::read_certificates(&dir.join(name)).unwrap();
        let is_trusted = cas.iter().any(|ca| inspect::is_issued_by(&chain[0], ca));
        assert!(is_trusted, "{at}: {name} is not trusted");
    }
}

/// Ends `act` at every change; the directory is sound then, takes gen-certs, and `act` again ends
/// as it should. Returns the number of changes.
#[track_caller]
fn at_every_step(
    before: &Path,
    now: Timestamp,
    act: impl Fn(&Path, &Disk) -> Result<(), PkiError>,
    check: impl Fn(&Path),
) -> usize {
    for steps in 0.. {
        for with_ensure in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("certs");
            copy(before, &dir);
            let mut disk = Disk::new();
            disk.fuse = Fuse::kill_after(steps);
            let at = format!("step {steps}");
            match act(&dir, &disk) {
                Ok(()) => return steps,
                Err(PkiError::Io { source, .. }) => assert_eq!(source.to_string(), "by the test"),
                Err(error) => panic!("{at}: {error}"),
            }
            assert_sound(&dir, &at);
            if with_ensure {
                ensure(&options(&dir, &[], &["bob"]), now).unwrap_or_else(|e| panic!("{at}: {e}"));
                assert_sound(&dir, &at);
            }
            act(&dir, &Disk::new()).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_sound(&dir, &at);
            check(&dir);
            let names = tree(&dir);
            let stale = names.keys().find(|name| name.contains(".fsvc-tmp"));
            assert_eq!(stale, None, "{at}");
            ensure(&options(&dir, &[], &[]), now).unwrap();
            let again = ensure(&options(&dir, &[], &[]), now).unwrap();
            assert!(again.is_unchanged(), "{at}: {again:?}");
            assert_sound(&dir, &at);
        }
    }
    unreachable!("some number of steps is enough")
}

fn cas(dir: &Path) -> usize {
    pem::read_certificates(&dir.join("ca.pem")).unwrap().len()
}

fn phase(dir: &Path) -> Option<Phase> {
    done(dir, after(400), Step::Status).phase
}

/// Two CAs, the new one signs, all certificates are of it.
fn moved(dir: &Path) {
    done(dir, now(), Step::Start);
    done(dir, after(1), Step::Promote);
    ensure(&options(dir, &[], &[]), after(1)).unwrap();
}

#[test]
fn a_start_may_end_anywhere() {
    let (_scratch, before) = place(|_| {});
    let act = |dir: &Path, disk: &Disk| {
        let report = step(dir, disk, now(), Step::Start)?;
        assert_eq!(report.phase, Some(Phase::Started));
        assert_eq!(report.cas.len(), 2);
        Ok(())
    };
    let steps = at_every_step(&before, now(), act, |dir| {
        assert_eq!((cas(dir), phase(dir)), (2, Some(Phase::Started)));
        let index = fs::read_to_string(dir.join("ca-private/index.jsonl")).unwrap();
        assert_eq!(index.matches("\"kind\":\"ca\"").count(), 2);
    });
    assert!(steps >= 20, "{steps} steps are too few to be all of them");
}

#[test]
fn a_promotion_may_end_anywhere() {
    let (_scratch, before) = place(|dir| {
        done(dir, now(), Step::Start);
    });
    let act = |dir: &Path, disk: &Disk| step(dir, disk, after(1), Step::Promote).map(|_| ());
    let steps = at_every_step(&before, after(1), act, |dir| {
        assert_eq!((cas(dir), phase(dir)), (2, Some(Phase::Promoted)));
    });
    assert!(steps >= 3, "{steps} steps are too few to be all of them");
}

#[test]
fn an_end_may_end_anywhere() {
    let (_scratch, before) = place(moved);
    let new = done(&before, after(2), Step::Status).cas[0].serial.clone();
    let act = |dir: &Path, disk: &Disk| match step(dir, disk, after(2), Step::Finish) {
        // The first run had done all of it, but for what the second one tidies up.
        Err(PkiError::Rotation(super::RotationError::NotStarted { .. })) => Ok(()),
        other => other.map(|_| ()),
    };
    let steps = at_every_step(&before, after(2), act, |dir| {
        let report = done(dir, after(2), Step::Status);
        assert_eq!((cas(dir), report.phase), (1, None));
        assert_eq!(report.cas[0].serial, new);
        for name in ["next-ca-key.pem", "next-ca-cert.pem", "rotation.json"] {
            assert!(
                fs::metadata(dir.join("ca-private").join(name)).is_err(),
                "{name}"
            );
        }
        let archived = tree(&dir.join("ca-private/archive"));
        let keys = archived.keys().filter(|name| name.ends_with("/ca-key.pem"));
        assert_eq!(keys.count(), 1);
    });
    assert!(steps >= 20, "{steps} steps are too few to be all of them");
}

#[test]
fn a_step_back_may_end_anywhere() {
    let (_scratch, before) = place(|dir| {
        done(dir, now(), Step::Start);
    });
    let old = done(&before, now(), Step::Status).cas[0].serial.clone();
    let act = |dir: &Path, disk: &Disk| match step(dir, disk, now(), Step::Rollback) {
        Err(PkiError::Rotation(super::RotationError::NotStarted { .. })) => Ok(()),
        other => other.map(|_| ()),
    };
    let steps = at_every_step(&before, now(), act, |dir| {
        let report = done(dir, now(), Step::Status);
        assert_eq!((cas(dir), report.phase), (1, None));
        assert_eq!(report.cas[0].serial, old);
    });
    assert!(steps > 10, "{steps} steps are too few to be all of them");
}

#[test]
fn moving_the_certificates_over_may_end_anywhere() {
    let (_scratch, before) = place(|dir| {
        done(dir, now(), Step::Start);
        done(dir, after(1), Step::Promote);
    });
    let act = |dir: &Path, disk: &Disk| {
        super::run::ensure(&options(dir, &[], &[]), after(1), disk).map(|_| ())
    };
    let steps = at_every_step(&before, after(1), act, |dir| {
        let report = done(dir, after(1), Step::Status);
        assert!(report.cas[1].left.is_empty(), "{report:?}");
        done(dir, after(1), Step::Finish);
    });
    assert!(steps >= 20, "{steps} steps are too few to be all of them");
}

#[test]
fn a_signature_may_end_anywhere() {
    let (scratch, before) = place(|_| {});
    let holder = Holder {
        bearer: NewBearer::Client("carol"),
        hosts: &[],
    };
    let far = scratch.path().join("far");
    let request = super::request::make(&Disk::new(), &far, holder, false).unwrap();
    let act = |dir: &Path, disk: &Disk| {
        let options = SignOptions {
            dir,
            request: &request.request,
            holder,
            days: 30,
            out: None,
            again: false,
        };
        sign(disk, &options, now()).map(|_| ())
    };
    let steps = at_every_step(&before, now(), act, |dir| {
        let policy = fs::read_to_string(dir.join("policy.toml")).unwrap();
        assert!(policy.contains("client/carol"), "{policy}");
        let index = fs::read_to_string(dir.join("ca-private/index.jsonl")).unwrap();
        let der = &pem::read_certificates(&dir.join("clients/carol.pem")).unwrap()[0];
        let serial = inspect::facts(dir, der).unwrap().serial;
        assert!(index.contains(&serial), "the certificate is in no index");
    });
    assert!(steps >= 8, "{steps} steps are too few to be all of them");
}

#[test]
fn a_change_of_the_bundle_may_end_anywhere() {
    let (scratch, before) = place(|_| {});
    let other = scratch.path().join("other");
    ensure(&options(&other, &[], &[]), now()).unwrap();
    let (file, list) = (other.join("ca.pem"), other.join("ca.crl"));
    let there = |result: Result<super::BundleReport, PkiError>| match result {
        // The first run had done it.
        Err(PkiError::Bundle(
            super::BundleError::There { .. } | super::BundleError::NotThere { .. },
        )) => Ok(()),
        other => other.map(|_| ()),
    };
    let add = |dir: &Path, disk: &Disk| {
        let bundle = Bundle::open(disk, dir, now())?;
        there(bundle.add(&file, ListSource::File(&list)))
    };
    let steps = at_every_step(&before, now(), add, |dir| assert_eq!(cas(dir), 2));
    assert!(steps >= 6, "{steps} steps are too few to be all of them");

    add(&before, &Disk::new()).unwrap();
    let remove = |dir: &Path, disk: &Disk| {
        let bundle = Bundle::open(disk, dir, now())?;
        there(bundle.remove(Pick::File(&file)))
    };
    let steps = at_every_step(&before, now(), remove, |dir| assert_eq!(cas(dir), 1));
    assert!(steps >= 6, "{steps} steps are too few to be all of them");
}

#[test]
fn a_request_may_end_anywhere() {
    let holder = Holder {
        bearer: NewBearer::Client("carol"),
        hosts: &[],
    };
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("far");
        let mut disk = Disk::new();
        disk.fuse = Fuse::kill_after(steps);
        let made = super::request::make(&disk, &dir, holder, false);
        let key = fs::read(dir.join("clients/carol-key.pem")).ok();
        let report = super::request::make(&Disk::new(), &dir, holder, false).unwrap();
        let after = fs::read(&report.key).unwrap();
        assert!(key.is_none_or(|key| key == after), "a key was overwritten");
        if made.is_ok() {
            assert!(!report.new_key && !report.new_request);
            assert!(steps >= 6, "{steps} steps are too few to be all of them");
            return;
        }
    }
}

#[test]
fn a_ca_that_expired_is_rotated() {
    let (_scratch, dir) = place(|_| {});
    let late = after(3_650 + 10);
    let refused = ensure(&options(&dir, &[], &[]), late).unwrap_err();
    assert!(refused.hint().unwrap().contains("rotate-ca start"));
    done(&dir, late, Step::Start);
    // Nobody can trust the old one any more: there is nothing to wait for.
    done(&dir, late, Step::Promote);
    done(&dir, late, Step::Finish);
    let report = ensure(&options(&dir, &[], &[]), late).unwrap();
    assert!(matches!(report.server.state, State::Renewed { .. }));
    assert_sound(&dir, "afterwards");
}
