//! Trust settings: a CA names whom it may, and nobody else.
//!
//! TLS alone takes whatever any trusted CA signs; each case here passes TLS, and would be somebody
//! if its CA could be chosen by a name, or its name be looked for in another place.

mod chains;
mod settings;
mod sources;

use crate::certificates::log_with;
use crate::harness::{Server, text};
use crate::matrix::{Ca, Matrix, POLICY, Pair};

const CORP: &str = "spiffe://corp.example/team/ann";

/// A trust setting, in the policy's form; `more` are further lines.
pub fn trust(file: &str, domain: &str, more: &str) -> String {
    format!("\n[[trust]]\nca = \"{file}\"\ntrust_domain = \"{domain}\"\n{more}\n")
}

/// A matrix whose server trusts these CAs besides its own, each in a file of its name, and has the
/// settings.
pub fn trusting(others: &[(&str, &Ca)], settings: &str) -> Matrix {
    let matrix = Matrix::new();
    matrix.write("own.pem", &matrix.ca.pem);
    let (mut bundle, mut lists) = (matrix.ca.pem.clone(), matrix.ca.empty_list());
    for (name, ca) in others {
        matrix.write(&format!("{name}.pem"), &ca.pem);
        bundle.push_str(&ca.pem);
        lists.push_str(&ca.empty_list());
    }
    matrix.write("server-ca.pem", bundle);
    matrix.write("ca.crl", lists);
    matrix.write("policy.toml", format!("{POLICY}{settings}"));
    matrix
}

/// Clients know the server's own CA alone: what they trust is no matter of whom the server does.
fn serve(matrix: &Matrix) -> Server {
    let bundle = matrix.path("server-ca.pem");
    matrix.serve(&["--ca", bundle.to_str().unwrap(), "--reload-every", "1s"])
}

struct Cases {
    matrix: Matrix,
    server: Server,
    n: usize,
}

impl Cases {
    fn new(matrix: Matrix) -> Self {
        let server = serve(&matrix);
        Self {
            matrix,
            server,
            n: 0,
        }
    }

    fn add(&mut self, pair: &Pair) -> String {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        name
    }

    /// Who the server takes this pair for.
    #[track_caller]
    fn is(&mut self, pair: &Pair, identity: &str) {
        let name = self.add(pair);
        let whoami = self.server.client(&name, &["whoami", "--json"]).output();
        let output = whoami.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["identity"], identity, "{answer}");
    }

    /// Both sides say all of this, nothing is told of the server's files, and others are let in.
    #[track_caller]
    fn refused(&mut self, pair: &Pair, says: &[&str]) {
        let name = self.add(pair);
        let from = self.server.log().len();
        let output = self.server.client(&name, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{stderr}");
        let log = log_with(&self.server, from, says[0]);
        for part in says {
            assert!(stderr.contains(part), "{part:?} not in: {stderr}");
            assert!(log.contains(part), "{part:?} not in: {log}");
        }
        let own = self.matrix.path("server-ca.pem");
        assert!(!stderr.contains(own.to_str().unwrap()), "{stderr}");
        let good = self.server.client("good", &["ls"]).output().unwrap();
        assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    }
}

#[test]
fn two_cas_name_their_own_domains_and_not_each_others() {
    let corp = Ca::root("corp root");
    let settings = trust("own.pem", "test.internal", "") + &trust("corp.pem", "corp.example", "");
    let mut cases = Cases::new(trusting(&[("corp", &corp)], &settings));
    cases.is(&corp.client_named(CORP), CORP);
    let own = "spiffe://test.internal/client/good";
    cases.is(&cases.matrix.ca.client_named(own), own);

    let of_corp = "its CA CN=corp root may name only corp.example, not";
    for name in [own, "spiffe://test.internal/x", "spiffe://other.example/x"] {
        let domain = name.split('/').nth(2).unwrap();
        let says = [
            &format!("the certificate names {name}"),
            &format!("{of_corp} {domain}"),
        ];
        cases.refused(&corp.client_named(name), &says.map(String::as_str));
    }
    let of_own = "its CA CN=matrix root may name only test.internal, not corp.example";
    let taken = cases.matrix.ca.client_named(CORP);
    cases.refused(&taken, &[&format!("names {CORP}"), of_own]);
    // A domain is a whole one: neither a beginning nor an end of it will do.
    for near in [
        "corp.example.net",
        "x.corp.example",
        "corp.exampl",
        "corp-example",
    ] {
        let pair = corp.client_named(&format!("spiffe://{near}/team/ann"));
        cases.refused(&pair, &[&format!("{of_corp} {near}")]);
    }
}

#[test]
fn a_ca_that_is_not_bound_names_all_but_the_bound_domains() {
    let corp = Ca::root("corp root");
    let settings = trust("corp.pem", "corp.example", "");
    let mut cases = Cases::new(trusting(&[("corp", &corp)], &settings));
    for free in [
        "spiffe://test.internal/client/good",
        "spiffe://other.example/x",
    ] {
        cases.is(&cases.matrix.ca.client_named(free), free);
    }
    cases.is(&corp.client_named(CORP), CORP);
    let taken = cases.matrix.ca.client_named(CORP);
    let says = "its CA CN=matrix root may not name corp.example, which is bound to another CA";
    cases.refused(&taken, &[says, &format!("names {CORP}")]);
}

/// One identity for two CAs is meant: both are in the file.
#[test]
fn a_file_of_two_cas_binds_both() {
    let (old, new) = (Ca::root("corp 1"), Ca::root("corp 2"));
    let settings = trust("corp.pem", "corp.example", "");
    let matrix = trusting(&[("old", &old), ("new", &new)], &settings);
    matrix.write("corp.pem", format!("{}{}", old.pem, new.pem));
    let mut cases = Cases::new(matrix);
    for ca in [&old, &new] {
        cases.is(&ca.client_named(CORP), CORP);
        let good = ca.client(|_| {});
        cases.refused(&good, &["may name only corp.example, not test.internal"]);
    }
}

/// The same name is another CA if the key is another one.
#[test]
fn a_ca_is_its_key_and_not_its_name() {
    let (corp, twin) = (Ca::root("corp root"), Ca::root("corp root"));
    let settings = trust("corp.pem", "corp.example", "");
    let matrix = trusting(&[("twin", &twin), ("corp", &corp)], &settings);
    let bundle = matrix.path("server-ca.pem");
    // Lists are found by name, so that two CAs of one name cannot have theirs.
    let server = matrix.serve(&["--ca", bundle.to_str().unwrap(), "--no-revocation"]);
    let mut cases = Cases {
        matrix,
        server,
        n: 0,
    };
    cases.is(&corp.client_named(CORP), CORP);
    let says = "its CA CN=corp root may not name corp.example, which is bound to another CA";
    cases.refused(&twin.client_named(CORP), &[says]);
    cases.refused(&twin.client_named(CORP).with(&[&corp.pem]), &[says]);
    cases.refused(
        &twin.client_named(CORP).with(&[&twin.pem, &corp.pem]),
        &[says],
    );
    let other = "spiffe://other.example/x";
    cases.is(&twin.client_named(other), other);
    let says = "may name only corp.example, not other.example";
    cases.refused(&corp.client_named(other), &[says]);
}
