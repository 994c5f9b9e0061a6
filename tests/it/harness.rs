//! A server to test against: the real binary, real TLS, its own directory, a free port.
//!
//! Everything is taken down when the value is dropped, also when a test fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program under test.
pub fn fsvc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsvc"));
    for name in [
        "FSVC_SERVER",
        "FSVC_TLS_DIR",
        "FSVC_AS",
        "FSVC_LOG",
        "FSVC_FAULT",
        "FSVC_RETRY_FOR",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs gen-certs for a directory of the test's own.
pub fn gen_certs(dir: &Path, clients: &[&str]) {
    let mut command = fsvc();
    command
        .args([
            "gen-certs",
            "--quiet",
            "--trust-domain",
            "test.internal",
            "--dir",
        ])
        .arg(dir);
    for client in clients {
        command.args(["--client", client]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// How a server is started.
#[derive(Default)]
pub struct Setup {
    /// Where the certificates are; made for the clients dev, alice and bob if absent.
    pub certs: Option<PathBuf>,
    pub policy: Option<String>,
    pub arguments: Vec<String>,
    /// A plan for the fault points, see `fsvc::fault`.
    pub fault: Option<String>,
    /// What is served, if not a directory of the server's own.
    pub root: Option<PathBuf>,
}

/// A running server. Its root outlives a restart.
pub struct Server {
    pub setup: Setup,
    pub directory: TempDir,
    pub address: String,
    child: Child,
}

impl Server {
    /// A server with the starter policy: every client may do everything.
    pub fn start() -> Self {
        Self::start_with(Setup::default())
    }

    /// A server with a policy of the test's own.
    pub fn with_policy(policy: &str) -> Self {
        Self::start_with(Setup {
            policy: Some(policy.to_owned()),
            ..Setup::default()
        })
    }

    pub fn start_with(setup: Setup) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        if setup.certs.is_none() {
            gen_certs(&directory.path().join("certs"), &["dev", "alice", "bob"]);
        }
        let (child, address) = spawn(&setup, directory.path());
        Self {
            setup,
            directory,
            address,
            child,
        }
    }

    /// The directory that is served.
    pub fn root(&self) -> PathBuf {
        root(&self.setup, self.directory.path())
    }

    /// Where the certificates are.
    pub fn certs(&self) -> PathBuf {
        certs(&self.setup, self.directory.path())
    }

    /// What the server has logged so far, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the process to end by itself, within a limit.
    pub fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < until,
                "the server did not end within {limit:?}\n{}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// Sends a signal by its number's name, such as TERM.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(status.unwrap().success());
    }

    /// Starts again over the same root, without the fault plan; says how long that took.
    pub fn restart(&mut self) -> Duration {
        self.restart_with(None)
    }

    /// Starts again over the same root, with a plan of faults or without.
    pub fn restart_with(&mut self, fault: Option<&str>) -> Duration {
        self.kill();
        self.setup.fault = fault.map(str::to_owned);
        let began = Instant::now();
        let (child, address) = spawn(&self.setup, self.directory.path());
        (self.child, self.address) = (child, address);
        began.elapsed()
    }

    /// Starts again with a plan of faults that ends the start.
    pub fn restart_dies_of(&mut self, fault: &str) {
        self.kill();
        self.setup.fault = Some(fault.to_owned());
        let output = serve(&self.setup, self.directory.path()).output().unwrap();
        assert!(!output.status.success(), "the start survived {fault}");
    }

    /// Starts again over a root that cannot be served; what is said about it.
    pub fn restart_fails(&mut self) -> String {
        self.kill();
        self.setup.fault = None;
        let before = self.log().len();
        let output = serve(&self.setup, self.directory.path()).output().unwrap();
        assert!(!output.status.success(), "the start did not fail");
        self.log().split_off(before)
    }

    /// A command of the client `name`, against this server.
    pub fn client(&self, name: &str, arguments: &[&str]) -> Command {
        self.client_at(&self.address, name, arguments)
    }

    /// The same of one that reaches the server by another address.
    pub fn client_at(&self, address: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = fsvc();
        command
            .args(arguments)
            .args(["--server", address, "--as", name, "--tls-dir"]);
        command.arg(self.certs()).current_dir(self.directory.path());
        // A test that ends a server wants to see what that does; nothing is kept beside the server.
        command.env("FSVC_RETRY_FOR", "0s");
        command.env("XDG_STATE_HOME", self.directory.path().join("state"));
        command.env("XDG_CACHE_HOME", self.directory.path().join("cache"));
        command
    }

    /// Runs a command of the client dev to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.client("dev", arguments).output().unwrap()
    }

    /// Runs a command of the client dev that must succeed; its standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// Runs a command of the client dev that must fail so; its standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stderr)
    }

    /// Puts a content through standard input.
    #[track_caller]
    pub fn put(&self, remote: &str, content: &[u8]) {
        let output = with_input(&mut self.client("dev", &["put", "-", remote]), content);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Gets a content through standard output.
    #[track_caller]
    pub fn get(&self, remote: &str) -> Vec<u8> {
        let output = self.run(&["get", remote, "-"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    }

    /// Names of what is staged.
    pub fn staged(&self) -> Vec<String> {
        let staging = self.root().join(".fsvc").join("staging");
        let entries = std::fs::read_dir(staging).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A policy under which every client may do everything, and administer.
pub fn everything() -> String {
    let grant = |allow: &str, on: &str| {
        let to = "spiffe://test.internal/client/*";
        format!("[[grant]]\nto = \"{to}\"\nallow = [{allow}]\non = \"{on}\"\n")
    };
    let files = r#""list", "read", "create", "replace", "delete", "admin""#;
    grant(files, "/**") + &grant(r#""publish", "subscribe""#, "topic:**")
}

/// Runs a command with a standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A refused command may close its input early.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn certs(setup: &Setup, directory: &Path) -> PathBuf {
    setup
        .certs
        .clone()
        .unwrap_or_else(|| directory.join("certs"))
}

fn root(setup: &Setup, directory: &Path) -> PathBuf {
    setup.root.clone().unwrap_or_else(|| directory.join("data"))
}

fn serve(setup: &Setup, directory: &Path) -> Command {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    let mut command = fsvc();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--tls-dir"])
        .arg(certs(setup, directory));
    command
        .arg("--root")
        .arg(root(setup, directory))
        .args(&setup.arguments);
    if let Some(policy) = &setup.policy {
        let path = directory.join("policy.toml");
        std::fs::write(&path, policy).unwrap();
        command.arg("--policy").arg(path);
    }
    if let Some(fault) = &setup.fault {
        command.env("FSVC_FAULT", fault);
    }
    command.stdout(Stdio::piped()).stderr(log.unwrap());
    command
}

fn spawn(setup: &Setup, directory: &Path) -> (Child, String) {
    let mut child = serve(setup, directory).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap().by_ref())
        .read_line(&mut line)
        .unwrap();
    let Some(address) = line.trim().strip_prefix("fsvc: listening on ") else {
        let _ = child.wait();
        panic!(
            "no server: {line}{}",
            std::fs::read_to_string(directory.join("log")).unwrap()
        );
    };
    let address = address.to_owned();
    (child, address)
}
