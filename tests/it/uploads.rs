//! Uploads in parts, over the wire: what arrived whole counts, nothing is visible before its commit, and
//! nobody but the owner can see or use one (P16).

use std::time::{Duration, Instant};

use fsvc::digest::{Digest, PartHasher};
use serde_json::{Value, json};

use crate::harness::{Server, Setup, everything};
use crate::raw::{Raw, body, code, frame, message, snapshot};
use crate::store_local::scratch;

/// Bytes of a part of a small file.
pub const PART: usize = 1 << 20;
/// How long something that must come is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Bytes that are like no others.
pub fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A request, whatever comes of it.
pub fn ask(raw: &mut Raw, request: &Value) -> Value {
    raw.ask(&request.to_string())
}

/// Begins an upload that must be taken; its name.
#[track_caller]
pub fn begin(raw: &mut Raw, path: &str, size: usize) -> String {
    let request = json!({"id": 1, "op": "begin", "path": path, "size": size});
    let answer = ask(raw, &request);
    assert_eq!(answer["ok"]["part_size"], PART, "{answer}");
    answer["ok"]["upload"].as_str().unwrap().to_owned()
}

/// What opens a write, without its body.
pub fn opening(upload: &str, offset: usize, size: usize) -> Vec<u8> {
    let request = json!({"id": 2, "op": "write", "upload": upload, "offset": offset, "size": size});
    message(&request.to_string())
}

/// A body with the trailer of a range.
pub fn range_body(bytes: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for piece in bytes.chunks(1 << 16) {
        sent.extend(frame(b'D', piece));
    }
    sent.extend(frame(
        b'E',
        json!({"size": bytes.len()}).to_string().as_bytes(),
    ));
    sent
}

/// Writes parts of a file; the answer.
pub fn write(raw: &mut Raw, upload: &str, offset: usize, bytes: &[u8]) -> Value {
    raw.send(&opening(upload, offset, bytes.len()));
    raw.send(&range_body(bytes));
    raw.answer()
}

/// The parts that are there, each with its digest.
#[track_caller]
pub fn parts(raw: &mut Raw, upload: &str) -> Vec<(u64, String)> {
    let answer = ask(raw, &json!({"id": 3, "op": "status", "upload": upload}));
    let parts = answer["ok"]["parts"].as_array();
    let parts = parts.unwrap_or_else(|| panic!("no status: {answer}"));
    let parts: Vec<_> = parts
        .iter()
        .map(|part| {
            let digest = part["digest"].as_str().unwrap().to_owned();
            (part["number"].as_u64().unwrap(), digest)
        })
        .collect();
    assert_eq!(answer["ok"]["n_parts"], parts.len());
    parts
}

/// The numbers of the parts that are there.
#[track_caller]
pub fn numbers(raw: &mut Raw, upload: &str) -> Vec<u64> {
    let parts = parts(raw, upload);
    parts.into_iter().map(|(number, _)| number).collect()
}

/// Waits until these parts are there, and no others.
#[track_caller]
pub fn wait_for_parts(raw: &mut Raw, upload: &str, expected: &[u64]) {
    let until = Instant::now() + LIMIT;
    while numbers(raw, upload) != expected {
        assert!(Instant::now() < until, "the parts are not {expected:?}");
    }
}

/// What `status` must say of a file.
pub fn expected_parts(file: &[u8]) -> Vec<(u64, String)> {
    let parts = file.chunks(PART).enumerate().map(|(number, bytes)| {
        let mut hasher = PartHasher::at((number * PART) as u64);
        hasher.update(bytes);
        (number as u64, hasher.digest().to_string())
    });
    parts.collect()
}

/// Commits a set of these members.
pub fn commit(raw: &mut Raw, members: &[Value]) -> Value {
    commit_as(raw, None, members)
}

fn commit_as(raw: &mut Raw, request_id: Option<&str>, members: &[Value]) -> Value {
    let mut request = json!({"id": 4, "op": "commit"});
    if let Some(request_id) = request_id {
        request["request_id"] = json!(request_id);
    }
    let lines: Vec<String> = members.iter().map(Value::to_string).collect();
    raw.send(&message(&request.to_string()));
    raw.send(&body(lines.join("\n").as_bytes()));
    raw.answer()
}

