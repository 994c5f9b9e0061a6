//! `fsvc serve`: loads everything, says where it listens, and ends on a signal.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::args::Serve;
use super::exit::Exit;
use super::open::{StartError, open};
use super::output::{coded, complain, line_out};
use super::reload::{Fingerprint, Reload, load_settled};
use crate::config::Limits;
use crate::escape::with_causes;
use crate::ops::{Service, Upkeep};
use crate::server::Server;
use crate::tls::server::Loaded;

/// How long threads that were told to stop are waited for.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocking threads besides those that move large bodies: for opens, listings, small files.
const SMALL_THREADS_MAX: usize = 64;

/// Runs the server until a signal.
pub(super) fn run(arguments: &Serve) -> Exit {
    match start(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            let text = coded(&with_causes(&error), error.failure());
            complain(&text, error.hint().as_deref());
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
    raise_files_max();

    let set = load_settled(arguments)?;
    warn_about_ca_key(&arguments.tls_dir);
    let (service, limits) = open(arguments, set.policy)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(limits.transfers_max + SMALL_THREADS_MAX)
        .build()
        .map_err(StartError::Runtime)?;
    let served = runtime.block_on(serve(arguments, (set.loaded, set.from), service, limits));
    // A thread that hangs in a disk does not keep the process.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    served
}

async fn serve(
    arguments: &Serve,
    (loaded, from): (Loaded, Fingerprint),
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
    let service = Arc::new(service);
    let (loaded, tls) = watch::channel(Arc::new(loaded));
    // Before the line that says ready: whoever waits for it may signal at once.
    let signals = tokio::spawn(watch_signals(drain.clone(), stop.clone()));
    let reloads = tokio::spawn(Reload::new(arguments, &service, loaded, from).run());
    line_out(&format!("fsvc: listening on {address}")).map_err(StartError::Output)?;
    let upkeep = Upkeep::start(&service);
    Server {
        listener,
        tls,
        service: Arc::clone(&service),
        limits,
        drain,
        stop: stop.clone(),
    }
    .serve()
    .await;
    signals.abort();
    reloads.abort();
    drop(upkeep);
    service.save_cursors();
    info!("stopped");
    Ok(if stop.is_cancelled() {
        Exit::Failed
    } else {
        Exit::Done
    })
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

/// Takes all the descriptors that the process may have: what it is given is for programs of another time,
/// which choose one from a table of that size. Small files of many want one each.
fn raise_files_max() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(errno) = setrlimit(Resource::Nofile, limit) {
        let error = &errno as &dyn std::error::Error;
        warn!(error, "the limit of open files stays as it is");
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
