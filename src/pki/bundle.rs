//! `ca.pem` edited by an operator: a CA of somebody else in, a CA out.
//!
//! What is added was vetted; what is taken out signs nothing here. On a machine without the CA's
//! key the directory itself is locked.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::asked::whole_second;
use super::bundle_error::BundleError;
use super::bundle_report::{BundleReport, CaChange, TrustedCa};
use super::disk::{self, Disk};
use super::inspect;
use super::issue::fingerprint;
use super::layout::{DIR_PUBLIC, Layout};
use super::lock::{self, Lock};
use super::rotation::{CaFiles, Rotation, RotationError};
use super::trusted::{CAS_MAX, Trusted};
use super::vet;
use super::{PkiError, asked};
use crate::tls::pem;

/// Where the revocation lists of added CAs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListSource<'a> {
    /// Nowhere: refused if the CAs that are trusted have lists.
    Unsaid,
    /// In this file.
    File(&'a Path),
    /// There are none, and servers do without.
    None,
}

/// Which CA is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick<'a> {
    /// Those in this file.
    File(&'a Path),
    /// The one with this distinguished name, or this common name.
    Subject(&'a str),
}

/// A directory whose bundle is edited.
pub(super) struct Bundle<'a> {
    disk: &'a Disk,
    layout: Layout,
    now: Timestamp,
    trusted: Trusted,
    _lock: Lock,
}

type Ca = CertificateDer<'static>;
type List = CertificateRevocationListDer<'static>;

impl<'a> Bundle<'a> {
    pub(super) fn open(disk: &'a Disk, dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let layout = Layout::new(dir)?;
        disk.make_dir(layout.dir(), DIR_PUBLIC)?;
        disk::check_owner(layout.dir(), false)?;
        let is_signer = disk::is_dir(&layout.private())?;
        let lock = if is_signer {
            lock::take(&layout.lock(), lock::WAIT)?
        } else {
            lock::take_dir(layout.dir(), lock::WAIT)?
        };
        if is_signer && !disk::is_file(&layout.ca())? {
            let dir = dir.to_owned();
            return Err(RotationError::NoCa { dir }.into());
        }
        disk.sweep(layout.dir())?;
        Ok(Self {
            disk,
            now: whole_second(now),
            trusted: Trusted::read(&layout)?,
            layout,
            _lock: lock,
        })
    }

    /// Trusts the CAs in `file`.
    pub(super) fn add(
        mut self,
        file: &Path,
        source: ListSource<'_>,
    ) -> Result<BundleReport, PkiError> {
        let new = pem::read_certificates(file)?;
        asked::check_count("CAs in one file", new.len(), CAS_MAX)?;
        let mut notes = Vec::new();
        for (index, ca) in new.iter().enumerate() {
            let vetted = vet::ca(file, ca, self.now)?;
            notes.extend(vetted.notes);
            self.refuse_same(file, ca, &new[..index], &vetted.facts.subject)?;
        }
        let lists = match source {
            ListSource::File(path) => self.vet_lists(path, &new)?,
            ListSource::Unsaid | ListSource::None => Vec::new(),
        };
        let mut changes = Vec::new();
        for ca in new {
            let list = lists.iter().find(|list| inspect::is_list_of(list, &ca));
            changes.push(self.add_one(ca, list, source)?);
        }
        self.trusted.write_more(self.disk, &self.layout)?;
        self.report(&changes, &[], notes)
    }

    /// Refuses a CA that stands in the file before, and one whose name another CA has.
    fn refuse_same(&self, file: &Path, ca: &Ca, before: &[Ca], name: &str) -> Result<(), PkiError> {
        let (path, name) = (file.to_owned(), name.to_owned());
        if before.contains(ca) {
            return Err(BundleError::Twice { path, name }.into());
        }
        let bundle = self.layout.ca();
        let places = [(file, before), (bundle.as_path(), &self.trusted.cas)];
        for (place, cas) in places {
            for other in cas.iter().filter(|other| *other != ca) {
                if inspect::have_one_name(other, ca) {
                    return Err(BundleError::SameName {
                        path: place.to_owned(),
                        name,
                        sha256: fingerprint(other),
                    }
                    .into());
                }
            }
        }
        Ok(())
    }

    fn vet_lists(&self, path: &Path, cas: &[Ca]) -> Result<Vec<List>, PkiError> {
        let lists = pem::read_revocation_lists(path)?;
        asked::check_count("lists in one file", lists.len(), CAS_MAX)?;
        for list in &lists {
            let own = cas.iter().find(|ca| inspect::is_list_of(list, ca));
            // With none of its own, the first one says whose list it is instead.
            let ca = own.unwrap_or(&cas[0]);
            vet::list(path, list, ca, self.trusted.list_of(ca), self.now)?;
        }
        Ok(lists)
    }

    fn add_one(
        &mut self,
        ca: Ca,
        list: Option<&List>,
        source: ListSource<'_>,
    ) -> Result<(Ca, CaChange), PkiError> {
        let name = vet::read(&self.layout.ca(), &ca)?.subject;
        let is_there = self.trusted.cas.contains(&ca);
        let path = self.layout.ca();
        let Some(list) = list else {
            if is_there {
                return Err(BundleError::There { path, name }.into());
            }
            // A list that a CA left behind when it was taken out once still counts.
            let is_needed = self.trusted.has_lists && !self.trusted.has_list(&ca);
            if is_needed && source != ListSource::None {
                let path = self.layout.crl();
                return Err(BundleError::NoList { path, name }.into());
            }
            self.trusted.cas.push(ca.clone());
            return Ok((ca, CaChange::Added));
        };
        let is_known = self.trusted.list_of(&ca).is_some_and(|old| old == list);
        self.trusted.put_list(&ca, list.clone());
        if !is_there {
            self.trusted.cas.push(ca.clone());
            Ok((ca, CaChange::Added))
        } else if is_known {
            Err(BundleError::There { path, name }.into())
        } else {
            Ok((ca, CaChange::ListRenewed))
        }
    }

