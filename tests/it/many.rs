//! P17: many small files in one request, each for itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fsvc::client::{Client, ClientError, ManyPut, n_paths_that_fit};
use fsvc::digest::Digest;
use fsvc::path::RemotePath;
use fsvc::protocol::{
    Conditions, ErrorCode, ErrorReply, FileInfo, MANY_FILES_MAX, MANY_PATHS_MAX, MANY_SIZE_MAX,
    Member,
};
use serde_json::{Value, json};

use crate::crash::{Random, client, count};
use crate::harness::Server;
use crate::matrix::Matrix;
use crate::messages::{client as client_of, runtime};
use crate::packs::is_packing;
use crate::raw::{Raw, body, code, frame, message, snapshot, trailer};
use crate::store_suite::path;
use crate::strange_servers::tls;

/// Bytes of a file that is staged by itself, and not packed.
const LARGER: usize = 70_000;
const PUT: &str = r#"{"id":1,"op":"put_many"}"#;

fn file(name: &str, content: impl AsRef<[u8]>) -> ManyPut {
    ManyPut {
        path: path(name),
        content: content.as_ref().to_vec(),
        conditions: Conditions::default(),
        attributes: None,
    }
}

fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        content.extend(random.next().to_le_bytes());
    }
    content.truncate(size);
    content
}

type Got = Vec<Result<(FileInfo, Vec<u8>), ErrorReply>>;

async fn get_all(client: &Client, paths: &[RemotePath]) -> Result<Got, ClientError> {
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    let sink = move |number: usize, one: fsvc::client::ManyGot<'_>| {
        let mut kept = kept.lock().unwrap();
        assert_eq!(number, kept.len());
        kept.push(one.map(|(file, content)| (file, content.to_vec())));
        Ok(())
    };
    drop(client.get_many(paths.to_vec(), sink).await?);
    Ok(std::mem::take(&mut *got.lock().unwrap()))
}

/// A line of a body, and the bytes behind it.
fn packed(line: &Value, content: &[u8]) -> Vec<u8> {
    [line.to_string().as_bytes(), b"\n", content].concat()
}

fn line(path: &str, content: &[u8]) -> Vec<u8> {
    let digest = Digest::of(content).to_string();
    let line = json!({"path": path, "size": content.len(), "digest": digest});
    packed(&line, content)
}

fn codes<T>(answers: &[Result<T, ErrorReply>]) -> Vec<String> {
    let code = |answer: &Result<T, ErrorReply>| match answer {
        Ok(_) => "ok".to_owned(),
        Err(reply) => reply.code.to_string(),
    };
    answers.iter().map(code).collect()
}

#[test]
fn many_files_come_and_go_in_order() {
    let server = Server::start();
    let client = client(&server);
    let sizes = [0, 1, 4096, 65_536, 65_537, 1 << 20];
    let files: Vec<ManyPut> = (0..300u64)
        .map(|n| {
            let size = sizes[if n % 50 == 0 {
                5
            } else {
                usize::try_from(n % 5).unwrap()
            }];
            file(&format!("/d{}/f{n}", n % 70), content(n, size))
        })
        .collect();
    runtime().block_on(async {
        let versions = client.put_many(files.clone(), None).await.unwrap();
        let versions: Vec<u64> = versions.into_iter().map(Result::unwrap).collect();
        assert!(
            versions.windows(2).all(|two| two[0] < two[1]),
            "{versions:?}"
        );
        let paths: Vec<RemotePath> = files.iter().map(|file| file.path.clone()).collect();
        let got = get_all(&client, &paths).await.unwrap();
        assert_eq!(got.len(), files.len());
        for ((one, file), version) in got.into_iter().zip(&files).zip(versions) {
            let (info, content) = one.unwrap();
            assert_eq!(info.version, Some(version));
            assert_eq!(info.digest, Some(Digest::of(&file.content)));
            assert!(content == file.content, "{}", file.path);
            let on_disk = std::fs::read(server.root().join(file.path.relative())).unwrap();
            assert!(on_disk == file.content, "{}", file.path);
        }
        assert_eq!(client.put_many(Vec::new(), None).await.unwrap().len(), 0);
        assert_eq!(get_all(&client, &[]).await.unwrap().len(), 0);
        assert_eq!(client.stage_many(Vec::new()).await.unwrap().len(), 0);
    });
    assert_eq!(server.staged(), Vec::<String>::new());
}