/// The member that puts an upload.
pub fn member(path: &str, upload: &str, file: &[u8]) -> Value {
    json!({"path": path, "staged": upload, "digest": Digest::of(file).to_string()})
}

/// A policy with these rights of dev, and all rights of alice.
pub fn rights(dev: &str) -> String {
    let grant = |who: &str, allow: &str| {
        let to = format!("spiffe://test.internal/client/{who}");
        format!("[[grant]]\nto = \"{to}\"\nallow = [{allow}]\non = \"/**\"\n")
    };
    let all = r#""list", "read", "create", "replace", "delete""#;
    grant("dev", dev) + &grant("alice", all)
}

#[test]
fn parts_in_any_order_over_two_connections_make_the_file() {
    let server = Server::start();
    let mut raws = [(); 2].map(|()| Raw::connect(&server, "dev"));
    let file = content(4 * PART + 123, 1);
    let before = snapshot(&server.root());
    let upload = begin(&mut raws[0], "/in/large", file.len());
    let listed = ask(&mut raws[1], &json!({"id": 5, "op": "uploads"}));
    assert_eq!(listed["ok"]["uploads"][0]["upload"], upload.as_str());
    assert_eq!(listed["ok"]["uploads"][0]["path"], "/in/large");
    for (n, from, to) in [(1, 3, 5), (0, 1, 3), (1, 0, 1)] {
        let (from, to) = (from * PART, file.len().min(to * PART));
        let answer = write(&mut raws[n], &upload, from, &file[from..to]);
        assert_eq!(answer["ok"]["n_parts"], (to - from).div_ceil(PART));
    }
    assert_eq!(parts(&mut raws[0], &upload), expected_parts(&file));
    assert_eq!(snapshot(&server.root()), before);
    let answer = commit(&mut raws[1], &[member("/in/large", &upload, &file)]);
    assert_eq!(answer["ok"]["n_members"], 1, "{answer}");
    let digest = Digest::of(&file).to_string();
    assert_eq!(answer["ok"]["file"]["digest"], digest);
    assert_eq!(answer["ok"]["file"]["version"], answer["ok"]["sequence"]);
    assert!(server.get("/in/large") == file);
    assert_eq!(server.staged(), [""; 0]);
    let listed = ask(&mut raws[0], &json!({"id": 5, "op": "uploads"}));
    assert_eq!(listed["ok"]["uploads"], json!([]));
    let gone = ask(
        &mut raws[0],
        &json!({"id": 6, "op": "status", "upload": upload}),
    );
    assert_eq!(code(&gone), "not_found");
}

#[test]
fn a_body_that_breaks_off_leaves_the_parts_that_came_whole() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(3 * PART, 2);
    let upload = begin(&mut raw, "/large", file.len());
    let mut other = Raw::connect(&server, "dev");
    other.send(&opening(&upload, 0, file.len()));
    for piece in file[..PART + PART / 2].chunks(1 << 16) {
        other.send(&frame(b'D', piece));
    }
    wait_for_parts(&mut raw, &upload, &[0]);
    other.cut();
    let answer = write(&mut raw, &upload, PART, &file[PART..]);
    assert_eq!(answer["ok"]["n_parts"], 2, "{answer}");
    let answer = commit(&mut raw, &[member("/large", &upload, &file)]);
    assert!(answer["ok"].is_object(), "{answer}");
    assert!(server.get("/large") == file);
}

