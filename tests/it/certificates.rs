//! Certificates that name nobody here: each is refused, both ends say why, and nobody else notices.
//!
//! A chain is refused in the handshake; names and purposes in place of the greeting.

pub mod der;
mod forms;
pub mod lists;
mod mutations;
mod names;

use std::time::{Duration as Wait, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Use, IsCa,
    KeyUsagePurpose,
};
use time::Duration;

use crate::harness::{Server, text};
use crate::matrix::{Ca, GOOD, Matrix, Pair, now_plus, uris};
use crate::refusals::heard_unchecked;

pub const LOG_LIMIT: Wait = Wait::from_secs(10);

struct Cases {
    matrix: Matrix,
    server: Server,
    n: usize,
}

impl Cases {
    fn new(matrix: Matrix) -> Self {
        let server = matrix.serve(&[]);
        Self {
            matrix,
            server,
            n: 0,
        }
    }

    /// This pair is refused, the client says one thing, the log another, and the good client works.
    #[track_caller]
    fn refused(&mut self, pair: &Pair, client_says: &str, log_says: &str) {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        let logged = self.server.log().len();
        let output = self.server.client(&name, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(client_says),
            "{client_says:?} not in: {stderr}"
        );
        assert_eq!(output.status.code(), Some(5), "{stderr}");
        assert_eq!(text(&output.stdout), "");
        assert_tidy(&stderr);
        let log = log_with(&self.server, logged, log_says);
        assert_tidy(&log);
        assert_eq!(
            self.server
                .client("good", &["whoami"])
                .output()
                .unwrap()
                .status
                .code(),
            Some(0)
        );
    }

