//! P5.16: a request that is asked twice is done once, and answered twice the same.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use fsvc::client::PutOptions;
use fsvc::database::Database;
use fsvc::identity::Identity;
use fsvc::log::{Log, Sequence};
use fsvc::ops::{OpError, Service};
use fsvc::path::RemotePath;
use fsvc::protocol::{Commit, Committed, Conditions, Member, Stage, Trailer};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::attachments::{open, parts};
use crate::crash::count;
use crate::harness::{Server, Setup, everything};
use crate::journal::{open_on, page};
use crate::messages::{self, client, runtime};
use crate::raw::{Raw, body, code, message};
use crate::store_local::scratch;

/// Larger than what a session takes in one piece.
const LARGE_SIZE: usize = 3 << 20;
const N_RACERS: usize = 16;
/// The variable that asks for more is one of shorter races, too.
const N_RACES_MAX: usize = 1_000;
/// Longest end of a server.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// A request, and the body that follows it where there is one.
#[derive(Clone)]
struct Asked {
    request: Value,
    body: Vec<u8>,
}

fn asked(request: Value) -> Asked {
    let body = Vec::new();
    Asked { request, body }
}

fn put(path: &str, id: &str, content: &[u8]) -> Asked {
    Asked {
        request: json!({"id": 1, "op": "put", "path": path, "size": content.len(), "request_id": id}),
        body: body(content),
    }
}

fn remove(path: &str, id: &str) -> Asked {
    asked(json!({"id": 1, "op": "remove", "path": path, "request_id": id}))
}

fn rename(from: &str, to: &str, id: &str) -> Asked {
    asked(json!({"id": 1, "op": "move", "from": from, "to": to, "request_id": id}))
}

fn copy(from: &str, to: &str, id: &str) -> Asked {
    asked(json!({"id": 1, "op": "copy", "from": from, "to": to, "request_id": id}))
}

fn commit(members: &[Value], id: &str) -> Asked {
    let lines: Vec<String> = members.iter().map(Value::to_string).collect();
    Asked {
        request: json!({"id": 1, "op": "commit", "request_id": id}),
        body: body(lines.join("\n").as_bytes()),
    }
}

impl Asked {
    /// With a field more.
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.request[name] = value.into();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [message(&self.request.to_string()), self.body.clone()].concat()
    }
}

fn serve() -> Server {
    Server::with_policy(&everything())
}

/// Asks as a client, over a connection of its own.
#[track_caller]
fn answer_to(server: &Server, name: &str, asked: &Asked) -> Value {
    let mut raw = Raw::connect(server, name);
    raw.send(&asked.bytes());
    let answer = raw.answer();
    raw.lives();
    answer
}

/// Asks as dev; it must be done.
#[track_caller]
fn done(server: &Server, asked: &Asked) -> Value {
    let answer = answer_to(server, "dev", asked);
    assert!(answer["ok"].is_object(), "{answer}\n{}", server.log());
    answer["ok"].clone()
}

/// Asks as dev; it must be refused, and change nothing.
#[track_caller]
fn refused(server: &Server, asked: &Asked, with: &str) {
    let before = head(server);
    let answer = answer_to(server, "dev", asked);
    assert_eq!(code(&answer), with, "{answer}");
    assert_eq!(head(server), before);
    assert_eq!(server.staged(), [""; 0]);
}

/// Asks as dev what was done already; it changes nothing, and nothing is left of it.
#[track_caller]
fn repeated(server: &Server, asked: &Asked, first: &Value) {
    answered_again(server, asked, first);
    assert_eq!(server.staged(), [""; 0]);
}

#[track_caller]
fn answered_again(server: &Server, asked: &Asked, first: &Value) {
    let before = head(server);
    assert_eq!(&done(server, asked), first);
    assert_eq!(head(server), before, "it was done again");
}

/// The last record's number.
#[track_caller]
fn head(server: &Server) -> u64 {
    let stats = done(server, &asked(json!({"id": 1, "op": "log_stats"})));
    stats["head"].as_u64().unwrap()
}

fn stage(server: &Server, content: &[u8]) -> String {
    let request = json!({"id": 1, "op": "stage", "size": content.len()});
    let body = body(content);
    let staged = done(server, &Asked { request, body });
    staged["staged"].as_str().unwrap().to_owned()
}

