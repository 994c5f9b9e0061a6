//! `fsvc serve`: loads everything, says where it listens, and ends on a signal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::args::{LimitFlags, Serve};
use super::exit::Exit;
use super::output::{chain, complain, line_out};
use crate::config::Limits;
use crate::database::{Database, DatabaseError};
use crate::index::IndexError;
use crate::index::embedded::EmbeddedIndex;
use crate::log::LogError;
use crate::log::embedded::EmbeddedLog;
use crate::ops::{Parts, RecoveryError, Service};
use crate::path::RESERVED_PREFIX;
use crate::policy::{POLICY_SIZE_MAX, Policy, PolicyError};
use crate::server::Server;
use crate::store::StoreError;
use crate::store::local::LocalStore;
use crate::tls::TlsError;
use crate::tls::server::{Files, configure};

/// The log and the index, in the store's private directory.
const LOG_FILE: &str = "log.redb";
/// How long threads that were told to stop are waited for.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocking threads besides those that move large bodies: for opens, listings, small files.
const SMALL_THREADS_MAX: usize = 64;

/// Why the server does not start.
#[derive(Debug, Error)]
enum StartError {
    #[error("the filter of --log cannot be read")]
    Log(#[source] tracing_subscriber::filter::ParseError),
    #[error("no policy at {}: nobody could do anything", path.display())]
    NoPolicy { path: PathBuf },
    #[error("cannot read the policy {}", path.display())]
    PolicyUnreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the policy {} grants nothing: nobody could do anything", path.display())]
    EmptyPolicy { path: PathBuf },
    #[error("the policy {} is refused", path.display())]
    Policy {
        path: PathBuf,
        #[source]
        source: PolicyError,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot serve {}", root.display())]
    Store {
        root: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("cannot open the log in {}", root.display())]
    Database {
        root: PathBuf,
        #[source]
        source: DatabaseError,
    },
    #[error("cannot open the log in {}", root.display())]
    LogFile {
        root: PathBuf,
        #[source]
        source: LogError,
    },
    #[error("cannot open the index in {}", root.display())]
    Index {
        root: PathBuf,
        #[source]
        source: IndexError,
    },
    #[error("cannot bring {} up to date", root.display())]
    Recovery {
        root: PathBuf,
        #[source]
        source: RecoveryError,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot say where it listens")]
    Output(#[source] io::Error),
}

impl StartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPolicy { .. } | Self::EmptyPolicy { .. } => Some(
                "fsvc gen-certs writes a first one; or write, for example: [[grant]] to = \
                 \"spiffe://DOMAIN/client/NAME\" allow = [\"list\", \"read\"] on = \"/**\""
                    .to_owned(),
            ),
            Self::Tls(TlsError::Pem(crate::tls::pem::PemError::Read { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Some(
                    "fsvc gen-certs makes the certificates; --tls-dir says where they are"
                        .to_owned(),
                )
            }
            Self::Tls(error) => error.hint(),
            Self::Listen { source, .. } => Some(match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "is another server running? --listen takes another port".to_owned()
                }
                _ => "--listen takes ADDR:PORT of this machine, such as 127.0.0.1:7443".to_owned(),
            }),
            Self::Store {
                source: StoreError::Io { source, .. },
                ..
            } => match source.kind() {
                io::ErrorKind::NotADirectory => Some("--root takes a directory".to_owned()),
                io::ErrorKind::NotFound => {
                    Some("make the directory above it first, or give another --root".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Runs the server until a signal.
pub(super) fn run(arguments: &Serve) -> Exit {
    match start(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            complain(&chain(&error), error.hint().as_deref());
            Exit::Failed
        }
    }
}

fn start(arguments: &Serve) -> Result<Exit, StartError> {
    let filter = EnvFilter::try_new(&arguments.log).map_err(StartError::Log)?;
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(io::stderr)
        .init();
    arm_faults();

    let policy = load_policy(arguments)?;
    let tls = configure(&tls_files(arguments), Timestamp::now())?;
    warn_about_ca_key(&arguments.tls_dir);
    let (service, limits) = open(arguments, policy)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(limits.transfers_max + SMALL_THREADS_MAX)
        .build()
        .map_err(StartError::Runtime)?;
    let served = runtime.block_on(serve(arguments, tls, service, limits));
    // A thread that hangs in a disk does not keep the process.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    served
}

async fn serve(
    arguments: &Serve,
    tls: Arc<ServerConfig>,
    service: Service,
    limits: Limits,
) -> Result<Exit, StartError> {
    let failed = |source| StartError::Listen {
        address: arguments.listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&arguments.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    // Before the line that says ready: whoever waits for it may signal at once.
    let signals = tokio::spawn(watch_signals(drain.clone(), stop.clone()));
    line_out(&format!("fsvc: listening on {address}")).map_err(StartError::Output)?;
    let service = Arc::new(service);
    Server {
        listener,
        tls,
        service,
        limits,
        drain,
        stop: stop.clone(),
    }
    .serve()
    .await;
    signals.abort();
    info!("stopped");
    Ok(if stop.is_cancelled() {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn load_policy(arguments: &Serve) -> Result<Policy, StartError> {
    let path = arguments
        .policy
        .clone()
        .unwrap_or_else(|| arguments.tls_dir.join("policy.toml"));
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => StartError::NoPolicy { path: path.clone() },
        _ => StartError::PolicyUnreadable {
            path: path.clone(),
            source,
        },
    };
    if fs::metadata(&path).map_err(failed)?.len() > POLICY_SIZE_MAX as u64 {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, "larger than any policy");
        return Err(StartError::PolicyUnreadable { path, source });
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    Policy::parse(&text).map_err(|source| match source {
        PolicyError::Empty => StartError::EmptyPolicy { path },
        source => StartError::Policy { path, source },
    })
}

fn tls_files(arguments: &Serve) -> Files {
    let file = |given: &Option<PathBuf>, name: &str| {
        given
            .clone()
            .unwrap_or_else(|| arguments.tls_dir.join(name))
    };
    Files {
        certificate: file(&arguments.cert, "server.pem"),
        key: file(&arguments.key, "server-key.pem"),
        ca: file(&arguments.ca, "ca.pem"),
        crl: (!arguments.no_revocation).then(|| file(&arguments.crl, "ca.crl")),
    }
}

fn open(arguments: &Serve, policy: Policy) -> Result<(Service, Limits), StartError> {
    let root = arguments.root.clone();
    let limits = limits(&arguments.limits);
    let store = LocalStore::open(&root, arguments.limits.reserve.as_u64()).map_err(|source| {
        StartError::Store {
            root: root.clone(),
            source,
        }
    })?;
    let database =
        Database::open(&root.join(RESERVED_PREFIX).join(LOG_FILE)).map_err(|source| {
            StartError::Database {
                root: root.clone(),
                source,
            }
        })?;
    let database = Arc::new(database);
    let index = EmbeddedIndex::open(Arc::clone(&database)).map_err(|source| StartError::Index {
        root: root.clone(),
        source,
    })?;
    let index = Arc::new(index);
    let log =
        EmbeddedLog::open(database, Arc::clone(&index)).map_err(|source| StartError::LogFile {
            root: root.clone(),
            source,
        })?;
    let log = Arc::new(log);
    let parts = Parts {
        log,
        index,
        store: Arc::new(store),
    };
    let (service, recovered) =
        Service::open(parts, policy, limits.file_size_max).map_err(|source| {
            StartError::Recovery {
                root: root.clone(),
                source,
            }
        })?;
    info!(
        root = %root.display(),
        head = recovered.head.0,
        n_records = recovered.n_records,
        n_swept = recovered.n_swept,
        "the tree says what the log says"
    );
    Ok((service, limits))
}

fn limits(flags: &LimitFlags) -> Limits {
    Limits {
        connections_max: flags.connections_max,
        connections_per_identity_max: flags.connections_per_identity_max,
        handshakes_max: flags.handshakes_max,
        transfers_max: flags.transfers_max,
        file_size_max: flags.size_max.as_u64(),
        handshake_timeout: flags.handshake_timeout,
        idle_timeout: flags.idle_timeout,
        stall_timeout: flags.stall_timeout,
        grace: flags.grace,
    }
}

fn warn_about_ca_key(tls_dir: &Path) {
    let key = tls_dir.join("ca-private").join("ca-key.pem");
    if fs::File::open(&key).is_ok() {
        warn!(
            key = %key.display(),
            "the CA's key is readable by this server: whoever takes the server over can make clients; keep it elsewhere"
        );
    }
}

/// The first signal drains; the second one ends what still runs.
///
/// The handlers stand when this returns; only the waiting is left to the future.
fn watch_signals(
    drain: CancellationToken,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let handlers = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = handlers else {
            warn!("signals cannot be watched: there will be no drain");
            return;
        };
        for token in [drain, stop] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    }
}

/// Tests ask for faults by an environment variable; a release build has none to offer.
fn arm_faults() {
    #[cfg(debug_assertions)]
    if let Ok(plan) = std::env::var("FSVC_FAULT")
        && let Err(error) = crate::fault::arm(&plan)
    {
        complain(&format!("FSVC_FAULT: {error}"), None);
    }
}
