//! What a transfer leaves for the next run: it is a help, and is believed only where nobody else can have
//! touched it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fsvc::protocol::ContentId;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::cuts::{Random, at, leftovers, same};
use crate::harness::{Server, text};
use crate::raw::Raw;
use crate::relay::Relay;

const SIZE: usize = 24 << 20;

/// A server that has two files, and a relay to it.
struct Ground {
    server: Server,
    relay: Relay,
    contents: [Vec<u8>; 2],
}

impl Ground {
    fn new() -> Self {
        let server = Server::start();
        let relay = Relay::to(&server.address);
        let contents = [Random(21).content(SIZE), Random(22).content(SIZE)];
        for (name, content) in ["/one", "/two"].iter().zip(&contents) {
            server.put(name, content);
        }
        std::fs::write(server.directory.path().join("source"), &contents[0]).unwrap();
        Self {
            server,
            relay,
            contents,
        }
    }

    fn local(&self, name: &str) -> PathBuf {
        self.server.directory.path().join(name)
    }

    /// Runs a command until so many bytes have passed, and kills it.
    fn kill(&self, n_bytes: u64, arguments: &[&str]) {
        // Each of two connections is in the middle of a part.
        let n_parts = usize::try_from(n_bytes >> 20).unwrap() - 3;
        self.kill_at(n_bytes, n_parts, arguments);
    }

    /// The same, not before so many parts are remembered.
    fn kill_at(&self, n_bytes: u64, n_parts: usize, arguments: &[&str]) {
        self.relay.hold_after(n_bytes);
        let mut command = at(&self.server, &self.relay.address, arguments);
        let mut child = command.arg("--quiet").spawn().unwrap();
        self.relay.wait_held();
        let until = Instant::now() + Duration::from_secs(30);
        while self.n_remembered() < n_parts {
            assert!(Instant::now() < until, "{} parts", self.n_remembered());
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        self.relay.release();
    }

    /// Runs a command to its good end; how many bytes that took.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> u64 {
        let before = self.relay.n_passed();
        let mut command = at(&self.server, &self.relay.address, arguments);
        let output = command.arg("--quiet").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.relay.n_passed() - before
    }

    /// Parts that are remembered, of all transfers.
    fn n_remembered(&self) -> usize {
        let texts = self.sidecars().into_iter().map(std::fs::read_to_string);
        // Another run may have just removed its own.
        let lines = texts.flatten().map(|text| text.lines().count());
        lines.map(|n| n.saturating_sub(1)).sum()
    }

    /// The files that are remembered.
    fn sidecars(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.local("state/fsvc/transfers")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn sidecar(&self) -> PathBuf {
        let mut sidecars = self.sidecars();
        assert_eq!(sidecars.len(), 1);
        sidecars.remove(0)
    }

    /// The file that has not all of its bytes.
    fn part(&self) -> PathBuf {
        let mut names = leftovers(self.server.directory.path());
        assert_eq!(names.len(), 1, "{names:?}");
        self.local(&names.remove(0))
    }

    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(self.sidecars(), Vec::<PathBuf>::new());
        assert_eq!(self.server.staged(), Vec::<String>::new());
        assert_eq!(
            leftovers(self.server.directory.path()),
            Vec::<String>::new()
        );
    }
}

const GET: [&str; 3] = ["get", "/one", "x"];
/// A slow relay would make it worth while to compare with what an earlier put has left there.
const PUT: [&str; 4] = ["put", "source", "/put", "--delta=never"];

#[test]
fn a_get_goes_on_where_it_was() {
    let ground = Ground::new();
    ground.kill(18 << 20, &GET);
    let n = ground.run(&GET);
    assert!(n < 16 << 20, "{n} bytes came");
    same(&ground.local("x"), &ground.contents[0]);
    ground.is_clean();
}

#[test]
fn parts_of_another_file_under_the_same_name_are_not_taken_for_ones_own() {
    let ground = Ground::new();
    ground.kill(18 << 20, &GET);
    ground.kill(18 << 20, &["get", "/two", "x"]);
    ground.run(&GET);
    same(&ground.local("x"), &ground.contents[0]);
    ground.run(&["get", "/two", "x"]);
    same(&ground.local("x"), &ground.contents[1]);
    ground.is_clean();
    // Also if the run between did not come as far as a greeting.
    ground.kill(18 << 20, &GET);
    let mut nobody = at(&ground.server, &ground.relay.address, &GET);
    nobody.args(["--version", "1"]).env("FSVC_RETRY_FOR", "0s");
    ground.relay.close();
    assert!(!nobody.output().unwrap().status.success());
    ground.relay.open();
    ground.run(&GET);
    same(&ground.local("x"), &ground.contents[0]);
    ground.is_clean();
}

