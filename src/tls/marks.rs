//! What a verified chain must have besides a name: marks that the verifier does not look at.

use rustls::pki_types::CertificateDer;

use super::identity::IdentityError;
use super::x509::Facts;

/// Looks at the serial number of a certificate, and at those that signed it.
///
/// # Errors
/// The number could not be revoked, or one of the signers may not sign.
pub(super) fn check(serial: &str, signers: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
    check_serial(serial)?;
    check_signers(signers)
}

/// RFC 5280, 4.1.2.2: by another number it might never be found in a revocation list.
fn check_serial(serial: &str) -> Result<(), IdentityError> {
    const DIGITS_MAX: usize = 40;
    let is_negative = serial.starts_with(|c: char| !matches!(c, '0'..='7'));
    let digits = serial.strip_prefix("00").unwrap_or(serial);
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    if is_negative || is_zero || digits.len() > DIGITS_MAX {
        return Err(IdentityError::Serial(serial.to_owned()));
    }
    Ok(())
}

/// The verifier looks at whether a signer is a CA, and not at what its key may be used for.
fn check_signers(signers: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
    for signer in signers {
        let facts = Facts::read(signer)?;
        if !facts.may_sign {
            return Err(IdentityError::CannotSign(facts.subject));
        }
    }
    Ok(())
}
