//! Files that changed little, over the wire: what the chunks of a file are, and parts that are made of
//! its bytes (P18).

use fsvc::delta::chunks;
use fsvc::digest::Digest;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::raw::{Raw, code, frame, message, snapshot};
use crate::uploads::{PART, ask, commit, content, member, numbers, rights, write};

#[track_caller]
fn version(raw: &mut Raw, path: &str) -> u64 {
    let answer = ask(raw, &json!({"id": 1, "op": "stat", "path": path}));
    answer["ok"]["version"].as_u64().unwrap()
}

fn begin_over(raw: &mut Raw, path: &str, size: usize, base: u64) -> Value {
    let request = json!({"id": 1, "op": "begin", "path": path, "size": size, "base": base});
    ask(raw, &request)
}

/// A step that copies, and one that brings bytes.
fn copy(offset: u64, size: u64) -> Vec<u8> {
    format!("{}\n", json!({"copy": {"offset": offset, "size": size}})).into_bytes()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    [
        format!("{}\n", json!({"data": bytes.len()})).as_bytes(),
        bytes,
    ]
    .concat()
}

/// Writes parts as a patch, cut into frames of `cut` bytes.
fn patch(raw: &mut Raw, upload: &str, place: (usize, usize), steps: &[u8], cut: usize) -> Value {
    let (offset, size) = place;
    let request = json!({
        "id": 2, "op": "write", "upload": upload, "offset": offset, "size": size, "patch": true
    });
    raw.send(&message(&request.to_string()));
    let mut sent = Vec::new();
    for piece in steps.chunks(cut) {
        sent.extend(frame(b'D', piece));
    }
    sent.extend(frame(
        b'E',
        json!({"size": steps.len()}).to_string().as_bytes(),
    ));
    raw.send(&sent);
    raw.answer()
}

#[test]
fn the_signature_of_a_file_is_its_chunks() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    for (path, file) in [
        ("/large", content(3 * PART + 5, 40)),
        ("/small", b"x".to_vec()),
    ] {
        server.put(path, &file);
        let answer = ask(&mut raw, &json!({"id": 1, "op": "signature", "path": path}));
        assert_eq!(answer["ok"]["size"], file.len(), "{answer}");
        assert_eq!(answer["ok"]["version"], version_of(&server, path));
        let chunk_size = answer["ok"]["chunk_size"].as_u64().unwrap();
        let mut list = Vec::new();
        let trailer = loop {
            match raw.read_frame().unwrap() {
                (b'D', bytes) => list.extend(bytes),
                (kind, trailer) => {
                    assert_eq!(kind, b'E');
                    break serde_json::from_slice::<Value>(&trailer).unwrap();
                }
            }
        };
        assert_eq!(trailer["size"], list.len());
        assert_eq!(trailer["digest"], Digest::of(&list).to_string());
        // Each entry is the length and the beginning of the digest of the next bytes.
        let (mut rest, mut expected) = (&file[..], Vec::new());
        for chunk in chunks(&file[..], u32::try_from(chunk_size).unwrap()) {
            let (_, bytes) = chunk.unwrap();
            let (now, later) = rest.split_at(bytes.len());
            assert!(now == bytes);
            rest = later;
            expected.extend(u32::try_from(now.len()).unwrap().to_be_bytes());
            expected.extend(&Digest::of(now).as_bytes()[..16]);
        }
        assert!(rest.is_empty() && list == expected);
    }
    raw.lives();
}

fn version_of(server: &Server, path: &str) -> u64 {
    version(&mut Raw::connect(server, "dev"), path)
}

