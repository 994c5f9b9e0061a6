//! The client: what a program calls, and what the command line calls.
//!
//! Connections are kept and used again; one is "connected" only after the server's greeting, since
//! before it the server may still refuse the certificate.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fsvc::client::{Client, Options, PutOptions};
//!
//! let client = Client::new(Options::from_directory("localhost:7443", "certs", "dev"))?;
//! client.put(&"/docs/hello.txt".parse()?, &b"hello"[..], PutOptions::default()).await?;
//! let (file, content) = client.get(&"/docs/hello.txt".parse()?, Vec::new()).await?;
//! assert_eq!(content, b"hello");
//! println!("{} at version {:?}", file.path, file.version);
//! # Ok(())
//! # }
//! ```

mod administration;
mod back_off;
mod base;
mod begin;
mod coded;
mod connect;
mod credentials;
mod download;
mod earlier;
mod ended;
mod error;
pub mod file;
mod fingerprint;
mod get_parts;
mod landing;
mod link;
mod many;
mod many_get;
mod meet;
mod messages;
mod notices;
mod partial;
mod parts;
mod patch;
mod put_member;
mod put_parts;
mod put_set;
mod range;
mod receive_parts;
mod remembered;
mod request_id;
mod retry;
mod send_parts;
mod set;
mod sidecar;
mod signature;
mod streams;
mod subscription;
mod temporary;
mod transfer;
pub mod tree;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use credentials::Credentials;
use link::Link;

pub use crate::tls::renewal::Renewal;
pub use credentials::{CertificateNews, SKEW_MAX};
pub use error::ClientError;
pub use file::{Delta, N_STREAMS, N_STREAMS_MAX, TransferOptions};
pub use fingerprint::Fingerprint;
pub use many::{ManyPut, StagedOne};
pub use many_get::{ManyGot, n_paths_that_fit};
pub use meet::Met;
pub use messages::{LINES_MAX, LINES_SIZE_MAX, PAYLOAD_SIZE_MAX, PublishOptions};
pub use notices::{Delivery, Message};
pub use put_set::{SetError, SetFile};
pub use retry::Observer;
pub use set::MEMBERS_MAX;
pub use subscription::Subscription;
pub use transfer::PutOptions;
pub use upload::SMALL_SIZE_MAX;

use crate::path::{Prefix, RemotePath};
use crate::protocol::{
    Conditions, Copy, FileInfo, Hello, List, Listing, Move, Op, Question, Remove, Removed, Stat,
    Verdict, Whoami,
};
use crate::tls::client::{Files, OwnFiles};

/// Where the server is, and who the client is.
#[derive(Debug, Clone)]
pub struct Options {
    /// `HOST:PORT`, or several of them with commas between; the host is the name that the server's
    /// certificate must have. Any of the servers will do.
    pub server: String,
    pub files: Files,
    /// For the TCP connection, the handshake and the greeting, each.
    pub connect_timeout: Duration,
    /// Inside a message or a body, without progress; and for an answer.
    pub stall_timeout: Duration,
    /// How long an interruption is waited out, since something last moved; zero for never.
    pub retry_for: Duration,
    /// Where transfers are remembered, so that another run of the program goes on with them.
    pub resume_directory: Option<PathBuf>,
}

impl Options {
    /// The layout that `fsvc gen-certs` writes.
    pub fn from_directory(server: &str, directory: impl AsRef<Path>, name: &str) -> Self {
        let directory = directory.as_ref();
        let clients = directory.join("clients");
        let own = OwnFiles {
            certificate: clients.join(format!("{name}.pem")),
            key: clients.join(format!("{name}-key.pem")),
        };
        Self {
            server: server.to_owned(),
            files: Files {
                ca: directory.join("ca.pem"),
                own: Some(own),
                server_id: None,
            },
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            retry_for: Duration::from_secs(120),
            resume_directory: None,
        }
    }
}

/// A client of one server. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Bodies are compressed where that pays.
    compresses: bool,
}

struct Shared {
    options: Options,
    credentials: Arc<Credentials>,
    idle: Mutex<Vec<Link>>,
    /// A server was reached.
    was_connected: AtomicBool,
    /// The server that worked last, of several.
    preferred: AtomicUsize,
}

impl Client {
    /// Loads the files; connects when the first request is made.
    ///
    /// # Errors
    /// A file is missing, or does not fit the others.
    pub fn new(options: Options) -> Result<Self, ClientError> {
        let credentials = Arc::new(Credentials::load(options.files.clone())?);
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                credentials,
                idle: Mutex::default(),
                was_connected: AtomicBool::new(false),
                preferred: AtomicUsize::new(0),
            }),
            compresses: false,
        })
    }

    /// What the server said when it greeted; connects if need be.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn hello(&self) -> Result<Arc<Hello>, ClientError> {
        let link = self.link().await?;
        let hello = Arc::clone(&link.hello);
        self.keep(link);
        Ok(hello)
    }

    /// A file's metadata.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn stat(&self, path: &RemotePath) -> Result<FileInfo, ClientError> {
        self.ask(Op::Stat(Stat { path: path.clone() })).await
    }

    /// One page of a directory; ask again with `after` set to its `next`.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn list(&self, path: &Prefix, after: Option<String>) -> Result<Listing, ClientError> {
        self.ask(Op::List(List {
            path: path.clone(),
            after,
        }))
        .await
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn remove(
        &self,
        path: &RemotePath,
        if_version: Option<u64>,
    ) -> Result<Removed, ClientError> {
        self.ask(Op::Remove(Remove {
            path: path.clone(),
            if_version,
            request_id: request_id::fresh(),
        }))
        .await
    }

    /// Gives a file another name. The conditions: `if_absent` of the new name, `if_version` of the
    /// old one.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn rename(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        conditions: Conditions,
    ) -> Result<FileInfo, ClientError> {
        let Conditions {
            if_absent,
            if_version,
        } = conditions;
        self.ask(Op::Move(Move {
            from: from.clone(),
            to: to.clone(),
            if_absent,
            if_version,
            request_id: request_id::fresh(),
        }))
        .await
    }

    /// Copies a file on the server. The conditions: `if_absent` of the new name, `if_version` of the
    /// old one.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn copy(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        conditions: Conditions,
    ) -> Result<FileInfo, ClientError> {
        let Conditions {
            if_absent,
            if_version,
        } = conditions;
        self.ask(Op::Copy(Copy {
            from: from.clone(),
            to: to.clone(),
            if_absent,
            if_version,
            request_id: request_id::fresh(),
        }))
        .await
    }

    /// Whether something would be allowed.
    ///
    /// # Errors
    /// The connection failed, or the question is malformed.
    pub async fn can(&self, action: &str, on: &str) -> Result<Verdict, ClientError> {
        self.ask(Op::Can(Question {
            action: action.to_owned(),
            on: on.to_owned(),
        }))
        .await
    }

    /// Who the server takes this client for.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.ask(Op::Whoami).await
    }

    /// One round trip.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.ask::<serde_json::Map<_, _>>(Op::Ping).await.map(drop)
    }

    /// Says goodbye on every kept connection, so that the server need not wonder.
    pub async fn close(&self) {
        let idle = std::mem::take(
            &mut *self
                .shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for link in idle {
            link.connection.close().await;
        }
    }
}
