//! Bits that flip on the disk under the log: what is spoiled is named, and nothing else is lost.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fsvc::database::Database;
use fsvc::index::embedded::EmbeddedIndex;
use fsvc::index::fold::apply;
use fsvc::log::embedded::EmbeddedLog;
use fsvc::log::{Change, Keep, Log, LogError, Payload, Record, Sequence};
use fsvc::path::Prefix;
use redb::{ReadableDatabase, TableDefinition};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Server, everything, text};
use crate::journal::{at, draft, message, open_keeping, page, put, remove, said};
use crate::retention::keep;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const N_MESSAGES: u64 = 12;

/// Flips a byte in the middle of a record, as if it had been flipped before it was written: the
/// pages of the file are sound.
pub(crate) fn spoil(file: &Path, sequence: u64) {
    let engine = redb::Database::open(file).unwrap();
    let read = engine.begin_read().unwrap();
    let records = read.open_table(RECORDS).unwrap();
    let mut bytes = records.get(sequence).unwrap().unwrap().value().to_vec();
    drop((records, read));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let write = engine.begin_write().unwrap();
    write
        .open_table(RECORDS)
        .unwrap()
        .insert(sequence, bytes.as_slice())
        .unwrap();
    write.commit().unwrap();
}

type Opened = (EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>);

fn open(file: &Path) -> Opened {
    open_keeping(Arc::new(Database::open(file).unwrap()), keep())
}

/// A log of six records, of which the third is spoiled.
fn spoiled() -> (TempDir, Opened) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    let (log, index) = open(&file);
    let filed = |seconds, changes: Vec<Change>| {
        let mut draft = draft(changes, vec![]);
        draft.time = at(seconds);
        draft
    };
    let drafts = [
        filed(1, vec![put("/a")]),
        said(message("short", b"x"), 2),
        filed(3, vec![put("/b"), put("/c")]),
        filed(4, vec![put("/a")]),
        filed(5, vec![remove("/b"), remove("/c")]),
        said(message("short", b"y"), 6),
    ];
    log.append(&drafts, Sequence(0)).unwrap();
    log.append(&[], Sequence(6)).unwrap();
    drop((log, index));
    spoil(&file, 3);
    let opened = open(&file);
    (directory, opened)
}