/// One request of each kind, about files of a directory of its own.
fn one_of_each(server: &Server, n: usize) -> Vec<Asked> {
    let at = |name: &str| format!("/{n}/{name}");
    for name in ["removed", "moved", "copied", "of-set"] {
        let id = format!("{n} {name}");
        done(server, &put(&at(name), &id, name.as_bytes()));
    }
    let id = |of: &str| format!("{n} {of} again");
    let members = [
        json!({"path": at("set/a"), "staged": stage(server, b"a")}),
        json!({"path": at("of-set"), "remove": true}),
        json!({"path": at("set/b"), "staged": stage(server, b"b"), "if_absent": true}),
    ];
    vec![
        commit(&members, &id("commit")),
        put(&at("small"), &id("small"), b"small").with("if_absent", true),
        put(&at("large"), &id("large"), &vec![7; LARGE_SIZE]),
        remove(&at("removed"), &id("remove")),
        rename(&at("moved"), &at("to"), &id("move")).with("if_absent", true),
        copy(&at("copied"), &at("copy"), &id("copy")).with("if_absent", true),
    ]
}

#[test]
fn d12_a_request_that_is_cut_takes_effect_once() {
    let mut server = serve();
    for round in 0..count("FSVC_TEST_CUTS", 4) {
        for asked in one_of_each(&server, round) {
            let before = head(&server);
            let bytes = asked.bytes();
            // In the middle of the request, which is then not done.
            let mut raw = Raw::connect(&server, "dev");
            raw.send(&bytes[..bytes.len() - 1]);
            raw.cut();
            assert_eq!(head(&server), before);
            // Behind it, before the answer: done or not, and perhaps still under way.
            for _ in 0..3 {
                let mut raw = Raw::connect(&server, "dev");
                raw.send(&bytes);
                raw.cut();
            }
            let first = done(&server, &asked);
            assert_eq!(head(&server), before + 1, "{}", asked.request);
            // Just after the answer.
            let mut raw = Raw::connect(&server, "dev");
            raw.send(&bytes);
            assert_eq!(raw.answer()["ok"], first);
            raw.cut();
            answered_again(&server, &asked, &first);
        }
    }
    // What was cut has come to its end when the server has.
    server.signal("TERM");
    assert!(server.wait(DRAIN_LIMIT).success());
    assert_eq!(server.staged(), [""; 0]);
}

#[test]
fn d12_requests_of_one_id_at_the_same_time_take_effect_once() {
    let server = serve();
    for asked in one_of_each(&server, 0) {
        let before = head(&server);
        let start = Barrier::new(N_RACERS / 2);
        let answers = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..N_RACERS / 2)
                .map(|_| {
                    let (server, asked, start) = (&server, &asked, &start);
                    scope.spawn(move || {
                        let mut raw = Raw::connect(server, "dev");
                        start.wait();
                        raw.send(&asked.bytes());
                        raw.answer()
                    })
                })
                .collect();
            let answers = racers.into_iter().map(|racer| racer.join().unwrap());
            answers.collect::<Vec<_>>()
        });
        assert!(answers[0]["ok"].is_object(), "{}", answers[0]);
        assert!(answers.iter().all(|a| a == &answers[0]), "{answers:?}");
        assert_eq!(head(&server), before + 1, "{}", asked.request);
        assert_eq!(server.staged(), [""; 0]);
    }
}

#[test]
fn d12_what_happened_since_does_not_matter() {
    let server = serve();
    let of_each = one_of_each(&server, 0);
    let first: Vec<Value> = of_each.iter().map(|asked| done(&server, asked)).collect();
    let all_repeated = |server: &Server| {
        for (asked, first) in of_each.iter().zip(&first) {
            repeated(server, asked, first);
        }
    };
    // Other files, under each of the names; then none; then directories; then those of others.
    let names = [
        "small", "large", "removed", "moved", "to", "copied", "copy", "set/a", "of-set",
    ];
    for name in names {
        done(
            &server,
            &put(&format!("/0/{name}"), &format!("other {name}"), b"other"),
        );
    }
    all_repeated(&server);
    for name in names {
        done(
            &server,
            &remove(&format!("/0/{name}"), &format!("gone {name}")),
        );
    }
    all_repeated(&server);
    let directory = |name: &str| format!("/0/{name}/in/it");
    for name in names {
        done(
            &server,
            &put(&directory(name), &format!("in {name}"), b"other"),
        );
    }
    all_repeated(&server);
    for name in names {
        done(
            &server,
            &remove(&directory(name), &format!("not in {name}")),
        );
        std::fs::create_dir_all(server.root().join("0/set")).unwrap();
        std::fs::write(server.root().join(format!("0/{name}")), b"foreign").unwrap();
    }
    all_repeated(&server);
    for name in names {
        let now = std::fs::read(server.root().join(format!("0/{name}"))).unwrap();
        assert_eq!(now, b"foreign", "{name}");
    }
}

