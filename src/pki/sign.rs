//! A certificate for a key that is somewhere else.
//!
//! Of the request only the key is taken; the operator says whom it is for. The certificate is in
//! the index before it has a file name.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::asked::{check_days, whole_second};
use super::authority::{self, Authority, Found};
use super::csr::{self, Csr, CsrError, Granted};
use super::disk::{self, Disk, Over};
use super::inspect;
use super::issue::{self, Role, Validity, fingerprint, sha256};
use super::layout::{DIR_PUBLIC, Layout, PUBLIC, Pair};
use super::leaf;
use super::ledger::{Kind, Ledger, Record};
use super::lock::{self, Lock};
use super::name::{Host, TrustDomain};
use super::policy_plan::PolicyPlan;
use super::report::PolicyItem;
use super::request::{Holder, Named};
use super::rotation::RotationError;
use super::run::found_clients;
use super::sign_report::SignReport;
use super::trusted::certificate_pem;
use super::{ErrorKind, PkiError};
use crate::identity::SpiffeId;
use crate::tls::pem;

/// What is to be signed, and as what.
#[derive(Debug, Clone)]
pub struct SignOptions<'a> {
    pub dir: &'a Path,
    /// The file of the request.
    pub request: &'a Path,
    pub holder: &'a Holder,
    /// Days that the certificate is valid, cut short by the end of the CA.
    pub days: u32,
    /// Where the certificate goes, if not to its place in the directory.
    pub out: Option<&'a Path>,
    /// Whether the client may have a certificate of another key that is in force.
    pub again: bool,
}

/// Why a request is not signed.
#[derive(Debug, Error)]
pub enum SignError {
    #[error("{identity} has a certificate of another key, until {until} (serial {serial})")]
    Again {
        identity: SpiffeId,
        serial: String,
        until: Timestamp,
    },
    #[error("{} is there and not for the key of the request", path.display())]
    There { path: PathBuf },
    #[error("{} cannot be the file of a certificate", path.display())]
    Out { path: PathBuf },
}

impl SignError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Out { .. } => ErrorKind::Usage,
            Self::Again { .. } | Self::There { .. } => ErrorKind::Refused,
        }
    }

    pub(super) fn hint(&self) -> String {
        match self {
            Self::Again { serial, .. } => format!(
                "--again makes a second one; if the old key is lost, take its certificate back \
                 first: fsvc certs revoke --serial {serial}"
            ),
            Self::There { .. } => "give another file with --out".to_owned(),
            Self::Out { .. } => "give the name of a new file".to_owned(),
        }
    }
}

/// The signer at work.
struct Desk<'a> {
    disk: &'a Disk,
    layout: Layout,
    authority: Authority,
    ledger: Ledger,
    domain: TrustDomain,
    now: Timestamp,
    _lock: Lock,
}

/// See [`super::sign`].
pub(super) fn sign(
    disk: &Disk,
    options: &SignOptions<'_>,
    now: Timestamp,
) -> Result<SignReport, PkiError> {
    check_days("--days", options.days)?;
    let named = Named::parse(options.holder)?;
    let der = pem::read_request(options.request)?;
    let csr = csr::read(&der).map_err(|fault| CsrError::new(options.request, fault))?;
    let mut signer = Desk::open(disk, options.dir, now)?;
    signer.settle(options, &named, csr)
}

impl<'a> Desk<'a> {
    fn open(disk: &'a Disk, dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let layout = Layout::new(dir)?;
        let no_ca = || RotationError::NoCa {
            dir: dir.to_owned(),
        };
        if !disk::is_dir(layout.dir())? || !disk::is_dir(&layout.private())? {
            return Err(no_ca().into());
        }
        disk::check_owner(layout.dir(), false)?;
        disk::check_owner(&layout.private(), true)?;
        let lock = lock::take(&layout.lock(), lock::WAIT)?;
        leaf::mend_all(disk, &layout)?;
        let now = whole_second(now);
        let ledger = Ledger::read(&layout.ledger())?.ok_or_else(|| PkiError::LedgerLost {
            path: layout.ledger(),
        })?;
        let Found::Authority(authority) = authority::find(&layout, Some(&ledger), now)? else {
            return Err(no_ca().into());
        };
        let domain = ledger.ca().and_then(|ca| ca.trust_domain.as_deref());
        let domain = domain.ok_or_else(no_ca)?.parse()?;
        Ok(Self {
            disk,
            layout,
            authority: *authority,
            ledger,
            domain,
            now,
            _lock: lock,
        })
    }

