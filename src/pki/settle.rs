//! What a run writes once it has looked at everything, and the report of it.
//!
//! Each step leaves a state that the next run can take up.

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use super::PkiError;
use super::disk::{self, Over};
use super::inspect::{self, Facts};
use super::issue::{self, Role, fingerprint, sha256};
use super::layout::{DIR_PUBLIC, PUBLIC};
use super::leaf::{self, Survey, Wish};
use super::ledger::{Kind, Record, Status};
use super::name::ClientName;
use super::policy_file::{self, Change};
use super::report::{Item, PolicyItem, PolicyState, Report, State};
use super::run::{Run, Task};
use crate::tls::pem;

/// What is to be done about the policy.
pub(super) struct PolicyPlan {
    state: PolicyState,
    text: Option<(String, Over)>,
}

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
        let number_path = self.layout.crl_number();
        let signer = self.signer(|| format!("{} must be made", path.display()))?;
        let last = disk::read(&number_path)?.map_or(Ok(0), |bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.trim().parse::<u64>().map_err(|_| PkiError::WrongKind {
                path: number_path.clone(),
                found: "some text",
                expected: "the number of the last revocation list",
            })
        })?;
        let number = last.saturating_add(1);
        let text = issue::make_empty_crl(signer, self.now, self.authority.facts.validity, number)?;
        let line = format!("{number}\n");
        // The number first: a list must never come out under a number that was used before.
        self.disk
            .write(&number_path, line.as_bytes(), PUBLIC, Over::Old)?;
        self.disk
            .write(&path, text.as_bytes(), PUBLIC, Over::Nothing)
    }

    pub(super) fn complete_bundle(&self) -> Result<(), PkiError> {
        let path = self.layout.ca();
        if disk::is_file(&path)? {
            return Ok(());
        }
        let from = self.layout.ca_certificate();
        let bytes = disk::read(&from)?.ok_or(PkiError::CaHalf {
            present: self.layout.ledger(),
            missing: from,
        })?;
        self.disk.write(&path, &bytes, PUBLIC, Over::Nothing)
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
        let state = match survey {
            Survey::Keep {
                der,
                facts,
                has_key,
            } => return Ok(item(&wish, State::Kept, &der, facts, has_key)),
            Survey::Make => State::Made,
            Survey::Again { why, .. } => State::Renewed { why },
        };
        let signer = self.signer(|| format!("{} must be made", wish.name))?;
        let issued = issue::make_leaf(signer, &wish.role, &wish.identity, self.new_validity)?;
        let facts = inspect::facts(&wish.pair.certificate, &issued.der)?;
        let kind = match wish.role {
            Role::Server { .. } => Kind::Server,
            Role::Client => Kind::Client,
        };
        let record = self.record(kind, &issued.der, &facts);
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
        let is_ca = kind == Kind::Ca;
        Record {
            serial: facts.serial.clone(),
            kind,
            identity: facts.uris.first().cloned(),
            hosts: facts.hosts.iter().map(ToString::to_string).collect(),
            not_before: facts.validity.not_before,
            not_after: facts.validity.not_after,
            public_key_sha256: sha256(&facts.public_key),
            certificate_sha256: sha256(der),
            status: Status::Issued,
            ca: self.authority.facts.serial.clone(),
            trust_domain: is_ca.then(|| self.domain.to_string()),
        }
    }

    /// What the policy needs, given the clients that were there before and those that should be.
    pub(super) fn plan_policy(
        &self,
        before: &[ClientName],
        wanted: &[ClientName],
    ) -> Result<PolicyPlan, PkiError> {
        let is_new = |name: &&ClientName| !before.contains(name);
        let new: Vec<ClientName> = wanted.iter().filter(is_new).cloned().collect();
        let is_signer = self.authority.signer.is_some();
        let (state, text) = match disk::read(&self.layout.policy())? {
            None if !is_signer => (PolicyState::Missing, None),
            None => {
                let text = policy_file::render(&self.domain, wanted);
                (PolicyState::Made, Some((text, Over::Nothing)))
            }
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                match policy_file::extend(&text, &self.domain, before, &new) {
                    Change::None => (PolicyState::Kept, None),
                    Change::Tell(grants) => (PolicyState::Edited { grants }, None),
                    Change::Rewrite(text) => (PolicyState::Extended, Some((text, Over::Old))),
                }
            }
        };
        Ok(PolicyPlan { state, text })
    }

    /// Does what the plan asks for.
    pub(super) fn settle_policy(&self, plan: PolicyPlan) -> Result<PolicyItem, PkiError> {
        let path = self.layout.policy();
        if let Some((text, over)) = plan.text {
            self.disk.write(&path, text.as_bytes(), PUBLIC, over)?;
        }
        Ok(PolicyItem {
            path,
            state: plan.state,
        })
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
