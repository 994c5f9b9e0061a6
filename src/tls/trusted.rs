//! A CA that is not trusted: which one it is, and which are.
//!
//! Whether a chain is one CA short cannot be proved without that CA; it is likely where the signer
//! and a trusted CA are of one organization.

use rustls::pki_types::CertificateRevocationListDer;

use super::diagnosis::{Case, View};
use super::failure::FailureCode;
use super::x509::ListFacts;

/// How the name of a CA begins that fsvc made: they are all of one organization, and none is below
/// another.
const OWN_CA: &str = "O=fsvc, CN=fsvc CA ";
/// Trusted CAs that are named.
const SHOWN_MAX: usize = 4;

/// The code of a CA that is not trusted.
pub(super) fn untrusted(case: &Case<'_>) -> FailureCode {
    if case.is_servers() {
        FailureCode::UntrustedServer
    } else {
        FailureCode::UntrustedClient
    }
}

/// Why no way leads from the certificate to a CA that is trusted.
pub(super) fn unknown_issuer(case: &Case<'_>) -> (FailureCode, String) {
    let Some(own) = case.chain.first() else {
        return (untrusted(case), "it cannot be read".to_owned());
    };
    if own.subject == own.issuer {
        return (
            FailureCode::WrongPlace,
            "it is signed by itself, not by a CA that is trusted".to_owned(),
        );
    }
    if is_short(case) {
        let text = format!(
            "it was signed by {}, a CA that was not sent along; {}",
            own.issuer,
            where_trusted(case)
        );
        return (FailureCode::MissingIntermediate, text);
    }
    let last = case.chain.last().unwrap_or(own);
    let way = if last == own {
        format!("it was signed by {}", own.issuer)
    } else {
        let end = if last.subject == last.issuer {
            &last.subject
        } else {
            &last.issuer
        };
        format!(
            "it was signed by {}, and its chain ends at {end}",
            own.issuer
        )
    };
    (untrusted(case), format!("{way}; {}", where_trusted(case)))
}

/// Whether a chain of one is likely to lack a CA between.
fn is_short(case: &Case<'_>) -> bool {
    let [own] = case.chain.as_slice() else {
        return false;
    };
    if own.issuer.starts_with(OWN_CA) {
        return false;
    }
    let Some(organization) = organization(&own.issuer) else {
        return false;
    };
    let mut trusted = case.trust.subjects.iter();
    !case.trust.subjects.contains(&own.issuer)
        && trusted.any(|ca| self::organization(ca) == Some(organization))
}

/// Two CAs with one name, and the wrong one signed.
pub(super) fn twin(case: &Case<'_>) -> String {
    let ca = case.trust.ca.display();
    match case.view {
        View::Own(_) => {
            format!(
                "its signature is not by the key of the {} that the server trusts",
                case.issuer()
            )
        }
        View::Client | View::Server(_) => format!(
            "its signature is not by the key of {} in {ca}: two CAs have that name",
            case.issuer()
        ),
    }
}

fn where_trusted(case: &Case<'_>) -> String {
    let ca = case.trust.ca.display();
    match case.view {
        View::Own(_) => "the server does not trust the CA that signed it".to_owned(),
        View::Client | View::Server(_) => format!(
            "no CA in {ca} signed that (it has {})",
            subjects(&case.trust.subjects)
        ),
    }
}

pub(super) fn subjects(subjects: &[String]) -> String {
    let mut shown = subjects
        .iter()
        .take(SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if subjects.len() > SHOWN_MAX {
        shown.push_str("; …");
    }
    shown
}

/// The organization in a distinguished name.
fn organization(name: &str) -> Option<&str> {
    name.split(", ").find_map(|part| part.strip_prefix("O="))
}

/// Who made a revocation list.
pub(super) fn list_issuer(list: &CertificateRevocationListDer<'static>) -> Option<String> {
    ListFacts::read(list, None).ok().map(|list| list.issuer)
}
