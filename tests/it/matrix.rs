//! A certificate authority of the tests' own, which signs whatever it is told to.
//!
//! Every pair starts out as one that the server takes; a case changes what it is about, and nothing
//! else.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber,
    SigningKey,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::harness::{Server, Setup};

/// The one identity that the policy knows.
pub const GOOD: &str = "spiffe://test.internal/client/good";

/// Everything for the client [`GOOD`], nothing for others.
pub const POLICY: &str = r#"
[[grant]]
to = "spiffe://test.internal/client/good"
allow = ["list", "read", "create", "replace", "delete"]
on = "/**"
"#;

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// A CA that signs anything.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
    pub pem: String,
}

/// A certificate, with what signed it where that is no root, and its key; both PEM.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
    pub serial: SerialNumber,
}

/// From an hour ago until tomorrow.
pub fn now_plus(duration: Duration) -> OffsetDateTime {
    OffsetDateTime::now_utc() + duration
}

fn base(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.not_before = now_plus(-Duration::HOUR);
    params.not_after = now_plus(Duration::DAY);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    params.serial_number = Some(serial.into());
    params.use_authority_key_identifier_extension = true;
    params
}

/// A subject with a common name and nothing else.
pub fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Names that are URIs.
pub fn uris(names: &[&str]) -> Vec<SanType> {
    let each = names
        .iter()
        .map(|name| SanType::URI((*name).try_into().unwrap()));
    each.collect()
}

impl Ca {
    pub fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub fn root_with(name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = Self::prepare(name, shape);
        let pem = params.self_signed(&key).unwrap().pem();
        Self::of(params, key, pem)
    }

    /// A CA below this one; what it signs carries its certificate along.
    pub fn below(&self, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = Self::prepare(name, shape);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self::of(params, key, pem)
    }

    /// Another certificate for the name and key of `other`, signed by this CA.
    pub fn vouch_for(&self, other: &Self, shape: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = other.params.clone();
        params.serial_number = Some(SERIAL.fetch_add(1, Ordering::Relaxed).into());
        shape(&mut params);
        let key = other.issuer.key();
        Pair {
            chain: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
            serial: params.serial_number.unwrap(),
        }
    }

