//! The session in memory: no TLS, no socket, a pipe that holds a few bytes.

use std::sync::Arc;
use std::time::Duration;

use fsvc::config::Limits;
use fsvc::connection::Connection;
use fsvc::database::Database;
use fsvc::digest::Digest;
use fsvc::identity::Identity;
use fsvc::index::embedded::EmbeddedIndex;
use fsvc::log::cursors::EmbeddedCursors;
use fsvc::log::embedded::EmbeddedLog;
use fsvc::log::{Keep, Retention};
use fsvc::ops::{Bounds, Parts, Service};
use fsvc::policy::Policy;
use fsvc::session::{Session, Shared, Standing};
use fsvc::store::local::LocalStore;
use fsvc::topics::Topics;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::raw::{body, code, message};

const POLICY: &str = r#"
    [[grant]]
    to = "spiffe://test.internal/client/dev"
    allow = ["list", "read", "create", "replace", "delete"]
    on = "/**"
"#;

fn shared(root: &std::path::Path) -> Shared {
    let second = Duration::from_secs(1);
    let limits = Limits {
        connections_max: 1,
        connections_per_identity_max: 1,
        handshakes_max: 1,
        transfers_max: 2,
        file_size_max: 1 << 20,
        handshake_timeout: second,
        idle_timeout: 30 * second,
        stall_timeout: 30 * second,
        grace: second,
    };
    let store = Arc::new(LocalStore::open(root, 0).unwrap());
    let database = Arc::new(Database::open(&root.join(".fsvc/log.redb")).unwrap());
    let index = Arc::new(EmbeddedIndex::open(Arc::clone(&database), Keep::everything()).unwrap());
    let log = Arc::new(EmbeddedLog::open(Arc::clone(&database), Arc::clone(&index)).unwrap());
    let policy = Policy::parse(POLICY).unwrap();
    let cursors = Arc::new(EmbeddedCursors::open(database).unwrap());
    let topics = Topics::none(Retention {
        age: Duration::MAX,
        size: u64::MAX,
    });
    let parts = Parts {
        log,
        index,
        store,
        cursors,
    };
    let bounds = Bounds {
        file_size_max: limits.file_size_max,
        keep_uploads: Duration::MAX,
    };
    let (service, _) = Service::open(parts, policy, Arc::new(topics), bounds).unwrap();
    Shared {
        service: Arc::new(service),
        transfers: Arc::new(Semaphore::new(limits.transfers_max)),
        signatures: Arc::new(Semaphore::new(2)),
        limits: Arc::new(limits),
        draining: CancellationToken::new(),
        stop: CancellationToken::new(),
    }
}

fn dev(expires_at: Timestamp) -> Identity {
    Identity {
        id: "spiffe://test.internal/client/dev".parse().unwrap(),
        serial: "01".to_owned(),
        ca: "CN=test".to_owned(),
        valid_from: Timestamp::UNIX_EPOCH,
        expires_at,
    }
}

async fn read_frame(pipe: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    pipe.read_exact(&mut header).await.unwrap();
    let mut content = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
    pipe.read_exact(&mut content).await.unwrap();
    (header[0], content)
}

async fn answer(pipe: &mut DuplexStream) -> Value {
    let (kind, content) = read_frame(pipe).await;
    assert_eq!(kind, b'M');
    serde_json::from_slice(&content).unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scene, read top-down")]
fn a_session_works_over_a_pipe_of_any_size() {
    for (pipe_size, flavour) in [
        (8, "one"),
        (64 << 10, "one"),
        (8, "many"),
        (64 << 10, "many"),
    ] {
        let runtime = match flavour {
            "one" => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build(),
            _ => tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build(),
        };
        runtime.unwrap().block_on(async {
            let root = tempfile::tempdir().unwrap();
            let shared = shared(root.path());
            let (mut pipe, other) = tokio::io::duplex(pipe_size);
            let standing = Arc::new(Standing::new(&shared.stop));
            let session = Session::new(shared, dev(Timestamp::MAX), standing);
            let running =
                tokio::spawn(session.run(Connection::new(other, Duration::from_secs(30))));
            assert!(answer(&mut pipe).await["hello"].is_object());

            for size in [0, 3, 65_536, 65_537, 300_000] {
                let content = vec![9; size];
                pipe.write_all(&message(r#"{"id":1,"op":"put","path":"/a"}"#))
                    .await
                    .unwrap();
                pipe.write_all(&body(&content)).await.unwrap();
                assert_eq!(answer(&mut pipe).await["ok"]["size"], size);

                pipe.write_all(&message(r#"{"id":2,"op":"get","path":"/a"}"#))
                    .await
                    .unwrap();
                let file = answer(&mut pipe).await;
                assert_eq!(file["ok"]["digest"], json!(Digest::of(&content)));
                let mut arrived = Vec::new();
                loop {
                    match read_frame(&mut pipe).await {
                        (b'D', piece) => arrived.extend(piece),
                        (b'E', _) => break,
                        (kind, _) => panic!("a {kind} in a body"),
                    }
                }
                assert_eq!(arrived, content);
            }
            pipe.write_all(&message(r#"{"id":3,"op":"get","path":"/no"}"#))
                .await
                .unwrap();
            assert_eq!(code(&answer(&mut pipe).await), "not_found");
            // Larger than this server takes: known from the request, and again from the body.
            pipe.write_all(&message(
                r#"{"id":4,"op":"put","path":"/b","size":1048577}"#,
            ))
            .await
            .unwrap();
            assert_eq!(code(&answer(&mut pipe).await), "too_large");
            pipe.write_all(&crate::raw::frame(b'E', br#"{"abort":"too_large"}"#))
                .await
                .unwrap();
            pipe.write_all(&message(r#"{"id":5,"op":"list","path":"/"}"#))
                .await
                .unwrap();
            assert_eq!(
                answer(&mut pipe).await["ok"]["entries"]
                    .as_array()
                    .unwrap()
                    .len(),
                1
            );
            drop(pipe);
            running.await.unwrap().unwrap();
        });
    }
}

#[test]
fn nothing_is_done_after_the_certificate_has_ended() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let root = tempfile::tempdir().unwrap();
        let (mut pipe, other) = tokio::io::duplex(1 << 10);
        let shared = shared(root.path());
        let standing = Arc::new(Standing::new(&shared.stop));
        let session = Session::new(shared, dev(Timestamp::UNIX_EPOCH), standing);
        let running = tokio::spawn(session.run(Connection::new(other, Duration::from_secs(30))));
        assert!(answer(&mut pipe).await["hello"].is_object());
        pipe.write_all(&message(r#"{"id":1,"op":"ping"}"#))
            .await
            .unwrap();
        let refused = answer(&mut pipe).await;
        assert_eq!(
            (code(&refused), refused.get("id")),
            ("certificate_expired", None)
        );
        let mut rest = Vec::new();
        pipe.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        drop(pipe);
        running.await.unwrap().unwrap();
    });
}
