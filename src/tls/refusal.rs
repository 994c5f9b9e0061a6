//! What a failed handshake means to the person in front of it.
//!
//! TLS tells a client one byte. The likely cause is found by holding that byte against the client's
//! own files.

use std::fmt;
use std::io;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error};

use super::client::{Files, chain_facts};
use super::identity::CHAIN_SIZE_MAX;
use super::x509::Facts;
use crate::escape::Escaped;

/// A refusal, explained: the cause, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub cause: String,
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Refusal {
    fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            hint: Some(hint.into()),
        }
    }
}

/// Explains an error of the stream, where TLS is at the bottom of it.
pub fn explain(error: &io::Error, files: &Files, server: &str, now: Timestamp) -> Option<Refusal> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::AlertReceived(alert) => refused_by_server(*alert, files, now),
        Error::InvalidCertificate(error) => refused_by_us(error, files, server),
        Error::InvalidMessage(_) => Refusal::new(
            format!("{server} answered, but not with TLS"),
            "is this the right port? fsvc listens on 7443 by default",
        ),
        Error::NoApplicationProtocol => Refusal::new(
            format!("{server} speaks TLS, but not fsvc/1"),
            "is this the right port? fsvc listens on 7443 by default",
        ),
        other => Refusal {
            cause: format!("TLS with {server} failed: {other}"),
            hint: None,
        },
    })
}

/// The server closed before it said anything: the alert, if there was one, was lost on the way.
pub fn silent_close(files: &Files, now: Timestamp) -> Refusal {
    if let Some(refusal) = out_of_date(files, &own_chain(files), now) {
        return refusal;
    }
    let hint = oversized(files).unwrap_or_else(|| {
        "it may have refused the client certificate, or be at its limit of connections; its log says which".to_owned()
    });
    Refusal::new("the server closed the connection before its greeting", hint)
}

fn refused_by_server(alert: AlertDescription, files: &Files, now: Timestamp) -> Refusal {
    let chain = own_chain(files);
    let name = own_name(files);
    match alert {
        AlertDescription::CertificateRequired => Refusal::new(
            "the server needs a client certificate and none was sent",
            "give one with --as NAME, or with --cert and --key",
        ),
        AlertDescription::UnknownCA => untrusted(&name, &chain),
        AlertDescription::CertificateExpired => {
            out_of_date(files, &chain, now).unwrap_or_else(|| {
                Refusal::new(
                    format!("the server says that your certificate ({name}) is out of date; by this clock it is not"),
                    "the two clocks differ: check both",
                )
            })
        }
        AlertDescription::CertificateRevoked => {
            Refusal::new(format!("your certificate ({name}) was revoked"), "ask the operator for a new one")
        }
        AlertDescription::UnsupportedCertificate => Refusal::new(
            format!("your certificate ({name}) is not for clients"),
            "is it a server's? a client's has the purpose clientAuth",
        ),
        AlertDescription::DecryptError => Refusal::new(
            format!("the server could not verify a signature: of {name}, or by its key"),
            "does the key belong to the certificate, and is it signed with a current algorithm?",
        ),
        AlertDescription::ProtocolVersion => {
            Refusal::new("the other end does not speak TLS 1.3", "fsvc needs TLS 1.3")
        }
        AlertDescription::NoApplicationProtocol => Refusal::new(
            "the other end speaks TLS, but not fsvc/1",
            "is this the right port? fsvc listens on 7443 by default",
        ),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            unusable(&name, &chain)
        }
        other => Refusal {
            cause: format!("the server refused the connection: {other:?}"),
            hint: oversized(files),
        },
    }
}

fn untrusted(name: &str, chain: &[Facts]) -> Refusal {
    let cause = match chain.first() {
        Some(own) if own.subject == own.issuer => {
            format!("the server does not trust your certificate ({name}): it is signed by itself")
        }
        Some(own) => format!(
            "the server does not trust the CA that signed your certificate ({name}, signed by {})",
            own.issuer
        ),
        None => {
            format!("the server does not trust the CA that signed your certificate ({name})")
        }
    };
    Refusal::new(
        cause,
        "get one from this server's CA, with the CAs between in the same file; if it is from there, \
         the server's revocation lists are incomplete or out of date: its log says which",
    )
}

