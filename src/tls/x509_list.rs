//! What keeps a revocation list from being used.
//!
//! A list counts whole or not at all: one that says less than it seems to is refused, since whoever
//! it leaves out would be let in, and one that no verifier takes, since nobody would be.

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use thiserror::Error;
use webpki::OwnedCertRevocationList;
use x509_parser::error::X509Error;
use x509_parser::extensions::X509Extension;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::dates::{minute, with_distance};

/// How far ahead the clock of a list's CA may be: a revocation should not wait for it.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_mins(10);

/// What keeps a list from being used. The text goes on after "the list of CA".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListFault {
    #[error("is malformed")]
    Malformed,
    #[error("is a delta list: it says only what changed since another one")]
    Delta,
    #[error("is an indirect list: it is about certificates of other CAs, too")]
    Indirect,
    #[error("is about certificates that were revoked for some reasons only")]
    SomeReasons,
    #[error("is about a part of the CA's certificates, and not clearly about which")]
    Scope,
    #[error("is about the CAs below it alone")]
    CasAlone,
    #[error("is of version 1, and 2 is needed")]
    Version,
    #[error("has no number, so that an older one could not be told from it")]
    NoNumber,
    #[error("does not say when the next one comes")]
    NoEnd,
    /// From when on, and what this clock says.
    #[error("is not valid until {0}")]
    Early(String),
    #[error("is not signed by the key of that CA")]
    Signature,
    #[error("is of a CA that may not sign lists (no cRLSign)")]
    Signer,
    #[error("cannot be used: {0}")]
    Unusable(String),
}

/// What a list is about, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All that the CA signed.
    Whole,
    /// The CAs below it alone.
    Cas,
    /// Another part.
    Part,
}

/// A CA that may have signed a list, taken apart.
pub(super) struct Signer<'a>(X509Certificate<'a>);

/// A list, taken apart. It may be long: it is read once.
pub(super) struct List<'a> {
    der: &'a [u8],
    x509: CertificateRevocationList<'a>,
    is_alone: bool,
}

/// What keeps a list from being used as the one of this CA, if anything does.
pub fn fault(
    list: &CertificateRevocationListDer<'_>,
    ca: &CertificateDer<'_>,
    now: Timestamp,
) -> Option<ListFault> {
    let (Some(list), Some(ca)) = (List::read(list), Signer::read(ca)) else {
        return Some(ListFault::Malformed);
    };
    let is_of_cas = || (list.scope() == Scope::Cas).then_some(ListFault::CasAlone);
    list.fault(now)
        .or_else(|| list.fault_of(&ca))
        .or_else(is_of_cas)
}

impl ListFault {
    /// What can be done about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Early(_) => {
                "one of the two clocks is wrong; once they are right, fsvc certs renew --all makes a list of \
                 fsvc's own CA anew, where that CA is; another CA's comes from there"
            }
            _ => "get a whole list, of its present state, from that CA itself",
        }
    }
}

impl<'a> Signer<'a> {
    /// `None` for bytes that are no certificate.
    pub(super) fn read(certificate: &'a CertificateDer<'_>) -> Option<Self> {
        let (_, x509) = X509Certificate::from_der(certificate).ok()?;
        Some(Self(x509))
    }

    /// Its name, as it is encoded: two spellings of one text are two names.
    pub(super) fn name(&self) -> &[u8] {
        self.0.subject().as_raw()
    }

    /// Its public key, as it is encoded.
    pub(super) fn key(&self) -> &[u8] {
        self.0.public_key().raw
    }
}

impl<'a> List<'a> {
    /// `None` for bytes that are no list.
    pub(super) fn read(list: &'a CertificateRevocationListDer<'_>) -> Option<Self> {
        let (rest, x509) = CertificateRevocationList::from_der(list).ok()?;
        Some(Self {
            der: list,
            x509,
            is_alone: rest.is_empty(),
        })
    }

    /// Whether it bears the name of this CA.
    pub(super) fn is_of(&self, ca: &Signer<'_>) -> bool {
        self.issuer() == ca.name()
    }

    pub(super) fn issuer(&self) -> &[u8] {
        self.x509.issuer().as_raw()
    }

    /// What is wrong with it by itself.
    pub(super) fn fault(&self, now: Timestamp) -> Option<ListFault> {
        if !self.is_alone {
            return Some(ListFault::Malformed);
        }
        if self.x509.version().is_none_or(|version| version.0 != 1) {
            return Some(ListFault::Version);
        }
        if self.x509.next_update().is_none() {
            return Some(ListFault::NoEnd);
        }
        self.fault_of_verifier()
            .or_else(|| self.fault_of_number())
            .or_else(|| self.fault_of_begin(now))
    }

    fn fault_of_verifier(&self) -> Option<ListFault> {
        use webpki::Error;
        Some(match OwnedCertRevocationList::from_der(self.der).err()? {
            Error::UnsupportedDeltaCrl => ListFault::Delta,
            Error::UnsupportedIndirectCrl => ListFault::Indirect,
            Error::UnsupportedRevocationReasonsPartitioning => ListFault::SomeReasons,
            Error::UnsupportedCrlIssuingDistributionPoint => ListFault::Scope,
            error => ListFault::Unusable(error.to_string()),
        })
    }

    fn fault_of_number(&self) -> Option<ListFault> {
        let is_number = |extension: &&X509Extension<'_>| {
            matches!(extension.parsed_extension(), ParsedExtension::CRLNumber(_))
        };
        let unusable = |why: &str| Some(ListFault::Unusable(why.to_owned()));
        let mut numbers = self.x509.extensions().iter().filter(is_number);
        match (numbers.next(), numbers.next()) {
            (None, _) => Some(ListFault::NoNumber),
            (Some(_), Some(_)) => unusable("it has two numbers"),
            (Some(number), None) if number.critical => unusable("its number is marked critical"),
            (Some(_), None) => None,
        }
    }

    fn fault_of_begin(&self, now: Timestamp) -> Option<ListFault> {
        match Timestamp::from_second(self.x509.last_update().timestamp()) {
            Ok(from) if from.duration_since(now) <= CLOCKS_APART_MAX => None,
            Ok(from) => Some(ListFault::Early(format!(
                "{}; this clock says {}",
                with_distance(from, now),
                minute(now)
            ))),
            Err(_) => Some(ListFault::Malformed),
        }
    }

    /// What keeps it from being one of this CA. Its signature is passed over where its algorithm is
    /// not known here: the verifier that uses the list looks once more.
    pub(super) fn fault_of(&self, ca: &Signer<'_>) -> Option<ListFault> {
        match self.x509.verify_signature(ca.0.public_key()) {
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => {}
            Err(_) => return Some(ListFault::Signature),
        }
        let usage = ca.0.key_usage().ok().flatten();
        let may_sign = usage.is_none_or(|usage| usage.value.crl_sign());
        (!may_sign).then_some(ListFault::Signer)
    }

    /// Whether it revokes the certificate of this CA.
    pub(super) fn revokes(&self, ca: &Signer<'_>) -> bool {
        let serial = ca.0.raw_serial();
        self.issuer() == ca.0.issuer().as_raw()
            && self
                .x509
                .iter_revoked_certificates()
                .any(|entry| entry.raw_serial() == serial)
    }

    /// What it is about.
    pub(super) fn scope(&self) -> Scope {
        let extensions = self.x509.extensions().iter();
        let mut points = extensions.filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(point) => Some(point),
            _ => None,
        });
        match points.next() {
            None => Scope::Whole,
            Some(point) if point.only_contains_ca_certs => Scope::Cas,
            Some(_) => Scope::Part,
        }
    }
}
