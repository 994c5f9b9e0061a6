//! What is wrong with the client's certificate, in front of a real server.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Use, IsCa, SanType,
};
use time::Duration;

use super::servers::{Refusing, refusing, strange};
use super::{Desk, Told, until};
use crate::certificates::lists::sign_weak;
use crate::matrix::{Ca, GOOD, Matrix, Pair, now_plus, uris};

/// The pair on a desk that trusts the server's CA, and in the server's own directory.
#[track_caller]
fn both(told: Told, matrix: &Matrix, address: &str, pair: &Pair, words: &[&str]) {
    told.at(&Desk::new(&matrix.ca.pem, pair), address, words);
    matrix.add("case", pair);
    let arguments = ["--connect", address, "--as", "case"];
    told.by(matrix.dir(), &arguments, 2, words);
}

pub fn untrusted(told: Told) {
    let matrix = Matrix::new();
    let (other, twin) = (Ca::root("other root"), Ca::root("matrix root"));
    let between = other.below("other between", |_| {});
    let server = matrix.serve(&[]);
    let address = &server.address;
    let pair = other.client(|_| {});
    let words = [
        "signed by CN=other root",
        "(it has CN=matrix root)",
        "certs bundle add",
    ];
    both(told, &matrix, address, &pair, &words);
    let pair = between.client(|_| {}).with(&[&between.pem]);
    let words = [
        "CN=other between",
        "ends at CN=other root",
        "(it has CN=matrix root)",
    ];
    both(told, &matrix, address, &pair, &words);
    let words = ["two CAs have that name"];
    both(told, &matrix, address, &twin.client(|_| {}), &words);
}

fn of_organization(name: &'static str) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, name);
    }
}

/// A server's directory that has the root of a corporation beside its own, with a CA below.
pub struct Corp {
    pub matrix: Matrix,
    pub root: Ca,
    pub between: Ca,
}

impl Corp {
    pub fn new() -> Self {
        let matrix = Matrix::new();
        let root = Ca::root_with("corp root", of_organization("Corp"));
        let between = root.below("issuing 3", of_organization("Corp"));
        matrix.write("ca.pem", matrix.ca.pem.clone() + &root.pem);
        let lists = matrix.ca.empty_list() + &root.empty_list() + &between.empty_list();
        matrix.write("ca.crl", lists);
        Self {
            matrix,
            root,
            between,
        }
    }
}

pub fn short_chains(told: Told) {
    let Corp {
        matrix,
        root,
        between,
    } = Corp::new();
    let server = matrix.serve(&[]);
    let pair = between.client(|_| {});
    let cas = matrix.ca.pem.clone() + &root.pem;
    let words = [
        "issuing 3",
        "was not sent along",
        "corp root",
        "in the same file",
    ];
    told.at(&Desk::new(&cas, &pair), &server.address, &words);
    matrix.add("case", &pair);
    let arguments = ["--connect", &server.address, "--as", "case"];
    told.by(matrix.dir(), &arguments, 2, &["issuing 3", "corp root"]);
    // With the CA between all is well.
    let whole = pair.with(&[&between.pem]);
    Desk::new(&cas, &whole)
        .check(&["--connect", &server.address])
        .is_sound();
    drop(server);

    // The server's, which a client of that CA meets.
    let own = between.server(&["localhost", "127.0.0.1"], |_| {});
    matrix.write("server.pem", &own.chain);
    matrix.write_key("server-key.pem", &own.key);
    let server = matrix.serve(&[]);
    let desk = Desk::new(&root.pem, &whole);
    told.at(
        &desk,
        &server.address,
        &[
            "issuing 3",
            "corp root",
            "behind the certificate in server.pem",
        ],
    );
    matrix.write("server.pem", own.with(&[&between.pem]).chain);
    server.signal("HUP");
    let deadline = std::time::Instant::now() + crate::certificates::LOG_LIMIT;
    while desk.check(&["--connect", &server.address]).exit != Some(0) {
        assert!(std::time::Instant::now() < deadline, "{}", server.log());
    }
}

pub fn none(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let desk = Desk::empty(&matrix.ca.pem);
    let words = ["needs a client certificate and none was sent", "--as NAME"];
    told.at(&desk, &server.address, &words);
    std::fs::create_dir(desk.dir.path().join("clients")).unwrap();
    told.at(&desk, &server.address, &words);
}

