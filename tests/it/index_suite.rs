//! What every index promises: it is the fold of the log, and the names in it fit together.

use std::collections::BTreeMap;

use fsvc::index::Indexed;
use fsvc::index::fold::apply;
use fsvc::log::{Change, Condition, Conflict, Draft, Sequence};
use fsvc::path::{Prefix, RemotePath};
use proptest::prelude::*;

use crate::journal::{Journal, draft, embedded, entry, page, path, put, remove, rename};
use crate::journal::{stamp, sure};
use crate::memory::Memory;

fn every_promise<J: Journal>(new: impl Fn() -> J) {
    names_fit(&new());
    changes_of_a_draft_apply_in_order(&new());
    a_prefix_is_whole_segments(&new());
    pages_follow_each_other(&new());
}

#[test]
fn memory_index_keeps_every_promise() {
    every_promise(Memory::default);
}

#[test]
fn embedded_index_keeps_every_promise() {
    every_promise(embedded);
}

fn append(journal: &impl Journal, changes: Vec<Change>) -> Result<Sequence, Conflict> {
    journal.append(&[draft(changes, vec![])]).remove(0)
}

#[track_caller]
fn fits(journal: &impl Journal, changes: Vec<Change>) {
    append(journal, changes).unwrap();
}

#[track_caller]
fn is_above(journal: &impl Journal, changes: Vec<Change>, at: &str, above: &str) {
    let (path, file) = (path(at), path(above));
    let conflict = Conflict::FileAbove { path, file };
    assert_eq!(append(journal, changes), Err(conflict));
}

#[track_caller]
fn is_below(journal: &impl Journal, changes: Vec<Change>, at: &str, below: &str) {
    let (path, file) = (path(at), path(below));
    let conflict = Conflict::FileBelow { path, file };
    assert_eq!(append(journal, changes), Err(conflict));
}

fn names(journal: &impl Journal, prefix: &str) -> Vec<String> {
    let prefix: Prefix = prefix.parse().unwrap();
    let found = journal.index().range(&prefix, None, 100).unwrap();
    found.into_iter().map(|(path, _)| path.into()).collect()
}

fn names_fit(journal: &impl Journal) {
    fits(journal, vec![put("/a/b/c")]);
    is_above(journal, vec![put("/a/b/c/d")], "/a/b/c/d", "/a/b/c");
    is_above(journal, vec![put("/a/b/c/d/e/f")], "/a/b/c/d/e/f", "/a/b/c");
    is_below(journal, vec![put("/a")], "/a", "/a/b/c");
    is_below(journal, vec![rename("/x", "/a/b")], "/a/b", "/a/b/c");
    is_above(
        journal,
        vec![rename("/x", "/a/b/c/d")],
        "/a/b/c/d",
        "/a/b/c",
    );
    fits(journal, vec![put("/a/b-")]);
    fits(journal, vec![put("/a/b0")]);
    fits(journal, vec![put("/a/bc")]);
    assert_eq!(names(journal, "/"), ["/a/b-", "/a/b/c", "/a/b0", "/a/bc"]);
}

fn changes_of_a_draft_apply_in_order(journal: &impl Journal) {
    fits(journal, vec![put("/a")]);
    fits(journal, vec![rename("/a", "/a/b")]);
    fits(journal, vec![rename("/a/b", "/a")]);
    fits(journal, vec![remove("/a"), put("/a/b"), put("/a/c")]);
    is_below(journal, vec![put("/a"), remove("/a/b")], "/a", "/a/b");
    is_below(journal, vec![remove("/a/b"), put("/a")], "/a", "/a/c");
    is_above(journal, vec![put("/d"), put("/d/e")], "/d/e", "/d");
    is_below(journal, vec![put("/d/e"), put("/d")], "/d", "/d/e");
    fits(journal, vec![put("/d/e"), remove("/d/e"), put("/d")]);
    fits(
        journal,
        vec![remove("/a/b"), remove("/a/c"), put("/a"), remove("/gone")],
    );
    assert_eq!(names(journal, "/"), ["/a", "/d"]);
    fits(journal, vec![rename("/a", "/a")]);
    let found = journal.index().lookup(&path("/a")).unwrap().unwrap();
    assert_eq!(found.version, journal.log().head().unwrap());
    assert_eq!(found.entry, entry(2));
}

