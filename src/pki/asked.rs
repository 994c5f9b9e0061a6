//! The options, checked: nothing is touched before all of them make sense.
//!
//! Reads no file; a made-up trust domain is the only thing that is random.

use jiff::Timestamp;

use super::issue::{hex, random};
use super::name::{ClientName, Host, TrustDomain};
use super::report::SkippedHost;
use super::{DAYS_MAX, HOSTS_MAX, NAMES_MAX, Options, PkiError};
use crate::escape::Escaped;

const CLIENT_DEFAULT: &str = "dev";
const HOSTS_DEFAULT: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a run is asked for.
pub(super) struct Asked {
    /// Named one by one: an existing certificate must have them.
    pub(super) hosts: Vec<Host>,
    /// What a first certificate has besides.
    pub(super) default_hosts: Vec<Host>,
    pub(super) skipped_hosts: Vec<SkippedHost>,
    pub(super) clients: Vec<ClientName>,
    pub(super) trust_domain: Option<TrustDomain>,
    host_name: Option<Host>,
}

impl Asked {
    /// Checks every option.
    pub(super) fn parse(options: &Options) -> Result<Self, PkiError> {
        check_days("--days", options.days)?;
        options
            .ca_days
            .map_or(Ok(()), |days| check_days("--ca-days", days))?;
        check_count("hosts", options.hosts.len(), HOSTS_MAX)?;
        check_count("clients", options.clients.len(), NAMES_MAX)?;
        let mut hosts = Vec::new();
        for text in &options.hosts {
            add(&mut hosts, text.parse()?);
        }
        let mut clients = Vec::new();
        for text in &options.clients {
            add(&mut clients, text.parse()?);
        }
        let trust_domain = options.trust_domain.as_deref().map(str::parse);
        let mut asked = Self {
            hosts,
            default_hosts: Vec::new(),
            skipped_hosts: Vec::new(),
            clients,
            trust_domain: trust_domain.transpose()?,
            host_name: None,
        };
        asked.add_defaults(options);
        Ok(asked)
    }

    fn add_defaults(&mut self, options: &Options) {
        if let Some(name) = &options.host_name {
            match name.parse::<Host>() {
                Ok(host) => self.host_name = Some(host),
                Err(error) if options.default_hosts => self.skipped_hosts.push(SkippedHost {
                    host: Escaped::new(name).to_string(),
                    reason: error.reason.to_string(),
                }),
                Err(_) => {}
            }
        }
        if options.default_hosts {
            let fixed = HOSTS_DEFAULT.map(|host| host.parse().expect("a default is a host"));
            for host in fixed.into_iter().chain(self.host_name.clone()) {
                add(&mut self.default_hosts, host);
            }
        }
    }

    /// The hosts of a new server certificate; `old` are those of the one it replaces.
    pub(super) fn hosts_for_new(&self, old: Option<&[Host]>) -> Result<Vec<Host>, PkiError> {
        let mut hosts = Vec::new();
        for host in old.unwrap_or(&self.default_hosts).iter().chain(&self.hosts) {
            add(&mut hosts, host.clone());
        }
        check_count("hosts", hosts.len(), HOSTS_MAX)?;
        if hosts.is_empty() {
            return Err(PkiError::NoHosts);
        }
        Ok(hosts)
    }

    /// The clients that should exist, given those that do.
    pub(super) fn clients_with(&self, found: &[ClientName]) -> Result<Vec<ClientName>, PkiError> {
        let mut clients = [found, &self.clients].concat();
        if clients.is_empty() {
            clients.push(CLIENT_DEFAULT.parse().expect("the default is a name"));
        }
        clients.sort();
        clients.dedup();
        check_count("clients", clients.len(), NAMES_MAX)?;
        Ok(clients)
    }

    /// The trust domain of a new CA: as asked, or one that is hard to make twice.
    pub(super) fn domain_for_new(&self) -> Result<TrustDomain, PkiError> {
        if let Some(domain) = &self.trust_domain {
            return Ok(domain.clone());
        }
        if let Some(Host::Dns(name)) = &self.host_name
            && !HOSTS_DEFAULT.contains(&name.as_str())
            && let Ok(domain) = format!("{name}.fsvc.internal").parse()
        {
            return Ok(domain);
        }
        Ok(format!("fsvc-{}.internal", hex(&random::<4>()?)).parse()?)
    }
}

/// The time as certificates spell it: whole seconds.
pub(super) fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Refuses a number of days that makes no sense.
pub(super) fn check_days(flag: &'static str, days: u32) -> Result<(), PkiError> {
    if (1..=DAYS_MAX).contains(&days) {
        Ok(())
    } else {
        Err(PkiError::Days { flag, days })
    }
}

/// Refuses more things than are taken.
pub(super) fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), PkiError> {
    if count <= max {
        Ok(())
    } else {
        Err(PkiError::TooMany { what, count, max })
    }
}
