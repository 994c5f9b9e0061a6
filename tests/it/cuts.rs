//! Transfers that are cut anywhere, and servers that die under them: every byte comes right, and
//! nothing is left behind.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fsvc::client::{Client, Delta, Options, TransferOptions};
use fsvc::path::RemotePath;
use fsvc::protocol::Conditions;

use crate::harness::{Server, Setup, everything, fsvc, text};
use crate::messages::runtime;
use crate::relay::Relay;

/// How long an interruption is waited out.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command of the client dev, against another address than the server's own.
pub fn at(server: &Server, address: &str, arguments: &[&str]) -> Command {
    let mut command = fsvc();
    command
        .args(arguments)
        .args(["--as", "dev", "--server", address, "--tls-dir"]);
    command
        .arg(server.certs())
        .current_dir(server.directory.path());
    command.env("FSVC_RETRY_FOR", "60s");
    command.env("XDG_STATE_HOME", server.directory.path().join("state"));
    command.env("XDG_CACHE_HOME", server.directory.path().join("cache"));
    command
}

/// A cheap source of chance, the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    pub fn content(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&self.below(u64::MAX).to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    pub fn size(&mut self) -> usize {
        let sizes = [
            0,
            3_000,
            70_000,
            1 << 20,
            (4 << 20) + 1,
            (5 << 20) + 4_321,
            9 << 20,
        ];
        sizes[usize::try_from(self.below(sizes.len() as u64)).unwrap()]
    }
}

pub fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

pub fn client(server: &Server, relay: &Relay, resume: Option<PathBuf>) -> Client {
    let mut options = Options::from_directory(&relay.address, server.certs(), "dev");
    options.retry_for = PATIENCE;
    options.resume_directory = resume;
    Client::new(options).unwrap()
}

pub fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

#[track_caller]
pub fn same(file: &Path, content: &[u8]) {
    let found = std::fs::read(file).unwrap();
    assert_eq!(found.len(), content.len(), "{}", file.display());
    assert!(found == content, "{} differs", file.display());
}

/// Names in a directory that no test has put there.
pub fn leftovers(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".fsvc-")).collect()
}

/// Random places in a transfer of so many bytes.
pub fn places(random: &mut Random, size: usize) -> Vec<u64> {
    let n = 1 + random.below(3);
    (0..n).map(|_| random.below(size as u64 + 8_000)).collect()
}

#[test]
fn puts_that_are_cut_anywhere_come_right_and_once() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let client = client(&server, &relay, None);
    runtime().block_on(client.ping()).unwrap();
    let local = server.directory.path().join("source");
    let mut random = Random(0x1234_5678_9abc);
    let mut n_cuts = 0;
    for round in 0..count("FSVC_TEST_CUTS", 25) {
        let size = random.size();
        let content = random.content(size);
        std::fs::write(&local, &content).unwrap();
        let name = path(&format!("/cut/{}", round % 7));
        let before = runtime().block_on(client.stat(&name)).ok();
        let cuts = places(&mut random, size);
        relay.cut_abruptly(round % 2 == 0);
        relay.cut_after(&cuts);
        let put = client.put_file(&local, &name, TransferOptions::default());
        let file = runtime().block_on(put).unwrap();
        n_cuts += cuts.len() - relay.n_cuts_left();
        relay.cut_after(&[]);
        same(&server.root().join(name.relative()), &content);
        // One version more, however often it was sent.
        let before = before.and_then(|file| file.version).unwrap_or(0);
        let now = file.version.unwrap();
        assert!(now > before, "{round}");
        let events = server.ok(&[
            "watch",
            "/cut/",
            "--since",
            &before.to_string(),
            "--no-follow",
            "--json",
        ]);
        let of_name = |line: &&str| line.contains(&format!("\"path\":\"{name}\""));
        assert_eq!(
            events.lines().filter(of_name).count(),
            1,
            "{round}: {events}"
        );
        assert_eq!(server.staged(), Vec::<String>::new(), "{round}");
    }
    assert!(n_cuts > 5, "only {n_cuts} cuts");
}

#[test]
fn gets_that_are_cut_anywhere_come_right() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let client = client(&server, &relay, None);
    // A server that was never reached is not waited for.
    runtime().block_on(client.ping()).unwrap();
    let target = server.directory.path().join("into");
    std::fs::create_dir(&target).unwrap();
    let mut random = Random(0xfeed_beef);
    let mut n_cuts = 0;
    for round in 0..count("FSVC_TEST_CUTS", 25) {
        let size = random.size();
        let content = random.content(size);
        let name = path(&format!("/got/{round}"));
        server.put(name.as_str(), &content);
        let cuts = places(&mut random, size);
        relay.cut_abruptly(round % 2 == 0);
        relay.cut_after(&cuts);
        let local = target.join("file");
        let get = client.get_file(&name, &local, TransferOptions::default());
        runtime().block_on(get).unwrap();
        n_cuts += cuts.len() - relay.n_cuts_left();
        relay.cut_after(&[]);
        same(&local, &content);
        assert_eq!(leftovers(&target), Vec::<String>::new(), "{round}");
        server.ok(&["rm", name.as_str()]);
    }
    assert!(n_cuts > 5, "only {n_cuts} cuts");
}

