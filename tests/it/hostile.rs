//! Trees fetched from a server that lies: nothing is written outside of the destination, nothing is
//! believed that was not announced, and nothing goes on for ever.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::thread;

use fsvc::digest::Digest;
use jiff::Timestamp;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cuts::Random;
use crate::harness::{fsvc, text};
use crate::matrix::Matrix;
use crate::raw::{body, frame, message};
use crate::strange_servers::{config, listen};
use crate::trees::files;

/// What a server answers to a request: frames, whole.
type Script = dyn Fn(&Value) -> Vec<u8> + Send + Sync;

/// A client's own place, and a server that answers by a script.
struct Trap {
    matrix: Matrix,
    place: TempDir,
    port: u16,
}

impl Trap {
    fn new(script: impl Fn(&Value) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let matrix = Matrix::new();
        let pair = matrix.ca.server(&["localhost"], |_| {});
        let config = config(&matrix, &pair, &["fsvc/1"]);
        let script: Arc<Script> = Arc::new(script);
        let port = listen(move |tcp| {
            let (config, script) = (Arc::clone(&config), Arc::clone(&script));
            thread::spawn(move || converse(tcp, config, &*script));
        });
        let place = TempDir::new().unwrap();
        std::fs::create_dir(place.path().join("in")).unwrap();
        Self {
            matrix,
            place,
            port,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = fsvc();
        command
            .args(arguments)
            .args(["--as", "good", "--stall-timeout", "5s"]);
        command
            .arg("--server")
            .arg(format!("localhost:{}", self.port));
        command.arg("--tls-dir").arg(self.matrix.dir());
        command.env("XDG_CACHE_HOME", self.place.path().join("cache"));
        command.env("XDG_STATE_HOME", self.place.path().join("state"));
        command
            .current_dir(self.place.path().join("in"))
            .output()
            .unwrap()
    }

    /// Fetches `/t`, which must fail so; what the destination then holds.
    #[track_caller]
    fn fails(&self, why: &str) -> Vec<String> {
        let output = self.run(&["get", "-r", "/t", "dst"]);
        let said = text(&output.stderr);
        assert!(said.contains(why), "{why:?} not in: {said}");
        assert_ne!(output.status.code(), Some(0), "{said}");
        let hidden =
            |c: char| c.is_control() && c != '\n' || ('\u{200b}'..='\u{202e}').contains(&c);
        assert!(!said.contains(hidden), "{said:?}");
        let everything = files(self.place.path()).into_keys();
        let written: Vec<String> = everything
            .filter(|name| !name.starts_with("cache/"))
            .collect();
        let outside = written.iter().find(|name| !name.starts_with("in/dst/"));
        assert_eq!(outside, None, "written outside: {said}");
        written
            .iter()
            .map(|name| name["in/dst/".len()..].to_owned())
            .collect()
    }
}

fn converse(tcp: TcpStream, config: Arc<ServerConfig>, script: &Script) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    let hello = json!({"hello": {"server": "mean/1", "identity": "x", "features": [],
        "expires_at": "2100-01-01T00:00:00Z", "time": Timestamp::now(),
        "limits": {"message_size_max": 65_536, "data_size_max": 1_048_576, "file_size_max": 1_u64 << 40}}});
    if stream
        .write_all(&message(&hello.to_string()))
        .and_then(|()| stream.flush())
        .is_err()
    {
        return;
    }
    let mut header = [0; 5];
    while stream.read_exact(&mut header).is_ok() {
        let size = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut content = vec![0; size as usize];
        if stream.read_exact(&mut content).is_err() || header[0] != b'M' {
            return;
        }
        let request = serde_json::from_slice(&content).unwrap();
        if stream
            .write_all(&script(&request))
            .and_then(|()| stream.flush())
            .is_err()
        {
            return;
        }
    }
}

fn ok(request: &Value, answer: &Value) -> Vec<u8> {
    message(&json!({"id": request["id"], "ok": answer}).to_string())
}

fn refuse(request: &Value, code: &str, words: &str) -> Vec<u8> {
    let error = json!({"code": code, "message": words});
    message(&json!({"id": request["id"], "error": error}).to_string())
}

fn file(path: &str, content: &[u8]) -> Value {
    json!({"kind": "file", "path": path, "size": content.len(), "version": 1,
        "modified": "2026-01-01T00:00:00Z", "digest": Digest::of(content).to_string()})
}