    fn settle(
        &mut self,
        options: &SignOptions<'_>,
        named: &Named,
        csr: Csr,
    ) -> Result<SignReport, PkiError> {
        let role = named.role();
        let (identity, kind) = match named {
            Named::Client(name) => (self.domain.client(name), Kind::Client),
            Named::Server(_) => (self.domain.server(), Kind::Server),
        };
        let key_sha256 = sha256(&csr.public_key);
        if kind == Kind::Client && !options.again {
            self.refuse_second(&identity, &key_sha256)?;
        }
        let pair = named.pair(&self.layout);
        let target = target_of(options, &pair, &csr)?;
        let notes = self.notes(&identity, &key_sha256);
        self.signer(options)?;
        let policy = self.grant(named)?;

        let der = self.certify(options, &role, &identity, &csr)?;
        let facts = inspect::facts(&target, &der)?;
        let record = Record::issued(kind, &der, &facts, &self.authority.facts.serial);
        self.ledger.add(self.disk, record)?;
        let over = if disk::is_file(&target)? {
            if options.out.is_none() {
                let certificate = target.clone();
                let key = pair.key;
                leaf::archive(self.disk, &self.layout, &Pair { certificate, key })?;
            }
            Over::Old
        } else {
            Over::Nothing
        };
        if kind == Kind::Client && options.out.is_none() {
            self.disk.make_dir(&self.layout.clients(), DIR_PUBLIC)?;
        }
        let text = certificate_pem(&der);
        self.disk.write(&target, text.as_bytes(), PUBLIC, over)?;
        let granted = granted(&der, &role, &identity);
        Ok(SignReport {
            name: named.name(),
            certificate: target,
            hosts: facts.hosts,
            serial: facts.serial,
            ca: self.authority.facts.serial.clone(),
            expires_at: facts.validity.not_after,
            sha256: fingerprint(&der),
            public_key_sha256: key_sha256,
            key_kind: csr.key_kind,
            dropped: csr.asked.dropped(&granted),
            asked: csr.asked,
            identity,
            policy,
            notes,
        })
    }

    /// Gives a new client what the starter policy gives to each.
    fn grant(&self, named: &Named) -> Result<Option<PolicyItem>, PkiError> {
        let Named::Client(name) = named else {
            return Ok(None);
        };
        let before = found_clients(&self.layout)?;
        let mut wanted = before.clone();
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
        let plan = PolicyPlan::new(&self.layout, &self.domain, true, &before, &wanted)?;
        plan.settle(self.disk, &self.layout).map(Some)
    }

    fn signer(&self, options: &SignOptions<'_>) -> Result<&Issuer<'static, KeyPair>, PkiError> {
        let signer = self.authority.signer.as_ref();
        signer.ok_or_else(|| PkiError::NoCaKey {
            key: self.layout.ca_key(),
            needed: format!("{} must be signed", options.request.display()),
        })
    }

    fn certify(
        &self,
        options: &SignOptions<'_>,
        role: &Role,
        identity: &SpiffeId,
        csr: &Csr,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let signer = self.signer(options)?;
        let validity = Validity::of_leaf(self.now, options.days, self.authority.facts.validity)?;
        let key = SubjectPublicKeyInfo::from_der(&csr.public_key)
            .map_err(|error| issue::sign_error("a certificate", &error))?;
        issue::certify(signer, &key, role, identity, validity)
    }

    /// One key a client, unless the operator says otherwise: a name that is given twice by mistake
    /// makes two people one.
    fn refuse_second(&self, identity: &SpiffeId, key_sha256: &str) -> Result<(), PkiError> {
        let records = self.ledger.records().iter();
        let of_client = |record: &&Record| {
            record.identity.as_deref() == Some(identity.as_str()) && record.is_in_force(self.now)
        };
        let mut others: Vec<&Record> = records.filter(of_client).collect();
        if others
            .iter()
            .any(|record| record.public_key_sha256 == key_sha256)
        {
            return Ok(());
        }
        match others.pop() {
            None => Ok(()),
            Some(record) => Err(SignError::Again {
                identity: identity.clone(),
                serial: record.serial.clone(),
                until: record.not_after,
            }
            .into()),
        }
    }

    fn notes(&self, identity: &SpiffeId, key_sha256: &str) -> Vec<String> {
        let mut others: Vec<&str> = self
            .ledger
            .records()
            .iter()
            .filter(|record| record.public_key_sha256 == key_sha256)
            .filter_map(|record| record.identity.as_deref())
            .filter(|other| *other != identity.as_str())
            .collect();
        others.sort_unstable();
        others.dedup();
        let note = |other| format!("the same key has a certificate for {other}");
        others.into_iter().map(note).collect()
    }
}

/// What the certificate says, in the words of a request.
fn granted(der: &[u8], role: &Role, identity: &SpiffeId) -> Granted {
    let (hosts, purposes): (&[Host], &[&str]) = match role {
        Role::Server { hosts } => (hosts, &["serverAuth"]),
        Role::Client => (&[], &["clientAuth"]),
        Role::Peer { hosts } => (hosts, &["serverAuth", "clientAuth"]),
    };
    let usages = ["digitalSignature"].iter().chain(purposes);
    let mut names: Vec<String> = hosts.iter().map(csr::spell_host).collect();
    names.push(format!("URI:{}", identity.as_str()));
    Granted {
        subject: inspect::subject(der),
        names,
        usages: usages.map(ToString::to_string).collect(),
    }
}

/// Where the certificate goes. A file that is there must be of the same key.
fn target_of(options: &SignOptions<'_>, pair: &Pair, csr: &Csr) -> Result<PathBuf, PkiError> {
    let path = options
        .out
        .map_or_else(|| pair.certificate.clone(), Path::to_owned);
    if path.file_name().is_none() {
        return Err(SignError::Out { path }.into());
    }
    let is_ours = |path: &Path| -> Result<bool, PkiError> {
        let chain = pem::read_certificates(path)?;
        Ok(inspect::facts(path, &chain[0])?.public_key == csr.public_key)
    };
    let is_there = disk::is_file(&path)?;
    // A key beside it that was made here is another one: theirs never was here.
    let has_key = options.out.is_none() && disk::is_file(&pair.key)?;
    if (is_there && !is_ours(&path)?) || (has_key && !is_there) {
        return Err(SignError::There { path }.into());
    }
    Ok(path)
}
