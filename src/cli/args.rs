//! The flags, as the user types them; they hold every default.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use super::certs_args::GenCerts;
pub(super) use super::durations::duration;
use super::durations::patience;
use super::explain::Explain;
use super::file_args::{AppendFlags, GetFlags, LsFlags, PutFlags, RmFlags, SyncFlags};
use super::life_args::CertsCommand;
use super::message_args::{AdminCommand, MessageCommand};
use crate::client::{Delta, N_STREAMS, N_STREAMS_MAX};
use crate::identity::SpiffeId;
use crate::path::RemotePath;
use crate::tls::pinned::ServerId;

/// A file service over mutual TLS: the certificate is the identity.
#[derive(Debug, Parser)]
#[command(
    name = "fsvc",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found / exists / changed, 4 denied, \
                        5 connect or TLS, 6 busy or unavailable."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make sure that a CA, a server certificate and client certificates exist
    #[command(
        after_help = "Example: fsvc gen-certs --host files.internal --client alice\n\
                            A second run changes nothing. There is no flag that overwrites a CA."
    )]
    GenCerts(GenCerts),
    /// Issue, sign, trust: what certificates need in their life
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Serve files to clients with a certificate
    #[command(
        after_help = "Example: fsvc serve --root /srv/files --listen 0.0.0.0:7443\n\
                            SIGTERM drains, a second one exits at once."
    )]
    Serve(Box<Serve>),
    /// Say what an error code means, who can fix it, and how
    #[command(after_help = "Example: fsvc explain TLS06\n\
                            Without a code all of them are listed.")]
    Explain(Explain),
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Serve {
    /// Where ca.pem, ca.crl, server.pem and server-key.pem are; or tls.crt, tls.key and ca.crt
    #[arg(long, env = "FSVC_TLS_DIR", default_value = "certs")]
    pub(super) tls_dir: PathBuf,
    /// The directory that is served; made if its parent is there
    #[arg(long, default_value = "data")]
    pub(super) root: PathBuf,
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDR:PORT")]
    pub(super) listen: String,
    /// The grants [default: policy.toml in the TLS directory]
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// The server's chain [default: server.pem in the TLS directory]
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// The server's key [default: server-key.pem in the TLS directory]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// The CAs whose clients are let in [default: ca.pem in the TLS directory]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Their revocation lists [default: ca.crl in the TLS directory]
    #[arg(long, value_name = "FILE", conflicts_with = "no_revocation")]
    pub(super) crl: Option<PathBuf>,
    /// Take every certificate that is in date, revoked or not
    #[arg(long)]
    pub(super) no_revocation: bool,
    /// How often it is looked whether certificates, keys, lists or the policy hold something else;
    /// SIGHUP looks at once
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(super) reload_every: Duration,
    /// What is logged: error, warn, info, debug, or a tracing filter
    #[arg(long, env = "FSVC_LOG", default_value = "info")]
    pub(super) log: String,
    #[command(flatten)]
    pub(super) keep: KeepFlags,
    #[command(flatten)]
    pub(super) limits: LimitFlags,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is kept")]
pub(super) struct KeepFlags {
    /// Rules for single topics: how long their messages are kept, and their schemas
    /// [default: topics.toml in the TLS directory, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) topics: Option<PathBuf>,
    /// How long messages are kept
    #[arg(long, default_value = "7d", value_parser = duration)]
    pub(super) keep: Duration,
    /// Bytes of messages that each topic keeps; the oldest go first
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub(super) keep_size: ByteSize,
    /// How long it is known what was done to files; how they are now is always known
    #[arg(long, default_value = "30d", value_parser = duration)]
    pub(super) keep_history: Duration,
    /// How long an upload waits for its next part before it is given up
    #[arg(long, default_value = "7d", value_parser = duration)]
    pub(super) keep_uploads: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitFlags {
    /// Largest file
    #[arg(long, default_value = "1TiB", value_name = "SIZE")]
    pub(super) size_max: ByteSize,
    /// Space that is kept free on the disk: puts are refused below it
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    pub(super) reserve: ByteSize,
    /// Connections at a time
    #[arg(long, default_value_t = 10_000)]
    pub(super) connections_max: usize,
    /// Connections at a time of one identity
    #[arg(long, default_value_t = 256)]
    pub(super) connections_per_identity_max: usize,
    /// Handshakes at a time
    #[arg(long, default_value_t = 128)]
    pub(super) handshakes_max: usize,
    /// Large bodies at a time, each moved by a thread of its own; a compressed one takes up to 9 MiB of memory
    #[arg(long, default_value_t = 128)]
    pub(super) transfers_max: usize,
    /// Longest handshake
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(super) handshake_timeout: Duration,
    /// Longest silence between two requests
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub(super) idle_timeout: Duration,
    /// Longest standstill inside a message or a body
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(super) stall_timeout: Duration,
    /// How long a drain waits for what is running
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(super) grace: Duration,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Send files; - is standard input
    #[command(
        after_help = "Example: fsvc put report.pdf /reports/2026.pdf\n         \
                            fsvc put *.csv /inbox/\n         tar c dir | fsvc put - /backup/dir.tar\n         \
                            fsvc put --atomic model.bin index.json /models/7/\n         \
                            fsvc put -r ./site /www"
    )]
    Put(Box<PutFlags>),
    /// Fetch a file; - is standard output
    #[command(
        after_help = "Example: fsvc get /reports/2026.pdf\n         fsvc get /reports/2026.pdf - | wc -c\n         \
                            fsvc get -r /reports ./reports"
    )]
    Get(Box<GetFlags>),
    /// Put bytes behind those of a file, in one step
    #[command(after_help = "Example: fsvc append today.log /logs/all.log")]
    Append(AppendFlags),
    /// Print files to standard output
    #[command(after_help = "Example: fsvc cat /etc/motd")]
    Cat {
        #[arg(required = true)]
        remote: Vec<RemotePath>,
        #[command(flatten)]
        common: Common,
    },
    /// List a directory
    #[command(after_help = "Example: fsvc ls -l /reports\n         fsvc ls -r / --include '*.pdf'")]
    Ls(Box<LsFlags>),
    /// Show what is known about files
    #[command(after_help = "Example: fsvc stat /reports/2026.pdf --json")]
    Stat {
        #[arg(required = true)]
        remote: Vec<RemotePath>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove files
    #[command(
        after_help = "Example: fsvc rm /reports/2025.pdf\n         fsvc rm -r /reports --dry-run"
    )]
    Rm(Box<RmFlags>),
    /// Make a directory of the server like a local folder, or the other way round
    #[command(after_help = "Example: fsvc sync ./site fsvc:/www --delete\n         \
                            fsvc sync fsvc:/www ./site --dry-run\n         \
                            fsvc sync ./inbox fsvc:/inbox --watch\n\
                            The server's side is written fsvc:/path, since /path may be a local folder as well. \
                            Files are compared by content; symbolic links are passed over.")]
    Sync(Box<SyncFlags>),
    /// Give a file another name
    #[command(after_help = "Example: fsvc mv /inbox/a.json /done/a.json")]
    Mv(FromTo),
    /// Copy a file on the server
    #[command(after_help = "Example: fsvc cp /reports/2026.pdf /archive/2026.pdf")]
    Cp(FromTo),
    /// Ask the server for a sign of life
    #[command(after_help = "Example: fsvc ping --server files.internal:7443")]
    Ping {
        #[command(flatten)]
        common: Common,
    },
    /// Show who the server takes you for
    #[command(after_help = "Example: fsvc whoami --as alice")]
    Whoami {
        #[command(flatten)]
        common: Common,
    },
    /// Ask whether you may do something
    #[command(after_help = "Example: fsvc can delete /reports/2026.pdf\n\
                            Exit code 0 if allowed, 4 if not. Actions: list, read, create, replace, delete, \
                            publish, subscribe, admin.")]
    Can {
        action: String,
        /// /a/file, /a/directory/ or topic:a/topic
        on: String,
        #[command(flatten)]
        common: Common,
    },
    #[command(flatten)]
    Message(MessageCommand),
    /// Look after the server
    #[command(subcommand)]
    Admin(AdminCommand),
}

