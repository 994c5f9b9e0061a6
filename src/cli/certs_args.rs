//! The flags of `fsvc gen-certs`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct GenCerts {
    /// Where the certificates are
    #[arg(long, default_value = "certs")]
    pub(super) dir: PathBuf,
    /// A name or address that the server is reached by, besides the usual ones; may be repeated
    #[arg(long, value_name = "NAME|IP")]
    pub(super) host: Vec<String>,
    /// A client to make a certificate for; may be repeated [default: dev]
    #[arg(long, value_name = "NAME")]
    pub(super) client: Vec<String>,
    /// Leave out localhost, the loopback addresses and this machine's name
    #[arg(long)]
    pub(super) no_default_hosts: bool,
    /// The trust domain of the identities [default: from this machine's name]
    #[arg(long, value_name = "DOMAIN")]
    pub(super) trust_domain: Option<String>,
    /// Days that server and client certificates are valid
    #[arg(long, default_value_t = 365)]
    pub(super) days: u32,
    /// Days that a new CA is valid [default: ten years]
    #[arg(long)]
    pub(super) ca_days: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub(super) quiet: bool,
}
