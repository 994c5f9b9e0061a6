//! Which of the trusted CAs a chain ends in, and what that one may say.
//!
//! A CA is its key: a name alone, however alike, is nobody's. Of several trusted CAs on the way it
//! is the one nearest to the certificate, since that one's binding is about what it signs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder,
};

use super::bundle::Bundle;
use super::server::rustls_failed;
use super::x509::Facts;
use super::{TlsError, pem, provider};
use crate::identity::Binding;

/// The CAs whose clients are let in, and what each may say. The default binds none.
#[derive(Debug, Default)]
pub struct Anchors {
    roots: Vec<TrustAnchor<'static>>,
    /// Of each root, in the same order.
    facts: Vec<Facts>,
    lists: Vec<CertRevocationList<'static>>,
    bindings: Vec<Binding>,
    /// The bound keys, and the binding of each.
    bound: BTreeMap<Vec<u8>, usize>,
}

/// A trusted CA that signed.
pub(super) struct Signer<'a> {
    /// Its distinguished name, escaped.
    pub(super) subject: &'a str,
    pub(super) binding: Option<&'a Binding>,
    all: &'a [Binding],
}

impl Signer<'_> {
    /// Whether the domain is bound to this CA, or to none.
    pub(super) fn may_name(&self, domain: &str) -> bool {
        match self.binding {
            Some(binding) => binding.trust_domain == domain,
            None => self.all.iter().all(|other| other.trust_domain != domain),
        }
    }
}

impl Anchors {
    /// The CAs of a bundle and their lists, by their files, and what is said of some of them. Reads the
    /// files of these. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or used, a setting is about no CA of the bundle, or two are about one.
    pub(super) fn new(
        (ca, crl): (&Path, Option<&Path>),
        bundle: &Bundle,
        lists: &[CertificateRevocationListDer<'_>],
        bindings: &[Binding],
    ) -> Result<Self, TlsError> {
        if bindings.is_empty() {
            return Ok(Self::default());
        }
        let bound = bound(bindings, ca, bundle)?;
        let owned = lists.iter().map(|list| {
            let list = OwnedCertRevocationList::from_der(list);
            list.map(CertRevocationList::Owned)
                .map_err(|source| rustls_failed(crl.unwrap_or(ca), source))
        });
        Ok(Self {
            lists: owned.collect::<Result<_, _>>()?,
            roots: bundle.roots.roots.clone(),
            facts: bundle.facts.clone(),
            bindings: bindings.to_vec(),
            bound,
        })
    }

    /// What is said of single CAs.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The nearest trusted CA of a chain that TLS has let in; `None` where no CA is bound. It checks
    /// the signatures once more, as TLS does not say which way it went.
    ///
    /// # Errors
    /// No way leads to a trusted CA, now.
    pub(super) fn signer(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Option<Signer<'_>>, webpki::Error> {
        if self.bindings.is_empty() {
            return Ok(None);
        }
        let (first, others) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
        let certificate = EndEntityCert::try_from(first)?;
        let lists: Vec<_> = self.lists.iter().collect();
        // As TLS asks of the lists: of every link, by a list that is in date.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let since_1970 = u64::try_from(now.as_second()).unwrap_or_default();
        let path = certificate.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &self.roots,
            others,
            UnixTime::since_unix_epoch(Duration::from_secs(since_1970)),
            KeyUsage::client_auth(),
            revocation,
            None,
        )?;
        let trusted = |key: &[u8]| self.facts.iter().find(|root| root.key == key);
        let between = path.intermediate_certificates().find_map(|between| {
            let facts = Facts::read(&between.der()).ok()?;
            trusted(&facts.key)
        });
        let end = || {
            let at = self.roots.iter().position(|root| root == path.anchor())?;
            self.facts.get(at)
        };
        let root = between.or_else(end).ok_or(webpki::Error::UnknownIssuer)?;
        Ok(Some(Signer {
            subject: &root.subject,
            binding: self.bound.get(&root.key).map(|at| &self.bindings[*at]),
            all: &self.bindings,
        }))
    }
}

/// Which binding each key in the files of the bindings goes by.
fn bound(
    bindings: &[Binding],
    ca: &Path,
    bundle: &Bundle,
) -> Result<BTreeMap<Vec<u8>, usize>, TlsError> {
    let mut bound = BTreeMap::new();
    for (at, binding) in bindings.iter().enumerate() {
        let path = &binding.ca;
        let mut last = String::new();
        let mut is_trusted = false;
        for certificate in pem::read_certificates(path)? {
            let facts = Facts::read(&certificate).map_err(|source| TlsError::X509 {
                path: path.clone(),
                source,
            })?;
            is_trusted |= bundle.facts.iter().any(|root| root.key == facts.key);
            if let Some(other) = bound.insert(facts.key, at).filter(|other| *other != at) {
                let both = [&bindings[other], binding];
                return Err(TlsError::BoundTwice {
                    subject: facts.subject,
                    files: Box::new(both.map(|one| one.ca.clone())),
                    domains: Box::new(both.map(|one| one.trust_domain.clone())),
                });
            }
            last = facts.subject;
        }
        if !is_trusted {
            return Err(TlsError::BoundUntrusted {
                path: path.clone(),
                subject: last,
                bundle: ca.to_owned(),
            });
        }
    }
    Ok(bound)
}
