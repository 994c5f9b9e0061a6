//! Disks that are full, that fail, and files that another program spoiled.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fsvc::database::{Database, DatabaseError};
use fsvc::escape::Escaped;
use fsvc::index::Index;
use fsvc::log::{Draft, Keep, Log, LogError, Sequence};
use redb::StorageBackend;

use crate::full_disk::Tmpfs;
use crate::journal::{draft, open_at, open_on, page, path, put};

const SOUND: u8 = 0;
const FULL: u8 = 1;
const NO_GROWTH: u8 = 2;
const NO_SYNC: u8 = 3;
const LATE: u8 = 4;

/// A disk in memory that outlives the engine, and fails when it is told to.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    fault: Arc<AtomicU8>,
    n_syncs: Arc<AtomicU64>,
    /// Writes that still succeed on a full disk.
    n_writes_left: Arc<AtomicU64>,
}

impl Disk {
    fn turn(&self, fault: u8) {
        self.fault.store(fault, Ordering::SeqCst);
    }

    fn is(&self, fault: u8) -> bool {
        self.fault.load(Ordering::SeqCst) == fault
    }

    fn takes_a_write(&self) -> bool {
        let left = &self.n_writes_left;
        let one_less = |n: u64| n.checked_sub(1);
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    }

    fn database(&self) -> Result<Database, DatabaseError> {
        let disk = self.clone();
        let open = move |_| Ok(Box::new(disk.clone()) as Box<dyn StorageBackend>);
        Database::with_backend(Escaped::new("test"), Box::new(open))
    }
}