    /// Trusts a CA no more.
    pub(super) fn remove(mut self, pick: Pick<'_>) -> Result<BundleReport, PkiError> {
        let picked = match pick {
            Pick::File(file) => self.picked_by_file(file)?,
            Pick::Subject(subject) => vec![self.picked_by_name(subject)?],
        };
        for ca in &picked {
            let name = vet::read(&self.layout.ca(), ca)?.subject;
            self.refuse_signing(ca, &name)?;
            self.trusted.cas.retain(|trusted| trusted != ca);
            if self.trusted.cas.is_empty() {
                let path = self.layout.ca();
                return Err(BundleError::Last { path, name }.into());
            }
            let is_shared = self
                .trusted
                .cas
                .iter()
                .any(|other| inspect::have_one_name(other, ca));
            if !is_shared {
                self.trusted
                    .lists
                    .retain(|list| !inspect::is_list_of(list, ca));
            }
        }
        self.trusted.write_fewer(self.disk, &self.layout)?;
        self.report(&[], &picked, Vec::new())
    }

    fn picked_by_file(&self, file: &Path) -> Result<Vec<Ca>, PkiError> {
        let picked = pem::read_certificates(file)?;
        for ca in &picked {
            if !self.trusted.cas.contains(ca) {
                return Err(self.not_there(vet::read(file, ca)?.subject)?);
            }
        }
        Ok(picked)
    }

    fn picked_by_name(&self, name: &str) -> Result<Ca, PkiError> {
        let path = self.layout.ca();
        let mut named = Vec::new();
        for ca in &self.trusted.cas {
            let subject = vet::read(&path, ca)?.subject;
            let is_named = subject == name || common_name(&subject) == Some(name);
            if is_named && !named.contains(ca) {
                named.push(ca.clone());
            }
        }
        let count = named.len();
        match (named.pop(), count) {
            (Some(ca), 1) => Ok(ca),
            (None, _) => Err(self.not_there(crate::escape::Escaped::new(name).to_string())?),
            (Some(_), _) => Err(BundleError::Ambiguous {
                path,
                name: crate::escape::Escaped::new(name).to_string(),
                count,
            }
            .into()),
        }
    }

    fn not_there(&self, wanted: String) -> Result<PkiError, PkiError> {
        let path = self.layout.ca();
        let mut has = Vec::new();
        for ca in &self.trusted.cas {
            has.push(vet::read(&path, ca)?.subject);
        }
        let has = has.join("; ");
        Ok(BundleError::NotThere { path, wanted, has }.into())
    }

    /// Refuses a CA that signs here, or that signed what is in use here.
    fn refuse_signing(&self, ca: &Ca, name: &str) -> Result<(), PkiError> {
        let rotation = Rotation::read(&self.layout)?;
        let files = CaFiles::of(&self.layout, rotation.as_ref());
        for pair in [Some(files.signing), files.other].into_iter().flatten() {
            let path = pair.certificate;
            if disk::is_file(&path)? && pem::read_certificates(&path)?.contains(ca) {
                let name = name.to_owned();
                return Err(BundleError::Signs { name }.into());
            }
        }
        for path in self.certificates()? {
            let chain = pem::read_certificates(&path)?;
            if chain.iter().any(|der| inspect::is_issued_by(der, ca)) {
                let name = name.to_owned();
                return Err(BundleError::InUse { name, path }.into());
            }
        }
        Ok(())
    }

    /// The certificates of the server and the clients that are here.
    fn certificates(&self) -> Result<Vec<PathBuf>, PkiError> {
        let clients = disk::list(&self.layout.clients())?.into_iter();
        let clients = clients
            .filter(|name| {
                name.strip_suffix(".pem")
                    .is_some_and(|stem| !stem.ends_with("-key"))
            })
            .map(|name| self.layout.clients().join(name));
        let mut paths = vec![self.layout.server().certificate];
        paths.extend(clients);
        let mut files = Vec::new();
        for path in paths {
            if disk::is_file(&path)? {
                files.push(path);
            }
        }
        Ok(files)
    }

    fn report(
        &self,
        changes: &[(Ca, CaChange)],
        removed: &[Ca],
        notes: Vec<String>,
    ) -> Result<BundleReport, PkiError> {
        let mut cas = Vec::new();
        let path = self.layout.ca();
        for ca in &self.trusted.cas {
            let change = changes.iter().find(|(changed, _)| changed == ca);
            let change = change.map_or(CaChange::Kept, |(_, change)| *change);
            cas.push(TrustedCa::new(
                &path,
                ca,
                change,
                self.trusted.has_list(ca),
            )?);
        }
        for ca in removed {
            cas.push(TrustedCa::new(&path, ca, CaChange::Removed, false)?);
        }
        Ok(BundleReport::new(path, cas, notes))
    }
}

/// The common name in a distinguished name as it is shown.
fn common_name(subject: &str) -> Option<&str> {
    subject
        .split(", ")
        .find_map(|part| part.strip_prefix("CN="))
}
