//! One run, from the options to the report.
//!
//! Looks at everything first; then writes, in an order that leaves a usable state at each step.

use jiff::Timestamp;

use super::asked::{Asked, whole_second};
use super::authority::{self, Authority, Found};
use super::disk::{self, Disk, Over};
use super::inspect::{self, Why};
use super::issue::{CA_BACKDATE, Role, Validity, whole_days};
use super::layout::{DIR_PUBLIC, DIR_SECRET, Layout, PUBLIC};
use super::leaf::{self, Survey, Wish};
use super::ledger::{Kind, Ledger};
use super::lock::{self, Lock};
use super::name::{ClientName, TrustDomain};
use super::report::{Item, Report};
use super::{CA_DAYS_DEFAULT, Options, PkiError};
use crate::tls::pem;

/// A run in progress.
pub(super) struct Run<'a> {
    pub(super) options: &'a Options,
    pub(super) disk: &'a Disk,
    pub(super) layout: Layout,
    pub(super) now: Timestamp,
    pub(super) asked: Asked,
    pub(super) authority: Authority,
    pub(super) ledger: Ledger,
    pub(super) domain: TrustDomain,
    /// What certificates made in this run get.
    pub(super) new_validity: Validity,
}

/// A wish and what is to be done about it.
pub(super) struct Task {
    pub(super) wish: Wish,
    pub(super) survey: Survey,
}

/// See [`super::ensure`].
pub(super) fn ensure(options: &Options, now: Timestamp, disk: &Disk) -> Result<Report, PkiError> {
    let now = whole_second(now);
    let asked = Asked::parse(options)?;
    let layout = Layout::new(&options.dir)?;
    let _lock = prepare(disk, &layout)?;
    let mut run = begin(options, now, asked, layout, disk)?;

    let found = found_clients(&run.layout)?;
    let (wanted, revoked) = run.in_good_standing(run.asked.clients_with(&found)?);
    let server = run.survey(run.server_wish())?;
    let wishes = wanted.iter().map(|name| run.survey(run.client_wish(name)));
    let clients = wishes.collect::<Result<Vec<Task>, PkiError>>()?;
    let policy = run.plan_policy(&found, &wanted)?;
    run.check_crl()?;

    run.complete_crl()?;
    let server = run.settle(server)?;
    let policy = policy.settle(disk, &run.layout)?;
    let clients = clients.into_iter().map(|task| run.settle(task));
    let clients = clients.collect::<Result<Vec<Item>, PkiError>>()?;
    run.complete_bundle()?;
    let mut report = run.report(server, clients, policy);
    report.add_revoked(&revoked);
    Ok(report)
}

/// Makes the directories and takes the lock; on a machine that was only handed certificates there
/// is nothing to lock.
fn prepare(disk: &Disk, layout: &Layout) -> Result<Option<Lock>, PkiError> {
    let is_there = disk::is_dir(layout.dir())?;
    let is_signer = is_there && disk::is_dir(&layout.private())?;
    if is_there && !is_signer {
        if disk::is_file(&layout.ca())? {
            return Ok(None);
        }
        match authority::refuse_foreign(layout) {
            // Another run has begun since the first look: what is there is its own.
            Err(_) if disk::is_dir(&layout.private())? => {}
            checked => checked?,
        }
    }
    disk.make_dir(layout.dir(), DIR_PUBLIC)?;
    disk::check_owner(layout.dir(), false)?;
    disk.make_dir(&layout.private(), DIR_SECRET)?;
    disk::check_owner(&layout.private(), true)?;
    let lock = lock::take(&layout.lock(), lock::WAIT)?;
    leaf::mend_all(disk, layout)?;
    if !disk::is_file(&layout.gitignore())? {
        disk.write(&layout.gitignore(), b"*\n", PUBLIC, Over::Nothing)?;
    }
    Ok(Some(lock))
}

/// Finds or makes the CA, its list and its trust domain.
fn begin<'a>(
    options: &'a Options,
    now: Timestamp,
    asked: Asked,
    layout: Layout,
    disk: &'a Disk,
) -> Result<Run<'a>, PkiError> {
    let ledger = Ledger::read(&layout.ledger())?;
    let found = authority::find(&layout, ledger.as_ref(), now)?;
    if let Found::Authority(authority) = &found {
        check_ca_days(options, authority)?;
        let is_lost = ledger.is_none() && disk::is_file(&layout.ca())?;
        if is_lost && authority.signer.is_some() {
            return Err(PkiError::LedgerLost {
                path: layout.ledger(),
            });
        }
    }
    let ledger = ledger.unwrap_or_else(|| Ledger::empty(&layout.ledger()));
    let domain = trust_domain(&asked, &ledger, &layout)?;
    let make = |key| {
        let days = options.ca_days.unwrap_or(CA_DAYS_DEFAULT);
        let validity = Validity::of_ca(now, days)?;
        authority::make(disk, &layout, key, &options.author, validity)
    };
    let authority = match found {
        Found::Authority(authority) => *authority,
        Found::KeyAlone(key) => make(Some(key))?,
        Found::Nothing => make(None)?,
    };
    let new_validity = Validity::of_leaf(now, options.days, authority.facts.validity)?;
    let mut run = Run {
        options,
        disk,
        layout,
        now,
        asked,
        authority,
        ledger,
        domain,
        new_validity,
    };
    if run.authority.signer.is_some() && run.ledger.ca().is_none() {
        let record = run.record(Kind::Ca, &run.authority.anchors[0], &run.authority.facts);
        run.ledger.add(disk, record)?;
    }
    Ok(run)
}

