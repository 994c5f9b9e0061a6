//! A client's files as one set: loaded for the first time, and again when they have changed.
//!
//! The first set is the user's affair, and the server's to judge. A later one takes the place of one that
//! works, so it is looked at more closely: it is in date, is for clients, and has the same name.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;

use super::client::{Files, configure_with_facts};
use super::dates::{minute, with_distance};
use super::failure::FailureCode;
use super::refusal::Refusal;
use super::x509::Facts;
use super::{TlsError, bundle};
use crate::escape::Escaped;
use crate::protocol::ErrorCode;

/// A set of files that belong together, ready for use.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Arc<ClientConfig>,
    /// Of the client's own certificate, where it has one that can be read.
    pub own: Option<Facts>,
}

/// Loads the files for the first time.
///
/// # Errors
/// A file is missing, or does not fit the others. Blocks.
pub fn load(files: &Files, now: Timestamp) -> Result<Loaded, TlsError> {
    let (config, own) = configure_with_facts(files, now)?;
    Ok(Loaded { config, own })
}

/// Loads files that are to take the place of `before`.
///
/// # Errors
/// As [`load`]; or the new certificate is not valid now, is not a client's, or is somebody else's. Blocks.
pub fn load_anew(files: &Files, before: &Loaded, now: Timestamp) -> Result<Loaded, TlsError> {
    let loaded = load(files, now)?;
    let (Some(own), Some(facts)) = (&files.own, &loaded.own) else {
        return Ok(loaded);
    };
    let path = &own.certificate;
    bundle::check_dates(path, facts, now)?;
    if facts.is_ca || facts.purposes.is_some_and(|purposes| !purposes.client) {
        return Err(TlsError::WrongRole {
            path: path.clone(),
            subject: facts.subject.clone(),
            role: "client",
        });
    }
    match &before.own {
        Some(old) if old.names.uri != facts.names.uri => Err(TlsError::OtherIdentity {
            path: path.clone(),
            before: shown(&old.names.uri),
            found: shown(&facts.names.uri),
        }),
        _ => Ok(loaded),
    }
}

fn shown(names: &[String]) -> String {
    match names {
        [] => "no URI name".to_owned(),
        names => Escaped::new(&names.join(", ")).to_string(),
    }
}

/// When a client's own certificate is to be renewed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub certificate: PathBuf,
    /// From here on it is time.
    pub renew_after: Timestamp,
    pub expires_at: Timestamp,
    /// What to do.
    pub hint: String,
}

/// When the certificate that these files are of is to be renewed.
pub fn of(files: &Files, own: Option<&Facts>) -> Option<Renewal> {
    let (own, facts) = (files.own.as_ref()?, own?);
    Some(Renewal {
        certificate: own.certificate.clone(),
        renew_after: facts.renew_after(),
        expires_at: facts.not_after,
        hint: renew(files),
    })
}

/// Why a client whose own certificate has ended need not try a server.
pub fn expired(files: &Files, own: Option<&Facts>, now: Timestamp) -> Option<Refusal> {
    let facts = own.filter(|facts| facts.not_after < now)?;
    let cause = format!(
        "your certificate ({}) expired {}; this clock says {}",
        path(files),
        with_distance(facts.not_after, now),
        minute(now)
    );
    Some(Refusal::new(
        FailureCode::ClientExpired,
        cause,
        renew(files),
    ))
}

/// What it means that the server ends a session for its certificate; `message` is what the server said.
pub fn ended(
    files: &Files,
    own: Option<&Facts>,
    (code, message): (ErrorCode, &str),
    now: Timestamp,
) -> Refusal {
    if code == ErrorCode::CertificateRevoked {
        let serial = own.map_or_else(String::new, |facts| format!(", serial {}", facts.serial));
        let cause = format!("your certificate ({}{serial}) was revoked", path(files));
        let hint = "ask the operator for a new one; it is used as soon as it is in its place";
        return Refusal::new(FailureCode::Revoked, cause, hint);
    }
    expired(files, own, now).unwrap_or_else(|| {
        let cause = format!(
            "the server ended the session, since the certificate that it began with is over ({}): {}",
            path(files),
            Escaped::new(message)
        );
        Refusal::new(FailureCode::ClientExpired, cause, renew(files))
    })
}

fn path(files: &Files) -> String {
    files.own.as_ref().map_or_else(
        || "none".to_owned(),
        |own| own.certificate.display().to_string(),
    )
}

/// How a certificate is renewed: by name, where it lies in the layout that fsvc writes.
fn renew(files: &Files) -> String {
    let certificate = files.own.as_ref().map(|own| own.certificate.as_path());
    let name = certificate.and_then(|path| {
        let is_ours = path.parent()?.file_name()? == "clients" && path.extension()? == "pem";
        is_ours.then(|| path.file_stem())??.to_str()
    });
    match name {
        Some(name) => format!(
            "on the machine with the CA: fsvc certs renew {}; another CA's comes from there",
            Escaped::new(name)
        ),
        None => {
            "have it renewed by the CA that made it; new files are found by themselves".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::OwnFiles;
    use super::*;

    fn files(certificate: &str) -> Files {
        Files {
            server_id: None,
            ca: "certs/ca.pem".into(),
            own: Some(OwnFiles {
                certificate: certificate.into(),
                key: "key".into(),
            }),
        }
    }

    #[test]
    fn the_way_to_renew_is_named_where_it_is_known() {
        let hint = renew(&files("certs/clients/alice.pem"));
        assert!(hint.contains("fsvc certs renew alice"), "{hint}");
        for other in ["certs/tls.crt", "clients/alice.crt", "alice.pem", "/"] {
            let hint = renew(&files(other));
            assert!(!hint.contains("certs renew"), "{other}: {hint}");
        }
    }
}
