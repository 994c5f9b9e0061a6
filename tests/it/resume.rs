//! Transfers that go on: whatever happens to the connection, the server or the other files meanwhile, what
//! arrives is one state of the file, once, and nothing is left behind.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fsvc::client::{Client, ClientError, Delta, Options, TransferOptions};
use fsvc::protocol::{Conditions, ErrorCode, FileInfo};
use serde_json::json;

use crate::cuts::{Random, at, client, count, leftovers, path, places, same};
use crate::harness::{Server, Setup, text};
use crate::messages::runtime;
use crate::raw::Raw;
use crate::relay::Relay;

const LIMIT: Duration = Duration::from_secs(30);
const SIZE: usize = 24 << 20;

/// A server, a relay to it, and a file of random bytes beside its root.
struct Ground {
    server: Server,
    relay: Relay,
    source: PathBuf,
    content: Vec<u8>,
}

impl Ground {
    fn of(size: usize) -> Self {
        Self::with(size, Setup::default())
    }

    fn with(size: usize, setup: Setup) -> Self {
        let server = Server::start_with(setup);
        let relay = Relay::to(&server.address);
        let source = server.directory.path().join("source");
        let content = Random(size as u64 | 1).content(size);
        std::fs::write(&source, &content).unwrap();
        Self {
            server,
            relay,
            source,
            content,
        }
    }

    /// A client that has reached the server.
    fn client(&self) -> Client {
        let client = client(&self.server, &self.relay, None);
        runtime().block_on(client.ping()).unwrap();
        client
    }

    fn local(&self, name: &str) -> PathBuf {
        self.server.directory.path().join(name)
    }

    /// A command of the program through the relay.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = at(&self.server, &self.relay.address, arguments);
        command.arg("--quiet");
        command
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Begins to put the source under a name; runs on a thread.
    fn put(
        &self,
        client: &Client,
        name: &str,
        options: TransferOptions,
    ) -> JoinHandle<Result<FileInfo, ClientError>> {
        let (client, source, name) = (client.clone(), self.source.clone(), path(name));
        std::thread::spawn(move || runtime().block_on(client.put_file(&source, &name, options)))
    }

    /// Begins to get a name into a local file; runs on a thread.
    fn get(
        &self,
        client: &Client,
        name: &str,
        local: &str,
    ) -> JoinHandle<Result<FileInfo, ClientError>> {
        let (client, local, name) = (client.clone(), self.local(local), path(name));
        let options = TransferOptions::default();
        std::thread::spawn(move || runtime().block_on(client.get_file(&name, &local, options)))
    }

    /// Nothing is staged, and nothing lies about.
    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(self.server.staged(), Vec::<String>::new());
        assert_eq!(
            leftovers(self.server.directory.path()),
            Vec::<String>::new()
        );
    }
}

#[test]
fn commands_that_are_cut_anywhere_come_right() {
    let ground = Ground::of(0);
    let (server, relay) = (&ground.server, &ground.relay);
    let mut random = Random(0xc0_ffee);
    let mut n_cuts = 0;
    for round in 0..count("FSVC_TEST_CUTS", 10) {
        let size = random.size();
        let content = random.content(size);
        std::fs::write(&ground.source, &content).unwrap();
        let name = format!("/c/{round}");
        for arguments in [["put", "source", &name], ["get", &name, "back"]] {
            // A server that was never reached is not waited for: no cut before the greeting.
            let mut cuts = places(&mut random, size);
            cuts[0] += 8_000;
            relay.cut_abruptly(random.below(2) == 0);
            relay.cut_after(&cuts);
            let output = ground.command(&arguments).output().unwrap();
            assert!(output.status.success(), "{round}: {}", text(&output.stderr));
            n_cuts += cuts.len() - relay.n_cuts_left();
            relay.cut_after(&[]);
        }
        same(&server.root().join(&name[1..]), &content);
        same(&ground.local("back"), &content);
        ground.is_clean();
        let state = ground.local("state/fsvc/transfers");
        let n_remembered = std::fs::read_dir(state).map_or(0, Iterator::count);
        assert_eq!(n_remembered, 0, "{round}");
    }
    assert!(n_cuts > 3, "only {n_cuts} cuts");
}