fn unusable(name: &str, chain: &[Facts]) -> Refusal {
    if chain.first().is_some_and(|own| own.is_ca) {
        return Refusal::new(
            format!("your certificate ({name}) is a CA's, not a client's"),
            "use a client's certificate that this CA signed",
        );
    }
    Refusal::new(
        format!("the server cannot use your certificate ({name}), or one that signed it"),
        "its log says why; is there an extension or a limit in the chain that it cannot honour?",
    )
}

/// A chain over the limit is cut off before it is looked at, and TLS has no word for that.
fn oversized(files: &Files) -> Option<String> {
    let chain = super::pem::read_certificates(&files.own.as_ref()?.certificate).ok()?;
    let size: usize = chain.iter().map(|certificate| certificate.len()).sum();
    (size > CHAIN_SIZE_MAX).then(|| {
        let name = own_name(files);
        format!("your chain ({name}) has {size} bytes, a server takes {CHAIN_SIZE_MAX} at most")
    })
}

fn refused_by_us(error: &CertificateError, files: &Files, server: &str) -> Refusal {
    match error {
        CertificateError::UnknownIssuer => Refusal::new(
            format!(
                "cannot trust {server}: no CA in {} signed its certificate",
                files.ca.display()
            ),
            "a wrong ca.pem, or the CA was changed; get ca.pem from the server's operator",
        ),
        CertificateError::ExpiredContext { not_after, .. } => Refusal::new(
            format!(
                "the certificate of {server} expired {}",
                Timestamp::from_second(i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX))
                    .map_or_else(|_| "long ago".to_owned(), |time| time.to_string())
            ),
            "its operator renews it: fsvc gen-certs",
        ),
        CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
            Refusal::new(
                format!("the certificate of {server} is not valid yet by this clock"),
                "one of the two clocks is wrong",
            )
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => Refusal::new(
            format!(
                "\"{}\" is not a name in the server's certificate (it has: {})",
                Escaped::new(&expected.to_str()),
                Escaped::new(&presented.join(", "))
            ),
            "connect by one of those, or on the server: fsvc gen-certs --host NAME",
        ),
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            Refusal::new(
                format!("{server} shows a certificate that is not for servers"),
                "is it the right server?",
            )
        }
        other => Refusal {
            cause: format!(
                "cannot trust {server}: {}",
                Escaped::new(&other.to_string())
            ),
            hint: None,
        },
    }
}

/// The first of the user's own certificates that is out of date; a CA's may be, too.
fn out_of_date(files: &Files, chain: &[Facts], now: Timestamp) -> Option<Refusal> {
    let name = own_name(files);
    chain.iter().enumerate().find_map(|(position, facts)| {
        let whose = match position {
            0 => format!("your certificate ({name})"),
            _ => format!("the CA {} in {name}", facts.subject),
        };
        if facts.not_after < now {
            return Some(Refusal::new(
                format!("{whose} expired {}", facts.not_after),
                "fsvc gen-certs renews what it made; another CA's certificate comes from there",
            ));
        }
        (facts.not_before > now).then(|| {
            Refusal::new(
                format!(
                    "{whose} is not valid until {}; this clock says {now}",
                    facts.not_before
                ),
                "one of the two clocks is wrong",
            )
        })
    })
}

fn own_chain(files: &Files) -> Vec<Facts> {
    let own = files.own.as_ref();
    own.and_then(|own| chain_facts(&own.certificate).ok())
        .unwrap_or_default()
}

fn own_name(files: &Files) -> String {
    files.own.as_ref().map_or_else(
        || "none".to_owned(),
        |own| own.certificate.display().to_string(),
    )
}