#[test]
fn a_signature_is_for_who_may_read() {
    let server = Server::with_policy(&rights(r#""list", "create", "replace""#));
    let mut raw = Raw::connect(&server, "dev");
    let mut alice = Raw::connect(&server, "alice");
    let put = &mut server.client("alice", &["put", "-", "/file"]);
    assert!(
        crate::harness::with_input(put, &content(2 * PART, 41))
            .status
            .success()
    );
    std::fs::write(server.root().join("foreign"), b"another program's").unwrap();
    let base = version(&mut raw, "/file");
    for path in ["/file", "/gone"] {
        let answer = ask(&mut raw, &json!({"id": 1, "op": "signature", "path": path}));
        assert_eq!(code(&answer), "denied");
        assert_eq!(code(&begin_over(&mut raw, path, 2 * PART, base)), "denied");
    }
    for (request, expected) in [
        (json!({"path": "/gone"}), "not_found"),
        (json!({"path": "/foreign"}), "bad_request"),
        (json!({"path": "/file", "if_version": base + 1}), "changed"),
        (json!({"path": "/"}), "bad_request"),
    ] {
        let mut request = request;
        (request["id"], request["op"]) = (json!(1), json!("signature"));
        let answer = ask(&mut alice, &request);
        assert_eq!(code(&answer), expected, "{request} {answer}");
    }
    assert_eq!(server.staged(), [""; 0]);
    // Without a base it needs no right to read.
    let request = json!({"id": 1, "op": "begin", "path": "/file", "size": 2 * PART});
    assert!(ask(&mut raw, &request)["ok"].is_object());
    raw.lives();
    alice.lives();
}

#[test]
fn parts_are_made_of_bytes_of_the_base_and_new_ones() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let old = content(3 * PART, 42);
    server.put("/file", &old);
    // Forty bytes in the middle, and the first and last thousand changed places.
    let new = [
        &old[2 * PART..],
        &old[9..PART],
        b"forty".repeat(8).as_slice(),
        &old[..PART],
    ]
    .concat();
    let base = version(&mut raw, "/file");
    let part = PART as u64;
    let steps = [
        copy(2 * part, part),
        copy(9, part - 9),
        data(&b"forty".repeat(8)),
        copy(0, part),
    ]
    .concat();
    for cut in [1, 7, 1 << 16] {
        let answer = begin_over(&mut raw, "/file", new.len(), base);
        let upload = answer["ok"]["upload"].as_str().unwrap().to_owned();
        let answer = patch(&mut raw, &upload, (0, new.len()), &steps, cut);
        assert_eq!(
            answer["ok"]["n_parts"],
            new.len().div_ceil(PART),
            "{answer}"
        );
        // Whole parts may come as they are, beside patched ones.
        let answer = write(&mut raw, &upload, PART, &new[PART..2 * PART]);
        assert_eq!(answer["ok"]["n_parts"], 1);
        let path = format!("/new-{cut}");
        let answer = commit(&mut raw, &[member(&path, &upload, &new)]);
        assert!(answer["ok"].is_object(), "{answer}");
        assert!(server.get(&path) == new);
    }
}

#[test]
fn a_patch_that_is_none_is_refused() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let old = content(2 * PART, 43);
    server.put("/file", &old);
    let base = version(&mut raw, "/file");
    let answer = begin_over(&mut raw, "/file", old.len(), base);
    let upload = answer["ok"]["upload"].as_str().unwrap().to_owned();
    let (part, most) = (PART as u64, (1_u64 << 53) - 1);
    let before = snapshot(&server.root());
    let line = |text: &str| format!("{text}\n").into_bytes();
    for (steps, why) in [
        (copy(2 * part, 1), "behind the end of the base"),
        (copy(part + 1, part), "over the end of the base"),
        (copy(most, 1), "far behind it"),
        (copy(most, most), "more than there can be"),
        (copy(0, part + 1), "more than was announced"),
        (copy(0, part - 1), "less than was announced"),
        (copy(0, 0), "no bytes copied"),
        (line(r#"{"data":0}"#), "no bytes brought"),
        (line(""), "an empty line"),
        (line("nonsense"), "no JSON"),
        (
            line(r#"{"copy":{"offset":-1,"size":1}}"#),
            "before the base",
        ),
        (line(r#"{"copy":{"offset":0}}"#), "without a size"),
        (
            line(r#"{"copy":{"offset":0,"size":1,"path":"/x"}}"#),
            "a field too many",
        ),
        (
            line(r#"{"copy":{"offset":0,"size":1},"data":1}"#),
            "two steps in one",
        ),
        (line(r#"{"move":1}"#), "another step"),
        (
            line(&format!(r#"{{"data":{}}}"#, 1_u64 << 53)),
            "a number too large",
        ),
        (br#"{"copy":{"off"#.to_vec(), "cut off in a line"),
        (data(b"cut off")[..17].to_vec(), "cut off in the bytes"),
        (vec![b' '; 5000], "a line without an end"),
        ([copy(0, part), data(b"x")].concat(), "a byte too many"),
        (Vec::new(), "nothing"),
    ] {
        for cut in [11, 1 << 16] {
            let answer = patch(&mut raw, &upload, (PART, PART), &steps, cut);
            assert_eq!(code(&answer), "bad_request", "{why}: {answer}");
        }
        raw.lives();
    }
    assert_eq!(snapshot(&server.root()), before);
    assert!(numbers(&mut raw, &upload).iter().all(|number| *number == 1));
    let answer = patch(
        &mut raw,
        &upload,
        (0, 2 * PART),
        &copy(0, 2 * part),
        1 << 16,
    );
    assert_eq!(answer["ok"]["n_parts"], 2, "{answer}");
    assert!(commit(&mut raw, &[member("/file", &upload, &old)])["ok"].is_object());
}

#[test]
fn a_base_that_is_gone_is_said_and_the_parts_can_come_whole() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let old = content(2 * PART, 44);
    for gone in [false, true] {
        server.put("/file", &old);
        let base = version(&mut raw, "/file");
        let answer = begin_over(&mut raw, "/file", old.len(), base);
        let upload = answer["ok"]["upload"].as_str().unwrap().to_owned();
        if gone {
            server.ok(&["rm", "/file"]);
        } else {
            server.put("/file", &content(2 * PART, 45));
        }
        let steps = copy(0, 2 * PART as u64);
        let answer = patch(&mut raw, &upload, (0, 2 * PART), &steps, 1 << 16);
        assert_eq!(code(&answer), "changed", "{answer}");
        assert_eq!(numbers(&mut raw, &upload), [0; 0]);
        assert!(write(&mut raw, &upload, 0, &old)["ok"].is_object());
        assert!(commit(&mut raw, &[member("/file", &upload, &old)])["ok"].is_object());
        assert!(server.get("/file") == old);
    }
}