#[test]
fn a_begin_that_cannot_end_well_is_refused() {
    let setup = Setup {
        arguments: vec!["--size-max".to_owned(), "64MiB".to_owned()],
        ..Setup::default()
    };
    let server = Server::start_with(setup);
    server.put("/there", b"old");
    let mut raw = Raw::connect(&server, "dev");
    let version = ask(&mut raw, &json!({"id": 1, "op": "stat", "path": "/there"}))["ok"]["version"]
        .as_u64()
        .unwrap();
    let (two, none) = (2 * PART, json!({}));
    for (path, size, more, expected) in [
        ("/a", 0, none.clone(), "bad_request"),
        ("/a", 1, none.clone(), "bad_request"),
        ("/a", PART, none.clone(), "bad_request"),
        ("/a", (64 << 20) + 1, none.clone(), "too_large"),
        ("/a", (1 << 53) - 1, none.clone(), "too_large"),
        ("/a/", two, none.clone(), "bad_request"),
        ("/.fsvc/staging/x", two, none, "bad_request"),
        ("/there", two, json!({"if_absent": true}), "exists"),
        ("/there", two, json!({"if_version": version + 1}), "changed"),
        ("/gone", two, json!({"if_version": version}), "changed"),
        ("/gone", two, json!({"base": version}), "not_found"),
        ("/there", two, json!({"base": version + 1}), "changed"),
        (
            "/a",
            two,
            json!({"if_absent": true, "if_version": 1}),
            "bad_request",
        ),
        ("/a", two, json!({"parts": 2}), "bad_request"),
    ] {
        let mut request = json!({"id": 1, "op": "begin", "path": path, "size": size});
        for (key, value) in more.as_object().unwrap() {
            request[key] = value.clone();
        }
        let answer = ask(&mut raw, &request);
        assert_eq!(code(&answer), expected, "{request}: {answer}");
    }
    assert_eq!(server.staged(), [""; 0]);
    raw.lives();
}

#[test]
fn a_write_that_is_no_run_of_parts_is_refused() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(2 * PART + 9, 3);
    let upload = begin(&mut raw, "/large", file.len());
    let most = (1_u64 << 53) - 1;
    let (part, end) = (PART as u64, file.len() as u64);
    for (offset, size) in [
        (0, 0),
        (1, part),
        (0, part - 1),
        (0, part + 1),
        (part, part / 2),
        (2 * part, 10),
        (2 * part, 8),
        (0, end + 1),
        (0, 4 * part),
        (3 * part, 9),
        (end, 1),
        (0, most),
        (most, most),
        (most / part * part, part),
    ] {
        let request =
            json!({"id": 2, "op": "write", "upload": upload, "offset": offset, "size": size});
        raw.send(&message(&request.to_string()));
        raw.send(&range_body(b"x"));
        assert_eq!(code(&raw.answer()), "bad_request", "{offset} {size}");
    }
    let patch =
        json!({"id": 2, "op": "write", "upload": upload, "offset": 0, "size": part, "patch": true});
    raw.send(&message(&patch.to_string()));
    raw.send(&range_body(b"x"));
    assert_eq!(code(&raw.answer()), "bad_request");
    assert_eq!(numbers(&mut raw, &upload), [0; 0]);
    raw.lives();
}

#[test]
fn a_body_must_be_as_long_as_it_was_announced() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(2 * PART + 9, 4);
    let upload = begin(&mut raw, "/large", file.len());
    let end = |text: Value| frame(b'E', text.to_string().as_bytes());
    let one = || [frame(b'D', &file[..PART])].concat();
    let digest = Digest::of(&file[..PART]).to_string();
    for (announced, sent, there) in [
        // Too short: inside the first part, and inside the second.
        (
            PART,
            [frame(b'D', &file[..9]), end(json!({"size": 9}))],
            vec![],
        ),
        (2 * PART, [one(), end(json!({"size": PART}))], vec![0]),
        // A byte too many, a trailer that says something else, a body given up.
        (
            PART,
            [
                [one(), frame(b'D', b"x")].concat(),
                end(json!({"size": PART + 1})),
            ],
            vec![0],
        ),
        (PART, [one(), end(json!({"size": PART - 1}))], vec![0]),
        (PART, [one(), end(json!({"abort": "unavailable"}))], vec![0]),
        // A digest that nobody would look at.
        (
            PART,
            [one(), end(json!({"size": PART, "digest": digest}))],
            vec![0],
        ),
    ] {
        raw.send(&opening(&upload, 0, announced));
        raw.send(&sent.concat());
        assert_eq!(code(&raw.answer()), "bad_request");
        assert_eq!(numbers(&mut raw, &upload), there);
    }
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    let answer = commit(&mut raw, &[member("/large", &upload, &file)]);
    assert!(answer["ok"].is_object(), "{answer}");
}

