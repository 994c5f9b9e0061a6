//! Uploads when something breaks: the server, the machine, the disk. A part that is said to be there has
//! the bytes that were hashed, and what belongs to nobody goes (P16.3, P16.4).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fsvc::content::ContentId;
use fsvc::digest::Digest;
use fsvc::identity::Identity;
use fsvc::ops::{Bounds, Parts, Service};
use fsvc::policy::Policy;
use fsvc::protocol::{Begin, Write as WriteParts};
use fsvc::topics::Topics;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::harness::{Server, Setup, everything};
use crate::raw::{Raw, code, frame};
use crate::retention::keep;
use crate::store_local::{n_staged, scratch};
use crate::uploads::{
    PART, ask, begin, commit, content, expected_parts, member, numbers, opening, parts,
    wait_for_parts, write,
};

const LIMIT: Duration = Duration::from_secs(30);

fn staging(server: &Server) -> PathBuf {
    server.root().join(".fsvc/staging")
}

fn with_fault(plan: &str) -> Server {
    Server::start_with(Setup {
        fault: Some(plan.to_owned()),
        ..Setup::default()
    })
}

/// Makes the notes of an upload those of another start of the machine: what was not synced is not sure.
fn cut_power(server: &mut Server, upload: &str) {
    server.kill();
    let path = staging(server).join(format!("{upload}.notes"));
    let mut notes = fs::read(&path).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = boot.trim().as_bytes();
    let at = notes.windows(boot.len()).position(|text| text == boot);
    let at = at.expect("the notes say which start of the machine it is");
    notes[at] = if notes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&path, notes).unwrap();
    server.restart();
}

/// Waits until a staged content begins with these bytes.
fn wait_for_bytes(path: &Path, bytes: &[u8]) {
    let until = Instant::now() + LIMIT;
    while !fs::read(path).unwrap().starts_with(bytes) {
        assert!(Instant::now() < until, "the bytes did not come");
    }
}

#[test]
fn an_upload_outlives_the_server() {
    let mut server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(4 * PART + 1, 20);
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, PART, &file[PART..3 * PART])["ok"].is_object());
    raw.send(&opening(&upload, 0, PART));
    raw.send(&frame(b'D', &file[..PART / 2]));
    // One that was there and is being written anew when the server dies.
    let mut other = Raw::connect(&server, "dev");
    other.send(&opening(&upload, 2 * PART, PART));
    other.send(&frame(b'D', &file[..PART / 2]));
    wait_for_parts(&mut Raw::connect(&server, "dev"), &upload, &[1]);
    server.restart();
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file)[1..2]);
    assert!(write(&mut raw, &upload, 0, &file[..PART])["ok"].is_object());
    server.restart();
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(numbers(&mut raw, &upload), [0, 1]);
    let answer = write(&mut raw, &upload, 2 * PART, &file[2 * PART..]);
    assert_eq!(answer["ok"]["n_parts"], 3);
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
    server.restart();
    assert!(server.get("/large") == file);
    assert_eq!(server.staged(), [""; 0]);
}

#[test]
fn after_a_power_cut_only_what_was_synced_is_there() {
    let mut server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(3 * PART, 21);
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &file[..PART])["ok"].is_object());
    // A start syncs what it finds.
    server.restart();
    let mut raw = Raw::connect(&server, "dev");
    assert!(write(&mut raw, &upload, PART, &file[PART..2 * PART])["ok"].is_object());
    assert_eq!(numbers(&mut raw, &upload), [0, 1]);
    cut_power(&mut server, &upload);
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file)[..1]);
    assert!(write(&mut raw, &upload, PART, &file[PART..])["ok"].is_object());
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
    assert!(server.get("/large") == file);
}

