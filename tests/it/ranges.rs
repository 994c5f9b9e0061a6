//! Ranges and versions of files (P5.3, P6.9).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fsvc::client::{Client, Options};
use fsvc::digest::Digest;
use serde_json::{Value, json};

use crate::harness::{Server, text};
use crate::raw::{Raw, body, code, frame, message};

/// More than one piece, and not a whole number of them.
const LARGE: usize = 300_001;

fn content(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

/// Where the version of a file is.
fn version(server: &Server, path: &str) -> u64 {
    let stat: Value = serde_json::from_str(&server.ok(&["stat", path, "--json"])).unwrap();
    stat["version"].as_u64().unwrap()
}

#[test]
fn p5_3_a_range_ends_where_the_file_does_at_the_latest() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    for size in [0, 1, 1000, LARGE] {
        let content = content(size);
        server.put("/a", &content);
        let max = (1_u64 << 53) - 1;
        let end = size as u64;
        for (offset, length) in [
            (0, None),
            (0, Some(0)),
            (0, Some(1)),
            (0, Some(end)),
            (0, Some(end + 1)),
            (0, Some(max)),
            (end, None),
            (end, Some(0)),
            (end, Some(max)),
            (end / 2, None),
            (end / 2, Some(1)),
            (end / 2, Some(max)),
        ] {
            let mut request = json!({"id": 1, "op": "get", "path": "/a", "offset": offset});
            if let Some(length) = length {
                request["length"] = json!(length);
            }
            let answer = raw.ask(&request.to_string());
            assert_eq!(answer["ok"]["size"], size, "{request}");
            assert_eq!(answer["ok"]["digest"], Digest::of(&content).to_string());
            let (bytes, trailer) = raw.read_body();
            let from = usize::try_from(offset).unwrap();
            let length = length.unwrap_or(max).min(end - offset);
            let expected = &content[from..from + usize::try_from(length).unwrap()];
            assert!(bytes == expected, "{request}");
            let mut end_frame = json!({"size": expected.len()});
            if expected.len() == size {
                end_frame["digest"] = json!(Digest::of(&content).to_string());
            }
            assert_eq!(trailer, end_frame, "{request}");
        }
        for offset in [end + 1, max] {
            let request = json!({"id": 1, "op": "get", "path": "/a", "offset": offset});
            let answer = raw.ask(&request.to_string());
            assert_eq!(code(&answer), "bad_request");
            let message = answer["error"]["message"].as_str().unwrap();
            for number in [offset, end] {
                assert!(message.contains(&number.to_string()), "{message}");
            }
        }
    }
    raw.lives();
}