/// Changes what is remembered after a run that was killed, and looks whether the next one comes right.
fn broken(ground: &Ground, arguments: &[&str], change: impl FnOnce(&Path)) {
    ground.kill(18 << 20, arguments);
    change(&ground.sidecar());
    ground.run(arguments);
    let found = match arguments[0] {
        "get" => ground.local("x"),
        _ => ground.server.root().join("put"),
    };
    same(&found, &ground.contents[0]);
    assert_eq!(ground.sidecars(), Vec::<PathBuf>::new());
    assert_eq!(
        leftovers(ground.server.directory.path()),
        Vec::<String>::new()
    );
}

fn cut_to(path: &Path, length: impl FnOnce(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length(file.metadata().unwrap().len()))
        .unwrap();
}

#[test]
fn what_is_remembered_may_be_torn_or_nonsense() {
    let ground = Ground::new();
    for arguments in [&GET[..], &PUT] {
        broken(&ground, arguments, |sidecar| cut_to(sidecar, |n| n - 1));
        broken(&ground, arguments, |sidecar| cut_to(sidecar, |n| n - 70));
        broken(&ground, arguments, |sidecar| cut_to(sidecar, |_| 20));
        broken(&ground, arguments, |sidecar| {
            std::fs::write(sidecar, b"\xff\0nonsense\n").unwrap();
        });
        // Numbers that are none of its parts.
        broken(&ground, arguments, |sidecar| {
            let text = std::fs::read_to_string(sidecar).unwrap();
            let last = text.lines().last().unwrap();
            let (_, digest) = last.split_once(' ').unwrap();
            let strange = format!("{text}18446744073709551615 {digest}\n99999 {digest}\n");
            std::fs::write(sidecar, strange).unwrap();
        });
    }
    // Uploads that nobody knows any more are left to their time limit.
    assert!(ground.server.staged().len() <= 8);
}

#[test]
fn what_is_written_behind_a_torn_line_is_read_again() {
    let ground = Ground::new();
    ground.kill(12 << 20, &GET);
    cut_to(&ground.sidecar(), |n| n - 10);
    ground.kill_at(8 << 20, 13, &GET);
    let n = ground.run(&GET);
    assert!(n < 14 << 20, "{n} bytes came");
    same(&ground.local("x"), &ground.contents[0]);
    ground.is_clean();
}

#[test]
fn what_another_file_has_left_is_of_no_use() {
    let ground = Ground::new();
    // As if two names were the same: what is remembered of /two stands where that of /one is looked for.
    ground.kill(18 << 20, &["get", "/two", "x"]);
    let saved = std::fs::read(ground.sidecar()).unwrap();
    ground.run(&["get", "/two", "x"]);
    broken(&ground, &GET, |sidecar| {
        std::fs::write(sidecar, saved).unwrap();
    });
    ground.is_clean();
}

#[test]
fn parts_that_are_not_what_they_were_are_fetched_again() {
    let ground = Ground::new();
    ground.kill(18 << 20, &GET);
    // As after a power cut: some of what was written never came to the disk.
    let part = OpenOptions::new().write(true).open(ground.part()).unwrap();
    part.write_all_at(&[0; 4096], 3 << 20).unwrap();
    let n = ground.run(&GET);
    assert!(n < 16 << 20, "{n} bytes came");
    same(&ground.local("x"), &ground.contents[0]);
    ground.is_clean();
}

#[test]
fn a_transfer_that_another_run_has_is_done_beside_it() {
    let ground = Ground::new();
    for arguments in [&GET[..], &PUT] {
        ground.kill(18 << 20, arguments);
        let sidecar = ground.sidecar();
        let before = std::fs::read(&sidecar).unwrap();
        let locked = File::open(&sidecar).unwrap();
        flock(&locked, FlockOperation::LockExclusive).unwrap();
        ground.run(arguments);
        assert_eq!(std::fs::read(&sidecar).unwrap(), before);
        drop(locked);
        let n = ground.run(arguments);
        assert!(n < 16 << 20, "{n} bytes were moved");
    }
    same(&ground.local("x"), &ground.contents[0]);
    same(&ground.server.root().join("put"), &ground.contents[0]);
    ground.is_clean();
}

#[test]
fn a_part_that_somebody_else_has_planted_is_not_used() {
    let ground = Ground::new();
    let is_root = rustix::process::geteuid().is_root();
    let aim = ground.local("aim");
    for plant in ["symlink", "hard link", "owner", "directory", "fifo"] {
        if plant == "owner" && !is_root {
            continue;
        }
        ground.kill(18 << 20, &GET);
        let part = ground.part();
        std::fs::remove_file(&part).unwrap();
        std::fs::write(&aim, b"untouched").unwrap();
        match plant {
            "symlink" => symlink(&aim, &part).unwrap(),
            "hard link" => std::fs::hard_link(&aim, &part).unwrap(),
            "owner" => {
                std::fs::write(&part, b"untouched").unwrap();
                std::os::unix::fs::chown(&part, Some(12_345), None).unwrap();
            }
            "directory" => std::fs::create_dir(&part).unwrap(),
            _ => {
                let mkfifo = std::process::Command::new("mkfifo").arg(&part).status();
                assert!(mkfifo.unwrap().success());
            }
        }
        let planted = std::fs::symlink_metadata(&part).unwrap().ino();
        ground.run(&GET);
        same(&ground.local("x"), &ground.contents[0]);
        assert_ne!(std::fs::metadata(ground.local("x")).unwrap().ino(), planted);
        same(&aim, b"untouched");
        // It is not ours to remove.
        assert_eq!(std::fs::symlink_metadata(&part).unwrap().ino(), planted);
        if plant == "directory" {
            std::fs::remove_dir(&part).unwrap();
        } else {
            std::fs::remove_file(&part).unwrap();
        }
    }
    ground.is_clean();
}

