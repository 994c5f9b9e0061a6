//! Certificates for development and small set-ups: a CA, a server, clients.
//!
//! [`ensure`] means "make sure these exist": it changes nothing that is in order, and a CA never.
//! Whatever moment it is interrupted at, the next run completes what was begun. `ca.pem` is named
//! last, so neither end starts on half a set.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use bundle::Bundle;
use rotate::Change;

mod add;
mod asked;
mod authority;
mod bearer;
mod bundle;
mod bundle_error;
mod bundle_report;
mod check;
mod check_pair;
mod check_report;
mod crl;
mod csr;
mod disk;
mod error;
mod inspect;
mod issue;
mod key;
mod layout;
mod leaf;
mod ledger;
mod life_error;
mod life_report;
mod list;
mod lock;
pub mod name;
mod policy_file;
mod policy_plan;
mod reason;
mod record;
mod render;
mod renew;
mod report;
mod request;
mod revoke;
mod rotate;
mod rotate_report;
mod rotation;
mod run;
mod settle;
mod show;
mod show_report;
mod sign;
mod sign_report;
mod signer;
mod trusted;
mod vet;
mod window;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod life_ca_tests;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod rotate_tests;

pub use add::AddOptions;
pub use bearer::{Holder, NewBearer};
pub use bundle::{ListSource, Pick};
pub use bundle_error::BundleError;
pub use bundle_report::{BundleReport, CaChange, TrustedCa};
pub use check::{Beside, Outcome, Scope, Shown};
pub use check_report::{CheckReport, Finding, Level};
pub use csr::{Asked as AskedByRequest, CsrError, CsrFault};
pub use error::{ErrorKind, PkiError};
pub use inspect::Why;
pub use key::KeyFault;
pub use ledger::Kind;
pub use life_error::LifeError;
pub use life_report::{AddReport, Failed, RenewReport, Renewed, RevokeReport, Revoked, Skipped};
pub use list::{ListItem, ListReport, Standing};
pub use reason::{Reason, ReasonError};
pub use renew::{RenewOptions, Which};
pub use report::{Item, PolicyItem, PolicyState, Report, SkippedHost, State};
pub use request::{RequestError, RequestReport};
pub use revoke::Target;
pub use rotate::NewCa;
pub use rotate_report::{Action, CaItem, Leaf, RotationReport};
pub use rotation::{Phase, RotationError};
pub use show_report::{
    Content, Purpose, ShowReport, ShownCertificate, ShownList, ShownRequest, Verdict,
};
pub use sign::{SignError, SignOptions};
pub use sign_report::SignReport;
pub use window::{Window, WindowError};

/// Longest validity in days that can be asked for.
pub const DAYS_MAX: u32 = 36_500;
/// Days that a new CA is valid if nothing else is asked for.
pub const CA_DAYS_DEFAULT: u32 = 3_650;
/// Most hosts in one certificate.
pub const HOSTS_MAX: usize = 100;
/// Most clients in one directory.
pub const NAMES_MAX: usize = 1_000;

/// What should exist.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files go.
    pub dir: PathBuf,
    /// Names and addresses that the server certificate must have.
    pub hosts: Vec<String>,
    /// Whether a first server certificate is also for this machine.
    pub default_hosts: bool,
    /// This machine's name, as the caller read it.
    pub host_name: Option<String>,
    /// Clients that must have a certificate.
    pub clients: Vec<String>,
    /// The first part of every identity; made from the machine's name if absent.
    pub trust_domain: Option<String>,
    /// Days that new certificates are valid, cut short by the end of the CA.
    pub days: u32,
    /// Days that a new CA is valid. An existing CA must agree, if given.
    pub ca_days: Option<u32>,
    /// `user@host`, shown in the name of a new CA.
    pub author: String,
}

/// Makes sure that a CA, a server certificate and the clients' certificates exist in a directory.
///
/// # Errors
/// An option makes no sense, what is there cannot be completed safely, another run does not end,
/// or the file system fails. A CA that is there is as it was in every case.
pub fn ensure(options: &Options, now: Timestamp) -> Result<Report, PkiError> {
    run::ensure(options, now, &disk::Disk::new())
}

/// Begins to change the CA of `dir`: a new one is trusted beside the one that signs.
/// Blocks.
///
/// # Errors
/// There is no CA in `dir`, its key is elsewhere, or the file system fails. Run again, it goes on.
pub fn rotate_start(
    dir: &Path,
    new: NewCa<'_>,
    now: Timestamp,
) -> Result<RotationReport, PkiError> {
    Change::open(&disk::Disk::new(), dir, now)?.start(new)
}

/// How the change of the CA of `dir` stands. Blocks.
///
/// # Errors
/// There is no CA in `dir`, or its files cannot be read.
pub fn rotate_status(dir: &Path, now: Timestamp) -> Result<RotationReport, PkiError> {
    Change::open(&disk::Disk::new(), dir, now)?.status()
}

