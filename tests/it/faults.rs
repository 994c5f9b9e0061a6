//! Faults at every step of a commit: the process dies, or the disk says no.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fsvc::database::Database;
use fsvc::digest::Digest;
use fsvc::fault::POINTS;
use fsvc::index::embedded::EmbeddedIndex;
use fsvc::index::{Index, Indexed, fold};
use fsvc::log::embedded::EmbeddedLog;
use fsvc::log::{Keep, Log, Payload, Sequence};
use fsvc::path::{Prefix, RemotePath};
use fsvc::store::Store;
use fsvc::store::local::LocalStore;

use crate::harness::{Server, Setup, text, with_input};
use crate::journal::page;
use crate::store_faults::Mount;
use crate::store_suite::read_attached;

const OLD: &[u8] = b"the old content";
const NEW: &[u8] = b"something new";
/// Too large for the log: it is attached.
const LARGE: &[u8] = &[7; 100_000];

/// A change, as a user makes it, and what it leaves behind.
struct Change {
    name: &'static str,
    arguments: &'static [&'static str],
    input: &'static [u8],
    /// Every file that the change touches, and every topic with its only message: what it held
    /// before, and what it holds after.
    names: &'static [(&'static str, Held, Held)],
}

type Held = Option<&'static [u8]>;

const CHANGES: [Change; 6] = [
    Change {
        name: "create",
        arguments: &["put", "-", "/new/deep/file"],
        input: NEW,
        names: &[("/new/deep/file", None, Some(NEW))],
    },
    Change {
        name: "replace",
        arguments: &["put", "-", "/old/a"],
        input: NEW,
        names: &[("/old/a", Some(OLD), Some(NEW))],
    },
    Change {
        name: "remove",
        arguments: &["rm", "/old/a"],
        input: NEW,
        names: &[("/old/a", Some(OLD), None)],
    },
    Change {
        name: "move",
        arguments: &["mv", "/old/a", "/else/where/b"],
        input: NEW,
        names: &[
            ("/old/a", Some(OLD), None),
            ("/else/where/b", None, Some(OLD)),
        ],
    },
    Change {
        name: "copy",
        arguments: &["cp", "/old/a", "/copy/b"],
        input: NEW,
        names: &[
            ("/old/a", Some(OLD), Some(OLD)),
            ("/copy/b", None, Some(OLD)),
        ],
    },
    Change {
        name: "publish",
        arguments: &["publish", "reports/large", "-"],
        input: LARGE,
        names: &[("reports/large", None, Some(LARGE))],
    },
];

/// A server that has the old file, started again with a fault at a point.
fn with_fault(point: &str, action: &str) -> Server {
    // A start hits some points itself: it tries out the file system, and repairs the database.
    let hit = match point {
        "store.stage.create" => 2,
        point if point.starts_with("database.sync") => 6,
        _ => 1,
    };
    let mut server = Server::start();
    server.put("/old/a", OLD);
    // A start finishes what the last run may have left, which would meet the fault first.
    server.restart();
    server.restart_with(Some(&format!("{point}={action}@{hit}")));
    server
}

fn found(server: &Server, name: &str) -> Option<Vec<u8>> {
    if !name.starts_with('/') {
        return said(server, name);
    }
    let output = server.run(&["get", name, "-"]);
    match output.status.code() {
        Some(0) => Some(output.stdout),
        Some(3) => None,
        code => panic!("{name}: {code:?} {}", text(&output.stderr)),
    }
}

/// The only message of a topic, fetched.
fn said(server: &Server, topic: &str) -> Option<Vec<u8>> {
    let events = server.ok(&["subscribe", topic, "--since", "0", "--no-follow", "--json"]);
    let mut lines = events.lines();
    let event: serde_json::Value = serde_json::from_str(lines.next()?).unwrap();
    assert_eq!(lines.next(), None, "{topic} has more than one message");
    let sequence = event["sequence"].to_string();
    let fetched = server.run(&["fetch", &sequence, "-"]);
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    Some(fetched.stdout)
}