#[test]
fn a_digest_that_does_not_fit_shows_which_part_differs() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(4 * PART, 5);
    let upload = begin(&mut raw, "/large", file.len());
    let mut spoiled = file.clone();
    spoiled[2 * PART + 77] ^= 1;
    assert!(write(&mut raw, &upload, 0, &spoiled)["ok"].is_object());
    let members = [member("/large", &upload, &file)];
    assert_eq!(code(&commit(&mut raw, &members)), "digest_mismatch");
    let (found, wanted) = (parts(&mut raw, &upload), expected_parts(&file));
    let differ: Vec<u64> = found
        .iter()
        .zip(&wanted)
        .filter(|(found, wanted)| found != wanted)
        .map(|(found, _)| found.0)
        .collect();
    assert_eq!(differ, [2]);
    let again = write(&mut raw, &upload, 2 * PART, &file[2 * PART..3 * PART]);
    assert_eq!(again["ok"]["n_parts"], 1);
    assert!(commit(&mut raw, &members)["ok"].is_object());
    assert!(server.get("/large") == file);
}

#[test]
fn an_upload_that_is_not_whole_is_not_committed() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(3 * PART, 6);
    let upload = begin(&mut raw, "/large", file.len());
    let before = snapshot(&server.root());
    for number in [0, 2] {
        let answer = write(
            &mut raw,
            &upload,
            number * PART,
            &file[number * PART..][..PART],
        );
        assert!(answer["ok"].is_object(), "{answer}");
    }
    let answer = commit(&mut raw, &[member("/large", &upload, &file)]);
    assert_eq!(code(&answer), "bad_request");
    let said = answer["error"]["message"].as_str().unwrap();
    assert!(
        said.contains("2 of 3") && said.contains("not part 1"),
        "{said}"
    );
    assert!(write(&mut raw, &upload, PART, &file[PART..2 * PART])["ok"].is_object());
    let without = json!({"path": "/large", "staged": upload});
    assert_eq!(code(&commit(&mut raw, &[without])), "bad_request");
    let nonsense = json!({"path": "/large", "staged": "nonsense"});
    assert_eq!(code(&commit(&mut raw, &[nonsense])), "bad_request");
    assert_eq!(snapshot(&server.root()), before);
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
}

#[test]
fn nobody_else_can_see_or_use_an_upload() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let mut foreign = Raw::connect(&server, "alice");
    let file = content(2 * PART, 7);
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    let nobodys = "0".repeat(32);
    for name in [&upload, &nobodys] {
        for op in ["status", "abort"] {
            let answer = ask(&mut foreign, &json!({"id": 1, "op": op, "upload": name}));
            assert_eq!(code(&answer), "not_found");
        }
        assert_eq!(
            code(&write(&mut foreign, name, 0, &file[..PART])),
            "not_found"
        );
        let answer = commit(&mut foreign, &[member("/large", name, &file)]);
        assert_eq!(code(&answer), "not_found");
        assert!(!answer.to_string().contains("dev"), "{answer}");
    }
    let listed = ask(&mut foreign, &json!({"id": 5, "op": "uploads"}));
    assert_eq!(listed["ok"]["uploads"], json!([]));
    // It is as it was.
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file));
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
}

