//! The policy's trust settings, when the trusted CAs change.
//!
//! A setting is about the CAs in a file of its own: who changes `ca.pem` alone may leave a new CA
//! that may name nobody, or an old one that servers go on trusting because the two do not fit.

use std::path::Path;

use jiff::Timestamp;

use super::certs::complain_json;
use super::open::{bindings, load_policy};
use super::output::complain;
use crate::identity::Binding;
use crate::pki::{self, Phase};
use crate::tls::client::chain_facts;
use crate::tls::x509::Facts;

/// Something that does not fit, and what to do.
pub(super) struct Misfit {
    text: String,
    hint: String,
}

impl Misfit {
    /// Says it as the reason why `what` was not done.
    pub(super) fn refuse(&self, what: &str, json: bool) {
        self.tell(("error", what), json);
    }

    /// Says it of something that was done.
    pub(super) fn warn(&self, json: bool) {
        self.tell(("warning", "warning"), json);
    }

    fn tell(&self, (kind, what): (&str, &str), json: bool) {
        let text = format!("{what}: {}", self.text);
        if json {
            complain_json(kind, &text, Some(&self.hint));
        } else {
            complain(&text, Some(&self.hint));
        }
    }
}

/// The settings of the policy beside the certificates; none where it is elsewhere or cannot be read,
/// which others tell.
fn settings(dir: &Path) -> Vec<Binding> {
    let path = dir.join("policy.toml");
    load_policy(&path).map_or_else(|_| Vec::new(), |policy| bindings(&path, &policy))
}

/// Why the new CA of `dir` must not sign yet: its certificates would be let in nowhere.
pub(super) fn unbound(dir: &Path, now: Timestamp) -> Option<Misfit> {
    let status = pki::rotate_status(dir, now).ok()?;
    if status.phase != Some(Phase::Started) {
        return None;
    }
    let new = status.cas.iter().find(|ca| !ca.signs)?;
    let domain = pki::list(dir, None, now).ok()?.trust_domain;
    let mut bound = settings(dir);
    bound.retain(|binding| binding.trust_domain == domain);
    let has_new = |binding: &Binding| {
        let facts = chain_facts(&binding.ca).unwrap_or_default();
        facts.iter().any(|ca| ca.serial == new.serial)
    };
    if bound.iter().any(has_new) {
        return None;
    }
    let file = bound.first()?.ca.display();
    let policy = dir.join("policy.toml");
    Some(Misfit {
        text: format!(
            "{} binds the trust domain {domain} to the CAs in {file}, and the new CA {} is not there: its \
             certificates would be refused",
            policy.display(),
            new.name
        ),
        hint: format!(
            "put it there, beside the old one, and hand that file out too: it is the one in {} with the serial \
             number {}",
            dir.join("ca.pem").display(),
            new.serial
        ),
    })
}

/// The settings in `dir` that are about no trusted CA any more: a server takes no `ca.pem` with one.
pub(super) fn left_over(dir: &Path) -> Option<Misfit> {
    let ca = dir.join("ca.pem");
    let trusted = chain_facts(&ca).ok()?;
    settings(dir).into_iter().find_map(|binding| {
        let bound = chain_facts(&binding.ca).ok()?;
        let is_trusted = |facts: &Facts| trusted.iter().any(|ca| ca.key == facts.key);
        if bound.iter().any(is_trusted) {
            return None;
        }
        Some(Misfit {
            text: format!(
                "{} has a [[trust]] entry for {}, whose CA is not in {} any more: a server with both goes on as \
                 before, and trusts it still",
                dir.join("policy.toml").display(),
                binding.ca.display(),
                ca.display()
            ),
            hint: "take the entry out; the server's log says when it has taken that up".to_owned(),
        })
    })
}