fn state(server: &Server, change: &Change) -> Vec<Option<Vec<u8>>> {
    change
        .names
        .iter()
        .map(|(name, ..)| found(server, name))
        .collect()
}

#[test]
fn dying_between_any_two_steps_leaves_old_or_new() {
    let mut died = BTreeSet::new();
    // Those of many files at once are tried in `many`.
    let is_of_one = |point: &&&str| !point.starts_with("store.whole.");
    for point in POINTS.iter().filter(is_of_one) {
        for change in &CHANGES {
            let mut server = with_fault(point, "abort");
            let output = with_input(&mut server.client("dev", change.arguments), change.input);
            let acknowledged = output.status.success();
            let what = format!("{} with a death at {point}", change.name);
            if !acknowledged {
                died.insert(*point);
            }
            let took = server.restart();
            assert!(
                took < Duration::from_secs(5),
                "{what}: restart took {took:?}"
            );
            let (before, after): (Vec<_>, Vec<_>) = change
                .names
                .iter()
                .map(|(_, old, new)| (old.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec)))
                .unzip();
            let now = state(&server, change);
            assert!(
                now == after || (!acknowledged && now == before),
                "{what}: {now:?}"
            );
            assert_eq!(server.staged(), Vec::<String>::new(), "{what}");
            server.signal("TERM");
            server.wait(Duration::from_secs(10));
            agree(&server.root(), &what);
        }
    }
    let missed = POINTS.iter().filter(is_of_one);
    let missed: Vec<_> = missed.filter(|p| !died.contains(*p)).collect();
    assert!(missed.is_empty(), "nobody died at {missed:?}");
}

#[test]
fn a_death_in_the_middle_of_recovery_is_recovered_from() {
    for second in [
        "store.publish.rename",
        "store.publish.rename.after",
        "store.sync.fsync",
        "store.sync.fsync.after",
    ] {
        let mut server = with_fault("commit.append.after", "abort");
        assert!(
            !with_input(&mut server.client("dev", &["put", "-", "/old/a"]), NEW)
                .status
                .success()
        );
        server.kill();
        server.restart_dies_of(&format!("{second}=abort"));
        server.restart();
        assert_eq!(server.get("/old/a"), NEW, "{second}");
    }
}

