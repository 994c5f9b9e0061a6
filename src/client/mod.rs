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
mod connect;
mod download;
mod error;
pub mod file;
mod messages;
mod notices;
mod set;
mod subscription;
mod transfer;
mod upload;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio_rustls::{TlsConnector, TlsStream};

pub use error::ClientError;
pub use messages::{LINES_MAX, LINES_SIZE_MAX, PAYLOAD_SIZE_MAX, PublishOptions};
pub use notices::{Delivery, Message};
pub use set::MEMBERS_MAX;
pub use subscription::Subscription;
pub use transfer::PutOptions;
pub use upload::SMALL_SIZE_MAX;

use crate::connection::Connection;
use crate::path::{Prefix, RemotePath};
use crate::protocol::{
    Conditions, Copy, FileInfo, Hello, List, Listing, Move, Op, Question, Remove, Removed, Reply,
    Request, Response, Stat, Verdict, Whoami,
};
use crate::socket::Socket;
use crate::tls::client::{Files, OwnFiles, configure};

/// Connections that are kept for the next request.
const IDLE_MAX: usize = 16;

/// Where the server is, and who the client is.
#[derive(Debug, Clone)]
pub struct Options {
    /// `HOST:PORT`; the host is the name that the server's certificate must have.
    pub server: String,
    pub files: Files,
    /// For the TCP connection, the handshake and the greeting, each.
    pub connect_timeout: Duration,
    /// Inside a message or a body, without progress; and for an answer.
    pub stall_timeout: Duration,
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
            },
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// A client of one server. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    connector: TlsConnector,
    idle: Mutex<Vec<Link>>,
}

/// A greeted connection.
struct Link {
    connection: Connection<TlsStream<Socket>>,
    hello: Arc<Hello>,
    next_id: u64,
}

impl Client {
    /// Loads the files; connects when the first request is made.
    ///
    /// # Errors
    /// A file is missing, or does not fit the others.
    pub fn new(options: Options) -> Result<Self, ClientError> {
        let config = configure(&options.files, Timestamp::now())?;
        let connector = TlsConnector::from(config);
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                connector,
                idle: Mutex::default(),
            }),
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
        self.ask_once(Op::Remove(Remove {
            path: path.clone(),
            if_version,
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
        self.ask_once(Op::Move(Move {
            from: from.clone(),
            to: to.clone(),
            if_absent,
            if_version,
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
        self.ask_once(Op::Copy(Copy {
            from: from.clone(),
            to: to.clone(),
            if_absent,
            if_version,
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

    /// Asks something that changes nothing; a lost connection is replaced once.
    async fn ask<T: DeserializeOwned>(&self, op: Op) -> Result<T, ClientError> {
        match self.ask_once(op.clone()).await {
            Err(ClientError::Lost { .. }) => self.ask_once(op).await,
            result => result,
        }
    }

    async fn ask_once<T: DeserializeOwned>(&self, op: Op) -> Result<T, ClientError> {
        let (link, value) = self.begin_once(op).await?;
        self.keep(link);
        Ok(value)
    }

    /// Asks what the connection is then needed for; one that was lost is replaced once.
    async fn begin<T: DeserializeOwned>(&self, op: Op) -> Result<(Link, T), ClientError> {
        match self.begin_once(op.clone()).await {
            Err(ClientError::Lost { .. }) => self.begin_once(op).await,
            result => result,
        }
    }

    async fn begin_once<T: DeserializeOwned>(&self, op: Op) -> Result<(Link, T), ClientError> {
        let mut link = self.link().await?;
        let id = link.queue(op);
        link.connection
            .flush()
            .await
            .map_err(|error| self.lost(error))?;
        match self.answer(&mut link, id).await? {
            Ok(value) => Ok((link, value)),
            Err(refused) => {
                self.keep(link);
                Err(refused)
            }
        }
    }

    /// The answer to the request `id`; what the server refused is inside, the connection lives.
    async fn answer<T: DeserializeOwned>(
        &self,
        link: &mut Link,
        id: u64,
    ) -> Result<Result<T, ClientError>, ClientError> {
        self.answer_within(self.shared.options.stall_timeout, link, id)
            .await
    }

    async fn answer_within<T: DeserializeOwned>(
        &self,
        stall: Duration,
        link: &mut Link,
        id: u64,
    ) -> Result<Result<T, ClientError>, ClientError> {
        let message = tokio::time::timeout(stall, link.connection.recv_message()).await;
        let message = message.map_err(|_| ClientError::Silent {
            server: self.server(),
            stall,
        })?;
        let message = message.map_err(|error| self.lost(error))?;
        let Some(message) = message else {
            return Err(self.lost(crate::connection::ConnectionError::Truncated));
        };
        let response = Response::<T>::decode(&message).map_err(ClientError::Answer)?;
        match (response.id, response.reply) {
            (Some(found), Reply::Ok(value)) if found == id => Ok(Ok(value)),
            (Some(found), Reply::Error(error)) if found == id => {
                Ok(Err(ClientError::Remote(error)))
            }
            // About the connection: it ends.
            (None, Reply::Error(error)) => Err(ClientError::Remote(error)),
            (found, _) => Err(ClientError::OutOfStep { asked: id, found }),
        }
    }

    /// A connection that nobody uses: a kept one that is still silent, or a new one.
    async fn link(&self) -> Result<Link, ClientError> {
        loop {
            let kept = self
                .shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            match kept {
                // What can be read from an idle connection is its end.
                Some(link) if link.connection.readable() => {}
                Some(link) => return Ok(link),
                None => {
                    return connect::connect(&self.shared.options, &self.shared.connector).await;
                }
            }
        }
    }

    fn keep(&self, link: Link) {
        let mut idle = self
            .shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(link);
        }
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

    fn server(&self) -> String {
        self.shared.options.server.clone()
    }

    fn lost(&self, source: crate::connection::ConnectionError) -> ClientError {
        ClientError::Lost {
            server: self.server(),
            source,
        }
    }
}

impl Link {
    fn queue(&mut self, op: Op) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.connection.queue_encoded(&Request { id, op }.encode());
        id
    }
}
