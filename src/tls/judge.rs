//! What the two ends of a connection would say of a chain, found out from files alone.
//!
//! The verifiers are those of a handshake and the words those of a refusal, so that nobody is told one
//! thing by his files and another by a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};

use super::anchors::Anchors;
use super::bundle::Bundle;
use super::diagnosis::{Case, View};
use super::failure::FailureCode;
use super::identity::identify;
use super::refusal::Refusal;
use super::server::{client_verifier, rustls_failed};
use super::witness::{Seen, Stage, Trust};
use super::{TlsError, hints, provider};
use crate::identity::{Binding, Identity};

/// The CAs that an end trusts, with their lists and what is said of them.
pub struct Judge {
    trust: Arc<Trust>,
    bundle: Bundle,
    /// Absent where there is no CA: nobody is let in then.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    anchors: Anchors,
}

impl Judge {
    /// An end that trusts the certificates of `ca`, which were vetted. Without `crl` nobody is asked
    /// who was revoked. Reads the files of the bindings. Blocks.
    ///
    /// # Errors
    /// A binding is about none of the CAs, or its file cannot be read; a list cannot be used.
    pub fn new(
        ca: (&Path, &[CertificateDer<'static>]),
        crl: Option<(&Path, &[CertificateRevocationListDer<'static>])>,
        bindings: &[Binding],
    ) -> Result<Self, TlsError> {
        let (path, cas) = ca;
        let bundle = Bundle::of(path, cas)?;
        let (crl, lists): (Option<PathBuf>, _) = match crl {
            Some((crl, lists)) => (Some(crl.to_owned()), lists.to_vec()),
            None => (None, Vec::new()),
        };
        let anchors = Anchors::new((path, crl.as_deref()), &bundle, &lists, bindings)?;
        let mut verifier = None;
        if !cas.is_empty() {
            let of_lists = crl.is_some().then(|| lists.clone());
            let built = client_verifier(&bundle, of_lists);
            verifier = Some(built.map_err(|source| rustls_failed(path, source))?);
        }
        let trust = Trust {
            ca: path.to_owned(),
            subjects: bundle.facts.iter().map(|ca| ca.subject.clone()).collect(),
            crl,
            lists,
        };
        Ok(Self {
            trust: Arc::new(trust),
            bundle,
            verifier,
            anchors,
        })
    }

    /// Whom a server with these CAs would take a client for that shows this; nobody is known where there
    /// are no CAs. `own` is the file, where its owner asks and not a server's operator. The cause is
    /// without the verdict.
    ///
    /// # Errors
    /// It would not let it in.
    pub fn check_client(
        &self,
        chain: &[CertificateDer<'static>],
        own: Option<&Path>,
        now: Timestamp,
    ) -> Result<Option<Identity>, Refusal> {
        let (Some(verifier), Some((first, others))) = (&self.verifier, chain.split_first()) else {
            return Ok(None);
        };
        let seen = self.seen(chain);
        let case = Case::new(View::Client, &seen, now);
        let hint = |code| {
            let view = own.map_or(View::Client, View::Own);
            hints::hint(code, &Case::new(view, &seen, now))
        };
        match verifier.verify_client_cert(first, others, unix(now)) {
            Ok(_) => {}
            Err(Error::InvalidCertificate(error)) => {
                let (code, why) = case.judge(&error);
                return Err(Refusal::new(code, why, hint(code)));
            }
            Err(error) => return Err(unnamed(&error)),
        }
        match identify(chain, &self.anchors, now) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => {
                let code = FailureCode::NoIdentity;
                Err(Refusal::new(code, error.to_string(), hint(code)))
            }
        }
    }

    /// Whether a client with these CAs would trust a server that shows this, by whatever name. The
    /// cause is without the verdict.
    ///
    /// # Errors
    /// It would not.
    pub fn check_server(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some((first, others)) = chain.split_first() else {
            return Ok(());
        };
        if self.bundle.facts.is_empty() {
            return Ok(());
        }
        let algorithms = provider().signature_verification_algorithms;
        let verified = ParsedCertificate::try_from(first).and_then(|first| {
            let roots = &self.bundle.roots;
            verify_server_cert_signed_by_trust_anchor(
                &first,
                roots,
                others,
                unix(now),
                algorithms.all,
            )
        });
        match verified {
            Ok(()) => Ok(()),
            Err(Error::InvalidCertificate(error)) => Err(self.of_server(chain, &error, now)),
            Err(error) => Err(unnamed(&error)),
        }
    }

    fn of_server(
        &self,
        chain: &[CertificateDer<'static>],
        error: &CertificateError,
        now: Timestamp,
    ) -> Refusal {
        let seen = self.seen(chain);
        let case = Case::new(View::Server("it"), &seen, now);
        let (code, why) = case.judge(error);
        Refusal::new(code, why, hints::hint(code, &case))
    }

    fn seen(&self, chain: &[CertificateDer<'static>]) -> Seen {
        Seen {
            chain: chain.to_vec(),
            trust: Arc::clone(&self.trust),
            stage: Stage::Chain,
        }
    }
}

/// A verdict that has no words.
fn unnamed(error: &Error) -> Refusal {
    let cause = format!("TLS refuses it: {error}");
    Refusal::new(
        FailureCode::UnusableForm,
        cause,
        "fsvc certs show FILE says what is special about it",
    )
}

fn unix(now: Timestamp) -> UnixTime {
    let since_1970 = u64::try_from(now.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(since_1970))
}