#[test]
fn d12_a_restart_does_not_forget() {
    let mut server = serve();
    let of_each = one_of_each(&server, 0);
    let first: Vec<Value> = of_each.iter().map(|asked| done(&server, asked)).collect();
    server.restart();
    for (asked, first) in of_each.iter().zip(&first) {
        repeated(&server, asked, first);
    }
}

#[test]
fn d12_a_crash_behind_the_append_is_answered_after_the_start() {
    for point in ["commit.append.after", "store.publish.rename.after"] {
        let mut server = serve();
        done(&server, &put("/a", "a", b"first"));
        let request = put("/a", "b", b"second").with("if_version", 1);
        server.restart_with(Some(&format!("{point}=abort")));
        let mut raw = Raw::connect(&server, "dev");
        raw.send(&request.bytes());
        assert_eq!(raw.try_frame(), None, "{point}");
        server.restart();
        assert_eq!(head(&server), 2, "{point}");
        let first = done(&server, &request);
        assert_eq!(first["version"], 2);
        repeated(&server, &request, &first);
    }
}

#[test]
fn conditions_were_checked_the_first_time() {
    let server = serve();
    let create = put("/a", "create", b"1").with("if_absent", true);
    let first = done(&server, &create);
    repeated(&server, &create, &first);
    let overwrite = put("/a", "overwrite", b"2").with("if_version", 1);
    let second = done(&server, &overwrite);
    assert_eq!(second["version"], 2);
    repeated(&server, &overwrite, &second);
    repeated(&server, &create, &first);
    // One that was refused was not done: it may be tried again under its id.
    let late = put("/a", "late", b"3").with("if_version", 1);
    refused(&server, &late, "changed");
    refused(&server, &late, "changed");
    assert_eq!(done(&server, &late.with("if_version", 2))["version"], 3);
    let nowhere = remove("/nowhere", "nowhere");
    refused(&server, &nowhere, "not_found");
    done(&server, &put("/nowhere", "now", b"x"));
    let removed = done(&server, &nowhere);
    repeated(&server, &nowhere, &removed);
}

#[test]
fn an_id_belongs_to_an_identity_and_is_no_message_s() {
    let server = serve();
    let first = done(&server, &put("/a", "id", b"dev's"));
    let other = answer_to(&server, "alice", &put("/a", "id", b"alice's"));
    assert_eq!(other["ok"]["version"], 2);
    repeated(&server, &put("/a", "id", b"dev's"), &first);
    let say = json!({"id": 1, "op": "publish", "topic": "id", "size": 1, "dedup_id": "id"});
    let said = Asked {
        request: say,
        body: body(b"x"),
    };
    assert_eq!(done(&server, &said), json!({"sequence": 3}));
    // Without an id each is a request of its own.
    let mut plain = put("/a", "id", b"dev's");
    plain.request.as_object_mut().unwrap().remove("request_id");
    assert_eq!(done(&server, &plain)["version"], 4);
    assert_eq!(done(&server, &plain)["version"], 5);
}

