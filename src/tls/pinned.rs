//! A server that is known by its identity.
//!
//! The identity is asked for besides the name of the host, or, where a certificate has no names of
//! hosts, in its place. It is read from a chain that was verified, and from nothing else.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use thiserror::Error as ThisError;

use super::forward::signatures_by;
use super::provider;
use super::x509::Facts;
use crate::escape::Escaped;
use crate::identity::SpiffeId;

/// Names of a server that are shown.
const SHOWN_MAX: usize = 4;

/// Who a server must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId {
    /// The one URI in its certificate.
    pub id: SpiffeId,
    /// Whether that is enough: the certificate need not have the name that was connected to.
    pub only: bool,
}

/// A server that is another one. Its names are escaped.
#[derive(Debug, ThisError)]
#[error("its identity is {has}, not {wanted} (--server-id)")]
pub(super) struct WrongIdentity {
    wanted: SpiffeId,
    has: String,
}

/// What can be done about a server that is another one.
const HINT: &str = "is it the right server? there, fsvc certs show server.pem says its identity; --server-id takes \
                    that one alone";

/// The hint for a verdict that is about the identity, whose names of hosts may be as they should.
pub(super) fn hint(verdict: &CertificateError) -> Option<&'static str> {
    let CertificateError::Other(other) = verdict else {
        return None;
    };
    other.0.downcast_ref::<WrongIdentity>().map(|_| HINT)
}

/// A verifier that takes what `inner` takes, if it is this server.
pub(super) fn pinned(
    inner: Arc<dyn ServerCertVerifier>,
    roots: Arc<RootCertStore>,
    server: ServerId,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Pinned {
        inner,
        roots,
        server,
    })
}

#[derive(Debug)]
struct Pinned {
    inner: Arc<dyn ServerCertVerifier>,
    roots: Arc<RootCertStore>,
    server: ServerId,
}

impl Pinned {
    fn check(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let facts = Facts::read(end_entity);
        let facts = facts.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let wanted = &self.server.id;
        let names = &facts.names.uri;
        if matches!(names.as_slice(), [only] if only == wanted.as_str()) {
            return Ok(());
        }
        let shown = names.iter().take(SHOWN_MAX);
        let shown: Vec<String> = shown.map(|name| Escaped::new(name).to_string()).collect();
        let has = match names.len() {
            0 => "none".to_owned(),
            1..=SHOWN_MAX => shown.join(" and "),
            count => format!("{} and {} others", shown.join(", "), count - SHOWN_MAX),
        };
        let wanted = wanted.clone();
        let other = OtherError(Arc::new(WrongIdentity { wanted, has }));
        Err(Error::InvalidCertificate(CertificateError::Other(other)))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.server.only {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let algorithms = provider().signature_verification_algorithms;
            let all = algorithms.all;
            let roots = &self.roots;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, all)?;
        } else {
            let inner = &self.inner;
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        self.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by!(inner);
}
