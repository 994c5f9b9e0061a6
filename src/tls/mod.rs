//! TLS: what is loaded from files, how both ends are configured, who the peer is.
//!
//! TLS 1.3 only, one crypto provider, no resumption: a resumed session would pass by the
//! certificate check.

pub mod pem;