    /// The command line does not even show this pair; a server that is shown it refuses it, too.
    #[track_caller]
    fn refused_by_both(&mut self, pair: &Pair, client_says: &str, log_says: &str) {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        let output = self.server.client(&name, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        let own = format!("{name}.pem: the certificate cannot be used: ");
        assert!(stderr.contains(&own), "{stderr}");
        assert_eq!(output.status.code(), Some(5), "{stderr}");
        let logged = self.server.log().len();
        let heard = heard_unchecked(&self.matrix, &self.server, &name);
        assert!(
            heard.contains(client_says),
            "{client_says:?} not in: {heard}"
        );
        assert_tidy(&log_with(&self.server, logged, log_says));
        let good = self.server.client("good", &["whoami"]).output().unwrap();
        assert_eq!(good.status.code(), Some(0));
    }

    /// The command line says it before it connects; a server that is shown this pair refuses it, too.
    #[track_caller]
    fn refused_before(&mut self, pair: &Pair, client_says: &str, log_says: &str) {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        let output = self.server.client(&name, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains(client_says), "{stderr}");
        assert_eq!(output.status.code(), Some(5), "{stderr}");
        assert_tidy(&stderr);
        let logged = self.server.log().len();
        heard_unchecked(&self.matrix, &self.server, &name);
        assert_tidy(&log_with(&self.server, logged, log_says));
    }

    /// This pair is someone, but not one with rights.
    #[track_caller]
    fn without_rights(&mut self, pair: &Pair, identity: &str) {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        let who = self.server.client(&name, &["whoami"]).output().unwrap();
        assert!(
            text(&who.stdout).contains(identity),
            "{}",
            text(&who.stderr)
        );
        let output = self.server.client(&name, &["ls"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(identity) && stderr.contains("no grant"),
            "{stderr}"
        );
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        assert_tidy(&self.server.log());
    }
}

/// What was logged after `from`, once `expected` is in it.
#[track_caller]
pub fn log_with(server: &Server, from: usize, expected: &str) -> String {
    let until = Instant::now() + LOG_LIMIT;
    loop {
        let log = server.log().split_off(from);
        if log.contains(expected) {
            return log;
        }
        assert!(Instant::now() < until, "{expected:?} not in the log: {log}");
        std::thread::yield_now();
    }
}

/// No character that a terminal acts on, no line that is longer than a screen or two.
#[track_caller]
fn assert_tidy(text: &str) {
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    assert!(text.lines().all(|line| line.len() < 1_500), "{text}");
}

fn uses(uses: &[Use]) -> impl FnOnce(&mut CertificateParams) {
    let uses = uses.to_vec();
    |params| params.extended_key_usages = uses
}

#[test]
fn chains_that_lead_nowhere_are_refused_in_the_handshake() {
    let matrix = Matrix::new();
    let other = Ca::root("other root");
    let twin = Ca::root("matrix root");
    let alone = Ca::root_with("alone", |params| {
        params.subject_alt_names = uris(&[GOOD]);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![Use::ClientAuth];
    });
    let expired = matrix
        .ca
        .client(|params| params.not_after = now_plus(-Duration::MINUTE));
    let future = matrix
        .ca
        .client(|params| params.not_before = now_plus(Duration::HOUR));
    let critical = matrix.ca.client(|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    });
    let server = matrix.ca.server(&["localhost"], |_| {});
    let signing = matrix.ca.client(uses(&[Use::CodeSigning]));
    let any = matrix.ca.client(uses(&[Use::Any]));
    let ca = matrix
        .ca
        .client(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let root = matrix.ca.as_pair();

    let mut cases = Cases::new(matrix);
    cases.refused(&alone.as_pair(), "signed by itself", "TLS18");
    let client = "does not trust the CA that signed it";
    cases.refused(&other.client(|_| {}), client, "TLS01");
    cases.refused(&other.client(|_| {}).with(&[&other.pem]), client, "TLS01");
    cases.refused(&twin.client(|_| {}), "not by the key of", "TLS01");
    cases.refused_before(&expired, "expired 2", "TLS06");
    cases.refused(&future, "is not valid until 2", "TLS08");
    cases.refused_by_both(&critical, "1.2.3.4 is marked critical", "TLS19");
    cases.refused(&server, "is not for clients", "TLS10");
    cases.refused(&signing, "is not for clients", "TLS10");
    cases.refused(&any, "is not for clients", "TLS10");
    cases.refused(&ca, "is a CA's, not a client's", "TLS18");
    cases.refused(&root, "is a CA's, not a client's", "TLS18");
}

#[test]
fn certificates_for_something_else_are_refused_by_the_profile() {
    let mut cases = Cases::new(Matrix::new());
    let none = cases.matrix.ca.client(uses(&[]));
    let both = cases
        .matrix
        .ca
        .client(uses(&[Use::ClientAuth, Use::ServerAuth]));
    let more = cases.matrix.ca.client(uses(&[Use::ClientAuth, Use::Any]));
    let mail = cases
        .matrix
        .ca
        .client(uses(&[Use::ClientAuth, Use::EmailProtection]));
    let silent = cases.matrix.ca.client(|params| params.key_usages = vec![]);
    let agree = cases
        .matrix
        .ca
        .client(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    for (pair, says) in [
        (none, "no clientAuth"),
        (both, "for other purposes besides"),
        (more, "for other purposes besides"),
        (mail, "for other purposes besides"),
        (silent, "no digitalSignature"),
        (agree, "no digitalSignature"),
    ] {
        cases.refused(&pair, says, says);
    }
}

/// The pair of a client below `ca`, with these CAs along.
fn chain(ca: &Ca, cas: &[&Ca]) -> Pair {
    let certificates: Vec<&str> = cas.iter().map(|ca| ca.pem.as_str()).collect();
    ca.client(|_| {}).with(&certificates)
}

/// Lets every CA have its list, so that no case is refused for the lack of one.
fn write_lists(matrix: &Matrix, cas: &[&Ca]) {
    let below: String = cas.iter().map(|ca| ca.empty_list()).collect();
    matrix.write("ca.crl", matrix.ca.empty_list() + &below);
}

#[test]
fn every_link_of_a_chain_counts() {
    let matrix = Matrix::new();
    let root = &matrix.ca;
    let between = root.below("between", |_| {});
    let no_ca = root.below("no ca", |params| params.is_ca = IsCa::ExplicitNoCa);
    let past = now_plus(-Duration::MINUTE);
    let expired = root.below("expired", |params| params.not_after = past);
    let no_more = IsCa::Ca(BasicConstraints::Constrained(0));
    let last = root.below("last", |params| params.is_ca = no_more);
    let beyond = last.below("beyond", |_| {});
    let servers = root.below("servers", uses(&[Use::ServerAuth]));
    let unlisted = root.below("unlisted", |_| {});
    write_lists(
        &matrix,
        &[&between, &no_ca, &expired, &last, &beyond, &servers],
    );
    let mut cases = Cases::new(matrix);
    let pair = chain(&between, &[]);
    cases.refused(&pair, "with the CAs between in the same file", "TLS01");
    let pair = chain(&no_ca, &[&no_ca]);
    cases.refused(&pair, "certificate is no CA's", "TLS18");
    let pair = chain(&expired, &[&expired]);
    cases.refused(&pair, "the CA CN=expired in ", "TLS06");
    let pair = chain(&beyond, &[&beyond, &last]);
    cases.refused(&pair, "path length", "TLS18");
    let pair = chain(&servers, &[&servers]);
    cases.refused(&pair, "is not for clients", "TLS10");
    let pair = chain(&unlisted, &[&unlisted]);
    cases.refused(&pair, "revocation lists are incomplete", "TLS17");
}

#[test]
fn a_chain_has_a_length() {
    let matrix = Matrix::new();
    let between = matrix.ca.below("between", |_| {});
    let second = between.below("second", |_| {});
    let third = second.below("third", |_| {});
    let fourth = third.below("fourth", |_| {});
    write_lists(&matrix, &[&between, &second, &third, &fourth]);
    let bulk = |n: usize| -> Vec<Ca> {
        let each = (0..n).map(|n| between.below(&format!("bulk {n}"), |_| {}));
        each.collect()
    };
    let (some, many) = (bulk(60), bulk(250));
    let bombs: Vec<Ca> = (0..60).map(|_| Ca::root("between")).collect();
    matrix.add("good", &chain(&third, &[&third, &second, &between]));
    let mut cases = Cases::new(matrix);
    let long = "the chain has 5 certificates";
    let pair = chain(&fourth, &[&fourth, &third, &second, &between]);
    cases.refused(&pair, long, long);
    let with_some: Vec<&Ca> = [&between].into_iter().chain(&some).collect();
    let pair = chain(&between, &with_some);
    cases.refused(
        &pair,
        "the chain has 62 certificates",
        "at most 4 and 16384 are taken",
    );
    let pair = chain(&between, &many.iter().collect::<Vec<_>>());
    cases.refused(&pair, " bytes, a server takes 16384 at most", "TLS22");
    let pair = chain(&between, &bombs.iter().collect::<Vec<_>>());
    cases.refused(&pair, "more steps to check", "TLS19");
}
