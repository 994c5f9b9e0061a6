//! Revocations and renewals while a CA gives way to another, and after its end.

use std::time::Duration;

use super::crash_tests::{Fuse, copy, now};
use super::crl;
use super::disk::Disk;
use super::inspect;
use super::life_tests::{after, place, revoked};
use super::reason::Reason;
use super::renew::{RenewOptions, Which, renew};
use super::revoke::{Target, revoke};
use super::{NewCa, PkiError, Standing};
use crate::tls::pem;

#[test]
fn the_list_of_another_ca_stays_as_it_is() {
    let (_scratch, dir) = place();
    let new = NewCa {
        author: "ann@buildbox",
        days: None,
    };
    super::rotate_start(&dir, new, now()).unwrap();
    let lists = || pem::read_revocation_lists(&dir.join("ca.crl")).unwrap();
    let before = lists();
    assert_eq!(before.len(), 2);
    revoke(
        &Disk::new(),
        &dir,
        Target::Name("dev"),
        Reason::Unspecified,
        now(),
    )
    .unwrap();
    let after = lists();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);

    // After the new one signs, those of the old one can be revoked still.
    super::rotate_promote(&dir, true, now()).unwrap();
    let options = RenewOptions {
        dir: &dir,
        which: Which::Name("server"),
        window: None,
        reuse_key: false,
        days: None,
        revoke_old_after: None,
    };
    let old = renew(&Disk::new(), &options, now()).unwrap().renewed[0].clone();
    let report = revoke(
        &Disk::new(),
        &dir,
        Target::Serial(&old.old_serial),
        Reason::Superseded,
        now(),
    )
    .unwrap();
    assert_ne!(report.revoked[0].ca, old.ca);
    let entries: Vec<usize> = lists()
        .iter()
        .map(|list| crl::read(list).unwrap().entries.len())
        .collect();
    assert_eq!(entries, [2, 0]);
}

#[test]
fn what_an_old_ca_signed_is_out_with_it_and_no_way_in_the_way() {
    let (_scratch, dir) = place();
    let new = NewCa {
        author: "ann@buildbox",
        days: None,
    };
    super::rotate_start(&dir, new, now()).unwrap();
    super::rotate_promote(&dir, true, now()).unwrap();
    let options = RenewOptions {
        dir: &dir,
        which: Which::All,
        // Far from their end: they are of a CA that does not sign any more.
        window: Some("1%".parse().unwrap()),
        reuse_key: false,
        days: None,
        revoke_old_after: Some(Duration::from_secs(24 * 60 * 60)),
    };
    let first = renew(&Disk::new(), &options, now()).unwrap();
    assert_eq!(first.renewed.len(), 2);
    assert!(
        renew(&Disk::new(), &options, now())
            .unwrap()
            .renewed
            .is_empty()
    );
    super::rotate_finish(&dir, now()).unwrap();

    let listed = super::list(&dir, None, now()).unwrap();
    let standing: Vec<Standing> = listed
        .certificates
        .iter()
        .filter(|item| item.name == "dev")
        .map(|item| item.status)
        .collect();
    assert_eq!(standing, [Standing::Untrusted, Standing::Valid]);
    // It has no list any more, so nothing is to come of that.
    renew(&Disk::new(), &options, after(2)).unwrap();
    let later = super::list(&dir, None, after(2)).unwrap();
    for item in listed.certificates.iter().chain(&later.certificates) {
        assert_eq!((item.revoked_after, item.revoked_at), (None, None));
    }
    for target in [Target::Name("dev"), Target::AllOf("dev")] {
        let report = revoke(&Disk::new(), &dir, target, Reason::Unspecified, now()).unwrap();
        assert_eq!(report.revoked.len(), 1);
    }
    assert_eq!(revoked(&dir).len(), 1);
}

/// With the key alone a CA goes on revoking after its end, and signs nothing any more.
#[test]
fn an_expired_ca_revokes_and_does_not_sign() {
    let (_scratch, dir) = place();
    let late = after(4_000);
    let options = RenewOptions {
        dir: &dir,
        which: Which::All,
        window: None,
        reuse_key: false,
        days: None,
        revoke_old_after: None,
    };
    let error = renew(&Disk::new(), &options, late).unwrap_err();
    assert!(matches!(error, PkiError::CaExpired { .. }), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("rotate-ca start"), "{hint}");
    let serial = super::list(&dir, None, late).unwrap().certificates[1]
        .serial
        .clone();
    let target = Target::Serial(&serial);
    revoke(&Disk::new(), &dir, target, Reason::Unspecified, late).unwrap();
    assert_eq!(revoked(&dir).len(), 1);
}

/// The old one is good for a while, and its end needs nobody who remembers it: unless the new one
/// never came to its files.
#[test]
fn an_old_certificate_is_revoked_in_time_but_never_the_one_in_use() {
    let (_scratch, before) = place();
    let mut in_use = 0;
    for steps in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        copy(&before, &dir);
        let mut disk = Disk::new();
        disk.fuse = Fuse::kill_after(steps);
        let mut options = RenewOptions {
            dir: &dir,
            which: Which::Name("dev"),
            window: None,
            reuse_key: false,
            days: None,
            revoke_old_after: Some(Duration::from_secs(24 * 60 * 60)),
        };
        let is_done = renew(&disk, &options, now()).is_ok();
        // What a timer does; there is nothing for it to renew.
        options.which = Which::All;
        options.window = Some("1%".parse().unwrap());
        options.revoke_old_after = None;
        renew(&Disk::new(), &options, now()).unwrap();
        assert!(revoked(&dir).is_empty(), "step {steps}");
        renew(&Disk::new(), &options, after(2)).unwrap();
        let listed = super::list(&dir, None, after(2)).unwrap().certificates;
        let mine: Vec<_> = listed.iter().filter(|item| item.name == "dev").collect();
        let path = dir.join("clients/dev.pem");
        let chain = pem::read_certificates(&path).unwrap();
        let serial = inspect::facts(&path, &chain[0]).unwrap().serial;
        let used = mine.iter().find(|item| item.serial == serial).unwrap();
        assert!(used.revoked_at.is_none(), "step {steps}");
        in_use += usize::from(mine.len() == 2 && serial == mine[0].serial);
        if is_done {
            assert_eq!(mine[0].status, Standing::Revoked);
            assert_eq!(mine[0].reason, Some(Reason::Superseded));
            assert_eq!(revoked(&dir).len(), 1);
            assert!(in_use > 0, "no step left the old one in use");
            return;
        }
    }
}

#[test]
fn what_is_not_valid_yet_by_this_clock_is_not_called_valid() {
    let (_scratch, dir) = place();
    let listed = super::list(&dir, None, after(-10)).unwrap();
    let mut all = listed.certificates.iter();
    assert!(all.all(|item| item.status == Standing::NotYetValid));
    let item = &listed.certificates[0];
    let line = format!(
        "not valid until {}; this clock says {}",
        item.not_before, listed.now
    );
    assert!(listed.render().contains(&line), "{}", listed.render());
}
