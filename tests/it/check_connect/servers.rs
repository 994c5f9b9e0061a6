//! What is wrong with the server's certificate, as a good client finds it.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{CertificateParams, GeneralSubtree, NameConstraints};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned,
};
use time::Duration;

use super::clients::Corp;
use super::{Desk, Told, good, until};
use crate::certificates::lists::sign_weak;
use crate::harness::fsvc;
use crate::matrix::{Ca, Matrix, Pair, now_plus};
use crate::strange_servers::{config, listen, tls};

/// A server of another make with this pair, in front of a good client.
#[track_caller]
pub fn strange(told: Told, matrix: &Matrix, pair: &Pair, host: &str, words: &[&str]) {
    let port = tls(matrix, pair, &["fsvc/1"], b"");
    told.at(&good(matrix), &format!("{host}:{port}"), words);
}

/// A real server with this pair.
#[track_caller]
fn real(told: Told, matrix: &Matrix, pair: &Pair, words: &[&str]) {
    matrix.write("server.pem", &pair.chain);
    matrix.write_key("server-key.pem", &pair.key);
    let server = matrix.serve(&[]);
    told.at(&good(matrix), &server.address, words);
}

pub fn untrusted(told: Told) {
    let matrix = Matrix::new();
    let other = Ca::root("other root");
    let pair = other.server(&["localhost", "127.0.0.1"], |_| {});
    let words = [
        "it was signed by CN=other root",
        "(it has CN=matrix root)",
        "certs show",
    ];
    strange(told, &matrix, &pair, "localhost", &words);
    real(told, &matrix, &pair, &words);
    let twin = Ca::root("matrix root").server(&["localhost", "127.0.0.1"], |_| {});
    strange(
        told,
        &matrix,
        &twin,
        "localhost",
        &["two CAs have that name", "certs show"],
    );

    // The client has the right pair and the wrong CA file: that its own is not of that CA is no fault of it.
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let desk = Desk::new(&other.pem, &matrix.ca.client(|_| {}));
    let words = [
        "cannot trust the certificate of",
        "signed by CN=matrix root",
        "(it has CN=other root)",
        "a wrong ca.pem, or the CA was changed",
        "is it the right file?",
    ];
    told.at(&desk, &server.address, &words);
}

/// A real server does not start with such a certificate, but goes on with one that runs out.
pub fn expired(told: Told) {
    let matrix = Matrix::new();
    let pair = matrix.ca.server(&["localhost"], |params| {
        params.not_before = now_plus(-Duration::days(30));
        params.not_after = now_plus(-Duration::days(3));
    });
    let words = [
        "it expired 2",
        "(3 days ago); this clock says 2",
        "fsvc certs renew server",
    ];
    strange(told, &matrix, &pair, "localhost", &words);

    let short = |params: &mut CertificateParams| params.not_after = now_plus(Duration::seconds(5));
    let pair = matrix.ca.server(&["127.0.0.1"], short);
    matrix.write("server.pem", &pair.chain);
    matrix.write_key("server-key.pem", &pair.key);
    let server = matrix.serve(&[]);
    let desk = good(&matrix);
    let words = ["it expired 2", "fsvc certs renew server"];
    until(
        told,
        desk.dir.path(),
        &["--connect", &server.address],
        &words,
    );
}

pub fn misnamed(told: Told) {
    let matrix = Matrix::new();
    let pair = matrix.ca.server(&["files.internal", "10.1.2.3"], |_| {});
    let names = "is not a name in the server's certificate (it has: files.internal, 10.1.2.3)";
    let words = [
        &format!("\"127.0.0.1\" {names}"),
        "fsvc gen-certs --host NAME",
    ];
    real(told, &matrix, &pair, &words.map(|word| word as &str));
    let words = [
        &format!("\"localhost\" {names}"),
        "fsvc gen-certs --host NAME",
    ];
    strange(
        told,
        &matrix,
        &pair,
        "localhost",
        &words.map(|word| word as &str),
    );
    let nameless = matrix.ca.server(&[], |_| {});
    real(
        told,
        &matrix,
        &nameless,
        &["127.0.0.1", "fsvc gen-certs --host NAME"],
    );

    // The name is right, and the identity that was asked for is another one.
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    let wanted = "spiffe://test.internal/server/hub";
    let arguments = ["--connect", &server.address, "--server-id", wanted];
    told.by(
        good(&matrix).dir.path(),
        &arguments,
        2,
        &[wanted, "--server-id"],
    );

    // What gen-certs makes, for another host.
    let place = tempfile::TempDir::new().unwrap();
    let mut command = fsvc();
    command.args([
        "gen-certs",
        "--no-default-hosts",
        "--host",
        "files.internal",
        "--dir",
    ]);
    super::run(command.arg(place.path().join("certs")));
    let server = crate::harness::Server::start_with(crate::harness::Setup {
        certs: Some(place.path().join("certs")),
        ..crate::harness::Setup::default()
    });
    let words = ["\"127.0.0.1\" is not a name", "(it has: files.internal)"];
    let dir = place.path().join("certs");
    let arguments = ["--connect", &server.address, "--as", "dev"];
    told.by(&dir, &arguments, 2, &words);
}

