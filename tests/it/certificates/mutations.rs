//! Certificates with bytes changed, through every line that reads one: nothing panics, and nobody
//! is taken for somebody else.
//!
//! Changed behind the CA's back they never pass. Signed again by a careless CA they may; then they
//! are exactly who they say. `FSVC_TEST_MUTATIONS` says how many of each.

use std::sync::Arc;

use fsvc::tls::anchors::Anchors;
use fsvc::tls::identity::identify;
use fsvc::tls::rejection::{rejection, unnamed};
use fsvc::tls::witness::{Seen, Stage, Trust};
use fsvc::tls::x509::{Facts, ListFacts};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CustomExtension, GeneralSubtree, IsCa, NameConstraints, SanType};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::der;
use crate::matrix::{Ca, GOOD, Pair, now_plus, uris};

/// How many mutants of each way to change.
fn n_mutants() -> usize {
    std::env::var("FSVC_TEST_MUTATIONS").map_or(4_000, |text| text.parse().unwrap())
}

/// A fixed sequence of numbers, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// Up to four changes: a bit, a byte, a byte more or less, a piece twice.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let byte = self.next().to_le_bytes()[3];
            match self.below(8) {
                0..=2 => bytes[at] ^= 1 << self.below(8),
                3..=5 => bytes[at] = byte,
                6 => {
                    if bytes.len() > 1 && self.below(2) == 0 {
                        bytes.remove(at);
                    } else {
                        bytes.insert(at, byte);
                    }
                }
                _ => {
                    let piece = bytes[at..bytes.len().min(at + self.below(20))].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
    }
}

struct Bench {
    ca: Ca,
    verifier: Arc<dyn ClientCertVerifier>,
    trust: Arc<Trust>,
    now: UnixTime,
}

fn der_of(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(Result::unwrap)
        .collect()
}

impl Bench {
    fn new() -> Self {
        let ca = Ca::root("matrix root");
        let mut roots = RootCertStore::empty();
        roots.add(der_of(&ca.pem).remove(0)).unwrap();
        let list =
            CertificateRevocationListDer::from_pem_slice(ca.empty_list().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.with_crls([list.clone()]).build().unwrap();
        let trust = Arc::new(Trust {
            subjects: vec!["CN=matrix root".to_owned()],
            lists: vec![list],
            ..Trust::default()
        });
        Self {
            ca,
            verifier,
            trust,
            now: UnixTime::now(),
        }
    }

    /// The certificates that are changed: plain ones, and ones with something in every corner.
    fn seeds(&self) -> Vec<Vec<u8>> {
        let mail = SanType::Rfc822Name("good@test.internal".try_into().unwrap());
        let names = [
            uris(&[GOOD, "spiffe://test.internal/client/evil"]),
            vec![mail],
        ]
        .concat();
        let constraints = NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("corp.example".to_owned())],
            excluded_subtrees: vec![GeneralSubtree::Rfc822Name("corp.example".to_owned())],
        };
        let pairs: [Pair; 5] = [
            self.ca.client(|_| {}),
            self.ca
                .client(|params| params.not_after = now_plus(time::Duration::hours(1))),
            self.ca.client(|params| params.subject_alt_names = names),
            self.ca.client(|params| {
                params.custom_extensions =
                    vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
            }),
            self.ca.client(|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
                params.name_constraints = Some(constraints);
            }),
        ];
        pairs
            .iter()
            .map(|pair| der_of(&pair.chain).remove(0).to_vec())
            .collect()
    }

    /// All that is ever done with a certificate from the wire; the identity, if it is let in.
    fn judge(&self, chain: &[CertificateDer<'static>]) -> Option<String> {
        let now = Timestamp::now();
        let named = identify(chain, &Anchors::default(), now);
        if let Err(error) = &named {
            let refusal = unnamed(chain, error, now);
            assert!(refusal.cause.len() < 2_000, "{}", refusal.cause);
            assert!(
                !refusal.cause.chars().any(char::is_control),
                "{:?}",
                refusal.cause
            );
        }
        let verdict = self
            .verifier
            .verify_client_cert(&chain[0], &chain[1..], self.now);
        if let Err(error) = verdict {
            let seen = Seen {
                chain: chain.to_vec(),
                trust: Arc::clone(&self.trust),
                stage: Stage::Chain,
            };
            let refusal =
                rejection(&error, Some(&seen), now).expect("a refused certificate is told");
            assert!(
                refusal.code.is_some() && refusal.cause.len() < 2_000,
                "{}",
                refusal.cause
            );
            assert!(
                !refusal.cause.chars().any(char::is_control),
                "{:?}",
                refusal.cause
            );
            return None;
        }
        named.ok().map(|identity| identity.id.to_string())
    }
}

