//! Contents beside their messages: attached by the next start if need be, gone with the message.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fsvc::content::ContentId;
use fsvc::database::Database;
use fsvc::digest::Digest;
use fsvc::log::cursors::EmbeddedCursors;
use fsvc::log::{Attached, Draft, Message, Payload, Sequence};
use fsvc::ops::{Bounds, Parts, Recovered, Service};
use fsvc::policy::Policy;
use fsvc::store::local::LocalStore;
use fsvc::store::{Publication, Published};
use fsvc::topics::Topics;

use crate::harness::everything;
use crate::journal::{at, message, open_keeping, said};
use crate::retention::keep;
use crate::store_local::{n_staged, scratch};
use crate::store_suite::{read_attached, seal};

const BOUNDS: Bounds = Bounds {
    file_size_max: u64::MAX,
    keep_uploads: Duration::MAX,
};

pub(crate) fn parts(root: &Path) -> Parts {
    let store = LocalStore::open(root, 0).unwrap();
    let database = Database::open(&root.join(".fsvc/log.redb")).unwrap();
    let database = Arc::new(database);
    let cursors = EmbeddedCursors::open(database.clone()).unwrap();
    let (log, index) = open_keeping(database, keep());
    Parts {
        log: Arc::new(log),
        index,
        store: Arc::new(store),
        cursors: Arc::new(cursors),
    }
}

pub(crate) fn open(parts: &Parts) -> (Service, Recovered) {
    let policy = Policy::parse(&everything()).unwrap();
    let retention = (keep().messages)(&"short".parse().unwrap());
    let topics = Arc::new(Topics::none(retention));
    Service::open(parts.clone(), policy, topics, BOUNDS).unwrap()
}

fn n_attached(root: &Path) -> usize {
    let attached = std::fs::read_dir(root.join(".fsvc/attached")).unwrap();
    attached.count()
}

fn large(content: ContentId, seconds: i64) -> Draft {
    let payload = Payload::Attached(Attached {
        content,
        size: 4,
        digest: Digest::of(b"said"),
    });
    let message = Message {
        payload,
        ..message("short", b"")
    };
    said(message, seconds)
}

#[test]
fn a_start_attaches_what_the_log_has_and_sweeps_the_rest() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let parts = parts(&root);
    let [logged, done, nobodys] = [(); 3].map(|()| seal(&*parts.store, b"said").content);
    let drafts = [large(logged, 0), large(done, 0)];
    parts.log.append(&drafts, Sequence(0)).unwrap();
    let step = Publication::Attach { content: done };
    assert_eq!(parts.store.publish(&step).unwrap(), Published::Done);
    assert_eq!(n_staged(&root), 2);
    let (service, recovered) = open(&parts);
    assert_eq!((recovered.n_records, recovered.n_swept), (2, 1));
    assert_eq!((n_staged(&root), n_attached(&root)), (0, 2));
    for content in [logged, done] {
        assert_eq!(read_attached(&*parts.store, content).unwrap(), b"said");
    }
    assert!(read_attached(&*parts.store, nobodys).is_err());
    drop(service);
    let (_service, recovered) = open(&parts);
    assert_eq!((recovered.n_records, recovered.n_swept), (0, 0));
}

#[test]
fn a_content_goes_with_its_message() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let parts = parts(&root);
    let [old, young] = [(); 2].map(|()| seal(&*parts.store, b"said").content);
    let drafts = [large(old, 0), large(young, 100)];
    parts.log.append(&drafts, Sequence(0)).unwrap();
    let (service, _) = open(&parts);
    service.expire(at(49));
    assert_eq!(n_attached(&root), 2);
    service.expire(at(120));
    assert!(read_attached(&*parts.store, old).is_err());
    assert_eq!(read_attached(&*parts.store, young).unwrap(), b"said");
    assert_eq!(parts.log.detached(10).unwrap(), []);
    service.expire(at(1_000));
    assert_eq!(n_attached(&root), 0);
    assert_eq!(parts.log.stats().unwrap().n_records, 0);
}

/// A content was removed, and the process ended before the log could forget it.
#[test]
fn a_removal_that_was_broken_off_is_finished() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let parts = parts(&root);
    let [one, two] = [(); 2].map(|()| seal(&*parts.store, b"said").content);
    let drafts = [large(one, 0), large(two, 0)];
    parts.log.append(&drafts, Sequence(0)).unwrap();
    drop(open(&parts));
    while parts.log.expire(at(1_000), 1).unwrap() > 0 {}
    parts.store.detach(&[one]).unwrap();
    let (service, _) = open(&parts);
    service.expire(at(1_000));
    assert_eq!(n_attached(&root), 0);
    assert_eq!(parts.log.detached(10).unwrap(), []);
}

/// The room that one message of a batch takes from another, while the store is still behind.
#[test]
fn a_content_is_not_given_up_before_it_is_attached() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let parts = parts(&root);
    let drafts: Vec<Draft> = (0..20)
        .map(|_| large(seal(&*parts.store, b"said").content, 0))
        .collect();
    parts.log.append(&drafts, Sequence(0)).unwrap();
    assert_eq!(parts.log.detached(100).unwrap(), []);
    let (service, _) = open(&parts);
    assert_eq!(n_attached(&root), 20);
    service.expire(at(0));
    assert_eq!(n_attached(&root), 30 / 4);
}
