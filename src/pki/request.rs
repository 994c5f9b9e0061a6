//! A key and a certificate request, made on the machine where the key is used.
//!
//! The key never leaves it, and one that is there is never overwritten.

use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use serde::Serialize;
use thiserror::Error;

use super::asked::check_count;
use super::csr::{self, spell_host};
use super::disk::{self, Disk, Over};
use super::issue::{self, COMMON_NAME_SIZE_MAX, Role, host_names, sha256, sign_error};
use super::layout::{DIR_PUBLIC, Layout, PUBLIC, Pair, SECRET};
use super::lock;
use super::name::{ClientName, Host};
use super::report::path;
use super::{HOSTS_MAX, PkiError};
use crate::tls::pem;

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A client, by its name.
    Client(String),
    /// A server, by the names and addresses that clients reach it at.
    Server(Vec<String>),
}

/// The same, checked.
pub(super) enum Named {
    Client(ClientName),
    Server(Vec<Host>),
}

impl Named {
    pub(super) fn parse(holder: &Holder) -> Result<Self, PkiError> {
        match holder {
            Holder::Client(name) => Ok(Self::Client(name.parse()?)),
            Holder::Server(texts) => {
                check_count("hosts", texts.len(), HOSTS_MAX)?;
                let mut hosts: Vec<Host> = Vec::new();
                for text in texts {
                    let host = text.parse()?;
                    if !hosts.contains(&host) {
                        hosts.push(host);
                    }
                }
                if hosts.is_empty() {
                    return Err(PkiError::NoHosts);
                }
                Ok(Self::Server(hosts))
            }
        }
    }

    pub(super) fn pair(&self, layout: &Layout) -> Pair {
        match self {
            Self::Client(name) => layout.client(name),
            Self::Server(_) => layout.server(),
        }
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Self::Client(_) => Role::Client,
            Self::Server(hosts) => Role::Server {
                hosts: hosts.clone(),
            },
        }
    }

    /// As it is shown: `server`, or the client's name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Client(name) => name.to_string(),
            Self::Server(_) => "server".to_owned(),
        }
    }

    fn common_name(&self) -> String {
        let name = match self {
            Self::Client(name) => name.to_string(),
            Self::Server(hosts) => hosts.first().map_or_else(String::new, Host::to_string),
        };
        name.chars().take(COMMON_NAME_SIZE_MAX).collect()
    }

    fn hosts(&self) -> &[Host] {
        match self {
            Self::Client(_) => &[],
            Self::Server(hosts) => hosts,
        }
    }
}

/// Why no request is made.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error("{} is where certificates are signed: its keys need no request", dir.display())]
    Signer { dir: PathBuf, name: String },
    #[error("{} is there already", path.display())]
    There { path: PathBuf },
}

impl RequestError {
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Signer { name, .. } => {
                format!("make it here: fsvc certs add {name}; or choose another --dir")
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
    /// `server`, or the client's name.
    pub name: String,
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
    /// SHA-256 of the public key.
    pub public_key_sha256: String,
}

/// See [`super::request`].
pub(super) fn make(
    disk: &Disk,
    dir: &Path,
    holder: &Holder,
    reuse_key: bool,
) -> Result<RequestReport, PkiError> {
    let named = Named::parse(holder)?;
    let layout = Layout::new(dir)?;
    if disk::is_dir(layout.dir())? && disk::is_dir(&layout.private())? {
        let flag = match &named {
            Named::Client(name) => format!("--client {name}"),
            Named::Server(hosts) => format!("--server --host {}", hosts[0]),
        };
        let dir = dir.to_owned();
        return Err(RequestError::Signer { dir, name: flag }.into());
    }
    disk.make_dir(layout.dir(), DIR_PUBLIC)?;
    disk::check_owner(layout.dir(), false)?;
    let _lock = lock::take_dir(layout.dir(), lock::WAIT)?;
    if matches!(named, Named::Client(_)) {
        disk.make_dir(&layout.clients(), DIR_PUBLIC)?;
    }
    for dir in [layout.dir(), &layout.clients()] {
        disk.sweep(dir)?;
    }
    let pair = named.pair(&layout);
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
        name: named.name(),
        request: path,
        key: pair.key,
        new_key,
        new_request,
        certificate: pair.certificate,
        hosts: named.hosts().to_vec(),
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
    let wanted: Vec<String> = named.hosts().iter().map(spell_host).collect();
    let subject = format!("CN={}", named.common_name());
    Ok(csr::read(&der).is_ok_and(|csr| {
        csr.public_key == public_key && csr.asked.names == wanted && csr.asked.subject == subject
    }))
}

fn render(named: &Named, key: &KeyPair) -> Result<String, PkiError> {
    let failed = |error| sign_error("a certificate request", &error);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, named.common_name());
    params.subject_alt_names = host_names(named.hosts()).map_err(failed)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match named {
        Named::Client(_) => ExtendedKeyUsagePurpose::ClientAuth,
        Named::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    let request = params.serialize_request(key).map_err(failed)?;
    request.pem().map_err(failed)
}

impl RequestReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let made = |is_new: bool| if is_new { "made" } else { "kept" };
        let who = if self.name == "server" {
            let hosts: Vec<String> = self
                .hosts
                .iter()
                .map(|host| format!(" --host {host}"))
                .collect();
            format!("--server{}", hosts.concat())
        } else {
            format!("--client {}", self.name)
        };
        format!(
            "  request  {}   {}: send it to whoever signs\n  \
               key      {}   {}: it stays here\n           \
                        public key sha256 {}\n\n\
             Sign it:    fsvc certs sign {} {who}\n\
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
