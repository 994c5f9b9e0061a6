//! Failures of certificates that both ends see.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Use, IsCa, SanType,
};
use time::Duration;

use super::{Texts, whoami};
use crate::harness::Server;
use crate::matrix::{Ca, GOOD, Matrix, Pair, now_plus, uris};
use crate::refusals::heard_unchecked;
use crate::strange_servers::tls;

/// A client with this pair, at a real server: what it says, and what the log says.
#[track_caller]
fn refused(texts: &mut Texts, title: &str, matrix: &Matrix, server: &Server, pair: &Pair) {
    matrix.add("case", pair);
    let from = server.log().len();
    texts.client(
        &format!("client: {title}"),
        matrix,
        whoami(matrix, "case", &server.address),
    );
    texts.log(&format!("server: {title}"), matrix, server, from);
}

/// A server with this pair, which a good client refuses: what the client says.
#[track_caller]
fn strange(texts: &mut Texts, title: &str, matrix: &Matrix, pair: &Pair, host: &str) {
    let port = tls(matrix, pair, &["fsvc/1"], b"");
    texts.client(
        &format!("client: {title}"),
        matrix,
        whoami(matrix, "good", &format!("{host}:{port}")),
    );
}

fn of_organization(name: &'static str) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params
            .distinguished_name
            .push(DnType::OrganizationName, name);
    }
}

#[test]
fn tls01_an_untrusted_client() {
    let matrix = Matrix::new();
    let (other, twin) = (Ca::root("other root"), Ca::root("matrix root"));
    let between = other.below("other between", |_| {});
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS01");
    refused(
        &mut texts,
        "another CA",
        &matrix,
        &server,
        &other.client(|_| {}),
    );
    let chain = between.client(|_| {}).with(&[&between.pem]);
    refused(
        &mut texts,
        "a CA below another one",
        &matrix,
        &server,
        &chain,
    );
    refused(
        &mut texts,
        "a CA of the same name",
        &matrix,
        &server,
        &twin.client(|_| {}),
    );
    texts.hold();
}

#[test]
fn tls02_an_untrusted_server() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS02");
    let other = Ca::root("other root");
    strange(
        &mut texts,
        "another CA",
        &matrix,
        &other.server(&["localhost"], |_| {}),
        "localhost",
    );
    let twin = Ca::root("matrix root").server(&["localhost"], |_| {});
    strange(
        &mut texts,
        "a CA of the same name",
        &matrix,
        &twin,
        "localhost",
    );
    let server = matrix.serve(&[]);
    matrix.write("other.pem", &other.pem);
    let mut command = whoami(&matrix, "good", &server.address);
    command.arg("--ca").arg(matrix.path("other.pem"));
    texts.client("client: another ca.pem", &matrix, command);
    texts.log("server: its client has another ca.pem", &matrix, &server, 0);
    texts.hold();
}

#[test]
fn tls03_a_missing_intermediate() {
    let matrix = Matrix::new();
    let root = Ca::root_with("corp root", of_organization("Corp"));
    let between = root.below("issuing 3", of_organization("Corp"));
    matrix.write("ca.pem", matrix.ca.pem.clone() + &root.pem);
    let lists = matrix.ca.empty_list() + &root.empty_list() + &between.empty_list();
    matrix.write("ca.crl", lists);
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS03");
    let alone = between.client(|_| {});
    refused(&mut texts, "of the client", &matrix, &server, &alone);
    // With the CA between it is somebody.
    matrix.add("case", &alone.with(&[&between.pem]));
    let output = whoami(&matrix, "case", &server.address).output().unwrap();
    assert!(output.status.success(), "{}", server.log());
    let pair = between.server(&["localhost"], |_| {});
    strange(&mut texts, "of the server", &matrix, &pair, "localhost");
    texts.hold();
}

#[test]
fn tls06_an_expired_client() {
    let matrix = Matrix::new();
    let old = |params: &mut CertificateParams| params.not_after = now_plus(-Duration::days(3));
    let ever = |params: &mut CertificateParams| params.not_before = now_plus(-Duration::days(30));
    let ca = matrix.ca.below("old", |params| {
        ever(params);
        old(params);
    });
    matrix.write("ca.crl", matrix.ca.empty_list() + &ca.empty_list());
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS06");
    let pair = matrix.ca.client(|params| {
        ever(params);
        old(params);
    });
    let from = server.log().len();
    // A client need not ask a server for that; one that does is told.
    matrix.add("own", &pair);
    texts.client(
        "client: its own",
        &matrix,
        whoami(&matrix, "own", &server.address),
    );
    let heard = heard_unchecked(&matrix, &server, "own");
    texts.add("client: it is shown all the same", &matrix, &heard);
    texts.log("server: its own", &matrix, &server, from);
    let pair = ca.client(|_| {}).with(&[&ca.pem]);
    refused(&mut texts, "a CA between", &matrix, &server, &pair);
    texts.hold();
}

#[test]
fn tls07_an_expired_server() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS07");
    let pair = matrix.ca.server(&["localhost"], |params| {
        params.not_before = now_plus(-Duration::days(30));
        params.not_after = now_plus(-Duration::days(3));
    });
    strange(&mut texts, "its own", &matrix, &pair, "localhost");
    texts.hold();
}

