//! Who may read what: the modes of all that is written, and directories of other users.
//!
//! Run by root, these tests run the program as somebody else; run by somebody else, they take the
//! rights away instead.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::harness::{fsvc, gen_certs, text};
use crate::matrix::Ca;
use crate::reload::until;

/// A user who has nothing here.
const SOMEBODY: u32 = 65_533;

struct Place {
    scratch: TempDir,
}

impl Place {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scratch.path(), open).unwrap();
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs a command under a umask that takes no right away, or all of others.
    #[track_caller]
    fn ok(&self, umask: &str, words: &str) {
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_fsvc")]);
        command.args(words.split(' ')).current_dir(self.path(""));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
    }

    fn mode(&self, name: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(name), mode).unwrap();
    }
}

/// Everything below a directory, and itself; nothing if it is not there.
fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::metadata(dir)
        .map(|_| dir.to_owned())
        .into_iter()
        .collect();
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            found.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What is secret by its name, and what is not.
fn expected(path: &Path, is_dir: bool) -> u32 {
    let name = path.file_name().unwrap().to_str().unwrap();
    let is_secret =
        name.ends_with("-key.pem") || ["lock", "index.jsonl", "rotation.json"].contains(&name);
    let is_private = path
        .components()
        .any(|part| part.as_os_str() == "ca-private");
    match (is_dir, is_private, is_secret) {
        (true, true, _) => 0o700,
        (true, false, _) => 0o755,
        (false, _, true) => 0o600,
        (false, _, false) => 0o644,
    }
}

#[test]
fn modes_are_exact_in_the_whole_life_of_certificates() {
    let corp = Ca::root("corp");
    for umask in ["000", "077"] {
        let place = Place::new();
        fs::write(place.path("corp.pem"), &corp.pem).unwrap();
        fs::write(place.path("corp.crl"), corp.empty_list()).unwrap();
        let mut seen = BTreeMap::new();
        for words in [
            "gen-certs --quiet --trust-domain test.internal --client dev --client eve",
            "certs add --client alice",
            "certs add --client alice --again",
            "certs add --server web --host web.internal",
            "certs add --peer node --host node.internal",
            "certs renew dev",
            "certs renew alice --reuse-key",
            "certs renew server",
            "certs revoke eve",
            "certs request --client carol --dir far",
            "certs request --server --host far.internal --dir far",
            "certs sign far/clients/carol.csr --client carol",
            "certs sign far/server.csr --server --host far.internal --out far/server.pem",
            "certs bundle add corp.pem --crl corp.crl",
            "certs rotate-ca start",
            "certs rotate-ca promote --now",
            "certs renew --all",
            "certs rotate-ca rollback",
            "certs rotate-ca promote --now",
            "gen-certs --quiet --client frank",
            "certs bundle remove corp.pem",
        ] {
            place.ok(umask, words);
            for dir in ["certs", "far"] {
                for path in all_below(&place.path(dir)) {
                    let metadata = fs::symlink_metadata(&path).unwrap();
                    let mode = metadata.mode() & 0o7777;
                    let wanted = expected(&path, metadata.is_dir());
                    let at = path.strip_prefix(place.path("")).unwrap();
                    assert_eq!(
                        format!("{mode:04o}"),
                        format!("{wanted:04o}"),
                        "umask {umask}, after {words}: {}",
                        at.display()
                    );
                    seen.insert(at.to_owned(), mode);
                }
            }
        }
        let n_keys = seen.keys().filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with("-key.pem")
        });
        assert!(n_keys.count() >= 12, "{seen:?}");
    }
}

/// The program as a user who owns none of this; it may read what everybody may.
fn as_somebody(place: &Place) -> Command {
    let mut command = if is_root() {
        // Where it was built not everybody may look.
        let copy = place.path("fsvc");
        if fs::metadata(&copy).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_fsvc"), &copy).unwrap();
        }
        let mut command = Command::new(copy);
        command.uid(SOMEBODY).gid(SOMEBODY);
        command
    } else {
        fsvc()
    };
    command.current_dir(place.path(""));
    command
}

fn run(command: &mut Command, words: &str) -> Output {
    command.args(words.split(' ')).output().unwrap()
}

