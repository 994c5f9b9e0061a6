//! What a server says: the greeting, answers, errors, and the trailer that ends a body.
//!
//! A reader passes over fields that it does not know; a code that it does not know is `internal`.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::is_zero;
use super::json::{self, JsonError};
use crate::content::Attributes;
use crate::digest::Digest;
use crate::path::{Prefix, RemotePath};

/// Why a request failed: what a program branches on. Stable, and the same for every reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The bytes were not a frame, or not the frame that belongs here; the connection ends.
    BadFrame,
    /// The request was understood as a request, and is wrong.
    BadRequest,
    /// The op is not known to this server.
    Unsupported,
    /// No grant covers what was asked.
    Denied,
    /// The file is not there.
    NotFound,
    /// Something is there already.
    Exists,
    /// The file is not at the version that was asked for.
    Changed,
    /// Over a limit of size.
    TooLarge,
    /// Over the identity's share.
    Quota,
    /// Over a limit of load; worth another try later.
    Busy,
    /// A part of the server does not work now, a full disk among them; worth another try later.
    Unavailable,
    /// The server is going away; worth another try elsewhere.
    ShuttingDown,
    /// The client's certificate ended while the session lived.
    CertificateExpired,
    /// The client's certificate was revoked while the session lived.
    CertificateRevoked,
    /// What arrived is not what the sender says it sent; nothing was published.
    DigestMismatch,
    /// A fault of the server; its log says more.
    #[serde(other)]
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of PROTOCOL.md.
    pub const ALL: [Self; 16] = [
        Self::BadFrame,
        Self::BadRequest,
        Self::Unsupported,
        Self::Denied,
        Self::NotFound,
        Self::Exists,
        Self::Changed,
        Self::TooLarge,
        Self::Quota,
        Self::Busy,
        Self::Unavailable,
        Self::ShuttingDown,
        Self::CertificateExpired,
        Self::CertificateRevoked,
        Self::DigestMismatch,
        Self::Internal,
    ];
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// An error as it crosses the wire: a code for programs, a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    pub code: ErrorCode,
    pub message: String,
}

/// The first message of a connection, from the server: a greeting, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Greeting {
    Hello(Hello),
    Error(ErrorReply),
}

/// Who speaks, to whom, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the server's software.
    pub server: String,
    /// Who the server takes the client for.
    pub identity: String,
    /// The end of the client's certificate.
    pub expires_at: Timestamp,
    /// From when on the client should use a new certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_after: Option<Timestamp>,
    /// The server's clock.
    pub time: Timestamp,
    pub limits: Limits,
    /// What this server does beyond fsvc/1 as it first stood.
    pub features: Vec<String>,
}

/// The limits that a client can run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes of a message.
    pub message_size_max: u64,
    /// Most bytes of a body in one frame.
    pub data_size_max: u64,
    /// Most bytes of a file.
    pub file_size_max: u64,
}

/// An answer, or an error. An error without an id is about the connection, which then ends, or about
/// a request whose id could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Response<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    #[serde(flatten)]
    pub reply: Reply<T>,
}

/// The two ways that a request ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    Ok(T),
    Error(ErrorReply),
}

/// What is known about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    pub path: RemotePath,
    /// Bytes.
    pub size: u64,
    pub modified: Timestamp,
    /// The sequence number of the change that made it; absent for a file that another program put
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The digest of the content; absent where nobody has computed it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What its writer's file system knew about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// One page of a directory, in the order of the names' bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub path: Prefix,
    pub entries: Vec<ListEntry>,
    /// Ask again with this as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many names in this page's range no remote path can spell; they are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_unnameable: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ListEntry {
    File(FileInfo),
    Directory(Directory),
}

/// A directory in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub path: Prefix,
}

impl ListEntry {
    /// The name, whole.
    pub fn path(&self) -> &str {
        match self {
            Self::File(file) => file.path.as_str(),
            Self::Directory(directory) => directory.path.as_str(),
        }
    }
}

/// A file is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    pub path: RemotePath,
    /// The sequence number of the removal.
    pub sequence: u64,
}

/// Who the client is to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    pub identity: String,
    pub serial: String,
    /// Who issued the certificate.
    pub ca: String,
    pub expires_at: Timestamp,
    /// How many grants of the policy are for this identity; with none it may do nothing. Absent where
    /// the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_grants: Option<u64>,
}

/// Whether something would be allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub allowed: bool,
    pub reason: String,
}