    fn prepare(
        name: &str,
        shape: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateParams, KeyPair) {
        let mut params = base(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        shape(&mut params);
        (params, KeyPair::generate().unwrap())
    }

    fn of(params: CertificateParams, key: KeyPair, pem: String) -> Self {
        let issuer = Issuer::new(params.clone(), key);
        Self {
            issuer,
            params,
            pem,
        }
    }

    /// The CA's own certificate and key, as if they were a client's.
    pub fn as_pair(&self) -> Pair {
        Pair {
            chain: self.pem.clone(),
            key: self.issuer.key().serialize_pem(),
            serial: self.params.serial_number.clone().unwrap(),
        }
    }

    /// A client's pair, good but for what `shape` changes.
    pub fn client(&self, shape: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.client_with_key(&KeyPair::generate().unwrap(), shape)
    }

    fn client_params() -> CertificateParams {
        let mut params = base("good");
        params.subject_alt_names = uris(&[GOOD]);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    /// A client's pair with a key of this kind.
    pub fn client_with_key(
        &self,
        key: &KeyPair,
        shape: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = Self::client_params();
        shape(&mut params);
        Pair {
            chain: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
            serial: params.serial_number.unwrap(),
        }
    }

    /// The CA's signature of anything.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        SigningKey::sign(self.issuer.key(), content).unwrap()
    }

    /// A client's pair whose name is this URI.
    pub fn client_named(&self, uri: &str) -> Pair {
        self.client(|params| params.subject_alt_names = uris(&[uri]))
    }

    /// A server's pair for these names, good but for what `shape` changes.
    pub fn server(&self, names: &[&str], shape: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.client(|params| {
            params.subject_alt_names = CertificateParams::new(
                names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
            .unwrap()
            .subject_alt_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            shape(params);
        })
    }

    /// A revocation list, in PEM.
    pub fn list(&self, revoked: &[&Pair], next_update: OffsetDateTime) -> String {
        self.numbered_list(1, revoked, next_update)
    }

    pub fn numbered_list(
        &self,
        number: u64,
        revoked: &[&Pair],
        next_update: OffsetDateTime,
    ) -> String {
        let revoked = revoked.iter().map(|pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: now_plus(-Duration::MINUTE),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now_plus(-Duration::HOUR),
            next_update,
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A list that revokes nothing.
    pub fn empty_list(&self) -> String {
        self.list(&[], now_plus(Duration::DAY))
    }
}

impl Pair {
    /// The same with more certificates behind.
    pub fn with(mut self, certificates: &[&str]) -> Self {
        self.chain.push_str(&certificates.concat());
        self
    }
}

/// A TLS directory in the layout of gen-certs, and a server over it.
pub struct Matrix {
    scratch: TempDir,
    pub ca: Ca,
}

impl Matrix {
    /// A root CA, its empty list, a server's pair, and the pair of the client `good`.
    pub fn new() -> Self {
        let matrix = Self {
            scratch: TempDir::new().unwrap(),
            ca: Ca::root("matrix root"),
        };
        std::fs::create_dir(matrix.path("clients")).unwrap();
        let server = matrix.ca.server(&["localhost", "127.0.0.1"], |_| {});
        matrix.write("server.pem", &server.chain);
        matrix.write_key("server-key.pem", &server.key);
        matrix.write("ca.pem", &matrix.ca.pem);
        matrix.write("ca.crl", matrix.ca.empty_list());
        matrix.write("policy.toml", POLICY);
        matrix.add("good", &matrix.ca.client(|_| {}));
        matrix
    }

    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The same in one step, for whoever may be reading it.
    pub fn replace(&self, name: &str, text: impl AsRef<[u8]>) {
        self.write("replacement", text);
        std::fs::rename(self.path("replacement"), self.path(name)).unwrap();
    }

    pub fn write_key(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, text);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).unwrap();
    }

    /// Makes a pair one that the command line knows by name.
    pub fn add(&self, name: &str, pair: &Pair) {
        self.write(&format!("clients/{name}.pem"), &pair.chain);
        self.write_key(&format!("clients/{name}-key.pem"), &pair.key);
    }

    /// Two CAs below the root, with their lists: one may only sign for a domain, one has a constraint on
    /// names that are URIs.
    pub fn constrained(&self) -> [Ca; 2] {
        let corp = self.ca.below("corp", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("corp.example".to_owned())],
                excluded_subtrees: vec![],
            });
        });
        // RFC 5280, 4.2.1.10: names that are URIs may be permitted by host.
        let by_uri = self.ca.below("by URI", |params| {
            let permitted = b"\x30\x13\xa0\x11\x30\x0f\x86\x0dtest.internal";
            let mut constraint =
                CustomExtension::from_oid_content(&[2, 5, 29, 30], permitted.to_vec());
            constraint.set_criticality(true);
            params.custom_extensions = vec![constraint];
        });
        let lists = self.ca.empty_list() + &corp.empty_list() + &by_uri.empty_list();
        self.write("ca.crl", lists);
        [corp, by_uri]
    }

    pub fn serve(&self, arguments: &[&str]) -> Server {
        Server::start_with(Setup {
            certs: Some(self.dir().to_owned()),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            ..Setup::default()
        })
    }

    /// The library's view of a client's files.
    pub fn files(&self, name: Option<&str>) -> fsvc::tls::client::Files {
        let own = name.map(|name| fsvc::tls::client::OwnFiles {
            certificate: self.path(&format!("clients/{name}.pem")),
            key: self.path(&format!("clients/{name}-key.pem")),
        });
        fsvc::tls::client::Files {
            ca: self.path("ca.pem"),
            own,
            server_id: None,
        }
    }
}