#[test]
fn an_id_that_was_used_for_something_else_is_refused() {
    let server = serve();
    let of_each = one_of_each(&server, 0);
    let first: Vec<Value> = of_each.iter().map(|asked| done(&server, asked)).collect();
    let small = "0 small again";
    let staged = |path: &str| json!({"path": path, "staged": "0".repeat(32)});
    let gone = |path: &str| json!({"path": path, "remove": true});
    let set = "0 commit again";
    let others = [
        put("/0/else", small, b"small"),
        put("/0/small", small, b"SMALL"),
        remove("/0/small", small),
        rename("/0/small", "/0/y", small),
        commit(&[gone("/0/small")], small),
        put("/0/set/a", set, b"a"),
        commit(&[staged("/0/set/a"), gone("/0/of-set")], set),
        commit(
            &[staged("/0/set/a"), staged("/0/of-set"), staged("/0/set/b")],
            set,
        ),
        commit(
            &[staged("/0/set/a"), gone("/0/of-set"), staged("/0/set/c")],
            set,
        ),
        remove("/0/small", "0 remove again"),
        rename("/0/small", "/0/to", "0 move again"),
        rename("/0/moved", "/0/else", "0 move again"),
        copy("/0/copied", "/0/else", "0 copy again"),
    ];
    for other in others {
        refused(&server, &other, "bad_request");
    }
    for (asked, first) in of_each.iter().zip(&first) {
        repeated(&server, asked, first);
    }
    for id in ["", "a\n", &"x".repeat(129)] {
        refused(&server, &remove("/0/small", id), "bad_request");
    }
}

#[test]
fn whoever_may_not_any_more_is_not_answered() {
    let mut server = serve();
    let of_each = one_of_each(&server, 0);
    for asked in &of_each {
        done(&server, asked);
    }
    let only = |allow: &str| {
        let to = "spiffe://test.internal/client/dev";
        let admin = format!("[[grant]]\nto = \"{to}\"\nallow = [\"admin\"]\non = \"/**\"\n");
        format!("{admin}[[grant]]\nto = \"{to}\"\nallow = [{allow}]\non = \"/**\"\n")
    };
    server.setup.policy = Some(only(r#""list", "read""#));
    server.restart();
    for asked in &of_each {
        refused(&server, asked, "denied");
    }
}

#[test]
fn who_may_only_create_is_answered_again() {
    let to = "spiffe://test.internal/client/dev";
    let grant = format!(r#"allow = ["create", "admin"]{}on = "/**""#, '\n');
    let server = Server::start_with(Setup {
        policy: Some(format!("[[grant]]\nto = \"{to}\"\n{grant}\n")),
        ..Setup::default()
    });
    let create = put("/a", "1", b"x");
    let first = done(&server, &create);
    repeated(&server, &create, &first);
    refused(&server, &put("/a", "2", b"x"), "denied");
}

/// A set of what each path becomes, under one id.
async fn commit_all(
    service: &Arc<Service>,
    files: &[(&str, &str)],
    id: &str,
) -> Result<Committed, OpError> {
    let who = Arc::new(Identity {
        id: "spiffe://test.internal/client/dev".parse().unwrap(),
        serial: "1".to_owned(),
        ca: "CN=test".to_owned(),
        valid_from: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::MAX,
    });
    let mut list = Vec::new();
    for (path, content) in files {
        let allowance = service.plan_stage(&who, Stage::default()).unwrap();
        let mut staging = service.begin(allowance).unwrap();
        staging.write(content.as_bytes()).unwrap();
        let (size, digest) = (staging.size(), staging.digest());
        let staged = staging.seal(&Trailer::Whole { size, digest }).unwrap();
        let staged = service.keep_staged(&who, staged).unwrap().staged;
        let member = Member {
            digest: Some(digest),
            ..Member::put(path.parse().unwrap(), staged)
        };
        serde_json::to_writer(&mut list, &member).unwrap();
        list.push(b'\n');
    }
    let request_id = Some(id.parse().unwrap());
    service.commit_set(&who, list, Commit { request_id }).await
}

#[test]
fn a_set_that_is_history_in_part_is_still_known_and_one_that_is_gone_is_not() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let parts = parts(&root);
    let service = Arc::new(open(&parts).0);
    let next_year = Timestamp::now() + SignedDuration::from_hours(365 * 24);
    let expire = || {
        parts.log.append(&[], parts.log.head().unwrap()).unwrap();
        parts.log.expire(next_year, 100).unwrap()
    };
    runtime().block_on(async {
        let commit = async |files: &[(&str, &str)], id| commit_all(&service, files, id).await;
        let set = [("/a", "1"), ("/b", "1")];
        let first = commit(&set, "set").await.unwrap();
        assert_eq!((first.sequence, first.n_members), (1, 2));
        commit(&[("/a", "2")], "a").await.unwrap();
        assert_eq!(expire(), 1);
        let left = &parts.log.read(Sequence(1), page(1)).unwrap()[0];
        assert_eq!((left.matter.changes().len(), left.n_changes()), (1, 2));
        assert_eq!(commit(&set, "set").await.unwrap(), first);
        for other in [
            &set[1..],
            &[("/a", "1"), ("/c", "1")],
            &[("/a", "1"), ("/b", "2")],
        ] {
            let error = commit(other, "set").await.unwrap_err();
            assert!(
                matches!(error, OpError::AnotherRequest(Sequence(1))),
                "{error}"
            );
        }
        commit(&[("/b", "2")], "b").await.unwrap();
        assert_eq!(expire(), 1);
        assert_eq!(commit(&set, "set").await.unwrap().sequence, 4);
    });
}

#[test]
fn the_library_gives_each_change_an_id_of_its_own() {
    let mut server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let path: RemotePath = "/a".parse().unwrap();
        let none = Conditions::default();
        let same = PutOptions {
            request_id: Some("mine".parse().unwrap()),
            ..PutOptions::default()
        };
        let first = dev.put(&path, &b"x"[..], same.clone()).await.unwrap();
        assert_eq!(dev.put(&path, &b"x"[..], same).await.unwrap(), first);
        for version in 2..4 {
            let put = dev.put_bytes(&path, b"x".to_vec(), none).await.unwrap();
            assert_eq!(put.version, Some(version));
        }
        assert_eq!(dev.remove(&path, None).await.unwrap().sequence, 4);
        assert_eq!(
            messages::refused(dev.remove(&path, None).await),
            "not_found"
        );
        dev.close().await;
    });
    server.kill();
    let mut ids: Vec<String> = Vec::new();
    let database = Database::open(&server.root().join(".fsvc/log.redb")).unwrap();
    let (log, _) = open_on(Arc::new(database));
    for record in log.read(Sequence(1), page(10)).unwrap() {
        ids.push(record.request_id.unwrap().to_string());
    }
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[0], "mine");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

