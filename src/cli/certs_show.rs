//! `fsvc certs show` and `certs check`: what files say, and whether they will do.
//!
//! `show` judges nothing; `check` asks those who will: the server's and the client's own loaders, and
//! a server itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ca_args::{CheckFlags, ShowFlags};
use super::certs::print;
use super::exit::Exit;
use super::output::{chain, coded, complain};
use crate::client::{Client, Options};
use crate::tls::TlsError;
use crate::tls::client::{self, OwnFiles};
use crate::tls::pem::{PemError, read_certificates, read_revocation_lists};
use crate::tls::server::{self, Files};
use crate::tls::x509::{Facts, ListFacts};

/// Says what is in a file.
pub(super) fn show(flags: &ShowFlags) -> Exit {
    let now = Timestamp::now();
    let found = match read_certificates(&flags.file) {
        Ok(chain) => chain
            .iter()
            .map(|der| Facts::read(der).map(|facts| certificate(&facts, now)))
            .collect::<Result<Vec<_>, _>>(),
        Err(no_certificates) => match read_revocation_lists(&flags.file) {
            Ok(lists) => lists
                .iter()
                .map(|der| ListFacts::read(der, None).map(|facts| list(&facts)))
                .collect(),
            Err(_) => return refuse("certs show", &no_certificates.into(), Exit::State),
        },
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            complain(
                &format!("certs show: {}: {error}", flags.file.display()),
                None,
            );
            return Exit::State;
        }
    };
    if flags.json {
        return print(&json!({ "found": found }).to_string());
    }
    let mut text = String::new();
    for item in &found {
        for (name, value) in item.as_object().into_iter().flatten() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(text, "{name:<12} {value}");
        }
        text.push('\n');
    }
    print(&(text + "Nothing was verified: fsvc certs check does that."))
}

fn certificate(facts: &Facts, now: Timestamp) -> Value {
    let purpose = match (facts.is_ca, facts.purposes) {
        (true, _) => "a CA",
        (_, None) => "for every purpose",
        (_, Some(purposes)) => match (purposes.server, purposes.client) {
            (true, true) => "a server and a client",
            (true, false) => "a server",
            (false, true) => "a client",
            (false, false) => "neither a server nor a client",
        },
    };
    let identity = match facts.names.uri.as_slice() {
        [one] => one
            .parse::<crate::identity::SpiffeId>()
            .map_or_else(|error| format!("none: {error}"), |id| id.to_string()),
        names => format!("none: {} URI names, one is needed", names.len()),
    };
    let hosts = [&facts.names.dns[..], &facts.names.ip[..]].concat();
    json!({
        "identity": identity,
        "is": purpose,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "hosts": hosts,
        "not_before": facts.not_before,
        "expires_at": facts.not_after,
        "days_left": facts.not_after.duration_since(now).as_hours() / 24,
    })
}

fn list(facts: &ListFacts) -> Value {
    json!({
        "is": "a revocation list",
        "issuer": facts.issuer,
        "number": facts.number.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
        "next_update": facts.next_update,
    })
}

/// What was found out, the worst of it last: the numbers are those of the exit codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    Expiring,
    Broken,
    Unreadable,
}

/// What is checked, and what came of it so far.
struct Check {
    worst: Verdict,
    lines: Vec<Value>,
}

/// Says whether files will do: 0 if so, 1 if something is near its end, 2 if something is broken, 3 if
/// something cannot be read.
pub(super) fn check(flags: &CheckFlags) -> Exit {
    let mut check = Check {
        worst: Verdict::Good,
        lines: Vec::new(),
    };
    let dir = &flags.place.dir;
    let server = Files {
        certificate: dir.join("server.pem"),
        key: dir.join("server-key.pem"),
        ca: dir.join("ca.pem"),
        crl: Some(dir.join("ca.crl")),
    };
    let mut is_any = false;
    if is_file(&server.certificate) {
        is_any = true;
        check.server(&server);
    }
    for (name, own) in clients(dir) {
        is_any = true;
        check.client(&name, dir, own);
    }
    if let Some(address) = &flags.connect {
        is_any = true;
        check.connect(address, dir, &flags.name);
    }
    if !is_any {
        complain(
            &format!("certs check: no certificates in {}", dir.display()),
            None,
        );
        return Exit::State;
    }
    check.end(flags.place.json)
}

impl Check {
    fn server(&mut self, files: &Files) {
        match server::configure(files, &[], Timestamp::now()) {
            Ok(loaded) => {
                for facts in &loaded.certificates {
                    self.life("server", facts);
                }
            }
            Err(error) => self.broken("server", &error),
        }
    }