/// Lets the new CA of `dir` sign; `at_once` does not wait until everybody can trust it. Blocks.
///
/// # Errors
/// None was begun, or a day ago at most, or the file system fails. Run again, it goes on.
pub fn rotate_promote(
    dir: &Path,
    at_once: bool,
    now: Timestamp,
) -> Result<RotationReport, PkiError> {
    Change::open(&disk::Disk::new(), dir, now)?.promote(at_once)
}

/// Drops the old CA of `dir`. Blocks.
///
/// # Errors
/// Certificates of it are in use, or the file system fails. Run again, it goes on.
pub fn rotate_finish(dir: &Path, now: Timestamp) -> Result<RotationReport, PkiError> {
    Change::open(&disk::Disk::new(), dir, now)?.finish()
}

/// Takes a change of the CA of `dir` back, one step. Blocks.
///
/// # Errors
/// None was begun, or certificates of the new CA are in use, or the file system fails. Run again,
/// it goes on.
pub fn rotate_rollback(dir: &Path, now: Timestamp) -> Result<RotationReport, PkiError> {
    Change::open(&disk::Disk::new(), dir, now)?.rollback()
}

/// Trusts the CAs in `file` beside those in the `ca.pem` of `dir`, which is made if it is missing.
/// Blocks.
///
/// # Errors
/// The file holds something that may not be trusted as a CA, or a CA that is there already; a
/// revocation list is missing or no good; or the file system fails. Nothing is changed then.
pub fn bundle_add(
    dir: &Path,
    file: &Path,
    lists: ListSource<'_>,
    now: Timestamp,
) -> Result<BundleReport, PkiError> {
    Bundle::open(&disk::Disk::new(), dir, now)?.add(file, lists)
}

/// Takes a CA out of the `ca.pem` of `dir`, and its revocation list out of `ca.crl`. Blocks.
///
/// # Errors
/// There is no such CA, or it is needed here, or the file system fails.
pub fn bundle_remove(dir: &Path, pick: Pick<'_>, now: Timestamp) -> Result<BundleReport, PkiError> {
    Bundle::open(&disk::Disk::new(), dir, now)?.remove(pick)
}

/// Makes a key and a certificate request in `dir`, which is not the signer's. Both are kept if they
/// are there. Blocks.
///
/// # Errors
/// A name makes no sense, there is a certificate already and `reuse_key` is not set, or the file
/// system fails.
pub fn request(dir: &Path, holder: Holder<'_>, reuse_key: bool) -> Result<RequestReport, PkiError> {
    request::make(&disk::Disk::new(), dir, holder, reuse_key)
}

/// Signs a certificate for the key of a request. Blocks.
///
/// # Errors
/// The request is no good or its key weak, the name has a certificate of another key, the CA
/// cannot sign, or the file system fails.
pub fn sign(options: &SignOptions<'_>, now: Timestamp) -> Result<SignReport, PkiError> {
    sign::sign(&disk::Disk::new(), options, now)
}

/// Issues a certificate with a key of its own to somebody who has none. Blocks.
///
/// # Errors
/// The name has one and `again` is not set, a name makes no sense, the CA cannot sign, or the file
/// system fails.
pub fn add(options: &AddOptions<'_>, now: Timestamp) -> Result<AddReport, PkiError> {
    add::add(&disk::Disk::new(), options, now)
}

/// Puts new certificates in the place of old ones, which may be out of date. Blocks.
///
/// # Errors
/// There is no such name, it was revoked, its key is elsewhere, the CA cannot sign, or the file
/// system fails.
pub fn renew(options: &RenewOptions<'_>, now: Timestamp) -> Result<RenewReport, PkiError> {
    renew::renew(&disk::Disk::new(), options, now)
}

/// Revokes certificates for all time: in the index, then in `ca.crl`. Blocks.
///
/// # Errors
/// It is not clear which one is meant, the CA's key is elsewhere, the new list would not do, or the
/// file system fails. Run again, it goes on.
pub fn revoke(
    dir: &Path,
    target: Target<'_>,
    reason: Reason,
    now: Timestamp,
) -> Result<RevokeReport, PkiError> {
    revoke::revoke(&disk::Disk::new(), dir, target, reason, now)
}

/// What was issued from `dir`; with `expiring`, only what runs out by then and has no successor.
/// Blocks.
///
/// # Errors
/// There is no index in `dir`, or it cannot be read.
pub fn list(dir: &Path, expiring: Option<Window>, now: Timestamp) -> Result<ListReport, PkiError> {
    list::list(dir, expiring, now)
}

/// What is in a file: certificates, requests, revocation lists. Verified against the CAs in the file
/// `ca`, if one is given. Blocks.
///
/// # Errors
/// A file cannot be read, or there is nothing to show but a private key.
pub fn show(file: &Path, ca: Option<&Path>, now: Timestamp) -> Result<ShowReport, PkiError> {
    show::show(file, ca, now)
}

/// Looks at the certificates of `dir` as a server or a client would. Blocks.
pub fn check(dir: &Path, scope: Scope<'_>, beside: &Beside<'_>, now: Timestamp) -> CheckReport {
    check::check(dir, scope, beside, now)
}