/// Each of many clients asks for one thing that only one can have.
fn race(server: &Server, racers: &mut [Raw], ask: impl Fn(usize) -> Asked + Sync) -> Vec<Value> {
    let start = Barrier::new(racers.len());
    let before = head(server);
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let threads = racers.iter_mut().enumerate().map(|(n, raw)| {
            let (ask, start) = (&ask, &start);
            scope.spawn(move || {
                start.wait();
                raw.send(&ask(n).bytes());
                raw.answer()
            })
        });
        let threads: Vec<_> = threads.collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.collect()
    });
    assert_eq!(head(server), before + 1);
    answers
}

#[test]
fn d13_of_racing_puts_one_wins() {
    let server = serve();
    let names = ["dev", "alice", "bob"];
    let mut racers: Vec<Raw> = (0..N_RACERS)
        .map(|n| Raw::connect(&server, names[n % names.len()]))
        .collect();
    let content = |round: usize, n: usize| format!("{round} of {n}").into_bytes();
    let mut version = None;
    for round in 0..count("FSVC_TEST_RACES", 12).min(N_RACES_MAX) {
        let ask = |n| {
            let put = put("/a", &format!("{round} {n}"), &content(round, n));
            match version {
                None => put.with("if_absent", true),
                Some(version) => put.with("if_version", version),
            }
        };
        let answers = race(&server, &mut racers, ask);
        let is_winner = |n: &usize| answers[*n]["ok"].is_object();
        let winners: Vec<usize> = (0..N_RACERS).filter(is_winner).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let lost = if version.is_none() {
            "exists"
        } else {
            "changed"
        };
        for n in (0..N_RACERS).filter(|n| !is_winner(n)) {
            assert_eq!(code(&answers[n]), lost);
        }
        let held = std::fs::read(server.root().join("a")).unwrap();
        assert_eq!(held, content(round, winners[0]));
        version = answers[winners[0]]["ok"]["version"].as_u64();
        // Every other round begins without the file.
        if round % 2 == 1 {
            done(&server, &remove("/a", &format!("removal {round}")));
            version = None;
        }
    }
    assert_eq!(server.staged(), [""; 0]);
}