    fn client(&mut self, name: &str, dir: &Path, own: OwnFiles) {
        let certificate = own.certificate.clone();
        let files = client::Files {
            ca: dir.join("ca.pem"),
            own: Some(own),
        };
        if let Err(error) = client::configure(&files, Timestamp::now()) {
            return self.broken(name, &error);
        }
        let facts = read_certificates(&certificate).map(|chain| Facts::read(&chain[0]));
        match facts {
            Ok(Ok(facts)) => self.life(name, &facts),
            Ok(Err(error)) => self.say(Verdict::Broken, name, &error.to_string(), None),
            Err(error) => self.broken(name, &error.into()),
        }
    }

    fn life(&mut self, what: &str, facts: &Facts) {
        let now = Timestamp::now();
        let days = facts.not_after.duration_since(now).as_hours() / 24;
        let (subject, at) = (&facts.subject, facts.not_after);
        let (verdict, text) = if facts.not_after < now {
            (Verdict::Broken, format!("{subject} expired {at}"))
        } else if now >= facts.renew_after() {
            (
                Verdict::Expiring,
                format!("{subject} ends in {days} days, {at}"),
            )
        } else {
            (Verdict::Good, format!("{subject} is good for {days} days"))
        };
        let hint =
            (verdict != Verdict::Good && !facts.is_ca).then(|| format!("fsvc certs renew {what}"));
        self.say(verdict, what, &text, hint.as_deref());
    }

    fn broken(&mut self, what: &str, error: &TlsError) {
        let verdict = match error {
            TlsError::Pem(PemError::Read { .. }) => Verdict::Unreadable,
            _ => Verdict::Broken,
        };
        let text = coded(&chain(error), error.failure());
        self.say(verdict, what, &text, error.hint().as_deref());
    }

    fn connect(&mut self, address: &str, dir: &Path, name: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let asked = { runtime }.enable_all().build().map(|runtime| {
            let options = Options::from_directory(address, dir, name);
            runtime.block_on(async { Client::new(options)?.whoami().await })
        });
        match asked {
            Ok(Ok(who)) => {
                let text = format!(
                    "takes {name} for {}, serial {}, until {}",
                    who.identity, who.serial, who.expires_at
                );
                self.say(Verdict::Good, address, &text, None);
            }
            Ok(Err(error)) => {
                let text = coded(&chain(&error), error.failure());
                self.say(Verdict::Broken, address, &text, error.hint().as_deref());
            }
            Err(error) => self.say(Verdict::Unreadable, address, &error.to_string(), None),
        }
    }

    fn say(&mut self, verdict: Verdict, what: &str, text: &str, hint: Option<&str>) {
        self.worst = self.worst.max(verdict);
        let word = match verdict {
            Verdict::Good => "ok",
            Verdict::Expiring => "expiring",
            Verdict::Broken => "broken",
            Verdict::Unreadable => "unreadable",
        };
        self.lines
            .push(json!({"verdict": word, "what": what, "text": text, "hint": hint}));
    }

    fn end(self, json: bool) -> Exit {
        let text = if json {
            json!({ "checks": self.lines }).to_string()
        } else {
            let mut text = String::new();
            for line in &self.lines {
                let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                let _ = writeln!(
                    text,
                    "{:<10} {}: {}",
                    word("verdict"),
                    word("what"),
                    word("text")
                );
                if line["hint"].is_string() {
                    let _ = writeln!(text, "           hint: {}", word("hint"));
                }
            }
            text.trim_end().to_owned()
        };
        match (print(&text), self.worst) {
            (Exit::Done, Verdict::Good) => Exit::Done,
            (Exit::Done, Verdict::Expiring) => Exit::Failed,
            (Exit::Done, Verdict::Broken) => Exit::Usage,
            (Exit::Done, Verdict::Unreadable) => Exit::State,
            (failed, _) => failed,
        }
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file())
}

/// The clients whose certificate and key are here, in order.
fn clients(dir: &Path) -> Vec<(String, OwnFiles)> {
    let entries = std::fs::read_dir(dir.join("clients")).into_iter().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let certificate: PathBuf = entry.ok()?.path();
            let name = certificate
                .file_name()?
                .to_str()?
                .strip_suffix(".pem")?
                .to_owned();
            let key = certificate.with_file_name(format!("{name}-key.pem"));
            is_file(&key).then_some((name, OwnFiles { certificate, key }))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn refuse(what: &str, error: &TlsError, exit: Exit) -> Exit {
    let text = coded(&format!("{what}: {}", chain(error)), error.failure());
    complain(&text, error.hint().as_deref());
    exit
}
