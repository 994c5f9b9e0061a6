//! A certificate for a key that is somewhere else.
//!
//! Of the request only the key is taken; the operator says whom it is for. The certificate is in
//! the index before it has a file name.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::asked::check_days;
use super::bearer::{Bearer, Holder, Named};
use super::csr::{self, Csr, CsrError, Granted};
use super::disk::{self, Disk, Over};
use super::inspect;
use super::issue::{self, Role, Validity, fingerprint, sha256};
use super::layout::{DIR_PUBLIC, PUBLIC, Pair};
use super::leaf;
use super::ledger::Record;
use super::life_report::life_notes;
use super::name::Host;
use super::reason::Reason;
use super::sign_report::SignReport;
use super::signer::Signer;
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
    pub holder: Holder<'a>,
    /// Days that the certificate is valid, cut short by the end of the CA.
    pub days: u32,
    /// Where the certificate goes, if not to its place in the directory.
    pub out: Option<&'a Path>,
    /// Whether the name may have a certificate of another key that is in force.
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
    #[error("the certificate of {identity} was revoked {at} ({reason})")]
    Revoked {
        identity: SpiffeId,
        at: Timestamp,
        reason: Reason,
    },
    #[error(
        "the key of the request was compromised: a certificate of it was revoked for that, {at} (serial {serial})"
    )]
    Compromised { serial: String, at: Timestamp },
    #[error("{} is there and not for the key of the request", path.display())]
    There { path: PathBuf },
    #[error("{} cannot be the file of a certificate", path.display())]
    Out { path: PathBuf },
}

impl SignError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Out { .. } => ErrorKind::Usage,
            Self::Again { .. }
            | Self::Revoked { .. }
            | Self::Compromised { .. }
            | Self::There { .. } => ErrorKind::Refused,
        }
    }

    pub(super) fn hint(&self) -> String {
        match self {
            Self::Again { serial, .. } => format!(
                "--again makes a second one; if the old key is lost, take its certificate back \
                 first: fsvc certs revoke --serial {serial}"
            ),
            Self::Revoked { .. } => "if that is what you want: --again".to_owned(),
            Self::Compromised { .. } => {
                "have a new key made where it is used: fsvc certs request in another --dir"
                    .to_owned()
            }
            Self::There { .. } => "give another file with --out".to_owned(),
            Self::Out { .. } => "give the name of a new file".to_owned(),
        }
    }
}

/// See [`super::sign`].
pub(super) fn sign(
    disk: &Disk,
    options: &SignOptions<'_>,
    now: Timestamp,
) -> Result<SignReport, PkiError> {
    check_days("--days", options.days)?;
    let named = Named::parse(options.holder)?;
    let bearer = &named.bearer;
    let der = pem::read_request(options.request)?;
    let csr = csr::read(&der).map_err(|fault| CsrError::new(options.request, fault))?;
    let mut signer = Signer::open(disk, options.dir, now)?;
    signer.complete_lists()?;

    let role = named.role();
    let identity = bearer.identity(&signer.domain);
    let key_sha256 = sha256(&csr.public_key);
    refuse_revoked(&signer, bearer, options.again, &key_sha256)?;
    // The server of the directory may run on several machines, each with a key of its own.
    if *bearer != Bearer::Main && !options.again {
        refuse_second(&signer, bearer, &key_sha256)?;
    }
    let pair = bearer.pair(&signer.layout);
    let target = target_of(options, &pair, &csr)?;
    let mut notes = notes(&signer, &identity, &key_sha256);
    let authority = signer.authority(|| format!("{} must be signed", options.request.display()))?;
    let policy = signer.grant(bearer)?;
    let ca_end = authority.facts.validity.not_after;
    notes.extend(life_notes(
        bearer.kind(),
        (options.days, ca_end),
        signer.now,
    ));

    let issuer = authority.signer.as_ref().expect("the key is here");
    let validity = Validity::of_leaf(signer.now, options.days, authority.facts.validity)?;
    let key = SubjectPublicKeyInfo::from_der(&csr.public_key)
        .map_err(|error| issue::sign_error("a certificate", &error))?;
    let der = issue::certify(issuer, &key, &role, &identity, validity)?;
    let facts = inspect::facts(&target, &der)?;
    let record = Record::issued(bearer.kind(), &der, &facts, &authority.facts.serial);
    signer.ledger.add(disk, record)?;
    put(&signer, options, (bearer, pair), (&target, &der))?;
    let granted = granted(&der, &role, &identity);
    Ok(SignReport {
        name: bearer.name().to_owned(),
        kind: bearer.kind(),
        certificate: target,
        hosts: facts.hosts,
        serial: facts.serial,
        ca: authority.facts.serial,
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

/// Gives the certificate its file name.
fn put(
    signer: &Signer<'_>,
    options: &SignOptions<'_>,
    (bearer, pair): (&Bearer, Pair),
    (target, der): (&Path, &CertificateDer<'_>),
) -> Result<(), PkiError> {
    let (disk, layout) = (signer.disk, &signer.layout);
    let is_own_place = options.out.is_none();
    let over = if disk::is_file(target)? {
        if is_own_place {
            leaf::archive(disk, layout, &pair)?;
        }
        Over::Old
    } else {
        Over::Nothing
    };
    if is_own_place && let Some(dir) = bearer.directory(layout) {
        disk.make_dir(&dir, DIR_PUBLIC)?;
    }
    disk.write(target, certificate_pem(der).as_bytes(), PUBLIC, over)
}

/// What was taken is not given back by the way, and a key that is known to others is not good for
/// anybody.
fn refuse_revoked(
    signer: &Signer<'_>,
    bearer: &Bearer,
    again: bool,
    key_sha256: &str,
) -> Result<(), PkiError> {
    if let Some((serial, at)) = signer.compromised(key_sha256) {
        return Err(SignError::Compromised { serial, at }.into());
    }
    let last = signer.records_of(bearer).pop();
    match last.and_then(|last| last.revocation.as_ref()) {
        Some(revocation) if !again => Err(SignError::Revoked {
            identity: bearer.identity(&signer.domain),
            at: revocation.at,
            reason: revocation.reason,
        }
        .into()),
        _ => Ok(()),
    }
}

/// One key a name, unless the operator says otherwise: a name that is given twice by mistake makes
/// two people one.
fn refuse_second(signer: &Signer<'_>, bearer: &Bearer, key_sha256: &str) -> Result<(), PkiError> {
    let mut others = signer.records_of(bearer);
    others.retain(|record| record.is_in_force(signer.now));
    if others
        .iter()
        .any(|record| record.public_key_sha256 == key_sha256)
    {
        return Ok(());
    }
    match others.pop() {
        None => Ok(()),
        Some(record) => Err(SignError::Again {
            identity: bearer.identity(&signer.domain),
            serial: record.serial.clone(),
            until: record.not_after,
        }
        .into()),
    }
}

fn notes(signer: &Signer<'_>, identity: &SpiffeId, key_sha256: &str) -> Vec<String> {
    let records = signer.ledger.records().iter();
    let mut others: Vec<&str> = records
        .filter(|record| record.public_key_sha256 == key_sha256)
        .filter_map(|record| record.identity.as_deref())
        .filter(|other| *other != identity.as_str())
        .collect();
    others.sort_unstable();
    others.dedup();
    let note = |other| format!("the same key has a certificate for {other}");
    others.into_iter().map(note).collect()
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
