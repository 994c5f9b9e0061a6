//! Certificates of strange forms: keys, serial numbers, sizes, encodings.
//!
//! Each is refused, or is who it says it is; none is somebody else.

use std::sync::Arc;

use rcgen::{CustomExtension, KeyPair, KeyUsagePurpose, RsaKeySize};

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::der::{self, INTEGER, KEY, SEQUENCE, SERIAL, SUBJECT};
use super::{Cases, assert_tidy, chain, log_with, write_lists};
use crate::harness::text;
use crate::matrix::{GOOD, Matrix, Pair};
use crate::refusals::{heard_of, heard_unchecked};

impl Cases {
    /// This pair is the good client, and nobody else.
    #[track_caller]
    fn good(&mut self, pair: &Pair) {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        let output = self.server.client(&name, &["whoami"]).output().unwrap();
        let stdout = text(&output.stdout);
        assert!(
            stdout.starts_with(&format!("{GOOD}\n")),
            "{}",
            text(&output.stderr)
        );
        assert_tidy(&stdout);
    }

    /// What the client's own library makes of this pair does not matter: the server refuses it,
    /// in the handshake or after.
    #[track_caller]
    fn refused_by_the_server(&mut self, pair: &Pair, log_says: &str) {
        self.n += 1;
        let name = format!("case-{}", self.n);
        self.matrix.add(&name, pair);
        let logged = self.server.log().len();
        let heard = heard_unchecked(&self.matrix, &self.server, &name);
        assert!(!heard.contains("\"hello\""), "{heard}");
        assert_tidy(&log_with(&self.server, logged, log_says));
        let output = self.server.client(&name, &["whoami"]).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stdout));
        let good = self.server.client("good", &["whoami"]).output().unwrap();
        assert_eq!(good.status.code(), Some(0));
    }
}

#[test]
fn keys_of_every_kind_are_the_same_client_or_nobody() {
    let mut cases = Cases::new(Matrix::new());
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pair = cases.matrix.ca.client_with_key(&key, |_| {});
        cases.good(&pair);
    }
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let pair = cases.matrix.ca.client_with_key(&key, |_| {});
    cases.good(&pair);
}

/// A signer that has no key, and an answer of the right length.
#[derive(Debug)]
struct Junk(usize);

impl SigningKey for Junk {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self(self.0)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl Signer for Junk {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![1; self.0])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::RSA_PSS_SHA256
    }
}

/// A key that takes long to check is not checked at all; its numbers need not be primes for that.
#[test]
fn keys_of_rsa_that_are_too_long_or_too_short_are_refused() {
    let matrix = Matrix::new();
    let server = matrix.serve(&[]);
    for bits in [512, 1_024, 16_384, 65_536] {
        let pair = matrix.ca.client(|_| {});
        let pair = der::changed(&matrix, &pair, |values| {
            values[KEY] = der::rsa_key(&[&[0], &vec![0xff; bits / 8][..]].concat());
        });
        let der = CertificateDer::from(der::bytes(&matrix, &pair));
        let key = CertifiedKey::new(vec![der], Arc::new(Junk(bits / 8)));
        let from = server.log().len();
        let heard = heard_of(&matrix, &server, key);
        assert!(!heard.contains("\"hello\""), "{bits}: {heard}");
        let says = format!("RSA with {bits} bits, 2048 to 8192 are taken");
        assert_tidy(&log_with(&server, from, &says));
        let good = server.client("good", &["whoami"]).output().unwrap();
        assert_eq!(good.status.code(), Some(0));
    }
}

#[test]
fn serial_numbers_that_break_the_rules_are_refused() {
    let mut cases = Cases::new(Matrix::new());
    for number in [
        &[0xff_u8][..],
        &[0x80; 20],
        &[0x7f; 21],
        &[0x7f; 200],
        &[0],
        &[],
    ] {
        let pair = cases.matrix.ca.client(|_| {});
        let odd = der::changed(&cases.matrix, &pair, |values| {
            values[SERIAL] = der::wrap(INTEGER, number);
        });
        cases.refused_by_the_server(&odd, "code=");
    }
}

#[test]
fn encodings_that_say_a_thing_twice_are_refused() {
    let mut cases = Cases::new(Matrix::new());
    let pair = cases.matrix.ca.client(|_| {});
    let evil = cases
        .matrix
        .ca
        .client_named("spiffe://test.internal/client/evil");
    let evil = der::signed_part(&der::bytes(&cases.matrix, &evil));
    let is_name = |extension: &Vec<u8>| extension.windows(3).any(|oid| oid == [0x55, 0x1d, 0x11]);
    let other: Vec<Vec<u8>> = der::extensions(&evil).into_iter().filter(is_name).collect();
    assert_eq!(other.len(), 1);
    for place in [0, 100] {
        let twice = der::changed(&cases.matrix, &pair, |values| {
            let mut extensions = der::extensions(values);
            extensions.insert(place.min(extensions.len()), other[0].clone());
            *values = der::with_extensions(values, &extensions);
        });
        cases.refused_by_the_server(&twice, "code=");
    }
    // A subject whose common name is in two bytes a character, and one in bytes that are no text.
    for (tag, content) in [
        (0x1e, &b"\0g\0o\0o\0d"[..]),
        (0x0c, b"\xff\xfe\x80"),
        (0x13, b"go\0od\x1b[2J"),
    ] {
        let name = der::wrap(
            0x31,
            &der::wrap(
                SEQUENCE,
                &[&[6, 3, 0x55, 4, 3], &der::wrap(tag, content)[..]].concat(),
            ),
        );
        let odd = der::changed(&cases.matrix, &pair, |values| {
            values[SUBJECT] = der::wrap(SEQUENCE, &name);
        });
        cases.good(&odd);
    }
    let mut behind = der::bytes(&cases.matrix, &pair);
    behind.extend_from_slice(b"\x30\0");
    let behind = Pair {
        chain: der::pem(&behind),
        ..pair
    };
    cases.refused_by_the_server(&behind, "code=");
}

#[test]
fn a_certificate_of_a_megabyte_is_not_read() {
    let mut cases = Cases::new(Matrix::new());
    let of_size = |size: usize| {
        cases.matrix.ca.client(|params| {
            let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![7; size]);
            params.custom_extensions = vec![extension];
        })
    };
    let (small, large) = (of_size(20 << 10), of_size(1 << 20));
    let says = "at most 4 and 16384 are taken";
    cases.refused(&small, says, says);
    cases.refused_by_the_server(&large, "TLS22");
}

#[test]
fn a_ca_between_that_may_not_sign_is_refused() {
    let matrix = Matrix::new();
    let silent = matrix.ca.below("may not", |params| {
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    write_lists(&matrix, &[&silent]);
    let mut cases = Cases::new(matrix);
    let pair = chain(&silent, &[&silent]);
    cases.refused(&pair, "no keyCertSign", "no keyCertSign");
}

/// The serial number is not the identity: two certificates with one number are each who they are.
#[test]
fn one_serial_number_twice_is_two_clients() {
    let matrix = Matrix::new();
    let other = "spiffe://test.internal/client/other";
    let pair = matrix.ca.client(|_| {});
    let same = matrix.ca.client_named(other);
    let number = der::signed_part(&der::bytes(&matrix, &pair))[SERIAL].clone();
    let twice = der::changed(&matrix, &same, |values| values[SERIAL] = number);
    let mut cases = Cases::new(matrix);
    cases.good(&pair);
    cases.without_rights(&twice, other);
}
