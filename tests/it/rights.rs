//! For each right: without it the answer is `denied`, and nothing has changed.

use serde_json::Value;

use crate::crash::client;
use crate::harness::{Server, text, with_input};
use crate::raw::snapshot;

const RIGHTS: [&str; 5] = ["list", "read", "create", "replace", "delete"];

/// What a user may try, and the rights it takes.
const TRIES: [(&[&str], &[&str]); 10] = [
    (&["ls", "/d"], &["list"]),
    (&["stat", "/d/a"], &["list"]),
    (&["get", "/d/a", "-"], &["read"]),
    (&["put", "-", "/d/new"], &["create"]),
    (&["put", "-", "/d/a"], &["replace"]),
    (&["rm", "/d/a"], &["delete"]),
    (&["mv", "/d/a", "/d/new"], &["read", "delete", "create"]),
    (&["mv", "/d/a", "/d/b"], &["read", "delete", "replace"]),
    (&["cp", "/d/a", "/d/new"], &["read", "create"]),
    (&["cp", "/d/a", "/d/b"], &["read", "replace"]),
];

fn policy(rights: &[&str]) -> String {
    let list: Vec<String> = rights.iter().map(|right| format!("\"{right}\"")).collect();
    format!(
        "[[grant]]\nto = \"spiffe://test.internal/client/dev\"\nallow = [{}]\non = \"/**\"\n\
         [[grant]]\nto = \"spiffe://test.internal/client/alice\"\nallow = [{}]\non = \"/**\"\n",
        list.join(", "),
        RIGHTS.map(|right| format!("\"{right}\"")).join(", ")
    )
}

fn filled(rights: &[&str]) -> Server {
    let server = Server::with_policy(&policy(rights));
    for (name, content) in [("/d/a", "content a"), ("/d/b", "content b")] {
        let put = with_input(
            &mut server.client("alice", &["put", "-", name]),
            content.as_bytes(),
        );
        assert!(put.status.success(), "{}", text(&put.stderr));
    }
    server
}

#[test]
fn without_a_right_nothing_happens_and_the_refusal_says_why() {
    for missing in RIGHTS {
        let rights: Vec<&str> = RIGHTS
            .into_iter()
            .filter(|right| *right != missing)
            .collect();
        let server = filled(&rights);
        let before = snapshot(&server.root());
        for (arguments, needed) in TRIES {
            if !needed.contains(&missing) {
                continue;
            }
            let output = with_input(&mut server.client("dev", arguments), b"new");
            let said = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(4),
                "{arguments:?} without {missing}: {said}"
            );
            assert!(
                said.contains("spiffe://test.internal/client/dev may"),
                "{said}"
            );
            assert!(output.stdout.is_empty(), "{arguments:?} without {missing}");
            assert_eq!(
                snapshot(&server.root()),
                before,
                "{arguments:?} without {missing}"
            );
            assert_eq!(server.staged(), Vec::<String>::new());
        }
    }
}

#[test]
fn with_exactly_the_rights_it_takes_each_thing_works() {
    for (arguments, needed) in TRIES {
        let server = filled(needed);
        let output = with_input(&mut server.client("dev", arguments), b"new");
        assert!(
            output.status.success(),
            "{arguments:?} with {needed:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn can_says_what_would_happen() {
    let server = filled(&["list", "create"]);
    for right in RIGHTS {
        let output = server.run(&["can", right, "/d/a", "--json"]);
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        let allowed = ["list", "create"].contains(&right);
        assert_eq!(verdict["allowed"], allowed, "{right}");
        assert_eq!(
            output.status.code(),
            Some(if allowed { 0 } else { 4 }),
            "{right}"
        );
    }
}

#[test]
fn a_denial_does_not_tell_what_is_there() {
    let server = filled(&["create"]);
    for command in ["get", "stat", "rm"] {
        let (there, not) = (
            server.run(&[command, "/d/a"]),
            server.run(&[command, "/d/x"]),
        );
        assert_eq!(there.status.code(), Some(4));
        assert_eq!(
            text(&there.stderr).replace("/d/a", "/d/x"),
            text(&not.stderr)
        );
    }
}

#[test]
fn create_without_replace_has_one_winner_in_a_race() {
    let server = filled(&["create"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..20 {
        let path: fsvc::path::RemotePath = format!("/race/{round}").parse().unwrap();
        let n_won = runtime.block_on(async {
            let tries: Vec<_> = (0..16_u8)
                .map(|number| {
                    let (client, path) = (client(&server), path.clone());
                    tokio::spawn(async move {
                        client
                            .put_bytes(
                                &path,
                                vec![number; 100],
                                fsvc::protocol::Conditions::default(),
                            )
                            .await
                    })
                })
                .collect();
            let mut n_won = 0;
            for attempt in tries {
                match attempt.await.unwrap() {
                    Ok(_) => n_won += 1,
                    Err(error) => assert_eq!(
                        error.code(),
                        Some(fsvc::protocol::ErrorCode::Denied),
                        "{error}"
                    ),
                }
            }
            n_won
        });
        assert_eq!(n_won, 1, "round {round}");
    }
}

#[test]
fn conditions_have_one_winner_in_a_race() {
    let server = filled(&RIGHTS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path: fsvc::path::RemotePath = "/race".parse().unwrap();
    let mut version = None;
    for round in 0..20 {
        let conditions = fsvc::protocol::Conditions {
            if_absent: version.is_none(),
            if_version: version,
        };
        let winners = runtime.block_on(async {
            let tries: Vec<_> = (0..16_u8)
                .map(|number| {
                    let (client, path) = (client(&server), path.clone());
                    tokio::spawn(async move {
                        client.put_bytes(&path, vec![number; 100], conditions).await
                    })
                })
                .collect();
            let mut winners = Vec::new();
            for attempt in tries {
                match attempt.await.unwrap() {
                    Ok(file) => winners.push(file.version),
                    Err(error) => {
                        let code = error.code().unwrap().to_string();
                        assert!(["exists", "changed"].contains(&code.as_str()), "{error}");
                    }
                }
            }
            winners
        });
        assert_eq!(winners.len(), 1, "round {round}");
        version = winners[0];
    }
}
