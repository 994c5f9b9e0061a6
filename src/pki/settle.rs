//! What a run writes once it has looked at everything, and the report of it.
//!
//! Each step leaves a state that the next run can take up.

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use super::PkiError;
use super::authority;
use super::disk::{self, Over};
use super::inspect::{self, Facts};
use super::issue::{self, Role, fingerprint};
use super::layout::{DIR_PUBLIC, PUBLIC};
use super::leaf::{self, Survey, Wish};
use super::ledger::{Kind, Record};
use super::name::ClientName;
use super::policy_plan::PolicyPlan;
use super::report::{Item, PolicyItem, Report, State};
use super::rotation::{CaFiles, Rotation};
use super::run::{Run, Task};
use super::trusted::{self, Trusted, certificate_pem};
use crate::tls::pem;

impl Run<'_> {
    pub(super) fn check_crl(&self) -> Result<(), PkiError> {
        let path = self.layout.crl();
        if !disk::is_file(&path)? {
            return Ok(());
        }
        let lists = pem::read_revocation_lists(&path)?;
        let own = &self.authority.anchors[0];
        if lists.iter().any(|list| inspect::is_list_of(list, own)) {
            return Ok(());
        }
        Err(PkiError::OtherCa {
            path,
            what: "the revocation list",
            certificate: self.layout.ca(),
        })
    }

    pub(super) fn complete_crl(&self) -> Result<(), PkiError> {
        let path = self.layout.crl();
        if disk::is_file(&path)? {
            return Ok(());
        }
        self.signer(|| format!("{} must be made", path.display()))?;
        let rotation = Rotation::read(&self.layout)?;
        let files = CaFiles::of(&self.layout, rotation.as_ref());
        let mut trusted = Trusted::read(&self.layout)?;
        for pair in [Some(files.signing), files.other].into_iter().flatten() {
            let ca = authority::open(&pair)?;
            let list = trusted::make_list(self.disk, &self.layout, &ca, &self.ledger, self.now)?;
            trusted.put_list(&ca.anchors[0], list);
        }
        trusted.write_lists(self.disk, &self.layout)
    }

    pub(super) fn complete_bundle(&self) -> Result<(), PkiError> {
        let path = self.layout.ca();
        if disk::is_file(&path)? {
            return Ok(());
        }
        // During a change of the CA the other one is trusted too.
        let anchors = self.authority.anchors.iter();
        let text: String = anchors.map(|anchor| certificate_pem(anchor)).collect();
        self.disk
            .write(&path, text.as_bytes(), PUBLIC, Over::Nothing)
    }

    pub(super) fn signer(
        &self,
        needed: impl FnOnce() -> String,
    ) -> Result<&Issuer<'static, KeyPair>, PkiError> {
        self.authority
            .signer
            .as_ref()
            .ok_or_else(|| PkiError::NoCaKey {
                key: self.layout.ca_key(),
                needed: needed(),
            })
    }

    /// Does what a task asks for.
    pub(super) fn settle(&mut self, task: Task) -> Result<Item, PkiError> {
        let Task { wish, survey } = task;
        let mut replaces = None;
        let state = match survey {
            Survey::Keep {
                der,
                facts,
                has_key,
            } => return Ok(item(&wish, State::Kept, &der, facts, has_key)),
            Survey::Make => State::Made,
            Survey::Again { why, old } => {
                replaces = old.map(|old| old.serial);
                State::Renewed { why }
            }
        };
        let signer = self.signer(|| format!("{} must be made", wish.name))?;
        let issued = issue::make_leaf(signer, &wish.role, &wish.identity, self.new_validity)?;
        let facts = inspect::facts(&wish.pair.certificate, &issued.der)?;
        let kind = match wish.role {
            Role::Server { .. } => Kind::Server,
            Role::Client => Kind::Client,
            Role::Peer { .. } => Kind::Peer,
        };
        let mut record = self.record(kind, &issued.der, &facts);
        record.replaces = replaces;
        self.ledger.add(self.disk, record)?;
        let over = if state == State::Made {
            Over::Nothing
        } else {
            leaf::archive(self.disk, &self.layout, &wish.pair)?;
            Over::Old
        };
        if kind == Kind::Client {
            self.disk.make_dir(&self.layout.clients(), DIR_PUBLIC)?;
        }
        leaf::write(self.disk, &wish.pair, &issued, over)?;
        Ok(item(&wish, state, &issued.der, facts, true))
    }

    pub(super) fn record(&self, kind: Kind, der: &CertificateDer<'_>, facts: &Facts) -> Record {
        let mut record = Record::issued(kind, der, facts, &self.authority.facts.serial);
        record.trust_domain = (kind == Kind::Ca).then(|| self.domain.to_string());
        record
    }

    /// What the policy needs, given the clients that were there before and those that should be.
    pub(super) fn plan_policy(
        &self,
        before: &[ClientName],
        wanted: &[ClientName],
    ) -> Result<PolicyPlan, PkiError> {
        let is_signer = self.authority.signer.is_some();
        PolicyPlan::new(&self.layout, &self.domain, is_signer, before, wanted)
    }

    pub(super) fn report(self, server: Item, clients: Vec<Item>, policy: PolicyItem) -> Report {
        let state = if self.authority.is_new {
            State::Made
        } else {
            State::Kept
        };
        let has_key = self.authority.signer.is_some();
        let ca = Item {
            name: "ca".to_owned(),
            state,
            certificate: self.layout.ca(),
            key: has_key.then(|| self.layout.ca_key()),
            expires_at: self.authority.facts.validity.not_after,
            sha256: fingerprint(&self.authority.anchors[0]),
            identity: None,
            hosts: Vec::new(),
        };
        let mut report = Report {
            dir: self.layout.dir().to_owned(),
            trust_domain: self.domain.to_string(),
            now: self.now,
            ca,
            server,
            clients,
            policy,
            skipped_hosts: Vec::new(),
            notes: Vec::new(),
        };
        if report.server.state == State::Made {
            report.skipped_hosts = self.asked.skipped_hosts;
        }
        report.add_notes(self.options.days, self.authority.facts.validity);
        report
    }
}

fn item(wish: &Wish, state: State, der: &[u8], facts: Facts, has_key: bool) -> Item {
    Item {
        name: wish.name.clone(),
        state,
        certificate: wish.pair.certificate.clone(),
        key: has_key.then(|| wish.pair.key.clone()),
        expires_at: facts.validity.not_after,
        sha256: fingerprint(der),
        identity: Some(wish.identity.clone()),
        hosts: facts.hosts,
    }
}