#[test]
fn p5_3_numbers_that_are_none_are_refused() {
    let server = Server::start();
    server.put("/a", b"abc");
    let mut raw = Raw::connect(&server, "dev");
    for field in ["offset", "length", "if_version"] {
        for number in ["-1", "1.5", "\"1\"", "null", "[1]", "18446744073709551616"] {
            let request = format!(r#"{{"id":1,"op":"get","path":"/a","{field}":{number}}}"#);
            assert_eq!(code(&raw.ask(&request)), "bad_request", "{request}");
        }
    }
    raw.lives();
}

#[test]
fn p5_3_another_version_than_was_asked_for_is_changed() {
    let server = Server::start();
    server.put("/a", b"one");
    let first = version(&server, "/a");
    server.put("/a", b"two");
    let mut raw = Raw::connect(&server, "dev");
    let ask = |path: &str, version: u64| {
        json!({"id": 1, "op": "get", "path": path, "if_version": version}).to_string()
    };
    assert_eq!(code(&raw.ask(&ask("/a", first))), "changed");
    // A file that another program put there has no version at all.
    std::fs::write(server.root().join("foreign"), b"x").unwrap();
    assert_eq!(code(&raw.ask(&ask("/foreign", first))), "changed");
    assert_eq!(code(&raw.ask(&ask("/none", first))), "not_found");
    raw.lives();
    let output = server.directory.path().join("out");
    let out = output.to_str().unwrap();
    server.fails(3, &["get", "/a", out, "--version", &first.to_string()]);
    assert!(std::fs::metadata(&output).is_err());
    let second = version(&server, "/a").to_string();
    server.ok(&["get", "/a", out, "--version", &second]);
    assert_eq!(std::fs::read(&output).unwrap(), b"two");
}

#[test]
fn p5_3_without_the_right_nothing_is_told_of_a_range() {
    let server = Server::with_policy(
        "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\nallow = [\"create\", \"list\"]\non = \"/**\"\n",
    );
    server.put("/a", b"abc");
    let mut raw = Raw::connect(&server, "dev");
    for path in ["/a", "/none"] {
        for range in [
            r#""offset":0"#,
            r#""offset":9"#,
            r#""length":0"#,
            r#""if_version":1"#,
        ] {
            let request = format!(r#"{{"id":1,"op":"get","path":"{path}",{range}}}"#);
            assert_eq!(code(&raw.ask(&request)), "denied", "{request}");
        }
    }
    raw.lives();
    server.fails(4, &["get", "/a", "-", "--range", "0-0"]);
    server.fails(4, &["get", "/a", "-", "--wait"]);
}

#[test]
fn ranges_on_the_command_line() {
    let server = Server::start();
    let content = content(LARGE);
    server.put("/a", &content);
    server.put("/empty", b"");
    let get = |path: &str, range: &str| {
        let output = server.run(&["get", path, "-", "--range", range]);
        assert!(output.status.success(), "{range}: {}", text(&output.stderr));
        output.stdout
    };
    for (range, expected) in [
        ("0-0", &content[..1]),
        ("5-9", &content[5..10]),
        ("100000-", &content[100_000..]),
        ("-7", &content[LARGE - 7..]),
        ("-0", &[]),
        ("-999999999", &content[..]),
        ("0-18446744073709551615", &content[..]),
        ("300001-", &[]),
    ] {
        assert!(get("/a", range) == expected, "{range}");
    }
    assert_eq!(get("/empty", "-5"), b"");
    assert_eq!(get("/empty", "0-"), b"");
    let out = server.directory.path().join("part");
    server.ok(&["get", "/a", out.to_str().unwrap(), "--range", "10-19"]);
    assert_eq!(std::fs::read(&out).unwrap(), &content[10..20]);
    let said = server.fails(
        1,
        &["get", "/a", out.to_str().unwrap(), "--range", "300002-"],
    );
    assert!(said.contains("300002") && said.contains("300001"), "{said}");
    // What was there stays.
    assert_eq!(std::fs::read(&out).unwrap(), &content[10..20]);
    server.fails(2, &["get", "/a", "-", "--range", "9-2"]);
    // Into a directory a range goes under the file's own name.
    let place = server.directory.path().join("place");
    std::fs::create_dir(&place).unwrap();
    server.ok(&["get", "/a", place.to_str().unwrap(), "--range", "0-4"]);
    assert_eq!(std::fs::read(place.join("a")).unwrap(), &content[..5]);
}

#[test]
fn p5_3_ranges_of_one_version_are_never_stitched_of_two() {
    let server = Server::start();
    server.put("/a", &vec![0; LARGE]);
    let stop = AtomicBool::new(false);
    let options = Options::from_directory(&server.address, server.certs(), "dev");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = "/a".parse().unwrap();
    let (n_whole, n_changed) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for fill in 1_u8.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                server.put("/a", &vec![fill; LARGE]);
            }
        });
        let client = Client::new(options).unwrap();
        let (mut n_whole, mut n_changed) = (0, 0);
        while n_whole < 20 || n_changed == 0 {
            assert!(
                n_whole + n_changed < 100_000,
                "{n_whole} whole, {n_changed} changed"
            );
            let read = runtime.block_on(async {
                let half = LARGE as u64 / 2;
                let (file, bytes) = client
                    .get_range(&path, (0, Some(half)), None, Vec::new())
                    .await?;
                client
                    .get_range(&path, (half, None), file.version, bytes)
                    .await
            });
            match read {
                Ok((_, bytes)) => {
                    assert_eq!(bytes.len(), LARGE);
                    assert!(
                        bytes.iter().all(|byte| *byte == bytes[0]),
                        "two versions in one"
                    );
                    n_whole += 1;
                }
                Err(error) => {
                    assert_eq!(error.code().unwrap().to_string(), "changed", "{error}");
                    n_changed += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        (n_whole, n_changed)
    });
    assert!(n_whole > 0 && n_changed > 0);
}