fn a_prefix_is_whole_segments(journal: &impl Journal) {
    let all = ["/a/x", "/a/y/z", "/ab/x", "/a-", "/a0"];
    fits(journal, all.map(put).to_vec());
    assert_eq!(names(journal, "/a/"), ["/a/x", "/a/y/z"]);
    assert_eq!(names(journal, "/a/y/"), ["/a/y/z"]);
    assert_eq!(names(journal, "/none/"), [""; 0]);
    assert_eq!(names(journal, "/").len(), all.len());
}

fn pages_follow_each_other(journal: &impl Journal) {
    let changes = (0..10).map(|n| put(&format!("/p/{n}"))).collect();
    fits(journal, changes);
    fits(journal, vec![put("/q")]);
    let prefix: Prefix = "/p/".parse().unwrap();
    let (mut after, mut seen): (Option<RemotePath>, usize) = (None, 0);
    loop {
        let page = journal.index().range(&prefix, after.as_ref(), 3).unwrap();
        let Some((last, _)) = page.last() else { break };
        assert!(page.len() <= 3);
        seen += page.len();
        after = Some(last.clone());
    }
    assert_eq!(seen, 10);
    let past = |name: &str| journal.index().range(&prefix, Some(&path(name)), 100);
    assert_eq!(past("/q").unwrap(), []);
    assert_eq!(past("/a").unwrap().len(), 10);
}

fn any_path() -> impl Strategy<Value = RemotePath> {
    proptest::collection::vec("[ab]", 1..4)
        .prop_map(|segments| path(&format!("/{}", segments.join("/"))))
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any_path(), any::<u8>())
            .prop_map(|(path, seed)| Change::Put { path, entry: entry(seed) }),
        2 => any_path().prop_map(|path| Change::Remove { path, stamp: stamp() }),
        2 => (any_path(), any_path(), any::<u8>())
            .prop_map(|(from, to, seed)| Change::Move { from, to, entry: entry(seed) }),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        any_path().prop_map(Condition::Absent),
        (any_path(), 1..10u64).prop_map(|(path, at)| Condition::Version(path, Sequence(at))),
    ]
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let changes = proptest::collection::vec(any_change(), 1..4);
    let conditions = proptest::collection::vec(any_condition(), 0..2);
    (changes, conditions).prop_map(|(changes, conditions)| draft(changes, conditions))
}

fn everything(journal: &impl Journal) -> BTreeMap<RemotePath, Indexed> {
    let all = journal.index().range(&Prefix::root(), None, usize::MAX);
    all.unwrap().into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_index_is_the_fold_of_the_log(
        batches in proptest::collection::vec(proptest::collection::vec(any_draft(), 1..6), 1..6),
    ) {
        let (disk, memory) = (embedded(), Memory::default());
        for batch in &batches {
            let results = disk.log().append(batch, Sequence(0)).unwrap();
            prop_assert_eq!(results, memory.log().append(batch, Sequence(0)).unwrap());
        }
        let mut rebuilt: BTreeMap<RemotePath, Indexed> = BTreeMap::new();
        for record in disk.log().read(Sequence(1), page(usize::MAX)).unwrap() {
            sure(apply(&record, &mut rebuilt));
        }
        prop_assert_eq!(&everything(&disk), &rebuilt);
        prop_assert_eq!(&everything(&disk.reopened()), &rebuilt);
        for file in rebuilt.keys() {
            prop_assert!(file.ancestors().all(|above| !rebuilt.contains_key(&above)));
        }
    }
}
