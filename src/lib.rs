//! fsvc: a file service over mutual TLS. The certificate is the identity.
//!
//! The modules in reading order; imports point down only (ARCHITECTURE.md draws the layers).

#![forbid(unsafe_code)]

// Vocabulary: pure.
pub mod protocol;

pub mod json;

pub mod path;

pub mod filter;

pub mod label;

pub mod identity;

pub mod digest;

pub mod content;

pub mod delta;

pub mod compression;

pub mod escape;

pub mod fault;

// Parts: siblings.
pub mod database;

pub mod log;

pub mod index;

pub mod store;

pub mod policy;

pub mod topics;

// Transport.
pub mod socket;

pub mod connection;

pub mod tls;

// Service.
pub mod ops;

pub mod session;

// Ends.
pub mod config;

pub mod server;

pub mod client;

pub mod pki;

// Edge.
pub mod cli;
