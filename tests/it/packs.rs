//! Small files of many are acknowledged before the tree has them for good: none of them is lost, whatever
//! a power cut leaves of them there.
//!
//! A server that is about to settle dies, by a fault. Then the test does to the tree what a power cut may
//! do to files that nobody synced, and starts the server again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use fsvc::client::{Client, ManyPut};
use fsvc::fault::PACK_POINTS;
use fsvc::protocol::{Conditions, ErrorCode};
use fsvc::store::local::LocalStore;
use fsvc::store::{Published, Store};
use rustix::fs::{FsWord, statfs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::crash::{Random, client, count};
use crate::faults::agree;
use crate::harness::{Server, Setup, everything};
use crate::messages::runtime;
use crate::store_suite::{path, place, put, read};

/// The server is about to make the whole tree durable.
const DIES_UNSETTLED: &str = "store.whole.syncfs=abort@1";
/// More than the time after which a server settles by itself.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Whether small contents go into packs on this file system: in memory they do not.
pub fn is_packing(root: &Path) -> bool {
    const TMPFS_MAGIC: FsWord = 0x0102_1994;
    let is_packing = statfs(root).unwrap().f_type != TMPFS_MAGIC;
    if !is_packing {
        eprintln!("there are no packs on a file system in memory: this shows nothing here");
    }
    is_packing
}

fn with_fault(fault: &str) -> Server {
    Server::start_with(Setup {
        policy: Some(everything()),
        fault: Some(fault.to_owned()),
        ..Setup::default()
    })
}

fn many(files: &[(String, Vec<u8>)]) -> Vec<ManyPut> {
    let put = |(name, content): &(String, Vec<u8>)| ManyPut {
        path: path(name),
        content: content.clone(),
        conditions: Conditions::default(),
        attributes: None,
    };
    files.iter().map(put).collect()
}

#[track_caller]
fn put_many(server: &Server, files: &[(String, Vec<u8>)]) {
    let answers = runtime().block_on(client(server).put_many(many(files), None));
    assert!(answers.unwrap().iter().all(Result::is_ok));
}

fn numbered(n: u8, generation: u8) -> (String, Vec<u8>) {
    (
        format!("/d{}/{n}", n % 4),
        vec![generation; usize::from(n) * 100 + 1],
    )
}

fn place_of(server: &Server, name: &str) -> PathBuf {
    server.root().join(path(name).relative())
}

fn packs(server: &Server) -> usize {
    std::fs::read_dir(server.root().join(".fsvc/packs"))
        .unwrap()
        .count()
}

/// Makes a file what it was or never was, with a time of its own.
fn write_at(file: &Path, content: &[u8], modified: SystemTime) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(file);
    std::fs::write(file, content).unwrap();
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(modified).unwrap();
}

/// What a power cut may leave of a file that was never synced.
fn lose(file: &Path, how: u64, older: Option<&[u8]>) {
    let meta = std::fs::metadata(file).unwrap();
    let (size, modified) = (meta.len(), meta.modified().unwrap());
    let before = modified - Duration::from_secs(1);
    match (how % 4, older) {
        (0, _) => std::fs::remove_file(file).unwrap(),
        // All that makes it look right is there, and its bytes are not.
        (1, _) => write_at(file, &vec![0; usize::try_from(size).unwrap()], modified),
        (2, Some(older)) => write_at(file, older, before),
        (2, None) => write_at(file, &[], before),
        _ => write_at(file, &vec![0; usize::try_from(size / 2).unwrap()], modified),
    }
}

#[track_caller]
fn check(server: &Server, name: &str, content: &[u8]) {
    assert_eq!(server.get(name), content, "{name}");
    assert_eq!(
        std::fs::read(place_of(server, name)).unwrap(),
        content,
        "{name}"
    );
    let said: serde_json::Value =
        serde_json::from_str(&server.ok(&["stat", name, "--json"])).unwrap();
    assert!(said["version"].is_u64(), "{name} lost its version: {said}");
}

