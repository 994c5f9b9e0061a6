//! The listener: accepts, shakes hands, makes sessions, drains.
//!
//! An accept error is waited out, a handshake happens inside its task, and every task is joined
//! before `serve` returns.

mod admission;
mod complaints;
mod handshake;
mod plain;
mod warden;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::config::Limits;
use crate::ops::Service;
use crate::session::{SIGNATURES_MAX, Shared};
use crate::tls::server::Loaded;
use admission::Admission;
use complaints::Complaints;
use warden::Warden;

/// First wait after an accept error; doubled up to the last.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest wait after an accept error.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What a server needs to run.
pub struct Server {
    pub listener: TcpListener,
    /// What certificates and keys hold; sessions that another one does not let in are ended.
    pub tls: watch::Receiver<Arc<Loaded>>,
    pub service: Arc<Service>,
    pub limits: Limits,
    /// Cancelled when the server should drain.
    pub drain: CancellationToken,
    /// Cancelled when it should not even do that.
    pub stop: CancellationToken,
}

/// What every connection's task shares.
#[derive(Clone)]
struct Context {
    warden: Arc<Warden>,
    shared: Shared,
    handshakes: Arc<Semaphore>,
    admission: Arc<Admission>,
    complaints: Arc<Complaints>,
}

impl Server {
    /// Serves until `drain` is cancelled, then until what runs is done, at most for the grace.
    pub async fn serve(self) {
        let limits = Arc::new(self.limits);
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let complaints = Arc::new(Complaints::default());
        let warden = Arc::new(Warden::new(self.tls, self.stop.clone()));
        let context = Context {
            complaints: Arc::clone(&complaints),
            warden: Arc::clone(&warden),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            admission: Arc::new(Admission::new(limits.connections_per_identity_max)),
            shared: Shared {
                service: self.service,
                transfers: Arc::new(Semaphore::new(limits.transfers_max)),
                signatures: Arc::new(Semaphore::new(SIGNATURES_MAX)),
                limits: Arc::clone(&limits),
                draining: self.drain.clone(),
                stop: self.stop.clone(),
            },
        };
        let mut watching = JoinSet::new();
        watching.spawn(async move { warden.watch().await });
        let mut tasks = JoinSet::new();
        let mut backoff = ACCEPT_BACKOFF_MIN;
        loop {
            while tasks.try_join_next().is_some() {}
            let slot = tokio::select! {
                () = self.drain.cancelled() => break,
                slot = Arc::clone(&connections).acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = self.drain.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    backoff = ACCEPT_BACKOFF_MIN;
                    let context = context.clone();
                    tasks.spawn(async move {
                        let _slot = slot;
                        Box::pin(connect(context, stream)).await;
                    });
                }
                Err(error) => {
                    warn!(%error, wait = ?backoff, "accept failed; waiting it out");
                    tokio::select! {
                        () = self.drain.cancelled() => break,
                        () = sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                }
            }
        }
        drop(self.listener);
        if complaints.n_refused() > 0 {
            info!(
                n_refused = complaints.n_refused(),
                "handshakes were refused since the start"
            );
        }
        drain(tasks, limits.grace, &self.stop).await;
    }
}

/// Waits for what runs; after the grace, or a second signal, it is cut.
async fn drain(mut tasks: JoinSet<()>, grace: Duration, stop: &CancellationToken) {
    info!(n_connections = tasks.len(), ?grace, "draining");
    let all_done = timeout(grace, async { while tasks.join_next().await.is_some() {} });
    let done = tokio::select! {
        done = all_done => done.is_ok(),
        () = stop.cancelled() => false,
    };
    if !done {
        stop.cancel();
        warn!(n_connections = tasks.len(), "cut what was still running");
        tasks.shutdown().await;
    }
}

async fn connect(context: Context, stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let span = info_span!("connection", %peer);
    async {
        match handshake::greet(&context, stream).await {
            Ok(Some((session, connection, watched, _guest))) => {
                let ended = tokio::select! {
                    ended = session.run(connection) => ended,
                    () = watched.standing.outlived() => return info!("a session that was to end was cut"),
                };
                if let Err(error) = ended {
                    info!(error = &error as &dyn std::error::Error, "session ended");
                }
            }
            Ok(None) => {}
            Err(error) => debug!(error = &error as &dyn std::error::Error, "no session"),
        }
    }
    .instrument(span)
    .await;
}
