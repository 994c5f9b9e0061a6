//! `ca.pem` and `ca.crl` as they are edited: the CAs that are trusted, a revocation list for each.
//!
//! Each is written as a whole. A CA is trusted only after its list is there, and a list goes only
//! after its CA: a server refuses all clients of a CA that has none.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::PkiError;
use super::authority::Authority;
use super::crl;
use super::disk::{self, Disk, Over};
use super::inspect;
use super::layout::{Layout, PUBLIC};
use super::ledger::Ledger;
use crate::tls::pem;

/// Most CAs in one bundle.
pub(super) const CAS_MAX: usize = 100;

/// The two files as they were read.
pub(super) struct Trusted {
    pub(super) cas: Vec<CertificateDer<'static>>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Whether there is a file of lists.
    pub(super) has_lists: bool,
}

impl Trusted {
    /// Reads both files. A missing one is an empty one.
    pub(super) fn read(layout: &Layout) -> Result<Self, PkiError> {
        let has_lists = disk::is_file(&layout.crl())?;
        Ok(Self {
            cas: if disk::is_file(&layout.ca())? {
                pem::read_certificates(&layout.ca())?
            } else {
                Vec::new()
            },
            lists: if has_lists {
                pem::read_revocation_lists(&layout.crl())?
            } else {
                Vec::new()
            },
            has_lists,
        })
    }

    /// Whether there is a list of this CA.
    pub(super) fn has_list(&self, ca: &CertificateDer<'_>) -> bool {
        self.list_of(ca).is_some()
    }

    /// The list of this CA.
    pub(super) fn list_of(
        &self,
        ca: &CertificateDer<'_>,
    ) -> Option<&CertificateRevocationListDer<'static>> {
        self.lists.iter().find(|list| inspect::is_list_of(list, ca))
    }

    /// Puts a list in the place of the CA's older one.
    pub(super) fn put_list(
        &mut self,
        ca: &CertificateDer<'_>,
        list: CertificateRevocationListDer<'static>,
    ) {
        let place = self
            .lists
            .iter()
            .position(|list| inspect::is_list_of(list, ca));
        match place {
            Some(place) => self.lists[place] = list,
            None => self.lists.push(list),
        }
    }

    /// Names both files after CAs or lists were added: the lists first.
    pub(super) fn write_more(&self, disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
        self.write_lists(disk, layout)?;
        self.write_cas(disk, layout)
    }

    /// Names both files after CAs were taken out: the CAs first.
    pub(super) fn write_fewer(&self, disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
        self.write_cas(disk, layout)?;
        self.write_lists(disk, layout)
    }

    fn write_cas(&self, disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
        if self.cas.len() > CAS_MAX {
            return Err(PkiError::TooMany {
                what: "trusted CAs",
                count: self.cas.len(),
                max: CAS_MAX,
            });
        }
        let text: String = self.cas.iter().map(|ca| certificate_pem(ca)).collect();
        write_changed(disk, &layout.ca(), &text)
    }

    /// Names the file of lists anew.
    pub(super) fn write_lists(&self, disk: &Disk, layout: &Layout) -> Result<(), PkiError> {
        if self.lists.is_empty() {
            return Ok(());
        }
        let text: String = self.lists.iter().map(|list| list_pem(list)).collect();
        write_changed(disk, &layout.crl(), &text)
    }
}

/// The list of a CA that has none in the file yet, signed with its key: of all that the index says
/// is revoked.
pub(super) fn make_list(
    disk: &Disk,
    layout: &Layout,
    ca: &Authority,
    ledger: &Ledger,
    now: Timestamp,
) -> Result<CertificateRevocationListDer<'static>, PkiError> {
    let list = crl::List::of(ca, ledger, None)?;
    list.sign(disk, layout, ca, now)
}

/// Takes the next number for a revocation list. It is written down first: a list must never come
/// out under a number that was used before, `last_seen` among them.
pub(super) fn next_list_number(
    disk: &Disk,
    layout: &Layout,
    last_seen: u64,
) -> Result<u64, PkiError> {
    let path = layout.crl_number();
    let last = disk::read(&path)?.map_or(Ok(0), |bytes| {
        let text = String::from_utf8_lossy(&bytes);
        text.trim().parse::<u64>().map_err(|_| PkiError::WrongKind {
            path: path.clone(),
            found: "some text",
            expected: "the number of the last revocation list",
        })
    })?;
    let number = last.max(last_seen).saturating_add(1);
    disk.write(&path, format!("{number}\n").as_bytes(), PUBLIC, Over::Old)?;
    Ok(number)
}

/// A certificate as text.
pub(super) fn certificate_pem(der: &[u8]) -> String {
    pem::encode("CERTIFICATE", der)
}

/// A revocation list as text.
pub(super) fn list_pem(der: &[u8]) -> String {
    pem::encode("X509 CRL", der)
}

/// Names the file anew if its content is another one.
fn write_changed(disk: &Disk, path: &std::path::Path, text: &str) -> Result<(), PkiError> {
    if disk::read(path)?.is_some_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    disk.write(path, text.as_bytes(), PUBLIC, Over::Old)
}