#[derive(Debug, Args)]
pub(super) struct FromTo {
    pub(super) from: RemotePath,
    /// A name that ends in / is a directory to put it in
    pub(super) to: String,
    /// Only if no file is at the new name
    #[arg(long)]
    pub(super) if_absent: bool,
    /// Only if the old one has this version
    #[arg(long, value_name = "N")]
    pub(super) if_version: Option<u64>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// How files are moved.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Streams {
    /// Connections that a large file is moved over
    #[arg(long = "streams", value_name = "N", default_value_t = N_STREAMS, value_parser = streams)]
    pub(super) n_streams: usize,
    /// Compress files on their way, where a sample of them shrinks: for a slow connection; costs both
    /// sides CPU, and slows a fast one down
    #[arg(long)]
    pub(super) compress: bool,
}

fn streams(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=N_STREAMS_MAX).contains(&n) => Ok(n),
        _ => Err(format!("a number from 1 to {N_STREAMS_MAX}")),
    }
}

pub(super) fn delta(text: &str) -> Result<Delta, String> {
    match text {
        "auto" => Ok(Delta::Auto),
        "always" => Ok(Delta::Always),
        "never" => Ok(Delta::Never),
        _ => Err("auto, always or never".to_owned()),
    }
}

/// What every client command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection and output")]
pub(super) struct Common {
    /// Where the server is; several with commas between, any of which will do
    #[arg(
        long,
        env = "FSVC_SERVER",
        default_value = "localhost:7443",
        value_name = "HOST:PORT,..."
    )]
    pub(super) server: String,
    /// Where ca.pem and clients/ are; or tls.crt, tls.key and ca.crt
    #[arg(long, env = "FSVC_TLS_DIR", default_value = "certs")]
    pub(super) tls_dir: PathBuf,
    /// Which client in the TLS directory to be [default: the only one]
    #[arg(long = "as", env = "FSVC_AS", value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The CAs whose servers are trusted [default: ca.pem in the TLS directory]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Your chain, instead of one in the TLS directory
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// Your key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) pinned: PinnedServer,
    /// Longest wait for a connection
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(super) connect_timeout: Duration,
    /// Longest wait for an answer, or standstill inside a body
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(super) stall_timeout: Duration,
    /// How long an interruption is waited out, since something last moved; 0s for never
    #[arg(long, env = "FSVC_RETRY_FOR", default_value = "2m", value_parser = patience)]
    pub(super) retry_for: Duration,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Print nothing but results and errors
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// Which server it has to be.
#[derive(Debug, Clone, Args)]
pub(super) struct PinnedServer {
    /// The identity that the server's certificate must have, besides the name of its host
    #[arg(long, env = "FSVC_SERVER_ID", value_name = "SPIFFE-ID")]
    server_id: Option<SpiffeId>,
    /// Let the identity be enough: the certificate need not have the name of the host
    #[arg(long, requires = "server_id")]
    server_id_only: bool,
}

