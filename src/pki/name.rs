//! The names a certificate is asked for: hosts, client names, the trust domain.
//!
//! Pure. What gets past these types is a file name, a SAN entry and part of a SPIFFE ID at once.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls::pki_types::DnsName;
use serde::Serialize;
use thiserror::Error;

use crate::escape::Escaped;
use crate::identity::SpiffeId;

/// Longest client name in bytes.
pub const CLIENT_SIZE_MAX: usize = 64;
/// Longest trust domain in bytes: with any client name it still makes a SPIFFE ID.
pub const TRUST_DOMAIN_SIZE_MAX: usize = 160;
const DNS_SIZE_MAX: usize = 253;
const LABEL_SIZE_MAX: usize = 63;
const CLIENTS_RESERVED: [&str; 2] = ["ca", "server"];

/// A name or address that a server certificate is valid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Host {
    Dns(String),
    Ip(IpAddr),
}

/// The name of a client: its file name and the last segment of its SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ClientName(String);

/// The first part of every SPIFFE ID that a CA issues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustDomain(String);

/// A name that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {text}: {reason}")]
pub struct NameError {
    what: &'static str,
    text: Escaped,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reason {
    #[error("is empty")]
    Empty,
    #[error("is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("has a label longer than {LABEL_SIZE_MAX} bytes")]
    LabelTooLong,
    #[error("has an empty label")]
    EmptyLabel,
    #[error("holds {:?}, which is not allowed", .0)]
    Character(char),
    #[error("holds an upper-case letter")]
    UpperCase,
    #[error("is not ASCII")]
    NotAscii,
    #[error("begins or ends with a hyphen or a dot")]
    Edge,
    #[error("has a port")]
    Port,
    #[error("is a URL")]
    Url,
    #[error("is more than one name")]
    List,
    #[error("has a wildcard that is not the whole first label of at least three")]
    Wildcard,
    #[error("has a zone, which only means something on one machine")]
    Zone,
    #[error("ends in a number but is not an IP address")]
    Numeric,
    #[error("is an address to bind to, not one to connect to")]
    BindAddress,
    #[error("ends in -key, as the file names of keys do")]
    KeySuffix,
    #[error("is taken by a file of the service itself")]
    Reserved,
}

impl NameError {
    fn new(what: &'static str, text: &str, reason: Reason) -> Self {
        Self {
            what,
            text: Escaped::new(text),
            reason,
        }
    }

    /// The same of a name that is for something else.
    pub(super) fn of(mut self, what: &'static str) -> Self {
        self.what = what;
        self
    }

    /// What to write instead.
    pub fn hint(&self) -> Option<&'static str> {
        match self.reason {
            Reason::List => Some("give the flag once for each name"),
            Reason::Port => Some("a certificate holds no port: leave it out"),
            Reason::Url => Some("give the host alone"),
            Reason::NotAscii => Some("write an international name in its xn-- form"),
            Reason::UpperCase => Some("write it in lower case"),
            Reason::Wildcard => Some("a wildcard stands for one label: *.files.example.com"),
            Reason::BindAddress => Some("give an address that clients connect to"),
            _ => None,
        }
    }
}

impl FromStr for Host {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_host(text).map_err(|reason| NameError::new("host", text, reason))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl ClientName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| Err(NameError::new("client name", text, reason));
        if let Err(reason) = check_characters(text, CLIENT_SIZE_MAX) {
            return refuse(reason);
        }
        if text.starts_with(['-', '.']) {
            return refuse(Reason::Edge);
        }
        if text.ends_with("-key") {
            return refuse(Reason::KeySuffix);
        }
        if CLIENTS_RESERVED.contains(&text) {
            return refuse(Reason::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TrustDomain {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity of a client in this domain.
    pub fn client(&self, name: &ClientName) -> SpiffeId {
        self.id(&format!("client/{name}"))
    }

    /// The identity of the server in this domain.
    pub fn server(&self) -> SpiffeId {
        self.id("server/main")
    }

    pub(super) fn id(&self, path: &str) -> SpiffeId {
        format!("spiffe://{}/{path}", self.0)
            .parse()
            .expect("checked parts make a SPIFFE ID within its limit")
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| Err(NameError::new("trust domain", text, reason));
        if text.contains("://") {
            return refuse(Reason::Url);
        }
        if let Err(reason) = check_characters(text, TRUST_DOMAIN_SIZE_MAX) {
            return refuse(reason);
        }
        if text.starts_with(['-', '.']) || text.ends_with(['-', '.']) {
            return refuse(Reason::Edge);
        }
        if text.contains("..") {
            return refuse(Reason::EmptyLabel);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn check_characters(text: &str, size_max: usize) -> Result<(), Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    if text.len() > size_max {
        return Err(Reason::TooLong { max: size_max });
    }
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '_' | '-' => {}
            'A'..='Z' => return Err(Reason::UpperCase),
            ' ' | ',' => return Err(Reason::List),
            c if !c.is_ascii() => return Err(Reason::NotAscii),
            c => return Err(Reason::Character(c)),
        }
    }
    Ok(())
}

fn parse_host(text: &str) -> Result<Host, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    if text.len() > 2 * DNS_SIZE_MAX {
        return Err(Reason::TooLong { max: DNS_SIZE_MAX });
    }
    if text.contains("://") {
        return Err(Reason::Url);
    }
    if text.contains([' ', ',', '\t']) {
        return Err(Reason::List);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or(Reason::Character('['))?;
        let address = parse_ip(inner)?.ok_or(Reason::Character('['))?;
        return match after {
            "" => Ok(Host::Ip(address)),
            after if after.starts_with(':') => Err(Reason::Port),
            _ => Err(Reason::Character('[')),
        };
    }
    match parse_ip(text)? {
        Some(address) => Ok(Host::Ip(address)),
        None => parse_dns(text).map(Host::Dns),
    }
}

fn parse_ip(text: &str) -> Result<Option<IpAddr>, Reason> {
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return Err(Reason::Zone);
    }
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            Err(Reason::BindAddress)
        }
        Ok(address) => Ok(Some(address)),
        Err(_) => Ok(None),
    }
}

fn parse_dns(text: &str) -> Result<String, Reason> {
    if !text.is_ascii() {
        return Err(Reason::NotAscii);
    }
    if let Some((_, port)) = text.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(Reason::Port);
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name.len() > DNS_SIZE_MAX {
        return Err(Reason::TooLong { max: DNS_SIZE_MAX });
    }
    let plain = match name.strip_prefix("*.") {
        Some(rest) if rest.contains('.') => rest,
        Some(_) => return Err(Reason::Wildcard),
        None => name,
    };
    plain.split('.').try_for_each(check_label)?;
    // What rustls would not take as a server name must not be promised in a certificate.
    DnsName::try_from(plain).map_err(|_| Reason::Numeric)?;
    Ok(name.to_owned())
}

fn check_label(label: &str) -> Result<(), Reason> {
    if label.is_empty() {
        return Err(Reason::EmptyLabel);
    }
    if label.len() > LABEL_SIZE_MAX {
        return Err(Reason::LabelTooLong);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(Reason::Edge);
    }
    match label
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && *c != '-')
    {
        Some('*') => Err(Reason::Wildcard),
        Some(c) => Err(Reason::Character(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