#[test]
fn a_source_that_is_another_file_by_now_is_sent_anew() {
    let ground = Ground::new();
    ground.kill(18 << 20, &PUT);
    assert_eq!(ground.server.staged().len(), 2, "an upload and its notes");
    let mut source = OpenOptions::new()
        .append(true)
        .open(ground.local("source"))
        .unwrap();
    source.write_all(b"and more").unwrap();
    let n = ground.run(&PUT);
    assert!(n > SIZE as u64, "only {n} bytes were sent");
    let content = std::fs::read(ground.local("source")).unwrap();
    same(&ground.server.root().join("put"), &content);
    ground.is_clean();
}

#[test]
fn a_put_that_was_killed_before_its_answer_is_not_sent_again() {
    let ground = Ground::new();
    let content = Random(23).content(6 << 20);
    std::fs::write(ground.local("source"), &content).unwrap();
    let put = |name: &str| ["put", "source", name, "--streams", "1"].map(str::to_owned);
    let probe = ground.run(&put("/killed/000").each_ref().map(String::as_str));
    let mut n_unheard = 0;
    for back in (0..900).step_by(75) {
        let name = format!("/killed/{back:03}_");
        let arguments = put(&name);
        let arguments = arguments.each_ref().map(String::as_str);
        ground.relay.hold_after(probe - back);
        let mut command = at(&ground.server, &ground.relay.address, &arguments);
        let mut child = command.arg("--quiet").spawn().unwrap();
        let landed = ground.server.root().join(&name[1..]);
        // Either the answer is held back, or what is needed for it.
        let until = Instant::now() + Duration::from_millis(500);
        let is_there = || std::fs::metadata(&landed).is_ok();
        let mut has_ended = false;
        while !has_ended && !is_there() && Instant::now() < until {
            has_ended = child.try_wait().unwrap().is_some();
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        ground.relay.release();
        // Who has heard the answer forgets the transfer.
        let is_unheard = is_there() && !ground.sidecars().is_empty();
        n_unheard += usize::from(is_unheard);
        let n = ground.run(&arguments);
        if is_unheard {
            assert!(n < 100_000, "{back}: {n} bytes were sent again");
            assert_eq!(n_changes(&ground.server, &name), 1);
        }
        same(&landed, &content);
        ground.is_clean();
    }
    assert!(n_unheard > 0, "the answer was never held back");
}

#[test]
fn an_upload_that_is_begun_anew_is_remembered_too() {
    let ground = Ground::new();
    ground.kill(18 << 20, &PUT);
    // It went away, as after its time limit; the run that finds that out is killed as well.
    for name in ground.server.staged() {
        let Ok(upload) = name.parse::<ContentId>() else {
            continue;
        };
        let abort = json!({"id": 1, "op": "abort", "upload": upload.to_string()});
        let answer = Raw::connect(&ground.server, "dev").ask(&abort.to_string());
        assert!(answer["ok"].is_object(), "{answer}");
    }
    ground.kill(18 << 20, &PUT);
    let n = ground.run(&PUT);
    assert!(n < 16 << 20, "{n} bytes were sent");
    same(&ground.server.root().join("put"), &ground.contents[0]);
    ground.is_clean();
}

#[test]
fn what_was_done_before_somebody_changed_it_is_done_again() {
    let ground = Ground::new();
    ground.kill(18 << 20, &PUT);
    let sidecar = ground.sidecar();
    // What stands in it when all is sent: as if the program had been killed before the answer.
    let copy = ground.local("copy");
    std::fs::hard_link(&sidecar, &copy).unwrap();
    ground.run(&PUT);
    ground.server.put("/put", b"another");
    std::fs::rename(&copy, &sidecar).unwrap();
    ground.run(&PUT);
    same(&ground.server.root().join("put"), &ground.contents[0]);
    ground.is_clean();
}

/// How often a file was changed.
fn n_changes(server: &Server, name: &str) -> usize {
    let watch = ["watch", "/killed/", "--since", "0", "--no-follow", "--json"];
    let events = server.ok(&watch);
    let of_name = |line: &&str| line.contains(&format!("\"path\":\"{name}\""));
    events.lines().filter(of_name).count()
}