/// Asks a server that greets, reads one request and answers so, for bytes 2 to 3 of version 7.
fn ask_scripted(answer: Vec<u8>, range: (u64, Option<u64>), if_version: Option<u64>) -> String {
    let directory = tempfile::TempDir::new().unwrap();
    crate::harness::gen_certs(directory.path(), &["dev"]);
    let chain = fsvc::tls::pem::read_certificates(&directory.path().join("server.pem")).unwrap();
    let key = fsvc::tls::pem::read_private_key(&directory.path().join("server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"fsvc/1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let hello = json!({"hello": {
        "server": "scripted", "identity": "spiffe://test.internal/client/dev", "features": [],
        "expires_at": "2100-01-01T00:00:00Z", "time": "2026-11-25T10:00:00Z",
        "limits": {"message_size_max": 65536, "data_size_max": 1 << 20, "file_size_max": 1_u64 << 40},
    }});
    let server = std::thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        let sent = stream.write_all(&[message(&hello.to_string()), answer].concat());
        let _ = sent.and_then(|()| stream.flush());
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let options = Options::from_directory(&address, directory.path(), "dev");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let got = runtime.block_on(async {
        let client = Client::new(options).unwrap();
        let path = "/a".parse().unwrap();
        client.get_range(&path, range, if_version, Vec::new()).await
    });
    drop(runtime);
    server.join().unwrap();
    match got {
        Ok((_, bytes)) => format!("{} bytes", bytes.len()),
        Err(error) => error.to_string(),
    }
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn p5_3_what_a_server_says_of_a_range_must_fit_what_was_asked() {
    let file = |path: &str, version: u64, size: usize, digest: &[u8]| {
        let digest = Digest::of(digest).to_string();
        let modified = "2026-11-25T10:00:00Z";
        let ok = json!({"path": path, "size": size, "modified": modified, "version": version, "digest": digest});
        message(&json!({"id": 1, "ok": ok}).to_string())
    };
    let part = |content: &[u8]| {
        let end = json!({"size": content.len()}).to_string();
        [frame(b'D', content), frame(b'E', end.as_bytes())].concat()
    };
    let abcdef = b"abcdef";
    let some = (2, Some(2));
    for (what, answer, range, expected) in [
        (
            "good",
            [file("/a", 7, 6, abcdef), part(b"cd")].concat(),
            some,
            "2 bytes",
        ),
        (
            "all, good",
            [file("/a", 7, 6, abcdef), body(abcdef)].concat(),
            (0, None),
            "6 bytes",
        ),
        (
            "another file",
            [file("/b", 7, 6, abcdef), part(b"cd")].concat(),
            some,
            "another file",
        ),
        (
            "another version",
            [file("/a", 8, 6, abcdef), part(b"cd")].concat(),
            some,
            "another version",
        ),
        (
            "too little",
            [file("/a", 7, 6, abcdef), part(b"c")].concat(),
            some,
            "1 arrived",
        ),
        (
            "too much",
            [file("/a", 7, 6, abcdef), part(b"cde")].concat(),
            some,
            "3 arrived",
        ),
        (
            "a shorter file",
            [file("/a", 7, 1, b"a"), frame(b'E', b"{\"size\":0}")].concat(),
            some,
            "behind the end",
        ),
        (
            "a digest of a range",
            [file("/a", 7, 6, abcdef), body(b"cd")].concat(),
            some,
            "taken for each other",
        ),
        (
            "no digest of all",
            [file("/a", 7, 6, abcdef), part(abcdef)].concat(),
            (0, None),
            "taken for each other",
        ),
        (
            "all of another",
            [file("/a", 7, 6, b"other!"), body(abcdef)].concat(),
            (0, None),
            "not what the server announced",
        ),
    ] {
        let said = ask_scripted(answer, range, Some(7));
        assert!(said.contains(expected), "{what}: {said}");
    }
}

#[test]
fn the_last_bytes_of_a_file_that_grows_are_of_one_version() {
    let server = Server::start();
    server.put("/log", &[b'x'; 100]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let local = server.directory.path().join("more");
            std::fs::write(&local, b"yz").unwrap();
            while !stop.load(Ordering::Relaxed) {
                server.ok(&["append", local.to_str().unwrap(), "/log"]);
            }
        });
        for _ in 0..20 {
            let output = server.run(&["get", "/log", "-", "--range", "-2"]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert!(matches!(&output.stdout[..], b"xx" | b"yz"));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}