#[test]
fn a_start_sweeps_what_belongs_to_nobody() {
    let mut server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(2 * PART, 22);
    let [kept, torn, headless, bare] = [(); 4].map(|()| begin(&mut raw, "/large", file.len()));
    for upload in [&kept, &torn] {
        assert!(write(&mut raw, upload, 0, &file)["ok"].is_object());
    }
    server.kill();
    let staging = staging(&server);
    let at = |name: &str| staging.join(name);
    // Half a note at the end of one; one whose first line was cut; one that lost its notes.
    let notes = fs::OpenOptions::new()
        .append(true)
        .open(at(&format!("{torn}.notes")));
    notes.unwrap().write_all(&[7; 13]).unwrap();
    let path = at(&format!("{headless}.notes"));
    let cut = fs::read(&path).unwrap()[..40].to_vec();
    fs::write(&path, cut).unwrap();
    fs::remove_file(at(&format!("{bare}.notes"))).unwrap();
    let name = |digit: &str| digit.repeat(32);
    for lonely in [
        name("a"),
        format!("{}.notes", name("b")),
        format!("{}.notes-new", name("c")),
        format!("{kept}.notes-new"),
    ] {
        fs::write(at(&lonely), b"nobody's").unwrap();
    }
    server.restart();
    let mut left = server.staged();
    left.sort();
    let mut expected: Vec<String> = [&kept, &torn]
        .iter()
        .flat_map(|upload| [(*upload).clone(), format!("{upload}.notes")])
        .collect();
    expected.sort();
    assert_eq!(left, expected);
    let mut raw = Raw::connect(&server, "dev");
    for upload in [&kept, &torn] {
        assert_eq!(parts(&mut raw, upload), expected_parts(&file));
        let path = format!("/{upload}");
        assert!(commit(&mut raw, &[member(&path, upload, &file)])["ok"].is_object());
        assert!(server.get(&path) == file);
    }
    for upload in [&headless, &bare] {
        let answer = ask(
            &mut raw,
            &json!({"id": 1, "op": "status", "upload": upload}),
        );
        assert_eq!(code(&answer), "not_found");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_part_costs_that_part() {
    let mut server = Server::start();
    // Pieces are at most so large that a part has several.
    server.restart_with(Some("store.part.write=ENOSPC@10"));
    let mut raw = Raw::connect(&server, "dev");
    let file = content(4 * PART, 23);
    let upload = begin(&mut raw, "/large", file.len());
    assert_eq!(code(&write(&mut raw, &upload, 0, &file)), "unavailable");
    raw.lives();
    let there = numbers(&mut raw, &upload);
    assert!(there.len() < 4, "{there:?}");
    assert_eq!(
        parts(&mut raw, &upload),
        expected_parts(&file)[..there.len()]
    );
    let from = there.len() * PART;
    assert!(write(&mut raw, &upload, from, &file[from..])["ok"].is_object());
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
    assert!(server.get("/large") == file);
}

/// The note that a part is being written anew does not get to the disk, then the server dies in the
/// middle of that part: nobody may believe that it is still there as it was.
#[cfg(debug_assertions)]
#[test]
fn a_note_that_failed_makes_no_part_be_there() {
    // The notes: the first line, two parts, that one is written anew.
    let mut server = with_fault("store.note.write=ENOSPC@4");
    let mut raw = Raw::connect(&server, "dev");
    let (file, wrong) = (content(2 * PART, 24), content(PART, 25));
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    assert_eq!(code(&write(&mut raw, &upload, 0, &wrong)), "unavailable");
    // As a write that failed half-way leaves it.
    let staged = staging(&server).join(&upload);
    let notes = fs::OpenOptions::new()
        .append(true)
        .open(staged.with_extension("notes"));
    notes.unwrap().write_all(&[7; 13]).unwrap();
    raw.send(&opening(&upload, 0, PART));
    raw.send(&frame(b'D', &wrong[..PART / 2]));
    wait_for_bytes(&staged, &wrong[..100]);
    server.restart();
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file)[1..]);
    assert!(write(&mut raw, &upload, 0, &file[..PART])["ok"].is_object());
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
    assert!(server.get("/large") == file);
}