/// Refused with the file and the way out, and nothing has changed.
#[track_caller]
fn refused(place: &Place, words: &str, parts: &[&str]) {
    let before = crate::certs::tree(&place.path("certs"));
    let output = run(&mut as_somebody(place), words);
    let stderr = text(&output.stderr);
    assert!(
        !output.status.success(),
        "{words}: {}",
        text(&output.stdout)
    );
    for part in parts {
        assert!(stderr.contains(part), "{words}: {part:?} not in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(crate::certs::tree(&place.path("certs")), before, "{words}");
}

#[test]
fn a_key_that_this_user_may_not_read_is_told_with_its_owner_and_mode() {
    let place = Place::new();
    gen_certs(&place.path("certs"), &["dev"]);
    let mode = if is_root() { 0o600 } else { 0 };
    for name in ["certs/server-key.pem", "certs/clients/dev-key.pem"] {
        place.mode(name, mode);
    }
    let user = if is_root() {
        SOMEBODY
    } else {
        rustix::process::geteuid().as_raw()
    };
    let (mode, user) = (format!("mode {mode:04o}"), format!("runs as user {user}"));
    fs::create_dir(place.path("data")).unwrap();
    for (words, name) in [
        ("serve --listen 127.0.0.1:0 --root data", "server-key.pem"),
        ("whoami --as dev --server localhost:1", "dev-key.pem"),
    ] {
        let name = format!("{name}: permission denied");
        let lower = |text: &str| text.to_lowercase();
        let output = run(&mut as_somebody(&place), words);
        let stderr = text(&output.stderr);
        assert!(!output.status.success(), "{stderr}");
        assert!(lower(&stderr).contains(&name), "{words}: {stderr}");
        for part in ["[TLS13]", &mode, &user, "chgrp"] {
            assert!(stderr.contains(part), "{words}: {part:?} not in: {stderr}");
        }
    }
    // The way out that the hint names.
    let chgrp = if is_root() { 0o640 } else { 0o600 };
    place.mode("certs/clients/dev-key.pem", chgrp);
    if is_root() {
        chown(
            place.path("certs/clients/dev-key.pem"),
            None,
            Some(SOMEBODY),
        )
        .unwrap();
    }
    let words = "whoami --as dev --server localhost:1";
    let output = run(&mut as_somebody(&place), words);
    assert!(!text(&output.stderr).contains("TLS13"));
}

#[test]
fn a_directory_of_another_user_is_left_alone() {
    let place = Place::new();
    gen_certs(&place.path("certs"), &["dev"]);
    if is_root() {
        // Not even root writes for another: what it leaves behind that one could not use.
        let mine = place.path("mine");
        fs::create_dir(&mine).unwrap();
        chown(&mine, Some(SOMEBODY), None).unwrap();
        let output = run(
            fsvc().current_dir(place.path("")),
            "gen-certs --dir mine --client x",
        );
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("belongs to user 65533, this is user 0"));
        assert_eq!(fs::read_dir(&mine).unwrap().count(), 0);
    } else {
        place.mode("certs/ca-private", 0o000);
    }
    for words in [
        "gen-certs --client alice",
        "certs add --client alice",
        "certs renew dev",
        "certs revoke dev",
        "certs list",
        "certs rotate-ca start",
    ] {
        refused(&place, words, &["certs", "ermission denied"]);
    }
    if !is_root() {
        place.mode("certs/ca-private", 0o700);
    }
}

/// A running server whose key is taken away from it goes on with the one that it has.
#[test]
fn a_key_that_is_closed_under_a_running_server_changes_nothing() {
    let place = Place::new();
    gen_certs(&place.path("certs"), &["dev"]);
    fs::create_dir(place.path("data")).unwrap();
    if is_root() {
        for path in [place.path("data"), place.path("certs/server-key.pem")] {
            chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
    }
    let words = "serve --listen 127.0.0.1:0 --root data --reload-every 100ms";
    let log = fs::File::create(place.path("log")).unwrap();
    let mut command = as_somebody(&place);
    let child = command
        .args(words.split(' '))
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn();
    let mut server = Running(child.unwrap());
    let mut line = String::new();
    let stdout = server.0.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().trim_start_matches("fsvc: listening on ");
    let logged = |words: &str| {
        let log = fs::read_to_string(place.path("log")).unwrap();
        log.matches(words).count()
    };
    let is_served = || {
        let words = format!("whoami --as dev --server {address}");
        let output = run(fsvc().current_dir(place.path("")), &words);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    is_served();
    place.mode("certs/server-key.pem", 0);
    until("it is told", || logged("ermission denied") == 1);
    is_served();
    place.mode("certs/server-key.pem", 0o600);
    place.ok("022", "certs renew server");
    if is_root() {
        let key = place.path("certs/server-key.pem");
        chown(key, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    until("the new one", || logged("other certificates hold now") == 1);
    is_served();
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_place_that_may_not_be_written_to_stays_as_it_is() {
    let place = Place::new();
    if !is_root() {
        place.mode("", 0o555);
    }
    for words in ["gen-certs --dir new", "certs request --client x --dir new"] {
        let output = run(&mut as_somebody(&place), words);
        let stderr = text(&output.stderr);
        assert!(!output.status.success(), "{words}");
        assert!(stderr.contains("ermission denied"), "{words}: {stderr}");
        assert!(stderr.contains("new"), "{words}: {stderr}");
        assert!(fs::metadata(place.path("new")).is_err(), "{words}");
    }
    place.mode("", 0o755);
    // Nor looked for in what may not be entered.
    fs::create_dir(place.path("closed")).unwrap();
    place.mode("closed", if is_root() { 0o700 } else { 0o600 });
    let output = run(&mut as_somebody(&place), "gen-certs --dir closed/new");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("ermission denied"));
    place.mode("closed", 0o700);
    assert_eq!(fs::read_dir(place.path("closed")).unwrap().count(), 0);
}