#[test]
fn what_a_power_cut_takes_out_of_the_tree_comes_back() {
    let mut server = with_fault("store.pack.create=EIO@1000");
    if !is_packing(&server.root()) {
        return;
    }
    // Half of them are there already.
    put_many(
        &server,
        &(0..20).map(|n| numbered(n, 1)).collect::<Vec<_>>(),
    );
    server.signal("TERM");
    server.wait(SETTLE_LIMIT);
    assert_eq!(packs(&server), 0, "a server that is told to end settles");
    server.restart_with(Some(DIES_UNSETTLED));
    put_many(
        &server,
        &(0..40).map(|n| numbered(n, 2)).collect::<Vec<_>>(),
    );
    server.wait(SETTLE_LIMIT);
    for n in 0..40u8 {
        let older = (n < 20).then(|| numbered(n, 1).1);
        lose(
            &place_of(&server, &numbered(n, 2).0),
            u64::from(n / 2),
            older.as_deref(),
        );
    }
    std::fs::remove_dir_all(server.root().join("d3")).unwrap();
    server.restart();
    for n in 0..40 {
        let (name, content) = numbered(n, 2);
        check(&server, &name, &content);
    }
    assert_eq!(server.staged(), Vec::<String>::new());
    assert_eq!(packs(&server), 0);
    server.signal("TERM");
    server.wait(SETTLE_LIMIT);
    agree(&server.root(), "after a power cut");
}

#[test]
fn what_came_later_is_not_taken_back() {
    let mut server = with_fault(DIES_UNSETTLED);
    if !is_packing(&server.root()) {
        return;
    }
    let names = [
        "/again",
        "/alone",
        "/theirs",
        "/theirs-old",
        "/taken-away",
        "/found",
    ];
    let files = names.map(|name| (name.to_owned(), b"first".to_vec()));
    put_many(&server, &files);
    let now = SystemTime::now();
    write_at(&place_of(&server, "/found"), b"noticed", now);
    let said = server.ok(&["reconcile", "/", "--json"]);
    assert!(said.contains("\"n_found\":1"), "{said}");
    put_many(&server, &[("/again".to_owned(), b"second".to_vec())]);
    server.put("/alone", b"put by itself");
    write_at(&place_of(&server, "/theirs"), b"another program's", now);
    let long_ago = now - Duration::from_secs(3600);
    write_at(
        &place_of(&server, "/theirs-old"),
        b"cannot be told from ours",
        long_ago,
    );
    std::fs::remove_file(place_of(&server, "/taken-away")).unwrap();
    server.wait(SETTLE_LIMIT);
    server.restart();
    for (name, content) in [
        ("/again", "second"),
        ("/alone", "put by itself"),
        ("/theirs", "another program's"),
        ("/theirs-old", "first"),
        ("/taken-away", "first"),
        ("/found", "noticed"),
    ] {
        assert_eq!(server.get(name), content.as_bytes(), "{name}");
    }
}

#[test]
fn a_name_that_is_taken_meanwhile_keeps_no_server_from_its_start() {
    let mut server = with_fault(DIES_UNSETTLED);
    if !is_packing(&server.root()) {
        return;
    }
    let files = ["/dir/below", "/file", "/linked/x", "/link", "/other"];
    let files = files.map(|name| (name.to_owned(), b"ours".to_vec()));
    put_many(&server, &files);
    server.wait(SETTLE_LIMIT);
    let root = server.root();
    std::fs::remove_dir_all(root.join("dir")).unwrap();
    std::fs::write(root.join("dir"), "a file where a directory was").unwrap();
    std::fs::remove_file(root.join("file")).unwrap();
    std::fs::create_dir_all(root.join("file/with")).unwrap();
    std::fs::write(root.join("file/with/content"), "").unwrap();
    std::fs::remove_dir_all(root.join("linked")).unwrap();
    std::os::unix::fs::symlink("/", root.join("linked")).unwrap();
    std::fs::remove_file(root.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", root.join("link")).unwrap();
    std::fs::remove_file(root.join("other")).unwrap();
    server.restart();
    check(&server, "/other", b"ours");
    assert_eq!(
        std::fs::read(root.join("dir")).unwrap(),
        b"a file where a directory was"
    );
    assert!(root.join("file/with/content").is_file());
    assert!(root.join("link").is_symlink());
    assert_eq!(
        server.log().matches("has taken the name").count(),
        4,
        "{}",
        server.log()
    );
    server.put("/more", b"and goes on");
}

#[test]
fn what_was_replaced_does_not_come_back() {
    for by_another_program in [false, true] {
        let mut server = with_fault(DIES_UNSETTLED);
        if !is_packing(&server.root()) {
            return;
        }
        put_many(&server, &[("/a".to_owned(), b"first".to_vec())]);
        if by_another_program {
            write_at(&place_of(&server, "/a"), b"theirs", SystemTime::now());
            let said = server.ok(&["reconcile", "/", "--json"]);
            assert!(said.contains("\"n_found\":1"), "{said}");
        } else {
            server.put("/a", b"second");
        }
        std::fs::remove_file(place_of(&server, "/a")).unwrap();
        server.wait(SETTLE_LIMIT);
        server.restart();
        let there = std::fs::read(place_of(&server, "/a")).ok();
        assert_eq!(there, None, "a version that was replaced is back");
    }
}

#[test]
fn a_request_that_took_longer_than_another_wins_and_says_so_again() {
    let mut server = with_fault("commit.append.after=abort@2");
    server.put("/a", b"first");
    let file = File::options()
        .write(true)
        .open(place_of(&server, "/a"))
        .unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600))
        .unwrap();
    let put = |server: &Server| {
        let files = many(&[("/a".to_owned(), b"second".to_vec())]);
        let id = Some("again".parse().unwrap());
        runtime().block_on(client(server).put_many(files, id))
    };
    put(&server).unwrap_err();
    server.wait(SETTLE_LIMIT);
    server.restart();
    check(&server, "/a", b"second");
    assert_eq!(put(&server).unwrap(), [Ok(2)]);
    check(&server, "/a", b"second");
}