#[test]
fn syncs_that_are_cut_anywhere_come_right() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let source = server.directory.path().join("tree");
    let mut random = Random(0x5eed);
    for round in 0..count("FSVC_TEST_CUTS", 8) {
        relay.cut_abruptly(round % 2 == 0);
        for number in 0..40 {
            let directory = source.join(format!("d{}", number % 5));
            std::fs::create_dir_all(&directory).unwrap();
            let size = usize::try_from(random.below(30_000)).unwrap();
            std::fs::write(directory.join(number.to_string()), random.content(size)).unwrap();
        }
        std::fs::write(source.join("large"), random.content(6 << 20)).unwrap();
        // A server that was never reached is not waited for: no cut before the greeting.
        let mut cuts = || {
            let mut cuts = places(&mut random, 6 << 20);
            cuts[0] += 8_000;
            cuts
        };
        relay.cut_after(&cuts());
        let mut sync = at(
            &server,
            &relay.address,
            &["sync", "tree", "fsvc:/tree", "--quiet"],
        );
        let output = sync.output().unwrap();
        assert!(output.status.success(), "{round}: {}", text(&output.stderr));
        relay.cut_after(&cuts());
        let back = server.directory.path().join(format!("back{round}"));
        let into = back.to_str().unwrap();
        let mut get = at(
            &server,
            &relay.address,
            &["get", "-r", "/tree", into, "--quiet"],
        );
        let output = get.output().unwrap();
        assert!(output.status.success(), "{round}: {}", text(&output.stderr));
        relay.cut_after(&[]);
        for file in ["large", "d0/0", "d4/39", "d2/17"] {
            let content = std::fs::read(source.join(file)).unwrap();
            same(&server.root().join("tree").join(file), &content);
            same(&back.join(file), &content);
        }
        assert_eq!(server.staged(), Vec::<String>::new(), "{round}");
        assert_eq!(leftovers(&back), Vec::<String>::new(), "{round}");
    }
}

#[test]
fn a_server_that_dies_under_a_transfer_is_gone_on_with_when_it_is_back() {
    let mut server = Server::start();
    let relay = Relay::to(&server.address);
    let client = client(&server, &relay, None);
    let mut random = Random(77);
    for round in 0..count("FSVC_TEST_KILLS", 8) {
        let content = random.content(24 << 20);
        let local = server.directory.path().join("source");
        std::fs::write(&local, &content).unwrap();
        let name = path("/killed");
        let is_put = round % 2 == 0;
        if !is_put {
            server.put(name.as_str(), &content);
        }
        let local = if is_put {
            local
        } else {
            server.directory.path().join("back")
        };
        let _ = runtime().block_on(client.ping());
        let (on_thread, at, to) = (client.clone(), local.clone(), name.clone());
        let moving = std::thread::spawn(move || {
            let options = TransferOptions::default();
            runtime().block_on(async {
                if is_put {
                    on_thread.put_file(&at, &to, options).await
                } else {
                    on_thread.get_file(&to, &at, options).await
                }
            })
        });
        let from = relay.n_sent();
        let until = Instant::now() + Duration::from_millis(random.below(150));
        while Instant::now() < until && relay.n_sent() < from + random.below(24 << 20) {
            std::thread::yield_now();
        }
        server.restart();
        relay.turn_to(&server.address);
        let moved = moving.join().unwrap();
        assert!(moved.is_ok(), "{round}: {:?}", moved.err());
        same(&server.root().join("killed"), &content);
        same(&local, &content);
        assert_eq!(server.staged(), Vec::<String>::new(), "{round}");
        assert_eq!(leftovers(server.directory.path()), Vec::<String>::new());
    }
}

/// Waits until so many bytes were sent.
pub fn sent(relay: &Relay, n: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while relay.n_sent() < n {
        assert!(Instant::now() < until, "only {} bytes came", relay.n_sent());
        std::thread::yield_now();
    }
}