#[test]
fn tls08_not_valid_yet() {
    let matrix = Matrix::new();
    let early = |params: &mut CertificateParams| params.not_before = now_plus(Duration::minutes(5));
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS08");
    refused(
        &mut texts,
        "the client's",
        &matrix,
        &server,
        &matrix.ca.client(early),
    );
    let pair = matrix.ca.server(&["localhost"], early);
    strange(&mut texts, "the server's", &matrix, &pair, "localhost");
    texts.hold();
}

#[test]
fn tls09_a_wrong_name() {
    let matrix = Matrix::new();
    let mut texts = Texts::of("TLS09");
    let pair = matrix.ca.server(&["files.internal", "10.1.2.3"], |_| {});
    strange(&mut texts, "other names", &matrix, &pair, "localhost");
    strange(&mut texts, "an address", &matrix, &pair, "127.0.0.1");
    let nameless = matrix
        .ca
        .server(&["localhost"], |params| params.subject_alt_names = vec![]);
    strange(&mut texts, "no names", &matrix, &nameless, "localhost");
    matrix.write("server.pem", &pair.chain);
    matrix.write_key("server-key.pem", &pair.key);
    let server = matrix.serve(&[]);
    texts.client(
        "client: at a real server",
        &matrix,
        whoami(&matrix, "good", &server.address),
    );
    texts.log("server: it is not for the name", &matrix, &server, 0);
    texts.hold();
}

#[test]
fn tls10_a_wrong_purpose() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS10");
    let pair = matrix.ca.server(&["localhost"], |_| {});
    refused(
        &mut texts,
        "a server's as a client's",
        &matrix,
        &server,
        &pair,
    );
    let pair = matrix
        .ca
        .client(|params| params.extended_key_usages = vec![Use::CodeSigning]);
    refused(&mut texts, "for signing code", &matrix, &server, &pair);
    let pair = matrix.ca.server(&["localhost"], |params| {
        params.extended_key_usages = vec![Use::ClientAuth];
    });
    strange(
        &mut texts,
        "a client's as a server's",
        &matrix,
        &pair,
        "localhost",
    );
    texts.hold();
}

#[test]
fn tls16_revoked() {
    let matrix = Matrix::new();
    let revoked = matrix.ca.client(|_| {});
    matrix.write(
        "ca.crl",
        matrix.ca.list(&[&revoked], now_plus(Duration::DAY)),
    );
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS16");
    refused(&mut texts, "in the list", &matrix, &server, &revoked);
    texts.hold();
}

#[test]
fn tls17_no_revocation_list() {
    let matrix = Matrix::new();
    let unlisted = matrix.ca.below("unlisted", |_| {});
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS17");
    let pair = unlisted.client(|_| {}).with(&[&unlisted.pem]);
    refused(&mut texts, "a CA without a list", &matrix, &server, &pair);
    texts.hold();
}

#[test]
fn tls18_a_wrong_place() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS18");
    refused(
        &mut texts,
        "a CA's as a client's",
        &matrix,
        &server,
        &matrix.ca.as_pair(),
    );
    let alone = Ca::root_with("alone", |params| {
        params.subject_alt_names = uris(&[GOOD]);
        params.is_ca = IsCa::ExplicitNoCa;
    });
    refused(
        &mut texts,
        "signed by itself",
        &matrix,
        &server,
        &alone.as_pair(),
    );
    let pair = matrix.ca.server(&["localhost"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    strange(
        &mut texts,
        "a CA's as a server's",
        &matrix,
        &pair,
        "localhost",
    );
    texts.hold();
}

#[test]
fn tls22_no_identity() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS22");
    let two = uris(&["spiffe://a/x", "spiffe://a/y"]);
    let pair = matrix.ca.client(|params| params.subject_alt_names = two);
    refused(&mut texts, "two names", &matrix, &server, &pair);
    let pair = matrix.ca.client(|params| params.subject_alt_names = vec![]);
    refused(&mut texts, "no name", &matrix, &server, &pair);
    let pair = matrix.ca.client_named("spiffe://TD/../x\u{1b}[2J");
    refused(&mut texts, "a name that is none", &matrix, &server, &pair);
    let pair = matrix
        .ca
        .client(|params| params.extended_key_usages = vec![]);
    refused(&mut texts, "no purpose", &matrix, &server, &pair);
    texts.hold();
}

#[test]
fn tls23_a_name_constraint() {
    let matrix = Matrix::new();
    let [corp, by_uri] = matrix.constrained();
    let server = matrix.serve(&[]);
    let mut texts = Texts::of("TLS23");
    let outside = SanType::DnsName("elsewhere.example".try_into().unwrap());
    let pair = corp.client(|params| params.subject_alt_names.push(outside));
    refused(
        &mut texts,
        "of the client's CA",
        &matrix,
        &server,
        &pair.with(&[&corp.pem]),
    );
    let pair = by_uri.client(|_| {}).with(&[&by_uri.pem]);
    refused(&mut texts, "on URIs", &matrix, &server, &pair);
    let pair = corp.server(&["localhost"], |_| {}).with(&[&corp.pem]);
    strange(
        &mut texts,
        "of the server's CA",
        &matrix,
        &pair,
        "localhost",
    );
    texts.hold();
}
