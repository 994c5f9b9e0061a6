//! What the other end showed when it was refused.
//!
//! rustls says that a certificate is bad, and drops it. The verifiers here only look on: they hold
//! the chain for whoever explains the refusal, and change no verdict and no alert. What they saw
//! belongs to the task that shakes hands, so nothing is mixed up between connections.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Certificates of a refused chain that are held, the end entity's first.
const HELD_MAX: usize = 8;

tokio::task_local! {
    static SEEN: Arc<Mutex<Option<Seen>>>;
}

/// What this end trusts, for its texts.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The file of the CAs.
    pub ca: PathBuf,
    /// Their subjects.
    pub subjects: Vec<String>,
    /// The file of their revocation lists.
    pub crl: Option<PathBuf>,
    /// The lists.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
}

/// How far it came, and what was at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A client was asked for its certificate; no chain is here.
    Asked,
    /// The chain of certificates.
    Chain,
    /// The signature of the handshake: the proof that the key is there.
    Signature,
}

/// A chain that was refused, and by what measure.
#[derive(Debug, Clone)]
pub struct Seen {
    pub chain: Vec<CertificateDer<'static>>,
    pub trust: Arc<Trust>,
    pub stage: Stage,
}

/// Runs a handshake; what it came to, and the chain that was refused in it, if one was shown. Not
/// cancel safe: a handshake that is dropped is over.
pub async fn watch<F: Future>(handshake: F) -> (F::Output, Option<Seen>) {
    let seen = Arc::new(Mutex::new(None));
    let output = SEEN.scope(Arc::clone(&seen), handshake).await;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    (output, seen)
}

/// The same for a client: its error holds what was seen, for [`super::refusal::explain`].
///
/// # Errors
/// The handshake failed.
pub async fn watched<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let (result, seen) = watch(handshake).await;
    result.map_err(|error| match (tls_error(&error), seen) {
        (Some(tls), Some(seen)) => {
            let unmet = Unmet {
                error: tls.clone(),
                seen: Some(seen),
                first: Vec::new(),
            };
            io::Error::new(error.kind(), unmet)
        }
        _ => error,
    })
}

/// Adds what the other end said first to an error that says that it is no TLS.
pub fn answered_with(error: io::Error, first: &[u8]) -> io::Error {
    let Some(tls @ Error::InvalidMessage(_)) = tls_error(&error) else {
        return error;
    };
    let unmet = Unmet {
        error: tls.clone(),
        seen: None,
        first: first.to_vec(),
    };
    io::Error::new(error.kind(), unmet)
}

/// An error of TLS, with what is known of the other end.
#[derive(Debug)]
struct Unmet {
    error: Error,
    seen: Option<Seen>,
    first: Vec<u8>,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Unmet {}

fn unmet(error: &io::Error) -> Option<&Unmet> {
    error.get_ref()?.downcast_ref()
}

/// The error of TLS at the bottom of one of the stream.
pub fn tls_error(error: &io::Error) -> Option<&Error> {
    match unmet(error) {
        Some(unmet) => Some(&unmet.error),
        None => error.get_ref()?.downcast_ref(),
    }
}

/// What was seen, where [`watched`] found it.
pub(super) fn seen(error: &io::Error) -> Option<&Seen> {
    unmet(error)?.seen.as_ref()
}

/// What the other end said first, where [`answered_with`] added it.
pub(super) fn first(error: &io::Error) -> Option<&[u8]> {
    let first = unmet(error)?.first.as_slice();
    (!first.is_empty()).then_some(first)
}

/// A verifier of clients that is watched.
pub fn of_clients(inner: Arc<dyn ClientCertVerifier>, trust: Trust) -> Arc<dyn ClientCertVerifier> {
    let trust = Arc::new(trust);
    Arc::new(Watched { inner, trust })
}

/// A verifier of servers that is watched.
pub fn of_servers(inner: Arc<dyn ServerCertVerifier>, trust: Trust) -> Arc<dyn ServerCertVerifier> {
    let trust = Arc::new(trust);
    Arc::new(Watched { inner, trust })
}

#[derive(Debug)]
struct Watched<V> {
    inner: V,
    trust: Arc<Trust>,
}

impl<V> Watched<V> {
    fn hold_trust(&self) {
        let _ = SEEN.try_with(|seen| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Some(Seen {
                chain: Vec::new(),
                trust: Arc::clone(&self.trust),
                stage: Stage::Asked,
            });
        });
    }

    fn hold(&self, stage: Stage, first: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        // Outside of a watched handshake nobody asks.
        let _ = SEEN.try_with(|seen| {
            let others = others
                .iter()
                .take(HELD_MAX - 1)
                .map(|other| other.clone().into_owned());
            let chain = [first.clone().into_owned()]
                .into_iter()
                .chain(others)
                .collect();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Some(Seen {
                chain,
                trust: Arc::clone(&self.trust),
                stage,
            });
        });
    }
}

impl ClientCertVerifier for Watched<Arc<dyn ClientCertVerifier>> {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    /// Each handshake asks this: a client that shows nothing is told what there is to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.hold_trust();
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(of_certificate)
            .inspect_err(|_| self.hold(Stage::Chain, end_entity, intermediates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
            .inspect_err(|_| self.hold(Stage::Signature, certificate, &[]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }
}

/// A list that is not its CA's own is as good as none. rustls has an alert for that which says nothing
/// to the client, and the error says nothing of the certificate.
fn of_certificate(error: Error) -> Error {
    match error {
        Error::InvalidCertRevocationList(_) => CertificateError::UnknownRevocationStatus.into(),
        other => other,
    }
}

impl ServerCertVerifier for Watched<Arc<dyn ServerCertVerifier>> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .inspect_err(|_| self.hold(Stage::Chain, end_entity, intermediates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
            .inspect_err(|_| self.hold(Stage::Signature, certificate, &[]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}
