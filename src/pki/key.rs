//! Public keys of others: which ones are worth a signature.
//!
//! What passes here is what TLS peers accept, so a certificate never fails for its key later.

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Smallest and largest RSA key in bits.
const RSA_BITS_MIN: usize = 2_048;
const RSA_BITS_MAX: usize = 8_192;

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFault {
    #[error("is RSA with {bits} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are taken")]
    RsaSize { bits: usize },
    #[error("is of the kind {oid}; ECDSA P-256 or P-384, Ed25519 and RSA are taken")]
    Kind { oid: String },
    #[error("is malformed")]
    Malformed,
}

/// Refuses a key that is weak, or that TLS cannot use. Says what kind it is.
pub(super) fn check(key: &SubjectPublicKeyInfo<'_>) -> Result<&'static str, KeyFault> {
    let oid = &key.algorithm.algorithm;
    if *oid == OID_SIG_ED25519 {
        return Ok("Ed25519");
    }
    if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let parameters = key.algorithm.parameters.as_ref();
        let curve: Oid<'_> = parameters
            .and_then(|parameters| parameters.as_oid().ok())
            .ok_or(KeyFault::Malformed)?;
        return if curve == OID_EC_P256 {
            Ok("ECDSA P-256")
        } else if curve == OID_NIST_EC_P384 {
            Ok("ECDSA P-384")
        } else {
            Err(kind(&curve))
        };
    }
    if *oid != OID_PKCS1_RSAENCRYPTION {
        return Err(kind(oid));
    }
    let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
        return Err(KeyFault::Malformed);
    };
    let bits = bits(rsa.modulus);
    if (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        Ok("RSA")
    } else {
        Err(KeyFault::RsaSize { bits })
    }
}

/// Why the key of a certificate is refused, if it is.
pub(super) fn fault(certificate: &[u8]) -> Option<KeyFault> {
    match X509Certificate::from_der(certificate) {
        Ok((_, x509)) => check(x509.public_key()).err(),
        Err(_) => Some(KeyFault::Malformed),
    }
}

fn kind(oid: &Oid<'_>) -> KeyFault {
    KeyFault::Kind {
        oid: oid.to_id_string(),
    }
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let rest = &number[zeros..];
    rest.first()
        .map_or(0, |first| rest.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_is_that_of_its_first_bit() {
        assert_eq!(bits(&[]), 0);
        assert_eq!(bits(&[0, 0]), 0);
        assert_eq!(bits(&[0, 1]), 1);
        assert_eq!(bits(&[0, 0x80, 0]), 16);
        assert_eq!(bits(&[0x7f, 0xff]), 15);
    }
}
