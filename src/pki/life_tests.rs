//! Every prefix of an addition, a renewal, a revocation; then the same again.
//!
//! Whatever they are interrupted at, the index loads, the list holds all that it held, and each pair
//! fits together: at once, or, between the two names of a new pair, after the next run of anything.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData};
use tempfile::TempDir;

use super::add::{AddOptions, add};
use super::bearer::{Holder, NewBearer};
use super::crash_tests::{Fuse, copy, now, options, tree};
use super::crl;
use super::disk::Disk;
use super::layout::Layout;
use super::ledger::Ledger;
use super::reason::Reason;
use super::renew::{RenewOptions, Which, renew};
use super::revoke::{Target, revoke};
use super::{PkiError, Standing, ensure, inspect, issue};
use crate::tls::pem;
use crate::tls::server::{Files, configure};

pub(super) fn after(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

pub(super) fn place() -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("before");
    ensure(&options(&dir, &[], &["dev"]), now()).unwrap();
    (scratch, dir)
}

fn fits(certificate: &Path, key: &Path) -> bool {
    let chain = pem::read_certificates(certificate).unwrap();
    let key = KeyPair::try_from(&pem::read_private_key(key).unwrap()).unwrap();
    let facts = inspect::facts(certificate, &chain[0]).unwrap();
    key.subject_public_key_info() == facts.public_key
}

fn pairs_fit(dir: &Path) -> bool {
    let clients = dir.join("clients");
    fits(&dir.join("server.pem"), &dir.join("server-key.pem"))
        && fits(&clients.join("dev.pem"), &clients.join("dev-key.pem"))
}

pub(super) fn revoked(dir: &Path) -> Vec<Vec<u8>> {
    let lists = pem::read_revocation_lists(&dir.join("ca.crl")).unwrap();
    let list = crl::read(&lists[0]).unwrap();
    list.entries.into_iter().map(|entry| entry.serial).collect()
}

fn number(dir: &Path) -> u64 {
    let lists = pem::read_revocation_lists(&dir.join("ca.crl")).unwrap();
    crl::read(&lists[0]).unwrap().last_number
}

fn ledger(dir: &Path) -> Ledger {
    let layout = Layout::new(dir).unwrap();
    Ledger::read(&layout.ledger()).unwrap().unwrap()
}

/// Ends `act` at every change. Returns the number of changes, and how many of them left a pair that
/// only the next run completes.
#[track_caller]
fn at_every_step(
    before: &Path,
    now: Timestamp,
    act: impl Fn(&Path, &Disk) -> Result<(), PkiError>,
    check: impl Fn(&Path),
) -> (usize, usize) {
    let mut halves = 0;
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        copy(before, &dir);
        let (issued, lost) = (ledger(&dir).records().len(), revoked(&dir));
        let number_before = number(&dir);
        let mut disk = Disk::new();
        disk.fuse = Fuse::kill_after(steps);
        let at = format!("step {steps}");
        match act(&dir, &disk) {
            Ok(()) => return (steps, halves),
            Err(PkiError::Io { source, .. }) => assert_eq!(source.to_string(), "by the test"),
            Err(error) => panic!("{at}: {error}"),
        }
        assert!(ledger(&dir).records().len() >= issued, "{at}");
        assert!(lost.iter().all(|serial| revoked(&dir).contains(serial)));
        assert!(number(&dir) >= number_before, "{at}");
        if pairs_fit(&dir) {
            loads(&dir, now, &at);
        } else {
            halves += 1;
        }
        // Whoever comes next completes the pair, whatever it came for.
        revoke(
            &Disk::new(),
            &dir,
            Target::Serial("00ff"),
            Reason::Unspecified,
            now,
        )
        .unwrap_err();
        assert!(pairs_fit(&dir), "{at}");
        loads(&dir, now, &at);

        act(&dir, &Disk::new()).unwrap_or_else(|error| panic!("{at}: {error}"));
        check(&dir);
        assert!(pairs_fit(&dir), "{at}");
        loads(&dir, now, &at);
        let names = tree(&dir);
        let stale = names.keys().find(|name| name.contains(".fsvc-tmp"));
        assert_eq!(stale, None, "{at}");
    }
    unreachable!("some number of steps is enough")
}

