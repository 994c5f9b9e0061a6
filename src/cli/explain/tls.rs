//! What the failures of TLS and certificates mean.

use super::Explanation;
use crate::tls::failure::FailureCode;

const OPERATOR: &str = "the operator of the server";
const CLIENT: &str = "whoever runs the client";
const EITHER: &str = "the one whose certificate it is";

pub(super) fn explanation(code: FailureCode) -> Explanation {
    use FailureCode as Code;
    match code {
        Code::UntrustedClient
        | Code::UntrustedServer
        | Code::MissingIntermediate
        | Code::NoCertificate
        | Code::ClosedEarly => trust(code),
        Code::ClientExpired
        | Code::ServerExpired
        | Code::NotYetValid
        | Code::Revoked
        | Code::NoRevocationList => time(code),
        Code::KeyMismatch | Code::WrongContent | Code::FileAccess => files(code),
        Code::PlainText | Code::NotTls | Code::OldTls => transport(code),
        Code::WrongName
        | Code::WrongPurpose
        | Code::WrongPlace
        | Code::UnusableForm
        | Code::NotAllowed
        | Code::NoIdentity
        | Code::NameConstraint => certificate(code),
    }
}

fn trust(code: FailureCode) -> Explanation {
    match code {
        FailureCode::UntrustedClient => Explanation {
            title: "the server does not trust the CA of the client's certificate",
            meaning: "The server lets in whom a CA in its ca.pem signed. The client's certificate was signed by \
                      another \
                      one, or by one of the same name with another key. The server's log names the CA, and those that \
                      are trusted.",
            who: "the client gets a certificate from this server's CA, or the operator trusts the client's CA",
            next: &[
                "fsvc certs show clients/NAME.pem",
                "fsvc certs add --client NAME",
                "fsvc certs bundle add FILE",
            ],
        },
        FailureCode::UntrustedServer => Explanation {
            title: "the client does not trust the CA of the server's certificate",
            meaning: "The client trusts the CAs in its own ca.pem, and none of them signed what the server \
                      shows: it is \
                      the wrong ca.pem, the wrong server, or the server's CA was changed.",
            who: "the client, with the ca.pem that the operator gives it",
            next: &[
                "fsvc certs show certs/ca.pem",
                "fsvc certs check --connect HOST:PORT",
            ],
        },
        FailureCode::MissingIntermediate => Explanation {
            title: "a CA between the certificate and the trusted one is missing",
            meaning: "The certificate was signed by a CA that is not trusted itself but seems to be below one that is. \
                      Whoever shows a certificate has to send the CAs between along: in the same file, behind the \
                      certificate, the root left out.",
            who: EITHER,
            next: &[
                "cat leaf.pem intermediate.pem > NAME.pem",
                "fsvc certs show NAME.pem",
            ],
        },
        FailureCode::NoCertificate => Explanation {
            title: "the client showed no certificate",
            meaning: "fsvc knows its clients by their certificates, and this one sent none. It may have none \
                      configured; some programs also keep back a certificate whose CA the server did not name.",
            who: CLIENT,
            next: &[
                "fsvc ls --server HOST:PORT --as NAME",
                "fsvc ls --server HOST:PORT --cert FILE --key FILE",
            ],
        },
        _ => Explanation {
            title: "the server closed the connection before its greeting",
            meaning: "Under TLS 1.3 a client is refused after its side of the handshake is done, and the reason can be \
                      lost with the connection. The usual causes: a certificate that is missing, expired, revoked or \
                      not for clients; or the server's limit of connections.",
            who: "whoever can read the server's log, which has the reason",
            next: &["fsvc certs check --connect HOST:PORT --as NAME"],
        },
    }
}

fn time(code: FailureCode) -> Explanation {
    match code {
        FailureCode::ClientExpired => Explanation {
            title: "the client's certificate has expired",
            meaning: "The certificate, or a CA that came with it, is past its end by the clock of whoever looked. The \
                      key and the rights of the identity are untouched: a renewed certificate has the same name.",
            who: "whoever holds the CA's key",
            next: &["fsvc certs renew NAME", "fsvc certs list --expiring 30d"],
        },
        FailureCode::ServerExpired => Explanation {
            title: "the server's certificate has expired",
            meaning: "The certificate that the server uses, or a CA that either side trusts, is past its end by this \
                      clock. No client gets in until it is renewed; nothing is lost meanwhile.",
            who: OPERATOR,
            next: &["fsvc certs renew server", "fsvc certs check"],
        },
        FailureCode::NotYetValid => Explanation {
            title: "a certificate is not valid yet, or two clocks differ",
            meaning: "The certificate begins later than the present time of whoever looked. Nearly always one of the \
                      clocks is wrong: this machine's, the other end's, or that of the machine where the certificate \
                      was made. TLS has one word for this and for an expired certificate.",
            who: "whoever sets the clocks",
            next: &["date -u", "fsvc certs show FILE"],
        },
        FailureCode::Revoked => Explanation {
            title: "the certificate was revoked",
            meaning: "The CA's revocation list has the serial number of this certificate, or of a CA above it. That is \
                      for ever: a new certificate with a new serial number takes its place, with the same name.",
            who: OPERATOR,
            next: &["fsvc certs list", "fsvc certs add --client NAME --again"],
        },
        _ => Explanation {
            title: "there is no valid revocation list of a CA",
            meaning: "With lists in use, every CA needs one that is in date, also where it revokes nothing: without it \
                      nobody can say who is revoked, so all of that CA's clients are refused. The client hears only \
                      that its CA is not known.",
            who: OPERATOR,
            next: &["fsvc certs check", "fsvc certs show certs/ca.crl"],
        },
    }
}