#[test]
fn what_another_program_took_away_is_gone_before_a_record_says_so() {
    let mut server = with_fault(DIES_UNSETTLED);
    server.put("/d/x", b"old");
    std::fs::remove_dir_all(server.root().join("d")).unwrap();
    assert!(!server.run(&["reconcile", "/"]).status.success());
    server.wait(SETTLE_LIMIT);
    server.restart();
    let said = server.ok(&["reconcile", "/", "--json"]);
    assert!(said.contains("\"n_gone\":1"), "{said}");
}

#[test]
fn one_slow_request_does_not_set_space_aside_for_ever() {
    let scratch = tempfile::tempdir().unwrap();
    if !is_packing(scratch.path()) {
        return;
    }
    let store = LocalStore::open(scratch.path(), 0).unwrap();
    let mut held = Vec::new();
    // A file of one byte, then nothing until the store settles; and again.
    for _ in 0..100 {
        let mut upload = store.begin_many(1).unwrap();
        upload.write(b"x").unwrap();
        held.push(upload.finish().unwrap());
        store.settle().unwrap();
        store.end_settling(store.begin_settling()).unwrap();
    }
    let packs = std::fs::read_dir(scratch.path().join(".fsvc/packs")).unwrap();
    let packs: Vec<u64> = packs
        .map(|pack| pack.unwrap().metadata().unwrap().blocks())
        .collect();
    assert!(packs.len() <= 32, "{} packs", packs.len());
    assert!(packs.iter().sum::<u64>() * 512 <= 1 << 20, "{packs:?}");
    let sealed = store.seal_all(&held).unwrap();
    assert_eq!(sealed.len(), 100);
    for one in held {
        store.discard(one.content);
    }
    store.end_settling(store.begin_settling()).unwrap();
    assert_eq!(store.unsettled(), 0);
}

#[test]
fn nothing_moves_before_it_is_settled() {
    for (fault, is_moved) in [
        (DIES_UNSETTLED, false),
        ("store.whole.syncfs.after=abort@1", false),
        ("commit.append.after=abort@2", true),
        ("store.publish.rename.after=abort@1", true),
    ] {
        let mut server = with_fault(fault);
        if !is_packing(&server.root()) {
            return;
        }
        put_many(&server, &[numbered(1, 7), numbered(2, 7)]);
        let (name, content) = numbered(1, 7);
        let moved = server.run(&["mv", &name, "/moved"]);
        assert!(!moved.status.success(), "{fault}");
        server.wait(SETTLE_LIMIT);
        server.restart();
        let (there, gone) = if is_moved {
            ("/moved", &*name)
        } else {
            (&*name, "/moved")
        };
        check(&server, there, &content);
        server.fails(3, &["stat", gone]);
        let left = std::fs::read(place_of(&server, gone));
        assert!(left.is_err(), "{fault}: {gone} is still there");
        check(&server, &numbered(2, 7).0, &numbered(2, 7).1);
    }
}