pub fn expired(told: Told) {
    let matrix = Matrix::new();
    let old = |params: &mut CertificateParams| {
        params.not_before = now_plus(-Duration::days(30));
        params.not_after = now_plus(-Duration::days(3));
    };
    let ca = matrix.ca.below("old", old);
    matrix.write("ca.crl", matrix.ca.empty_list() + &ca.empty_list());
    let server = matrix.serve(&[]);
    let pair = matrix.ca.client(old);
    let words = ["expired 2", "; it is 2", "fsvc certs renew"];
    both(told, &matrix, &server.address, &pair, &words);
    let pair = ca.client(|_| {}).with(&[&ca.pem]);
    let words = [
        "the CA CN=old in its chain expired 2",
        "(3 days ago); this clock says 2",
    ];
    both(told, &matrix, &server.address, &pair, &words);
}

pub fn early(told: Told) {
    let matrix = Matrix::new();
    let early = |params: &mut CertificateParams| params.not_before = now_plus(Duration::minutes(5));
    let server = matrix.serve(&[]);
    let words = [
        "is not valid until 2",
        "this clock says 2",
        "clocks is wrong",
    ];
    both(
        told,
        &matrix,
        &server.address,
        &matrix.ca.client(early),
        &words,
    );
    // The server's own.
    let pair = matrix.ca.server(&["localhost"], early);
    strange(told, &matrix, &pair, "localhost", &words);
    // A server whose clock is ahead.
    let port = refusing(&matrix, Refusing(rustls::CertificateError::Expired));
    let words = [
        "out of date there; by this clock it is not",
        "clocks is wrong",
    ];
    told.at(&super::good(&matrix), &format!("localhost:{port}"), &words);
}

pub fn of_another_purpose(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let pair = matrix.ca.server(&["localhost"], |_| {});
    let words = [
        "is not for clients (no clientAuth)",
        "swapped",
        "(it is for serverAuth, clientAuth is needed)",
    ];
    both(told, &matrix, &server.address, &pair, &words);
    let pair = matrix
        .ca
        .client(|params| params.extended_key_usages = vec![Use::CodeSigning]);
    let words = [
        "(it is for others, clientAuth is needed)",
        "certs add --client",
    ];
    both(told, &matrix, &server.address, &pair, &words);
    let pair = matrix.ca.server(&["localhost"], |params| {
        params.extended_key_usages = vec![Use::ClientAuth];
    });
    let words = [
        "not for servers (it is for clientAuth, serverAuth is needed)",
        "fsvc gen-certs",
    ];
    strange(told, &matrix, &pair, "localhost", &words);
}

pub fn revoked(told: Told) {
    let matrix = Matrix::new();
    let revoked = matrix.ca.client(|_| {});
    let list = matrix.ca.list(&[&revoked], now_plus(Duration::DAY));
    matrix.write("ca.crl", list);
    let server = matrix.serve(&[]);
    both(
        told,
        &matrix,
        &server.address,
        &revoked,
        &["was revoked", "fsvc certs add"],
    );
    let said = told.by(
        matrix.dir(),
        &["--connect", &server.address, "--as", "case"],
        2,
        &[],
    );
    assert_eq!(said.human.matches("[TLS16]").count(), 2, "{}", said.human);
    // The lists here are older than the server's.
    matrix.write("ca.crl", matrix.ca.empty_list());
    let words = ["the server refused your certificate", "was revoked"];
    told.by(
        matrix.dir(),
        &["--connect", &server.address, "--as", "case"],
        2,
        &words,
    );
}

pub fn unlisted(told: Told) {
    let matrix = Matrix::new();
    let unlisted = matrix.ca.below("unlisted", |_| {});
    let server = matrix.serve(&[]);
    let pair = unlisted.client(|_| {}).with(&[&unlisted.pem]);
    let words = [
        "it is good by this client's",
        "what the server holds against it",
        "lists are incomplete",
    ];
    told.at(&Desk::new(&matrix.ca.pem, &pair), &server.address, &words);
    matrix.add("case", &pair);
    let words = [
        "ca.crl has no revocation list of CN=unlisted",
        "(it has those of CN=matrix root)",
    ];
    told.by(
        matrix.dir(),
        &["--connect", &server.address, "--as", "case"],
        2,
        &words,
    );
    drop(server);

    // A list that runs out under the server.
    matrix.write(
        "ca.crl",
        matrix.ca.list(&[], now_plus(Duration::seconds(5))),
    );
    let server = matrix.serve(&["--reload-every", "1h"]);
    let desk = super::good(&matrix);
    let at = ["--connect", &server.address];
    until(
        told,
        desk.dir.path(),
        &at,
        &["lists are incomplete or out of date"],
    );
    let words = ["the list of CN=matrix root should have been followed by a newer one on"];
    told.by(
        matrix.dir(),
        &["--connect", &server.address, "--as", "good"],
        2,
        &words,
    );
}

