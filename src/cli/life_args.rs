//! The flags of what is done with single certificates: add, renew, revoke, list, show, check.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::args::PinnedServer;
use super::ca_args::{CaCommand, HolderFlags, Place};
use super::durations::patience;
use crate::pki::{Reason, Window};

/// What is done with certificates.
#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// Issue a certificate with a key of its own
    #[command(after_help = "Example: fsvc certs add --client alice\n\
                            A name that has a certificate is refused, unless --again asks for a \
                            second one: the first stays valid then, and its files go to \
                            ca-private/archive.")]
    Add(AddFlags),
    /// Put new certificates in the place of old ones, also of those that are out of date
    #[command(after_help = "Example, for a timer: fsvc certs renew --all\n\
                            The old certificates stay valid until their end, in \
                            ca-private/archive.")]
    Renew(RenewFlags),
    /// Revoke certificates, for all time
    #[command(
        after_help = "Example: fsvc certs revoke alice --reason keyCompromise\n\
                            Works from the index: the files need not be here. A server that reads \
                            ca.crl takes the new list within --reload-every."
    )]
    Revoke(RevokeFlags),
    /// List what was issued, and how it stands
    List(ListFlags),
    /// Show certificates, requests and revocation lists, of whomever
    #[command(after_help = "Nothing is verified without --ca.")]
    Show(ShowFlags),
    /// Look for what is wrong with the certificates here, and with a connection
    #[command(
        after_help = "Exit codes: 0 all is well, 1 something is in the last third of its life or two \
                      clocks differ, 2 something is broken, 3 something cannot be read or reached.\n\
                      What is broken has one of the codes TLS01 to TLS23 and the next command; fsvc \
                      explain has more. With --connect it is the server who decides whether a client \
                      is trusted, and who it is; one that has no right there is told so too.\n\
                      Example: fsvc certs check --connect localhost:7443 --as dev"
    )]
    Check(CheckFlags),
    #[command(flatten)]
    Ca(CaCommand),
}

#[derive(Debug, Args)]
pub(super) struct AddFlags {
    #[command(flatten)]
    pub(super) holder: HolderFlags,
    /// Days that the certificate is valid
    #[arg(long, default_value_t = 365)]
    pub(super) days: u32,
    /// Even if the name has one
    #[arg(long)]
    pub(super) again: bool,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "all"]))]
pub(super) struct RenewFlags {
    /// server, or the name of a client, server or peer; client/NAME where several have it
    pub(super) name: Option<String>,
    /// All whose files are here and that are near their end, or of a CA that does not sign any more
    #[arg(long)]
    pub(super) all: bool,
    /// How near: with no more life left than 33%, 30d, 12h; 100% is always [default: 33% with --all]
    #[arg(long, value_name = "PART|TIME")]
    pub(super) window: Option<Window>,
    /// Keep the key
    #[arg(long)]
    pub(super) reuse_key: bool,
    /// Revoke the old certificates after this time: done by the next command here that signs, such as
    /// renew --all of a timer
    #[arg(long, value_name = "TIME", value_parser = patience)]
    pub(super) revoke_old_after: Option<Duration>,
    /// Days that the new certificates are valid [default: as long as the old ones]
    #[arg(long)]
    pub(super) days: Option<u32>,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("target").required(true).args(["name", "all_of", "serial", "cert"])
)]
pub(super) struct RevokeFlags {
    /// Whose certificate; it must be the only one in force
    pub(super) name: Option<String>,
    /// Every certificate of this name
    #[arg(long, value_name = "NAME")]
    pub(super) all_of: Option<String>,
    /// The certificate with this serial number, hexadecimal
    #[arg(long)]
    pub(super) serial: Option<String>,
    /// The certificate in this file
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// Why, as the list says: keyCompromise, superseded, cessationOfOperation, ...
    #[arg(long, default_value = "unspecified")]
    pub(super) reason: Reason,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
pub(super) struct ListFlags {
    /// Only what is in use and has no more life left than this: 30d, 12h, 33%
    #[arg(long, value_name = "TIME|PART")]
    pub(super) expiring: Option<Window>,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
pub(super) struct ShowFlags {
    /// PEM or DER
    pub(super) file: PathBuf,
    /// Verify against the CAs in this file
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckFlags {
    /// Where the certificates are
    #[arg(
        long = "tls-dir",
        visible_alias = "dir",
        env = "FSVC_TLS_DIR",
        default_value = "certs"
    )]
    pub(super) dir: PathBuf,
    /// Shake hands with this server too
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) connect: Option<String>,
    #[command(flatten)]
    pub(super) pinned: PinnedServer,
    /// The server's policy, for what it says of single CAs ([[trust]]) [default: policy.toml beside the
    /// certificates, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// The CAs whose clients the server lets in, where it was given other ones by its --ca [default: ca.pem]
    #[arg(long, value_name = "FILE")]
    pub(super) client_ca: Option<PathBuf>,
    /// As this client, and look at its files alone [default: all files, the only client]
    #[arg(long = "as", value_name = "NAME", env = "FSVC_AS")]
    pub(super) name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}