#[test]
fn a_disk_that_says_no_changes_nothing_and_says_so() {
    for (point, error) in [
        ("store.stage.create", "EIO"),
        ("store.stage.write", "EIO"),
        ("store.stage.write", "ENOSPC"),
        ("store.mkdir", "EIO"),
        ("store.mkdir", "ENOSPC"),
        ("commit.append", "EIO"),
    ] {
        let server = with_fault(point, error);
        let output = with_input(&mut server.client("dev", &["put", "-", "/new/file"]), NEW);
        let said = text(&output.stderr);
        let code = if error == "ENOSPC" { 6 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{point}={error}: {said}");
        assert!(
            !said.contains(&server.root().display().to_string()),
            "a path crossed the wire: {said}"
        );
        assert_eq!(found(&server, "/new/file"), None);
        assert_eq!(server.staged(), Vec::<String>::new(), "{point}={error}");
        assert_eq!(server.get("/old/a"), OLD);
        // The next one works: nothing of the fault has stayed.
        server.put("/new/file", NEW);
        assert_eq!(server.get("/new/file"), NEW, "{point}={error}");
    }
}

#[test]
fn after_a_failed_sync_the_store_takes_no_changes_until_a_restart() {
    for point in [
        "store.seal.fsync",
        "store.sync.fsync",
        "store.publish.rename",
    ] {
        let mut server = with_fault(point, "EIO");
        let output = with_input(&mut server.client("dev", &["put", "-", "/old/a"]), NEW);
        assert!(!output.status.success(), "{point}");
        let refused = with_input(&mut server.client("dev", &["put", "-", "/other"]), NEW);
        assert_eq!(
            refused.status.code(),
            Some(6),
            "{point}: {}",
            text(&refused.stderr)
        );
        assert!(
            text(&refused.stderr).contains("takes no changes"),
            "{}",
            text(&refused.stderr)
        );
        server.fails(6, &["rm", "/old/a"]);
        assert!(found(&server, "/old/a").is_some(), "{point}: reads go on");
        assert!(
            server.log().contains("takes no changes"),
            "{}",
            server.log()
        );
        server.restart();
        assert!([OLD, NEW].contains(&server.get("/old/a").as_slice()));
        server.put("/other", NEW);
        server.signal("TERM");
        server.wait(Duration::from_secs(10));
        agree(&server.root(), point);
    }
}

#[test]
fn a_full_disk_refuses_and_recovers_without_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let Some(_mount) = Mount::tmpfs(&root, "24m") else {
        eprintln!("no file system can be mounted here; the fault points cover the refusals");
        return;
    };
    let arguments = ["--reserve", "1MiB"].map(str::to_owned).to_vec();
    let server = Server::start_with(Setup {
        arguments,
        root: Some(root.clone()),
        ..Setup::default()
    });
    server.put("/kept", OLD);
    let filler = root.join("filler");
    std::fs::write(&filler, vec![0; 12 << 20]).unwrap();
    let large = vec![1; 14 << 20];
    for remote in ["-", "file"] {
        std::fs::write(server.directory.path().join("file"), &large).unwrap();
        let output = with_input(
            &mut server.client("dev", &["put", remote, "/large"]),
            &large,
        );
        assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains("no space is left"),
            "{}",
            text(&output.stderr)
        );
        assert_eq!(server.staged(), Vec::<String>::new());
    }
    assert_eq!(server.get("/kept"), OLD);
    std::fs::remove_file(&filler).unwrap();
    server.put("/large", &large);
    assert_eq!(server.get("/large"), large);
}

/// Opens a stopped server's root and holds log, index and tree against each other, and what is
/// attached against the messages.
pub fn agree(root: &Path, what: &str) {
    let store = LocalStore::open(root, 0).unwrap();
    let database = Arc::new(Database::open(&root.join(".fsvc/log.redb")).unwrap());
    let index = Arc::new(EmbeddedIndex::open(Arc::clone(&database), Keep::everything()).unwrap());
    let log = EmbeddedLog::open(database, Arc::clone(&index)).unwrap();
    let records = log.read(Sequence(1), page(usize::MAX)).unwrap();
    let mut folded: BTreeMap<RemotePath, Indexed> = BTreeMap::new();
    let mut owned = BTreeSet::new();
    for (number, record) in records.iter().enumerate() {
        assert_eq!(
            record.sequence.0,
            number as u64 + 1,
            "{what}: a gap in the log"
        );
        fold::apply(record, &mut folded).unwrap();
        let payload = record.matter.message().map(|message| &message.payload);
        if let Some(Payload::Attached(attached)) = payload {
            let content = read_attached(&store, attached.content).unwrap();
            assert_eq!(Digest::of(&content), attached.digest, "{what}");
            owned.insert(attached.content.to_string());
        }
    }
    let names = std::fs::read_dir(root.join(".fsvc/attached")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), owned, "{what}: attached");
    let indexed = index.range(&Prefix::root(), None, usize::MAX).unwrap();
    assert_eq!(
        indexed,
        folded.into_iter().collect::<Vec<_>>(),
        "{what}: the index is not the fold of the log"
    );
    for (path, indexed) in indexed {
        let stamp = store
            .stat(&path)
            .unwrap_or_else(|error| panic!("{what}: {path}: {error}"));
        assert_eq!(stamp, indexed.entry.stamp, "{what}: {path}");
        let content = std::fs::read(root.join(path.relative())).unwrap();
        assert_eq!(
            Some(Digest::of(&content)),
            indexed.entry.digest,
            "{what}: {path}"
        );
    }
}
