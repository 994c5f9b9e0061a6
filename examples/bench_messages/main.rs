//! Loads fsvc or NATS with messages and prints what came of it, one JSON object: called by
//! `scripts/bench.sh messages`, which runs both in turn.
//!
//! Both sides do the same, from one process with two threads, over mutual TLS 1.3. fsvc is published to
//! and watched through its library; what only counts messages reads bare frames on both sides.

mod fsvc_side;
mod nats;
mod nats_side;
mod wire;

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// What can go wrong here ends the run.
type Anyhow<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Fsvc,
    Nats,
}

#[derive(Debug, Clone, Parser)]
struct Arguments {
    side: Side,
    /// `HOST:PORT`
    server: String,
    /// What `fsvc gen-certs` wrote.
    certs: PathBuf,
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Figure {
    /// Publishers that each wait for the acknowledgement of what they have in flight.
    Publish(Publish),
    /// One publisher, and subscribers that each get all of it.
    FanOut(FanOut),
    /// From a publish to its receipt.
    Latency(Latency),
    /// From the answer to a put to the event at a watcher.
    Watch { files: usize, size: usize },
    /// Subscribers that read nothing; after each line the run waits for one on standard input.
    Slow(Slow),
}

#[derive(Debug, Clone, Copy, Args)]
struct Publish {
    publishers: usize,
    seconds: u64,
    size: usize,
    /// Messages that a publisher has unacknowledged.
    in_flight: usize,
}

#[derive(Debug, Clone, Copy, Args)]
struct FanOut {
    subscribers: usize,
    messages: usize,
    size: usize,
}

#[derive(Debug, Clone, Copy, Args)]
struct Latency {
    /// Messages a second.
    rate: u32,
    seconds: u32,
    size: usize,
}

#[derive(Debug, Clone, Copy, Args)]
struct Slow {
    subscribers: usize,
    mebibytes: usize,
}

/// Where to connect, and as whom.
#[derive(Clone)]
struct Target {
    server: String,
    certs: PathBuf,
    connector: TlsConnector,
}

fn main() -> Anyhow<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(run(arguments))?;
    println!("{figures}");
    runtime.shutdown_background();
    Ok(())
}

async fn run(arguments: Arguments) -> Anyhow<Value> {
    let options = fsvc_side::options(&arguments.server, &arguments.certs);
    let mut config = fsvc::tls::client::configure(&options.files, jiff::Timestamp::now())?;
    if arguments.side == Side::Nats {
        // NATS has no name among the application protocols.
        Arc::make_mut(&mut config).alpn_protocols.clear();
    }
    let target = &Target {
        server: arguments.server,
        certs: arguments.certs,
        connector: TlsConnector::from(config),
    };
    match (arguments.figure, arguments.side) {
        (Figure::Publish(figure), side) => publish(target, side, figure).await,
        (Figure::FanOut(figure), Side::Fsvc) => fsvc_side::fan_out(target, figure).await,
        (Figure::FanOut(figure), Side::Nats) => nats_side::fan_out(target, figure).await,
        (Figure::Latency(figure), Side::Fsvc) => fsvc_side::latency(target, figure).await,
        (Figure::Latency(figure), Side::Nats) => nats_side::latency(target, figure).await,
        (Figure::Watch { files, size }, Side::Fsvc) => fsvc_side::watch(target, files, size).await,
        (Figure::Watch { .. }, Side::Nats) => Err("NATS has no files to watch".into()),
        (Figure::Slow(figure), Side::Fsvc) => fsvc_side::slow(target, figure).await,
        (Figure::Slow(figure), Side::Nats) => nats_side::slow(target, figure).await,
    }
}

async fn publish(target: &Target, side: Side, figure: Publish) -> Anyhow<Value> {
    let stream = match side {
        Side::Fsvc => None,
        Side::Nats => Some(nats_side::stream(target).await?),
    };
    let mut tasks = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(figure.seconds);
    for number in 0..figure.publishers {
        let target = target.clone();
        match side {
            Side::Fsvc => tasks.spawn(fsvc_side::publish(target, until, figure)),
            Side::Nats => tasks.spawn(nats_side::publish(target, number, until, figure)),
        };
    }
    let (mut messages, mut rate) = (0, 0.0);
    while let Some(done) = tasks.join_next().await {
        let (n, took) = done??;
        messages += n;
        rate += rate_of(n, took);
    }
    if let Some(stream) = stream {
        nats_side::drop_stream(stream).await?;
    }
    Ok(json!({"rate": rate, "messages": messages}))
}

fn rate_of(n: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// Says how far the run is, and waits until whoever started it has looked.
async fn pause(word: &'static str) -> Anyhow<()> {
    tokio::task::spawn_blocking(move || {
        println!("{word}");
        std::io::stdout().flush()?;
        std::io::stdin().lock().read_line(&mut String::new())?;
        Ok(())
    })
    .await?
}

/// Waits until every subscriber has all of `messages`.
async fn deliveries(
    mut readers: JoinSet<Anyhow<()>>,
    began: Instant,
    messages: usize,
) -> Anyhow<Value> {
    let n = readers.len() * messages;
    while let Some(done) = readers.join_next().await {
        done??;
    }
    Ok(json!({"rate": rate_of(n, began.elapsed()), "messages": n}))
}

/// The middle, the 99th hundredth and the end, in milliseconds.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |permille: usize| {
        let index = ((times.len() - 1) * permille).div_ceil(1000);
        times[index].as_secs_f64() * 1e3
    };
    json!({"p50": at(500), "p99": at(990), "max": at(1000), "n": times.len()})
}