fn directory(path: &str) -> Value {
    json!({"kind": "directory", "path": path})
}

/// Answers `get` and `get_many` with this content for every name.
fn give(request: &Value, content: &[u8]) -> Vec<u8> {
    if request["op"] == "get" {
        let mut answer = file(request["path"].as_str().unwrap(), content);
        answer.as_object_mut().unwrap().remove("kind");
        return [ok(request, &answer), body(content)].concat();
    }
    let mut packed = Vec::new();
    for path in request["paths"].as_array().unwrap() {
        let mut info = file(path.as_str().unwrap(), content);
        info.as_object_mut().unwrap().remove("kind");
        packed.extend(json!({"file": info}).to_string().into_bytes());
        packed.push(b'\n');
        packed.extend(content);
    }
    [ok(request, &json!({})), body(&packed)].concat()
}

/// A server with these entries in `/t`, and good content behind every name.
fn listing(entries: Vec<Value>) -> Trap {
    Trap::new(move |request| match request["op"].as_str() {
        Some("list") => ok(
            request,
            &json!({"path": request["path"], "entries": entries}),
        ),
        _ => give(request, b"evil"),
    })
}

/// C1: names that lead out, or that are none.
#[test]
fn names_that_lead_out_of_the_destination_are_refused() {
    for name in [
        "/t/../x",
        "/t/..",
        "/t/.",
        "/t/",
        "/etc/x",
        "/t/a/../../x",
        "/t//x",
        "/t/a\\..\\b",
        "x",
        "",
        "/t/a\u{0}b",
        "/t/.fsvc/x",
        "/t/a/b",
        "/tx",
    ] {
        let trap = listing(vec![file(name, b"evil")]);
        assert_eq!(trap.fails("/t"), Vec::<String>::new(), "{name:?}");
    }
    for name in ["/t/../", "/t/", "/", "/t/a/b/", "/x/", "/t/./"] {
        let trap = listing(vec![directory(name)]);
        assert_eq!(trap.fails("/t"), Vec::<String>::new(), "{name:?}");
    }
}

/// C1: the same name twice, as a file and a directory, or out of order.
#[test]
fn names_that_come_twice_or_out_of_order_are_refused() {
    for entries in [
        vec![file("/t/a", b"evil"), file("/t/a", b"evil")],
        vec![file("/t/a", b"evil"), directory("/t/a/")],
        vec![file("/t/b", b"evil"), file("/t/a", b"evil")],
    ] {
        let trap = listing(entries);
        assert_eq!(trap.fails("out of order"), Vec::<String>::new());
    }
}

/// C1: a tree without a bottom ends where names do; one without an end is cut off.
#[test]
fn a_tree_without_end_is_not_followed_for_ever() {
    let deep = Trap::new(|request| {
        let path = request["path"].as_str().unwrap().trim_end_matches('/');
        ok(
            request,
            &json!({"path": path, "entries": [directory(&format!("{path}/d/"))]}),
        )
    });
    deep.fails("segments");
    let standing = Trap::new(|request| {
        ok(
            request,
            &json!({"path": request["path"], "entries": [], "next": "a"}),
        )
    });
    standing.fails("do not come further");
    let count = std::sync::atomic::AtomicU64::new(0);
    let endless = Trap::new(move |request| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ok(
            request,
            &json!({"path": request["path"], "entries": [], "next": format!("{n:09}")}),
        )
    });
    endless.fails("pages without a name");
    let other = Trap::new(|request| ok(request, &json!({"path": "/other/", "entries": []})));
    other.fails("listed /other/ where /t/ was asked for");
}

