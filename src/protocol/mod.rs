//! The wire vocabulary of fsvc/1: frames, requests, answers, error codes.
//!
//! Pure: bytes in, values out. PROTOCOL.md is the contract, this module is its only reader and
//! writer.

mod frame;
mod json;
mod request;
mod response;

pub use frame::{
    DATA_SIZE_MAX, Frame, FrameError, HEADER_SIZE, Header, Kind, MESSAGE_SIZE_MAX, TRAILER_SIZE_MAX,
};
pub use json::{DEPTH_MAX as JSON_DEPTH_MAX, INTEGER_MAX, JsonError};
pub use request::{
    Conditions, Copy, Get, List, Move, Op, Put, Question, Remove, Request, RequestError, Stat,
};
pub use response::{
    Directory, ErrorCode, ErrorReply, FileInfo, Greeting, Hello, Limits, ListEntry, Listing,
    Removed, Reply, Response, Trailer, Verdict, Whoami,
};

/// The protocol's name in ALPN (RFC 7301); the version is negotiated there.
pub const ALPN: &[u8] = b"fsvc/1";

/// What this side calls itself in the greeting.
pub const SOFTWARE: &str = concat!("fsvc/", env!("CARGO_PKG_VERSION"));
