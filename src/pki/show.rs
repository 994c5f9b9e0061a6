//! What is in a file: certificates, requests, revocation lists, of whomever.
//!
//! Nothing that is shown is verified, unless there is a CA to verify it against; and of a private
//! key nothing is shown.

use std::path::Path;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::PkiError;
use super::asked::whole_second;
use super::csr;
use super::inspect;
use super::issue::{fingerprint, hex, sha256};
use super::key;
use super::life_error::LifeError;
use super::list::days_left;
use super::show_report::{
    Content, Purpose, ShowReport, ShownCertificate, ShownList, ShownRequest, Verdict,
};
use crate::escape::Escaped;
use crate::tls::pem::{self, Piece};
use crate::tls::x509::{Facts, Purposes};

/// Most revoked certificates of a list that are shown.
const REVOKED_MAX: usize = 1_000;

/// See [`super::show`].
pub(super) fn show(path: &Path, ca: Option<&Path>, now: Timestamp) -> Result<ShowReport, PkiError> {
    let now = whole_second(now);
    let anchors = ca.map(pem::read_certificates).transpose()?;
    let pieces = pem::read_pieces(path)?;
    let others: Vec<CertificateDer<'static>> = pieces.iter().filter_map(certificate).collect();
    let mut report = ShowReport {
        file: path.to_owned(),
        ca: ca.map(Path::to_owned),
        now,
        contents: Vec::new(),
        has_key: false,
    };
    let unknown = |found: &str| LifeError::Unknown {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    let view = View {
        anchors: anchors.as_deref(),
        others: &others,
        now,
    };
    for piece in pieces {
        let content = match piece {
            Piece::Certificate(der) => view.certificate(&der),
            Piece::List(der) => view.list(&der),
            Piece::Request(der) => Some(request(&der)),
            Piece::PrivateKey => {
                report.has_key = true;
                continue;
            }
            Piece::Unknown(bytes) => view.guess(bytes),
            Piece::Other(what) => return Err(unknown(what).into()),
        };
        let content =
            content.ok_or_else(|| unknown("bytes that are neither of these, nor text"))?;
        report.contents.push(content);
    }
    if report.contents.is_empty() {
        return Err(LifeError::PrivateKey {
            path: path.to_owned(),
        }
        .into());
    }
    Ok(report)
}

fn certificate(piece: &Piece) -> Option<CertificateDer<'static>> {
    match piece {
        Piece::Certificate(der) => Some(der.clone()),
        _ => None,
    }
}

/// What is known beside a piece.
struct View<'a> {
    anchors: Option<&'a [CertificateDer<'static>]>,
    /// The other certificates of the file, which may stand between.
    others: &'a [CertificateDer<'static>],
    now: Timestamp,
}

