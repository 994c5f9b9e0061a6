//! The figures of NATS: `JetStream` where messages are kept, the core where they are only passed on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::nats::Nats;
use crate::{Anyhow, FanOut, Latency, Publish, Slow, Target, deliveries, pause, spread};

const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench.a";
/// Bytes that the publisher of a fan-out sends at a time.
const CHUNK_SIZE: usize = 64 << 10;

/// Asks `JetStream` for something.
async fn ask(nats: &mut Nats, what: &str, request: &Value) -> Anyhow<Value> {
    let subject = format!("$JS.API.{what}");
    nats.queue(&subject, "_INBOX.api", request.to_string().as_bytes())?;
    nats.flush().await?;
    let mut answer = Value::Null;
    nats.receive(|payload| {
        answer = serde_json::from_slice(payload)?;
        Ok(())
    })
    .await?;
    Ok(answer)
}

/// A new stream in files.
pub(crate) async fn stream(target: &Target) -> Anyhow<Nats> {
    let mut nats = Nats::connect(target).await?;
    nats.subscribe("_INBOX.api").await?;
    // What an earlier run may have left.
    ask(&mut nats, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await?;
    let config = json!({
        "name": STREAM, "subjects": ["bench.>"], "storage": "file", "retention": "limits",
        "discard": "old", "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
    });
    let answer = ask(&mut nats, &format!("STREAM.CREATE.{STREAM}"), &config).await?;
    match answer.get("error") {
        Some(error) => Err(error.to_string().into()),
        None => Ok(nats),
    }
}

pub(crate) async fn drop_stream(mut nats: Nats) -> Anyhow<()> {
    ask(&mut nats, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await?;
    Ok(())
}

fn acknowledged(payload: &[u8]) -> Anyhow<()> {
    let is_error = payload.windows(7).any(|part| part == b"\"error\"");
    if is_error || !payload.starts_with(b"{") {
        return Err(String::from_utf8_lossy(payload).into());
    }
    Ok(())
}

/// Publishes until the time is over, with at most `in_flight` messages unacknowledged.
pub(crate) async fn publish(
    target: Target,
    number: usize,
    until: Instant,
    Publish {
        size, in_flight, ..
    }: Publish,
) -> Anyhow<(usize, Duration)> {
    let mut nats = Nats::connect(&target).await?;
    let inbox = format!("_INBOX.p{number}");
    nats.subscribe(&inbox).await?;
    let payload = vec![b'x'; size];
    let began = Instant::now();
    let (mut n, mut n_waiting) = (0, 0);
    while Instant::now() < until {
        while n_waiting < in_flight {
            nats.queue(SUBJECT, &inbox, &payload)?;
            n_waiting += 1;
        }
        nats.flush().await?;
        let n_acknowledged = nats.receive(acknowledged).await?;
        n_waiting -= n_acknowledged;
        n += n_acknowledged;
    }
    Ok((n, began.elapsed()))
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
        let mut nats = Nats::connect(target).await?;
        nats.subscribe("fan").await?;
        readers.spawn(async move {
            let mut left = messages;
            while left > 0 {
                left -= nats.receive(|_| Ok(())).await?;
            }
            Ok(())
        });
    }
    let mut nats = Nats::connect(target).await?;
    let payload = vec![b'x'; size];
    let began = Instant::now();
    for chunk in 0..messages.div_ceil(CHUNK_SIZE / size) {
        let n_max = CHUNK_SIZE / size;
        for _ in 0..n_max.min(messages - chunk * n_max) {
            nats.queue("fan", "", &payload)?;
        }
        nats.flush().await?;
    }
    nats.settle().await?;
    deliveries(readers, began, messages).await
}

pub(crate) async fn latency(
    target: &Target,
    Latency {
        rate,
        seconds,
        size,
    }: Latency,
) -> Anyhow<Value> {
    let mut control = stream(target).await?;
    let mut subscriber = Nats::connect(target).await?;
    subscriber.subscribe("_INBOX.deliver").await?;
    let consumer = json!({"stream_name": STREAM, "config": {
        "deliver_subject": "_INBOX.deliver", "deliver_policy": "new", "ack_policy": "none",
        "replay_policy": "instant",
    }});
    let answer = ask(
        &mut control,
        &format!("CONSUMER.CREATE.{STREAM}"),
        &consumer,
    )
    .await?;
    if let Some(error) = answer.get("error") {
        return Err(error.to_string().into());
    }
    let n = usize::try_from(rate * seconds)?;
    let origin = Instant::now();
    let receiver = tokio::spawn(async move {
        let mut times = Vec::with_capacity(n);
        while times.len() < n {
            subscriber
                .receive(|payload| {
                    times.push(crate::fsvc_side::age(origin, payload)?);
                    Ok(())
                })
                .await?;
        }
        Anyhow::Ok(times)
    });
    let mut publisher = Nats::connect(target).await?;
    publisher.subscribe("_INBOX.acks").await?;
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut payload = vec![b'x'; size];
    let (mut n_sent, mut n_acknowledged) = (0, 0);
    while n_acknowledged < n {
        tokio::select! {
            biased;
            _ = ticks.tick(), if n_sent < n => {
                crate::fsvc_side::stamp(origin, &mut payload);
                publisher.queue(SUBJECT, "_INBOX.acks", &payload)?;
                publisher.flush().await?;
                n_sent += 1;
            }
            n_more = publisher.receive(acknowledged) => n_acknowledged += n_more?,
        }
    }
    let times = receiver.await??;
    drop_stream(control).await?;
    Ok(spread(times))
}

/// Subscribers that are only there: what is sent to them the server would keep for each.
pub(crate) async fn slow(target: &Target, Slow { subscribers, .. }: Slow) -> Anyhow<Value> {
    let mut idle = Vec::with_capacity(subscribers);
    for _ in 0..subscribers {
        let mut nats = Nats::connect(target).await?;
        nats.subscribe("fan").await?;
        idle.push(nats);
    }
    pause("subscribed").await?;
    Ok(json!({"subscribers": idle.len()}))
}
