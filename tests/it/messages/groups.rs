//! Groups: readers that share a cursor, so that each record is done by one of them.

use std::collections::BTreeMap;

use fsvc::client::{Client, Subscription};
use fsvc::protocol::Start;

use super::{
    caught_up, client, cursor, end, event, filters, refused, runtime, say, serve, serve_with,
    subscribe, with_cursor,
};

fn group(ack_timeout: u64) -> Start {
    Start {
        group: true,
        ack_timeout: Some(ack_timeout),
        ..with_cursor("workers")
    }
}

async fn join(client: &Client, ack_timeout: u64) -> Subscription {
    subscribe(client, &["jobs"], group(ack_timeout)).await
}

async fn done(client: &Client, sequence: u64) {
    client.ack(&cursor("workers"), sequence).await.unwrap();
}

#[test]
fn each_record_is_done_by_one_of_the_readers() {
    const N: u64 = 60;
    let server = serve();
    let runtime = runtime();
    let (sender, mut finished) = tokio::sync::mpsc::channel(64);
    runtime.block_on(async {
        for number in 0..4 {
            let worker = client(&server, "dev");
            let mut stream = join(&worker, 30).await;
            let sender = sender.clone();
            tokio::spawn(async move {
                loop {
                    let sequence = event(&mut stream).await.event.sequence;
                    let _ = sender.send((sequence, number)).await;
                    done(&worker, sequence).await;
                }
            });
        }
        let alice = client(&server, "alice");
        for number in 0..N {
            say(&alice, "jobs", &number.to_string()).await;
        }
        let mut by = BTreeMap::new();
        while by.len() < usize::try_from(N).unwrap() {
            let next = tokio::time::timeout(super::LIMIT, finished.recv()).await;
            let (sequence, worker) = next.unwrap().unwrap();
            assert_eq!(
                by.insert(sequence, worker),
                None,
                "{sequence} was given twice"
            );
        }
        let n_workers = by.values().collect::<std::collections::BTreeSet<_>>().len();
        assert!(n_workers > 1, "one of them did everything");
    });
}

#[test]
fn a_reader_that_dies_hands_over_at_once() {
    let server = serve();
    runtime().block_on(async {
        let (dev, other) = (client(&server, "dev"), client(&server, "dev"));
        let mut first = join(&dev, 3600).await;
        let sequence = say(&dev, "jobs", "1").await;
        assert_eq!(event(&mut first).await.event.sequence, sequence);
        let mut second = join(&other, 3600).await;
        assert_eq!(caught_up(&mut second).await, []);
        drop(first);
        let again = event(&mut second).await.event;
        assert_eq!((again.sequence, again.delivery), (sequence, Some(2)));
        done(&other, sequence).await;
    });
}

#[test]
fn a_reader_that_hangs_hands_over_after_its_time() {
    let server = serve();
    runtime().block_on(async {
        let (dev, other) = (client(&server, "dev"), client(&server, "dev"));
        let mut first = join(&dev, 1).await;
        let sequence = say(&dev, "jobs", "1").await;
        assert_eq!(event(&mut first).await.event.sequence, sequence);
        // The first one is never asked again, but its connection stays.
        let mut second = join(&other, 60).await;
        let again = event(&mut second).await.event;
        assert_eq!((again.sequence, again.delivery), (sequence, Some(2)));
        done(&other, sequence).await;
    });
    let topic: serde_json::Value = serde_json::from_str(&server.ok(&["topics", "--json"])).unwrap();
    assert_eq!(topic["cursors"][0]["lag"], 0, "{topic}");
}

