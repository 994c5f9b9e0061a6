//! The profile of what fsvc signs: its CA, the certificates of both ends, the revocation lists.
//!
//! Nothing is left to the defaults of the library below: its default validity is 2,000 years.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;

use super::PkiError;
use super::name::Host;
use super::trusted::certificate_pem;
use crate::identity::SpiffeId;

/// How far a CA begins in the past, so that it is older than its certificates on every clock.
pub(super) const CA_BACKDATE: SignedDuration = SignedDuration::from_hours(24);
/// How far other certificates begin in the past, for peers whose clock is behind.
const LEAF_BACKDATE: SignedDuration = SignedDuration::from_mins(10);
const SERIAL_SIZE: usize = 20;
/// Longest common name in X.520.
const COMMON_NAME_SIZE_MAX: usize = 64;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    Server {
        hosts: Vec<Host>,
    },
    Client,
    /// Both ends of a connection.
    Peer {
        hosts: Vec<Host>,
    },
}

impl Role {
    /// The purposes that a certificate needs for it.
    pub(super) fn purposes(&self) -> Vec<ExtendedKeyUsagePurpose> {
        let (server, client) = (
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        match self {
            Self::Server { .. } => vec![server],
            Self::Client => vec![client],
            Self::Peer { .. } => vec![server, client],
        }
    }

    /// The name for people: of a server its first host, of others their own.
    pub(super) fn common_name(&self, own_name: &str) -> String {
        let name = match self {
            Self::Server { hosts } => hosts.first().map_or("server".to_owned(), Host::to_string),
            Self::Client | Self::Peer { .. } => own_name.to_owned(),
        };
        name.chars().take(COMMON_NAME_SIZE_MAX).collect()
    }
}

/// A new certificate with its key.
pub(super) struct Issued {
    pub(super) der: CertificateDer<'static>,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

impl Validity {
    pub(super) fn of_ca(now: Timestamp, days: u32) -> Result<Self, PkiError> {
        Ok(Self {
            not_before: add(now, -CA_BACKDATE)?,
            not_after: add(now, whole_days(days))?,
        })
    }

    /// The validity of a certificate made now, which never outlives its CA.
    pub(super) fn of_leaf(now: Timestamp, days: u32, ca: Self) -> Result<Self, PkiError> {
        Ok(Self {
            not_before: add(now, -LEAF_BACKDATE)?.max(ca.not_before),
            not_after: add(now, whole_days(days))?.min(ca.not_after),
        })
    }
}

pub(super) fn whole_days(days: u32) -> SignedDuration {
    SignedDuration::from_hours(i64::from(days) * 24)
}

fn add(time: Timestamp, duration: SignedDuration) -> Result<Timestamp, PkiError> {
    time.checked_add(duration)
        .map_err(|error| sign_error("a certificate", &error))
}

/// A new P-256 key.
pub(super) fn make_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| sign_error("a key", &error))
}

/// A CA certificate for `key`, signed by itself. `author` is shown in its name.
pub(super) fn make_ca(
    key: &KeyPair,
    author: &str,
    validity: Validity,
) -> Result<rcgen::Certificate, PkiError> {
    let mut params = CertificateParams::default();
    let id = hex(&params.key_identifier(key)[..4]);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "fsvc");
    params
        .distinguished_name
        .push(DnType::CommonName, ca_name(&id, author));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    fill(&mut params, validity, &random_serial()?)?;
    params
        .self_signed(key)
        .map_err(|error| sign_error("a CA certificate", &error))
}

/// Two CAs of one name would make a peer check one against the revocation list of the other.
fn ca_name(id: &str, author: &str) -> String {
    let name = format!("fsvc CA {id}");
    let room = COMMON_NAME_SIZE_MAX - name.len() - " ()".len();
    let shown: String = author
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '@' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .take(room)
        .collect();
    if shown.is_empty() {
        name
    } else {
        format!("{name} ({shown})")
    }
}

/// A certificate with a new key for `identity`, signed by `issuer`.
pub(super) fn make_leaf(
    issuer: &Issuer<'_, KeyPair>,
    role: &Role,
    identity: &SpiffeId,
    validity: Validity,
) -> Result<Issued, PkiError> {
    let key = make_key()?;
    let der = certify(issuer, &key, role, identity, validity)?;
    Ok(Issued {
        certificate_pem: certificate_pem(&der),
        der,
        key_pem: key.serialize_pem(),
    })
}

