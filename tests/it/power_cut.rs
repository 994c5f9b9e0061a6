//! Power cuts under the log: of what was not synced any part may be on the disk, and pieces of it.
//!
//! Every write and sync is recorded; a cut leaves what the last sync promised and a random part of
//! the rest. What then opens must be the last acknowledged state or the one under way, whole.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use fsvc::content::ContentId;
use fsvc::database::Database;
use fsvc::escape::Escaped;
use fsvc::index::embedded::EmbeddedIndex;
use fsvc::index::fold::apply;
use fsvc::index::{Index, Indexed, TopicState, Totals};
use fsvc::log::embedded::EmbeddedLog;
use fsvc::log::{Draft, Log, Message, Record, Sequence};
use fsvc::path::{Prefix, RemotePath, Topic};
use redb::StorageBackend;

use crate::crash::{Random, count};
use crate::journal::{at, attached, draft, message, page, put, remove, rename, said, say, sure};
use crate::retention::keep;

const N_STEPS: usize = 40;
const CUTS_PER_RECORDING: usize = 75;
const SECTOR_SIZE: usize = 512;
/// Records that are let go of in one step.
const EXPIRED_MAX: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    Write(usize, Vec<u8>),
    Resize(usize),
    Sync,
    /// The state of this number was acknowledged.
    Acknowledged(usize),
}

/// A disk in memory that remembers what was done to it.
#[derive(Debug, Clone, Default)]
struct Recorder {
    bytes: Arc<Mutex<Vec<u8>>>,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl Recorder {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(bytes)),
            ops: Arc::default(),
        }
    }

    fn note(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }

    fn open(&self) -> Result<(EmbeddedLog<EmbeddedIndex>, Arc<EmbeddedIndex>), String> {
        let disk = self.clone();
        let open = move |_| Ok(Box::new(disk.clone()) as Box<dyn StorageBackend>);
        let text = |error: &dyn std::error::Error| format!("it does not open: {error}");
        let database = Database::with_backend(Escaped::new("test"), Box::new(open));
        let database = Arc::new(database.map_err(|error| text(&error))?);
        let index = EmbeddedIndex::open(database.clone(), keep()).map_err(|error| text(&error))?;
        let index = Arc::new(index);
        let log = EmbeddedLog::open(database, index.clone()).map_err(|error| text(&error))?;
        Ok((log, index))
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        self.bytes.lock().unwrap().resize(len, 0);
        self.note(Op::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        self.note(Op::Write(start, data.to_vec()));
        Ok(())
    }
}

/// All that log and index say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    head: Sequence,
    published: Sequence,
    records: Vec<Record>,
    entries: BTreeMap<RemotePath, Indexed>,
    topics: Vec<(Topic, TopicState)>,
    totals: Totals,
    detached: Vec<ContentId>,
}

fn state(log: &dyn Log, index: &dyn Index) -> Result<State, String> {
    let log_error = |error: fsvc::log::LogError| error.to_string();
    let index_error = |error: fsvc::index::IndexError| error.to_string();
    let every = "**".parse().unwrap();
    Ok(State {
        head: log.head().map_err(log_error)?,
        published: log.published().map_err(log_error)?,
        records: log.read(Sequence(1), page(usize::MAX)).map_err(log_error)?,
        entries: index
            .range(&Prefix::root(), None, usize::MAX)
            .map_err(index_error)?
            .into_iter()
            .collect(),
        topics: index
            .topics(&every, None, usize::MAX)
            .map_err(index_error)?,
        totals: index.totals().map_err(index_error)?,
        detached: log.detached(usize::MAX).map_err(log_error)?,
    })
}

/// What was done to a disk, and the states that were acknowledged meanwhile.
struct Recording {
    ops: Vec<Op>,
    states: Vec<State>,
}

fn any_draft(random: &mut Random, seconds: i64) -> Draft {
    let name = |random: &mut Random| format!("/d{}/f{}", random.below(3), random.below(4));
    let seed = u8::try_from(random.below(200)).unwrap();
    let changes = match random.below(8) {
        0 => vec![remove(&name(random))],
        1 => vec![rename(&name(random), &name(random))],
        2 => (0..20).map(|n| put(&format!("/set/{n}"))).collect(),
        3 | 4 => vec![put(&name(random))],
        5 => {
            let message = Message {
                payload: attached(seed, 70_000),
                ..message("short", b"")
            };
            return said(message, seconds);
        }
        _ => {
            let size = usize::try_from(random.below(6_000)).unwrap();
            let to = ["short", "long", "long/er"][usize::from(seed % 3)];
            return said(message(to, &vec![seed; size]), seconds);
        }
    };
    Draft {
        time: at(seconds),
        ..draft(changes, vec![])
    }
}

fn record(random: &mut Random) -> Recording {
    let disk = Recorder::default();
    let (log, index) = disk.open().unwrap();
    let mut states = vec![state(&log, &*index).unwrap()];
    disk.note(Op::Acknowledged(0));
    let mut seconds = 0;
    for n in 1..=N_STEPS {
        seconds += 20;
        let published = log.head().unwrap();
        match random.below(5) {
            0 => drop(log.expire(at(seconds), EXPIRED_MAX).unwrap()),
            1 => log.forget_detached(&log.detached(2).unwrap()).unwrap(),
            _ => {
                let n_drafts = 1 + random.below(8);
                let drafts: Vec<_> = (0..n_drafts).map(|_| any_draft(random, seconds)).collect();
                drop(log.append(&drafts, published).unwrap());
            }
        }
        states.push(state(&log, &*index).unwrap());
        disk.note(Op::Acknowledged(n));
    }
    let ops = disk.ops.lock().unwrap().clone();
    Recording { ops, states }
}

