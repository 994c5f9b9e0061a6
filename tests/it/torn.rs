//! Reads during overwrites: each is one version, whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fsvc::digest::Digest;
use fsvc::path::RemotePath;
use fsvc::protocol::Conditions;

use crate::crash::{client, count};
use crate::harness::Server;

const N_READERS: usize = 4;
const SIZES: [usize; 3] = [64, 60_000, 1 << 20];

#[test]
#[expect(clippy::too_many_lines, reason = "one scene, read top-down")]
fn a_read_during_overwrites_is_one_version_whole() {
    let n_reads = count("FSVC_TEST_READS", 1_000);
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path: RemotePath = "/a/file".parse().unwrap();
    let contents: Vec<Vec<u8>> = (0..24_u8)
        .map(|n| vec![n; SIZES[usize::from(n) % SIZES.len()]])
        .collect();
    let known: Arc<HashMap<Digest, u8>> = Arc::new(
        contents
            .iter()
            .map(|content| (Digest::of(content), content[0]))
            .collect(),
    );
    let (done, n_read) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );

    let n_versions = runtime.block_on(async {
        let writer = client(&server);
        writer
            .put_bytes(&path, contents[0].clone(), Conditions::default())
            .await
            .unwrap();
        let readers: Vec<_> = (0..N_READERS)
            .map(|_| {
                let (reader, path, known) = (client(&server), path.clone(), Arc::clone(&known));
                let (n_read, tree) = (Arc::clone(&n_read), server.root().join("a/file"));
                tokio::spawn(async move {
                    let mut last = 0;
                    while n_read.fetch_add(2, Ordering::Relaxed) < n_reads {
                        let (file, content) = reader.get(&path, Vec::new()).await.unwrap();
                        let digest = Digest::of(&content);
                        assert!(
                            known.contains_key(&digest),
                            "a torn read of {} bytes",
                            content.len()
                        );
                        assert_eq!(file.digest, Some(digest));
                        let version = file.version.expect("no other program writes here");
                        assert!(version >= last, "version {version} after {last}");
                        last = version;
                        // Another program sees the same.
                        let seen = std::fs::read(&tree).unwrap();
                        assert!(known.contains_key(&Digest::of(&seen)), "torn in the tree");
                    }
                })
            })
            .collect();
        let overwriting = tokio::spawn({
            let done = Arc::clone(&done);
            async move {
                let mut versions = HashMap::new();
                while !done.load(Ordering::Relaxed) {
                    for content in &contents {
                        let put = writer.put_bytes(&path, content.clone(), Conditions::default());
                        let file = put.await.unwrap();
                        versions.insert(file.version, file.digest);
                    }
                }
                versions.len()
            }
        });
        for reader in readers {
            reader.await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
        overwriting.await.unwrap()
    });
    eprintln!(
        "{} reads during {n_versions} overwrites, none torn",
        n_read.load(Ordering::Relaxed)
    );
    assert!(n_versions > 10, "the file was hardly overwritten");
}