impl PinnedServer {
    pub(super) fn server_id(&self) -> Option<ServerId> {
        let id = self.server_id.clone()?;
        let only = self.server_id_only;
        Some(ServerId { id, only })
    }
}

impl ClientCommand {
    /// Whether files are compressed on their way.
    pub(super) const fn compresses(&self) -> bool {
        match self {
            Self::Put(flags) => flags.streams.compress,
            Self::Get(flags) => flags.streams.compress,
            Self::Append(flags) => flags.compress,
            Self::Sync(flags) => flags.streams.compress,
            _ => false,
        }
    }

    /// What the command has in common with the others.
    pub(super) const fn common(&self) -> &Common {
        match self {
            Self::Put(flags) => &flags.common,
            Self::Ls(flags) => &flags.common,
            Self::Rm(flags) => &flags.common,
            Self::Get(flags) => &flags.common,
            Self::Append(AppendFlags { common, .. })
            | Self::Cat { common, .. }
            | Self::Stat { common, .. }
            | Self::Mv(FromTo { common, .. })
            | Self::Cp(FromTo { common, .. })
            | Self::Ping { common }
            | Self::Whoami { common }
            | Self::Can { common, .. } => common,
            Self::Sync(flags) => &flags.common,
            Self::Message(command) => command.common(),
            Self::Admin(command) => command.common(),
        }
    }
}
