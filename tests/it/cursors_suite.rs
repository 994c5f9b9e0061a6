//! How far readers have come is there after a restart, each reader's for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use fsvc::database::Database;
use fsvc::log::cursors::{CursorKey, CursorState, Cursors, EmbeddedCursors, Reading};
use fsvc::log::{LogError, Sequence};
use redb::TableDefinition;
use tempfile::TempDir;

const CURSORS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cursors");

fn open(directory: &TempDir) -> EmbeddedCursors {
    let database = Database::open(&directory.path().join("log.redb")).unwrap();
    EmbeddedCursors::open(Arc::new(database)).unwrap()
}

fn key(identity: &str, name: &str) -> CursorKey {
    CursorKey {
        identity: format!("spiffe://acme.internal/client/{identity}")
            .parse()
            .unwrap(),
        name: name.parse().unwrap(),
    }
}

fn state(position: u64, done: &[u64]) -> CursorState {
    let filters = ["a/*", "b/**"].map(|filter| filter.parse().unwrap());
    CursorState {
        reading: Reading::Topics(filters.to_vec()),
        is_group: !done.is_empty(),
        position: Sequence(position),
        done: done.iter().map(|done| Sequence(*done)).collect(),
    }
}

fn loaded(cursors: &EmbeddedCursors) -> Vec<(CursorKey, CursorState)> {
    let mut all = cursors.load().unwrap();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn cursors_are_kept_changed_and_taken_away_in_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let cursors = open(&directory);
    assert_eq!(loaded(&cursors), []);
    let watching = CursorState {
        is_group: false,
        reading: Reading::Files("/inbox/".parse().unwrap()),
        position: Sequence(0),
        done: BTreeSet::new(),
    };
    let [first, second, other] = [key("a", "one"), key("a", "two"), key("b", "one")];
    cursors
        .save(&[
            (first.clone(), Some(state(7, &[9, 11]))),
            (second.clone(), Some(watching.clone())),
            (other.clone(), Some(state(u64::MAX, &[]))),
        ])
        .unwrap();
    drop(cursors);
    let cursors = open(&directory);
    let expected = [
        (first.clone(), state(7, &[9, 11])),
        (second.clone(), watching.clone()),
        (other.clone(), state(u64::MAX, &[])),
    ];
    assert_eq!(loaded(&cursors), expected);
    cursors
        .save(&[
            (first.clone(), Some(state(12, &[]))),
            (other, None),
            (key("c", "never"), None),
        ])
        .unwrap();
    cursors.save(&[]).unwrap();
    drop(cursors);
    let expected = [(first, state(12, &[])), (second, watching)];
    assert_eq!(loaded(&open(&directory)), expected);
}

#[test]
fn a_spoiled_cursor_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let cursors = open(&directory);
    let saved = (key("a", "one"), Some(state(7, &[])));
    cursors.save(&[saved]).unwrap();
    drop(cursors);
    let engine = redb::Database::open(directory.path().join("log.redb")).unwrap();
    let write = engine.begin_write().unwrap();
    let name = "spiffe://acme.internal/client/a one";
    let before = write
        .open_table(CURSORS)
        .unwrap()
        .insert(name, &b"{}"[..])
        .unwrap()
        .is_some();
    assert!(before);
    write.commit().unwrap();
    drop(engine);
    let error = open(&directory).load().unwrap_err();
    assert!(matches!(error, LogError::Damaged(_)), "{error:?}");
    assert!(error.to_string().contains(name), "{error}");
}