/// A certificate of `key` for `identity`, signed by `issuer`.
pub(super) fn certify(
    issuer: &Issuer<'_, KeyPair>,
    key: &impl PublicKeyData,
    role: &Role,
    identity: &SpiffeId,
    validity: Validity,
) -> Result<CertificateDer<'static>, PkiError> {
    certify_as(issuer, key, role, identity, (validity, &random_serial()?))
}

/// The same under a serial number that the caller chose.
pub(super) fn certify_as(
    issuer: &Issuer<'_, KeyPair>,
    key: &impl PublicKeyData,
    role: &Role,
    identity: &SpiffeId,
    (validity, serial): (Validity, &[u8]),
) -> Result<CertificateDer<'static>, PkiError> {
    let failed = |error| sign_error("a certificate", &error);
    let own_name = identity.segments().next_back().unwrap_or("");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, role.common_name(own_name));
    params.subject_alt_names = alternative_names(role, identity).map_err(failed)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = role.purposes();
    params.use_authority_key_identifier_extension = true;
    fill(&mut params, validity, serial)?;
    Ok(params.signed_by(key, issuer).map_err(failed)?.into())
}

fn alternative_names(role: &Role, identity: &SpiffeId) -> Result<Vec<SanType>, rcgen::Error> {
    let hosts: &[Host] = match role {
        Role::Server { hosts } | Role::Peer { hosts } => hosts,
        Role::Client => &[],
    };
    let mut names = host_names(hosts)?;
    names.push(SanType::URI(identity.as_str().try_into()?));
    Ok(names)
}

/// Hosts as a certificate or a request spells them.
pub(super) fn host_names(hosts: &[Host]) -> Result<Vec<SanType>, rcgen::Error> {
    let name = |host: &Host| {
        Ok(match host {
            Host::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Ip(address) => SanType::IpAddress(*address),
        })
    };
    hosts.iter().map(name).collect()
}

fn fill(params: &mut CertificateParams, validity: Validity, serial: &[u8]) -> Result<(), PkiError> {
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    Ok(())
}

/// A serial number is random: one derived from the key would survive a renewal with that key, and
/// with it a revocation.
pub(super) fn random_serial() -> Result<[u8; SERIAL_SIZE], PkiError> {
    let mut serial = random::<SERIAL_SIZE>()?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|error| sign_error("a random number", &error))?;
    Ok(bytes)
}

/// A revocation list, valid as long as the CA; one of a CA that has ended, for a day. Others find it
/// by the identifier that the CA gave its key.
pub(super) fn make_crl(
    (issuer, key_id): (&Issuer<'_, KeyPair>, KeyIdMethod),
    now: Timestamp,
    ca: Validity,
    number: u64,
    revoked_certs: Vec<RevokedCertParams>,
) -> Result<CertificateRevocationListDer<'static>, PkiError> {
    let failed = |error| sign_error("a revocation list", &error);
    let this_update = add(now, -LEAF_BACKDATE)?.max(ca.not_before);
    let list = CertificateRevocationListParams {
        this_update: date(this_update)?,
        next_update: date(ca.not_after.max(add(this_update, whole_days(1))?))?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: key_id,
    };
    list.signed_by(issuer).map(Into::into).map_err(failed)
}

pub(super) fn date(time: Timestamp) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(time.as_second())
        .map_err(|error| sign_error("a certificate", &error))
}

pub(super) fn sign_error(what: &'static str, error: &dyn std::fmt::Display) -> PkiError {
    PkiError::Sign {
        what,
        reason: error.to_string(),
    }
}

/// The SHA-256 of `bytes` in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// The SHA-256 of a certificate as people compare it.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let pairs = digest(&SHA256, der);
    let pairs: Vec<String> = pairs.as_ref().iter().map(|byte| hex(&[*byte])).collect();
    pairs.join(":")
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_name_is_unique_short_and_plain() {
        assert_eq!(ca_name("7f3a91c2", "ann@box"), "fsvc CA 7f3a91c2 (ann@box)");
        assert_eq!(ca_name("7f3a91c2", ""), "fsvc CA 7f3a91c2");
        assert_eq!(
            ca_name("7f3a91c2", "a\nb/é@x"),
            "fsvc CA 7f3a91c2 (a-b--@x)"
        );
        assert_eq!(
            ca_name("7f3a91c2", &"x".repeat(500)).len(),
            COMMON_NAME_SIZE_MAX
        );
    }

    #[test]
    fn serials_are_positive_full_and_different() {
        let serials: Vec<_> = (0..200).map(|_| random_serial().unwrap()).collect();
        for serial in &serials {
            assert!(serial[0] & 0x80 == 0 && serial[0] != 0);
        }
        let unique: std::collections::HashSet<_> = serials.iter().collect();
        assert_eq!(unique.len(), serials.len());
    }
}