#[test]
fn a_small_file_comes_however_often_it_is_cut() {
    for size in [3 << 20, 900_000] {
        let ground = Ground::of(size);
        ground.server.put("/small", &ground.content);
        let client = ground.client();
        ground.relay.cut_after(&[600_000; 3]);
        let file = ground.get(&client, "/small", "back").join().unwrap();
        file.unwrap();
        same(&ground.local("back"), &ground.content);
        assert_eq!(ground.relay.n_cuts_left(), 0);
        ground.is_clean();
    }
    // More often than a file may change.
    let ground = Ground::of(4 << 20);
    ground.server.put("/small", &ground.content);
    let client = ground.client();
    ground.relay.cut_after(&[1_300_000; 12]);
    let file = ground.get(&client, "/small", "back").join().unwrap();
    file.unwrap();
    same(&ground.local("back"), &ground.content);
    ground.is_clean();
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once() {
    for size in [50_000, 5 << 20] {
        let ground = Ground::of(size);
        let options = TransferOptions {
            n_streams: Some(1),
            delta: Delta::Never,
            ..TransferOptions::default()
        };
        let put = |name: &str| {
            let put = ground.put(&ground.client(), name, options.clone());
            put.join().unwrap().unwrap()
        };
        // The cuts come where the answer to the change does, and a little before.
        put("/measured");
        let before = ground.relay.n_passed();
        let first = put("/measured").version.unwrap();
        let whole = ground.relay.n_passed() - before;
        let mut n_cuts = 0;
        let n = count("FSVC_TEST_CUTS", 16).max(16) as u64;
        for number in 0..n {
            ground.relay.cut_abruptly(number % 3 == 0);
            ground.relay.cut_after(&[whole - number * 1_200 / n - 1]);
            let file = put("/once");
            n_cuts += 1 - ground.relay.n_cuts_left();
            ground.relay.cut_after(&[]);
            assert_eq!(file.version, Some(first + 1 + number), "{number}");
        }
        assert!(n_cuts > 8, "{n_cuts} of {n}");
        same(&ground.server.root().join("once"), &ground.content);
        ground.is_clean();
    }
}

#[test]
fn a_server_that_drains_is_waited_for() {
    for is_put in [true, false] {
        let mut ground = Ground::of(SIZE);
        let client = ground.client();
        if !is_put {
            ground.server.put("/x", &ground.content);
        }
        ground.relay.hold_after(8 << 20);
        let moving = if is_put {
            ground.put(&client, "/x", TransferOptions::default())
        } else {
            ground.get(&client, "/x", "back")
        };
        ground.relay.wait_held();
        let mut idle = Raw::connect(&ground.server, "alice");
        ground.server.signal("TERM");
        assert_eq!(idle.answer()["error"]["code"], "shutting_down");
        ground.relay.release();
        assert_eq!(ground.server.wait(LIMIT).code(), Some(0));
        ground.server.restart();
        ground.relay.turn_to(&ground.server.address);
        moving.join().unwrap().unwrap();
        same(&ground.server.root().join("x"), &ground.content);
        if !is_put {
            same(&ground.local("back"), &ground.content);
        }
        ground.is_clean();
    }
}

#[test]
fn another_way_to_the_server_is_taken_when_one_is_gone() {
    for is_put in [true, false] {
        let ground = Ground::of(SIZE);
        let other = Relay::to(&ground.server.address);
        let both = format!("{},{}", ground.relay.address, other.address);
        let options = Options::from_directory(&both, ground.server.certs(), "dev");
        let client = Client::new(options).unwrap();
        if !is_put {
            ground.server.put("/x", &ground.content);
        }
        ground.relay.hold_after(8 << 20);
        let moving = if is_put {
            ground.put(&client, "/x", TransferOptions::default())
        } else {
            ground.get(&client, "/x", "back")
        };
        ground.relay.wait_held();
        ground.relay.close();
        ground.relay.release();
        moving.join().unwrap().unwrap();
        assert!(other.n_passed() < 22 << 20, "all was moved again");
        same(&ground.server.root().join("x"), &ground.content);
        ground.is_clean();
    }
}

/// Reads what a command says until it waits.
fn waits(child: &mut Child) {
    let said = BufReader::new(child.stderr.as_mut().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("trying again")));
}

/// Both connections that dev may have, once the server has seen the last ones end.
fn take_all(server: &Server) -> [Raw; 2] {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let taken = std::panic::catch_unwind(|| [(); 2].map(|()| Raw::connect(server, "dev")));
        match taken {
            Ok(taken) => return taken,
            Err(_) => assert!(Instant::now() < until, "there was never room for two"),
        }
    }
}

