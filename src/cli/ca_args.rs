//! The flags of what is done around the CA: requests, signatures, trusted CAs, its own change.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};

use crate::pki::{Holder, NewBearer};

/// What is done around the CA.
#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
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

impl Place {
    /// How results are printed, and where the certificates are.
    pub(super) fn pair(&self) -> (bool, &Path) {
        (self.json, &self.dir)
    }
}

/// Whom a certificate is for.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("bearer").required(true).args(["client", "server", "peer"]))]
pub(super) struct HolderFlags {
    /// For a client
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    client: Option<String>,
    /// For a server [default: the one in server.pem]
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        default_missing_value = "",
        requires = "host"
    )]
    server: Option<String>,
    /// For both ends of connections
    #[arg(long, value_name = "NAME", requires = "host")]
    peer: Option<String>,
    /// A name or address that clients reach it at; may be repeated
    #[arg(long, value_name = "NAME|IP")]
    host: Vec<String>,
}

impl HolderFlags {
    pub(super) fn holder(&self) -> Holder<'_> {
        let bearer = match (&self.client, &self.peer, &self.server) {
            (Some(name), ..) => NewBearer::Client(name),
            (_, Some(name), _) => NewBearer::Peer(name),
            (.., name) => NewBearer::Server(name.as_deref().unwrap_or_default()),
        };
        Holder {
            bearer,
            hosts: &self.host,
        }
    }
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
    /// Where the certificate goes [default: its place in the directory, such as clients/NAME.pem]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Even if the name has a certificate of another key
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