/// C2: another file, another size, another content than was announced.
#[test]
fn what_was_not_announced_does_not_arrive() {
    let with = |respond: fn(&Value) -> Vec<u8>, size: usize| {
        Trap::new(move |request| match request["op"].as_str() {
            Some("list") => {
                let entry = file("/t/a", &vec![b'x'; size]);
                ok(request, &json!({"path": "/t/", "entries": [entry]}))
            }
            _ => respond(request),
        })
    };
    // Small, so packed: more bytes than were listed, another name, another content, no end.
    let larger: fn(&Value) -> Vec<u8> = |request| give(request, &[b'y'; 900]);
    assert!(
        with(larger, 10)
            .fails("listed 10 bytes and then gave more")
            .is_empty()
    );
    let other: fn(&Value) -> Vec<u8> = |request| {
        let asked = json!({"id": request["id"], "op": "get_many", "paths": ["/t/b"]});
        give(&asked, b"evil")
    };
    assert!(with(other, 4).fails("not asked for").is_empty());
    let corrupt: fn(&Value) -> Vec<u8> = |request| {
        let line = json!({"file": {"path": "/t/a", "size": 4, "modified": "2026-01-01T00:00:00Z",
            "digest": Digest::of(b"good").to_string()}});
        let packed = format!("{line}\nevil");
        [ok(request, &json!({})), body(packed.as_bytes())].concat()
    };
    assert!(
        with(corrupt, 4)
            .fails("not what the server announced")
            .is_empty()
    );
    let more: fn(&Value) -> Vec<u8> = |request| {
        let asked = json!({"id": request["id"], "op": "get_many", "paths": ["/t/a", "/t/b"]});
        give(&asked, b"evil")
    };
    let written = with(more, 4).fails("more than 1 files");
    assert!(written.iter().all(|name| name == "a"), "{written:?}");
    // Large, so alone.
    let large: fn(&Value) -> Vec<u8> = |request| give(request, &vec![b'y'; 900_000]);
    assert!(
        with(large, 300_000)
            .fails("listed 300000 bytes and then gave more")
            .is_empty()
    );
    let long: fn(&Value) -> Vec<u8> = |request| {
        let mut answer = file("/t/a", &vec![b'x'; 300_000]);
        answer.as_object_mut().unwrap().remove("kind");
        [ok(request, &answer), body(&vec![b'x'; 2_000_000])].concat()
    };
    assert!(
        with(long, 300_000)
            .fails("announced 300000 bytes")
            .is_empty()
    );
}

/// A range of `content`, of version `version` of the file that the listing has, in an answer that says
/// `size` bytes.
fn range(request: &Value, content: &[u8], version: u64, size: usize) -> Vec<u8> {
    let mut answer = file("/t/a", content);
    answer.as_object_mut().unwrap().remove("kind");
    answer["version"] = version.into();
    answer["size"] = size.into();
    let offset = usize::try_from(request["offset"].as_u64().unwrap_or(0)).unwrap();
    let length = usize::try_from(request["length"].as_u64().unwrap()).unwrap();
    let bytes = &content[offset..content.len().min(offset + length)];
    let data = bytes.chunks(1 << 20).map(|piece| frame(b'D', piece));
    let end = json!({"size": bytes.len()}).to_string();
    let frames: Vec<u8> = data.flatten().chain(frame(b'E', end.as_bytes())).collect();
    [ok(request, &answer), frames].concat()
}

/// C2: the same of a file that comes in parts.
#[test]
fn what_was_not_announced_does_not_arrive_in_parts_either() {
    const SIZE: usize = 7 << 20;
    let trap = |respond: fn(&Value, &[u8], bool) -> Vec<u8>| {
        let content = Random(61).content(SIZE);
        let trap = Trap::new(move |request| {
            if request["op"] == "list" {
                let entry = file("/t/a", &content);
                return ok(request, &json!({"path": "/t/", "entries": [entry]}));
            }
            respond(request, &content, request.get("offset").is_none())
        });
        std::fs::create_dir_all(trap.place.path().join("in/dst")).unwrap();
        trap
    };
    let fails = |respond: fn(&Value, &[u8], bool) -> Vec<u8>, why: &str| {
        assert_eq!(trap(respond).fails(why), Vec::<String>::new(), "{why}");
    };
    // Behind the first range, another version, or the same of another size.
    fails(
        |request, content, is_first| range(request, content, 2 - u64::from(is_first), SIZE),
        "another version",
    );
    fails(
        |request, content, is_first| range(request, content, 1, SIZE + usize::from(!is_first)),
        "another version",
    );
    // A file that is larger than it was listed, from the beginning.
    fails(
        |request, content, _| range(request, content, 1, SIZE + 1),
        "listed 7340032 bytes and then gave more",
    );
    // A range with more bytes than were asked for, or with fewer.
    let longer: fn(&Value, &[u8], bool) -> Vec<u8> = |request, content, is_first| {
        let mut request = request.clone();
        if !is_first {
            let length = request["length"].as_u64().unwrap() + 1;
            request["offset"] = (request["offset"].as_u64().unwrap() - 1).into();
            request["length"] = length.into();
        }
        range(&request, content, 1, SIZE)
    };
    fails(longer, "bytes, ");
    let shorter: fn(&Value, &[u8], bool) -> Vec<u8> = |request, content, is_first| {
        let mut request = request.clone();
        if !is_first {
            request["length"] = (request["length"].as_u64().unwrap() - 1).into();
        }
        range(&request, content, 1, SIZE)
    };
    fails(shorter, "bytes, ");
    // Other bytes, in any range, under the digest that was listed.
    fails(
        |request, content, is_first| {
            let listed = Digest::of(content).to_string();
            let mut content = content.to_vec();
            content[if is_first { 5 } else { SIZE - 5 }] ^= 1;
            let said = Digest::of(&content).to_string();
            let answer = range(request, &content, 1, SIZE);
            let at = answer
                .windows(said.len())
                .position(|w| w == said.as_bytes());
            let at = at.unwrap();
            [&answer[..at], listed.as_bytes(), &answer[at + said.len()..]].concat()
        },
        "not what the server announced",
    );
}