/// A server starts with it; its own certificate may be out of date.
#[track_caller]
fn loads(dir: &Path, now: Timestamp, at: &str) {
    let files = Files {
        certificate: dir.join("server.pem"),
        key: dir.join("server-key.pem"),
        ca: dir.join("ca.pem"),
        crl: Some(dir.join("ca.crl")),
    };
    let chain = pem::read_certificates(&files.certificate).unwrap();
    let facts = inspect::facts(&files.certificate, &chain[0]).unwrap();
    let then = now.min(facts.validity.not_after - SignedDuration::from_secs(1));
    configure(&files, &[], then).unwrap_or_else(|error| panic!("{at}: {error}"));
}

fn asked<'a>(dir: &'a Path, name: &'a str, again: bool) -> AddOptions<'a> {
    AddOptions {
        dir,
        holder: Holder {
            bearer: NewBearer::Client(name),
            hosts: &[],
        },
        days: 30,
        again,
    }
}

#[test]
fn an_addition_may_end_anywhere() {
    let (_scratch, before) = place();
    // What was added halfway is there when it is added again: then it takes --again.
    let act = |dir: &Path, disk: &Disk| {
        let added = add(disk, &asked(dir, "bob", false), now());
        match added {
            Err(PkiError::Life(_)) => add(disk, &asked(dir, "bob", true), now()).map(drop),
            added => added.map(drop),
        }
    };
    let (steps, _) = at_every_step(&before, now(), act, |dir| {
        let clients = dir.join("clients");
        assert!(fits(&clients.join("bob.pem"), &clients.join("bob-key.pem")));
        let policy = fs::read_to_string(dir.join("policy.toml")).unwrap();
        assert_eq!(policy.matches("client/bob").count(), 1);
    });
    assert!(steps > 8, "{steps} steps are too few to be all of them");
}

#[test]
fn a_second_certificate_may_end_anywhere() {
    let (_scratch, before) = place();
    let act = |dir: &Path, disk: &Disk| add(disk, &asked(dir, "dev", true), now()).map(drop);
    let (steps, halves) = at_every_step(&before, now(), act, |dir| {
        let listed = super::list(dir, None, now()).unwrap();
        let mine = listed.certificates.iter().filter(|item| item.name == "dev");
        let standing: Vec<Standing> = mine.map(|item| item.status).collect();
        assert_eq!(standing.first(), Some(&Standing::Archived));
        assert_eq!(standing.last(), Some(&Standing::Valid));
    });
    assert!(steps > 8, "{steps} steps are too few to be all of them");
    assert_eq!(halves, 1);
}

#[test]
fn a_renewal_of_all_may_end_anywhere() {
    let (_scratch, before) = place();
    let late = after(400);
    for reuse_key in [false, true] {
        let act = |dir: &Path, disk: &Disk| {
            let options = RenewOptions {
                dir,
                which: Which::All,
                window: None,
                reuse_key,
                days: None,
                revoke_old_after: None,
            };
            renew(disk, &options, late).map(drop)
        };
        let (steps, halves) = at_every_step(&before, late, act, |dir| {
            for name in ["server.pem", "clients/dev.pem"] {
                let path = dir.join(name);
                let chain = pem::read_certificates(&path).unwrap();
                let facts = inspect::facts(&path, &chain[0]).unwrap();
                assert!(facts.validity.not_after > after(764), "{name}");
            }
        });
        assert!(steps > 10, "{steps} steps are too few to be all of them");
        // One new key: one moment for each pair.
        assert_eq!(halves, if reuse_key { 0 } else { 2 });
    }
}

#[test]
fn a_revocation_may_end_anywhere_and_is_completed_by_whoever_comes_next() {
    let (_scratch, before) = place();
    add(&Disk::new(), &asked(&before, "bob", false), now()).unwrap();
    revoke(
        &Disk::new(),
        &before,
        Target::Name("bob"),
        Reason::Superseded,
        now(),
    )
    .unwrap();
    let act = |dir: &Path, disk: &Disk| {
        let reason = Reason::KeyCompromise;
        revoke(disk, dir, Target::Name("dev"), reason, after(1)).map(drop)
    };
    let (steps, halves) = at_every_step(&before, after(1), act, |dir| {
        assert_eq!(revoked(dir).len(), 2);
    });
    assert!(steps > 5, "{steps} steps are too few to be all of them");
    assert_eq!(halves, 0);

    // Written down and not published: an addition publishes it.
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        copy(&before, &dir);
        let mut disk = Disk::new();
        disk.fuse = Fuse::kill_after(steps);
        let done = act(&dir, &disk).is_ok();
        let written = ledger(&dir).revocations().len();
        add(&Disk::new(), &asked(&dir, "carol", false), now()).unwrap();
        assert_eq!(revoked(&dir).len(), written, "step {steps}");
        if done {
            break;
        }
    }
}