#[cfg(debug_assertions)]
#[test]
fn a_sync_that_failed_ends_all_changes() {
    for plan in ["store.note.sync=EIO@2", "store.seal.fsync=EIO@1"] {
        let mut server = with_fault(plan);
        let mut raw = Raw::connect(&server, "dev");
        let file = content(2 * PART, 26);
        let upload = begin(&mut raw, "/large", file.len());
        assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
        let failed = if plan.starts_with("store.note") {
            write(&mut raw, &upload, 0, &file)
        } else {
            commit(&mut raw, &[member("/large", &upload, &file)])
        };
        assert_eq!(code(&failed), "internal", "{plan}");
        assert_eq!(code(&write(&mut raw, &upload, 0, &file)), "unavailable");
        let answer = commit(&mut raw, &[member("/large", &upload, &file)]);
        assert!(answer["error"].is_object(), "{plan}: {answer}");
        server.fails(3, &["stat", "/large"]);
        server.restart();
        let mut raw = Raw::connect(&server, "dev");
        assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
        assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
    }
    let mut server = Server::start();
    let file = content(2 * PART, 26);
    let mut raw = Raw::connect(&server, "dev");
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    server.restart_dies_of("store.part.sync=EIO");
    server.restart();
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file));
}

/// The log names the upload, the tree does not have it yet: nobody may touch it any more.
#[cfg(debug_assertions)]
#[test]
fn what_the_log_names_is_not_written_to() {
    for plan in ["store.publish.rename=EIO@1", "commit.append.after=abort@1"] {
        let mut server = with_fault(plan);
        let (mut raw, mut other) = (Raw::connect(&server, "dev"), Raw::connect(&server, "dev"));
        let (file, wrong) = (content(2 * PART, 27), content(2 * PART, 28));
        let upload = begin(&mut raw, "/large", file.len());
        assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
        // A writer that holds the file open, and has not begun a part.
        other.send(&opening(&upload, 0, 2 * PART));
        let lines = [member("/large", &upload, &file)];
        if plan.starts_with("store") {
            assert_eq!(code(&commit(&mut raw, &lines)), "unavailable");
            other.send(&frame(b'D', &wrong[..PART]));
            other.send(&frame(b'D', &wrong[PART..]));
            other.send(&frame(
                b'E',
                json!({"size": 2 * PART}).to_string().as_bytes(),
            ));
            let refused = other.answer();
            assert!(
                ["busy", "unavailable"].contains(&code(&refused)),
                "{refused}"
            );
            assert_eq!(code(&commit(&mut raw, &lines)), "busy");
        } else {
            raw.send(&crate::raw::message(r#"{"id":4,"op":"commit"}"#));
            raw.send(&crate::raw::body(lines[0].to_string().as_bytes()));
            server.wait(LIMIT);
        }
        server.restart();
        assert!(server.get("/large") == file, "{plan}");
        assert_eq!(server.staged(), [""; 0]);
        let mut raw = Raw::connect(&server, "dev");
        let answer = ask(
            &mut raw,
            &json!({"id": 1, "op": "status", "upload": upload}),
        );
        assert_eq!(code(&answer), "not_found");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_commit_that_the_log_refused_leaves_the_upload() {
    let mut server = with_fault("commit.append=EIO@1");
    let mut raw = Raw::connect(&server, "dev");
    let file = content(2 * PART, 29);
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    let members = [member("/large", &upload, &file)];
    assert_eq!(code(&commit(&mut raw, &members)), "internal");
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file));
    assert!(commit(&mut raw, &members)["ok"].is_object());
    server.restart();
    assert!(server.get("/large") == file);
}

/// Notes that are written again and again are written anew before they grow without end.
#[test]
fn notes_stay_short() {
    const ROUNDS: usize = 600;
    let scratch = scratch();
    let mut server = Server::start_with(Setup {
        root: Some(scratch.path().join("root")),
        ..Setup::default()
    });
    let mut raw = Raw::connect(&server, "dev");
    let file = content(PART + 1, 30);
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    let notes = staging(&server).join(format!("{upload}.notes"));
    let mut longest = 0;
    for _ in 0..ROUNDS {
        assert!(write(&mut raw, &upload, PART, &file[PART..])["ok"].is_object());
        longest = fs::metadata(&notes).unwrap().len().max(longest);
    }
    // Two notes a round, 44 bytes each.
    assert!(longest < 2 * 44 * ROUNDS as u64, "{longest}");
    cut_power(&mut server, &upload);
    // What was written anew since is not sure; the other one is.
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file)[..1]);
}