#[test]
fn a_certificate_that_was_changed_never_passes() {
    let bench = Bench::new();
    let seeds = bench.seeds();
    let good = vec![CertificateDer::from(seeds[0].clone())];
    assert_eq!(bench.judge(&good).as_deref(), Some(GOOD));
    let mut random = Random(0x5eed_0001);
    for n in 0..n_mutants() {
        let seed = &seeds[n % seeds.len()];
        let mut mutant = seed.clone();
        random.mutate(&mut mutant);
        if mutant == *seed {
            continue;
        }
        let chain = vec![CertificateDer::from(mutant.clone())];
        assert_eq!(bench.judge(&chain), None, "mutant {n}: {mutant:02x?}");
        let _ = ListFacts::read(&CertificateRevocationListDer::from(mutant), None);
    }
}

#[test]
fn a_careless_ca_makes_nobody_somebody_else() {
    let bench = Bench::new();
    let seeds = bench.seeds();
    let mut random = Random(0x5eed_0002);
    let mut n_let_in = 0;
    for n in 0..n_mutants() {
        let seed = &seeds[n % seeds.len()];
        let mut part = der::first(der::first(seed).content).whole.to_vec();
        random.mutate(&mut part);
        let mutant = CertificateDer::from(der::sign(&bench.ca, seed, &part));
        let Some(id) = bench.judge(std::slice::from_ref(&mutant)) else {
            continue;
        };
        n_let_in += 1;
        // Who is let in has this one name, byte by byte, and no other URI beside it.
        let facts = Facts::read(&mutant).unwrap();
        assert_eq!(facts.names.uri, std::slice::from_ref(&id), "mutant {n}");
        assert!(
            part.windows(id.len()).any(|bytes| bytes == id.as_bytes()),
            "mutant {n}: {id}"
        );
        let schemes = part.windows(9).filter(|bytes| *bytes == b"spiffe://");
        assert_eq!(schemes.count(), 1, "mutant {n}: {id}");
        assert!(
            facts.purposes.is_some_and(|purposes| purposes.client) && !facts.is_ca,
            "mutant {n}"
        );
    }
    // The way in is open: a mutant whose change says nothing is the good client.
    assert!(n_let_in > 0);
}

#[test]
fn a_revocation_list_that_was_changed_is_read_or_refused() {
    let bench = Bench::new();
    let revoked = bench.ca.client(|_| {});
    let pem = bench
        .ca
        .list(&[&revoked], now_plus(time::Duration::hours(1)));
    let list = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    let chain = der_of(&revoked.chain);
    let mut random = Random(0x5eed_0003);
    for _ in 0..n_mutants() {
        let mut mutant = list.to_vec();
        random.mutate(&mut mutant);
        let mutant = CertificateRevocationListDer::from(mutant);
        let _ = ListFacts::read(&mutant, None);
        let seen = Seen {
            chain: chain.clone(),
            trust: Arc::new(Trust {
                lists: vec![mutant],
                ..Trust::default()
            }),
            stage: Stage::Chain,
        };
        let error = rustls::CertificateError::Revoked.into();
        let refusal = rejection(&error, Some(&seen), Timestamp::now()).unwrap();
        assert!(refusal.cause.contains("was revoked"), "{}", refusal.cause);
        assert!(
            !refusal.cause.chars().any(char::is_control),
            "{:?}",
            refusal.cause
        );
    }
}
