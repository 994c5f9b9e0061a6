//! The client in Python's standard library against the real server: what PROTOCOL.md says is enough for a client.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Server, text};

/// Around the sizes of a block, a chunk, a piece and a subtree.
const SIZES: [usize; 13] = [
    0,
    1,
    63,
    64,
    65,
    1023,
    1024,
    1025,
    2048,
    2049,
    65_536,
    65_537,
    1 << 20,
];

fn python(server: &Server, name: &str, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fsvc_client.py");
    let port = server.address.rsplit_once(':').unwrap().1;
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).args(["--as", name]);
    command.args(["--server", &format!("localhost:{port}"), "--tls-dir"]);
    command
        .arg(server.certs())
        .args(arguments)
        .current_dir(server.directory.path());
    command.output().expect("this test needs python3")
}

#[track_caller]
fn ok(server: &Server, arguments: &[&str]) -> String {
    let output = python(server, "dev", arguments);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}{}", server.log());
    text(&output.stdout)
}

#[track_caller]
fn fails(server: &Server, name: &str, arguments: &[&str], code: i32, why: &str) {
    let output = python(server, name, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(why), "{said:?} does not say {why:?}");
    assert!(!said.contains("Traceback"), "{said}");
}

/// Bytes that no two sizes and no two chunks have alike.
fn content(size: usize) -> Vec<u8> {
    let words = (0u32..).map(|n| n.wrapping_mul(2_654_435_761) ^ (n >> 7));
    words.flat_map(u32::to_le_bytes).take(size).collect()
}

#[test]
fn p6_bodies_of_every_shape_go_both_ways() {
    let server = Server::start();
    for size in SIZES {
        let name = format!("{size}");
        let (up, down) = (format!("/up/{size}"), format!("/down/{size}"));
        std::fs::write(server.directory.path().join(&name), content(size)).unwrap();
        // The server holds what arrives against the digest that Python computed.
        ok(&server, &["put", &name, &up]);
        assert_eq!(server.get(&up), content(size), "{size} bytes up");
        server.ok(&["put", &name, &down]);
        ok(&server, &["get", &down, "back"]);
        let back = std::fs::read(server.directory.path().join("back")).unwrap();
        assert_eq!(back, content(size), "{size} bytes down");
    }
}

#[test]
fn p5_5_pages_make_a_whole_listing() {
    let server = Server::start();
    std::fs::create_dir_all(server.root().join("many/below")).unwrap();
    std::fs::write(server.root().join("many/below/x"), b"").unwrap();
    for n in 0..1_100 {
        std::fs::write(server.root().join(format!("many/{n:04}")), b"").unwrap();
    }
    let mut expected: Vec<String> = (0..1_100).map(|n| format!("/many/{n:04}")).collect();
    expected.push("/many/below/".to_owned());
    let listed = ok(&server, &["ls", "/many"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_refusal_shows_its_code_and_fails() {
    let server = Server::with_policy(
        "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\nallow = [\"list\", \"read\", \
         \"create\"]\non = \"/open/**\"\n",
    );
    std::fs::write(server.directory.path().join("large"), content(1 << 18)).unwrap();
    fails(&server, "dev", &["get", "/open/no", "x"], 1, "not_found");
    fails(&server, "dev", &["put", "large", "/shut/a"], 1, "denied");
    fails(&server, "alice", &["ls", "/open/"], 1, "no grant covers it");
    fails(
        &server,
        "dev",
        &["put", "large", "/open/../a"],
        1,
        "bad_request",
    );
    fails(&server, "dev", &["put", "absent", "/open/a"], 1, "absent");
    fails(&server, "dev", &["put", "large"], 2, "usage");
    assert!(!server.directory.path().join("x").is_file());
}

#[test]
fn a_content_that_is_not_what_was_announced_is_not_kept() {
    let server = Server::start();
    server.put("/a", &content(5_000));
    let path = server.root().join("a");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut damaged = content(5_000);
    damaged[4_999] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before).unwrap();
    fails(&server, "dev", &["get", "/a", "kept"], 1, "announced");
    assert!(!server.directory.path().join("kept").is_file());
}

#[test]
fn p1_a_stranger_is_told_before_the_greeting() {
    let (server, other) = (Server::start(), Server::start());
    let clients = other.certs().join("clients");
    for end in [".pem", "-key.pem"] {
        let to = server.certs().join("clients");
        let copied = std::fs::copy(
            clients.join(format!("dev{end}")),
            to.join(format!("stranger{end}")),
        );
        copied.unwrap();
    }
    fails(&server, "stranger", &["ls", "/"], 5, "UNKNOWN_CA");
}

/// Frames that no client of ours sends, over the Python client's connection; what was answered.
fn frames(server: &Server, steps: &str) -> Vec<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let port = server.address.rsplit_once(':').unwrap().1;
    let program = format!(
        "import sys, json; sys.path.insert(0, '{root}/scripts')\n\
         from fsvc_client import Connection, Failure\n\
         c = Connection('localhost:{port}', '{}', 'dev')\n\
         def show(n):\n    for _ in range(n): print(json.dumps(c.message()))\n\
         {steps}",
        server.certs().display()
    );
    let output = Command::new("python3")
        .args(["-B", "-c", &program])
        .output()
        .expect("this test needs python3");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn p6_7_the_body_of_a_request_that_cannot_be_read_is_passed_over() {
    let server = Server::start();
    let refused = ["path='/../a'", "path='/a', if_absnt=True", "size=3"];
    for fields in refused {
        let steps = format!(
            "c.ask('put', {fields})\nc.send(b'D', bytes(100000))\nc.send(b'D', b'x')\n\
             c.send(b'E', b'{{\"abort\":\"denied\"}}')\nc.ask('ping')\nshow(2)"
        );
        let answers = frames(&server, &steps);
        assert!(answers[0].contains("bad_request"), "{answers:?}");
        assert_eq!(answers[1], r#"{"id": 2, "ok": {}}"#);
    }
    let steps = "c.ask('no_such_op', path='/a')\nc.send(b'E', b'{\"abort\":\"denied\"}')\nc.ask('ping')\nshow(2)";
    let answers = frames(&server, steps);
    assert!(answers[0].contains("unsupported"), "{answers:?}");
    assert_eq!(answers[1], r#"{"id": 2, "ok": {}}"#);
}

#[test]
fn p6_7_one_body_is_passed_over_and_no_second_one() {
    let server = Server::start();
    let body = "c.send(b'E', b'{\"abort\":\"denied\"}')";
    let answers = frames(&server, &format!("c.ask('no')\n{body}\n{body}\nshow(2)"));
    assert!(answers[1].contains("bad_frame"), "{answers:?}");
    let answers = frames(&server, &format!("c.ask('ping')\n{body}\nshow(2)"));
    assert!(answers[1].contains("bad_frame"), "{answers:?}");
}

#[test]
fn p4_2_pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let steps = "for n in range(50): c.ask(['ping', 'whoami', 'nonsense'][n % 3])\nshow(50)";
    for (n, answer) in frames(&server, steps).iter().enumerate() {
        assert!(
            answer.starts_with(&format!("{{\"id\": {},", n + 1)),
            "{answer}"
        );
    }
}