fn read(log: &dyn Log, from: u64) -> Result<Vec<u64>, u64> {
    match log.read(Sequence(from), page(10)) {
        Ok(records) => Ok(records.iter().map(|record| record.sequence.0).collect()),
        Err(LogError::DamagedRecord { sequence, .. }) => Err(sequence.0),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_read_ends_before_a_spoiled_record_and_names_it() {
    let (_directory, (log, _)) = spoiled();
    assert_eq!(read(&log, 1), Ok(vec![1, 2]));
    assert_eq!(read(&log, 3), Err(3));
    assert_eq!(read(&log, 4), Ok(vec![4, 5, 6]));
    assert_eq!(log.head().unwrap(), Sequence(6));
    let appended = log.append(&[said(message("short", b"z"), 7)], Sequence(6));
    assert!(appended.unwrap()[0].is_ok());
    assert_eq!(read(&log, 4), Ok(vec![4, 5, 6, 7]));
}

#[test]
fn a_time_is_found_beside_a_spoiled_record() {
    let (_directory, (log, _)) = spoiled();
    for time in 0..=7_i64 {
        let since = log.since(at(time)).unwrap().0;
        let first = u64::try_from(time).unwrap().max(1);
        assert!(since <= first, "{since} is after {first}");
    }
    assert_eq!(log.since(at(7)).unwrap(), Sequence(7));
}

#[test]
fn a_spoiled_record_is_let_go_of_with_the_others() {
    let (_directory, (log, index)) = spoiled();
    while log.expire(at(1_000), 2).unwrap() > 0 {}
    assert_eq!(read(&log, 1), Ok(vec![4]));
    let mut folded = std::collections::BTreeMap::new();
    for record in log.read(Sequence(1), page(10)).unwrap() {
        apply(&record, &mut folded).unwrap();
    }
    let indexed = fsvc::index::Index::range(&*index, &Prefix::root(), None, 10).unwrap();
    assert_eq!(indexed, folded.into_iter().collect::<Vec<_>>());
}

fn payload(n: u64) -> String {
    format!("{{\"distinctive\":{n},\"of\":\"0123456789abcdef\"}}")
}

/// A stopped server whose log has twelve messages.
fn stopped() -> Server {
    let mut server = Server::with_policy(&everything());
    for n in 1..=N_MESSAGES {
        server.ok(&["publish", "a", &payload(n)]);
    }
    server.signal("TERM");
    server.wait(Duration::from_secs(10));
    server
}

#[test]
fn a_subscriber_is_told_of_a_spoiled_record_and_given_all_others() {
    let mut server = stopped();
    let file = server.root().join(".fsvc/log.redb");
    spoil(&file, 3);
    spoil(&file, 8);
    server.restart();
    let since_one = ["subscribe", "a", "--since", "1", "--no-follow", "--json"];
    let lines = server.ok(&since_one);
    let seen: Vec<String> = lines.lines().map(short).collect();
    let expected = [
        "2", "lost 3-3", "4", "5", "6", "7", "lost 8-8", "9", "10", "11", "12",
    ];
    assert_eq!(seen, expected);
    let verified = server.run(&["admin", "log", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let lines = text(&verified.stdout);
    let damaged = lines.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["sequence"].as_u64()
    });
    assert_eq!(damaged.collect::<Vec<_>>(), [3, 8], "{lines}");
    let shown = server.fails(1, &["admin", "log", "verify"]);
    assert!(shown.contains("12 records checked, 2 damaged"), "{shown}");
    // A reader in a group is given the others too.
    let group = ["subscribe", "a", "--since", "0", "--cursor", "c", "--group"];
    let lines = server.ok(&[&group[..], &["--no-follow", "--json"]].concat());
    let seen = lines
        .lines()
        .map(short)
        .filter(|line| !line.starts_with('l'));
    assert_eq!(seen.count(), 10);
    server.ok(&["publish", "a", "1"]);
}

#[track_caller]
fn short(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap();
    if let Some(lost) = line.get("lost") {
        return format!("lost {}-{}", lost["from"], lost["to"]);
    }
    let sequence = line["sequence"].as_u64().unwrap();
    assert_eq!(line["payload"]["distinctive"], sequence);
    sequence.to_string()
}

#[test]
fn verify_is_content_with_a_sound_log() {
    let mut server = stopped();
    server.restart();
    let output = server.run(&["admin", "log", "verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("12 records checked, 0 damaged"));
}

fn places(bytes: &[u8], wanted: &[u8]) -> Vec<Range<usize>> {
    let windows = bytes.windows(wanted.len()).enumerate();
    let found = windows.filter(|(_, window)| *window == wanted);
    found.map(|(at, _)| at..at + wanted.len()).collect()
}

/// Opens a log's bytes as a server would; its records, or why there are none.
fn reopened(bytes: &[u8]) -> Result<Vec<Record>, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    std::fs::write(&file, bytes).unwrap();
    let database = Database::open(&file).map_err(|error| error.to_string())?;
    let (log, _index) = open_keeping(Arc::new(database), Keep::everything());
    log.read(Sequence(1), page(100))
        .map_err(|error| error.to_string())
}

#[test]
fn a_payload_that_was_flipped_on_the_disk_is_never_given_out() {
    let mut server = stopped();
    let file = server.root().join(".fsvc/log.redb");
    let sound = std::fs::read(&file).unwrap();
    let expected = reopened(&sound).unwrap();
    let places = places(&sound, payload(7).as_bytes());
    assert!(!places.is_empty());
    let mut refused = None;
    for place in places {
        let mut flipped = sound.clone();
        flipped[place.start + 20] ^= 0x04;
        match reopened(&flipped) {
            // The place was one that nothing refers to any more.
            Ok(records) => assert_eq!(records, expected),
            Err(error) => {
                assert!(error.contains("damaged"), "{error}");
                refused = Some(flipped);
            }
        }
    }
    let expected: Vec<_> = (1..=N_MESSAGES).map(|n| payload(n).into_bytes()).collect();
    let sound_again = reopened(&sound).unwrap();
    let payloads = sound_again.iter().map(|record| {
        let message = record.matter.message().unwrap();
        match &message.payload {
            Payload::Inline(bytes) => bytes.to_vec(),
            Payload::Attached(_) => panic!("a small message is inline"),
        }
    });
    assert_eq!(payloads.collect::<Vec<_>>(), expected);
    // The program says so, and serves nothing.
    std::fs::write(&file, refused.expect("one of the places is in use")).unwrap();
    let said = server.restart_fails();
    assert!(said.contains("damaged"), "{said}");
    std::fs::write(&file, &sound).unwrap();
    server.restart();
    server.ok(&["admin", "log", "verify"]);
}