#[test]
fn a_name_that_is_given_again_after_a_move_is_the_new_one() {
    let mut server = with_fault("store.whole.syncfs=abort@2");
    if !is_packing(&server.root()) {
        return;
    }
    put_many(&server, &[numbered(1, 1), numbered(2, 1)]);
    let (first, second) = (numbered(1, 1), numbered(2, 1));
    // The first sync.
    server.ok(&["mv", &first.0, "/moved"]);
    server.ok(&["rm", &second.0]);
    put_many(&server, &[(first.0.clone(), b"new".to_vec())]);
    // The second.
    server.wait(SETTLE_LIMIT);
    std::fs::remove_file(place_of(&server, &first.0)).unwrap();
    server.restart();
    check(&server, "/moved", &first.1);
    check(&server, &first.0, b"new");
    server.fails(3, &["stat", &second.0]);
}

#[test]
fn it_is_settled_soon_and_at_the_end() {
    let mut server = with_fault("store.pack.remove=EIO@1000");
    if !is_packing(&server.root()) {
        return;
    }
    put_many(
        &server,
        &(0..30).map(|n| numbered(n, 3)).collect::<Vec<_>>(),
    );
    let until = Instant::now() + SETTLE_LIMIT;
    while packs(&server) > 0 {
        assert!(
            Instant::now() < until,
            "nothing was settled\n{}",
            server.log()
        );
        std::thread::yield_now();
    }
    put_many(
        &server,
        &(0..30).map(|n| numbered(n, 4)).collect::<Vec<_>>(),
    );
    server.signal("TERM");
    server.wait(SETTLE_LIMIT);
    assert_eq!(packs(&server), 0);
    agree(&server.root(), "after the end");
    server.restart();
    assert!(server.log().contains("n_records=0"), "{}", server.log());
    check(&server, &numbered(7, 4).0, &numbered(7, 4).1);
}

#[test]
fn dying_while_it_settles_loses_nothing() {
    for fault in [
        "store.whole.syncfs.after=abort@1",
        "store.pack.remove=abort@1",
    ] {
        let mut server = with_fault(fault);
        if !is_packing(&server.root()) {
            return;
        }
        put_many(
            &server,
            &(0..30).map(|n| numbered(n, 5)).collect::<Vec<_>>(),
        );
        server.wait(SETTLE_LIMIT);
        assert!(packs(&server) > 0, "{fault}");
        server.restart();
        assert_eq!(packs(&server), 0, "{fault}");
        for n in 0..30 {
            check(&server, &numbered(n, 5).0, &numbered(n, 5).1);
        }
    }
}

#[test]
fn dying_while_it_brings_back_loses_nothing() {
    for fault in [
        "store.stage.write.after=abort@3",
        "store.publish.rename=abort@3",
        "store.publish.rename.after=abort@3",
        "store.whole.syncfs=abort@1",
        "store.pack.remove=abort@1",
    ] {
        let mut server = with_fault("commit.append.after=abort@1");
        if !is_packing(&server.root()) {
            return;
        }
        let files: Vec<_> = (0..30).map(|n| numbered(n, 6)).collect();
        let lost = runtime().block_on(client(&server).put_many(many(&files), None));
        lost.unwrap_err();
        server.wait(SETTLE_LIMIT);
        server.restart_dies_of(fault);
        server.restart();
        for (name, content) in &files {
            check(&server, name, content);
        }
        assert_eq!(server.staged(), Vec::<String>::new(), "{fault}");
    }
}

#[test]
fn what_replaces_something_newer_is_not_taken_for_older() {
    for fault in [
        "commit.append.after=abort@1",
        "store.publish.rename.after=abort@1",
        DIES_UNSETTLED,
    ] {
        let mut server = with_fault(fault);
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        write_at(
            &place_of(&server, "/ahead"),
            b"of another program's clock",
            ahead,
        );
        let files = [("/ahead", "ours"), ("/other", "too")];
        let files = files.map(|(name, content)| (name.to_owned(), content.into()));
        let done = runtime().block_on(client(&server).put_many(many(&files), None));
        assert_eq!(done.is_ok(), fault == DIES_UNSETTLED, "{fault}");
        if is_packing(&server.root()) {
            server.wait(SETTLE_LIMIT);
        }
        server.restart();
        for (name, content) in &files {
            check(&server, name, content);
        }
        assert_eq!(server.staged(), Vec::<String>::new(), "{fault}");
    }
}

