//! The revocation list of one CA: what must be in it, and how a new one is made and looked at.
//!
//! What was revoked once stays in: a new list holds all that the index says and all that the old
//! list says. None is published that a server would not read as it is meant.

use jiff::Timestamp;
use rcgen::{KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::PkiError;
use super::authority::Authority;
use super::disk::Disk;
use super::inspect;
use super::issue::{self, Role, hex};
use super::layout::Layout;
use super::ledger::Ledger;
use super::life_error::LifeError;
use super::rotation::RotationError;
use super::trusted::{self, Trusted};
use crate::identity::SpiffeId;

/// Most entries of one list.
const ENTRIES_MAX: usize = 100_000;
/// Most entries that are tried out on a new list, the newest ones.
const TRIED_MAX: usize = 100;

/// One certificate that is not good any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) serial: Vec<u8>,
    pub(super) at: Timestamp,
    reason: Option<RevocationReason>,
}

/// What the list of a CA must hold.
#[derive(Debug)]
pub(super) struct List {
    pub(super) entries: Vec<Entry>,
    /// The number of the list that it comes after.
    pub(super) last_number: u64,
    /// From when on that list counts.
    begins_at: Timestamp,
    /// Whether that list holds all of it.
    is_complete: bool,
}

/// A list that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) number: u64,
    pub(super) n_entries: usize,
    /// Whether it is a new one.
    pub(super) is_new: bool,
}

/// Makes sure that the list of `ca` in `ca.crl` holds all that the index says is revoked. The lists
/// of other CAs stay as they are.
pub(super) fn publish(
    disk: &Disk,
    layout: &Layout,
    ca: &Authority,
    ledger: &Ledger,
    now: Timestamp,
) -> Result<Published, PkiError> {
    let mut trusted = Trusted::read(layout)?;
    let own = &ca.anchors[0];
    let list = List::of(ca, ledger, trusted.list_of(own))?;
    let n_entries = list.entries.len();
    // No server takes one that begins in the future: it was made by a clock that was ahead.
    if list.is_complete && list.begins_at <= now {
        return Ok(Published {
            number: list.last_number,
            n_entries,
            is_new: false,
        });
    }
    let new = list.sign(disk, layout, ca, now)?;
    let number = read(&new)?.last_number;
    trusted.put_list(own, new);
    trusted.write_lists(disk, layout)?;
    Ok(Published {
        number,
        n_entries,
        is_new: true,
    })
}

impl List {
    /// What the list of `ca` must hold, given the one that is there.
    pub(super) fn of(
        ca: &Authority,
        ledger: &Ledger,
        old: Option<&CertificateRevocationListDer<'_>>,
    ) -> Result<Self, PkiError> {
        let mut list = old.map_or_else(|| Ok(Self::empty()), |old| read(old))?;
        list.is_complete = old.is_some();
        let revocations = ledger.revocations().iter();
        for revocation in revocations.filter(|revocation| revocation.ca == ca.facts.serial) {
            let serial = unhex(&revocation.serial).ok_or_else(|| LifeError::Serial {
                text: revocation.serial.clone(),
            })?;
            if list.entries.iter().all(|entry| entry.serial != serial) {
                list.is_complete = false;
                list.entries.push(Entry {
                    serial,
                    at: revocation.at,
                    reason: revocation.reason.code(),
                });
            }
        }
        if list.entries.len() > ENTRIES_MAX {
            return Err(PkiError::TooMany {
                what: "revoked certificates",
                count: list.entries.len(),
                max: ENTRIES_MAX,
            });
        }
        Ok(list)
    }

    const fn empty() -> Self {
        Self {
            entries: Vec::new(),
            last_number: 0,
            begins_at: Timestamp::UNIX_EPOCH,
            is_complete: false,
        }
    }