#[test]
fn a_busy_server_is_waited_for_also_before_the_first_greeting() {
    let arguments = ["--connections-per-identity-max", "2"].map(str::to_owned);
    let ground = Ground::with(
        SIZE,
        Setup {
            arguments: arguments.to_vec(),
            ..Setup::default()
        },
    );
    ground.server.put("/x", &ground.content);
    for arguments in [["put", "source", "/y"], ["get", "/x", "back"]] {
        let taken = take_all(&ground.server);
        let mut command = at(&ground.server, &ground.server.address, &arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        waits(&mut child);
        drop(taken);
        assert!(child.wait().unwrap().success());
    }
    same(&ground.server.root().join("y"), &ground.content);
    same(&ground.local("back"), &ground.content);
    ground.is_clean();
    // Only as long as it is said.
    let _taken = take_all(&ground.server);
    let mut command = at(&ground.server, &ground.server.address, &["get", "/x", "z"]);
    let output = command.env("FSVC_RETRY_FOR", "0s").output().unwrap();
    assert!(!output.status.success());
    assert!(!text(&output.stderr).contains("trying again"));
    ground.is_clean();
}

/// Takes an upload of dev away, as another program of the same identity may.
fn abort_all(server: &Server) -> usize {
    let mut raw = Raw::connect(server, "dev");
    let uploads = raw.ask(r#"{"id":1,"op":"uploads"}"#);
    let uploads = uploads["ok"]["uploads"].as_array().unwrap().clone();
    for upload in &uploads {
        let abort = json!({"id": 2, "op": "abort", "upload": upload["upload"]});
        // The upload that is being written to ends too.
        raw.ask(&abort.to_string());
    }
    uploads.len()
}

#[test]
fn an_upload_that_went_away_is_begun_again_but_not_for_ever() {
    let ground = Ground::of(SIZE);
    let client = ground.client();
    ground.relay.hold_after(8 << 20);
    let putting = ground.put(&client, "/x", TransferOptions::default());
    ground.relay.wait_held();
    assert_eq!(abort_all(&ground.server), 1);
    ground.relay.release();
    putting.join().unwrap().unwrap();
    same(&ground.server.root().join("x"), &ground.content);
    ground.is_clean();

    ground.relay.hold_after(8 << 20);
    let putting = ground.put(&client, "/y", TransferOptions::default());
    for _ in 0..3 {
        ground.relay.wait_held();
        assert_eq!(abort_all(&ground.server), 1);
        ground.relay.hold_after(12 << 20);
        ground.relay.wake();
    }
    ground.relay.release();
    let error = putting.join().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::UploadLost(_)), "{error}");
    assert!(std::fs::metadata(ground.server.root().join("y")).is_err());
    ground.is_clean();
}