#[test]
fn a_full_disk_refuses_what_it_cannot_take_and_no_more() {
    for (fault, n_refused) in [
        ("store.pack.write=ENOSPC@3", 1),
        ("store.pack.create=ENOSPC@1", 1),
        ("store.pack.flush=ENOSPC@1", 5),
    ] {
        let server = with_fault(fault);
        if !is_packing(&server.root()) {
            return;
        }
        let files: Vec<_> = (0..5).map(|n| numbered(n, 8)).collect();
        let put = || runtime().block_on(client(&server).put_many(many(&files), None));
        match put() {
            Ok(answers) => {
                let refused: Vec<_> = answers
                    .iter()
                    .filter_map(|one| one.as_ref().err())
                    .collect();
                assert_eq!(refused.len(), n_refused, "{fault}");
                assert!(
                    refused.iter().all(|one| one.code == ErrorCode::Unavailable),
                    "{refused:?}"
                );
            }
            Err(error) => {
                assert_eq!(
                    (error.code(), n_refused),
                    (Some(ErrorCode::Unavailable), 5),
                    "{fault}"
                );
            }
        }
        assert_eq!(server.staged(), Vec::<String>::new());
        assert!(put().unwrap().iter().all(Result::is_ok), "{fault}");
        for (name, content) in &files {
            check(&server, name, content);
        }
    }
}

/// Shells and services start a process with few descriptors, and let it take more.
#[test]
fn a_server_takes_the_descriptors_that_it_may_have() {
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(256),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let server = Server::start();
    setrlimit(Resource::Nofile, before).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_ne!(words[3], "256");
    assert_eq!(words[3], words[4]);
}

/// Each point is met somewhere: in `many`, or here.
#[test]
fn every_point_of_a_pack_is_tried() {
    let source = ["many.rs", "packs.rs"]
        .map(|name| std::fs::read_to_string(Path::new("tests/it").join(name)).unwrap());
    for point in PACK_POINTS {
        let plan = format!("\"{point}=abort@");
        assert!(
            source.iter().any(|text| text.contains(&plan)),
            "nobody dies at {point}"
        );
    }
}

#[test]
fn a_small_content_replaces_only_what_is_older() {
    let scratch = tempfile::tempdir().unwrap();
    if !is_packing(scratch.path()) {
        return;
    }
    let store = LocalStore::open(scratch.path(), 0).unwrap();
    let sealed = |content: &[u8]| {
        let mut upload = store.begin_many(content.len() as u64).unwrap();
        upload.write(content).unwrap();
        let unsealed = upload.finish().unwrap();
        store.seal_all(&[unsealed]).unwrap()[0]
    };
    let (early, late) = (sealed(b"early"), sealed(b"late"));
    let publish = |sealed, name| {
        let checked = store.prepare_all(&[(&path(name), Some(sealed))]);
        for one in checked {
            one.unwrap();
        }
        store.publish(&place(sealed, name)).unwrap()
    };
    assert_eq!(publish(late, "/a"), Published::Unsettled);
    // What the next start could not tell from what came after it is a staged file like any other.
    assert_eq!(publish(early, "/a"), Published::Done);
    assert_eq!(read(&store, "/a").unwrap(), b"early");
    put(&store, "/b", b"there");
    assert_eq!(publish(sealed(b"newer"), "/b"), Published::Unsettled);
    assert_eq!(read(&store, "/b").unwrap(), b"newer");
    let unused = sealed(b"not wanted");
    store.discard(unused.content);
    assert_eq!(
        store.publish(&place(unused, "/c")).unwrap(),
        Published::Missing
    );
    store.settle().unwrap();
    let settling = store.begin_settling();
    store.end_settling(settling).unwrap();
    assert_eq!(store.unsettled(), 0);
    drop(store);
    let store = LocalStore::open(scratch.path(), 0).unwrap();
    assert_eq!(read(&store, "/a").unwrap(), b"early");
    assert_eq!(read(&store, "/b").unwrap(), b"newer");
}

/// What one name held, from the last settled state on, and whether its last content is in the tree alone.
#[derive(Debug, Clone, Default)]
struct Name {
    settled: Option<Vec<u8>>,
    now: Option<Vec<u8>>,
    is_unsettled: bool,
}

