//! Certificates for development and small set-ups: a CA, a server, clients.
//!
//! [`ensure`] means "make sure these exist": it changes nothing that is in order, and a CA never.
//! Whatever moment it is interrupted at, the next run completes what was begun. `ca.pem` is named
//! last, so neither end starts on half a set.

use std::path::PathBuf;

use jiff::Timestamp;

mod asked;
mod authority;
mod disk;
mod error;
mod inspect;
mod issue;
mod layout;
mod leaf;
mod ledger;
mod lock;
pub mod name;
mod policy_file;
mod render;
mod report;
mod run;
mod settle;

#[cfg(test)]
mod crash_tests;

pub use error::{ErrorKind, PkiError};
pub use inspect::Why;
pub use report::{Item, PolicyItem, PolicyState, Report, SkippedHost, State};

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