impl StorageBackend for Disk {
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
        if self.is(NO_GROWTH) {
            return Err(ErrorKind::StorageFull.into());
        }
        let len = usize::try_from(len).unwrap();
        self.bytes.lock().unwrap().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.n_syncs.fetch_add(1, Ordering::SeqCst);
        if self.is(NO_SYNC) {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // What the file has already, such as its header, stays writable on a full disk.
        if self.is(FULL) && offset > 0 && !self.takes_a_write() {
            return Err(ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        if self.is(LATE) && !self.takes_a_write() {
            // Once, so that what follows can look at what is there.
            self.turn(SOUND);
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn one(n: usize) -> Draft {
    draft(vec![put(&format!("/d{}/f{n}", n % 7))], vec![])
}

fn append(log: &dyn Log, n: usize) -> Result<(), LogError> {
    let results = log.append(&[one(n)], Sequence(0))?;
    results[0].as_ref().unwrap();
    Ok(())
}

#[test]
fn a_batch_is_one_sync() {
    let disk = Disk::default();
    let (log, _) = open_on(Arc::new(disk.database().unwrap()));
    append(&log, 0).unwrap();
    let before = disk.n_syncs.load(Ordering::SeqCst);
    let batch: Vec<Draft> = (1..9).map(one).collect();
    log.append(&batch, Sequence(0)).unwrap();
    assert_eq!(disk.n_syncs.load(Ordering::SeqCst) - before, 1);
    log.append(&[], Sequence(0)).unwrap();
    assert_eq!(disk.n_syncs.load(Ordering::SeqCst) - before, 1);
}

#[test]
fn a_full_disk_refuses_and_recovers_wherever_it_strikes() {
    for n_writes_left in 0..12 {
        let disk = Disk::default();
        let (log, index) = open_on(Arc::new(disk.database().unwrap()));
        (0..20).for_each(|n| append(&log, n).unwrap());
        disk.n_writes_left.store(n_writes_left, Ordering::SeqCst);
        disk.turn(FULL);
        let mut n_accepted = 20;
        // An append takes at least one of the writes that are left.
        let refused = (0..=n_writes_left).find_map(|_| {
            let result = append(&log, n_accepted);
            n_accepted += usize::from(result.is_ok());
            result.err()
        });
        let error = refused.expect("a full disk refuses");
        assert!(matches!(error, LogError::OutOfSpace(_)), "{error:?}");
        let head = Sequence(n_accepted as u64);
        assert_eq!(log.head().unwrap(), head, "reads go on");
        let refused = path(&format!("/d{}/f{n_accepted}", n_accepted % 7));
        assert_eq!(index.lookup(&refused).unwrap(), None);
        disk.turn(SOUND);
        append(&log, n_accepted).unwrap();
        assert_eq!(log.head().unwrap(), head.next());
    }
}

#[test]
fn a_commit_that_failed_late_is_in_the_log_or_refused_never_both() {
    let mut n_landed = 0;
    for n_writes_left in 0..12 {
        let disk = Disk::default();
        let (log, _) = open_on(Arc::new(disk.database().unwrap()));
        append(&log, 0).unwrap();
        disk.n_writes_left.store(n_writes_left, Ordering::SeqCst);
        disk.turn(LATE);
        let is_in = append(&log, 1).is_ok();
        let was_struck = disk.is(SOUND);
        n_landed += usize::from(is_in && was_struck);
        disk.turn(SOUND);
        assert_eq!(log.head().unwrap(), Sequence(1 + u64::from(is_in)));
        append(&log, 2).unwrap();
    }
    assert!(n_landed > 0);
}

#[test]
fn a_disk_that_cannot_grow_refuses_and_recovers() {
    let disk = Disk::default();
    let (log, _) = open_on(Arc::new(disk.database().unwrap()));
    disk.turn(NO_GROWTH);
    let batch: Vec<Draft> = (0..50_000).map(one).collect();
    let error = log.append(&batch, Sequence(0)).unwrap_err();
    assert!(matches!(error, LogError::OutOfSpace(_)), "{error:?}");
    assert_eq!(log.head().unwrap(), Sequence(0));
    disk.turn(SOUND);
    append(&log, 0).unwrap();
    assert_eq!(log.head().unwrap(), Sequence(1));
}

#[test]
fn a_failed_sync_is_final_for_changes() {
    let disk = Disk::default();
    let (log, index) = open_on(Arc::new(disk.database().unwrap()));
    append(&log, 0).unwrap();
    disk.turn(NO_SYNC);
    assert!(matches!(append(&log, 1), Err(LogError::Unknown(_))));
    disk.turn(SOUND);
    let error = append(&log, 2).unwrap_err();
    let LogError::ReadOnly(cause) = error else {
        panic!("{error:?}")
    };
    assert!(cause.to_string().contains("sync failed"), "{cause}");
    assert!(cause.to_string().contains("on fire"), "{cause}");
    assert!(index.lookup(&path("/d0/f0")).unwrap().is_some());
}

#[test]
fn a_full_file_system_refuses_and_recovers() {
    let Some(tmpfs) = Tmpfs::mount("4m") else {
        eprintln!("not permitted to mount a tmpfs: only the disk in memory was tested");
        return;
    };
    let (log, _) = open_at(&tmpfs.path().join("log.redb"));
    append(&log, 0).unwrap();
    let ballast = tmpfs.path().join("ballast");
    for round in 0..3 {
        tmpfs.fill("ballast");
        let head = log.head().unwrap();
        let batch: Vec<Draft> = (0..5_000).map(one).collect();
        let error = log.append(&batch, Sequence(0)).unwrap_err();
        assert!(matches!(error, LogError::OutOfSpace(_)), "{error:?}");
        assert_eq!(log.head().unwrap(), head, "round {round}");
        std::fs::remove_file(&ballast).unwrap();
        append(&log, round).unwrap();
        assert_eq!(log.head().unwrap(), head.next());
    }
}

fn a_log_of(n_records: usize) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    let (log, index) = open_at(&file);
    (0..n_records).for_each(|n| append(&log, n).unwrap());
    drop((log, index));
    std::fs::read(&file).unwrap()
}

/// Opens a spoiled file as a server would, and reads all of it.
fn read_all(bytes: &[u8]) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    std::fs::write(&file, bytes).unwrap();
    let database = Database::open(&file).map_err(|error| chain(&error))?;
    let database = Arc::new(database);
    let index = fsvc::index::embedded::EmbeddedIndex::open(database.clone(), Keep::everything());
    let index = Arc::new(index.map_err(|error| chain(&error))?);
    let log = fsvc::log::embedded::EmbeddedLog::open(database, index);
    let log = log.map_err(|error| chain(&error))?;
    let records = log.read(Sequence(1), page(usize::MAX));
    records.map(|all| all.len()).map_err(|error| chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

#[track_caller]
fn is_refused(bytes: &[u8], why: &str) {
    let error = read_all(bytes).unwrap_err();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
}

#[test]
fn spoiled_files_are_refused_in_clear_text() {
    let whole = a_log_of(50);
    assert_eq!(read_all(&whole), Ok(50));
    is_refused(b"", "the file is empty");
    is_refused(b"hello", "damaged");
    is_refused(&[0; 8192], "damaged");
    is_refused(&[0xff; 16384], "damaged");
    is_refused(&whole[..whole.len() / 2], "damaged");
    is_refused(&whole[..100], "damaged");
    let mut torn = whole;
    torn[8192..].fill(0);
    is_refused(&torn, "damaged");
}

#[test]
fn flipped_bytes_never_end_the_process() {
    let whole = a_log_of(50);
    let n_flips = std::env::var("FSVC_TEST_FLIPS").map_or(60, |n| n.parse().unwrap());
    for n in 0..n_flips {
        // A step without a common factor visits header, trees and free pages alike.
        let at = if n < 40 {
            n * 8
        } else {
            n * 104_729 % whole.len()
        };
        let mut spoiled = whole.clone();
        spoiled[at] ^= 0x55;
        match read_all(&spoiled) {
            Ok(n_records) => assert_eq!(n_records, 50, "at {at}"),
            Err(error) => assert!(!error.is_empty(), "at {at}"),
        }
    }
}

#[test]
fn a_crash_while_the_log_was_made_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    std::fs::write(file.with_extension("unfinished"), b"half").unwrap();
    let (log, _) = open_at(&file);
    append(&log, 0).unwrap();
}

#[test]
fn a_log_written_by_another_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    let marks: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("log-marks");
    let engine = redb::Database::create(&file).unwrap();
    let transaction = engine.begin_write().unwrap();
    transaction
        .open_table(marks)
        .unwrap()
        .insert("format", 99)
        .unwrap();
    transaction.commit().unwrap();
    drop(engine);
    is_refused(&std::fs::read(&file).unwrap(), "format 99");
}
