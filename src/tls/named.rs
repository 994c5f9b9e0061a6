//! What is wrong with the names in a certificate.

use super::diagnosis::Case;
use super::failure::FailureCode;
use super::x509_kind::Kind;
use crate::escape::Escaped;

/// Names that are shown; a certificate may have thousands.
const SHOWN_MAX: usize = 8;

impl Case<'_> {
    pub(super) fn wrong_name(&self, expected: &str) -> (FailureCode, String) {
        let expected = Escaped::new(expected);
        let names = self.chain.first().map(|own| &own.names);
        let all: Vec<&str> = names
            .into_iter()
            .flat_map(|names| names.dns.iter().chain(&names.ip))
            .map(String::as_str)
            .collect();
        let more = if all.len() > SHOWN_MAX { ", …" } else { "" };
        let text = if all.is_empty() {
            let subject = self.chain.first().map_or("unreadable", |own| &own.subject);
            format!(
                "it has no names that \"{expected}\" could be; its subject ({subject}) is not used for that"
            )
        } else {
            let shown = all[..all.len().min(SHOWN_MAX)].join(", ");
            format!(
                "\"{expected}\" is not a name in the server's certificate (it has: {shown}{more})"
            )
        };
        (FailureCode::WrongName, text)
    }

    pub(super) fn name_constraint(&self) -> (FailureCode, String) {
        // The constraint may be the trusted CA's own, which is not sent.
        let kinds = self.certificates.iter().skip(1).filter_map(Kind::read);
        let found = self
            .chain
            .iter()
            .skip(1)
            .zip(kinds)
            .find(|(_, kind)| kind.permitted.is_some() || kind.constrains_uris);
        let text = match found {
            Some((ca, kind)) if kind.constrains_uris => {
                format!(
                    "its CA {} constrains names that are URIs, which cannot be checked",
                    ca.subject
                )
            }
            Some((ca, kind)) => {
                let permitted = kind.permitted.unwrap_or_default();
                format!(
                    "its CA {} may only sign for {permitted}; its names are {}",
                    ca.subject,
                    self.names()
                )
            }
            None => format!(
                "the CA {} may not sign for its names ({})",
                self.issuer(),
                self.names()
            ),
        };
        (FailureCode::NameConstraint, text)
    }

    fn names(&self) -> String {
        let Some(own) = self.chain.first() else {
            return "unreadable".to_owned();
        };
        let uris = own
            .names
            .uri
            .iter()
            .map(|uri| Escaped::new(uri).to_string());
        let all = own
            .names
            .dns
            .iter()
            .chain(&own.names.ip)
            .cloned()
            .chain(uris);
        all.take(SHOWN_MAX).collect::<Vec<_>>().join(", ")
    }
}