#[test]
fn a_full_disk_leaves_pairs_that_fit() {
    let (_scratch, before) = place();
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        copy(&before, &dir);
        let mut disk = Disk::new();
        disk.fuse = Fuse::fail_once_after(steps);
        let options = RenewOptions {
            dir: &dir,
            which: Which::All,
            window: None,
            reuse_key: false,
            days: None,
            revoke_old_after: None,
        };
        let is_done = renew(&disk, &options, now()).is_ok();
        renew(&Disk::new(), &options, now()).unwrap();
        assert!(pairs_fit(&dir), "step {steps}");
        if is_done {
            assert!(steps > 10, "{steps} steps are too few to be all of them");
            return;
        }
    }
}

#[test]
fn a_list_that_was_lost_or_forgotten_never_takes_a_revocation_back() {
    let (_scratch, dir) = place();
    let disk = Disk::new();
    let reason = Reason::KeyCompromise;
    revoke(&disk, &dir, Target::Name("dev"), reason, now()).unwrap();
    let (once, first) = (revoked(&dir), number(&dir));
    assert_eq!(once.len(), 1);

    // The list is gone: gen-certs makes it again, from the index.
    fs::remove_file(dir.join("ca.crl")).unwrap();
    ensure(&options(&dir, &[], &[]), now()).unwrap();
    assert_eq!(revoked(&dir), once);
    assert!(number(&dir) > first);

    // The index is gone: the old list still counts, and so does its number.
    let last = number(&dir);
    let index = dir.join("ca-private/index.jsonl");
    let lines = fs::read_to_string(&index).unwrap();
    let kept: Vec<&str> = lines
        .lines()
        .filter(|line| !line.contains("revoked"))
        .collect();
    fs::write(&index, kept.join("\n") + "\n").unwrap();
    fs::write(dir.join("ca-private/crl-number"), "1\n").unwrap();
    revoke(&disk, &dir, Target::Name("server"), reason, now()).unwrap();
    assert!(revoked(&dir).contains(&once[0]));
    assert_eq!(revoked(&dir).len(), 2);
    assert!(number(&dir) > last);
}

/// Renews dev, whose old certificate is to be revoked an hour later.
fn renew_for_an_hour(disk: &Disk, dir: &Path) {
    let options = RenewOptions {
        dir,
        which: Which::Name("dev"),
        window: None,
        reuse_key: false,
        days: None,
        revoke_old_after: Some(std::time::Duration::from_secs(3600)),
    };
    renew(disk, &options, now()).unwrap();
}

/// The timer has not run yet, and somebody revokes another: what is due goes with it.
#[test]
fn whoever_revokes_another_revokes_what_is_due_too() {
    let (_scratch, dir) = place();
    let disk = Disk::new();
    add(&disk, &asked(&dir, "bob", false), now()).unwrap();
    let path = dir.join("clients/dev.pem");
    let chain = pem::read_certificates(&path).unwrap();
    let old = inspect::facts(&path, &chain[0]).unwrap().serial;
    renew_for_an_hour(&disk, &dir);
    let reason = Reason::KeyCompromise;
    let report = revoke(&disk, &dir, Target::Name("bob"), reason, after(1)).unwrap();
    assert_eq!((report.n_entries, report.numbers), (2, vec![2]));
    let mut listed = revoked(&dir).into_iter().map(|serial| issue::hex(&serial));
    assert!(listed.any(|serial| serial == old));
}

/// What became of the file of one is in nobody else's way.
#[test]
fn a_broken_file_stops_no_revocation_that_is_due() {
    let (_scratch, dir) = place();
    let disk = Disk::new();
    renew_for_an_hour(&disk, &dir);
    fs::write(dir.join("clients/dev.pem"), "broken").unwrap();
    add(&disk, &asked(&dir, "bob", false), after(1)).unwrap();
    assert_eq!(revoked(&dir).len(), 1);
}