#[test]
fn the_rights_are_those_of_a_put() {
    let file = content(2 * PART, 8);
    let uploaded = |server: &Server, path: &str| {
        let mut raw = Raw::connect(server, "dev");
        let upload = begin(&mut raw, path, file.len());
        assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
        let members = [member(path, &upload, &file)];
        (raw, members)
    };
    let put = |server: &Server, path: &str| {
        let mut alice = server.client("alice", &["put", "-", path]);
        assert!(
            crate::harness::with_input(&mut alice, b"hers")
                .status
                .success()
        );
    };
    let refused = |server: &Server, path: &str| {
        let request = json!({"id": 1, "op": "begin", "path": path, "size": 2 * PART});
        let answer = ask(&mut Raw::connect(server, "dev"), &request);
        assert_eq!(code(&answer), "denied");
    };
    let server = Server::with_policy(&rights(r#""create", "list""#));
    let (mut raw, members) = uploaded(&server, "/new");
    put(&server, "/new");
    assert_eq!(code(&commit(&mut raw, &members)), "denied");
    refused(&server, "/new");
    let mut other = members.clone();
    other[0]["path"] = json!("/newer");
    assert!(commit(&mut raw, &other)["ok"].is_object());

    let server = Server::with_policy(&rights(r#""replace", "list""#));
    refused(&server, "/old");
    put(&server, "/old");
    let (mut raw, members) = uploaded(&server, "/old");
    let mut other = members.clone();
    other[0]["path"] = json!("/new");
    assert_eq!(code(&commit(&mut raw, &other)), "denied");
    assert!(commit(&mut raw, &members)["ok"].is_object());

    let server = Server::with_policy(&rights(r#""read", "list", "delete""#));
    refused(&server, "/new");
    assert_eq!(server.staged(), [""; 0]);
}

#[test]
fn conditions_are_looked_at_again_by_the_commit() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let file = content(2 * PART, 9);
    let upload = begin(&mut raw, "/new", file.len());
    assert!(write(&mut raw, &upload, 0, &file)["ok"].is_object());
    server.put("/new", b"somebody was faster");
    let mut absent = member("/new", &upload, &file);
    absent["if_absent"] = json!(true);
    assert_eq!(code(&commit(&mut raw, &[absent])), "exists");
    let mut version = member("/new", &upload, &file);
    version["if_version"] = json!(999);
    assert_eq!(code(&commit(&mut raw, &[version])), "changed");
    assert_eq!(server.get("/new"), b"somebody was faster");
    // Refused twice, it is as whole as before.
    assert_eq!(numbers(&mut raw, &upload), [0, 1]);
    assert!(commit(&mut raw, &[member("/new", &upload, &file)])["ok"].is_object());
    assert!(server.get("/new") == file);
}

#[test]
fn an_abort_leaves_nothing() {
    let server = Server::start();
    let (mut raw, mut other) = (Raw::connect(&server, "dev"), Raw::connect(&server, "dev"));
    let file = content(3 * PART, 10);
    let upload = begin(&mut raw, "/large", file.len());
    // Somebody is in the middle of a part.
    other.send(&opening(&upload, 0, 2 * PART));
    other.send(&frame(b'D', &file[..PART]));
    other.send(&frame(b'D', &file[PART..PART + 9]));
    wait_for_parts(&mut raw, &upload, &[0]);
    let answer = ask(&mut raw, &json!({"id": 7, "op": "abort", "upload": upload}));
    assert_eq!(answer["ok"], json!({}));
    assert_eq!(server.staged(), [""; 0]);
    other.send(&frame(b'D', &file[PART + 9..2 * PART]));
    other.send(&frame(
        b'E',
        json!({"size": 2 * PART}).to_string().as_bytes(),
    ));
    assert_eq!(code(&other.answer()), "busy");
    other.lives();
    for request in [
        json!({"id": 7, "op": "abort", "upload": upload}),
        json!({"id": 7, "op": "status", "upload": upload}),
    ] {
        assert_eq!(code(&ask(&mut raw, &request)), "not_found");
    }
    assert_eq!(code(&write(&mut raw, &upload, 0, &file)), "not_found");
    let answer = commit(&mut raw, &[member("/large", &upload, &file)]);
    assert_eq!(code(&answer), "not_found");
    assert_eq!(server.staged(), [""; 0]);
}

#[test]
fn what_was_staged_can_be_given_up_by_its_owner() {
    let server = Server::with_policy(&everything());
    let (mut raw, mut other) = (Raw::connect(&server, "dev"), Raw::connect(&server, "bob"));
    let staged: Vec<String> = (0..3).map(|_| stage(&mut raw, b"content")).collect();
    let aborting = |staged: &[String]| json!({"id": 7, "op": "abort", "staged": staged});
    assert_eq!(ask(&mut other, &aborting(&staged))["ok"], json!({}));
    assert_eq!(server.staged().len(), 3);
    let upload = begin(&mut raw, "/large", 2 * PART);
    let name = &staged[0];
    let wrong = [
        json!({"id": 7, "op": "abort"}),
        json!({"id": 7, "op": "abort", "staged": []}),
        json!({"id": 7, "op": "abort", "upload": upload, "staged": [name]}),
        json!({"id": 7, "op": "abort", "staged": name}),
        json!({"id": 7, "op": "abort", "staged": ["../a"]}),
    ];
    for request in &wrong {
        assert_eq!(code(&ask(&mut raw, request)), "bad_request", "{request}");
    }
    let many = vec![name.clone(); 1_025];
    assert_eq!(code(&ask(&mut raw, &aborting(&many))), "quota");
    // An upload is not what was staged.
    assert_eq!(
        ask(&mut raw, &aborting(std::slice::from_ref(&upload)))["ok"],
        json!({})
    );
    assert_eq!(numbers(&mut raw, &upload), [0; 0]);
    assert_eq!(server.staged().len(), 5);
    // Those that are gone already are passed over.
    for n in [2, 3, 3] {
        assert_eq!(ask(&mut raw, &aborting(&staged[..n]))["ok"], json!({}));
        assert_eq!(server.staged().len(), 5 - n);
    }
    let abort = json!({"id": 7, "op": "abort", "upload": upload});
    assert_eq!(ask(&mut raw, &abort)["ok"], json!({}));
    assert_eq!(server.staged(), [""; 0]);
}

/// What is stored is what the last one sent, whatever the one before still had in hand.
#[test]
fn who_begins_a_part_takes_it_from_who_was_at_it() {
    let server = Server::start();
    let (mut raw, mut slow) = (Raw::connect(&server, "dev"), Raw::connect(&server, "dev"));
    let (file, wrong) = (content(2 * PART, 11), content(2 * PART, 12));
    let upload = begin(&mut raw, "/large", file.len());
    assert!(write(&mut raw, &upload, 0, &wrong)["ok"].is_object());
    slow.send(&opening(&upload, 0, PART));
    slow.send(&frame(b'D', &wrong[..PART / 2]));
    // A part that is being written anew is not there.
    wait_for_parts(&mut raw, &upload, &[1]);
    assert_eq!(
        code(&commit(&mut raw, &[member("/large", &upload, &wrong)])),
        "bad_request"
    );
    // The commit has taken the part from the slow one, so it begins once more.
    slow.send(&frame(b'D', &wrong[PART / 2..PART]));
    slow.send(&frame(b'E', json!({"size": PART}).to_string().as_bytes()));
    assert_eq!(code(&slow.answer()), "busy");
    assert!(write(&mut raw, &upload, 0, &wrong[..PART])["ok"].is_object());
    slow.send(&opening(&upload, 0, PART));
    slow.send(&frame(b'D', &wrong[..PART / 2]));
    wait_for_parts(&mut raw, &upload, &[1]);
    assert_eq!(write(&mut raw, &upload, 0, &file)["ok"]["n_parts"], 2);
    slow.send(&frame(b'D', &wrong[PART / 2..PART]));
    slow.send(&frame(b'E', json!({"size": PART}).to_string().as_bytes()));
    assert_eq!(code(&slow.answer()), "busy");
    slow.lives();
    assert_eq!(parts(&mut raw, &upload), expected_parts(&file));
    assert!(commit(&mut raw, &[member("/large", &upload, &file)])["ok"].is_object());
    assert!(server.get("/large") == file);
}

#[test]
fn of_two_commits_of_one_upload_one_is_done() {
    let server = Server::start();
    let file = content(2 * PART, 13);
    for (round, request_id) in [None, Some("once")].into_iter().enumerate() {
        let path = format!("/large-{round}");
        let mut raws = [(); 4].map(|()| Raw::connect(&server, "dev"));
        let upload = begin(&mut raws[0], &path, file.len());
        assert!(write(&mut raws[0], &upload, 0, &file)["ok"].is_object());
        let members = &[member(&path, &upload, &file)];
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let commits = raws
                .iter_mut()
                .map(|raw| scope.spawn(move || commit_as(raw, request_id, members)));
            let commits: Vec<_> = commits.collect();
            commits.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (done, refused): (Vec<&Value>, Vec<&Value>) =
            answers.iter().partition(|answer| answer["ok"].is_object());
        if request_id.is_some() {
            assert!(
                answers.iter().all(|answer| answer == &answers[0]),
                "{answers:?}"
            );
        }
        assert_eq!(
            done.len(),
            if request_id.is_some() { 4 } else { 1 },
            "{answers:?}"
        );
        for answer in refused {
            assert!(["busy", "not_found"].contains(&code(answer)), "{answer}");
        }
        assert!(server.get(&path) == file);
        assert_eq!(server.staged(), [""; 0]);
    }
}

#[track_caller]
fn stage(raw: &mut Raw, bytes: &[u8]) -> String {
    raw.send(&message(&json!({"id": 8, "op": "stage"}).to_string()));
    raw.send(&body(bytes));
    raw.answer()["ok"]["staged"].as_str().unwrap().to_owned()
}

#[test]
fn a_set_mixes_uploads_staged_contents_and_removals() {
    let server = Server::start();
    server.put("/old", b"old");
    let mut raw = Raw::connect(&server, "dev");
    let files = [content(2 * PART, 14), content(3 * PART - 1, 15)];
    let uploads = [0, 1].map(|n| {
        let upload = begin(&mut raw, "/elsewhere", files[n].len());
        assert!(write(&mut raw, &upload, 0, &files[n])["ok"].is_object());
        upload
    });
    let set = |small: &str| {
        [
            member("/set/one", &uploads[0], &files[0]),
            json!({"path": "/set/small", "staged": small}),
            member("/set/two", &uploads[1], &files[1]),
            json!({"path": "/old", "remove": true}),
        ]
    };
    // Refused for its last member: nothing is visible, the uploads live, what was staged is gone.
    let small = stage(&mut raw, b"small");
    let mut refused = set(&small);
    refused[3]["if_version"] = json!(999);
    assert_eq!(code(&commit(&mut raw, &refused)), "changed");
    let mut twice = refused[..1].to_vec();
    twice.push(member("/set/again", &uploads[0], &files[0]));
    assert_eq!(code(&commit(&mut raw, &twice)), "busy");
    assert_eq!(numbers(&mut raw, &uploads[0]), [0, 1]);
    assert_eq!(code(&commit(&mut raw, &set(&small))), "bad_request");
    for path in ["/set/one", "/set/small", "/set/two", "/set/again"] {
        server.fails(3, &["stat", path]);
    }
    assert_eq!(server.get("/old"), b"old");
    let small = stage(&mut raw, b"small");
    let answer = commit(&mut raw, &set(&small));
    assert_eq!(answer["ok"]["n_members"], 4, "{answer}");
    assert!(server.get("/set/one") == files[0] && server.get("/set/two") == files[1]);
    assert_eq!(server.get("/set/small"), b"small");
    server.fails(3, &["stat", "/old"]);
    assert_eq!(server.staged(), [""; 0]);
}

/// As many as may be, with names as long as may be: a page is a message all the same.
#[test]
fn uploads_of_one_identity_are_limited_and_listed_in_pages() {
    const MAX: usize = 1024;
    let scratch = scratch();
    let server = Server::start_with(Setup {
        root: Some(scratch.path().join("root")),
        ..Setup::default()
    });
    let mut raw = Raw::connect(&server, "dev");
    let segment = "\"".repeat(250);
    let path = |n: usize| format!("/{segment}/{segment}/{segment}/{n:05}");
    for n in 0..MAX {
        begin(&mut raw, &path(n), 2 * PART);
    }
    let request = json!({"id": 1, "op": "begin", "path": "/one-more", "size": 2 * PART});
    assert_eq!(code(&ask(&mut raw, &request)), "quota");
    let mut foreign = Raw::connect(&server, "alice");
    let hers = begin(&mut foreign, "/hers", 2 * PART);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut request = json!({"id": 5, "op": "uploads"});
        if let Some(after) = &after {
            request["after"] = json!(after);
        }
        let page = ask(&mut raw, &request);
        let uploads = page["ok"]["uploads"].as_array();
        let uploads = uploads.unwrap_or_else(|| panic!("no page: {page}"));
        found.extend(
            uploads
                .iter()
                .map(|one| one["upload"].as_str().unwrap().to_owned()),
        );
        match page["ok"].get("next") {
            Some(next) => after = Some(next.as_str().unwrap().to_owned()),
            None => break,
        }
    }
    assert_eq!(found.len(), MAX);
    assert!(found.is_sorted() && !found.contains(&hers));
    let answer = ask(
        &mut raw,
        &json!({"id": 7, "op": "abort", "upload": found[0]}),
    );
    assert_eq!(answer["ok"], json!({}));
    assert!(ask(&mut raw, &request)["ok"].is_object());
}