#[test]
fn a_put_that_is_refused_at_the_end_leaves_nothing() {
    let ground = Ground::of(SIZE);
    ground.server.put("/x", b"first");
    ground.relay.hold_after(8 << 20);
    let mut command = ground.command(&["put", "source", "/x", "--if-version", "1"]);
    let putting = command.stderr(Stdio::piped()).spawn().unwrap();
    ground.relay.wait_held();
    ground.server.put("/x", b"second");
    ground.relay.release();
    let output = putting.wait_with_output().unwrap();
    assert!(!output.status.success());
    same(&ground.server.root().join("x"), b"second");
    // One that is refused at once leaves nothing either.
    let mut command = ground.command(&["put", "source", "/x", "--if-absent"]);
    assert!(!command.output().unwrap().status.success());
    ground.is_clean();
    let state = ground.local("state/fsvc/transfers");
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_replaced_while_it_is_fetched_is_not_stitched() {
    let ground = Ground::of(SIZE);
    let client = ground.client();
    ground.server.put("/x", &ground.content);
    let new = Random(99).content(SIZE);
    ground.relay.hold_after(8 << 20);
    let getting = ground.get(&client, "/x", "back");
    ground.relay.wait_held();
    ground.server.put("/x", &new);
    ground.relay.release();
    assert_eq!(getting.join().unwrap().unwrap().version, Some(2));
    same(&ground.local("back"), &new);
    ground.is_clean();
    // One that is asked for by its version is not another one, and one that is gone is gone.
    for is_removed in [false, true] {
        let options = TransferOptions {
            conditions: Conditions {
                if_version: (!is_removed).then_some(2),
                ..Conditions::default()
            },
            ..TransferOptions::default()
        };
        ground.relay.hold_after(8 << 20);
        let (client, local) = (client.clone(), ground.local("back"));
        let getting = std::thread::spawn(move || {
            runtime().block_on(client.get_file(&path("/x"), &local, options))
        });
        ground.relay.wait_held();
        if is_removed {
            ground.server.ok(&["rm", "/x"]);
        } else {
            ground.server.put("/x", &ground.content);
        }
        ground.relay.release();
        let code = getting.join().unwrap().unwrap_err().code();
        let expected = [ErrorCode::Changed, ErrorCode::NotFound][usize::from(is_removed)];
        assert_eq!(code, Some(expected));
        same(&ground.local("back"), &new);
        ground.is_clean();
    }
}

#[test]
fn a_small_file_that_is_replaced_by_a_shorter_one_has_no_end_of_the_longer_one() {
    for size in [900_000, 3 << 20] {
        let ground = Ground::of(size);
        let client = ground.client();
        ground.server.put("/x", &ground.content);
        ground.relay.hold_after(600_000);
        let getting = ground.get(&client, "/x", "back");
        ground.relay.wait_held();
        ground.server.put("/x", b"short");
        ground.relay.cut_now();
        ground.relay.release();
        assert_eq!(getting.join().unwrap().unwrap().version, Some(2));
        same(&ground.local("back"), b"short");
        ground.is_clean();
    }
}

#[test]
fn a_file_of_another_program_is_fetched_in_one_piece() {
    let ground = Ground::of(12 << 20);
    let client = ground.client();
    std::fs::write(ground.server.root().join("foreign"), &ground.content).unwrap();
    ground.relay.cut_after(&[100, 3 << 20, 11 << 20]);
    let got = ground.get(&client, "/foreign", "back").join().unwrap();
    assert_eq!(got.unwrap().version, None);
    same(&ground.local("back"), &ground.content);
    assert_eq!(ground.relay.n_cuts_left(), 0);
    ground.is_clean();
}

#[test]
fn a_base_that_goes_away_is_done_without() {
    let mut ground = Ground::of(SIZE);
    let client = ground.client();
    ground.server.put("/x", &ground.content);
    // Half of it is new, so that there is something to send.
    ground.content.truncate(SIZE / 4);
    ground
        .content
        .extend_from_slice(&Random(8).content(SIZE / 2));
    std::fs::write(&ground.source, &ground.content).unwrap();
    let options = TransferOptions {
        delta: Delta::Always,
        n_streams: Some(1),
        ..TransferOptions::default()
    };
    ground.relay.hold_after(4 << 20);
    let putting = ground.put(&client, "/x", options);
    ground.relay.wait_held();
    ground.server.put("/x", b"another");
    ground.relay.release();
    // The connection is cut as well, so that the base is asked for again.
    ground.relay.cut_now();
    assert_eq!(putting.join().unwrap().unwrap().version, Some(3));
    same(&ground.server.root().join("x"), &ground.content);
    ground.is_clean();
}

#[test]
fn a_base_that_rots_does_no_harm() {
    let mut ground = Ground::of(SIZE);
    let client = ground.client();
    ground.server.put("/x", &ground.content);
    // What is new comes first, so that the base is needed last.
    let new = Random(8).content(SIZE / 2);
    ground.content.splice(..SIZE / 2, new);
    std::fs::write(&ground.source, &ground.content).unwrap();
    let options = TransferOptions {
        delta: Delta::Always,
        n_streams: Some(1),
        ..TransferOptions::default()
    };
    let before = ground.relay.n_sent();
    ground.relay.hold_after(4 << 20);
    let putting = ground.put(&client, "/x", options);
    ground.relay.wait_held();
    let base = ground.server.root().join("x");
    let file = std::fs::OpenOptions::new().write(true).open(&base).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[0; 4096], SIZE as u64 - (2 << 20))
        .unwrap();
    file.set_modified(modified).unwrap();
    ground.relay.release();
    assert_eq!(putting.join().unwrap().unwrap().version, Some(2));
    same(&base, &ground.content);
    // Only the part that came out wrong was sent again.
    let n = ground.relay.n_sent() - before;
    assert!(n < (SIZE / 2 + (3 << 20)) as u64, "{n} bytes were sent");
    ground.is_clean();
}

