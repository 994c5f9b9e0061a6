//! A key and a certificate request, made on the machine where the key is used.
//!
//! The key never leaves it, and one that is there is never overwritten.

use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use serde::Serialize;
use thiserror::Error;

use super::PkiError;
use super::bearer::{Holder, Named};
use super::csr::{self, spell_host};
use super::disk::{self, Disk, Over};
use super::issue::{self, host_names, sha256, sign_error};
use super::layout::{DIR_PUBLIC, Layout, PUBLIC, SECRET};
use super::ledger::Kind;
use super::lock;
use super::name::Host;
use super::report::path;
use crate::tls::pem;

/// Why no request is made.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error("{} is where certificates are signed: its keys need no request", dir.display())]
    Signer { dir: PathBuf, flags: String },
    #[error("{} is there already", path.display())]
    There { path: PathBuf },
}

impl RequestError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Signer { flags, .. } => {
                format!("make it here: fsvc certs add {flags}; or choose another --dir")
            }
            Self::There { .. } => "ask for a new certificate of the same key with --reuse-key, or \
                                   make a new key in another --dir"
                .to_owned(),
        }
    }
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestReport {
    /// `server`, or the name of the client, server or peer.
    pub name: String,
    pub kind: Kind,
    #[serde(serialize_with = "path")]
    pub request: PathBuf,
    #[serde(serialize_with = "path")]
    pub key: PathBuf,
    /// Whether the key was made, rather than found.
    pub new_key: bool,
    /// Whether the request was made, rather than found.
    pub new_request: bool,
    /// Where the certificate goes.
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    pub hosts: Vec<Host>,
    /// The flags of `fsvc certs sign` for it.
    #[serde(skip)]
    flags: String,
    /// SHA-256 of the public key.
    pub public_key_sha256: String,
}

/// See [`super::request`].
pub(super) fn make(
    disk: &Disk,
    dir: &Path,
    holder: Holder<'_>,
    reuse_key: bool,
) -> Result<RequestReport, PkiError> {
    let named = Named::parse(holder)?;
    let layout = Layout::new(dir)?;
    if disk::is_dir(layout.dir())? && disk::is_dir(&layout.private())? {
        let (dir, flags) = (dir.to_owned(), named.flags());
        return Err(RequestError::Signer { dir, flags }.into());
    }
    disk.make_dir(layout.dir(), DIR_PUBLIC)?;
    disk::check_owner(layout.dir(), false)?;
    let _lock = lock::take_dir(layout.dir(), lock::WAIT)?;
    if let Some(dir) = named.bearer.directory(&layout) {
        disk.make_dir(&dir, DIR_PUBLIC)?;
        disk.sweep(&dir)?;
    }
    disk.sweep(layout.dir())?;
    let pair = named.bearer.pair(&layout);
    if disk::is_file(&pair.certificate)? && !reuse_key {
        let path = pair.certificate;
        return Err(RequestError::There { path }.into());
    }
    let (key, new_key) = find_or_make_key(disk, &pair.key)?;
    let path = pair.certificate.with_extension("csr");
    let public_key = key.subject_public_key_info();
    let new_request = !is_request_for(&path, &public_key, &named)?;
    if new_request {
        let text = render(&named, &key)?;
        disk.write(&path, text.as_bytes(), PUBLIC, Over::Old)?;
    }
    Ok(RequestReport {
        name: named.bearer.name().to_owned(),
        kind: named.bearer.kind(),
        request: path,
        key: pair.key,
        new_key,
        new_request,
        certificate: pair.certificate,
        flags: named.flags(),
        hosts: named.hosts,
        public_key_sha256: sha256(&public_key),
    })
}

fn find_or_make_key(disk: &Disk, path: &Path) -> Result<(KeyPair, bool), PkiError> {
    if !disk::is_file(path)? {
        let key = issue::make_key()?;
        disk.write(path, key.serialize_pem().as_bytes(), SECRET, Over::Nothing)?;
        return Ok((key, true));
    }
    disk::check_owner(path, true)?;
    let der = pem::read_private_key(path)?;
    let key = KeyPair::try_from(&der).map_err(|error| PkiError::Certificate {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok((key, false))
}

/// Whether the file is a good request of this key with these hosts.
fn is_request_for(path: &Path, public_key: &[u8], named: &Named) -> Result<bool, PkiError> {
    if !disk::is_file(path)? {
        return Ok(false);
    }
    let Ok(der) = pem::read_request(path) else {
        return Ok(false);
    };
    let wanted: Vec<String> = named.hosts.iter().map(spell_host).collect();
    let subject = format!("CN={}", common_name(named));
    Ok(csr::read(&der).is_ok_and(|csr| {
        csr.public_key == public_key && csr.asked.names == wanted && csr.asked.subject == subject
    }))
}

fn common_name(named: &Named) -> String {
    named.role().common_name(named.bearer.name())
}

fn render(named: &Named, key: &KeyPair) -> Result<String, PkiError> {
    let failed = |error| sign_error("a certificate request", &error);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name(named));
    params.subject_alt_names = host_names(&named.hosts).map_err(failed)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = named.role().purposes();
    let request = params.serialize_request(key).map_err(failed)?;
    request.pem().map_err(failed)
}

impl RequestReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let made = |is_new: bool| if is_new { "made" } else { "kept" };
        let flags = &self.flags;
        format!(
            "  request  {}   {}: send it to whoever signs\n  \
               key      {}   {}: it stays here\n           \
                        public key sha256 {}\n\n\
             Sign it:    fsvc certs sign {} {flags}\n\
             Put back:   the certificate as {}, with ca.pem beside it\n",
            self.request.display(),
            made(self.new_request),
            self.key.display(),
            made(self.new_key),
            self.public_key_sha256,
            self.request.file_name().unwrap_or_default().display(),
            self.certificate.display(),
        )
    }
}
