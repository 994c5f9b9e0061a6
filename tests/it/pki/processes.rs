//! Runs in processes of their own: another umask, several at once, killed.
//!
//! The processes are this test binary itself, see [`child`].

use std::process::{Child, Command, Stdio};

use super::*;

/// A process that makes sure of one client. This binary is its own child, see [`child`].
fn child_process(dir: &Path, client: &str, umask: Option<&str>) -> Child {
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "umask {}; exec \"$0\" --exact pki::processes::child --nocapture",
        umask.unwrap_or("022")
    );
    Command::new("sh")
        .args(["-c", &script])
        .arg(exe)
        .env("FSVC_TEST_PKI_DIR", dir)
        .env("FSVC_TEST_PKI_CLIENT", client)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: what [`child_process`] runs.
#[test]
fn child() {
    let (Some(dir), Ok(client)) = (
        std::env::var_os("FSVC_TEST_PKI_DIR"),
        std::env::var("FSVC_TEST_PKI_CLIENT"),
    ) else {
        return;
    };
    ensure(&options(Path::new(&dir), &[], &[&client]), now()).unwrap();
}

#[test]
fn concurrent_processes_and_threads_make_one_ca() {
    let place = Place::new();
    let children: Vec<Child> = (0..4)
        .map(|n| child_process(&place.dir, &format!("process{n}"), None))
        .collect();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let place = &place;
            scope.spawn(move || place.run(&[], &[&format!("thread{n}")]).unwrap());
        }
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let report = place.run(&[], &[]).unwrap();
    assert!(report.is_unchanged());
    assert_eq!(report.clients.len(), 12);
    let ledger = place.read("ca-private/index.jsonl");
    assert_eq!(ledger.lines().count(), 1 + 1 + 12);
    assert_eq!(ledger.matches("\"kind\":\"ca\"").count(), 1);
    let policy: toml::Table = place.read("policy.toml").parse().unwrap();
    assert_eq!(policy["grant"].as_array().unwrap().len(), 12);
}

#[test]
fn processes_killed_at_any_moment_leave_what_the_next_one_completes() {
    let rounds = std::env::var("FSVC_TEST_KILLS").map_or(20, |text| text.parse().unwrap());
    let place = Place::new();
    let mut fingerprint = None;
    for round in 0..rounds {
        let mut child = child_process(&place.dir, &format!("c{round}"), None);
        // Spread over the life of the process, start-up included.
        let pause = std::time::Duration::from_micros(1_500 * (round % 20));
        let deadline = std::time::Instant::now() + pause;
        while std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        let report = place
            .run(&[], &[])
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        let ca = fingerprint.get_or_insert(report.ca.sha256.clone());
        assert_eq!(*ca, report.ca.sha256, "round {round}");
        assert!(place.run(&[], &[]).unwrap().is_unchanged(), "round {round}");
    }
}

#[test]
fn modes_are_exact_under_any_umask() {
    for umask in ["000", "077"] {
        let place = Place::new();
        let mut child = child_process(&place.dir, "dev", Some(umask));
        assert!(child.wait().unwrap().success());
        let found: BTreeMap<String, u32> = tree(&place.dir)
            .into_iter()
            .map(|(path, (_, mode, ..))| {
                let name = path.strip_prefix(&place.dir).unwrap();
                (name.to_str().unwrap().to_owned(), mode)
            })
            .collect();
        let expected = [
            ("", 0o755),
            (".gitignore", 0o644),
            ("ca-private", 0o700),
            ("ca-private/ca-cert.pem", 0o644),
            ("ca-private/ca-key.pem", 0o600),
            ("ca-private/crl-number", 0o644),
            ("ca-private/index.jsonl", 0o600),
            ("ca-private/lock", 0o600),
            ("ca.crl", 0o644),
            ("ca.pem", 0o644),
            ("clients", 0o755),
            ("clients/dev-key.pem", 0o600),
            ("clients/dev.pem", 0o644),
            ("policy.toml", 0o644),
            ("server-key.pem", 0o600),
            ("server.pem", 0o644),
        ]
        .map(|(name, mode)| (name.to_owned(), mode));
        assert_eq!(found, BTreeMap::from(expected), "umask {umask}");
    }
}