fn files(code: FailureCode) -> Explanation {
    match code {
        FailureCode::KeyMismatch => Explanation {
            title: "the key does not belong to the certificate",
            meaning: "A certificate names one public key, and what was signed with the private key does not fit \
                      it. The \
                      two files are of different pairs: usually one of them was replaced and the other was not.",
            who: EITHER,
            next: &[
                "fsvc certs show NAME.pem",
                "openssl pkey -in NAME-key.pem -pubout | openssl sha256",
                "openssl x509 -in NAME.pem -noout -pubkey | openssl sha256",
            ],
        },
        FailureCode::WrongContent => Explanation {
            title: "a file holds something else than it should",
            meaning: "A certificate stands where a key should be, or a request, an SSH key, an encrypted key, a binary \
                      file, nothing at all. The message names the file, what was expected and what was found.",
            who: "whoever gave the file",
            next: &[
                "fsvc certs show FILE",
                "openssl x509 -inform der -in OLD -out NEW",
                "openssl pkey -in OLD -out NEW",
            ],
        },
        _ => Explanation {
            title: "a file cannot be read, or a key can be read by too many",
            meaning: "The program runs as a user who may not read the file, or the file is not there; or a private key \
                      is open to everyone on the machine, and a key that others may have read is none.",
            who: "whoever owns the file",
            next: &[
                "ls -l FILE; id",
                "chmod 600 FILE",
                "chgrp GROUP FILE && chmod 640 FILE",
            ],
        },
    }
}

fn transport(code: FailureCode) -> Explanation {
    match code {
        FailureCode::PlainText => Explanation {
            title: "something that is no TLS came to the TLS port",
            meaning: "A browser, a health check, a proxy or another program spoke to the port without TLS. It was told \
                      so in its own language where it has one (HTTP, JSON), and nothing was done for it. A balancer \
                      that puts a PROXY header before TLS, or a proxy that ends TLS and hands on plain text, does the \
                      same to clients that speak TLS themselves.",
            who: "whoever configured the other program, or what stands between",
            next: &["fsvc certs check --connect HOST:PORT --as NAME"],
        },
        FailureCode::NotTls => Explanation {
            title: "what the client reached does not speak TLS",
            meaning: "The server's first bytes are no TLS: it is another program's port, or a proxy that ends TLS by \
                      itself and speaks plain text behind.",
            who: CLIENT,
            next: &["fsvc ping --server HOST:7443 --as NAME"],
        },
        _ => Explanation {
            title: "the other end speaks no TLS 1.3",
            meaning: "fsvc speaks TLS 1.3 and nothing older: before it, client certificates travel in the clear. The \
                      other end is old, or something between ends its TLS and begins another.",
            who: "whoever runs the older end",
            next: &["openssl s_client -tls1_3 -connect HOST:PORT"],
        },
    }
}

fn certificate(code: FailureCode) -> Explanation {
    match code {
        FailureCode::WrongName => Explanation {
            title: "the server's certificate is not for the name that was connected to",
            meaning: "A client only talks to the server that its user named, and the certificate holds other \
                      names. The \
                      subject (common name) does not count; an address counts only if it stands there as an address.",
            who: "the client uses a name that is there, or the operator adds this one",
            next: &[
                "fsvc gen-certs --host NAME",
                "fsvc certs check --connect HOST:PORT",
            ],
        },
        FailureCode::WrongPurpose => Explanation {
            title: "the certificate is for another purpose",
            meaning: "A client shows a certificate that is not for clients (clientAuth), or a server one that is not \
                      for servers (serverAuth): usually the wrong file. Public CAs no longer make them for clients.",
            who: EITHER,
            next: &["fsvc certs show FILE", "fsvc certs add --client NAME"],
        },
        FailureCode::WrongPlace => Explanation {
            title: "a CA's certificate stands in the place of another, or the other way round",
            meaning: "A CA's certificate, or one that is signed by itself, is shown as a server's or client's own; or \
                      one that is no CA's is trusted as a CA or signed another one. Whoever holds the key of what is \
                      trusted as a CA could name anybody, so this is refused.",
            who: EITHER,
            next: &["fsvc certs show FILE", "fsvc gen-certs"],
        },
        FailureCode::UnusableForm => Explanation {
            title: "the certificate is of a form that is not taken",
            meaning: "An X.509 certificate of version 1, a signature with SHA-1, an RSA key below 2048 bits, an \
                      extension that is marked critical and known to nobody here, or bytes that break the rules.",
            who: "the CA that made it",
            next: &["fsvc certs show FILE", "openssl x509 -in FILE -noout -text"],
        },
        FailureCode::NotAllowed => Explanation {
            title: "the identity is known, and may not do what was asked",
            meaning: "The certificate is good, and no grant in the server's policy covers this action on this name for \
                      that identity. The message says who you are there and what was asked.",
            who: OPERATOR,
            next: &["fsvc whoami", "fsvc can read /PATH"],
        },
        FailureCode::NoIdentity => Explanation {
            title: "the certificate is good, and names nobody",
            meaning: "An identity is the one URI in a certificate, spiffe://DOMAIN/PATH in lower case, and it counts \
                      only in a certificate that is for clients and for nothing else. None, two, or one that could be \
                      read in two ways is nobody. The common name is not used.",
            who: "the CA that made it",
            next: &[
                "fsvc certs show clients/NAME.pem",
                "fsvc certs add --client NAME",
            ],
        },
        _ => Explanation {
            title: "a CA of the chain may not sign for this name",
            meaning: "The CA's own certificate says for which names it may sign (name constraints), and this is none \
                      of them. Constraints on names that are URIs cannot be checked, so a chain with one is refused.",
            who: "whoever runs that CA",
            next: &["fsvc certs show FILE"],
        },
    }
}
