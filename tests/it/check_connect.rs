//! `fsvc certs check --connect` tells each of the 23 failures apart, on set-ups that are really broken so.
//!
//! The table says of each code who can see it, and how. A case is told if its code stands behind all that
//! is broken, and behind nothing else: with the values that disagree, a next command, and the exit code.

mod clients;
mod files;
mod servers;
mod sound;
mod wire;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fsvc::tls::failure::FailureCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::LOG_LIMIT;
use crate::harness::{fsvc, text};
use crate::matrix::{Matrix, Pair};

use self::clients::Corp;

/// Tests of single codes, and which codes they are.
macro_rules! table {
    ($($(#[$why:meta])* $test:ident: $code:ident, $set_up:path;)*) => {
        $($(#[$why])* #[test] fn $test() { $set_up(Told(FailureCode::$code)); })*
        const TABLE: &[FailureCode] = &[$(FailureCode::$code),*];
    };
}

table! {
    /// The client's file against its CAs; the server, which knows better, by its alert.
    tls01: UntrustedClient, clients::untrusted;
    /// The handshake. That the client's own certificate is of another CA than those in the file is no fault
    /// then: the file is the wrong one.
    tls02: UntrustedServer, servers::untrusted;
    /// Either chain, where the organization of signer and trusted CA is one; no proof, as everywhere.
    tls03: MissingIntermediate, clients::short_chains;
    /// A directory without a client: the check connects as nobody, and the server says what it wants.
    tls04: NoCertificate, clients::none;
    /// The end of the connection is all there is; the check says where the reason is to be found.
    tls05: ClosedEarly, wire::closed;
    /// The client's file and the handshake, which is tried all the same; a CA between, too.
    tls06: ClientExpired, clients::expired;
    /// The handshake: a real server does not start with one, but may outlive its own.
    tls07: ServerExpired, servers::expired;
    /// Either certificate; and a clock, where the server says no to what is in date here.
    tls08: NotYetValid, clients::early;
    /// The handshake, by the name that was given to connect to.
    tls09: WrongName, servers::misnamed;
    /// The client's file and the handshake; the server's in the handshake.
    tls10: WrongPurpose, clients::of_another_purpose;
    /// The files of either end; a server that signs with another key by its signature.
    tls11: KeyMismatch, files::mixed;
    /// The files: nothing of them gets as far as a server.
    tls12: WrongContent, files::something_else;
    /// The files: one that cannot be read is 3, a key that others can read is 2.
    tls13: FileAccess, files::closed_or_open;
    /// A client speaks TLS and so never does this itself. What stands between may: a balancer that puts a
    /// PROXY header first (the server's alert says so), a proxy that ends TLS (the check asks behind it).
    tls14: PlainText, wire::plain_text_between;
    /// The first bytes of the answer.
    tls15: NotTls, wire::no_tls;
    /// The list beside the files; the server's alert where there is none.
    tls16: Revoked, clients::revoked;
    /// The lists beside the files, for each CA of a chain; to a client alone the server's alert, which is
    /// that of another CA, and its certificate is good by its own CAs.
    tls17: NoRevocationList, clients::unlisted;
    /// The client's file and the handshake; the server's in the handshake.
    tls18: WrongPlace, clients::in_a_wrong_place;
    /// The client's file and the handshake.
    tls19: UnusableForm, clients::of_another_form;
    /// The server's alert.
    tls20: OldTls, wire::old_tls;
    /// Nothing is wrong with TLS then. The check asks the server, once it is in, how many grants are for it.
    tls21: NotAllowed, clients::without_a_right;
    /// The client's file, by the policy's trust settings where there are some; the server's greeting.
    tls22: NoIdentity, clients::nameless;
    /// Either chain.
    tls23: NameConstraint, clients::constrained;
}

#[test]
fn the_table_has_every_code_once() {
    assert_eq!(TABLE, FailureCode::ALL);
}

/// What a check said.
pub struct Said {
    pub human: String,
    pub report: Value,
    pub exit: Option<i32>,
}

impl Said {
    /// Runs a check for people and for programs, and again where something has changed between the two.
    #[track_caller]
    fn of(dir: &Path, arguments: &[&str]) -> Self {
        let mut said = Self::once(dir, arguments);
        for _ in 0..3 {
            if Self::printed(dir, arguments, &[]).0 == said.human {
                break;
            }
            said = Self::once(dir, arguments);
        }
        let (_, exit) = Self::printed(dir, arguments, &["--json"]);
        assert_eq!(exit, said.exit, "{}", said.human);
        assert!(!said.human.contains('\u{1b}'), "{:?}", said.human);
        assert!(
            !said.human.contains("UNIX") && !said.human.contains("Error("),
            "{}",
            said.human
        );
        said
    }

    #[track_caller]
    fn once(dir: &Path, arguments: &[&str]) -> Self {
        let (human, exit) = Self::printed(dir, arguments, &[]);
        let (printed, _) = Self::printed(dir, arguments, &["--json"]);
        let report = serde_json::from_str(&printed);
        Self {
            human,
            report: report.unwrap_or_else(|error| panic!("{error}: {printed}")),
            exit,
        }
    }

    /// What a check printed, which is no error's text, and its exit code.
    #[track_caller]
    fn printed(dir: &Path, arguments: &[&str], more: &[&str]) -> (String, Option<i32>) {
        let mut command = fsvc();
        command.args(["certs", "check", "--dir"]).arg(dir);
        let output = command.args(arguments).args(more).output().unwrap();
        let printed = text(&output.stdout);
        assert_eq!(text(&output.stderr), "", "{printed}");
        (printed, output.status.code())
    }

    /// The findings that make the exit code, with their level.
    fn broken(&self) -> Vec<&Value> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        let is_broken = |finding: &&Value| {
            ["broken", "unreadable"]
                .map(Value::from)
                .contains(&finding["level"])
        };
        findings.filter(is_broken).collect()
    }

    /// The codes of these, each once.
    pub fn codes(&self) -> Vec<&str> {
        let broken = self.broken();
        let mut codes: Vec<&str> = broken
            .iter()
            .map(|one| one["code"].as_str().unwrap_or("none"))
            .collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// Nothing is broken, and no code is named.
    #[track_caller]
    pub fn is_sound(&self) {
        assert_eq!(self.exit, Some(0), "{}", self.human);
        let findings = self.report["findings"].as_array().unwrap();
        let unnamed = findings.iter().all(|finding| finding["code"].is_null());
        assert!(unnamed && !self.human.contains("[TLS"), "{}", self.human);
    }
}

/// One code, as a check has to tell it.
#[derive(Clone, Copy)]
pub struct Told(pub FailureCode);

impl Told {
    /// The check of this directory says this code and no other, and all of these words.
    #[track_caller]
    pub fn by(self, dir: &Path, arguments: &[&str], exit: i32, words: &[&str]) -> Said {
        let said = Said::of(dir, arguments);
        let (code, human) = (self.0.to_string(), &said.human);
        assert_eq!(said.codes(), [&code], "{human}");
        assert_eq!(said.exit, Some(exit), "{human}");
        for finding in said.broken() {
            let hint = finding["hint"].as_str().unwrap_or_default();
            assert!(!hint.is_empty(), "{human}");
            assert!(human.contains(&format!("hint: {hint}\n")), "{human}");
        }
        assert!(human.contains(&format!(" [{code}]\n")), "{human}");
        for word in words {
            assert!(human.contains(word), "{word:?} not in: {human}");
        }
        said
    }

    /// The same on a client's own machine, which has nothing but its pair and its CAs, in front of a server.
    #[track_caller]
    pub fn at(self, desk: &Desk, address: &str, words: &[&str]) -> Said {
        self.by(desk.dir.path(), &["--connect", address], 2, words)
    }
}

/// A client's machine: what the operator gave it, and nothing else.
pub struct Desk {
    pub dir: TempDir,
}

impl Desk {
    /// One that has nobody's pair.
    pub fn empty(ca: &str) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
        Self { dir }
    }

    pub fn new(ca: &str, pair: &Pair) -> Self {
        let desk = Self::empty(ca);
        std::fs::create_dir(desk.dir.path().join("clients")).unwrap();
        desk.write("clients/case.pem", &pair.chain);
        desk.write_key(&pair.key);
        desk
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub fn write_key(&self, text: &str) {
        self.write("clients/case-key.pem", text);
        self.chmod("clients/case-key.pem", 0o600);
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.dir.path().join(name), mode).unwrap();
    }

    /// What the check says there.
    #[track_caller]
    pub fn check(&self, arguments: &[&str]) -> Said {
        Said::of(self.dir.path(), arguments)
    }
}

/// What is done to a server's directory, which has a CA of a corporation beside its own.
type Breakage = fn(&Corp);

/// What a server would stumble over at its next start, of the code that it says then; the exit code, and words.
const UNDER_A_SERVER: &[(FailureCode, Breakage, i32, &str)] = &[
    (
        FailureCode::UntrustedServer,
        servers::of_another_ca,
        2,
        "signed by CN=other root; no CA in ",
    ),
    (
        FailureCode::MissingIntermediate,
        servers::short,
        2,
        "a CA that was not sent along",
    ),
    (FailureCode::ServerExpired, servers::ended, 2, " expired 2"),
    (
        FailureCode::NotYetValid,
        servers::begun_later,
        2,
        "is not valid until 2",
    ),
    (
        FailureCode::WrongName,
        servers::without_names,
        2,
        "no name that clients could connect to",
    ),
    (
        FailureCode::WrongPurpose,
        servers::a_clients,
        2,
        "is not for server use",
    ),
    (
        FailureCode::WrongContent,
        servers::no_certificate,
        2,
        "server.pem",
    ),
    (
        FailureCode::FileAccess,
        servers::without_key,
        3,
        "server-key.pem",
    ),
    (
        FailureCode::FileAccess,
        servers::open_key,
        2,
        "readable by everyone (mode 0644)",
    ),
    (
        FailureCode::Revoked,
        servers::own_revoked,
        2,
        "names the server's own certificate",
    ),
    (
        FailureCode::NoRevocationList,
        servers::without_a_list,
        2,
        "has no list of CN=corp root, O=Corp",
    ),
    (
        FailureCode::WrongPlace,
        servers::a_cas,
        2,
        "is a CA's, not a server's",
    ),
    (
        FailureCode::UnusableForm,
        servers::of_version_1,
        2,
        "it is of X.509 version 1",
    ),
    (
        FailureCode::NameConstraint,
        servers::constrained,
        2,
        "corp.example",
    ),
];

/// The server runs on with what it has, or takes what it should not: either way it is the same failure.
#[test]
fn what_a_server_would_not_start_with_is_told_while_it_runs() {
    for (code, breakage, exit, words) in UNDER_A_SERVER {
        let corp = Corp::new();
        let server = corp.matrix.serve(&["--reload-every", "1h"]);
        breakage(&corp);
        let arguments = ["--connect", server.address.as_str()];
        Told(*code).by(corp.matrix.dir(), &arguments, *exit, &[words]);
    }
}

/// Checks until something is broken, as that has to run out first; what is said then.
#[track_caller]
fn until(told: Told, dir: &Path, arguments: &[&str], words: &[&str]) -> Said {
    let deadline = Instant::now() + LOG_LIMIT * 2;
    loop {
        let (said, exit) = Said::printed(dir, arguments, &[]);
        if exit == Some(2) {
            return told.by(dir, arguments, 2, words);
        }
        assert!(Instant::now() < deadline, "{} is not told: {said}", told.0);
    }
}

/// Runs a program of others, which has to succeed.
#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The pair that the server's own directory has for its good client.
fn good(matrix: &Matrix) -> Desk {
    Desk::new(&matrix.ca.pem, &matrix.ca.client(|_| {}))
}