impl View<'_> {
    /// DER does not say what it is: it is what it can be read as.
    fn guess(&self, bytes: Vec<u8>) -> Option<Content> {
        let certificate = CertificateDer::from(bytes.clone());
        let list = CertificateRevocationListDer::from(bytes.clone());
        if let Some(content) = self.certificate(&certificate).or_else(|| self.list(&list)) {
            return Some(content);
        }
        let der = CertificateSigningRequestDer::from(bytes);
        match csr::read(&der) {
            Err(csr::CsrFault::Malformed | csr::CsrFault::TooLong) => None,
            _ => Some(request(&der)),
        }
    }

    fn certificate(&self, der: &CertificateDer<'static>) -> Option<Content> {
        let facts = Facts::read(der).ok()?;
        let (_, x509) = X509Certificate::from_der(der).ok()?;
        let mut names = facts.names.dns.clone();
        names.extend(facts.names.ip.iter().cloned());
        let uris = facts.names.uri.iter();
        let uris: Vec<String> = uris.map(|uri| Escaped::new(uri).to_string()).collect();
        let key_kind = key::check(x509.public_key());
        Some(Content::Certificate(Box::new(ShownCertificate {
            identity: match &uris[..] {
                [uri] if !facts.is_ca => Some(uri.clone()),
                _ => None,
            },
            purpose: purpose(&facts),
            subject: facts.subject.clone(),
            issuer: facts.issuer.clone(),
            serial: facts.serial.clone(),
            hosts: names,
            uris,
            not_before: facts.not_before,
            not_after: facts.not_after,
            days_left: days_left(facts.not_after, self.now),
            key_kind: match &key_kind {
                Ok(kind) => (*kind).to_owned(),
                Err(fault) => format!("one that {fault}"),
            },
            sha256: fingerprint(der),
            public_key_sha256: sha256(x509.public_key().raw),
            warnings: self.warnings(&x509, &facts, key_kind.is_err()),
            verdict: self.verdict(der, &facts),
        })))
    }

    fn warnings(&self, x509: &X509Certificate<'_>, facts: &Facts, weak: bool) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |holds: bool, text: &str| {
            if holds {
                warnings.push(text.to_owned());
            }
        };
        let version = x509.version().0.saturating_add(1);
        let parsed = || {
            x509.extensions()
                .iter()
                .map(X509Extension::parsed_extension)
        };
        let has_aki = parsed().any(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_)));
        let is_self_issued = facts.subject == facts.issuer;
        warn(facts.not_after <= self.now, "it is out of date");
        warn(
            facts.not_before > self.now,
            "it is not valid yet by this clock",
        );
        warn(
            version != 3,
            "it is of an old version: TLS takes version 3 only",
        );
        warn(
            weak,
            "its key is weak, or of a kind that TLS here does not take",
        );
        warn(
            !has_aki && !is_self_issued,
            "it does not name its CA's key (no authority key identifier): strict verifiers, such \
             as Python 3.13, refuse it",
        );
        let looks_like_leaf = facts.purposes.is_some() || !facts.names.uri.is_empty();
        warn(
            facts.is_ca && looks_like_leaf,
            "it is a CA (CA:TRUE) and looks like a certificate of a server or client",
        );
        warn(
            facts.is_ca && !facts.may_sign,
            "it is a CA and may not sign certificates",
        );
        warn(
            parsed().any(has_uri_limits),
            "it limits URIs or subjects (name constraints): TLS here refuses every certificate \
             with a URI below it",
        );
        let n_uris = facts.names.uri.len();
        warn(
            !facts.is_ca && n_uris == 0,
            "it has no URI name: to fsvc it names nobody, unless the policy says by what else its \
             CA names",
        );
        warn(n_uris > 1, "it has more than one URI name: fsvc refuses it");
        warn(
            !facts.is_ca && !facts.digital_signature,
            "it may not sign a handshake (no digitalSignature)",
        );
        warnings
    }

    fn verdict(&self, der: &CertificateDer<'static>, facts: &Facts) -> Verdict {
        let Some(anchors) = self.anchors else {
            return Verdict::NotAsked;
        };
        if anchors.contains(der) {
            return Verdict::Trusted;
        }
        if facts.is_ca {
            let is_signed = anchors.iter().any(|ca| inspect::is_issued_by(der, ca));
            return Verdict::signed(is_signed);
        }
        let usage = match facts.purposes {
            Some(Purposes { server: true, .. }) => KeyUsage::server_auth(),
            _ => KeyUsage::client_auth(),
        };
        match verify(der, self.others, anchors, usage, self.now) {
            Ok(()) => Verdict::Good,
            Err(webpki::Error::UnknownIssuer) => Verdict::signed(false),
            Err(error) => Verdict::bad(&error.to_string()),
        }
    }

    fn list(&self, der: &CertificateRevocationListDer<'_>) -> Option<Content> {
        let (rest, list) = CertificateRevocationList::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let time = |seconds| Timestamp::from_second(seconds).ok();
        let next_update = list.next_update().and_then(|at| time(at.timestamp()));
        let revoked: Vec<String> = list
            .iter_revoked_certificates()
            .map(|revoked| hex(revoked.raw_serial()))
            .collect();
        let mut warnings = Vec::new();
        if next_update.is_some_and(|at| at <= self.now) {
            warnings.push("it is out of date: servers refuse every client of its CA".to_owned());
        }
        let verdict = match self.anchors {
            None => Verdict::NotAsked,
            Some(anchors) => {
                let is_by = |ca: &CertificateDer<'_>| {
                    X509Certificate::from_der(ca).is_ok_and(|(_, ca)| {
                        ca.subject().as_raw() == list.issuer().as_raw()
                            && list.verify_signature(ca.public_key()).is_ok()
                    })
                };
                Verdict::signed(anchors.iter().any(is_by))
            }
        };
        Some(Content::List(ShownList {
            issuer: Escaped::new(&list.issuer().to_string()).to_string(),
            number: list.crl_number().map(ToString::to_string),
            this_update: time(list.last_update().timestamp())?,
            next_update,
            n_revoked: revoked.len(),
            revoked: revoked.into_iter().take(REVOKED_MAX).collect(),
            warnings,
            verdict,
        }))
    }
}

fn request(der: &CertificateSigningRequestDer<'_>) -> Content {
    match csr::read(der) {
        Ok(csr) => Content::Request(ShownRequest {
            public_key_sha256: Some(sha256(&csr.public_key)),
            key_kind: Some(csr.key_kind),
            asked: csr.asked,
            warnings: Vec::new(),
        }),
        Err(fault) => Content::Request(ShownRequest {
            public_key_sha256: None,
            key_kind: None,
            asked: csr::Asked::default(),
            warnings: vec![format!("it {fault}")],
        }),
    }
}

fn purpose(facts: &Facts) -> Purpose {
    if facts.is_ca {
        return Purpose::Ca;
    }
    match facts.purposes {
        None => Purpose::Any,
        Some(purposes) => match (purposes.server, purposes.client) {
            (true, true) => Purpose::Both,
            (true, false) => Purpose::Server,
            (false, true) => Purpose::Client,
            (false, false) => Purpose::Other,
        },
    }
}

fn has_uri_limits(extension: &ParsedExtension<'_>) -> bool {
    let ParsedExtension::NameConstraints(limits) = extension else {
        return false;
    };
    let trees = [&limits.permitted_subtrees, &limits.excluded_subtrees];
    let mut bases = trees.into_iter().flatten().flatten().map(|tree| &tree.base);
    bases.any(|base| matches!(base, GeneralName::URI(_) | GeneralName::DirectoryName(_)))
}

/// What TLS says of a chain, revocation left aside.
pub(super) fn verify(
    der: &CertificateDer<'_>,
    between: &[CertificateDer<'static>],
    anchors: &[CertificateDer<'static>],
    usage: KeyUsage,
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let anchors = anchors
        .iter()
        .map(|anchor| anchor_from_trusted_cert(anchor));
    let anchors: Vec<_> = anchors.filter_map(Result::ok).collect();
    let since_1970 = u64::try_from(now.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(since_1970));
    let algorithms = default_provider().signature_verification_algorithms.all;
    EndEntityCert::try_from(der)?
        .verify_for_usage(algorithms, &anchors, between, time, usage, None, None)?;
    Ok(())
}