/// C3: what a terminal would act on is shown, not done.
#[test]
fn words_and_names_that_a_terminal_would_act_on_are_escaped() {
    let words = "no\u{1b}]52;c;AAAA\u{7}\r\n\u{202e}\u{200b}\u{9b}2J";
    let trap = Trap::new(move |request| refuse(request, "denied", words));
    trap.fails("no\\u{1b}]52;c;AAAA\\u{7}\\r\\n\\u{202e}\\u{200b}\\u{9b}2J");
    for name in [
        "/t/a\u{1b}[2J",
        "/t/a\rb",
        "/t/\u{202e}x",
        "/t/\u{200b}",
        "/t/\u{9b}x",
    ] {
        let trap = listing(vec![file(name, b"evil")]);
        assert!(trap.fails("U+").is_empty());
        let output = trap.run(&["ls", "-r", "/t"]);
        assert_ne!(output.status.code(), Some(0));
        assert!(output.stdout.is_empty());
    }
    let single = Trap::new(move |request| {
        if request["op"] == "list" {
            let entries = [file("/t/a", b"good")];
            return ok(request, &json!({"path": "/t/", "entries": entries}));
        }
        let line = json!({"error": {"code": "denied", "message": words}});
        let packed = format!("{line}\n");
        [ok(request, &json!({})), body(packed.as_bytes())].concat()
    });
    assert!(single.fails("a: no\\u{1b}]52").is_empty());
}

/// C6: neither set-user-id nor the right to be executed comes from a server.
#[test]
fn modes_of_a_server_are_not_taken_over() {
    let trap = Trap::new(|request| {
        let mut entry = file("/t/a", b"evil");
        entry["attributes"] = json!({"mode": 0o6777});
        if request["op"] == "list" {
            return ok(request, &json!({"path": "/t/", "entries": [entry]}));
        }
        entry.as_object_mut().unwrap().remove("kind");
        let packed = format!("{}\nevil", json!({"file": entry}));
        [ok(request, &json!({})), body(packed.as_bytes())].concat()
    });
    for (arguments, mode) in [(&[][..], 0o666), (&["--keep-modes"], 0o777)] {
        let name = format!("dst{}", arguments.len());
        let output = trap.run(&[&["get", "-r", "/t", &name], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let path = trap.place.path().join("in").join(&name).join("a");
        let found = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(found & 0o7777 & !mode, 0, "{found:o}");
    }
}

/// C7: what stands in the destination leads nowhere else.
#[test]
fn links_in_the_destination_lead_nowhere() {
    let trap = Trap::new(|request| match request["op"].as_str() {
        Some("list") if request["path"] == "/t/" => {
            let entries = [file("/t/a", b"evil"), directory("/t/d/")];
            ok(request, &json!({"path": "/t/", "entries": entries}))
        }
        Some("list") => ok(
            request,
            &json!({"path": "/t/d/", "entries": [file("/t/d/b", b"evil")]}),
        ),
        _ => give(request, b"evil"),
    });
    let at = |name: &str| trap.place.path().join(name);
    std::fs::create_dir_all(at("in/dst")).unwrap();
    std::fs::create_dir(at("out")).unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
    link("../../out", "in/dst/d");
    link("../../out/a", "in/dst/a");
    let output = trap.run(&["get", "-r", "/t", "dst"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("symbolic link").count(), 2, "{said}");
    assert_eq!(std::fs::read_dir(at("out")).unwrap().count(), 0);
    assert!(Path::new(&at("in/dst/a")).is_symlink());
}