#[test]
fn another_run_of_the_program_goes_on_where_the_first_was_killed() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let content = Random(5).content(64 << 20);
    std::fs::write(server.directory.path().join("source"), &content).unwrap();
    let put = || {
        at(
            &server,
            &relay.address,
            &["put", "source", "/again", "--quiet"],
        )
    };
    let mut first = put().spawn().unwrap();
    sent(&relay, 40 << 20);
    first.kill().unwrap();
    first.wait().unwrap();
    let before = relay.n_sent();
    let output = put().output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let size = content.len() as u64;
    let again = relay.n_sent() - size;
    assert!(again < size * 12 / 100, "{again} bytes were sent again");
    assert!(relay.n_sent() - before < size * 52 / 100);
    same(&server.root().join("again"), &content);
    assert_eq!(server.staged(), Vec::<String>::new());
    let state = server.directory.path().join("state/fsvc/transfers");
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

#[test]
fn only_what_changed_is_sent_and_it_is_right() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let client = client(&server, &relay, None);
    let local = server.directory.path().join("source");
    let mut content = Random(9).content(20 << 20);
    std::fs::write(&local, &content).unwrap();
    let put = |delta| {
        let options = TransferOptions {
            delta,
            ..TransferOptions::default()
        };
        let name = path("/changing");
        runtime()
            .block_on(client.put_file(&local, &name, options))
            .unwrap()
    };
    put(Delta::Never);
    content[7_000_000] ^= 1;
    content.splice(12_000_000..12_000_000, *b"put in");
    std::fs::write(&local, &content).unwrap();
    let before = relay.n_sent();
    put(Delta::Always);
    assert!(
        relay.n_sent() - before < 1 << 20,
        "{}",
        relay.n_sent() - before
    );
    same(&server.root().join("changing"), &content);
    // Cut in the middle of it, too.
    content.drain(5_000_000..5_001_000);
    content.extend_from_slice(&Random(10).content(3 << 20));
    std::fs::write(&local, &content).unwrap();
    relay.cut_after(&[1 << 20, 1 << 20]);
    put(Delta::Always);
    same(&server.root().join("changing"), &content);
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn any_of_several_servers_will_do() {
    let server = Server::start();
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    std::fs::write(server.directory.path().join("x"), b"hello").unwrap();
    let both = format!("{nobody},{}", server.address);
    let output = at(&server, &both, &["put", "x", "/x"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(server.get("/x"), b"hello");
    // Nobody at all is said at once, whatever the patience.
    let began = Instant::now();
    let output = at(&server, &nobody.to_string(), &["put", "x", "/x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_the_change_made_once() {
    for is_new in [true, false] {
        let mut server = Server::start_with(Setup {
            fault: Some("commit.append.after=abort".to_owned()),
            policy: Some(everything()),
            ..Setup::default()
        });
        let relay = Relay::to(&server.address);
        let client = client(&server, &relay, None);
        let content = Random(3).content(6 << 20);
        let local = server.directory.path().join("source");
        std::fs::write(&local, &content).unwrap();
        let options = TransferOptions {
            conditions: Conditions {
                if_absent: is_new,
                if_version: None,
            },
            ..TransferOptions::default()
        };
        let putting = std::thread::spawn(move || {
            let name = path("/once");
            runtime().block_on(client.put_file(&local, &name, options))
        });
        server.wait(Duration::from_secs(30));
        let sent = relay.n_sent();
        server.restart();
        relay.turn_to(&server.address);
        let file = putting.join().unwrap().unwrap();
        assert_eq!(file.version, Some(1));
        assert!(relay.n_sent() - sent < 1 << 20, "all was sent again");
        same(&server.root().join("once"), &content);
        assert_eq!(server.staged(), Vec::<String>::new());
        assert!(
            server
                .ok(&["admin", "log", "stats", "--json"])
                .contains("\"head\":1,")
        );
    }
}

/// A get that was killed in the middle, and its `.part`.
pub fn killed_get(server: &Server, relay: &Relay, local: &str) -> PathBuf {
    let mut get = at(server, &relay.address, &["get", "/large", local, "--quiet"]);
    let mut first = get.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let part = loop {
        assert!(Instant::now() < until, "nothing came");
        let names = leftovers(server.directory.path());
        let parts = names.iter().map(|name| server.directory.path().join(name));
        let is_begun =
            |part: &PathBuf| std::fs::metadata(part).is_ok_and(|found| found.len() > 20 << 20);
        if let Some(part) = parts.into_iter().find(is_begun) {
            break part;
        }
    };
    first.kill().unwrap();
    first.wait().unwrap();
    part
}

#[test]
fn a_get_that_was_killed_is_gone_on_with_and_trusts_no_other_file() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let content = Random(6).content(160 << 20);
    std::fs::write(server.directory.path().join("source"), &content).unwrap();
    server.ok(&["put", "source", "/large"]);
    let local = server.directory.path().join("copy");
    let again = || {
        let output = at(
            &server,
            &relay.address,
            &["get", "/large", "copy", "--quiet"],
        )
        .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        same(&local, &content);
        std::fs::remove_file(&local).unwrap();
        assert_eq!(leftovers(server.directory.path()), Vec::<String>::new());
    };
    killed_get(&server, &relay, "copy");
    again();
    // What is gone, or is another file, is fetched anew.
    std::fs::remove_file(killed_get(&server, &relay, "copy")).unwrap();
    again();
    let part = killed_get(&server, &relay, "copy");
    std::fs::rename(&part, server.directory.path().join("aside")).unwrap();
    std::fs::write(&part, vec![0; 100 << 20]).unwrap();
    again();
    // A link in its place is not followed.
    let part = killed_get(&server, &relay, "copy");
    std::fs::remove_file(&part).unwrap();
    let aim = server.directory.path().join("aim");
    std::fs::write(&aim, b"untouched").unwrap();
    std::os::unix::fs::symlink(&aim, &part).unwrap();
    let output = at(&server, &relay.address, &["get", "/large", "copy"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    same(&local, &content);
    assert_eq!(std::fs::read(&aim).unwrap(), b"untouched");
}

#[test]
fn two_gets_to_one_name_leave_one_of_the_files() {
    let server = Server::start();
    let contents = [Random(1).content(24 << 20), Random(2).content(24 << 20)];
    for (name, content) in ["/one", "/two"].iter().zip(&contents) {
        std::fs::write(server.directory.path().join("source"), content).unwrap();
        server.ok(&["put", "source", name]);
    }
    for _ in 0..3 {
        let gets = ["/one", "/two"].map(|name| {
            at(&server, &server.address, &["get", name, "x", "--quiet"])
                .spawn()
                .unwrap()
        });
        for mut get in gets {
            assert!(get.wait().unwrap().success());
        }
        let found = std::fs::read(server.directory.path().join("x")).unwrap();
        assert!(contents.contains(&found), "neither of the two");
        assert_eq!(leftovers(server.directory.path()), Vec::<String>::new());
    }
}

#[test]
fn a_pipe_gets_every_byte_once_whatever_is_cut() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let content = Random(4).content(12 << 20);
    server.put("/piped", &content);
    relay.cut_after(&[3 << 20, 1, 5 << 20]);
    let output = at(&server, &relay.address, &["get", "/piped", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == content);
    // What reaches nobody leaves nothing.
    let nobody = at(&server, "127.0.0.1:9", &["get", "/piped", "nothing"])
        .output()
        .unwrap();
    assert!(!nobody.status.success());
    assert_eq!(leftovers(server.directory.path()), Vec::<String>::new());
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_one_state_or_refused() {
    let server = Server::start();
    let local = server.directory.path().join("source");
    let relay = Relay::to(&server.address);
    let client = client(&server, &relay, None);
    let a = vec![b'a'; 12 << 20];
    let b = vec![b'b'; 12 << 20];
    std::fs::write(&local, &a).unwrap();
    for round in 0..10 {
        let (on_thread, from) = (client.clone(), local.clone());
        let putting = std::thread::spawn(move || {
            let name = path("/changing");
            runtime().block_on(on_thread.put_file(&from, &name, TransferOptions::default()))
        });
        // From the beginning to the end, in place: whoever sees the new bytes behind the old ones has
        // seen no state of the file.
        let (new, old) = if round % 2 == 0 {
            (&b, b'a')
        } else {
            (&a, b'b')
        };
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(&local)
            .unwrap();
        file.write_all(new).unwrap();
        match putting.join().unwrap() {
            Ok(_) => {
                let found = std::fs::read(server.root().join("changing")).unwrap();
                let n_new = found.iter().take_while(|byte| **byte == new[0]).count();
                assert!(
                    found[n_new..].iter().all(|byte| *byte == old),
                    "{round}: a mix"
                );
                assert_eq!(found.len(), new.len());
            }
            Err(error) => assert!(error.to_string().contains("changed"), "{error}"),
        }
        assert_eq!(server.staged(), Vec::<String>::new(), "{round}");
    }
}

#[test]
fn patience_ends_when_nothing_moves() {
    let mut server = Server::start();
    let relay = Relay::to(&server.address);
    std::fs::write(server.directory.path().join("source"), vec![b'x'; 64 << 20]).unwrap();
    let mut put = at(&server, &relay.address, &["put", "source", "/x"]);
    put.env("FSVC_RETRY_FOR", "1s")
        .stderr(std::process::Stdio::piped());
    let putting = put.spawn().unwrap();
    sent(&relay, 1 << 20);
    server.kill();
    let output = putting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("trying again"),
        "{}",
        text(&output.stderr)
    );
}