/// One writer's random changes, until the server dies of settling or is killed; what it may have lost in
/// the tree is then lost.
#[test]
fn whatever_is_done_before_a_power_cut_is_there_after_it() {
    let n_rounds = count("FSVC_TEST_CUTS", 12);
    let mut server = with_fault(DIES_UNSETTLED);
    if !is_packing(&server.root()) {
        return;
    }
    let mut random = Random(0x5851_f42d_4c95_7f2d);
    let mut names: BTreeMap<String, Name> = BTreeMap::new();
    let (mut n_lost, mut n_done) = (0, 0);
    for round in 0..n_rounds {
        let client = client(&server);
        let mut open: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..=random.below(10) {
            open = step(&client, &mut names, &mut random);
            if !open.is_empty() {
                break;
            }
            n_done += 1;
        }
        server.kill();
        for (name, state) in names.iter().filter(|(name, _)| !open.contains_key(*name)) {
            if state.is_unsettled && random.below(3) > 0 {
                let how = random.next() >> 8;
                lose(&place_of(&server, name), how, state.settled.as_deref());
                n_lost += 1;
            }
        }
        server.restart();
        for (name, state) in &mut names {
            let there = std::fs::read(place_of(&server, name)).ok();
            let other = open.get(name);
            let is_right = there == state.now || other == Some(&there);
            assert!(is_right, "round {round}: {name} is not what it was");
            if there.is_some() {
                check(&server, name, there.as_deref().unwrap());
            } else {
                server.fails(3, &["stat", name]);
            }
            *state = Name {
                settled: there.clone(),
                now: there,
                is_unsettled: false,
            };
        }
        assert_eq!(server.staged(), Vec::<String>::new());
        server.restart_with(Some(DIES_UNSETTLED));
    }
    eprintln!("{n_rounds} rounds, {n_done} changes, {n_lost} files lost and found");
}

/// One change; what each name of it would hold, if the server died of it.
fn step(
    client: &Client,
    names: &mut BTreeMap<String, Name>,
    random: &mut Random,
) -> BTreeMap<String, Option<Vec<u8>>> {
    let name = |random: &mut Random| format!("/e{}/{}", random.below(3), random.below(4));
    let content = |random: &mut Random| {
        let sizes = [0, 1, 4000, 4096, 65_536, 70_000];
        let size = sizes[usize::try_from(random.below(6)).unwrap()];
        let byte = u8::try_from(random.below(255)).unwrap() + 1;
        vec![byte; size]
    };
    let mut after: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let (from, to) = (name(random), name(random));
    let is_there = |name: &String| names.get(name).is_some_and(|state| state.now.is_some());
    let kind = random.below(8);
    let runtime = runtime();
    let is_done = match kind {
        0 if is_there(&from) => {
            after.insert(from.clone(), None);
            runtime.block_on(client.remove(&path(&from), None)).is_ok()
        }
        1 if is_there(&from) && from != to => {
            after.insert(to.clone(), names[&from].now.clone());
            after.insert(from.clone(), None);
            let (from, to) = (path(&from), path(&to));
            let moved = client.rename(&from, &to, Conditions::default());
            runtime.block_on(moved).is_ok()
        }
        2 => {
            let content = content(random);
            after.insert(from.clone(), Some(content.clone()));
            let from = path(&from);
            let put = client.put_bytes(&from, content, Conditions::default());
            runtime.block_on(put).is_ok()
        }
        _ => {
            let chosen: BTreeSet<String> = (0..6).map(|_| name(random)).collect();
            after.extend(chosen.into_iter().map(|name| (name, Some(content(random)))));
            let files = after
                .iter()
                .map(|(name, content)| (name.clone(), content.clone().unwrap()));
            let files = many(&files.collect::<Vec<_>>());
            match runtime.block_on(client.put_many(files, None)) {
                Ok(answers) => {
                    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                    true
                }
                Err(_) => false,
            }
        }
    };
    for name in after.keys() {
        names.entry(name.clone()).or_default();
    }
    if !is_done {
        return after;
    }
    for (name, now) in after {
        let state = names.entry(name).or_default();
        let is_small = now
            .as_ref()
            .is_some_and(|content| content.len() <= 64 << 10);
        let is_packed = kind > 2 && is_small;
        if !is_packed {
            state.settled.clone_from(&now);
        }
        state.is_unsettled = is_packed;
        state.now = now;
    }
    BTreeMap::new()
}
