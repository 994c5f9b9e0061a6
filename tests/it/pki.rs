//! `fsvc::pki` seen from outside: files, modes, other tools' verdicts, repeated and concurrent runs.
//!
//! A missing openssl or python3 fails the test that needs it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fsvc::pki::{ErrorKind, Options, PkiError, PolicyState, Report, State, Why, ensure};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

mod broken;
mod outside;
mod processes;
mod shown;

struct Place {
    _scratch: TempDir,
    dir: PathBuf,
    /// What the runs in this place take for now.
    now: Timestamp,
}

impl Place {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("certs");
        Self {
            _scratch: scratch,
            dir,
            now: Timestamp::now(),
        }
    }

    /// With a CA, a server and the client `dev`.
    fn ready() -> Self {
        let place = Self::new();
        place.run(&[], &[]).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn options(&self, hosts: &[&str], clients: &[&str]) -> Options {
        options(&self.dir, hosts, clients)
    }

    fn run(&self, hosts: &[&str], clients: &[&str]) -> Result<Report, PkiError> {
        ensure(&self.options(hosts, clients), self.now)
    }

    fn run_at(&self, now: Timestamp) -> Result<Report, PkiError> {
        ensure(&self.options(&[], &[]), now)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
}

fn options(dir: &Path, hosts: &[&str], clients: &[&str]) -> Options {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    Options {
        dir: dir.to_owned(),
        hosts: texts(hosts),
        default_hosts: true,
        host_name: Some("buildbox".to_owned()),
        clients: texts(clients),
        trust_domain: None,
        days: 365,
        ca_days: None,
        author: "ann@buildbox".to_owned(),
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

/// Bytes, mode and modification time of everything below a directory, directories included.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut bytes = Vec::new();
        if metadata.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if metadata.is_file() {
            bytes = fs::read(&path).unwrap();
        }
        let times = (metadata.mtime(), metadata.mtime_nsec());
        found.insert(path, (bytes, metadata.mode() & 0o7777, times.0, times.1));
    }
    found
}

fn hosts(report: &Report) -> Vec<String> {
    report
        .server
        .hosts
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn why(state: &State) -> &Why {
    match state {
        State::Renewed { why } => why,
        other => panic!("expected a renewal, found {other:?}"),
    }
}

#[test]
fn a_first_run_makes_everything() {
    let place = Place::new();
    let report = place.run(&["files.example.com"], &[]).unwrap();
    let expected = [
        "localhost",
        "127.0.0.1",
        "::1",
        "buildbox",
        "files.example.com",
    ];
    assert_eq!(hosts(&report), expected);
    assert_eq!(report.trust_domain, "buildbox.fsvc.internal");
    assert_eq!(report.clients.len(), 1);
    let dev = report.clients[0].identity.as_ref().unwrap();
    assert_eq!(dev.as_str(), "spiffe://buildbox.fsvc.internal/client/dev");
    let server = report.server.identity.as_ref().unwrap();
    assert_eq!(
        server.as_str(),
        "spiffe://buildbox.fsvc.internal/server/main"
    );
    assert!(report.items().all(|item| item.state == State::Made));
    assert_eq!(report.policy.state, PolicyState::Made);
    assert_eq!(report.server.days_left(report.now), 365);
    assert_eq!(report.ca.days_left(report.now), 3650);
    assert_eq!(place.read(".gitignore"), "*\n");
    assert_eq!(place.read("ca-private/crl-number"), "1\n");
    assert_eq!(place.read("ca-private/index.jsonl").lines().count(), 3);
}

#[test]
fn a_second_run_changes_no_byte_and_no_time() {
    let place = Place::new();
    place.run(&["files.example.com"], &["dev", "bob"]).unwrap();
    let before = tree(&place.dir);
    for (hosts, clients) in [
        (&[][..], &[][..]),
        (&["files.example.com"], &["dev"]),
        (&["FILES.example.com.", "[::1]"], &["bob"]),
    ] {
        let report = place.run(hosts, clients).unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        assert_eq!(tree(&place.dir), before);
    }
    // Another machine's name, as in a container that was started again.
    let mut options = place.options(&[], &[]);
    options.host_name = Some("elsewhere".to_owned());
    assert!(ensure(&options, now()).unwrap().is_unchanged());
}

#[test]
fn a_committed_directory_counts_as_empty_and_keeps_its_files() {
    let place = Place::new();
    fs::create_dir(&place.dir).unwrap();
    place.write("README.md", "what this is\n");
    place.write(".gitignore", "*\n!README.md\n!.gitignore\n");
    place.run(&[], &[]).unwrap();
    assert_eq!(place.read("README.md"), "what this is\n");
    assert_eq!(place.read(".gitignore"), "*\n!README.md\n!.gitignore\n");
}

#[test]
fn a_new_host_renews_the_server_only() {
    let place = Place::ready();
    let before = tree(&place.dir);
    let report = place.run(&["a.example.com"], &[]).unwrap();
    assert!(matches!(why(&report.server.state), Why::NewHosts { added } if added.len() == 1));
    assert_eq!(report.clients[0].state, State::Kept);
    assert_eq!(report.ca.state, State::Kept);
    let after = tree(&place.dir);
    for name in [
        "ca.pem",
        "ca.crl",
        "clients/dev.pem",
        "clients/dev-key.pem",
        "policy.toml",
    ] {
        assert_eq!(
            after[&place.path(name)],
            before[&place.path(name)],
            "{name}"
        );
    }
    for name in ["server.pem", "server-key.pem"] {
        assert_ne!(
            after[&place.path(name)].0,
            before[&place.path(name)].0,
            "{name}"
        );
        let archived = after.keys().find(|path| {
            path.starts_with(place.path("ca-private/archive")) && path.ends_with(name)
        });
        assert_eq!(
            after[archived.unwrap()].0,
            before[&place.path(name)].0,
            "{name}"
        );
    }
    // Hosts add up.
    let report = place.run(&["b.example.com"], &[]).unwrap();
    let expected = [
        "localhost",
        "127.0.0.1",
        "::1",
        "buildbox",
        "a.example.com",
        "b.example.com",
    ];
    assert_eq!(hosts(&report), expected);
}

#[test]
fn a_new_client_is_added_with_its_grant() {
    let place = Place::ready();
    let report = place.run(&[], &["alice"]).unwrap();
    let names: Vec<&str> = report
        .clients
        .iter()
        .map(|item| item.name.as_str())
        .collect();
    assert_eq!(names, ["alice", "dev"]);
    assert_eq!(report.clients[0].state, State::Made);
    assert_eq!(report.clients[1].state, State::Kept);
    assert_eq!(report.policy.state, PolicyState::Extended);
    let policy: toml::Table = place.read("policy.toml").parse().unwrap();
    assert_eq!(policy["grant"].as_array().unwrap().len(), 2);
}

#[test]
fn a_policy_edited_by_hand_stays_and_the_grant_is_told() {
    let place = Place::ready();
    let edited = place.read("policy.toml").replace("\"/**\"", "\"/home/**\"");
    place.write("policy.toml", &edited);
    let report = place.run(&[], &["alice"]).unwrap();
    assert_eq!(place.read("policy.toml"), edited);
    let PolicyState::Edited { grants } = &report.policy.state else {
        panic!("{:?}", report.policy.state);
    };
    let told: toml::Table = grants.parse().unwrap();
    let to = "spiffe://buildbox.fsvc.internal/client/alice";
    assert_eq!(told["grant"][0]["to"].as_str(), Some(to));
    assert!(report.render().contains(to));
    assert!(place.run(&[], &["alice"]).unwrap().is_unchanged());
}

#[test]
fn leaves_are_renewed_in_their_last_third_and_after_the_end() {
    let place = Place::ready();
    let start = place.now;
    assert!(place.run_at(start + days(240)).unwrap().is_unchanged());
    let report = place.run_at(start + days(250)).unwrap();
    assert!(matches!(why(&report.server.state), Why::ExpiresSoon { .. }));
    assert!(matches!(
        why(&report.clients[0].state),
        Why::ExpiresSoon { .. }
    ));
    let later = start + days(250 + 370);
    let report = place.run_at(later).unwrap();
    assert!(matches!(why(&report.server.state), Why::Expired { .. }));
    assert_eq!(report.server.days_left(report.now), 365);
    assert!(place.run_at(later).unwrap().is_unchanged());
}

#[test]
fn nothing_outlives_the_ca_nor_is_renewed_for_that() {
    let place = Place::new();
    let mut options = place.options(&[], &[]);
    options.ca_days = Some(100);
    let start = place.now;
    let report = ensure(&options, start).unwrap();
    assert_eq!(report.server.expires_at, report.ca.expires_at);
    assert!(report.notes.iter().any(|note| note.contains("outlives")));
    assert!(ensure(&options, start + days(99)).unwrap().is_unchanged());
    let error = ensure(&options, start + days(101)).unwrap_err();
    assert!(matches!(error, PkiError::CaExpired { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--dir"));
}

#[test]
fn a_host_name_that_is_none_is_skipped_with_its_reason() {
    let place = Place::new();
    let mut options = place.options(&[], &[]);
    options.host_name = Some("my_box".to_owned());
    let report = ensure(&options, now()).unwrap();
    assert_eq!(hosts(&report), ["localhost", "127.0.0.1", "::1"]);
    assert_eq!(report.skipped_hosts[0].host, "my_box");
    assert!(report.render().contains("skipped host name my_box"));
    assert!(
        report.trust_domain.starts_with("fsvc-"),
        "{}",
        report.trust_domain
    );
    // The made-up trust domain is remembered.
    let again = ensure(&options, now()).unwrap();
    assert_eq!(again.trust_domain, report.trust_domain);
}

#[test]
fn a_client_whose_key_was_carried_away_is_left_alone_until_asked_for() {
    let place = Place::ready();
    place.run(&[], &["alice"]).unwrap();
    place.remove("clients/alice-key.pem");
    let report = place.run(&[], &[]).unwrap();
    assert!(report.is_unchanged());
    assert_eq!(report.clients[0].key, None);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("key of alice"))
    );
    let report = place.run(&[], &["alice"]).unwrap();
    assert_eq!(*why(&report.clients[0].state), Why::KeyMissing);
}

#[test]
fn a_machine_without_the_ca_key_keeps_what_is_good_and_makes_nothing() {
    let place = Place::ready();
    fs::remove_dir_all(place.path("ca-private")).unwrap();
    let before = tree(&place.dir);
    let report = place.run(&[], &[]).unwrap();
    assert!(report.is_unchanged());
    assert_eq!(report.ca.key, None);
    for (hosts, clients) in [(&["new.example.com"][..], &[][..]), (&[], &["alice"])] {
        let error = place.run(hosts, clients).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(
            error.to_string().contains("ca-key.pem is not here"),
            "{error}"
        );
        assert!(
            error.hint().unwrap().contains("ca-private/"),
            "{:?}",
            error.hint()
        );
    }
    assert_eq!(tree(&place.dir), before);
}
