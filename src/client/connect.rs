//! From a name to a greeted connection.
//!
//! Each address of the name is tried in turn. The first thing that is read is the greeting, or the
//! reason why there is none, also when writing fails first.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, Error};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsStream;

use super::credentials::Set;
use super::{ClientError, Link, Options};
use crate::connection::{Connection, ConnectionError};
use crate::protocol::{ErrorCode, Greeting};
use crate::socket::Socket;
use crate::tls::refusal::{explain, silent_close};
use crate::tls::witness::{answered_with, tls_error, watched};

/// How long a refused connection is tried again.
const REFUSED_GRACE: Duration = Duration::from_millis(500);
/// Between two tries.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// A greeted connection to one of the servers, and which one of them it is: `preferred` is tried
/// first, then the others. Servers that were started a moment ago may not listen yet: refusals are tried
/// again for a while.
pub(super) async fn connect(
    options: &Options,
    set: &Set,
    preferred: usize,
) -> Result<(Link, usize), ClientError> {
    let servers: Vec<&str> = options.server.split(',').map(str::trim).collect();
    let until = Instant::now() + REFUSED_GRACE;
    loop {
        let mut first_error = None;
        let mut is_refused = true;
        for turn in 0..servers.len() {
            let number = (preferred + turn) % servers.len();
            let one = Options {
                server: servers[number].to_owned(),
                ..options.clone()
            };
            let error = match Box::pin(greet(&one, set)).await {
                Ok(link) => return Ok((link, number)),
                Err(error) => error,
            };
            is_refused &= matches!(
                &error,
                ClientError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused
            );
            // One that has no room now says more than one that is not there.
            if first_error.is_none() || matches!(error, ClientError::NotGreeted { .. }) {
                first_error = Some(error);
            }
        }
        match first_error {
            Some(error) if !is_refused || Instant::now() >= until => return Err(error),
            Some(_) => sleep(REFUSED_PAUSE).await,
            None => return Err(ClientError::ServerName(options.server.clone())),
        }
    }
}

/// One connection with TLS on it, before anybody said anything.
pub(super) async fn shake_hands(
    options: &Options,
    set: &Set,
) -> Result<tokio_rustls::client::TlsStream<Socket>, ClientError> {
    let name = server_name(&options.server)?;
    let stream = connect_tcp(options).await?;
    let socket = Socket::new(stream).map_err(|source| failed(options, source))?;
    let handshake = set.connector.connect(name, socket).into_fallible();
    let handshake = watched(async {
        let shaken = handshake.await;
        shaken.map_err(|(error, socket)| answered_with(error, socket.first_bytes()))
    });
    let handshake = timeout(options.connect_timeout, handshake).await;
    handshake
        .map_err(|_| silent(options))?
        .map_err(|error| refused(options, error))
}

async fn greet(options: &Options, set: &Set) -> Result<Link, ClientError> {
    let stream = shake_hands(options, set).await?;
    let mut connection = Connection::new(TlsStream::Client(stream), options.stall_timeout);
    let greeting = timeout(options.connect_timeout, connection.recv_message()).await;
    let message = match greeting.map_err(|_| silent(options))? {
        Ok(Some(message)) => message,
        Ok(None) => {
            return Err(ClientError::Closed(silent_close(
                &options.files,
                Timestamp::now(),
            )));
        }
        Err(ConnectionError::Io(error)) => return Err(refused(options, error)),
        Err(source) => {
            return Err(ClientError::Lost {
                server: options.server.clone(),
                source,
            });
        }
    };
    match Greeting::decode(&message).map_err(ClientError::Answer)? {
        Greeting::Hello(hello) => Ok(Link::greeted(connection, hello, set.number)),
        Greeting::Error(reply) => Err(ClientError::NotGreeted {
            server: options.server.clone(),
            reply,
        }),
    }
}

/// The name that the server's certificate must have.
fn server_name(server: &str) -> Result<ServerName<'static>, ClientError> {
    let wrong = || ClientError::ServerName(server.to_owned());
    let (host, port) = server.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| wrong())
}

async fn connect_tcp(options: &Options) -> Result<TcpStream, ClientError> {
    let resolved = timeout(options.connect_timeout, lookup_host(&options.server)).await;
    let addresses = resolved
        .map_err(|_| silent(options))?
        .map_err(|source| failed(options, source))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(options.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed(options, last))
}

/// The stream failed before the greeting: what that means to the user.
fn refused(options: &Options, error: io::Error) -> ClientError {
    let now = Timestamp::now();
    if let Some(refusal) = explain(&error, &options.files, &options.server, now) {
        return match ended(&error) {
            Some(code) => ClientError::Certificate { code, refusal },
            None => ClientError::Refused(refusal),
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => ClientError::Closed(silent_close(&options.files, now)),
        _ => failed(options, error),
    }
}

/// Whether the server says that the certificate is over, as the other refusals are not mended by a new one.
fn ended(error: &io::Error) -> Option<ErrorCode> {
    match tls_error(error)? {
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            Some(ErrorCode::CertificateExpired)
        }
        Error::AlertReceived(AlertDescription::CertificateRevoked) => {
            Some(ErrorCode::CertificateRevoked)
        }
        _ => None,
    }
}

fn failed(options: &Options, source: io::Error) -> ClientError {
    ClientError::Connect {
        server: options.server.clone(),
        source,
    }
}

fn silent(options: &Options) -> ClientError {
    ClientError::Silent {
        server: options.server.clone(),
        stall: options.connect_timeout,
    }
}