fn who(name: &str) -> Identity {
    Identity {
        id: format!("spiffe://test.internal/client/{name}")
            .parse()
            .unwrap(),
        serial: "1".to_owned(),
        ca: "CN=test".to_owned(),
        valid_from: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::MAX,
    }
}

fn open(parts: &Parts) -> Service {
    let bounds = Bounds {
        file_size_max: u64::MAX,
        keep_uploads: Duration::from_secs(60),
    };
    let retention = (keep().messages)(&"short".parse().unwrap());
    let topics = std::sync::Arc::new(Topics::none(retention));
    let policy = Policy::parse(&everything()).unwrap();
    Service::open(parts.clone(), policy, topics, bounds)
        .unwrap()
        .0
}

fn begin_at(service: &Service) -> ContentId {
    let begin = Begin {
        path: "/large".parse().unwrap(),
        size: 2 * PART as u64,
        if_absent: false,
        if_version: None,
        base: None,
        request_id: None,
    };
    let taken = service.begin_upload(&who("dev"), &begin).unwrap();
    let left = taken.expires_at.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_secs(50) && left <= SignedDuration::from_secs(60));
    taken.upload
}

/// Who hears that an upload is no more finds nothing of it on the disk.
#[test]
fn an_upload_is_known_until_its_files_are_gone() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let service = open(&crate::attachments::parts(&root));
    for _ in 0..200 {
        let upload = begin_at(&service);
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| service.abort_upload(&who("dev"), upload));
            while service.upload_status(&who("dev"), upload, 0).is_ok() {
                std::thread::yield_now();
            }
            assert_eq!(n_staged(&root), 0);
            ending.join().unwrap().unwrap();
        });
    }
}

/// The time counts from the last part, also over a restart, and not while somebody is at one.
#[test]
fn an_upload_that_nobody_goes_on_with_goes() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let state = crate::attachments::parts(&root);
    let service = open(&state);
    let after = |seconds| Timestamp::now() + SignedDuration::from_secs(seconds);
    let [idle, busy] = [(); 2].map(|()| begin_at(&service));
    let planned = WriteParts {
        upload: busy,
        offset: 0,
        size: PART as u64,
        patch: false,
        encoding: None,
    };
    let mut writer = service.plan_write(&who("dev"), &planned).unwrap();
    writer.write(b"the beginning of a part").unwrap();
    service.expire(after(30));
    assert_eq!(service.list_uploads(&who("dev"), None).uploads.len(), 2);
    service.expire(after(90));
    let left = service.list_uploads(&who("dev"), None).uploads;
    assert_eq!(
        left.iter().map(|one| one.upload).collect::<Vec<_>>(),
        [busy]
    );
    assert!(service.upload_status(&who("dev"), idle, 0).is_err());
    assert_eq!(n_staged(&root), 2);
    drop(writer);
    drop(service);
    let service = open(&state);
    service.expire(after(30));
    assert_eq!(n_staged(&root), 2);
    service.expire(after(90));
    assert_eq!(n_staged(&root), 0);
    assert!(service.upload_status(&who("dev"), busy, 0).is_err());
}

/// The same by the server's own flag and clock.
#[test]
fn the_server_gives_up_what_its_flag_says() {
    let server = Server::start_with(Setup {
        arguments: vec!["--keep-uploads".to_owned(), "1s".to_owned()],
        ..Setup::default()
    });
    let mut raw = Raw::connect(&server, "dev");
    let upload = begin(&mut raw, "/large", 2 * PART);
    let until = Instant::now() + LIMIT;
    let request = json!({"id": 1, "op": "status", "upload": upload});
    while ask(&mut raw, &request)["ok"].is_object() {
        assert!(Instant::now() < until, "it lives for ever");
    }
    assert_eq!(server.staged(), [""; 0]);
    let digest = Digest::of(b"").to_string();
    let line = json!({"path": "/large", "staged": upload, "digest": digest});
    assert_eq!(code(&commit(&mut raw, &[line])), "not_found");
}
