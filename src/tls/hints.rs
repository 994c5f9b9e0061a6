//! The next command, for whoever reads that a certificate was refused.
//!
//! Who reads counts: an operator can trust another CA, a client can only ask for that.

use super::diagnosis::{Case, View};
use super::failure::FailureCode;

/// What can be done about it.
pub(super) fn hint(code: FailureCode, case: &Case<'_>) -> String {
    match case.view {
        View::Client => for_operator(code, &renewed(case)),
        View::Own(_) => for_owner(code, &renewed(case)),
        View::Server(_) => for_visitor(code, case),
    }
}

/// The name under which the certificate is renewed: that of its file, or the end of its identity.
fn renewed(case: &Case<'_>) -> String {
    let name = match case.view {
        View::Own(file) => file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned()),
        View::Client => {
            // Of several names none is the client's.
            let uri = case
                .chain
                .first()
                .and_then(|own| match own.names.uri.as_slice() {
                    [uri] => Some(uri),
                    _ => None,
                });
            uri.and_then(|uri| uri.rsplit('/').next())
                .map(str::to_owned)
        }
        View::Server(_) => Some("server".to_owned()),
    };
    let is_plain = |name: &String| {
        !name.is_empty()
            && name.len() <= 64
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
    };
    name.filter(is_plain).unwrap_or_else(|| "NAME".to_owned())
}

fn for_operator(code: FailureCode, name: &str) -> String {
    match code {
        FailureCode::UntrustedClient => {
            "if that CA is to be trusted: fsvc certs bundle add FILE; else the client needs a certificate of \
             this server's CA: fsvc certs add --client NAME"
                .to_owned()
        }
        FailureCode::MissingIntermediate => {
            "the client's certificate file needs the CAs between behind its own certificate, without the root; \
             if that CA is none of yours, see fsvc explain TLS01"
                .to_owned()
        }
        FailureCode::ClientExpired => format!("renew it, where it was made here: fsvc certs renew {name}"),
        FailureCode::NotYetValid => clocks(),
        FailureCode::WrongPurpose => format!("make one for clients: fsvc certs add --client {name}"),
        FailureCode::KeyMismatch => "the client has one file of two pairs, or shows what is not its own".to_owned(),
        FailureCode::Revoked => format!("if it should come back: fsvc certs add --client {name} --again"),
        FailureCode::NoRevocationList => {
            "put that CA's present list into the file of lists (an empty list will do); --no-revocation lets \
             revoked certificates in"
                .to_owned()
        }
        FailureCode::WrongPlace => format!("a client needs one that a CA signed: fsvc certs add --client {name}"),
        FailureCode::NoIdentity => format!(
            "a client's certificate has exactly one name, a URI such as spiffe://DOMAIN/client/{name}, and the purpose \
             clientAuth: fsvc certs add --client {name}"
        ),
        FailureCode::NameConstraint => {
            "have a CA without that constraint sign it; which identities a CA may name is said in the trust \
             settings instead"
                .to_owned()
        }
        _ => {
            "have its CA make another one: version 3, SHA-256 or better, P-256, Ed25519 or RSA with 2048 bits"
                .to_owned()
        }
    }
}

fn for_owner(code: FailureCode, name: &str) -> String {
    match code {
        FailureCode::UntrustedClient => {
            "get one from this server's CA, with the CAs between in the same file, or ask its operator to trust \
             yours: fsvc certs bundle add FILE"
                .to_owned()
        }
        FailureCode::MissingIntermediate => {
            "put the CAs between behind your own certificate, in the same file, without the root".to_owned()
        }
        FailureCode::ClientExpired => {
            format!("fsvc certs renew {name} renews what fsvc made; another CA's certificate comes from there")
        }
        FailureCode::NotYetValid => clocks(),
        FailureCode::WrongPurpose => {
            format!("is it a server's? a client's: fsvc certs add --client {name}; public CAs make none for clients")
        }
        FailureCode::Revoked => format!("ask the operator for a new one: fsvc certs add --client {name} --again"),
        FailureCode::NoRevocationList => {
            "tell its operator: the server's revocation lists are incomplete or out of date, or its CA file is \
             another one; its log says which"
                .to_owned()
        }
        FailureCode::WrongPlace => {
            format!("use a client's certificate that a CA signed: fsvc certs add --client {name}")
        }
        FailureCode::NameConstraint => "have a CA sign it that may sign for this name".to_owned(),
        FailureCode::KeyMismatch => "put the certificate and the key of one pair together".to_owned(),
        _ => "have its CA make another one: version 3, signed with a current algorithm".to_owned(),
    }
}

fn for_visitor(code: FailureCode, case: &Case<'_>) -> String {
    let ca = case.trust.ca.display();
    match code {
        FailureCode::UntrustedServer => format!(
            "a wrong ca.pem, or the CA was changed: compare with the operator's, fsvc certs show {ca}"
        ),
        FailureCode::MissingIntermediate => {
            "its operator puts the CAs between behind the certificate in server.pem, without the root".to_owned()
        }
        FailureCode::ServerExpired => "its operator renews it: fsvc certs renew server".to_owned(),
        FailureCode::NotYetValid => clocks(),
        FailureCode::WrongName => {
            "connect by one of its names, or on the server: fsvc gen-certs --host NAME; a server that is known by its \
             identity: --server-id ID --server-id-only"
                .to_owned()
        }
        FailureCode::WrongPurpose => "is it the right server? its operator makes one: fsvc gen-certs".to_owned(),
        FailureCode::WrongPlace => {
            "its operator makes one that the CA signs: fsvc gen-certs".to_owned()
        }
        FailureCode::NameConstraint => {
            "its operator has a CA sign it that may sign for this name; or connect by a name that it may".to_owned()
        }
        FailureCode::KeyMismatch => "its operator puts the certificate and the key of one pair together".to_owned(),
        _ => "its operator has another one made: fsvc gen-certs".to_owned(),
    }
}

fn clocks() -> String {
    "one of the two clocks is wrong: look at this machine's and at the one where it was made"
        .to_owned()
}
