//! The codes of what can go wrong with TLS and certificates.
//!
//! A code is for ever: logs are searched for it, programs branch on it, `fsvc explain` knows it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// One way in which a connection comes to nothing. Its number is its place, from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// The server does not trust the CA that signed the client's certificate.
    UntrustedClient,
    /// The client does not trust the CA that signed the server's certificate.
    UntrustedServer,
    /// A CA between the certificate and the trusted one was not sent along.
    MissingIntermediate,
    /// The client showed no certificate.
    NoCertificate,
    /// The connection ended before the greeting, without a reason.
    ClosedEarly,
    /// The client's certificate, or a CA of its chain, is past its end.
    ClientExpired,
    /// The server's certificate, or a CA of its chain, is past its end.
    ServerExpired,
    /// A certificate is not valid yet, or two clocks differ.
    NotYetValid,
    /// The server's certificate is not for the name that the client connects to.
    WrongName,
    /// A certificate is for another purpose.
    WrongPurpose,
    /// A key does not belong to its certificate.
    KeyMismatch,
    /// A file holds something else than it should.
    WrongContent,
    /// A file cannot be read, or a key can be read by too many.
    FileAccess,
    /// Something that is no TLS came to the TLS port.
    PlainText,
    /// What the client reached does not speak TLS.
    NotTls,
    /// The certificate was revoked.
    Revoked,
    /// There is no valid revocation list of a CA.
    NoRevocationList,
    /// A CA's certificate, or one signed by itself, in the place of another; or the other way round.
    WrongPlace,
    /// A certificate of a version, an algorithm or a form that is not taken.
    UnusableForm,
    /// The other end speaks no TLS 1.3.
    OldTls,
    /// The identity is known, and may not do what was asked.
    NotAllowed,
    /// The certificate is good, and names nobody.
    NoIdentity,
    /// A CA of the chain may not sign for this name.
    NameConstraint,
}

/// A text that is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no failure has this code")]
pub struct UnknownFailure;

impl FailureCode {
    /// Every code, in order.
    pub const ALL: [Self; 23] = [
        Self::UntrustedClient,
        Self::UntrustedServer,
        Self::MissingIntermediate,
        Self::NoCertificate,
        Self::ClosedEarly,
        Self::ClientExpired,
        Self::ServerExpired,
        Self::NotYetValid,
        Self::WrongName,
        Self::WrongPurpose,
        Self::KeyMismatch,
        Self::WrongContent,
        Self::FileAccess,
        Self::PlainText,
        Self::NotTls,
        Self::Revoked,
        Self::NoRevocationList,
        Self::WrongPlace,
        Self::UnusableForm,
        Self::OldTls,
        Self::NotAllowed,
        Self::NoIdentity,
        Self::NameConstraint,
    ];
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS{:02}", *self as u8 + 1)
    }
}

impl FromStr for FailureCode {
    type Err = UnknownFailure;

    fn from_str(text: &str) -> Result<Self, UnknownFailure> {
        let code = Self::ALL
            .into_iter()
            .find(|code| code.to_string().eq_ignore_ascii_case(text));
        code.ok_or(UnknownFailure)
    }
}

impl Serialize for FailureCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_its_place_and_is_read_back() {
        assert_eq!(FailureCode::UntrustedClient.to_string(), "TLS01");
        assert_eq!(FailureCode::NameConstraint.to_string(), "TLS23");
        for (place, code) in FailureCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place);
            assert_eq!(code.to_string().to_lowercase().parse(), Ok(code));
        }
        assert_eq!("TLS24".parse::<FailureCode>(), Err(UnknownFailure));
        assert_eq!("TLS".parse::<FailureCode>(), Err(UnknownFailure));
    }
}
