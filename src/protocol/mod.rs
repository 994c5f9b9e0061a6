//! The wire vocabulary of fsvc/1: frames, requests, answers, error codes.
//!
//! Pure: bytes in, values out. PROTOCOL.md is the contract, this module is its only reader and
//! writer.

mod answer;
mod encoding;
mod event;
mod frame;
mod json;
mod packed;
mod request;
mod response;
mod upload;

pub use crate::content::{Attributes, ContentId};
pub use answer::{
    Committed, CursorLag, DamagedRecord, Fetched, LogStats, LogVerified, Published, PublishedLines,
    Reconciled, RefusedLine, Staged, Subscribed, TopicInfo, TopicPage,
};
pub use encoding::{Encoding, FEATURE_ZSTD, Got, GotMany};
pub use event::{Attachment, Event, FileChange, FileState, Heartbeat, Lost, Notice};
pub use frame::{
    DATA_SIZE_MAX, Frame, FrameError, HEADER_SIZE, Header, Kind, MESSAGE_SIZE_MAX, TRAILER_SIZE_MAX,
};
pub use json::{DEPTH_MAX as JSON_DEPTH_MAX, JsonError};
pub use packed::{LINE_SIZE_MAX, Packed, PackedError, Unpacker};
pub use request::{
    ABORTED_MAX, Abort, Ack, Answer, Append, Begin, Call, Commit, Conditions, Copy, Fetch, Forget,
    Get, GetMany, Last, List, LogVerify, Member, Move, Op, Publish, Put, PutMany, Question,
    Reconcile, Remove, Request, RequestError, Signature, Stage, Start, Stat, Status, Subscribe,
    Topics, Uploads, Watch, Write,
};
pub use response::{
    Directory, ErrorCode, ErrorReply, FileInfo, Greeting, Hello, Limits, ListEntry, Listing,
    Removed, Reply, Response, Trailer, Verdict, Whoami,
};
pub use upload::{
    Begun, ChunkList, MANY_FILES_MAX, MANY_PATHS_MAX, MANY_SIZE_MAX, PackedGet, PackedPut, Part,
    PatchStep, PutManyDone, RefusedFile, UploadInfo, UploadPage, UploadStatus, Written,
};

/// The protocol's name in ALPN (RFC 7301); the version is negotiated there.
pub const ALPN: &[u8] = b"fsvc/1";

/// What this side calls itself in the greeting.
pub const SOFTWARE: &str = concat!("fsvc/", env!("CARGO_PKG_VERSION"));

/// A field that is left out where it says no.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A field that is left out where it counts nothing.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}
