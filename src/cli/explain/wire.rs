//! What the error codes of the protocol mean.

use super::Explanation;
use crate::protocol::ErrorCode;

const CLIENT: &str = "whoever asked";
const OPERATOR: &str = "the operator of the server";

pub(super) fn explanation(code: ErrorCode) -> Explanation {
    match code {
        ErrorCode::BadFrame
        | ErrorCode::BadRequest
        | ErrorCode::Unsupported
        | ErrorCode::DigestMismatch
        | ErrorCode::Internal => program(code),
        ErrorCode::NotFound | ErrorCode::Exists | ErrorCode::Changed => state(code),
        ErrorCode::TooLarge
        | ErrorCode::Quota
        | ErrorCode::Busy
        | ErrorCode::Unavailable
        | ErrorCode::ShuttingDown => load(code),
        ErrorCode::Denied | ErrorCode::CertificateExpired | ErrorCode::CertificateRevoked => {
            identity(code)
        }
    }
}

/// The answer to JSON without TLS.
pub(super) const fn tls_required() -> Explanation {
    Explanation {
        title: "JSON came to the port without TLS",
        meaning: "The messages of the protocol are JSON, but inside of TLS 1.3 and frames, from a client with a \
                  certificate. This answer is sent before any of that, to whoever forgot it; nothing was done.",
        who: "whoever wrote the client",
        next: &[
            "fsvc explain TLS14",
            "fsvc ping --server HOST:PORT --as NAME",
        ],
    }
}

fn program(code: ErrorCode) -> Explanation {
    match code {
        ErrorCode::BadFrame => Explanation {
            title: "the bytes were not a frame of the protocol",
            meaning: "What the server read is no frame, or not the one that belongs in its place. The stream cannot be \
                      read any further, so the connection ends.",
            who: "whoever wrote the client",
            next: &["fsvc --version"],
        },
        ErrorCode::BadRequest => Explanation {
            title: "the request is wrong in itself",
            meaning: "The server understood that it is a request and that it can never work: a field is missing or \
                      twice there, a name is malformed, a directory stands where a file should. The message says.",
            who: CLIENT,
            next: &["fsvc COMMAND --help"],
        },
        ErrorCode::Unsupported => Explanation {
            title: "the server does not know what was asked",
            meaning: "The server is older than the client, or the client did not offer the protocol fsvc/1. What the \
                      server is, ping says.",
            who: OPERATOR,
            next: &["fsvc ping", "fsvc --version"],
        },
        ErrorCode::DigestMismatch => Explanation {
            title: "what arrived is not what was sent",
            meaning: "The digest of the bytes that arrived differs from the one that the sender gave, or is not the \
                      one that was asked for. Nothing was published; sending it again is safe.",
            who: CLIENT,
            next: &["fsvc put FILE /PATH"],
        },
        _ => Explanation {
            title: "a fault of the server",
            meaning: "Something went wrong inside of the server that is no fault of the request. The client is told no \
                      more; the server's log has the causes.",
            who: OPERATOR,
            next: &["fsvc serve --log debug"],
        },
    }
}

fn state(code: ErrorCode) -> Explanation {
    match code {
        ErrorCode::NotFound => Explanation {
            title: "nothing has this name",
            meaning: "There is no file or directory of this name, or no message, cursor, waiting request or upload of \
                      this number. An upload is given up after some days without a part.",
            who: CLIENT,
            next: &["fsvc ls /DIRECTORY/"],
        },
        ErrorCode::Exists => Explanation {
            title: "something is there already",
            meaning: "The request was to hold only if nothing was there, and there is; or a file and a directory want \
                      the same name; or another reader took the cursor.",
            who: CLIENT,
            next: &["fsvc stat /PATH"],
        },
        _ => Explanation {
            title: "the file is not at the version that was asked for",
            meaning: "Somebody wrote the file after it was looked at, so the condition of the request does not hold. \
                      Nothing was changed: look again, then decide.",
            who: CLIENT,
            next: &["fsvc stat /PATH"],
        },
    }
}

fn load(code: ErrorCode) -> Explanation {
    match code {
        ErrorCode::TooLarge => Explanation {
            title: "over a limit of size",
            meaning: "The file, message or answer is larger than the server takes. The same request will never work \
                      with this server as it is started.",
            who: OPERATOR,
            next: &["fsvc serve --help"],
        },
        ErrorCode::Quota => Explanation {
            title: "over the share of this identity, or a limit of number",
            meaning: "There are too many of something: lines, members of a set, staged contents, uploads, cursors, \
                      topics. Some go away by themselves; the message says which it is.",
            who: "whoever asked, by using fewer; else the operator",
            next: &["fsvc serve --help"],
        },
        ErrorCode::Busy => Explanation {
            title: "the server has no room for it now",
            meaning: "A limit of load is reached, or the connection was too slow or too long silent. The same request \
                      may work a moment later; the client tries again by itself for a while.",
            who: "time; else the operator, with higher limits",
            next: &["fsvc ping --retry-for 1m", "fsvc serve --help"],
        },
        ErrorCode::Unavailable => Explanation {
            title: "a part of the server does not work now",
            meaning: "The disk is full, or a disk failed and the store takes no more changes until it is looked at and \
                      restarted; or nobody answered a request in time.",
            who: OPERATOR,
            next: &["df -h ROOT", "fsvc serve --log debug"],
        },
        _ => Explanation {
            title: "the server is going away",
            meaning: "It was told to stop: what runs is finished, nothing new is begun. Another server of the \
                      same data \
                      does it, or the same one after its restart; the client tries both.",
            who: "time",
            next: &["fsvc ping --retry-for 1m"],
        },
    }
}

fn identity(code: ErrorCode) -> Explanation {
    match code {
        ErrorCode::Denied => Explanation {
            title: "not allowed",
            meaning: "As an answer to a request: no grant of the policy covers it (TLS21). In place of the \
                      greeting: the \
                      certificate names nobody (TLS22). The message says which.",
            who: OPERATOR,
            next: &["fsvc whoami", "fsvc explain TLS21", "fsvc explain TLS22"],
        },
        ErrorCode::CertificateExpired => Explanation {
            title: "the client's certificate ended while it was connected",
            meaning: "A session does nothing after the end of the certificate that it began with. The request was not \
                      done; with a renewed certificate it goes on.",
            who: "whoever holds the CA's key",
            next: &["fsvc certs renew NAME", "fsvc explain TLS06"],
        },
        _ => Explanation {
            title: "the client's certificate was revoked while it was connected",
            meaning: "The operator revoked the certificate, or trusts its CA no more, and the session was ended for \
                      that. The request was not done.",
            who: OPERATOR,
            next: &["fsvc certs list", "fsvc explain TLS16"],
        },
    }
}
