//! What a server is made of, opened as the command line says; and why it is not.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tracing::info;

use super::args::{LimitFlags, Serve};
use super::tls_dir::{Ambiguous, Layout};
use crate::config::Limits;
use crate::database::{Database, DatabaseError};
use crate::identity::Binding;
use crate::index::IndexError;
use crate::index::embedded::EmbeddedIndex;
use crate::log::cursors::EmbeddedCursors;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Keep, LogError, Retention};
use crate::ops::{Bounds, Parts, RecoveryError, Service};
use crate::path::RESERVED_PREFIX;
use crate::policy::{POLICY_SIZE_MAX, Policy, PolicyError};
use crate::store::StoreError;
use crate::store::local::LocalStore;
use crate::tls::TlsError;
use crate::tls::failure::FailureCode;
use crate::tls::server::Files;
use crate::topics::{SCHEMA_SIZE_MAX, TOPICS_FILE_SIZE_MAX, Topics, TopicsError};

/// The log and the index, in the store's private directory.
const LOG_FILE: &str = "log.redb";
/// The revocation lists, in the TLS directory.
const CRL_FILE: &str = "ca.crl";
/// The rules about single topics, in the TLS directory.
const TOPICS_FILE: &str = "topics.toml";

/// Why the server does not start.
#[derive(Debug, Error)]
pub(super) enum StartError {
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
    #[error("cannot read the rules about topics in {}", path.display())]
    TopicsUnreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the rules about topics in {} are refused", path.display())]
    Topics {
        path: PathBuf,
        #[source]
        source: TopicsError,
    },
    #[error("{} is no plain file: it could be read once only, or never ends", path.display())]
    NotPlain { path: PathBuf },
    #[error(transparent)]
    Layout(#[from] Ambiguous),
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
    /// What `fsvc explain` has more about.
    pub(super) const fn failure(&self) -> Option<FailureCode> {
        match self {
            Self::Tls(error) => error.failure(),
            _ => None,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoPolicy { .. } | Self::EmptyPolicy { .. } => Some(
                "fsvc gen-certs writes a first one; or write, for example: [[grant]] to = \
                 \"spiffe://DOMAIN/client/NAME\" allow = [\"list\", \"read\"] on = \"/**\""
                    .to_owned(),
            ),
            Self::NotPlain { .. } => Some(
                "the server looks at its files again and again: give it files, or links to files"
                    .to_owned(),
            ),
            Self::Layout(_) => Some(Ambiguous::HINT.to_owned()),
            Self::Tls(TlsError::Pem(crate::tls::pem::PemError::Read { path, source }))
                if source.kind() == io::ErrorKind::NotFound
                    && path.ends_with(CRL_FILE)
                    && path.parent().map(Layout::of) == Some(Ok(Layout::Mounted)) =>
            {
                Some(
                    "get that CA's list, --crl says where it is; or start with --no-revocation, \
                     which lets revoked certificates in"
                        .to_owned(),
                )
            }
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

/// Where the policy is.
pub(super) fn policy_file(arguments: &Serve) -> PathBuf {
    let given = arguments.policy.clone();
    given.unwrap_or_else(|| arguments.tls_dir.join("policy.toml"))
}

/// What the policy says of single CAs; their files are beside it.
pub(super) fn bindings(file: &Path, policy: &Policy) -> Vec<Binding> {
    let beside = file.parent().unwrap_or(Path::new(""));
    let mut bindings = policy.bindings().to_vec();
    for binding in &mut bindings {
        binding.ca = beside.join(&binding.ca);
    }
    bindings
}

/// The policy in a file, read anew. Blocks.
pub(super) fn load_policy(path: &Path) -> Result<Policy, StartError> {
    let path = path.to_owned();
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

/// Where the TLS material is: as the flags say, else in the TLS directory.
pub(super) fn tls_files(arguments: &Serve) -> Result<Files, StartError> {
    let is_named = [&arguments.cert, &arguments.key, &arguments.ca].map(Option::is_some);
    let layout = if is_named == [true; 3] {
        Layout::Own
    } else {
        Layout::of(&arguments.tls_dir)?
    };
    let (certificate, key) = layout.server();
    let file = |given: &Option<PathBuf>, name: &str| {
        given
            .clone()
            .unwrap_or_else(|| arguments.tls_dir.join(name))
    };
    Ok(Files {
        certificate: file(&arguments.cert, certificate),
        key: file(&arguments.key, key),
        ca: file(&arguments.ca, layout.ca()),
        crl: (!arguments.no_revocation).then(|| file(&arguments.crl, CRL_FILE)),
    })
}

/// The service over its parts, brought up to date.
pub(super) fn open(arguments: &Serve, policy: Policy) -> Result<(Service, Limits), StartError> {
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
    let topics = Arc::new(load_topics(arguments)?);
    let rules = Arc::clone(&topics);
    let keep = Keep {
        history: arguments.keep.keep_history,
        messages: Box::new(move |topic| rules.retention(topic)),
    };
    let index =
        EmbeddedIndex::open(Arc::clone(&database), keep).map_err(|source| StartError::Index {
            root: root.clone(),
            source,
        })?;
    let index = Arc::new(index);
    let in_log = |source| StartError::LogFile {
        root: root.clone(),
        source,
    };
    let cursors = EmbeddedCursors::open(Arc::clone(&database)).map_err(in_log)?;
    let log = EmbeddedLog::open(database, Arc::clone(&index)).map_err(in_log)?;
    let parts = Parts {
        log: Arc::new(log),
        index,
        store: Arc::new(store),
        cursors: Arc::new(cursors),
    };
    let bounds = Bounds {
        file_size_max: limits.file_size_max,
        keep_uploads: arguments.keep.keep_uploads,
    };
    let (service, recovered) =
        Service::open(parts, policy, topics, bounds).map_err(|source| StartError::Recovery {
            root: root.clone(),
            source,
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

/// The rules about single topics: a file that was named must be there, the usual one may be.
fn load_topics(arguments: &Serve) -> Result<Topics, StartError> {
    let defaults = Retention {
        age: arguments.keep.keep,
        size: arguments.keep.keep_size.as_u64(),
    };
    let usual = || arguments.tls_dir.join(TOPICS_FILE);
    let path = arguments.keep.topics.clone().unwrap_or_else(usual);
    let text = match read_bounded(&path, TOPICS_FILE_SIZE_MAX) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && arguments.keep.topics.is_none() =>
        {
            return Ok(Topics::none(defaults));
        }
        read => read.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other)),
    };
    let text = text.map_err(|source| StartError::TopicsUnreadable {
        path: path.clone(),
        source,
    })?;
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    let load = |name: &str| read_bounded(&directory.join(name), SCHEMA_SIZE_MAX);
    Topics::parse(&text, defaults, load).map_err(|source| StartError::Topics { path, source })
}

/// A file, up to one byte more than it may have.
fn read_bounded(path: &Path, size_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = size_max as u64 + 1;
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
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
