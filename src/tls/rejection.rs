//! What a failed handshake means to the server's operator: the whole truth, for the log.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, Error, InvalidMessage};

use super::dates::minute;
use super::diagnosis::{Case, View};
use super::failure::FailureCode;
use super::identity::IdentityError;
use super::refusal::{Refusal, is_old};
use super::trusted::subjects;
use super::witness::{Seen, Stage};

/// Why a handshake came to nothing; `None` where there is nothing to say but that the peer went.
/// `seen` is what [`super::witness::watch`] held.
pub fn rejection(error: &Error, seen: Option<&Seen>, now: Timestamp) -> Option<Refusal> {
    Some(match error {
        Error::InvalidCertificate(refused) => {
            let seen = seen?;
            Case::new(View::Client, seen, now).explain(refused)
        }
        Error::NoCertificatesPresented => no_certificate(seen),
        Error::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => Refusal::new(
            FailureCode::NoIdentity,
            "refused a client certificate: the chain is larger than any that is read",
            "the client's file should hold its own certificate and the CAs between, nothing else",
        ),
        Error::InvalidMessage(_) => Refusal::new(
            FailureCode::PlainText,
            "refused a peer that spoke no TLS",
            "is something else configured for this port? fsvc speaks TLS 1.3 only",
        ),
        Error::PeerIncompatible(reason) if is_old(reason) => Refusal::new(
            FailureCode::OldTls,
            "refused a peer that offers TLS 1.2 at most; 1.3 is needed",
            "update the client, or what stands between and ends its TLS",
        ),
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Refusal::new(
            None,
            "refused a peer whose TLS has nothing in common with this server's",
            "it has to offer the protocol fsvc/1 by ALPN, and an algorithm of today",
        ),
        Error::AlertReceived(alert) => refused_by_client(*alert, now)?,
        _ => return None,
    })
}

fn no_certificate(seen: Option<&Seen>) -> Refusal {
    let among = seen.map_or_else(String::new, |seen| {
        format!(
            ", or none by a CA in {} (it has {})",
            seen.trust.ca.display(),
            subjects(&seen.trust.subjects)
        )
    });
    Refusal::new(
        FailureCode::NoCertificate,
        format!("refused a client that showed no certificate: it has none{among}"),
        "some programs keep back a certificate of another CA: compare the client's CA with those",
    )
}

/// Why a certificate that was verified names nobody.
pub fn unnamed(chain: &[CertificateDer<'_>], error: &IdentityError, now: Timestamp) -> Refusal {
    let chain = chain.iter().take(1).map(|one| one.clone().into_owned());
    let seen = Seen {
        chain: chain.collect(),
        trust: Arc::default(),
        stage: Stage::Chain,
    };
    Case::new(View::Client, &seen, now).refusal(FailureCode::NoIdentity, &error.to_string())
}

/// The client looked at this server's certificate and said no.
fn refused_by_client(alert: AlertDescription, now: Timestamp) -> Option<Refusal> {
    use FailureCode as Code;
    let (code, why, hint) = match alert {
        AlertDescription::UnknownCA => (
            Code::UntrustedServer,
            "it does not trust the CA that signed it".to_owned(),
            "does the client have this server's ca.pem? are the CAs between in this server's certificate file?",
        ),
        AlertDescription::CertificateExpired => (
            Code::ServerExpired,
            format!("it is out of date there; this clock says {}", minute(now)),
            "fsvc certs check, and fsvc certs renew server; or the two clocks differ",
        ),
        AlertDescription::BadCertificate => (
            Code::WrongName,
            "it is not for the name that the client connects to, or malformed".to_owned(),
            "fsvc gen-certs --host NAME adds a name",
        ),
        AlertDescription::UnsupportedCertificate => (
            Code::WrongPurpose,
            "it is not for servers".to_owned(),
            "fsvc gen-certs makes one that is",
        ),
        AlertDescription::CertificateRevoked => (
            Code::Revoked,
            "it is revoked".to_owned(),
            "fsvc gen-certs makes another one",
        ),
        AlertDescription::DecryptError => (
            Code::UntrustedServer,
            "it could not verify a signature".to_owned(),
            "does another CA of the same name stand in the client's ca.pem?",
        ),
        AlertDescription::CertificateUnknown => (
            Code::UnusableForm,
            "it cannot use it, or one that signed it".to_owned(),
            "fsvc certs show says what is special about a certificate",
        ),
        _ => return None,
    };
    let cause = format!("a client refused this server's certificate: {why}");
    Some(Refusal::new(code, cause, hint))
}
