//! Bodies that are compressed on their way (P6.8).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::thread::JoinHandle;

use fsvc::compression::compressed;
use fsvc::digest::Digest;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, Setup, fsvc, gen_certs, text, with_input};
use crate::raw::{Raw, code, frame, message, trailer};

/// Bytes that nothing makes smaller.
pub fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A text.
pub fn words(size: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for n in 0.. {
        if text.len() >= size {
            break;
        }
        text.extend(format!("line {n} of a text that shrinks\n").bytes());
    }
    text.truncate(size);
    text
}

/// One frame, decoded.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = fsvc::compression::Decoder::new().unwrap();
    let (mut rest, mut content) = (bytes, vec![0; 32 << 20]);
    let n = decoder.decode(&mut rest, &mut content).unwrap();
    decoder.finish().unwrap();
    content.truncate(n);
    content
}

/// Frames of a body that says it is `content`, but is `bytes`.
fn body_of(bytes: &[u8], content: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for piece in bytes.chunks(1 << 20) {
        frames.extend(frame(b'D', piece));
    }
    frames.extend(trailer(content.len(), &Digest::of(content).to_string()));
    frames
}

/// The body of a `put_many`.
fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (path, content) in files {
        let digest = Digest::of(content).to_string();
        let line = json!({"path": path, "size": content.len(), "digest": digest});
        packed.extend(format!("{line}\n").bytes());
        packed.extend_from_slice(content);
    }
    packed
}

/// A put of `content`, with `bytes` on the wire.
fn put(raw: &mut Raw, bytes: &[u8], content: &[u8], size: Option<u64>) -> Value {
    let mut request = json!({"id": 1, "op": "put", "path": "/a", "encoding": "zstd"});
    if let Some(size) = size {
        request["size"] = json!(size);
    }
    raw.send(&[message(&request.to_string()), body_of(bytes, content)].concat());
    raw.answer()
}

#[test]
fn p6_8_a_compressed_put_is_what_it_stands_for() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    for content in [Vec::new(), b"a".to_vec(), words(300_000), noise(200_000)] {
        for size in [None, Some(content.len() as u64)] {
            let answer = put(&mut raw, &compressed(&content).unwrap(), &content, size);
            assert_eq!(answer["ok"]["size"], content.len(), "{answer}");
            assert_eq!(answer["ok"]["digest"], Digest::of(&content).to_string());
            assert!(server.get("/a") == content);
        }
    }
    raw.lives();
}

#[test]
fn p6_8_what_is_not_one_whole_frame_is_refused_and_nothing_is_put() {
    let server = Server::start();
    server.put("/a", b"as it was");
    let mut raw = Raw::connect(&server, "dev");
    let content = words(200_000);
    let whole = compressed(&content).unwrap();
    // A frame of one byte whose window is of 2 to this power.
    let windowed = |log: u8| {
        [
            &[0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3][..],
            &[9, 0, 0, b'x'],
        ]
        .concat()
    };
    let spoiled = {
        let mut bytes = whole.clone();
        bytes[0] ^= 1;
        bytes
    };
    let skipped = |frame: &[u8]| [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], frame].concat();
    // None of them is the last.
    let endless = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x48][..], &vec![0; 3 << 20]].concat();
    for (what, bytes, content) in [
        ("nothing", Vec::new(), &content[..]),
        ("cut short", whole[..whole.len() - 1].to_vec(), &content[..]),
        ("half", whole[..whole.len() / 2].to_vec(), &content[..]),
        ("two", [&whole[..], &whole].concat(), &content[..]),
        ("a byte behind", [&whole[..], b"x"].concat(), &content[..]),
        ("no frame", noise(1000), &content[..]),
        ("not compressed", content.clone(), &content[..]),
        ("spoiled", spoiled, &content[..]),
        ("a window of 16 MiB", windowed(24), &b"x"[..]),
        ("a window of 2 GiB", windowed(31), &b"x"[..]),
        (
            "a frame to be skipped, and one",
            skipped(&whole),
            &content[..],
        ),
        ("blocks of nothing", endless, &b""[..]),
    ] {
        let answer = put(&mut raw, &bytes, content, None);
        assert_eq!(code(&answer), "bad_request", "{what}: {answer}");
        raw.lives();
    }
    // Whole, and not what its end says.
    let answer = put(&mut raw, &whole, b"another", None);
    assert_eq!(code(&answer), "digest_mismatch");
    assert_eq!(server.get("/a"), b"as it was");
    assert!(server.staged().is_empty());
    // The largest window is taken.
    assert_eq!(put(&mut raw, &windowed(23), b"x", None)["ok"]["size"], 1);
}