pub fn in_a_wrong_place(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let words = ["is a CA's certificate", "that a CA signed"];
    told.at(
        &Desk::new(&matrix.ca.pem, &matrix.ca.as_pair()),
        &server.address,
        &words,
    );
    let alone = Ca::root_with("alone", |params| {
        params.subject_alt_names = uris(&[GOOD]);
        params.is_ca = IsCa::ExplicitNoCa;
    });
    let words = [
        "it is signed by itself, not by a CA that is trusted",
        "certs add --client",
    ];
    both(told, &matrix, &server.address, &alone.as_pair(), &words);
    let pair = matrix.ca.server(&["localhost"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let words = ["it is a CA's, not a server's", "fsvc gen-certs"];
    strange(told, &matrix, &pair, "localhost", &words);
}

/// Signed by openssl, since the libraries here refuse to make such a thing.
pub fn of_another_form(told: Told) {
    let matrix = Matrix::new();
    let ec = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    sign_weak(&matrix, "sha1", &ec, "-sha1", Some(GOOD));
    sign_weak(&matrix, "first", &ec, "-sha256", None);
    sign_weak(&matrix, "short", &["rsa:1024"], "-sha256", Some(GOOD));
    let server = matrix.serve(&[]);
    for (name, words) in [
        ("sha1", "it is signed with SHA-1 and ECDSA"),
        ("first", "X.509 version 1, 3 is needed"),
        ("short", "is RSA with 1024 bits; 2048 to 8192 are taken"),
    ] {
        let read = |end: &str| {
            std::fs::read_to_string(matrix.path(&format!("clients/{name}{end}"))).unwrap()
        };
        let pair = Pair {
            chain: read(".pem"),
            key: read("-key.pem"),
            serial: 77_u64.into(),
        };
        let words = [words, "version 3"];
        both(told, &matrix, &server.address, &pair, &words);
    }
}

pub fn without_a_right(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let other = "spiffe://test.internal/client/other";
    let words = [
        &format!("you are {other}, and no grant of the server's policy is for you"),
        &format!("[[grant]] to = \"{other}\""),
        "fsvc can read",
    ];
    let pair = matrix.ca.client_named(other);
    both(
        told,
        &matrix,
        &server.address,
        &pair,
        &words.map(|word| word as &str),
    );
}

pub fn nameless(told: Told) {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let address = &server.address;
    let two = uris(&["spiffe://a/x", "spiffe://a/y"]);
    let pair = matrix.ca.client(|params| params.subject_alt_names = two);
    let words = [
        "2 URI names (spiffe://a/x, spiffe://a/y); exactly one is needed",
        "fsvc certs add --client",
    ];
    both(told, &matrix, address, &pair, &words);
    let pair = matrix.ca.client(|params| params.subject_alt_names = vec![]);
    let words = ["has no URI name; its common name is not used", "[[trust]]"];
    both(told, &matrix, address, &pair, &words);
    let pair = matrix.ca.client_named("spiffe://TD/../x\u{1b}[2J");
    both(
        told,
        &matrix,
        address,
        &pair,
        &["name cannot be used", "fsvc certs add --client"],
    );
    let pair = matrix
        .ca
        .client(|params| params.extended_key_usages = vec![]);
    both(told, &matrix, address, &pair, &["(no clientAuth)"]);
    let pair = matrix
        .ca
        .client(|params| params.extended_key_usages.push(Use::ServerAuth));
    both(
        told,
        &matrix,
        address,
        &pair,
        &["for other purposes besides being a client's"],
    );
}

pub fn constrained(told: Told) {
    let matrix = Matrix::new();
    let [corp, by_uri] = matrix.constrained();
    let server = matrix.serve(&[]);
    let outside = SanType::DnsName("elsewhere.example".try_into().unwrap());
    let pair = corp.client(|params| params.subject_alt_names.push(outside));
    let pair = pair.with(&[&corp.pem]);
    let words = ["CN=corp", "corp.example", "elsewhere.example"];
    both(told, &matrix, &server.address, &pair, &words);
    let pair = by_uri.client(|_| {}).with(&[&by_uri.pem]);
    both(told, &matrix, &server.address, &pair, &["CN=by URI"]);
    let pair = corp.server(&["localhost"], |_| {}).with(&[&corp.pem]);
    strange(
        told,
        &matrix,
        &pair,
        "localhost",
        &["CN=corp", "corp.example", "localhost"],
    );
}