/// The end of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Trailer {
    /// The sender gave up; what came is worth nothing.
    Abort { abort: ErrorCode },
    /// The body is whole.
    Whole { size: u64, digest: Digest },
    /// The body is a range of something: only the whole has a digest.
    Range { size: u64 },
}

impl Trailer {
    /// Reads a trailer.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not a trailer.
    pub fn decode(bytes: &[u8]) -> Result<Self, JsonError> {
        let map = json::object(bytes)?;
        // By the field that tells them apart: a digest that is none does not make a range.
        let is_range = !map.contains_key("digest") && !map.contains_key("abort");
        let trailer = serde_json::from_value(serde_json::Value::Object(map));
        match trailer.map_err(|error| JsonError::of(&error))? {
            Self::Range { .. } if !is_range => {
                Err(JsonError("the digest of a trailer is none".to_owned()))
            }
            trailer => Ok(trailer),
        }
    }
}

impl Greeting {
    /// Reads a greeting.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not a greeting.
    pub fn decode(bytes: &[u8]) -> Result<Self, JsonError> {
        let mut map = json::object(bytes)?;
        let greeting = if let Some(error) = map.remove("error") {
            serde_json::from_value(error).map(Self::Error)
        } else if let Some(hello) = map.remove("hello") {
            serde_json::from_value(hello).map(Self::Hello)
        } else {
            return Err(JsonError(
                "a greeting has \"hello\" or \"error\"".to_owned(),
            ));
        };
        greeting.map_err(|error| JsonError::of(&error))
    }
}

impl<T: DeserializeOwned> Response<T> {
    /// Reads an answer.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or not an answer of this kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, JsonError> {
        let mut map = json::object(bytes)?;
        let id = map.remove("id").and_then(|id| id.as_u64());
        let reply = if let Some(error) = map.remove("error") {
            serde_json::from_value(error).map(Reply::Error)
        } else if let Some(ok) = map.remove("ok") {
            serde_json::from_value(ok).map(Reply::Ok)
        } else {
            return Err(JsonError("an answer has \"ok\" or \"error\"".to_owned()));
        };
        Ok(Self {
            id,
            reply: reply.map_err(|error| JsonError::of(&error))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_stable_name() {
        let names: Vec<String> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
        let expected = "bad_frame bad_request unsupported denied not_found exists changed too_large quota busy \
                        unavailable shutting_down certificate_expired certificate_revoked digest_mismatch internal";
        assert_eq!(names.join(" "), expected);
        assert_eq!(
            serde_json::from_str::<ErrorCode>("\"from_the_future\"").unwrap(),
            ErrorCode::Internal
        );
    }

    #[test]
    fn golden_answers() {
        let ok = Response {
            id: Some(7),
            reply: Reply::Ok(Verdict {
                allowed: true,
                reason: "grant 1".to_owned(),
            }),
        };
        let text = r#"{"id":7,"ok":{"allowed":true,"reason":"grant 1"}}"#;
        assert_eq!(serde_json::to_string(&ok).unwrap(), text);
        assert_eq!(Response::decode(text.as_bytes()), Ok(ok));

        let text = r#"{"id":7,"error":{"code":"not_found","message":"no file /a"}}"#;
        let error = Response::<Verdict>::decode(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&error).unwrap(), text);

        let digest = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        let trailer = format!(r#"{{"size":3,"digest":"{digest}"}}"#);
        assert_eq!(
            Trailer::decode(trailer.as_bytes()).unwrap(),
            Trailer::Whole {
                size: 3,
                digest: Digest::of(b"abc")
            }
        );
        let abort = Trailer::decode(br#"{"abort":"unavailable"}"#).unwrap();
        assert_eq!(
            abort,
            Trailer::Abort {
                abort: ErrorCode::Unavailable
            }
        );
    }

    #[test]
    fn a_client_passes_over_fields_it_does_not_know() {
        let text = r#"{"id":1,"ok":{"path":"/a","sequence":9,"later":true},"also":[]}"#;
        let greeting =
            br#"{"hello":{"server":"x","identity":"x","expires_at":"2027-01-01T00:00:00Z",
            "time":"2026-01-01T00:00:00Z","features":[],"limits":{"message_size_max":1,
            "data_size_max":1,"file_size_max":1,"later":1},"later":{}},"also":1}"#;
        assert!(matches!(Greeting::decode(greeting), Ok(Greeting::Hello(_))));
        let removed = Response::<Removed>::decode(text.as_bytes()).unwrap();
        assert!(matches!(
            removed.reply,
            Reply::Ok(Removed { sequence: 9, .. })
        ));
    }
}