#[test]
fn p6_8_a_bomb_is_refused_before_it_has_grown() {
    let server = Server::start_with(Setup {
        arguments: vec!["--size-max".to_owned(), "1000000".to_owned()],
        ..Setup::default()
    });
    let mut raw = Raw::connect(&server, "dev");
    let bomb = compressed(&vec![0; 256 << 20]).unwrap();
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    for (size, limit) in [(None, 1_000_000), (Some(3), 3), (Some(900_000), 900_000)] {
        let answer = put(&mut raw, &bomb, b"abc", size);
        assert_eq!(code(&answer), "too_large", "{answer}");
        // It was stopped with the piece that was too much.
        let message = answer["error"]["message"].as_str().unwrap();
        let numbers: Vec<u64> = message
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 2, "{message}");
        assert!(
            numbers[0] <= limit + (64 << 10) && numbers[1] == limit,
            "{message}"
        );
        raw.lives();
    }
    server.fails(3, &["stat", "/a"]);
    assert!(server.staged().is_empty());
}

#[test]
fn p6_8_a_compressed_body_has_no_more_rights() {
    let server = Server::with_policy(
        "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\nallow = [\"list\"]\non = \"/**\"\n",
    );
    std::fs::write(server.root().join("there"), words(100_000)).unwrap();
    let mut raw = Raw::connect(&server, "dev");
    let content = packed(&[("/a", &words(20_000))]);
    let body = body_of(&compressed(&content).unwrap(), &content);
    for request in [
        r#""op":"put","path":"/a""#,
        r#""op":"append","path":"/a","if_size":0"#,
        r#""op":"stage""#,
    ] {
        let request = format!(r#"{{"id":1,{request},"encoding":"zstd"}}"#);
        raw.send(&[message(&request), body.clone()].concat());
        assert_eq!(code(&raw.answer()), "denied", "{request}");
        raw.lives();
    }
    let many = r#"{"id":1,"op":"put_many","encoding":"zstd"}"#;
    raw.send(&[message(many), body].concat());
    let answer = raw.answer();
    assert_eq!(answer["ok"]["versions"], json!([0]), "{answer}");
    assert_eq!(answer["ok"]["refused"][0]["error"]["code"], "denied");
    for request in [
        r#"{"id":1,"op":"get","path":"/there","accept":["zstd"]}"#,
        r#"{"id":1,"op":"get","path":"/nothing","accept":["zstd"]}"#,
    ] {
        assert_eq!(code(&raw.ask(request)), "denied");
    }
    raw.lives();
    let names: Vec<_> = std::fs::read_dir(server.root()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(server.staged().is_empty());
}

#[test]
fn p6_8_an_encoding_that_nobody_knows_is_refused_or_passed_over() {
    let server = Server::start();
    server.put("/a", &words(100_000));
    let mut raw = Raw::connect(&server, "dev");
    for encoding in [
        r#""gzip""#,
        r#""Zstd""#,
        r#""""#,
        "null",
        "1",
        r#"["zstd"]"#,
    ] {
        let request = format!(r#"{{"id":1,"op":"put","path":"/b","encoding":{encoding}}}"#);
        raw.send(&[message(&request), body_of(b"abc", b"abc")].concat());
        assert_eq!(code(&raw.answer()), "bad_request", "{encoding}");
        raw.lives();
    }
    server.fails(3, &["stat", "/b"]);
    // What has no body of a file cannot be so.
    for op in [
        r#""op":"commit""#,
        r#""op":"ping""#,
        r#""op":"publish","topic":"a""#,
        r#""op":"get","path":"/a""#,
    ] {
        let request = format!(r#"{{"id":1,{op},"encoding":"zstd"}}"#);
        assert_eq!(code(&raw.ask(&request)), "bad_request", "{op}");
    }
    for (accept, is_compressed) in [
        (r#"["gzip"]"#, false),
        ("[]", false),
        (r#"["br","zstd","gzip"]"#, true),
    ] {
        let request = format!(r#"{{"id":1,"op":"get","path":"/a","accept":{accept}}}"#);
        let answer = raw.ask(&request);
        let is_said = answer["ok"]["encoding"] == "zstd";
        assert_eq!(is_said, is_compressed, "{accept}: {answer}");
        raw.read_body();
    }
    for accept in [r#""zstd""#, "null", "[1]"] {
        let request = format!(r#"{{"id":1,"op":"get","path":"/a","accept":{accept}}}"#);
        assert_eq!(code(&raw.ask(&request)), "bad_request", "{accept}");
    }
    raw.lives();
}

#[test]
fn p6_8_a_get_is_compressed_where_that_is_asked_for_and_pays() {
    let server = Server::start();
    // Its beginning shrinks, its middle does not.
    let half = [words(500_000), noise(600_000)].concat();
    for (content, pays) in [
        (words(1_000_001), true),
        (noise(1_000_001), false),
        (half, false),
        (words(1000), false),
        (Vec::new(), false),
    ] {
        server.put("/a", &content);
        let mut raw = Raw::connect(&server, "dev");
        for (accept, is_asked) in [(r#","accept":["zstd"]"#, true), ("", false)] {
            let answer = raw.ask(&format!(r#"{{"id":1,"op":"get","path":"/a"{accept}}}"#));
            let is_compressed = answer["ok"]["encoding"] == "zstd";
            assert_eq!(is_compressed, pays && is_asked, "{answer}");
            assert_eq!(answer["ok"]["size"], content.len());
            let (bytes, trailer) = raw.read_body();
            assert_eq!(trailer["size"], content.len());
            assert_eq!(trailer["digest"], Digest::of(&content).to_string());
            if is_compressed {
                assert!(bytes.len() < content.len() / 2);
                assert!(decoded(&bytes) == content);
            } else {
                assert!(bytes == content);
            }
        }
        // A range is a frame of its own.
        let request =
            r#"{"id":1,"op":"get","path":"/a","accept":["zstd"],"offset":7,"length":400000}"#;
        if pays {
            assert_eq!(raw.ask(request)["ok"]["encoding"], "zstd");
            let (bytes, trailer) = raw.read_body();
            assert_eq!(trailer, json!({"size": 400_000}));
            assert!(decoded(&bytes) == content[7..400_007]);
        }
        raw.lives();
    }
}

#[test]
fn p6_8_parts_of_an_upload_may_be_compressed() {
    let server = Server::start();
    let content = words(3_000_000);
    let mut raw = Raw::connect(&server, "dev");
    let request = json!({"id": 1, "op": "begin", "path": "/a", "size": content.len()});
    let begun = raw.ask(&request.to_string());
    let part = usize::try_from(begun["ok"]["part_size"].as_u64().unwrap()).unwrap();
    let upload = begun["ok"]["upload"].clone();
    let write = |raw: &mut Raw, offset: usize, bytes: &[u8], size: usize| {
        let request = json!({"id": 1, "op": "write", "upload": upload, "offset": offset, "size": size, "encoding": "zstd"});
        let end = frame(b'E', json!({"size": size}).to_string().as_bytes());
        raw.send(&[message(&request.to_string()), frame(b'D', bytes), end].concat());
        raw.answer()
    };
    let first = compressed(&content[..part]).unwrap();
    for bytes in [
        noise(100),
        first[..first.len() - 1].to_vec(),
        [&first[..], &first].concat(),
        compressed(&content[..part - 1]).unwrap(),
        compressed(&vec![0; 100 << 20]).unwrap(),
    ] {
        let answer = write(&mut raw, 0, &bytes, part);
        assert!(answer["error"].is_object(), "{answer}");
        raw.lives();
    }
    for (n, piece) in content.chunks(part).enumerate() {
        let answer = write(&mut raw, n * part, &compressed(piece).unwrap(), piece.len());
        assert_eq!(answer["ok"]["n_parts"], 1, "{answer}");
    }
    let member =
        json!({"path": "/a", "staged": upload, "digest": Digest::of(&content).to_string()});
    let lines = member.to_string();
    raw.send(&message(r#"{"id":1,"op":"commit"}"#));
    raw.send(&body_of(lines.as_bytes(), lines.as_bytes()));
    assert!(raw.answer()["ok"].is_object());
    assert!(server.get("/a") == content);
}

/// A server that greets with these features, reads one request with its body, if it has one, and
/// answers so. Gives the request and its body.
struct Scripted {
    directory: TempDir,
    address: String,
    seen: JoinHandle<(Value, Vec<u8>)>,
}

impl Scripted {
    fn start(features: &Value, answer: Vec<u8>) -> Self {
        let directory = TempDir::new().unwrap();
        gen_certs(directory.path(), &["dev"]);
        let config = Arc::new(config(directory.path()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let hello = json!({"hello": {
            "server": "scripted", "identity": "spiffe://test.internal/client/dev", "features": features,
            "expires_at": "2100-01-01T00:00:00Z", "time": "2026-11-25T10:00:00Z",
            "limits": {"message_size_max": 65536, "data_size_max": 1 << 20, "file_size_max": 1_u64 << 40},
        }});
        let seen = std::thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
            stream.write_all(&message(&hello.to_string())).unwrap();
            stream.flush().unwrap();
            let (_, request) = read_frame(&mut stream);
            let request: Value = serde_json::from_slice(&request).unwrap();
            let mut body = Vec::new();
            if request["op"] == "put" {
                while let (b'D', bytes) = read_frame(&mut stream) {
                    body.extend(bytes);
                }
            }
            // A client that has seen enough may be gone already.
            let _ = stream.write_all(&answer).and_then(|()| stream.flush());
            let _ = stream.read_to_end(&mut Vec::new());
            (request, body)
        });
        Self {
            directory,
            address,
            seen,
        }
    }

    fn run(self, arguments: &[&str], input: &[u8]) -> (Output, Value, Vec<u8>) {
        let mut command = fsvc();
        command.args(arguments).args(["--server", &self.address]);
        command.args(["--retry-for", "0s", "--as", "dev", "--tls-dir"]);
        command.arg(self.directory.path());
        command.env("XDG_STATE_HOME", self.directory.path().join("state"));
        let output = with_input(&mut command, input);
        let (request, body) = self.seen.join().unwrap();
        (output, request, body)
    }
}

fn config(certs: &Path) -> ServerConfig {
    let chain = fsvc::tls::pem::read_certificates(&certs.join("server.pem")).unwrap();
    let key = fsvc::tls::pem::read_private_key(&certs.join("server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"fsvc/1".to_vec()];
    config
}

fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let size = u32::from_be_bytes(header[1..].try_into().unwrap());
    let mut content = vec![0; size as usize];
    stream.read_exact(&mut content).unwrap();
    (header[0], content)
}

/// An answer that speaks of a file with this content.
fn answer(content: &[u8], encoding: Option<&str>) -> Vec<u8> {
    let mut ok = json!({
        "path": "/a", "size": content.len(), "modified": "2026-11-25T10:00:00Z", "version": 1,
        "digest": Digest::of(content).to_string(),
    });
    if let Some(encoding) = encoding {
        ok["encoding"] = json!(encoding);
    }
    message(&json!({"id": 1, "ok": ok}).to_string())
}

#[test]
fn p6_8_a_server_without_the_feature_and_what_does_not_shrink_get_bodies_as_they_are() {
    for (features, content, is_compressed) in [
        (json!([]), words(200_000), false),
        (json!(["zstd"]), words(200_000), true),
        (json!(["zstd"]), words(10_000), false),
        (json!(["zstd"]), noise(200_000), false),
    ] {
        let scripted = Scripted::start(&features, answer(&content, None));
        let (output, request, body) = scripted.run(&["put", "--compress", "-", "/a"], &content);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(request["op"], "put");
        assert_eq!(
            request.get("encoding").is_some(),
            is_compressed,
            "{request}"
        );
        assert_eq!(body == content, !is_compressed);
        if is_compressed {
            assert!(decoded(&body) == content);
        }
    }
}

#[test]
fn p6_8_only_a_server_with_the_feature_is_asked_for_compressed_bodies() {
    let content = words(20_000);
    for (features, is_asked) in [
        (json!([]), false),
        (json!(["other"]), false),
        (json!(["other", "zstd"]), true),
    ] {
        let sent = [answer(&content, None), body_of(&content, &content)].concat();
        let scripted = Scripted::start(&features, sent);
        let place = TempDir::new().unwrap();
        let out = place.path().join("out").display().to_string();
        let arguments = ["get", "--compress", "--range", "0-", "/a", &out];
        let (output, request, _) = scripted.run(&arguments, b"");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(std::fs::read(&out).unwrap() == content);
        assert_eq!(request.get("accept").is_some(), is_asked, "{request}");
    }
}

#[test]
fn p6_8_a_server_that_sends_no_whole_frame_or_too_much_is_refused() {
    let content = words(200_000);
    let whole = compressed(&content).unwrap();
    let sent = |bytes: &[u8]| [answer(&content, Some("zstd")), body_of(bytes, &content)].concat();
    let bomb = compressed(&vec![0; 64 << 20]).unwrap();
    for (what, bytes, compress, cause) in [
        (
            "cut short",
            sent(&whole[..whole.len() - 1]),
            true,
            "is cut short",
        ),
        (
            "two",
            sent(&[&whole[..], &whole].concat()),
            true,
            "stands behind",
        ),
        ("garbage", sent(&noise(1000)), true, "not one frame"),
        ("a bomb", sent(&bomb), true, "announced 200000 bytes"),
        ("not asked for", sent(&whole), false, "nobody asked for"),
        (
            "another content",
            sent(&compressed(&words(199_999)).unwrap()),
            true,
            "199999 arrived",
        ),
    ] {
        for range in [&["--range", "0-"][..], &[]] {
            let place = TempDir::new().unwrap();
            let out = place.path().join("out").display().to_string();
            let mut arguments = [&["get", "/a", &out], range].concat();
            if compress {
                arguments.push("--compress");
            }
            let scripted = Scripted::start(&json!(["zstd"]), bytes.clone());
            let (output, request, _) = scripted.run(&arguments, b"");
            let said = text(&output.stderr);
            assert_eq!(request["op"], "get", "{said}");
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(said.contains(cause), "{what}: {said}");
            let n_left = std::fs::read_dir(place.path()).unwrap().count();
            assert_eq!(n_left, 0, "{what}");
        }
    }
}

#[test]
fn p6_8_a_client_that_cannot_go_on_gives_a_compressed_body_up() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let frame_of = compressed(&words(300_000)).unwrap();
    let abort = frame(b'E', br#"{"abort":"unavailable"}"#);
    for bytes in [&frame_of[..], &frame_of[..frame_of.len() / 2], b""] {
        raw.send(&message(
            r#"{"id":1,"op":"put","path":"/a","encoding":"zstd"}"#,
        ));
        if !bytes.is_empty() {
            raw.send(&frame(b'D', bytes));
        }
        raw.send(&abort);
        let answer = raw.answer();
        assert_eq!(code(&answer), "bad_request");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(!message.contains("zstd"), "{message}");
        raw.lives();
    }
    server.fails(3, &["stat", "/a"]);
    assert!(server.staged().is_empty());
    // Cut in the middle of its frame: nothing is there either.
    raw.send(&message(
        r#"{"id":1,"op":"put","path":"/a","encoding":"zstd"}"#,
    ));
    raw.send(&frame(b'D', &frame_of[..frame_of.len() / 2]));
    raw.cut();
    server.fails(3, &["stat", "/a"]);
}

#[test]
fn p6_8_bytes_behind_a_file_and_staged_ones_may_be_compressed() {
    let server = Server::start();
    server.put("/a", b"begin ");
    let mut raw = Raw::connect(&server, "dev");
    let content = words(200_000);
    let bytes = compressed(&content).unwrap();
    let append = |raw: &mut Raw, bytes: &[u8], if_size: u64, size: usize| {
        let request = json!({"id": 1, "op": "append", "path": "/a", "if_size": if_size, "size": size, "encoding": "zstd"});
        raw.send(&[message(&request.to_string()), body_of(bytes, &content)].concat());
        raw.answer()
    };
    let n = content.len();
    assert_eq!(code(&append(&mut raw, &bytes, 7, n)), "changed");
    assert_eq!(
        code(&append(&mut raw, &bytes[..bytes.len() - 1], 6, n)),
        "bad_request"
    );
    let bomb = compressed(&vec![0; 64 << 20]).unwrap();
    assert_eq!(code(&append(&mut raw, &bomb, 6, n)), "too_large");
    assert_eq!(server.get("/a"), b"begin ");
    let answer = append(&mut raw, &bytes, 6, n);
    assert_eq!(answer["ok"]["size"], 6 + n, "{answer}");
    assert!(server.get("/a") == [b"begin ", &content[..]].concat());

    let stage = json!({"id": 1, "op": "stage", "size": n, "encoding": "zstd"}).to_string();
    raw.send(&[message(&stage), body_of(&bomb, &content)].concat());
    assert_eq!(code(&raw.answer()), "too_large");
    raw.send(&[message(&stage), body_of(&bytes, &content)].concat());
    let staged = raw.answer()["ok"].clone();
    assert_eq!(staged["digest"], Digest::of(&content).to_string());
    let line = json!({"path": "/b", "staged": staged["staged"]}).to_string();
    raw.send(&message(r#"{"id":1,"op":"commit"}"#));
    raw.send(&body_of(line.as_bytes(), line.as_bytes()));
    assert!(raw.answer()["ok"].is_object());
    assert!(server.get("/b") == content);
}

#[test]
fn p6_8_many_files_may_be_compressed_as_one_body() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let contents: Vec<(String, Vec<u8>)> = (0..100)
        .map(|n| (format!("/t/{n}"), words(1000 + n)))
        .collect();
    let files = contents.iter().map(|(name, c)| (&name[..], &c[..]));
    let body = packed(&files.collect::<Vec<_>>());
    let put = |raw: &mut Raw, bytes: &[u8]| {
        let request = r#"{"id":1,"op":"put_many","encoding":"zstd"}"#;
        raw.send(&[message(request), body_of(bytes, &body)].concat());
        raw.answer()
    };
    let whole = compressed(&body).unwrap();
    let bomb = compressed(&vec![b'x'; 64 << 20]).unwrap();
    for bytes in [&whole[..whole.len() - 1], &body, &bomb, &noise(500), b""] {
        assert_eq!(code(&put(&mut raw, bytes)), "bad_request");
        raw.lives();
    }
    server.fails(3, &["ls", "/t"]);
    assert!(server.staged().is_empty());
    let answer = put(&mut raw, &whole);
    let versions = answer["ok"]["versions"].as_array().unwrap();
    assert!(versions.len() == 100 && versions.iter().all(|n| n.as_u64() > Some(0)));

    let paths: Vec<&str> = contents.iter().map(|(name, _)| &name[..]).collect();
    let mut bodies = Vec::new();
    for accept in [json!([]), json!(["zstd"])] {
        let request = json!({"id": 1, "op": "get_many", "paths": paths, "accept": accept});
        let answer = raw.ask(&request.to_string());
        let is_compressed = answer["ok"]["encoding"] == "zstd";
        assert_eq!(is_compressed, accept[0] == "zstd", "{answer}");
        let (bytes, trailer) = raw.read_body();
        let content = if is_compressed {
            assert!(bytes.len() < body.len() / 2);
            decoded(&bytes)
        } else {
            bytes
        };
        assert_eq!(trailer["size"], content.len());
        assert_eq!(trailer["digest"], Digest::of(&content).to_string());
        bodies.push(content);
    }
    assert!(bodies[0] == bodies[1]);
    // Too little, or nothing that shrinks.
    server.put("/noise", &noise(100_000));
    for path in ["/t/1", "/noise", "/nothing"] {
        let request =
            json!({"id": 1, "op": "get_many", "paths": [path], "accept": ["zstd"]}).to_string();
        assert_eq!(raw.ask(&request)["ok"], json!({}), "{path}");
        raw.read_body();
    }
}

#[test]
fn p6_8_a_patch_that_stands_for_endless_lines_is_stopped() {
    let server = Server::start();
    let content = noise(4 << 20);
    server.put("/a", &content);
    let mut raw = Raw::connect(&server, "dev");
    let version = raw.ask(r#"{"id":1,"op":"stat","path":"/a"}"#)["ok"]["version"].clone();
    let request =
        json!({"id": 1, "op": "begin", "path": "/a", "size": content.len(), "base": version});
    let begun = raw.ask(&request.to_string())["ok"].clone();
    let part = begun["part_size"].as_u64().unwrap();
    let write = |raw: &mut Raw, steps: &[u8]| {
        let request = json!({
            "id": 1, "op": "write", "upload": begun["upload"], "offset": 0, "size": part,
            "patch": true, "encoding": "zstd",
        });
        let frame_of = compressed(steps).unwrap();
        let end = frame(b'E', json!({"size": steps.len()}).to_string().as_bytes());
        raw.send(&[message(&request.to_string()), frame(b'D', &frame_of), end].concat());
        raw.answer()
    };
    // One byte a line, and as much white space as a line may have.
    let line = format!(
        "{}{}\n",
        r#"{"copy":{"offset":0,"size":1}}"#,
        " ".repeat(4000)
    );
    let answer = write(&mut raw, line.repeat(2000).as_bytes());
    assert_eq!(code(&answer), "too_large", "{answer}");
    raw.lives();
    let whole = format!("{}\n", json!({"copy": {"offset": 0, "size": part}}));
    let answer = write(&mut raw, whole.as_bytes());
    assert_eq!(answer["ok"]["n_parts"], 1, "{answer}");
}

#[test]
fn p6_8_a_request_that_is_sent_again_may_be_compressed_or_not() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let content = words(100_000);
    let bytes = compressed(&content).unwrap();
    let mut put = |encoding: &str, bytes: &[u8]| {
        let request = format!(r#"{{"id":1,"op":"put","path":"/a","request_id":"once"{encoding}}}"#);
        raw.send(&[message(&request), body_of(bytes, &content)].concat());
        raw.answer()
    };
    let first = put(r#","encoding":"zstd""#, &bytes);
    assert_eq!(first["ok"]["size"], content.len(), "{first}");
    assert_eq!(put("", &content), first);
    assert_eq!(put(r#","encoding":"zstd""#, &bytes), first);
}
