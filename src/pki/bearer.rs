//! Whom a certificate is for: a client, a server or a peer, by name.
//!
//! The name is a file name and the last segment of the identity at once; which directory and which
//! segment stands before it is the kind.

use std::fmt;
use std::path::PathBuf;

use super::asked::check_count;
use super::issue::Role;
use super::layout::{Layout, Pair};
use super::ledger::Kind;
use super::name::{ClientName, Host, NameError, TrustDomain};
use super::{HOSTS_MAX, PkiError};
use crate::identity::SpiffeId;

/// The name of the server that `fsvc serve` finds by itself.
pub(super) const MAIN: &str = "main";
/// What it is called in commands.
const SERVER: &str = "server";
/// Where flags name the hosts.
const HOST_FLAG: &str = " --host HOST";

/// Whom a new certificate is for, as a user says it.
#[derive(Debug, Clone, Copy)]
pub enum NewBearer<'a> {
    Client(&'a str),
    /// A server; without a name, the one that `fsvc serve` finds by itself.
    Server(&'a str),
    /// Both ends of a connection in one.
    Peer(&'a str),
}

/// The same with the names and addresses of a server or a peer.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    pub bearer: NewBearer<'a>,
    pub hosts: &'a [String],
}

/// A holder that makes sense.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) bearer: Bearer,
    pub(super) hosts: Vec<Host>,
}

impl Named {
    pub(super) fn parse(holder: Holder<'_>) -> Result<Self, PkiError> {
        let bearer = match holder.bearer {
            NewBearer::Client(name) => Bearer::client(name)?,
            NewBearer::Server(name) => Bearer::server(name)?,
            NewBearer::Peer(name) => Bearer::peer(name)?,
        };
        check_count("hosts", holder.hosts.len(), HOSTS_MAX)?;
        let mut hosts: Vec<Host> = Vec::new();
        for text in holder.hosts {
            let host = text.parse()?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if bearer.kind() != Kind::Client && hosts.is_empty() {
            return Err(PkiError::NoHosts);
        }
        Ok(Self { bearer, hosts })
    }

    pub(super) fn role(&self) -> Role {
        self.bearer.role(self.hosts.clone())
    }

    /// The flags that ask for it.
    pub(super) fn flags(&self) -> String {
        let hosts = self.hosts.iter().map(|host| format!(" --host {host}"));
        let hosts: String = hosts.collect();
        let flags = self.bearer.flags();
        flags.replace(HOST_FLAG, &hosts)
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bearer {
    /// The server of the directory.
    Main,
    Client(ClientName),
    Server(ClientName),
    Peer(ClientName),
}

impl Bearer {
    /// A server, by its name.
    pub(super) fn server(name: &str) -> Result<Self, NameError> {
        match name {
            "" | MAIN | SERVER => Ok(Self::Main),
            name => Ok(Self::Server(named("server name", name)?)),
        }
    }

    pub(super) fn client(name: &str) -> Result<Self, NameError> {
        Ok(Self::Client(named("client name", name)?))
    }

    pub(super) fn peer(name: &str) -> Result<Self, NameError> {
        Ok(Self::Peer(named("peer name", name)?))
    }

    /// Whom an identity of this directory's CA is for; `None` for one that was never made here.
    pub(super) fn of(identity: &str) -> Option<Self> {
        let id: SpiffeId = identity.parse().ok()?;
        let segments: Vec<&str> = id.segments().collect();
        match segments[..] {
            ["server", MAIN] => Some(Self::Main),
            ["client", name] => Some(Self::Client(name.parse().ok()?)),
            ["server", name] => Some(Self::Server(name.parse().ok()?)),
            ["peer", name] => Some(Self::Peer(name.parse().ok()?)),
            _ => None,
        }
    }

    /// Whether a user who writes `text` can mean this: the bare name, the name with its kind, or the
    /// whole identity.
    pub(super) fn is_called(&self, text: &str, domain: &TrustDomain) -> bool {
        text == self.name()
            || text == self.to_string()
            || (*self == Self::Main && text == "server/main")
            || text == self.identity(domain).as_str()
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Main => SERVER,
            Self::Client(name) | Self::Server(name) | Self::Peer(name) => name.as_str(),
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Main | Self::Server(_) => Kind::Server,
            Self::Client(_) => Kind::Client,
            Self::Peer(_) => Kind::Peer,
        }
    }

    pub(super) fn identity(&self, domain: &TrustDomain) -> SpiffeId {
        match self {
            Self::Main => domain.server(),
            Self::Client(name) => domain.client(name),
            Self::Server(name) => domain.id(&format!("server/{name}")),
            Self::Peer(name) => domain.id(&format!("peer/{name}")),
        }
    }

    /// The directory of its files, if it is not the one that holds all.
    pub(super) fn directory(&self, layout: &Layout) -> Option<PathBuf> {
        match self {
            Self::Main => None,
            Self::Client(_) => Some(layout.clients()),
            Self::Server(_) => Some(layout.servers()),
            Self::Peer(_) => Some(layout.peers()),
        }
    }

    pub(super) fn pair(&self, layout: &Layout) -> Pair {
        match self.directory(layout) {
            None => layout.server(),
            Some(dir) => Pair {
                certificate: dir.join(format!("{}.pem", self.name())),
                key: dir.join(format!("{}-key.pem", self.name())),
            },
        }
    }

    pub(super) fn role(&self, hosts: Vec<Host>) -> Role {
        match self.kind() {
            Kind::Peer => Role::Peer { hosts },
            Kind::Server => Role::Server { hosts },
            Kind::Client | Kind::Ca => Role::Client,
        }
    }

    /// The flags that ask for one.
    pub(super) fn flags(&self) -> String {
        match self {
            Self::Main => format!("--server{HOST_FLAG}"),
            Self::Client(name) => format!("--client {name}"),
            Self::Server(name) => format!("--server {name}{HOST_FLAG}"),
            Self::Peer(name) => format!("--peer {name}{HOST_FLAG}"),
        }
    }
}

fn named(what: &'static str, name: &str) -> Result<ClientName, NameError> {
    name.parse().map_err(|error: NameError| error.of(what))
}

impl fmt::Display for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.pad(SERVER),
            Self::Client(name) => f.pad(&format!("client/{name}")),
            Self::Server(name) => f.pad(&format!("server/{name}")),
            Self::Peer(name) => f.pad(&format!("peer/{name}")),
        }
    }
}
