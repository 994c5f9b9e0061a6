//! The figures of fsvc.

use std::path::Path;
use std::time::{Duration, Instant};

use fsvc::client::{Client, Delivery, Options, PublishOptions, Subscription};
use fsvc::path::Topic;
use fsvc::protocol::{Conditions, Start};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::wire::Frames;
use crate::{Anyhow, FanOut, Latency, Publish, Slow, Target, deliveries, pause, spread};

/// Lines that the publisher of a fan-out sends at a time.
const LINES: usize = 1000;
/// Size of the messages for subscribers that do not read them.
const SLOW_SIZE: usize = 1000;
/// Connections of the publisher whose messages are timed.
const LATENCY_CONNECTIONS: usize = 16;
/// Longest wait for an event that must come.
const EVENT_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn options(server: &str, certs: &Path) -> Options {
    Options::from_directory(server, certs, "dev")
}

fn client(target: &Target) -> Anyhow<Client> {
    Ok(Client::new(options(&target.server, &target.certs))?)
}

/// Publishes until the time is over: one message at a time, or lines of several.
pub(crate) async fn publish(
    target: Target,
    until: Instant,
    Publish {
        size, in_flight, ..
    }: Publish,
) -> Anyhow<(usize, Duration)> {
    let client = client(&target)?;
    client.hello().await?;
    let topic: Topic = "bench/a".parse()?;
    let payload = vec![b'x'; size];
    let batch = lines(size, in_flight);
    let (mut n, began) = (0, Instant::now());
    while Instant::now() < until {
        if in_flight == 1 {
            let payload = payload.clone();
            client
                .publish(&topic, payload, PublishOptions::default())
                .await?;
        } else {
            publish_batch(&client, &topic, batch.clone(), in_flight).await?;
        }
        n += in_flight;
    }
    Ok((n, began.elapsed()))
}

fn lines(size: usize, n: usize) -> Vec<u8> {
    let mut line = vec![b'x'; size];
    line.push(b'\n');
    line.repeat(n)
}

async fn publish_batch(client: &Client, topic: &Topic, batch: Vec<u8>, n: usize) -> Anyhow<()> {
    let published = client.publish_lines(topic, batch, PublishOptions::default());
    let published = published.await?;
    if published.n_refused > 0 || published.sequences.len() != n {
        return Err(format!("not all were published: {published:?}").into());
    }
    Ok(())
}

pub(crate) async fn fan_out(
    target: &Target,
    FanOut {
        subscribers,
        messages,
        size,
    }: FanOut,
) -> Anyhow<Value> {
    let mut readers = JoinSet::new();
    for _ in 0..subscribers {
        let frames = Frames::subscribe(target, "fan").await?;
        readers.spawn(frames.count(messages));
    }
    let client = client(target)?;
    client.hello().await?;
    let topic = "fan".parse()?;
    let began = Instant::now();
    let mut left = messages;
    while left > 0 {
        let n = left.min(LINES);
        publish_batch(&client, &topic, lines(size, n), n).await?;
        left -= n;
    }
    deliveries(readers, began, messages).await
}

/// Puts the time into a payload.
pub(crate) fn stamp(origin: Instant, payload: &mut [u8]) {
    let now = u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    payload[..8].copy_from_slice(&now.to_be_bytes());
}

/// How long ago a payload was stamped.
pub(crate) fn age(origin: Instant, payload: &[u8]) -> Anyhow<Duration> {
    let now = origin.elapsed();
    let stamp = payload.first_chunk().ok_or("a payload without its time")?;
    Ok(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*stamp))))
}

pub(crate) async fn latency(
    target: &Target,
    Latency {
        rate,
        seconds,
        size,
    }: Latency,
) -> Anyhow<Value> {
    let n = usize::try_from(rate * seconds)?;
    let client = client(target)?;
    let topic: Topic = "bench/latency".parse()?;
    let filters = vec!["bench/latency".parse()?];
    let mut subscription = client.subscribe(filters, Start::default()).await?;
    let origin = Instant::now();
    let receiver = tokio::spawn(async move {
        let mut times = Vec::with_capacity(n);
        while times.len() < n {
            let message = next_event(&mut subscription).await?;
            times.push(age(origin, &message.payload)?);
        }
        Anyhow::Ok(times)
    });
    // As many requests at a time as come due before the first is answered; on connections that are
    // there already, so that a pause of the disk does not become a storm of handshakes.
    let mut publishers = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..LATENCY_CONNECTIONS {
        let (queue, mut due) = mpsc::channel::<Vec<u8>>(n.div_ceil(LATENCY_CONNECTIONS));
        let (client, topic) = (self::client(target)?, topic.clone());
        client.hello().await?;
        queues.push(queue);
        publishers.spawn(async move {
            while let Some(payload) = due.recv().await {
                client
                    .publish(&topic, payload, PublishOptions::default())
                    .await?;
            }
            Anyhow::Ok(())
        });
    }
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..n {
        ticks.tick().await;
        let mut payload = vec![b'x'; size];
        stamp(origin, &mut payload);
        queues[number % queues.len()].send(payload).await?;
    }
    drop(queues);
    while let Some(done) = publishers.join_next().await {
        done??;
    }
    Ok(spread(receiver.await??))
}

async fn next_event(subscription: &mut Subscription) -> Anyhow<fsvc::client::Message> {
    loop {
        let next = timeout(EVENT_WAIT, subscription.next()).await?;
        match next.ok_or("the stream ended")?? {
            Delivery::Event(message) => return Ok(message),
            Delivery::CaughtUp(_) => {}
            Delivery::Lost(lost) => return Err(format!("a gap: {lost:?}").into()),
        }
    }
}

pub(crate) async fn watch(target: &Target, files: usize, size: usize) -> Anyhow<Value> {
    let client = client(target)?;
    let mut watcher = client.watch("/watched/".parse()?, Start::default()).await?;
    let (arrived, mut arrivals) = mpsc::channel(files);
    let watching = tokio::spawn(async move {
        for _ in 0..files {
            let message = next_event(&mut watcher).await?;
            let at = Instant::now();
            arrived.send((message.event.sequence, at)).await?;
        }
        Anyhow::Ok(())
    });
    let mut times = Vec::with_capacity(files);
    for number in 0..files {
        let path = format!("/watched/{number}").parse()?;
        let put = client.put_bytes(&path, vec![b'x'; size], Conditions::default());
        let file = put.await?;
        let answered = Instant::now();
        let (sequence, arrived) = arrivals.recv().await.ok_or("the watcher ended")?;
        if file.version != Some(sequence) {
            return Err(format!("event {sequence} came for {file:?}").into());
        }
        times.push(arrived.saturating_duration_since(answered));
    }
    watching.await??;
    Ok(spread(times))
}

pub(crate) async fn slow(
    target: &Target,
    Slow {
        subscribers,
        mebibytes,
    }: Slow,
) -> Anyhow<Value> {
    let mut idle = Vec::with_capacity(subscribers);
    for _ in 0..subscribers {
        idle.push(Frames::subscribe(target, "slow").await?);
    }
    pause("subscribed").await?;
    let client = client(target)?;
    let topic = "slow".parse()?;
    let n = (mebibytes << 20) / SLOW_SIZE;
    for _ in 0..n.div_ceil(LINES) {
        publish_batch(&client, &topic, lines(SLOW_SIZE, LINES), LINES).await?;
    }
    pause("published").await?;
    Ok(json!({"subscribers": idle.len()}))
}