const MIXED: &str = r#"
[[grant]]
to = "spiffe://test.internal/client/dev"
allow = ["read", "create", "replace", "list"]
on = "/**"
[[grant]]
to = "spiffe://test.internal/client/alice"
allow = ["create", "read"]
on = "/in/**"
[[grant]]
to = "spiffe://test.internal/client/bob"
allow = ["replace"]
on = "/in/**"
"#;

#[test]
fn each_file_has_its_own_rights_and_conditions() {
    let server = Server::with_policy(MIXED);
    let [dev, alice, bob] = ["dev", "alice", "bob"].map(|name| client_of(&server, name));
    let when = |name: &str, if_absent: bool, if_version: Option<u64>| ManyPut {
        conditions: Conditions {
            if_absent,
            if_version,
        },
        ..file(name, "new")
    };
    runtime().block_on(async {
        let old = dev
            .put_many(vec![file("/in/old", "old")], None)
            .await
            .unwrap();
        let old = *old[0].as_ref().unwrap();
        let files =
            ["/in/a", "/out/b", "/in/old", "/in/c", "/in/a/below"].map(|name| file(name, "new"));
        let answers = alice.put_many(files.to_vec(), None).await.unwrap();
        assert_eq!(codes(&answers), ["ok", "denied", "denied", "ok", "exists"]);
        assert!(
            answers[2]
                .as_ref()
                .unwrap_err()
                .message
                .contains("but not replace it")
        );
        let files = ["/in/a", "/in/none"].map(|name| file(name, "newer"));
        let answers = bob.put_many(files.to_vec(), None).await.unwrap();
        assert_eq!(codes(&answers), ["ok", "denied"]);
        let files = vec![
            when("/in/old", true, None),
            when("/in/d", true, None),
            when("/in/old", false, Some(old + 100)),
            when("/in/old", false, Some(old)),
            when("/in/e", false, Some(old)),
            when("/in/f", true, Some(old)),
            ManyPut {
                attributes: Some(fsvc::content::Attributes {
                    modified: None,
                    mode: Some(0o1000),
                }),
                ..file("/in/g", "new")
            },
        ];
        let answers = dev.put_many(files, None).await.unwrap();
        let expected = [
            "exists",
            "ok",
            "changed",
            "ok",
            "changed",
            "bad_request",
            "bad_request",
        ];
        assert_eq!(codes(&answers), expected);
        let found = snapshot(&server.root());
        let found: Vec<_> = found
            .keys()
            .map(|name| name.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(found, ["a", "c", "d", "old"]);
        let denied = get_all(&bob, &[path("/in/a")]).await.unwrap();
        assert_eq!(codes(&denied), ["denied"]);
    });
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn the_same_path_twice_is_two_puts() {
    let server = Server::start();
    let client = client(&server);
    let mut third = file("/twice", "third");
    third.conditions.if_absent = true;
    let files = vec![
        file("/twice", "first"),
        file("/other", "x"),
        file("/twice", "second"),
        third,
    ];
    let answers = runtime().block_on(client.put_many(files, None)).unwrap();
    assert_eq!(codes(&answers), ["ok", "ok", "ok", "exists"]);
    assert!(answers[0].as_ref().unwrap() < answers[2].as_ref().unwrap());
    assert_eq!(server.get("/twice"), b"second");
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn a_file_that_is_too_large_or_other_than_announced_is_refused_alone() {
    let server = Server::start();
    let mut raw = Raw::connect(&server, "dev");
    let large = content(1, usize::try_from(MANY_SIZE_MAX).unwrap() + 1);
    let wrong = json!({"path": "/wrong", "size": 3, "digest": Digest::of(b"abd").to_string()});
    let packed = [
        line("/a", b"a"),
        line("/large", &large),
        line("/b", b""),
        packed(&wrong, b"abc"),
        line("/c", b"c"),
    ]
    .concat();
    raw.send(&message(PUT));
    raw.send(&body(&packed));
    let answer = raw.answer();
    assert_eq!(answer["ok"]["n_refused"], 2, "{answer}");
    let versions: Vec<u64> = serde_json::from_value(answer["ok"]["versions"].clone()).unwrap();
    let is_there: Vec<bool> = versions.iter().map(|version| *version > 0).collect();
    assert_eq!(is_there, [true, false, true, false, true]);
    let refused = answer["ok"]["refused"].as_array().unwrap();
    let refused: Vec<_> = refused
        .iter()
        .map(|one| (one["number"].as_u64().unwrap(), code(one)))
        .collect();
    assert_eq!(refused, [(1, "too_large"), (3, "digest_mismatch")]);
    raw.lives();
    assert_eq!(snapshot(&server.root()).len(), 3);
    assert_eq!(server.staged(), Vec::<String>::new());
}

/// Sends a body that is refused as a whole.
#[track_caller]
fn refused_whole(server: &Server, request: &str, bytes: &[u8], expected: &str) {
    let before = snapshot(&server.root());
    let mut raw = Raw::connect(server, "dev");
    raw.send(&message(request));
    raw.send(bytes);
    let answer = raw.answer();
    assert_eq!(code(&answer), expected, "{answer}");
    raw.lives();
    assert_eq!(snapshot(&server.root()), before);
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn a_body_that_is_not_whole_or_not_packed_well_puts_nothing() {
    let server = Server::start();
    let good = [line("/a", b"a"), line("/b", b"b")].concat();
    let whole = Digest::of(&good).to_string();
    let bad = |packed: &[u8]| refused_whole(&server, PUT, &body(packed), "bad_request");
    bad(&good[..good.len() - 1]);
    bad(&[&good[..], b"{"].concat());
    bad(&[&good[..], b"no json\n"].concat());
    bad(&[&good[..], b"\n"].concat());
    bad(&[&good[..], &vec![b'x'; 5000]].concat());
    let digest = Digest::of(b"").to_string();
    for wrong in [
        json!({"size": 0, "digest": digest}),
        json!({"path": "/c", "size": 0}),
        json!({"path": "/c", "size": -1, "digest": digest}),
        json!({"path": "/../c", "size": 0, "digest": digest}),
        json!({"path": "/c", "size": 0, "digest": digest, "later": 1}),
    ] {
        bad(&[&good[..], &packed(&wrong, b"")].concat());
    }
    let abort = frame(b'E', br#"{"abort":"unavailable"}"#);
    let ended = |end: &[u8]| [&frame(b'D', &good)[..], end].concat();
    refused_whole(&server, PUT, &ended(&abort), "bad_request");
    let range = frame(b'E', json!({"size": good.len()}).to_string().as_bytes());
    refused_whole(&server, PUT, &ended(&range), "bad_request");
    refused_whole(
        &server,
        PUT,
        &ended(&trailer(good.len() + 1, &whole)),
        "digest_mismatch",
    );
    refused_whole(
        &server,
        PUT,
        &ended(&trailer(good.len(), &digest)),
        "digest_mismatch",
    );
    let many: Vec<u8> = (0..=MANY_FILES_MAX)
        .flat_map(|n| line(&format!("/many/{n}"), b""))
        .collect();
    refused_whole(&server, PUT, &body(&many), "quota");
    let stage = r#"{"id":1,"op":"put_many","stage":true}"#;
    refused_whole(&server, stage, &body(&good), "bad_request");
    let condition = json!({"size": 0, "digest": digest, "if_absent": true});
    refused_whole(
        &server,
        stage,
        &body(&packed(&condition, b"")),
        "bad_request",
    );
    let most: Vec<u8> = (0..MANY_FILES_MAX)
        .flat_map(|n| line(&format!("/many/{n}"), b""))
        .collect();
    let mut raw = Raw::connect(&server, "dev");
    raw.send(&message(PUT));
    raw.send(&body(&most));
    assert!(raw.answer()["ok"]["n_refused"].is_null());
    assert_eq!(snapshot(&server.root()).len(), MANY_FILES_MAX);
}

#[test]
fn a_connection_that_is_cut_in_a_body_puts_nothing() {
    let server = Server::start();
    let good = [line("/a", b"a"), line("/b", &content(7, 100_000))].concat();
    for n in [10, 300, good.len() - 1, good.len()] {
        let mut raw = Raw::connect(&server, "dev");
        raw.send(&message(PUT));
        raw.send(&frame(b'D', &good[..n]));
        raw.cut();
    }
    // The server has ended what it had begun when nothing is staged any more.
    let until = Instant::now() + Duration::from_secs(30);
    while !server.staged().is_empty() {
        assert!(Instant::now() < until, "{:?}", server.staged());
        std::thread::yield_now();
    }
    assert!(snapshot(&server.root()).is_empty());
}

#[test]
fn reasons_that_do_not_fit_leave_the_answer_whole() {
    let server = Server::with_policy(MIXED);
    let alice = client_of(&server, "alice");
    let long = "x".repeat(200);
    let files: Vec<ManyPut> = (0..MANY_FILES_MAX)
        .map(|n| file(&format!("/no/{long}/{n}"), ""))
        .collect();
    let answers = runtime().block_on(alice.put_many(files, None)).unwrap();
    assert_eq!(answers.len(), MANY_FILES_MAX);
    assert_eq!(answers[0].as_ref().unwrap_err().code, ErrorCode::Denied);
    assert!(answers.iter().all(Result::is_err));
    let last = answers.last().unwrap().as_ref().unwrap_err();
    assert!(last.message.contains("no room"), "{last:?}");
    assert!(snapshot(&server.root()).is_empty());
}

#[test]
fn many_contents_are_staged_for_a_set() {
    let runtime = runtime();
    let server = Server::with_policy(MIXED);
    let dev = client_of(&server, "dev");
    let contents: Vec<Vec<u8>> = (0..40).map(|n| content(n, 3000)).collect();
    runtime.block_on(async {
        let staged = dev.stage_many(contents.clone()).await.unwrap();
        assert!(snapshot(&server.root()).is_empty());
        let members: Vec<Member> = staged
            .into_iter()
            .zip(0..)
            .map(|(staged, n): (_, usize)| {
                let staged = staged.unwrap();
                assert_eq!(staged.digest, Digest::of(&contents[n]));
                Member {
                    path: path(&format!("/set/{n}")),
                    staged: Some(staged.staged.to_string()),
                    remove: false,
                    if_absent: true,
                    if_version: None,
                    digest: None,
                    attributes: None,
                }
            })
            .collect();
        let alien = client_of(&server, "alice").commit(&members[..1]).await;
        assert!(alien.is_err());
        assert_eq!(dev.commit(&members).await.unwrap().n_members, 40);
    });
    assert!(server.get("/set/39") == contents[39]);
    assert_eq!(server.staged(), Vec::<String>::new());

    let server = Server::with_policy(&MIXED.replace("\"create\", \"replace\", ", ""));
    let denied = runtime
        .block_on(client_of(&server, "dev").stage_many(contents))
        .unwrap_err();
    assert_eq!(denied.code(), Some(ErrorCode::Denied));
    assert_eq!(server.staged(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_sent_is_an_error_in_its_place() {
    let runtime = runtime();
    let server = Server::with_policy(MIXED);
    let [dev, alice] = ["dev", "alice"].map(|name| client_of(&server, name));
    let too_large = usize::try_from(MANY_SIZE_MAX).unwrap() + 1;
    server.put("/in/large", &content(1, too_large));
    runtime.block_on(async {
        let files = vec![
            file("/in/a", "a"),
            file("/out/b", "b"),
            file("/in/z", content(2, 1 << 20)),
        ];
        dev.put_many(files, None).await.unwrap();
        std::fs::write(server.root().join("in/foreign"), "foreign").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", server.root().join("in/link")).unwrap();
        let names = [
            "/in/a",
            "/in/none",
            "/out/b",
            "/in/large",
            "/in",
            "/in/foreign",
            "/in/link",
            "/in/z",
            "/in/a",
        ];
        let got = get_all(&alice, &names.map(path)).await.unwrap();
        let expected = [
            "ok",
            "not_found",
            "denied",
            "too_large",
            "denied",
            "ok",
            "bad_request",
            "ok",
            "ok",
        ];
        assert_eq!(codes(&got), expected);
        let (foreign, content) = got[5].as_ref().unwrap();
        assert_eq!((foreign.version, &content[..]), (None, &b"foreign"[..]));
        let large = file("/in/l", content.repeat(200_000));
        assert!(matches!(
            dev.put_many(vec![large], None).await,
            Err(ClientError::TooMany { .. })
        ));
    });
    let paths: Vec<RemotePath> = (0..=MANY_PATHS_MAX)
        .map(|n| path(&format!("/{n}")))
        .collect();
    assert_eq!(n_paths_that_fit(&paths), MANY_PATHS_MAX);
    let refused = runtime.block_on(get_all(&dev, &paths)).unwrap_err();
    assert!(matches!(refused, ClientError::TooMany { .. }));
    let request = json!({"id": 1, "op": "get_many", "paths": paths}).to_string();
    let mut raw = Raw::connect(&server, "dev");
    assert_eq!(code(&raw.ask(&request)), "quota");
    raw.lives();
    let long: Vec<RemotePath> = (100..200)
        .map(|n| {
            path(&format!(
                "/{}/{n}",
                ["x"; 450].join("").repeat(2).split_at(250).0
            ))
        })
        .collect();
    let n_fit = n_paths_that_fit(&long);
    assert_eq!(n_fit, 100);
    assert_eq!(runtime.block_on(get_all(&dev, &long)).unwrap().len(), 100);
}

/// What a client makes of a body that a server invents for two paths.
fn invented(lines: &[u8], end: Option<Vec<u8>>) -> ClientError {
    let matrix = Matrix::new();
    let good = matrix.ca.server(&["localhost"], |_| {});
    let hello = json!({"hello": {"server": "x", "identity": "x", "expires_at": "2030-01-01T00:00:00Z",
        "time": "2026-01-01T00:00:00Z", "features": [], "limits": {"message_size_max": 65536,
        "data_size_max": 1_048_576, "file_size_max": 1_048_576}}});
    let mut says = message(&hello.to_string());
    says.extend(message(r#"{"id":1,"ok":{}}"#));
    match end {
        None => says.extend(body(lines)),
        Some(end) => says.extend([frame(b'D', lines), end].concat()),
    }
    let port = tls(&matrix, &good, &["fsvc/1"], says.leak());
    let options =
        fsvc::client::Options::from_directory(&format!("localhost:{port}"), matrix.dir(), "good");
    let client = Client::new(options).unwrap();
    runtime()
        .block_on(get_all(&client, &["/a", "/b"].map(path)))
        .unwrap_err()
}

#[test]
fn a_server_that_sends_something_else_is_refused() {
    let info = |name: &str, size: usize, digest: &[u8]| {
        let digest = Digest::of(digest).to_string();
        json!({"file": {"path": name, "size": size, "modified": "2026-01-01T00:00:00Z", "digest": digest}})
    };
    let good = [
        packed(&info("/a", 1, b"a"), b"a"),
        packed(&info("/b", 1, b"b"), b"b"),
    ]
    .concat();
    let says = |lines: &[u8], cause: &str| {
        let error = invented(lines, None).to_string();
        assert!(error.contains(cause), "{cause:?} not in {error:?}");
    };
    says(
        &[&good[..], &packed(&info("/c", 1, b"c"), b"c")].concat(),
        "more than 2 files",
    );
    says(&packed(&info("/b", 1, b"b"), b"b"), "not asked for");
    says(
        &packed(&info("/a", 1 << 30, b"b"), b"b"),
        "more than 1048576 bytes",
    );
    says(
        &packed(&info("/a", 1, b"b"), b"a"),
        "not what the server announced",
    );
    says(&good[..good.len() / 2], "ends too early");
    says(&good[..good.len() - 1], "ends too early");
    says(&vec![b'x'; 10_000], "too long");
    says(b"[]\n", "makes no sense");
    let end = |end: Vec<u8>, cause: &str| {
        let error = invented(&good, Some(end)).to_string();
        assert!(error.contains(cause), "{cause:?} not in {error:?}");
    };
    end(
        trailer(good.len(), &Digest::of(b"").to_string()),
        "not what the server announced",
    );
    end(
        trailer(1, &Digest::of(&good).to_string()),
        "announced 1 bytes",
    );
    end(frame(b'E', br#"{"abort":"changed"}"#), "gave up");
    end(frame(b'E', br#"{"size":1}"#), "without a digest");
}

#[cfg(debug_assertions)]
#[test]
fn a_sync_that_fails_puts_none_and_ends_all_changes() {
    use crate::harness::{Setup, everything};
    for (plan, size, expected) in [
        ("store.whole.syncfs=EIO@1", LARGER, "internal"),
        ("store.whole.syncfs.after=EIO@1", LARGER, "internal"),
        ("store.pack.sync=EIO@1", 1, "internal"),
        ("store.pack.sync.after=EIO@1", 1, "internal"),
    ] {
        let server = Server::start_with(Setup {
            policy: Some(everything()),
            fault: Some(plan.to_owned()),
            ..Setup::default()
        });
        if size == 1 && !is_packing(&server.root()) {
            continue;
        }
        let client = client(&server);
        let batch = || {
            (0..8)
                .map(|n| file(&format!("/{n}"), "x".repeat(size)))
                .collect::<Vec<_>>()
        };
        let failed = runtime()
            .block_on(client.put_many(batch(), None))
            .unwrap_err();
        assert_eq!(failed.code().unwrap().to_string(), expected, "{plan}");
        let refused = runtime().block_on(client.put_many(batch(), None));
        assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::Unavailable));
        assert!(snapshot(&server.root()).is_empty());
        assert!(server.log().contains("takes no changes until a restart"));
        assert_eq!(server.staged(), Vec::<String>::new());
    }
}

/// Dies at each point of a batch: either all of it is there after the restart, or nothing.
#[cfg(debug_assertions)]
#[test]
fn a_death_in_the_middle_of_a_batch_leaves_whole_files_or_none() {
    use crate::harness::{Setup, everything};
    for (point, size, is_there) in [
        ("store.stage.write.after=abort@5", 100, false),
        ("store.stage.write.after=abort@5", LARGER, false),
        ("store.whole.syncfs=abort@1", LARGER, false),
        ("store.whole.syncfs.after=abort@1", LARGER, false),
        ("store.pack.create=abort@1", 100, false),
        ("store.pack.write=abort@5", 100, false),
        ("store.pack.flush=abort@1", 100, false),
        ("store.pack.flush.after=abort@1", 100, false),
        ("store.pack.sync=abort@1", 100, false),
        ("store.pack.sync.after=abort@1", 100, false),
        ("put.seal.after=abort@1", 100, false),
        ("commit.append=abort@1", 100, false),
        ("commit.append.after=abort@1", 100, true),
        ("commit.append.after=abort@1", LARGER, true),
        ("store.publish.link=abort@7", 100, true),
        ("store.publish.link.after=abort@20", 100, true),
        ("store.publish.rename=abort@7", LARGER, true),
        ("store.publish.rename.after=abort@20", LARGER, true),
        // The second sync of the file system is that of the directories.
        ("store.whole.syncfs=abort@2", LARGER, true),
    ] {
        let mut server = Server::start_with(Setup {
            policy: Some(everything()),
            fault: Some(point.to_owned()),
            ..Setup::default()
        });
        if size < LARGER && !is_packing(&server.root()) {
            continue;
        }
        let files: Vec<ManyPut> = (0..30u8)
            .map(|n| file(&format!("/d{}/{n}", n % 15), vec![n; size]))
            .collect();
        let client = client(&server);
        let lost = runtime().block_on(client.put_many(files, None));
        assert!(
            matches!(lost, Err(ClientError::Lost { .. })),
            "{point}: {lost:?}"
        );
        server.restart();
        assert_eq!(server.staged(), Vec::<String>::new(), "{point}");
        let found = snapshot(&server.root());
        assert_eq!(found.len(), if is_there { 30 } else { 0 }, "{point}");
        for n in (0..30u8).filter(|_| is_there) {
            let content = server.get(&format!("/d{}/{n}", n % 15));
            assert!(content == vec![n; size], "{point}: {n}");
        }
    }
}

#[test]
fn a_kill_while_batches_run_loses_none_that_was_acknowledged() {
    const N_FILES: usize = 64;
    let n_kills = count("FSVC_TEST_KILLS", 4);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = Server::start();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut known: BTreeMap<RemotePath, Vec<u8>> = BTreeMap::new();
    let n_batches = Arc::new(AtomicUsize::new(0));
    for kill in 0..n_kills as u64 {
        let client = client(&server);
        let n_before = n_batches.load(Ordering::SeqCst);
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let (client, n_batches) = (client.clone(), Arc::clone(&n_batches));
                runtime.spawn(async move {
                    let mut acknowledged = Vec::new();
                    for batch in 0..u64::MAX {
                        let files: Vec<ManyPut> = (0..N_FILES as u64)
                            .map(|n| {
                                let seed = (kill << 40) | (writer << 32) | (batch << 12) | n;
                                let name = format!("/w{writer}/k{kill}/b{batch}/{n}");
                                file(&name, content(seed, usize::try_from(n * 40).unwrap()))
                            })
                            .collect();
                        match client.put_many(files.clone(), None).await {
                            Ok(answers) => {
                                assert!(answers.iter().all(Result::is_ok), "{answers:?}");
                                acknowledged.push(files);
                                n_batches.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        // A slow disk may else let none be acknowledged in any of the rounds.
        if kill % 2 == 1 {
            let until = Instant::now() + Duration::from_secs(30);
            while n_batches.load(Ordering::SeqCst) == n_before {
                assert!(Instant::now() < until, "the writers did not come to write");
                std::thread::yield_now();
            }
        }
        // The moment of the kill is the test's input, not a wait for anything.
        std::thread::sleep(Duration::from_millis(30 + random.below(200)));
        server.kill();
        for writer in writers {
            let acknowledged = runtime.block_on(writer).unwrap();
            let files = acknowledged.into_iter().flatten();
            known.extend(files.map(|file| (file.path, file.content)));
        }
        server.restart();
        assert_eq!(server.staged(), Vec::<String>::new());
    }
    let client = client(&server);
    let paths: Vec<RemotePath> = known.keys().cloned().collect();
    for some in paths.chunks(MANY_PATHS_MAX) {
        for one in runtime.block_on(get_all(&client, some)).unwrap() {
            let (info, content) = one.unwrap();
            assert!(info.version.is_some(), "{} lost its version", info.path);
            assert!(known[&info.path] == content, "{} is torn", info.path);
        }
    }
    let n_batches = n_batches.load(Ordering::SeqCst);
    assert!(n_batches > 0, "the writers did not come to write");
    eprintln!("{n_kills} kills, {n_batches} batches acknowledged, none lost");
}

#[test]
fn a_batch_that_is_repeated_puts_nothing_twice() {
    let server = Server::with_policy(MIXED);
    let dev = client_of(&server, "dev");
    let id = |text: &str| Some(text.parse().unwrap());
    let files: Vec<ManyPut> = (0..20)
        .map(|n| file(&format!("/in/{n}"), [n; 10]))
        .collect();
    runtime().block_on(async {
        let first = dev.put_many(files.clone(), id("a")).await.unwrap();
        // A part of it is put again by somebody else meanwhile: the repetition does not undo that.
        dev.put_many(vec![file("/in/3", "later")], None)
            .await
            .unwrap();
        assert_eq!(dev.put_many(files.clone(), id("a")).await.unwrap(), first);
        assert_eq!(server.get("/in/3"), b"later");
        // What did not come the first time comes now; what has other bytes is another request.
        let mut more = files.clone();
        more[0].content = b"other".to_vec();
        more.push(file("/in/more", "more"));
        let again = dev.put_many(more, id("a")).await.unwrap();
        assert_eq!(again[0].as_ref().unwrap_err().code, ErrorCode::BadRequest);
        assert_eq!(again[1..20], first[1..20]);
        assert!(again[20].as_ref().unwrap() > first[19].as_ref().unwrap());
        assert_eq!(server.get("/in/0"), [0; 10]);
        let long = dev.put_many(files, id(&"x".repeat(128))).await.unwrap_err();
        assert_eq!(long.code(), Some(ErrorCode::BadRequest));
    });
    assert_eq!(server.staged(), Vec::<String>::new());
}