fn write(bytes: &mut Vec<u8>, start: usize, data: &[u8]) {
    if bytes.len() < start + data.len() {
        bytes.resize(start + data.len(), 0);
    }
    bytes[start..start + data.len()].copy_from_slice(data);
}

/// The part of a write that reached the disk: all, or one side of a boundary between sectors.
fn torn<'a>(random: &mut Random, start: usize, data: &'a [u8]) -> (usize, &'a [u8]) {
    let n_sectors = data.len().div_ceil(SECTOR_SIZE);
    if n_sectors < 2 || random.below(3) > 0 {
        return (start, data);
    }
    let nth = 1 + usize::try_from(random.below(n_sectors as u64 - 1)).unwrap();
    let boundary = (start / SECTOR_SIZE + nth) * SECTOR_SIZE - start;
    let boundary = boundary.min(data.len());
    match random.below(2) {
        0 => (start, &data[..boundary]),
        _ => (start + boundary, &data[boundary..]),
    }
}

/// The disk as a cut before the op `at` leaves it, where syncs do what they say or do not.
fn after_cut(ops: &[Op], random: &mut Random, honest: bool) -> Vec<u8> {
    let is_sync = |op: &Op| honest && matches!(op, Op::Sync);
    // Where syncs are a lie the disk was sound once: when the log was made.
    let made = ops.iter().position(|op| matches!(op, Op::Acknowledged(0)));
    let synced = ops.iter().rposition(is_sync).max(made).unwrap_or(0);
    let share = [0, 30, 70, 95, 100][usize::try_from(random.below(5)).unwrap()];
    let mut bytes = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        let is_there = n <= synced || random.below(100) < share;
        match op {
            Op::Write(start, data) if n <= synced => write(&mut bytes, *start, data),
            Op::Write(start, data) if is_there => {
                let (start, data) = torn(random, *start, data);
                write(&mut bytes, start, data);
            }
            Op::Resize(len) if is_there => bytes.resize(*len, 0),
            Op::Write(..) | Op::Resize(_) | Op::Sync | Op::Acknowledged(_) => {}
        }
    }
    bytes
}

/// Opens what a cut left; says whether the state under way is there.
fn check(recording: &Recording, bytes: Vec<u8>, n_acknowledged: usize) -> Result<bool, String> {
    let (log, index) = Recorder::of(bytes).open()?;
    let found = state(&log, &*index)?;
    let under_way = recording.states.get(n_acknowledged + 1);
    let is_under_way = Some(&found) == under_way;
    let acknowledged = &recording.states[n_acknowledged];
    if found != *acknowledged && !is_under_way {
        return Err(format!(
            "the head is {:?} with {} records, acknowledged was {:?} with {}",
            found.head,
            found.records.len(),
            acknowledged.head,
            acknowledged.records.len()
        ));
    }
    let mut folded = BTreeMap::new();
    for record in &found.records {
        sure(apply(record, &mut folded));
    }
    if folded != found.entries {
        return Err("the index is not the fold of the log".to_owned());
    }
    let appended = log.append(&[say("after", b"x")], found.published);
    let appended = appended.map_err(|error| error.to_string())?.remove(0);
    match appended {
        Ok(record) if record.sequence == found.head.next() => {
            Ok(is_under_way && found != *acknowledged)
        }
        other => Err(format!("it takes no more: {other:?}")),
    }
}

/// Cuts the power so many times; what became of each.
fn cut(n_cuts: usize, honest: bool) -> Vec<Result<bool, String>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut recording = record(&mut random);
    let mut outcomes = Vec::with_capacity(n_cuts);
    for n in 0..n_cuts {
        if n % CUTS_PER_RECORDING == CUTS_PER_RECORDING - 1 {
            recording = record(&mut random);
        }
        let is_first = |op: &Op| matches!(op, Op::Acknowledged(0));
        let first = recording.ops.iter().position(is_first).unwrap() + 1;
        let rest = (recording.ops.len() - first) as u64;
        let at = first + usize::try_from(random.below(rest + 1)).unwrap();
        let before = &recording.ops[..at];
        let n_acknowledged = before.iter().rev().find_map(|op| match op {
            Op::Acknowledged(n) => Some(*n),
            _ => None,
        });
        let bytes = after_cut(before, &mut random, honest);
        // A lie may well end in a panic of the engine.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            check(&recording, bytes, n_acknowledged.unwrap())
        }));
        let outcome = outcome.unwrap_or_else(|_| Err("the engine panicked".to_owned()));
        outcomes.push(outcome.map_err(|error| format!("cut {n} before op {at}: {error}")));
    }
    outcomes
}

#[test]
fn a_power_cut_leaves_all_that_was_acknowledged_and_nothing_by_halves() {
    let n_cuts = count("FSVC_TEST_POWER_CUTS", 300);
    let outcomes = cut(n_cuts, true);
    let failed: Vec<&String> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let n_under_way = outcomes.iter().filter(|o| **o == Ok(true)).count();
    eprintln!("{n_cuts} power cuts, nothing lost; {n_under_way} left what was under way");
    assert!(n_under_way > 0 && n_under_way < n_cuts);
}

/// The same check finds a disk that does not do what it says.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let outcomes = cut(60, false);
    let n_failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(n_failed > 20, "only {n_failed} of 60 were found out");
}