    /// A list of this, under the next number, looked at as a server will.
    pub(super) fn sign(
        &self,
        disk: &Disk,
        layout: &Layout,
        ca: &Authority,
        now: Timestamp,
    ) -> Result<CertificateRevocationListDer<'static>, PkiError> {
        let signer = ca.signer.as_ref().ok_or_else(|| RotationError::Absent {
            serial: ca.facts.serial.clone(),
        })?;
        let number = trusted::next_list_number(disk, layout, self.last_number)?;
        let entry = |entry: &Entry| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&entry.serial),
                revocation_time: issue::date(entry.at)?,
                reason_code: entry.reason,
                invalidity_date: None,
            })
        };
        let entries = self.entries.iter().map(entry);
        let entries = entries.collect::<Result<Vec<_>, PkiError>>()?;
        let key_id = inspect::key_id(&ca.anchors[0]);
        let key_id = key_id.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified);
        let signer = (signer, key_id);
        let list = issue::make_crl(signer, now, ca.facts.validity, number, entries)?;
        self.try_out(&list, ca)?;
        Ok(list)
    }

    /// Refuses a list that does not say what it should: shows it certificates that exist for this
    /// moment only, one that is good and those that are not.
    fn try_out(
        &self,
        list: &CertificateRevocationListDer<'_>,
        ca: &Authority,
    ) -> Result<(), PkiError> {
        let wrong = |reason: String| PkiError::from(LifeError::List { reason });
        let found = read(list)?;
        if found.entries != self.entries {
            return Err(wrong("it does not hold what it should".to_owned()));
        }
        let owned = OwnedCertRevocationList::from_der(list);
        let owned = CertRevocationList::from(owned.map_err(|error| wrong(error.to_string()))?);
        let fresh = issue::random_serial()?;
        match probe(&owned, ca, &fresh)? {
            Ok(()) => {}
            Err(error) => return Err(wrong(format!("a good certificate is refused: {error}"))),
        }
        for entry in self.entries.iter().rev().take(TRIED_MAX) {
            if probe(&owned, ca, &entry.serial)? != Err(webpki::Error::CertRevoked) {
                let serial = hex(&entry.serial);
                return Err(wrong(format!("{serial} is let in though it is revoked")));
            }
        }
        Ok(())
    }
}

/// What a verifier with this list says of a certificate with this serial number.
fn probe(
    list: &CertRevocationList<'_>,
    ca: &Authority,
    serial: &[u8],
) -> Result<Result<(), webpki::Error>, PkiError> {
    let signer = ca.signer.as_ref().ok_or_else(|| RotationError::Absent {
        serial: ca.facts.serial.clone(),
    })?;
    let id: SpiffeId = "spiffe://probe/client/probe"
        .parse()
        .expect("the name is one");
    let key = issue::make_key()?;
    let validity = ca.facts.validity;
    let der = issue::certify_as(signer, &key, &Role::Client, &id, (validity, serial))?;
    let lists = [list];
    let revocation = RevocationOptionsBuilder::new(&lists)
        .expect("there is a list")
        .with_depth(RevocationCheckDepth::EndEntity)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Ignore)
        .build();
    let begin = u64::try_from(validity.not_before.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(begin));
    let own: &CertificateDer<'_> = &ca.anchors[0];
    let verified = anchor_from_trusted_cert(own).and_then(|anchor| {
        EndEntityCert::try_from(&der)?.verify_for_usage(
            default_provider().signature_verification_algorithms.all,
            &[anchor],
            &[],
            time,
            KeyUsage::client_auth(),
            Some(revocation),
            None,
        )?;
        Ok(())
    });
    Ok(verified)
}

/// What a list of a CA of this directory holds.
pub(super) fn read(list: &[u8]) -> Result<List, PkiError> {
    let wrong = |reason: &str| LifeError::List {
        reason: reason.to_owned(),
    };
    let (_, list) = CertificateRevocationList::from_der(list)
        .map_err(|_| wrong("the list that is there is malformed"))?;
    let number = list.crl_number().map(BigUint::to_u64_digits);
    let last_number = match number.as_deref() {
        None | Some([]) => 0,
        Some([number]) => *number,
        Some(_) => return Err(wrong("the list that is there has a number without a next").into()),
    };
    let begins_at = Timestamp::from_second(list.last_update().timestamp());
    let begins_at = begins_at.map_err(|_| wrong("the list that is there begins at no time"))?;
    let entry = |revoked: &x509_parser::revocation_list::RevokedCertificate<'_>| {
        let at = Timestamp::from_second(revoked.revocation_date.timestamp());
        Ok(Entry {
            serial: revoked.raw_serial().to_vec(),
            at: at.map_err(|_| wrong("the list that is there has a time without sense"))?,
            reason: revoked.reason_code().and_then(|(_, code)| reason(code.0)),
        })
    };
    let entries = list.iter_revoked_certificates().map(entry);
    Ok(List {
        entries: entries.collect::<Result<_, LifeError>>()?,
        last_number,
        begins_at,
        is_complete: true,
    })
}

const fn reason(code: u8) -> Option<RevocationReason> {
    Some(match code {
        1 => RevocationReason::KeyCompromise,
        2 => RevocationReason::CaCompromise,
        3 => RevocationReason::AffiliationChanged,
        4 => RevocationReason::Superseded,
        5 => RevocationReason::CessationOfOperation,
        6 => RevocationReason::CertificateHold,
        9 => RevocationReason::PrivilegeWithdrawn,
        10 => RevocationReason::AaCompromise,
        _ => return None,
    })
}

/// The bytes of hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
