//! A CA takes the place of another: no command fails on the way, and no step is taken too early.
//!
//! The times of the library's calls are the tests' own; the program is run with `--now`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fsvc::pki::{self, NewCa, Options, Phase, PkiError, RotationError, RotationReport, State};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Server, fsvc, text};

fn certs(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = fsvc();
    command.arg("certs").args(arguments).arg("--dir").arg(dir);
    command.output().unwrap()
}

#[track_caller]
pub fn certs_ok(dir: &Path, arguments: &[&str]) -> String {
    let output = certs(dir, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
pub fn certs_refused(dir: &Path, arguments: &[&str]) -> String {
    let output = certs(dir, arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    stderr
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// A server and the files of clients that have come different ways.
struct Fleet {
    server: Server,
    scratch: TempDir,
    n: usize,
}

impl Fleet {
    /// The files as they are now, as a client was handed them.
    fn hand_out(&mut self) -> PathBuf {
        self.n += 1;
        let dir = self.scratch.path().join(format!("handed-{}", self.n));
        copy(&self.server.certs(), &dir);
        dir
    }

    #[track_caller]
    fn works(&self, dir: &Path, at: &str) {
        for client in ["dev", "alice"] {
            let mut command = fsvc();
            command.args(["put", "-", "/f"]).arg("--tls-dir").arg(dir);
            command.args(["--server", &self.server.address, "--as", client]);
            command.env("FSVC_RETRY_FOR", "0s");
            let output = crate::harness::with_input(&mut command, b"content");
            let (stderr, log) = (text(&output.stderr), self.server.log());
            assert!(output.status.success(), "{at}, {client}: {stderr}\n{log}");
        }
    }

    /// Takes a step. Clients one step behind and one ahead of the server work, before it starts
    /// again and after.
    #[track_caller]
    fn step(&mut self, at: &str, act: impl FnOnce(&Path)) {
        let before = self.hand_out();
        act(&self.server.certs());
        let after = self.hand_out();
        for dir in [&before, &after] {
            self.works(dir, at);
        }
        self.server.restart();
        for dir in [&before, &after] {
            self.works(dir, at);
        }
    }
}

#[test]
fn no_command_fails_while_the_ca_is_changed() {
    let mut fleet = Fleet {
        server: Server::start(),
        scratch: TempDir::new().unwrap(),
        n: 0,
    };
    let first = fleet.hand_out();
    fleet.step("start", |dir| {
        certs_ok(dir, &["rotate-ca", "start"]);
    });
    fleet.step("promote", |dir| {
        certs_ok(dir, &["rotate-ca", "promote", "--now"]);
    });
    fleet.step("certificates", |dir| {
        let mut command = fsvc();
        let output = command.args(["gen-certs", "--dir"]).arg(dir).output();
        assert!(output.unwrap().status.success());
    });
    fleet.step("finish", |dir| {
        certs_ok(dir, &["rotate-ca", "finish"]);
    });
    // Now the first CA counts for nothing.
    let output = fsvc()
        .args(["ls", "/", "--as", "dev", "--tls-dir"])
        .arg(&first)
        .args(["--server", &fleet.server.address])
        .env("FSVC_RETRY_FOR", "0s")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    let bundle = fs::read_to_string(fleet.server.certs().join("ca.pem")).unwrap();
    assert_eq!(bundle.matches("BEGIN").count(), 1);
}

/// A directory whose clock is the test's.
struct Place {
    scratch: TempDir,
    now: Timestamp,
}

const NEW: NewCa<'static> = NewCa {
    author: "ann@buildbox",
    days: None,
};

impl Place {
    fn new(clients: &[&str]) -> Self {
        let place = Self {
            scratch: TempDir::new().unwrap(),
            now: Timestamp::now(),
        };
        place.ensure(clients, 0);
        place
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("certs")
    }

    fn after(&self, hours: i64) -> Timestamp {
        self.now + SignedDuration::from_hours(hours)
    }

    fn ensure(&self, clients: &[&str], hours: i64) -> pki::Report {
        let options = Options {
            dir: self.dir(),
            hosts: Vec::new(),
            default_hosts: true,
            host_name: None,
            clients: clients.iter().map(ToString::to_string).collect(),
            trust_domain: Some("test.internal".to_owned()),
            days: 30,
            ca_days: None,
            author: "ann@buildbox".to_owned(),
        };
        pki::ensure(&options, self.after(hours)).unwrap()
    }

    fn start(&self, hours: i64) -> Result<RotationReport, PkiError> {
        pki::rotate_start(&self.dir(), NEW, self.after(hours))
    }

    fn promote(&self, at_once: bool, hours: i64) -> Result<RotationReport, PkiError> {
        pki::rotate_promote(&self.dir(), at_once, self.after(hours))
    }

    fn finish(&self, hours: i64) -> Result<RotationReport, PkiError> {
        pki::rotate_finish(&self.dir(), self.after(hours))
    }

    fn rollback(&self, hours: i64) -> Result<RotationReport, PkiError> {
        pki::rotate_rollback(&self.dir(), self.after(hours))
    }

    fn status(&self) -> RotationReport {
        pki::rotate_status(&self.dir(), self.now).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap()
    }
}

#[track_caller]
fn refused(result: Result<RotationReport, PkiError>) -> RotationError {
    match result {
        Err(PkiError::Rotation(error)) => error,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn a_new_ca_signs_a_day_after_it_is_trusted_and_not_before() {
    let place = Place::new(&["dev"]);
    assert!(matches!(
        refused(place.promote(false, 0)),
        RotationError::NotStarted { .. }
    ));
    let started = place.start(0).unwrap();
    assert!(started.changed);
    assert_eq!(started.phase, Some(Phase::Started));
    let names: Vec<&String> = started.cas.iter().map(|ca| &ca.name).collect();
    assert_ne!(names[0], names[1], "each CA has a name of its own");
    assert_eq!((started.cas[0].signs, started.cas[1].signs), (true, false));
    assert_eq!(place.text("ca.pem").matches("BEGIN").count(), 2);
    assert_eq!(place.text("ca.crl").matches("BEGIN").count(), 2);

    let again = place.start(1).unwrap();
    assert!(!again.changed);
    assert_eq!(again.cas[1].serial, started.cas[1].serial);

    let early = refused(place.promote(false, 23));
    assert!(matches!(early, RotationError::Early { .. }), "{early}");
    assert_eq!(place.status().phase, Some(Phase::Started));
    // What is made meanwhile is still of the old one.
    let report = place.ensure(&["bob"], 2);
    assert_eq!(report.server.state, State::Kept);
    assert_eq!(place.status().cas[0].in_force, 3);

    let promoted = place.promote(false, 24).unwrap();
    assert_eq!(promoted.phase, Some(Phase::Promoted));
    assert_eq!(promoted.cas[0].serial, started.cas[1].serial);
    assert!(!place.promote(false, 25).unwrap().changed);
    let report = place.ensure(&["carol"], 25);
    assert!(matches!(report.server.state, State::Renewed { .. }));
    let status = place.status();
    assert_eq!((status.cas[0].in_force, status.cas[1].in_force), (4, 3));
}

#[test]
fn an_end_that_would_lock_somebody_out_is_refused_and_names_them() {
    let place = Place::new(&["dev", "alice"]);
    place.start(0).unwrap();
    assert!(matches!(
        refused(place.finish(0)),
        RotationError::NotPromoted
    ));
    place.promote(true, 0).unwrap();
    let dir = place.dir();
    // Alice's files were carried away: nothing here makes hers again.
    fs::remove_file(dir.join("clients/alice-key.pem")).unwrap();
    place.ensure(&[], 0);
    let RotationError::Left { count, shown, .. } = refused(place.finish(0)) else {
        panic!("another refusal");
    };
    assert_eq!(count, 1);
    assert!(
        shown.contains("spiffe://test.internal/client/alice"),
        "{shown}"
    );
    let stderr = certs_refused(&dir, &["rotate-ca", "finish"]);
    assert!(stderr.contains("client/alice"), "{stderr}");
    let advice = format!("fsvc certs renew --dir {} --all", dir.display());
    assert!(stderr.contains(&advice), "{stderr}");
    let status = certs_ok(&dir, &["rotate-ca", "status"]);
    assert!(status.contains("client/alice"), "{status}");
    assert!(!status.contains("client/dev"), "{status}");

    // Out of date, hers does not count any more.
    place.ensure(&[], 24 * 20);
    let report = place.finish(24 * 31).unwrap();
    assert_eq!((report.phase, report.cas.len()), (None, 1));
    assert!(matches!(
        refused(place.finish(24 * 31)),
        RotationError::NotStarted { .. }
    ));
    assert_eq!(place.text("ca.crl").matches("BEGIN").count(), 1);
}

#[test]
fn a_rotation_is_taken_back_before_and_after_the_new_ca_signs() {
    let place = Place::new(&["dev"]);
    let bundle = place.text("ca.pem");
    place.start(0).unwrap();
    let report = place.rollback(0).unwrap();
    assert_eq!((report.phase, report.cas.len()), (None, 1));
    assert_eq!(place.text("ca.pem"), bundle);
    assert!(place.ensure(&[], 0).is_unchanged());

    place.start(0).unwrap();
    place.promote(true, 0).unwrap();
    place.ensure(&[], 0);
    // Certificates of the new CA are out: it stays trusted until they are replaced.
    let report = place.rollback(1).unwrap();
    assert_eq!((report.phase, report.cas.len()), (Some(Phase::Started), 2));
    let RotationError::Left { which, count, .. } = refused(place.rollback(1)) else {
        panic!("another refusal");
    };
    assert_eq!((which, count), ("new", 2));
    let status = certs_ok(&place.dir(), &["rotate-ca", "status"]);
    assert!(
        status.contains("hand out the new files, and fsvc certs rotate-ca rollback"),
        "{status}"
    );
    place.ensure(&[], 2);
    // In the index all are replaced; their owners may not know it yet.
    let status = certs_ok(&place.dir(), &["rotate-ca", "status"]);
    let locked_out = "whoever has one of the new CA is locked out by the end";
    assert!(status.contains(locked_out), "{status}");
    let report = place.rollback(2).unwrap();
    assert_eq!((report.phase, report.cas.len()), (None, 1));
    assert_eq!(place.text("ca.pem"), bundle);
    assert!(place.ensure(&[], 2).is_unchanged());
    assert!(matches!(
        refused(place.rollback(2)),
        RotationError::NotStarted { .. }
    ));
}

/// What took a certificate's place counts for as long as its own CA is trusted.
#[test]
fn a_certificate_of_a_ca_that_is_gone_stands_in_for_nobody() {
    let place = Place::new(&["dev"]);
    let dir = place.dir();
    let is_of = |item: &&pki::ListItem| item.name == "dev";
    let serials = || {
        let listed = pki::list(&dir, None, place.after(9)).unwrap().certificates;
        let serials = listed.iter().filter(is_of).map(|item| item.serial.clone());
        serials.collect::<Vec<_>>()
    };
    place.start(0).unwrap();
    place.promote(true, 0).unwrap();
    place.ensure(&[], 0);
    place.rollback(1).unwrap();
    place.ensure(&[], 2);
    place.rollback(2).unwrap();
    // The last one is lost; the first one is good still, and in use.
    let target = pki::Target::Serial(&serials()[2]);
    pki::revoke(&dir, target, pki::Reason::Unspecified, place.after(3)).unwrap();

    place.start(4).unwrap();
    place.promote(true, 4).unwrap();
    place.ensure(&[], 4);
    let RotationError::Left { count, shown, .. } = refused(place.finish(5)) else {
        panic!("another refusal");
    };
    assert!(count == 1 && shown.contains(&serials()[0]), "{shown}");
}

#[test]
fn the_ca_of_somebody_else_survives_a_rotation() {
    let place = Place::new(&["dev"]);
    let other = Place::new(&[]);
    let list = other.dir().join("ca.crl");
    let list = pki::ListSource::File(&list);
    pki::bundle_add(&place.dir(), &other.dir().join("ca.pem"), list, place.now).unwrap();
    place.start(0).unwrap();
    assert_eq!(place.text("ca.pem").matches("BEGIN").count(), 3);
    place.promote(true, 0).unwrap();
    place.ensure(&[], 0);
    place.finish(0).unwrap();
    let (bundle, theirs) = (place.text("ca.pem"), other.text("ca.pem"));
    assert_eq!(bundle.matches("BEGIN").count(), 2);
    assert!(bundle.contains(theirs.trim()), "{bundle}");
    assert_eq!(place.text("ca.crl").matches("BEGIN").count(), 2);
}

#[test]
fn what_is_no_ca_of_ours_is_not_rotated() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("certs");
    for verb in ["start", "status", "promote", "finish", "rollback"] {
        let stderr = certs_refused(&dir, &["rotate-ca", verb]);
        assert!(stderr.contains("there is no CA in"), "{verb}: {stderr}");
        assert!(fs::metadata(&dir).is_err(), "{verb} made {}", dir.display());
    }
    let place = Place::new(&[]);
    let copied = scratch.path().join("handed-out");
    copy(&place.dir(), &copied);
    fs::remove_dir_all(copied.join("ca-private")).unwrap();
    certs_refused(&copied, &["rotate-ca", "start"]);

    fs::write(
        place.dir().join("ca-private/rotation.json"),
        "{\"phase\":\"x\"}",
    )
    .unwrap();
    for verb in ["start", "status", "promote", "finish", "rollback"] {
        let stderr = certs_refused(&place.dir(), &["rotate-ca", verb]);
        assert!(
            stderr.contains("rotation.json cannot be understood"),
            "{stderr}"
        );
    }
}

#[test]
fn a_rotation_is_told_as_json() {
    let place = Place::new(&["dev"]);
    let dir = place.dir();
    let read = |arguments: &[&str]| -> Value {
        serde_json::from_str(&certs_ok(&dir, &[arguments, &["--json"]].concat())).unwrap()
    };
    let status = read(&["rotate-ca", "status"]);
    assert_eq!(status["phase"], Value::Null);
    assert_eq!(status["cas"][0]["in_force"], 2);
    let started = read(&["rotate-ca", "start", "--ca-days", "400"]);
    assert_eq!(started["phase"], "started");
    assert!(started["promote_after"].is_string(), "{started}");
    let promoted = read(&["rotate-ca", "promote", "--now"]);
    assert_eq!(promoted["phase"], "promoted");
    assert_eq!(
        promoted["cas"][1]["left"][0]["identity"],
        "spiffe://test.internal/server/main"
    );
    let output = certs(&dir, &["rotate-ca", "finish", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(error["error"]["hint"].is_string(), "{error}");
    let output = certs(&dir, &["rotate-ca", "start", "--ca-days", "0"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn processes_at_once_start_one_rotation() {
    let place = Place::new(&[]);
    let mut children: Vec<_> = (0..6)
        .map(|_| {
            let mut command = fsvc();
            command.args(["certs", "rotate-ca", "start", "--json", "--dir"]);
            command.arg(place.dir()).stdout(std::process::Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(place.text("ca.pem").matches("BEGIN").count(), 2);
    assert_eq!(place.text("ca.crl").matches("BEGIN").count(), 2);
    let index = place.text("ca-private/index.jsonl");
    assert_eq!(index.matches("\"kind\":\"ca\"").count(), 2);
}
