//! What a server is told to do: plain values, without defaults.
//!
//! The flags of the command line hold the defaults, so that `--help` shows them.

use std::time::Duration;

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more wait to be accepted.
    pub connections_max: usize,
    /// Connections at a time of one identity.
    pub connections_per_identity_max: usize,
    /// Handshakes at a time.
    pub handshakes_max: usize,
    /// Bodies at a time that are moved by threads of their own.
    pub transfers_max: usize,
    /// Bytes of a file.
    pub file_size_max: u64,
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Inside a message or a body, without progress.
    pub stall_timeout: Duration,
    /// From the signal to the end of what is running.
    pub grace: Duration,
}