/// Says this of every client's certificate, as a server would whose clock is another one.
#[derive(Debug)]
pub struct Refusing(pub CertificateError);

impl ClientCertVerifier for Refusing {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(self.0.clone().into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(self.0.clone().into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(self.0.clone().into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A good server of another make that lets nobody in.
pub fn refusing(matrix: &Matrix, verifier: Refusing) -> u16 {
    let pair = matrix.ca.server(&["localhost"], |_| {});
    matrix.add("as-server", &pair);
    let (chain, key) = loaded(matrix, "as-server");
    let builder = builder().with_client_cert_verifier(Arc::new(verifier));
    answering(builder.with_single_cert(chain, key).unwrap())
}

/// A server that shows one certificate and signs with the key of another.
pub fn borrowing(matrix: &Matrix) -> u16 {
    matrix.add("as-server", &matrix.ca.server(&["localhost"], |_| {}));
    let (chain, _) = loaded(matrix, "as-server");
    matrix.add("as-other", &matrix.ca.server(&["localhost"], |_| {}));
    let (_, key) = loaded(matrix, "as-other");
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    let resolver = Arc::new(Borrowed(Arc::new(CertifiedKey::new(chain, key))));
    answering(builder().with_no_client_auth().with_cert_resolver(resolver))
}

#[derive(Debug)]
struct Borrowed(Arc<CertifiedKey>);

impl ResolvesServerCert for Borrowed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn loaded(
    matrix: &Matrix,
    name: &str,
) -> (
    Vec<CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
) {
    let files = matrix.files(Some(name)).own.unwrap();
    (
        fsvc::tls::pem::read_certificates(&files.certificate).unwrap(),
        fsvc::tls::pem::read_private_key(&files.key).unwrap(),
    )
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
}

fn answering(mut config: ServerConfig) -> u16 {
    config.alpn_protocols = vec![b"fsvc/1".to_vec()];
    let config = Arc::new(config);
    listen(move |tcp| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = stream.flush();
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        let _ = stream.sock.read_to_end(&mut Vec::new());
    })
}

/// TLS of another make that ends here, for whatever is behind.
pub fn ending(matrix: &Matrix) -> Arc<ServerConfig> {
    let pair = matrix.ca.server(&["localhost"], |_| {});
    config(matrix, &pair, &["fsvc/1"])
}

/// Puts this pair in the place of the server's.
fn replace(corp: &Corp, pair: &Pair) {
    corp.matrix.write("server.pem", &pair.chain);
    corp.matrix.write_key("server-key.pem", &pair.key);
}

pub fn of_another_ca(corp: &Corp) {
    replace(corp, &Ca::root("other root").server(&["localhost"], |_| {}));
}

pub fn short(corp: &Corp) {
    replace(corp, &corp.between.server(&["localhost"], |_| {}));
}

pub fn ended(corp: &Corp) {
    let ended = |params: &mut CertificateParams| params.not_after = now_plus(-Duration::MINUTE);
    replace(corp, &corp.matrix.ca.server(&["localhost"], ended));
}

pub fn begun_later(corp: &Corp) {
    let later = |params: &mut CertificateParams| params.not_before = now_plus(Duration::HOUR);
    replace(corp, &corp.matrix.ca.server(&["localhost"], later));
}

pub fn without_names(corp: &Corp) {
    replace(corp, &corp.matrix.ca.server(&[], |_| {}));
}

pub fn a_clients(corp: &Corp) {
    replace(corp, &corp.matrix.ca.client(|_| {}));
}

pub fn no_certificate(corp: &Corp) {
    corp.matrix.write("server.pem", "nothing\n");
}

pub fn without_key(corp: &Corp) {
    std::fs::remove_file(corp.matrix.path("server-key.pem")).unwrap();
}

pub fn open_key(corp: &Corp) {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(corp.matrix.path("server-key.pem"), open).unwrap();
}

pub fn own_revoked(corp: &Corp) {
    let pair = corp.matrix.ca.server(&["localhost"], |_| {});
    replace(corp, &pair);
    let list = corp.matrix.ca.list(&[&pair], now_plus(Duration::DAY));
    corp.matrix.write("ca.crl", list + &corp.root.empty_list());
}

pub fn without_a_list(corp: &Corp) {
    corp.matrix.write("ca.crl", corp.matrix.ca.empty_list());
}

pub fn a_cas(corp: &Corp) {
    replace(corp, &corp.matrix.ca.as_pair());
}

/// Such a certificate is openssl's work.
pub fn of_version_1(corp: &Corp) {
    let matrix = &corp.matrix;
    let ec = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    sign_weak(matrix, "first", &ec, "-sha256", None);
    for (from, to) in [
        ("first.pem", "server.pem"),
        ("first-key.pem", "server-key.pem"),
    ] {
        std::fs::rename(matrix.path(&format!("clients/{from}")), matrix.path(to)).unwrap();
    }
}

pub fn constrained(corp: &Corp) {
    let below = corp.matrix.ca.below("narrow", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("corp.example".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    let pair = below.server(&["localhost"], |_| {}).with(&[&below.pem]);
    replace(corp, &pair);
}
