//! Large files of trees: they travel in parts, go on after whatever happened, and leave nothing behind.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cuts::{Random, at, count, leftovers, places, same};
use crate::harness::{Server, everything, text};
use crate::raw::Raw;
use crate::relay::Relay;
use crate::trees::is_there;

const SIZE: usize = 20 << 20;
const NAMES: [&str; 2] = ["a", "d/b"];
/// What a cut or a kill may cost: of each of two files over two connections a part, and what was on its way.
const COST: u64 = 8 << 20;

/// What is left of both files after 26 MiB, at most; and what is beside their bytes.
const REST: u64 = (14 << 20) + COST + 500_000;

/// A server, a relay to it, and a folder with two large files, one of them in a directory.
struct Ground {
    server: Server,
    relay: Relay,
    contents: [Vec<u8>; 2],
}

impl Ground {
    fn new() -> Self {
        let server = Server::with_policy(&everything());
        let relay = Relay::to(&server.address);
        let ground = Self {
            server,
            relay,
            contents: [Random(31).content(SIZE), Random(32).content(SIZE)],
        };
        fs::create_dir_all(ground.local("tree/d")).unwrap();
        ground.write();
        ground
    }

    /// The same, and the server has the tree as `/t`.
    fn sent() -> Self {
        let ground = Self::new();
        ground.server.ok(&["put", "-r", "tree", "/t"]);
        ground
    }

    fn write(&self) {
        for (name, content) in NAMES.iter().zip(&self.contents) {
            fs::write(self.local("tree").join(name), content).unwrap();
        }
    }

