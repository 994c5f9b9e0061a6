//! From a TCP stream to a session of a known peer.
//!
//! A peer that is refused learns why: by the alert, which is given time to arrive, or by the first
//! message. Under TLS 1.3 the client takes the handshake for done before the server has looked at
//! its certificate.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::{debug, info, warn};

use super::Context;
use super::admission::Guest;
use super::plain;
use super::warden::Watched;
use crate::connection::Connection;
use crate::identity::Identity;
use crate::protocol::{ALPN, ErrorCode};
use crate::session::{Session, last_words};
use crate::socket::Socket;
use crate::tls::failure::FailureCode;
use crate::tls::identity::identify;
use crate::tls::refusal::Refusal;
use crate::tls::rejection::{rejection, unnamed};
use crate::tls::server::Loaded;
use crate::tls::witness::{tls_error, watch};

/// How long a refused peer's bytes are read away, so that the alert is not lost to a reset.
const ALERT_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How many of them: more than socket buffers hold of a client that wrote first.
const ALERT_DRAIN_SIZE_MAX: usize = 8 << 20;

/// Bytes that are read away at a time.
const ALERT_DRAIN_PIECE_SIZE: usize = 16 << 10;

/// Why there was no handshake.
#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    #[error("the socket failed")]
    Socket(#[source] io::Error),
    #[error("the handshake took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the handshake was refused")]
    Refused(#[source] io::Error),
}

type Greeted = (Session, Connection<TlsStream<Socket>>, Watched, Guest);

/// Shakes hands and finds out who is there; `None` for a peer that was told why not.
pub(super) async fn greet(
    context: &Context,
    stream: TcpStream,
) -> Result<Option<Greeted>, HandshakeError> {
    let peer = stream.peer_addr().map_err(HandshakeError::Socket)?.ip();
    let Some((stream, loaded)) = accept(context, stream, peer).await? else {
        return Ok(None);
    };
    let (_, state) = stream.get_ref();
    let speaks_fsvc = state.alpn_protocol() == Some(ALPN);
    let chain = state.peer_certificates().unwrap_or_default().to_vec();
    let now = Timestamp::now();
    let identified = identify(&chain, &loaded.anchors, now);
    if let Err(error) = &identified {
        complain(context, peer, &unnamed(&chain, error, now));
    }
    let connection = Connection::new(stream, context.shared.limits.stall_timeout);
    if !speaks_fsvc {
        let text = "offer the protocol fsvc/1 by ALPN";
        last_words(connection, ErrorCode::Unsupported, text.to_owned()).await;
        return Ok(None);
    }
    let identity = match identified {
        Ok(identity) => identity,
        Err(error) => {
            last_words(connection, ErrorCode::Denied, error.to_string()).await;
            return Ok(None);
        }
    };
    let watched = context.warden.admit(&chain, &identity, &loaded);
    Ok(admit(context, connection, identity, watched).await)
}

async fn admit(
    context: &Context,
    connection: Connection<TlsStream<Socket>>,
    identity: Identity,
    watched: Watched,
) -> Option<Greeted> {
    let Some(guest) = context.admission.admit(&identity.id) else {
        warn!(identity = %identity.id, "too many connections of one identity");
        let limit = context.shared.limits.connections_per_identity_max;
        let text = format!(
            "{} has {limit} connections open, which is the most",
            identity.id
        );
        last_words(connection, ErrorCode::Busy, text).await;
        return None;
    };
    Some((
        Session::new(
            context.shared.clone(),
            identity,
            Arc::clone(&watched.standing),
        ),
        connection,
        watched,
        guest,
    ))
}

/// Shakes hands by what holds now, and says what that was; `None` for a peer that went without a word,
/// or was answered in its own language.
async fn accept(
    context: &Context,
    stream: TcpStream,
    peer: IpAddr,
) -> Result<Option<(TlsStream<Socket>, Arc<Loaded>)>, HandshakeError> {
    let limit = context.shared.limits.handshake_timeout;
    let deadline = Instant::now() + limit;
    // Whoever says nothing takes no slot from those who speak.
    let mut first = [0];
    let n = timeout_at(deadline, stream.peek(&mut first))
        .await
        .map_err(|_| HandshakeError::TimedOut(limit))?
        .map_err(HandshakeError::Socket)?;
    if n == 0 {
        debug!("the peer went without a word");
        return Ok(None);
    }
    let socket = Socket::new(stream).map_err(HandshakeError::Socket)?;
    if !plain::is_tls(first[0]) {
        let answered = timeout_at(deadline, answer_plain(context, socket, peer)).await;
        return answered
            .map_err(|_| HandshakeError::TimedOut(limit))?
            .map(|()| None)
            .map_err(HandshakeError::Socket);
    }
    let slot = timeout_at(deadline, Arc::clone(&context.handshakes).acquire_owned()).await;
    let slot = slot
        .map_err(|_| HandshakeError::TimedOut(limit))?
        .expect("the semaphore is never closed");
    let loaded = context.warden.loaded();
    let acceptor = TlsAcceptor::from(Arc::clone(&loaded.config));
    let handshake = watch(Box::pin(acceptor.accept(socket).into_fallible()));
    let handshake = timeout_at(deadline, handshake).await;
    drop(slot);
    match handshake {
        Err(_) => Err(HandshakeError::TimedOut(limit)),
        Ok((Ok(stream), _)) => Ok(Some((TlsStream::Server(stream), loaded))),
        Ok((Err((error, socket)), seen)) => {
            let tls = tls_error(&error);
            if let Some(refusal) =
                tls.and_then(|tls| rejection(tls, seen.as_ref(), Timestamp::now()))
            {
                complain(context, peer, &refusal);
            }
            let _ = timeout(ALERT_DRAIN_TIMEOUT, drain(socket)).await;
            Err(HandshakeError::Refused(error))
        }
    }
}

/// Tells a peer in its own language that this is TLS, so that the answer arrives.
async fn answer_plain(context: &Context, mut socket: Socket, peer: IpAddr) -> io::Result<()> {
    let (language, line) = plain::answer(&mut socket).await?;
    if let Some(n_untold) = context
        .complaints
        .count(peer, language, std::time::Instant::now())
    {
        let (cause, hint) = plain::describe(language, &line);
        let code = FailureCode::PlainText.to_string();
        let n_untold = (n_untold > 0).then_some(n_untold);
        info!(code = code.as_str(), hint, n_untold, "{cause}");
    }
    let _ = timeout(ALERT_DRAIN_TIMEOUT, drain(socket)).await;
    Ok(())
}

/// One line for the operator, unless this source heard of the same a moment ago.
fn complain(context: &Context, peer: IpAddr, refusal: &Refusal) {
    let reason = (refusal.code, refusal.about);
    let Some(n_untold) = context
        .complaints
        .count(peer, reason, std::time::Instant::now())
    else {
        return;
    };
    let code = refusal.code.map(|code| code.to_string());
    let (code, hint) = (code.as_deref(), refusal.hint.as_deref());
    let n_untold = (n_untold > 0).then_some(n_untold);
    warn!(code, hint, n_untold, "{}", refusal.cause);
}

async fn drain(mut socket: Socket) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut buffer = vec![0; ALERT_DRAIN_PIECE_SIZE];
    let mut left = ALERT_DRAIN_SIZE_MAX;
    while left > 0 {
        match socket.read(&mut buffer).await {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            _ => return,
        }
    }
}