#[test]
fn an_acknowledgement_is_of_one_record_also_when_every_reader_is_gone() {
    let server = serve_with(&["--connections-per-identity-max", "2"]);
    runtime().block_on(async {
        let alice = client(&server, "alice");
        let mut workers = Vec::new();
        for _ in 0..2 {
            workers.push(join(&client(&server, "dev"), 3600).await);
        }
        say(&alice, "jobs", "1").await;
        say(&alice, "jobs", "2").await;
        let mut sequences = Vec::new();
        for worker in &mut workers {
            sequences.push(event(worker).await.event.sequence);
        }
        sequences.sort_unstable();
        assert_eq!(sequences, [1, 2]);
        drop(workers);
        // Both are gone once there are places for two others.
        let (dev, other) = (client(&server, "dev"), client(&server, "dev"));
        for client in [&dev, &other] {
            greeted(client).await;
        }
        done(&dev, 2).await;
        let mut third = join(&other, 3600).await;
        assert_eq!(event(&mut third).await.event.sequence, 1);
        done(&dev, 1).await;
        let next = say(&alice, "jobs", "3").await;
        assert_eq!(event(&mut third).await.event.sequence, next);
    });
}

async fn greeted(client: &Client) {
    let until = tokio::time::Instant::now() + super::LIMIT;
    while let Err(error) = client.hello().await {
        assert!(tokio::time::Instant::now() < until, "{error}");
    }
}

#[test]
fn a_group_survives_a_restart_without_doing_twice_what_was_done() {
    let mut server = serve();
    runtime().block_on(async {
        let (dev, other) = (client(&server, "dev"), client(&server, "dev"));
        let mut first = join(&dev, 3600).await;
        say(&dev, "jobs", "1").await;
        assert_eq!(event(&mut first).await.event.sequence, 1);
        let mut second = join(&other, 3600).await;
        say(&dev, "jobs", "2").await;
        say(&dev, "jobs", "3").await;
        assert_eq!(event(&mut second).await.event.sequence, 2);
        done(&other, 2).await;
        assert_eq!(event(&mut second).await.event.sequence, 3);
    });
    server.signal("TERM");
    assert_eq!(server.wait(super::LIMIT).code(), Some(0));
    server.restart();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let mut stream = join(&dev, 3600).await;
        for sequence in [1, 3] {
            assert_eq!(event(&mut stream).await.event.sequence, sequence);
            done(&dev, sequence).await;
        }
        assert_eq!(caught_up(&mut stream).await, []);
    });
}

#[test]
fn a_group_reads_one_thing_and_is_read_as_a_group() {
    let server = serve();
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let mut member = join(&dev, 30).await;
        let others = dev.subscribe(filters(&["jobs", "more"]), group(30)).await;
        assert_eq!(refused(others.map(drop)), "bad_request");
        let alone = Start {
            group: false,
            ..group(30)
        };
        let alone = dev.subscribe(filters(&["jobs"]), alone).await;
        assert_eq!(refused(alone.map(drop)), "bad_request");
        // The group goes on.
        let sequence = say(&dev, "jobs", "1").await;
        assert_eq!(event(&mut member).await.event.sequence, sequence);
        // A group that is begun on a cursor takes it from the one who had it.
        let mut single = subscribe(&dev, &["jobs"], with_cursor("single")).await;
        caught_up(&mut single).await;
        let start = Start {
            group: true,
            ..with_cursor("single")
        };
        let mut members = subscribe(&client(&server, "dev"), &["jobs"], start).await;
        assert_eq!(end(&mut single).await.code().unwrap().to_string(), "exists");
        assert_eq!(event(&mut members).await.event.sequence, sequence);
    });
}

#[test]
fn an_idle_group_costs_no_processor() {
    let server = serve();
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    runtime().block_on(async {
        let dev = client(&server, "dev");
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = join(&dev, 30).await;
            caught_up(&mut stream).await;
            streams.push(stream);
        }
        let before = ticks();
        // Nobody answers for a second: a wait that the server keeps.
        let nobody = super::topic("nobody");
        let asked = dev.request(&nobody, "?", std::time::Duration::from_secs(1));
        assert_eq!(refused(asked.await.map(drop)), "unavailable");
        let used = ticks() - before;
        assert!(used < 40, "{used} hundredths of a second in one");
    });
}
