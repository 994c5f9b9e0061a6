//! The flags of what is done around the CA: requests, signatures, trusted CAs, its own change.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::durations::duration;

/// What is done around the CA.
#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Make a certificate for a new client, or for a server
    #[command(after_help = "Example: fsvc certs add --client alice")]
    Add(AddFlags),
    /// Make new certificates in the place of those that are there
    #[command(
        after_help = "Examples: fsvc certs renew alice\n          fsvc certs renew --all\n\
                            The old one counts until it ends. A running server or client takes the new \
                            one by itself."
    )]
    Renew(RenewFlags),
    /// End a certificate before its time
    #[command(
        after_help = "Example: fsvc certs revoke alice --reason key-compromise\n\
                            Copy ca.crl to every server; nothing is ever taken back from it."
    )]
    Revoke(RevokeFlags),
    /// What was issued
    #[command(after_help = "Example: fsvc certs list --expiring 30d")]
    List(ListFlags),
    /// What a file says: certificates or revocation lists, PEM
    Show(ShowFlags),
    /// Whether the files here will do, and what a server says of them
    #[command(
        after_help = "Exit code: 0 ok, 1 something is near its end, 2 broken, 3 unreadable.\n\
                            Example: fsvc certs check --connect localhost:7443 --as dev"
    )]
    Check(CheckFlags),
    /// Make a key and a certificate request on the machine that uses them
    #[command(
        after_help = "Example: fsvc certs request --client alice --dir certs\n\
                            The key stays where it is made. Have certs/clients/alice.csr signed \
                            (fsvc certs sign), and put the certificate back as \
                            certs/clients/alice.pem, with ca.pem."
    )]
    Request(RequestFlags),
    /// Sign the key of a certificate request
    #[command(
        after_help = "Example: fsvc certs sign alice.csr --client alice --out alice.pem\n\
                            Only the public key is taken from the request: the flags say whom the \
                            certificate is for, and what else was asked for is dropped."
    )]
    Sign(SignFlags),
    /// Add CAs of others to ca.pem, or take one out
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Put a new CA in the place of the old one, step by step, with no moment of distrust
    #[command(
        subcommand,
        after_help = "Order: start, hand out ca.pem and ca.crl, a day later promote, fsvc certs \
                      renew --all, hand out the new certificates, finish. rollback takes a step \
                      back before that."
    )]
    RotateCa(RotateCommand),
}

/// Where the certificates are, and how results are printed.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Where the certificates are
    #[arg(long, default_value = "certs")]
    pub(super) dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Whom a certificate is for.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("holder").required(true).args(["client", "server"]))]
pub(super) struct HolderFlags {
    /// For the client of this name
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    pub(super) client: Option<String>,
    /// For a server
    #[arg(long, requires = "host")]
    pub(super) server: bool,
    /// A name or address that clients reach the server at; may be repeated
    #[arg(long, value_name = "NAME|IP")]
    pub(super) host: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct AddFlags {
    #[command(flatten)]
    pub(super) holder: HolderFlags,
    /// Days that the certificate is valid
    #[arg(long, default_value_t = 365)]
    pub(super) days: u32,
    /// Even if there is one in force
    #[arg(long)]
    pub(super) again: bool,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["name", "all"]))]
pub(super) struct RenewFlags {
    /// A client's name, or server
    pub(super) name: Option<String>,
    /// All that are here and near their end, or of a CA that signs no more
    #[arg(long)]
    pub(super) all: bool,
    /// With --all: those with less of their life left than this, in hundredths
    #[arg(long, value_name = "PERCENT", default_value_t = 33, requires = "all",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) window: u8,
    /// Keep the key; the serial number is a new one all the same
    #[arg(long)]
    pub(super) reuse_key: bool,
    /// Days that the certificates are valid
    #[arg(long, default_value_t = 365)]
    pub(super) days: u32,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "serial", "cert", "all_of"]))]
pub(super) struct RevokeFlags {
    /// A client's name, or server
    pub(super) name: Option<String>,
    /// The certificate with this serial number
    #[arg(long, value_name = "HEX")]
    pub(super) serial: Option<String>,
    /// The certificate in this file
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// All of this client, or of server
    #[arg(long, value_name = "NAME")]
    pub(super) all_of: Option<String>,
    /// Why, for who reads the list
    #[arg(long, value_enum, default_value = "unspecified")]
    pub(super) reason: ReasonFlag,
    #[command(flatten)]
    pub(super) place: Place,
}

/// As RFC 5280 has them.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum ReasonFlag {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
}

#[derive(Debug, Args)]
pub(super) struct ListFlags {
    /// Only what is in force and ends within this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) expiring: Option<Duration>,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
pub(super) struct ShowFlags {
    /// The file
    pub(super) file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckFlags {
    /// Ask this server too
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) connect: Option<String>,
    /// As which client
    #[arg(long = "as", value_name = "NAME", default_value = "dev")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
pub(super) struct RequestFlags {
    #[command(flatten)]
    pub(super) holder: HolderFlags,
    /// Ask for a new certificate of the key that is there
    #[arg(long)]
    pub(super) reuse_key: bool,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
pub(super) struct SignFlags {
    /// The request, PEM or DER
    pub(super) request: PathBuf,
    #[command(flatten)]
    pub(super) holder: HolderFlags,
    /// Days that the certificate is valid
    #[arg(long, default_value_t = 365)]
    pub(super) days: u32,
    /// Where the certificate goes [default: clients/NAME.pem or server.pem in the directory]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Even if the client has a certificate of another key
    #[arg(long)]
    pub(super) again: bool,
    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Trust the CAs in a file
    Add {
        /// The certificates of the CAs, PEM
        file: PathBuf,
        /// Their revocation lists, PEM
        #[arg(long, value_name = "FILE", conflicts_with = "no_crl")]
        crl: Option<PathBuf>,
        /// They have no revocation lists: servers run with --no-revocation
        #[arg(long)]
        no_crl: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Trust a CA no more
    #[command(group = ArgGroup::new("pick").required(true).args(["file", "subject"]))]
    Remove {
        /// The certificate of the CA, PEM
        file: Option<PathBuf>,
        /// Its distinguished name or common name
        #[arg(long, value_name = "NAME")]
        subject: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RotateCommand {
    /// Make a new CA and trust it; the old one goes on signing
    Start {
        /// Days that the new CA is valid [default: ten years]
        #[arg(long)]
        ca_days: Option<u32>,
        #[command(flatten)]
        place: Place,
    },
    /// Say how far it is, and which certificates are still of which CA
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Let the new CA sign from now on
    Promote {
        /// Do not wait a day for ca.pem to reach everybody
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Trust the old CA no more
    Finish {
        #[command(flatten)]
        place: Place,
    },
    /// Take one step back: let the old CA sign again, then trust the new one no more
    Rollback {
        #[command(flatten)]
        place: Place,
    },
}
