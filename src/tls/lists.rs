//! The revocation lists of a server's CAs, looked at before anybody is judged by them.
//!
//! With any list configured, rustls refuses every client of a CA that has none, an old one, or one
//! that another key signed; and of two lists by one name it takes the first. All of it is told here.

use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::CertificateRevocationListDer;

use super::TlsError;
use super::bundle::Bundle;
use super::dates::with_distance;
use super::x509::{Facts, ListFacts, X509Error};
use super::x509_list::{List, ListFault, Scope, Signer};

/// Refuses lists that cannot be used, or do not fit the bundle or the server's own certificate.
pub(super) fn check(
    read: &[CertificateRevocationListDer<'_>],
    (crl, ca): (&Path, &Path),
    bundle: &Bundle,
    (own, now): (&Facts, Timestamp),
) -> Result<Vec<ListFacts>, TlsError> {
    let signers: Vec<Signer<'_>> = bundle
        .certificates
        .iter()
        .filter_map(Signer::read)
        .collect();
    check_names(ca, &signers, &bundle.facts)?;
    let mut facts = Vec::new();
    let mut lists = Vec::new();
    for der in read {
        let unusable = |source| TlsError::List {
            path: crl.to_owned(),
            source,
        };
        let list = List::read(der).ok_or_else(|| unusable(X509Error::Malformed))?;
        let said = ListFacts::read(der, Some(own)).map_err(unusable)?;
        check_one((&list, &said), crl, &signers, (own, now))?;
        lists.push(list);
        facts.push(said);
    }
    check_twice(crl, &lists, &facts)?;
    check_each_has_one((crl, ca), &lists, &signers, &bundle.facts)?;
    check_cas((crl, ca), &lists, &signers, &bundle.facts)?;
    Ok(facts)
}

fn check_each_has_one(
    (crl, ca): (&Path, &Path),
    lists: &[List<'_>],
    signers: &[Signer<'_>],
    facts: &[Facts],
) -> Result<(), TlsError> {
    for (signer, facts) in signers.iter().zip(facts) {
        let mut its = lists.iter().filter(|list| list.is_of(signer));
        if its.all(|list| list.scope() == Scope::Cas) {
            return Err(TlsError::NoRevocationList {
                bundle: ca.to_owned(),
                crl: crl.to_owned(),
                subject: facts.subject.clone(),
            });
        }
    }
    Ok(())
}

/// In a handshake nobody looks: a CA that is trusted is the end of every chain. Only the lists of
/// trusted CAs have a say.
fn check_cas(
    (crl, ca): (&Path, &Path),
    lists: &[List<'_>],
    signers: &[Signer<'_>],
    facts: &[Facts],
) -> Result<(), TlsError> {
    let is_trusted = |list: &&List<'_>| signers.iter().any(|signer| list.is_of(signer));
    for list in lists.iter().filter(is_trusted) {
        let mut each = signers.iter().zip(facts);
        if let Some((_, facts)) = each.find(|(signer, _)| list.revokes(signer)) {
            return Err(TlsError::CaRevoked {
                crl: crl.to_owned(),
                bundle: ca.to_owned(),
                subject: format!("{} (serial {})", facts.subject, facts.serial),
            });
        }
    }
    Ok(())
}

fn check_one(
    (list, facts): (&List<'_>, &ListFacts),
    crl: &Path,
    signers: &[Signer<'_>],
    (own, now): (&Facts, Timestamp),
) -> Result<(), TlsError> {
    let unfit = |fault: ListFault| TlsError::ListUnfit {
        path: crl.to_owned(),
        issuer: facts.issuer.clone(),
        fault,
    };
    if let Some(fault) = list.fault(now) {
        return Err(unfit(fault));
    }
    let mut its = signers.iter().filter(|signer| list.is_of(signer));
    if let Some(fault) = its.find_map(|signer| list.fault_of(signer)) {
        return Err(unfit(fault));
    }
    if let Some(next_update) = facts.next_update.filter(|next_update| *next_update < now) {
        return Err(TlsError::ListExpired {
            path: crl.to_owned(),
            issuer: facts.issuer.clone(),
            expired: with_distance(next_update, now),
        });
    }
    if facts.is_revoked {
        return Err(TlsError::OwnRevoked {
            crl: crl.to_owned(),
            subject: own.subject.clone(),
            serial: own.serial.clone(),
        });
    }
    Ok(())
}

/// A list is found by the name of its CA.
fn check_names(bundle: &Path, signers: &[Signer<'_>], facts: &[Facts]) -> Result<(), TlsError> {
    for (at, signer) in signers.iter().enumerate() {
        let mut others = signers[at + 1..].iter();
        if others.any(|other| other.name() == signer.name() && other.key() != signer.key()) {
            return Err(TlsError::Namesakes {
                bundle: bundle.to_owned(),
                subject: facts[at].subject.clone(),
            });
        }
    }
    Ok(())
}

/// Of two lists of everything one would never be looked at.
fn check_twice(crl: &Path, lists: &[List<'_>], facts: &[ListFacts]) -> Result<(), TlsError> {
    for (at, list) in lists.iter().enumerate() {
        let mut others = lists[at + 1..].iter();
        let is_same = |other: &List<'_>| {
            let both = [list, other];
            list.issuer() == other.issuer() && both.iter().any(|one| one.scope() == Scope::Whole)
        };
        if others.any(is_same) {
            return Err(TlsError::ListTwice {
                path: crl.to_owned(),
                issuer: facts[at].issuer.clone(),
            });
        }
    }
    Ok(())
}

/// Numbers of any length in their order: leading zeros say nothing.
pub(super) fn rank(number: &[u8]) -> (usize, &[u8]) {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    (digits.len(), digits)
}
