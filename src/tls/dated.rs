//! Trusted CAs that end while they are trusted.
//!
//! webpki leaves the dates of an anchor to its caller (RFC 5280, 6.1.1). They are looked at when the
//! files are loaded; here they are looked at in each handshake, since a CA may end in between: a chain
//! counts if it leads to a CA that is good now.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};

use super::bundle::Bundle;
use super::forward::signatures_by;
use super::x509::Facts;

/// Makes the verifier that trusts these CAs.
pub(super) type Make<V> = Box<dyn Fn(RootCertStore) -> Result<Arc<V>, Error> + Send + Sync>;

/// A verifier that trusts each CA until its end.
pub(super) struct Dated<V: ?Sized> {
    /// Trusts all of them.
    whole: Arc<V>,
    cas: Vec<Ca>,
    make: Make<V>,
    /// The one that trusts those that are left, and how many these are.
    left: Mutex<Option<(usize, Arc<V>)>>,
}

struct Ca {
    certificate: CertificateDer<'static>,
    subject: String,
    end: UnixTime,
}

impl<V: ?Sized> Dated<V> {
    /// Trusts the CAs of a bundle, each until its end.
    ///
    /// # Errors
    /// The verifier cannot be made.
    pub(super) fn new(bundle: &Bundle, make: Make<V>) -> Result<Self, Error> {
        let cas = bundle.certificates.iter().zip(&bundle.facts);
        let cas = cas.map(|(certificate, facts)| Ca {
            certificate: certificate.clone(),
            subject: facts.subject.clone(),
            end: end(facts),
        });
        Ok(Self {
            whole: make(bundle.roots.clone())?,
            cas: cas.collect(),
            make,
            left: Mutex::default(),
        })
    }

    /// What `verify` says, of the CAs that are good now.
    fn verify<T>(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
        verify: impl Fn(&V) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let good: Vec<&Ca> = self.cas.iter().filter(|ca| ca.end >= now).collect();
        if good.len() == self.cas.len() {
            return verify(&self.whole);
        }
        let refused = match self.narrowed(&good)? {
            Some(left) => match verify(&left) {
                Ok(verified) => return Ok(verified),
                Err(error) => error,
            },
            None => Error::InvalidCertificate(CertificateError::UnknownIssuer),
        };
        let is_unknown = matches!(
            refused,
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        );
        if !is_unknown {
            return Err(refused);
        }
        // Whether it is the end of a CA that stands in the way.
        verify(&self.whole)?;
        let not_after = self.end_above(chain, now);
        Err(Error::InvalidCertificate(
            CertificateError::ExpiredContext {
                time: now,
                not_after,
            },
        ))
    }

    /// The CAs that are left are the same for as long as they are as many: a CA only ever ends.
    fn narrowed(&self, good: &[&Ca]) -> Result<Option<Arc<V>>, Error> {
        if good.is_empty() {
            return Ok(None);
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, verifier)) = left.as_ref().filter(|(n_left, _)| *n_left == good.len()) {
            return Ok(Some(Arc::clone(verifier)));
        }
        let mut roots = RootCertStore::empty();
        for ca in good {
            roots.add(ca.certificate.clone())?;
        }
        let verifier = (self.make)(roots)?;
        *left = Some((good.len(), Arc::clone(&verifier)));
        Ok(Some(verifier))
    }

    /// When the CA above a chain ended.
    fn end_above(
        &self,
        (first, others): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
    ) -> UnixTime {
        let chain = [first].into_iter().chain(others);
        let issuers: Vec<String> = chain
            .filter_map(|certificate| Facts::read(certificate).ok())
            .map(|facts| facts.issuer)
            .collect();
        let ended = || self.cas.iter().filter(|ca| ca.end < now);
        let above = ended().find(|ca| issuers.contains(&ca.subject));
        above.or_else(|| ended().next()).map_or(now, |ca| ca.end)
    }
}

fn end(facts: &Facts) -> UnixTime {
    let seconds = u64::try_from(facts.not_after.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

impl<V: ?Sized> fmt::Debug for Dated<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<&str> = self.cas.iter().map(|ca| ca.subject.as_str()).collect();
        f.debug_struct("Dated")
            .field("cas", &subjects)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Dated<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.whole.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.whole.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.whole.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify((end_entity, intermediates), now, |verifier| {
            verifier.verify_client_cert(end_entity, intermediates, now)
        })
    }

    signatures_by!(whole);
}

impl ServerCertVerifier for Dated<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify((end_entity, intermediates), now, |verifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        })
    }

    signatures_by!(whole);
}