fn check_ca_days(options: &Options, authority: &Authority) -> Result<(), PkiError> {
    let Some(asked) = options.ca_days else {
        return Ok(());
    };
    let Validity {
        not_before,
        not_after,
    } = authority.facts.validity;
    let life = not_after.duration_since(not_before) - CA_BACKDATE;
    if life == whole_days(asked) {
        return Ok(());
    }
    Err(PkiError::CaChange {
        property: "validity",
        has: format!("{} days", life.as_hours() / 24),
        asked: format!("{asked} days (--ca-days)"),
    })
}

/// The trust domain as it was settled once, else as asked for.
fn trust_domain(asked: &Asked, ledger: &Ledger, layout: &Layout) -> Result<TrustDomain, PkiError> {
    let recorded = ledger.ca().and_then(|ca| ca.trust_domain.clone());
    let settled = match recorded {
        Some(text) => Some(text.parse::<TrustDomain>()?),
        None => domain_in_use(layout),
    };
    match (settled, &asked.trust_domain) {
        (Some(has), Some(asked)) if has != *asked => Err(PkiError::CaChange {
            property: "trust domain",
            has: has.to_string(),
            asked: format!("{asked} (--trust-domain)"),
        }),
        (Some(domain), _) => Ok(domain),
        (None, _) => asked.domain_for_new(),
    }
}

fn domain_in_use(layout: &Layout) -> Option<TrustDomain> {
    let path = layout.server().certificate;
    let chain = pem::read_certificates(&path).ok()?;
    let facts = inspect::facts(&path, chain.first()?).ok()?;
    let id: crate::identity::SpiffeId = facts.uris.first()?.parse().ok()?;
    id.trust_domain().parse().ok()
}

/// The clients that have a file.
pub(super) fn found_clients(layout: &Layout) -> Result<Vec<ClientName>, PkiError> {
    let mut clients: Vec<ClientName> = disk::list(&layout.clients())?
        .iter()
        .filter_map(|file| file.strip_suffix(".pem"))
        .filter_map(|stem| stem.strip_suffix("-key").unwrap_or(stem).parse().ok())
        .collect();
    clients.sort();
    clients.dedup();
    Ok(clients)
}

impl Run<'_> {
    /// Parts the clients whose last certificate was revoked from the others: they get no new one by
    /// the way.
    fn in_good_standing(&self, clients: Vec<ClientName>) -> (Vec<ClientName>, Vec<ClientName>) {
        let is_revoked = |name: &ClientName| {
            let identity = self.domain.client(name);
            let mut records = self.ledger.records().iter().rev();
            let last = records.find(|record| record.identity.as_deref() == Some(identity.as_str()));
            last.is_some_and(|record| record.revocation.is_some())
        };
        clients.into_iter().partition(|name| !is_revoked(name))
    }

    /// Whether the index says that this certificate is not good any more.
    fn is_revoked(&self, serial: &str) -> bool {
        let mut records = self.ledger.records().iter();
        records.any(|record| record.serial == serial && record.revocation.is_some())
    }

    fn server_wish(&self) -> Wish {
        Wish {
            name: "server".to_owned(),
            role: Role::Server {
                hosts: self.asked.hosts.clone(),
            },
            identity: self.domain.server(),
            pair: self.layout.server(),
            is_asked: true,
        }
    }

    fn client_wish(&self, name: &ClientName) -> Wish {
        Wish {
            name: name.to_string(),
            role: Role::Client,
            identity: self.domain.client(name),
            pair: self.layout.client(name),
            is_asked: self.asked.clients.contains(name),
        }
    }

    /// What is to be done about `wish`; refused if that takes a key that is not here.
    fn survey(&self, mut wish: Wish) -> Result<Task, PkiError> {
        let mut survey = leaf::survey(&wish, &self.authority, self.now, self.new_validity)?;
        if let Survey::Keep { facts, has_key, .. } = &survey
            && (*has_key || wish.is_asked)
            && self.is_revoked(&facts.serial)
        {
            let old = Some(facts.clone());
            let why = Why::Revoked;
            survey = Survey::Again { why, old };
        }
        let old = match &survey {
            Survey::Keep { .. } => return Ok(Task { wish, survey }),
            Survey::Make => None,
            Survey::Again { old, .. } => old.as_ref(),
        };
        if let Role::Server { hosts } = &mut wish.role {
            *hosts = self
                .asked
                .hosts_for_new(old.map(|old| old.hosts.as_slice()))?;
        }
        self.signer(|| must_be_made(&wish, &survey))?;
        Ok(Task { wish, survey })
    }
}

fn must_be_made(wish: &Wish, survey: &Survey) -> String {
    let path = wish.pair.certificate.display();
    match survey {
        Survey::Again { why, .. } => format!("{path} must be made again: {why}"),
        Survey::Make | Survey::Keep { .. } => format!("{path} must be made"),
    }
}