/// Overwrites some bytes in the middle of the source, as an editor that writes in place.
fn touch(ground: &Ground, byte: u8) {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(&ground.source)
        .unwrap();
    file.write_all(&vec![byte; 2 << 20]).unwrap();
}

/// A slow relay would make it worth while to compare with what an earlier put has left there.
fn whole() -> TransferOptions {
    TransferOptions {
        delta: Delta::Never,
        ..TransferOptions::default()
    }
}

#[test]
fn a_file_that_changes_under_a_put_is_begun_again_once_then_refused() {
    let mut ground = Ground::of(SIZE);
    let client = ground.client();
    ground.relay.hold_after(8 << 20);
    let putting = ground.put(&client, "/x", whole());
    ground.relay.wait_held();
    touch(&ground, 1);
    ground.relay.release();
    putting.join().unwrap().unwrap();
    ground.content[..2 << 20].fill(1);
    same(&ground.server.root().join("x"), &ground.content);
    ground.is_clean();

    ground.relay.hold_after(8 << 20);
    let putting = ground.put(&client, "/x", whole());
    ground.relay.wait_held();
    touch(&ground, 2);
    ground.relay.hold_after(24 << 20);
    ground.relay.wake();
    ground.relay.wait_held();
    touch(&ground, 3);
    ground.relay.release();
    let error = putting.join().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::SourceChanged), "{error}");
    same(&ground.server.root().join("x"), &ground.content);
    ground.is_clean();
    // It may also have become shorter.
    ground.relay.hold_after(8 << 20);
    let putting = ground.put(&client, "/x", whole());
    ground.relay.wait_held();
    std::fs::write(&ground.source, b"short").unwrap();
    ground.relay.release();
    putting.join().unwrap().unwrap();
    same(&ground.server.root().join("x"), b"short");
    ground.is_clean();
}

#[test]
fn a_full_disk_is_not_waited_for_and_what_came_is_kept_where_it_is_remembered() {
    let fault = "store.part.write=ENOSPC@250";
    let mut ground = Ground::with(
        SIZE,
        Setup {
            fault: Some(fault.to_owned()),
            ..Setup::default()
        },
    );
    let client = ground.client();
    let put = ground.put(&client, "/x", TransferOptions::default());
    let error = put.join().unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
    ground.is_clean();

    ground.server.restart_with(Some(fault));
    ground.relay.turn_to(&ground.server.address);
    let output = ground.command(&["put", "source", "/x"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(
        ground.server.staged().len(),
        2,
        "the upload and its notes are kept"
    );
    ground.server.restart();
    ground.relay.turn_to(&ground.server.address);
    let before = ground.relay.n_sent();
    ground.ok(&["put", "source", "/x"]);
    let n = ground.relay.n_sent() - before;
    assert!(n < 16 << 20, "{n} bytes were sent again");
    same(&ground.server.root().join("x"), &ground.content);
    ground.is_clean();
}

#[test]
fn a_directory_in_the_place_of_the_file_leaves_no_part() {
    let ground = Ground::of(SIZE);
    ground.server.put("/x", &ground.content);
    let state = ground.local("state");
    let client = client(&ground.server, &ground.relay, Some(state.clone()));
    std::fs::create_dir(ground.local("back")).unwrap();
    let error = ground.get(&client, "/x", "back").join().unwrap();
    assert!(matches!(error, Err(ClientError::Sink(_))));
    ground.is_clean();
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

#[test]
fn what_is_there_is_not_read_again_by_the_next_run() {
    let ground = Ground::of(64 << 20);
    ground.relay.hold_after(56 << 20);
    let mut first = ground.command(&["put", "source", "/x"]).spawn().unwrap();
    ground.relay.wait_held();
    first.kill().unwrap();
    first.wait().unwrap();
    ground.relay.release();
    ground.relay.hold_after(2 << 20);
    let second = ground.command(&["put", "source", "/x"]).spawn().unwrap();
    ground.relay.wait_held();
    // Connections take some more than has passed the relay.
    let io = std::fs::read_to_string(format!("/proc/{}/io", second.id())).unwrap();
    let n_read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    let n_read: u64 = n_read.unwrap().parse().unwrap();
    assert!(n_read < 24 << 20, "{n_read} bytes were read");
    ground.relay.release();
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success());
    same(&ground.server.root().join("x"), &ground.content);
    ground.is_clean();
    ground.ok(&["get", "/x", "back"]);
    same(&ground.local("back"), &ground.content);
}