    fn local(&self, name: &str) -> PathBuf {
        self.server.directory.path().join(name)
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = at(&self.server, &self.relay.address, arguments);
        command.arg("--quiet").stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).wait_with_output().unwrap()
    }

    /// Runs a command to its good end; how many bytes that took.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> u64 {
        let before = self.relay.n_passed();
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        self.relay.n_passed() - before
    }

    /// Runs a command until so many bytes have passed, and most of them are remembered, and kills it.
    #[track_caller]
    fn kill(&self, n_bytes: u64, arguments: &[&str]) {
        self.relay.hold_after(n_bytes);
        let n_before = self.n_whole();
        let mut child = self.spawn(arguments);
        self.relay.wait_held();
        let n_parts = usize::try_from((n_bytes - COST) >> 20).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        // One of the files may be ready, and is not remembered any more.
        let n_there = || self.n_remembered() + (self.n_whole() - n_before) * (SIZE >> 20);
        while n_there() < n_parts {
            assert!(Instant::now() < until, "{} parts", n_there());
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        self.relay.release();
    }

    /// Starts the server anew in the middle of a command, which comes to its good end; how many bytes
    /// that took from then on.
    #[track_caller]
    fn restart_during(&mut self, arguments: &[&str]) -> u64 {
        self.relay.hold_after(26 << 20);
        let running = self.spawn(arguments);
        self.relay.wait_held();
        let before = self.relay.n_passed();
        self.server.restart();
        self.relay.turn_to(&self.server.address);
        self.relay.release();
        let output = running.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.relay.n_passed() - before
    }

    /// Files that have come where commands send or fetch them to.
    fn n_whole(&self) -> usize {
        let places = [self.local("to"), self.server.root().join("to")];
        let files = places
            .iter()
            .flat_map(|place| NAMES.map(|name| place.join(name)));
        files.filter(|file| is_there(file)).count()
    }

    fn sidecars(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.local("state/fsvc/transfers"));
        let entries = entries.into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Parts that are remembered, of all transfers.
    fn n_remembered(&self) -> usize {
        let texts = self.sidecars().into_iter().map(fs::read_to_string);
        let lines = texts.flatten().map(|text| text.lines().count());
        lines.map(|n| n.saturating_sub(1)).sum()
    }

    /// Both files are at both sides of a transfer as they should be.
    #[track_caller]
    fn is_same(&self, folder: &Path) {
        for (name, content) in NAMES.iter().zip(&self.contents) {
            same(&folder.join(name), content);
        }
    }

    /// The server has no upload, and nothing lies about in this folder or where transfers are remembered.
    #[track_caller]
    fn is_clean(&self, folder: &str) {
        assert_eq!(self.sidecars(), Vec::<PathBuf>::new());
        assert_eq!(self.server.staged(), Vec::<String>::new());
        let mut raw = Raw::connect(&self.server, "dev");
        let uploads = raw.ask(r#"{"id":1,"op":"uploads"}"#);
        assert_eq!(uploads["ok"]["uploads"], json!([]), "{uploads}");
        assert_eq!(self.parts(folder), Vec::<PathBuf>::new());
    }

    /// The files of a folder that are not whole.
    fn parts(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in [self.local(folder), self.local(folder).join("d")] {
            if directory.is_dir() {
                let names = leftovers(&directory).into_iter();
                found.extend(names.map(|name| directory.join(name)));
            }
        }
        found
    }
}

#[test]
fn large_files_of_trees_that_are_cut_anywhere_come_right() {
    let mut ground = Ground::new();
    let mut random = Random(0x7ee5);
    let mut n_cuts = 0;
    for round in 0..count("FSVC_TEST_CUTS", 3) {
        ground.relay.cut_abruptly(round % 2 == 0);
        for content in &mut ground.contents {
            *content = random.content(SIZE);
        }
        ground.write();
        let back = format!("back{}", round % 4);
        let synced = format!("synced{}", round % 4);
        let remote = format!("/t{}", round % 4);
        let also = format!("fsvc:/s{}", round % 4);
        let commands: [&[&str]; 5] = [
            &["put", "-r", "tree", &remote],
            &["get", "-r", &remote, &back],
            &["sync", "tree", &also, "--delete"],
            &["sync", &also, &synced, "--delete"],
            &["put", "-r", "--atomic", "tree", "/set"],
        ];
        for command in commands {
            // A server that was never reached is not waited for: no cut before the greetings.
            let mut cuts = places(&mut random, SIZE);
            cuts[0] += 40_000;
            ground.relay.cut_after(&cuts);
            let n = ground.run(command);
            let n_cut = (cuts.len() - ground.relay.n_cuts_left()) as u64;
            ground.relay.cut_after(&[]);
            n_cuts += n_cut;
            let most = 2 * SIZE as u64 + 500_000 + n_cut * COST;
            assert!(n < most, "{command:?}: {n} bytes with {n_cut} cuts");
        }
        ground.is_same(&ground.server.root().join(&remote[1..]));
        ground.is_same(&ground.server.root().join(format!("s{}", round % 4)));
        ground.is_same(&ground.server.root().join("set"));
        for folder in [&back, &synced] {
            ground.is_same(&ground.local(folder));
            ground.is_clean(folder);
        }
    }
    assert!(n_cuts > 5, "only {n_cuts} cuts");
}

#[test]
fn a_run_that_was_killed_is_gone_on_with() {
    for (command, is_down) in [
        (&["get", "-r", "/t", "to"][..], true),
        (&["sync", "fsvc:/t", "to"], true),
        (&["put", "-r", "tree", "/to"], false),
        (&["sync", "tree", "fsvc:/to"], false),
        (&["put", "-r", "--atomic", "tree", "/to"], false),
    ] {
        let ground = if is_down {
            Ground::sent()
        } else {
            Ground::new()
        };
        ground.kill(26 << 20, command);
        assert!(!ground.sidecars().is_empty());
        assert!(!is_down || !ground.parts("to").is_empty());
        // No name appears before its file is whole.
        let to = if is_down {
            ground.local("to")
        } else {
            ground.server.root().join("to")
        };
        for (name, content) in NAMES.iter().zip(&ground.contents) {
            if is_there(&to.join(name)) {
                same(&to.join(name), content);
            }
        }
        let n = ground.run(command);
        assert!(n < REST, "{command:?}: {n} bytes");
        ground.is_same(&to);
        ground.is_clean("to");
    }
}

#[test]
fn a_folder_is_known_by_its_real_place() {
    let ground = Ground::new();
    symlink(ground.local("tree"), ground.local("alias")).unwrap();
    ground.kill(26 << 20, &["put", "-r", "tree", "/to"]);
    let n = ground.run(&["put", "-r", "./alias/", "/to"]);
    assert!(n < REST, "{n} bytes");
    ground.is_same(&ground.server.root().join("to"));
    ground.is_clean("tree");

    fs::create_dir(ground.local("real")).unwrap();
    symlink("real", ground.local("to")).unwrap();
    ground.kill(26 << 20, &["get", "-r", "/to", "to"]);
    let n = ground.run(&["get", "-r", "/to", "real"]);
    assert!(n < REST, "{n} bytes");
    ground.is_same(&ground.local("real"));
    ground.is_clean("real");
}

const GET: [&str; 4] = ["get", "-r", "/t", "to"];

#[test]
fn what_a_run_can_go_on_with_is_taken_away_by_none_that_has_less_to_do() {
    let ground = Ground::sent();
    ground.kill(26 << 20, &GET);
    let parts = ground.parts("to");
    assert!(!parts.is_empty());
    ground.run(&["get", "-r", "/t", "to", "--exclude", "*"]);
    ground.run(&["get", "-r", "/t", "to", "--dry-run"]);
    assert_eq!(ground.parts("to"), parts);
    let n = ground.run(&GET);
    assert!(n < REST, "{n} bytes");
    ground.is_same(&ground.local("to"));
    ground.is_clean("to");
}

#[test]
fn what_no_run_can_go_on_with_is_taken_away() {
    let ground = Ground::sent();
    // The files are gone.
    ground.kill(26 << 20, &GET);
    ground.server.ok(&["rm", "-r", "/t"]);
    ground.server.put("/t/small", b"small");
    ground.server.put("/t/d/small", b"small");
    ground.run(&GET);
    ground.is_clean("to");
    // It is not remembered.
    ground.server.ok(&["put", "-r", "tree", "/t"]);
    fs::remove_dir_all(ground.local("to")).unwrap();
    ground.kill(26 << 20, &GET);
    for sidecar in ground.sidecars() {
        fs::remove_file(sidecar).unwrap();
    }
    ground.run(&GET);
    ground.is_same(&ground.local("to"));
    ground.is_clean("to");
}

#[test]
fn another_version_is_never_stitched_to_what_was_there() {
    let mut ground = Ground::sent();
    ground.kill(26 << 20, &GET);
    ground.contents = [Random(41).content(SIZE - 5), Random(42).content(SIZE + 5)];
    ground.write();
    ground.server.ok(&["put", "-r", "tree", "/t"]);
    ground.run(&GET);
    ground.is_same(&ground.local("to"));
    ground.is_clean("to");
}

/// A get that was killed, of which something was changed; the next run comes right.
#[track_caller]
fn planted(ground: &Ground, plant: impl Fn(&Path)) {
    ground.kill(26 << 20, &GET);
    for part in ground.parts("to") {
        fs::rename(&part, ground.local("aside")).unwrap();
        plant(&part);
    }
    ground.run(&GET);
    ground.is_same(&ground.local("to"));
    for name in NAMES {
        let found = fs::symlink_metadata(ground.local("to").join(name)).unwrap();
        assert!(found.is_file());
        assert_eq!(found.permissions().mode() & 0o7111, 0);
    }
    fs::remove_dir_all(ground.local("to")).unwrap();
    for sidecar in ground.sidecars() {
        fs::remove_file(sidecar).unwrap();
    }
}

#[test]
fn what_somebody_else_has_planted_is_not_used() {
    let ground = Ground::sent();
    let aim = ground.local("aim");
    fs::write(&aim, b"untouched").unwrap();
    planted(&ground, |part| symlink(&aim, part).unwrap());
    planted(&ground, |part| fs::hard_link(&aim, part).unwrap());
    assert_eq!(fs::read(&aim).unwrap(), b"untouched");
    planted(&ground, |part| {
        fs::write(part, vec![0; 2 * SIZE]).unwrap();
    });
    planted(&ground, |part| {
        fs::write(part, b"#!/bin/sh").unwrap();
        fs::set_permissions(part, fs::Permissions::from_mode(0o4755)).unwrap();
    });
    planted(&ground, |part| fs::create_dir(part).unwrap());
}

#[test]
fn what_gets_the_name_between_two_parts_stays_as_it_is() {
    let ground = Ground::sent();
    let outside = ground.local("outside");
    fs::create_dir(&outside).unwrap();
    // Until some of each is there, so that the directories are held, and none of them is whole.
    ground.relay.hold_after(16 << 20);
    let getting = ground.spawn(&GET);
    ground.relay.wait_held();
    symlink(&outside, ground.local("to/a")).unwrap();
    fs::rename(ground.local("to/d"), ground.local("moved")).unwrap();
    symlink(&outside, ground.local("to/d")).unwrap();
    ground.relay.release();
    let output = getting.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("symbolic link"), "{said}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(fs::read_link(ground.local("to/a")).is_ok());
    // It came where its directory is by now.
    same(&ground.local("moved/b"), &ground.contents[1]);
    ground.is_clean("moved");
    assert_eq!(leftovers(&ground.local("to")), Vec::<String>::new());
}

#[test]
fn two_runs_at_a_time_do_not_disturb_each_other() {
    let ground = Ground::sent();
    ground.relay.hold_after(26 << 20);
    let first = ground.spawn(&GET);
    ground.relay.wait_held();
    let mut beside = at(&ground.server, &ground.server.address, &GET);
    let output = beside.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    ground.is_same(&ground.local("to"));
    ground.relay.release();
    // The names were free when the first one looked, and are not any more.
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    ground.is_same(&ground.local("to"));
    ground.is_clean("to");
}

#[test]
fn a_set_that_is_refused_leaves_nothing() {
    let ground = Ground::new();
    ground.server.put("/set/d/b", b"old");
    let put = ["put", "-r", "--atomic", "tree", "/set"];
    let output = ground.output(&[&put[..], &["--if-absent"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    ground.is_clean("tree");
    let output = ground.output(&[&put[..], &["--if-version", "/set/d/b=99"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    ground.is_clean("tree");
    assert_eq!(ground.server.get("/set/d/b"), b"old");
    assert!(!is_there(&ground.server.root().join("set/a")));
    // One that gets nowhere in time leaves no more.
    ground.run(&put);
    ground.is_same(&ground.server.root().join("set"));
    ground.is_clean("tree");
}

#[test]
fn a_set_comes_whole_from_a_server_that_was_started_anew() {
    let mut ground = Ground::new();
    // Staged before the large ones, and gone with the server.
    for number in 0..12 {
        let name = format!("tree/A{number}");
        fs::write(ground.local(&name), vec![b'x'; 120_000]).unwrap();
    }
    let n = ground.restart_during(&["put", "-r", "--atomic", "tree", "/set"]);
    assert!(n < REST + (3 << 20), "{n} bytes");
    ground.is_same(&ground.server.root().join("set"));
    assert_eq!(
        fs::read(ground.server.root().join("set/A7")).unwrap().len(),
        120_000
    );
    ground.is_clean("tree");
    let stats = ground.server.ok(&["admin", "log", "stats", "--json"]);
    assert!(stats.contains("\"head\":1,"), "{stats}");
}

/// The files of the folder and a small one, by their names, as one set.
const FLAT: [&str; 6] = ["put", "--atomic", "tree/a", "small", "tree/d/b", "/flat/"];

/// A ground with the small file too.
fn flat_ground() -> Ground {
    let ground = Ground::new();
    fs::write(ground.local("small"), b"small").unwrap();
    ground
}

#[track_caller]
fn is_flat(ground: &Ground) {
    let flat = ground.server.root().join("flat");
    for (name, content) in ["a", "b"].iter().zip(&ground.contents) {
        same(&flat.join(name), content);
    }
    same(&flat.join("small"), b"small");
    ground.is_clean("tree");
}

#[test]
fn a_set_of_single_files_goes_on_after_cuts_and_a_kill() {
    let mut ground = flat_ground();
    let mut random = Random(0x5e7f);
    let mut n_cuts = 0;
    for _ in 0..count("FSVC_TEST_CUTS", 3) {
        for content in &mut ground.contents {
            *content = random.content(SIZE);
        }
        ground.write();
        let mut cuts = places(&mut random, SIZE);
        cuts[0] += 40_000;
        ground.relay.cut_after(&cuts);
        let n = ground.run(&FLAT);
        let n_cut = (cuts.len() - ground.relay.n_cuts_left()) as u64;
        ground.relay.cut_after(&[]);
        n_cuts += n_cut;
        assert!(
            n < 2 * SIZE as u64 + 500_000 + n_cut * COST,
            "{n} bytes with {n_cut} cuts"
        );
        is_flat(&ground);
    }
    assert!(n_cuts > 1, "only {n_cuts} cuts");
    for content in &mut ground.contents {
        *content = random.content(SIZE);
    }
    ground.write();
    let before = fs::read(ground.server.root().join("flat/a")).unwrap();
    ground.kill(26 << 20, &FLAT);
    assert!(!ground.sidecars().is_empty());
    same(&ground.server.root().join("flat/a"), &before);
    let n = ground.run(&FLAT);
    assert!(n < REST, "{n} bytes");
    // What the run that was killed staged of the small one waits for its time.
    ground.server.restart();
    is_flat(&ground);
}

#[test]
fn a_set_of_single_files_that_is_refused_leaves_nothing() {
    let ground = flat_ground();
    ground.server.put("/flat/b", b"old");
    let output = ground.output(&[&FLAT[..], &["--if-absent"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    ground.is_clean("tree");
    // Also if it fails at the last of them, before the commit.
    let missing = ["put", "--atomic", "tree/a", "tree/d/b", "missing", "/flat/"];
    let output = ground.output(&missing);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("missing"));
    ground.is_clean("tree");
    assert_eq!(ground.server.get("/flat/b"), b"old");
    assert!(!is_there(&ground.server.root().join("flat/a")));
}

#[test]
fn a_set_of_single_files_comes_whole_from_a_server_that_was_started_anew() {
    let mut ground = flat_ground();
    let n = ground.restart_during(&FLAT);
    assert!(n < REST, "{n} bytes");
    is_flat(&ground);
    let stats = ground.server.ok(&["admin", "log", "stats", "--json"]);
    assert!(stats.contains("\"head\":1,"), "{stats}");
}

#[test]
fn a_file_of_a_set_that_changes_while_it_is_sent_is_never_mixed() {
    const LARGE: usize = 40 << 20;
    let ground = Ground::new();
    fs::write(ground.local("large"), vec![b'a'; LARGE]).unwrap();
    ground.relay.hold_after(LARGE as u64 / 4);
    let putting = ground.spawn(&["put", "--atomic", "large", "/flat/"]);
    ground.relay.wait_held();
    // In its place, as an editor does not: the name keeps its file.
    let mut file = fs::File::options()
        .write(true)
        .open(ground.local("large"))
        .unwrap();
    file.write_all(&vec![b'b'; LARGE]).unwrap();
    ground.relay.release();
    let output = putting.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = fs::read(ground.server.root().join("flat/large")).unwrap();
    assert_eq!(found.len(), LARGE);
    let is_one = found.iter().all(|byte| *byte == found[0]);
    assert!(is_one, "two states of the file are mixed");
}

#[test]
fn a_single_put_keeps_time_and_mode_as_one_of_a_tree_does() {
    let server = Server::start();
    for size in [10, 6 << 20] {
        let source = server.directory.path().join("source");
        fs::write(&source, vec![b's'; size]).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o750)).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500);
        let file = fs::File::options().write(true).open(&source).unwrap();
        file.set_modified(time).unwrap();
        server.ok(&["put", "source", "/one/file"]);
        let told = server.ok(&["stat", "/one/file", "--json"]);
        let attributes = r#""attributes":{"modified":"2001-09-09T01:46:40.5Z","mode":488}"#;
        assert!(told.contains(attributes), "{told}");
        server.ok(&["put", "--atomic", "source", "/set"]);
        let told = server.ok(&["stat", "/set", "--json"]);
        assert!(told.contains(attributes), "{told}");
        server.ok(&["get", "-r", "/one", "back", "--keep-modes"]);
        let found = fs::metadata(server.directory.path().join("back/file")).unwrap();
        assert_eq!(
            (found.mtime(), found.mtime_nsec()),
            (1_000_000_000, 500_000_000)
        );
        assert_eq!(found.permissions().mode() & 0o777, 0o750);
        fs::remove_dir_all(server.directory.path().join("back")).unwrap();
    }
}

#[test]
fn what_may_not_be_read_is_replaced_without_a_base() {
    let grant = |allow: &str| {
        format!(
            "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\nallow = [{allow}]\non = \"/**\"\n"
        )
    };
    let server = Server::with_policy(&grant(r#""list", "create", "replace""#));
    let source = server.directory.path().join("source");
    for (seed, arguments) in [
        (1, &["put", "source", "/x"][..]),
        (2, &["put", "source", "/x"]),
        (3, &["put", "source", "/x", "--delta", "always"]),
    ] {
        let content = Random(seed).content(12 << 20);
        fs::write(&source, &content).unwrap();
        server.ok(arguments);
        same(&server.root().join("x"), &content);
        assert_eq!(server.staged(), Vec::<String>::new());
    }
}

#[test]
fn what_is_cut_behind_the_first_greeting_is_tried_again() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    server.put("/t/x", b"x");
    let (mut n_lost, mut n_again) = (0, 0);
    for place in (2_000..9_000).step_by(100) {
        relay.cut_after(&[place]);
        for command in [&["ls", "-r", "/t"][..], &["get", "-r", "/t", "to"]] {
            let output = at(&server, &relay.address, command).output().unwrap();
            let said = text(&output.stderr);
            if output.status.success() {
                n_again += usize::from(said.contains("trying again"));
            } else {
                // Only where there was no greeting.
                assert!(!said.contains("was lost"), "{place}: {said}");
                n_lost += 1;
            }
        }
        relay.cut_after(&[]);
    }
    assert!(n_lost > 0 && n_again > 0, "{n_lost} and {n_again}");
}

#[test]
fn an_upload_whose_begin_was_never_answered_is_found_again() {
    let ground = Ground::new();
    let content = Random(51).content(5 << 20);
    fs::write(ground.local("source"), &content).unwrap();
    for place in (3_000..9_000).step_by(200) {
        ground.relay.hold_after(place);
        let mut child = ground.spawn(&["put", "source", "/x"]);
        ground.relay.wait_held();
        child.kill().unwrap();
        child.wait().unwrap();
        ground.relay.release();
        ground.run(&["put", "source", "/x"]);
        same(&ground.server.root().join("x"), &content);
        ground.is_clean("tree");
    }
}

#[test]
fn what_is_remembered_of_files_that_are_there_is_forgotten() {
    let ground = Ground::new();
    let put = ["put", "-r", "tree", "/to"];
    // They came by another way: the uploads are of no use.
    ground.kill(26 << 20, &put);
    ground.server.ok(&put);
    assert!(!ground.sidecars().is_empty());
    ground.run(&put);
    ground.is_clean("tree");
    // The run that moved them was killed before it had forgotten them.
    for command in [&["put", "-r", "tree", "/else"], &["get", "-r", "/to", "to"]] {
        ground.kill(16 << 20, command);
        let copies: Vec<_> = ground
            .sidecars()
            .into_iter()
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        assert_eq!(copies.len(), 2);
        ground.run(command);
        for (bytes, path) in copies {
            fs::write(path, bytes).unwrap();
        }
        ground.run(&[command, &["--dry-run"][..]].concat());
        assert_eq!(ground.sidecars().len(), 2);
        ground.run(command);
        ground.is_clean("to");
    }
}
