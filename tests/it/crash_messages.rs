//! Kills while messages are published, sets are committed, and readers of the log come and go.
//!
//! Whatever a writer was told is in the log must be there after every kill, once; a reader that goes
//! on after what it has seen must see all of it, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fsvc::client::{Client, ClientError, Delivery, Message, PublishOptions, Subscription};
use fsvc::digest::Digest;
use fsvc::path::{Prefix, RemotePath};
use fsvc::protocol::{Conditions, ErrorCode, FileChange, FileState, Lost, Member, Start};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::crash::{Random, client, count};
use crate::faults::agree;
use crate::harness::{Server, Setup, everything};

const N_WRITERS: u64 = 6;
const N_NAMES: u64 = 3;
const SET_SIZE: usize = 3;
const LINES: usize = 7;
const RESTART_MAX: Duration = Duration::from_secs(5);
const SIZES: [usize; 4] = [20, 500, 40_000, 100_000];
/// Messages above this are attached.
const INLINE_SIZE_MAX: usize = 64 << 10;

/// What a record must say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Message(String, Digest),
    File(RemotePath, Digest),
    Removed(RemotePath),
}

#[derive(Debug, Clone)]
enum Job {
    Publish(String, Vec<u8>, String),
    Lines(String, Vec<u8>, String),
    Put(RemotePath, Vec<u8>),
    Set(Vec<RemotePath>, Vec<u8>),
    Remove(RemotePath),
    Move(RemotePath, RemotePath),
}

struct Writer {
    number: u64,
    random: Random,
    n_jobs: u64,
    acknowledged: Vec<(u64, Said)>,
    n_attached: usize,
    /// What was on its way when the server died.
    under_way: Option<Job>,
}

fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

impl Writer {
    fn new(number: u64) -> Self {
        Self {
            number,
            random: Random(0x5851_f42d_4c95_7f2d_u64.wrapping_mul(2 * number + 1)),
            n_jobs: 0,
            acknowledged: Vec::new(),
            n_attached: 0,
            under_way: None,
        }
    }

    fn name(&mut self) -> RemotePath {
        let n = self.random.below(N_NAMES);
        path(&format!("/w{}/d{n}/f", self.number))
    }

    fn set(&self) -> Vec<RemotePath> {
        let name = |n| path(&format!("/w{}/set/{n}", self.number));
        (0..SET_SIZE).map(name).collect()
    }

    /// Unlike any other content.
    fn content(&mut self, size: usize) -> Vec<u8> {
        let mut content = format!("\"{}:{}:", self.number, self.n_jobs).into_bytes();
        content.resize(size.max(content.len() + 1) - 1, b'x');
        content.push(b'"');
        content
    }

    fn job(&mut self) -> Job {
        self.n_jobs += 1;
        let size = SIZES[usize::try_from(self.random.below(SIZES.len() as u64)).unwrap()];
        let id = self.n_jobs.to_string();
        match self.random.below(10) {
            0..=3 => {
                let topic = format!("w{}/{size}", self.number);
                Job::Publish(topic, self.content(size), id)
            }
            4 => {
                let line = |n| format!("{}-{}-{n}", self.number, self.n_jobs);
                let lines: Vec<String> = (0..LINES).map(line).collect();
                Job::Lines(
                    format!("w{}/lines", self.number),
                    lines.join("\n").into(),
                    id,
                )
            }
            5 => Job::Set(self.set(), self.content(size)),
            6 => Job::Remove(self.name()),
            7 => {
                let from = self.name();
                let to = path(&format!("/w{}/moved/{}", self.number, self.random.below(2)));
                Job::Move(from, to)
            }
            _ => Job::Put(self.name(), self.content(size)),
        }
    }

    /// Does a job, and notes what it was told.
    async fn run(&mut self, client: &Client, job: &Job) -> Result<(), ClientError> {
        let told = run(client, job).await?;
        if let Job::Publish(_, payload, _) = job
            && payload.len() > INLINE_SIZE_MAX
        {
            self.n_attached += 1;
        }
        self.acknowledged.extend(told);
        Ok(())
    }

    /// Works until the server is gone.
    async fn work(&mut self, client: &Client) {
        loop {
            let job = self.job();
            match self.run(client, &job).await {
                Ok(()) => {}
                Err(ClientError::Remote(reply)) => panic!("{job:?}: {reply:?}"),
                Err(_) => {
                    self.under_way = Some(job);
                    return;
                }
            }
        }
    }

    /// Sends a message again that may have arrived, and looks whether a set is whole.
    async fn recover(&mut self, client: &Client) {
        if let Some(job @ (Job::Publish(..) | Job::Lines(..))) = self.under_way.take() {
            self.run(client, &job).await.unwrap();
        }
        let mut found = BTreeSet::new();
        for name in self.set() {
            let state = match client.get(&name, Vec::new()).await {
                Ok((file, content)) => Some((file.version.expect("it was put"), content)),
                Err(error) if error.code() == Some(ErrorCode::NotFound) => None,
                Err(error) => panic!("{name}: {error}"),
            };
            found.insert(state);
        }
        assert_eq!(
            found.len(),
            1,
            "a set of writer {} is in parts",
            self.number
        );
    }
}

async fn run(client: &Client, job: &Job) -> Result<Vec<(u64, Said)>, ClientError> {
    let free = Conditions::default();
    let under = |id: &String| PublishOptions {
        dedup_id: Some(id.parse().unwrap()),
    };
    let file = |path: &RemotePath, content: &[u8]| Said::File(path.clone(), Digest::of(content));
    Ok(match job {
        Job::Publish(topic, payload, id) => {
            let to = topic.parse().unwrap();
            let published = client.publish(&to, payload.clone(), under(id)).await?;
            let said = Said::Message(topic.clone(), Digest::of(payload));
            vec![(published.sequence, said)]
        }
        Job::Lines(topic, lines, id) => {
            let to = topic.parse().unwrap();
            let published = client.publish_lines(&to, lines.clone(), under(id)).await?;
            assert_eq!(published.n_refused, 0, "{:?}", published.refused);
            let texts = lines.split(|byte| *byte == b'\n');
            let said = texts.map(|line| Said::Message(topic.clone(), Digest::of(line)));
            published.sequences.into_iter().zip(said).collect()
        }
        Job::Put(path, content) => {
            let put = client.put_bytes(path, content.clone(), free).await?;
            vec![(put.version.unwrap(), file(path, content))]
        }
        Job::Set(paths, content) => {
            let mut members = Vec::new();
            for path in paths {
                let source = Cursor::new(content.clone());
                let staged = client.stage(source, Some(content.len() as u64)).await?;
                members.push(Member {
                    path: path.clone(),
                    staged: Some(staged.staged),
                    remove: false,
                    if_absent: false,
                    if_version: None,
                    digest: None,
                    attributes: None,
                });
            }
            let sequence = client.commit(&members).await?.sequence;
            let said = paths.iter().map(|path| (sequence, file(path, content)));
            said.collect()
        }
        Job::Remove(path) => match client.remove(path, None).await {
            Ok(removed) => vec![(removed.sequence, Said::Removed(path.clone()))],
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        },
        Job::Move(from, to) => match client.rename(from, to, free).await {
            Ok(file) => {
                let said = Said::File(to.clone(), file.digest.unwrap());
                vec![(file.version.unwrap(), said)]
            }
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        },
    })
}

/// Somebody who reads the log over many connections.
struct Reader {
    files: bool,
    random: Random,
    /// Everything up to here was delivered.
    last: u64,
    seen: BTreeMap<u64, Message>,
    lost: Vec<Lost>,
}

async fn begin(client: &Client, files: bool, since: u64) -> Result<Subscription, ClientError> {
    let start = Start {
        since: Some(since),
        ..Start::default()
    };
    if files {
        client.watch(Prefix::root(), start).await
    } else {
        client.subscribe(vec!["**".parse().unwrap()], start).await
    }
}

impl Reader {
    fn new(files: bool) -> Self {
        Self {
            files,
            random: Random(0x2545_f491_4f6c_dd1d + u64::from(files)),
            last: 0,
            seen: BTreeMap::new(),
            lost: Vec::new(),
        }
    }

    /// Reads, and connects again now and then, until it is told to stop.
    async fn read(&mut self, client: &Client, mut stop: watch::Receiver<bool>) {
        loop {
            let begun = tokio::select! {
                begun = begin(client, self.files, self.last) => begun,
                _ = stop.wait_for(|stopped| *stopped) => return,
            };
            let Ok(mut subscription) = begun else {
                let _ = stop.wait_for(|stopped| *stopped).await;
                return;
            };
            for _ in 0..=self.random.below(300) {
                let delivery = tokio::select! {
                    biased;
                    delivery = subscription.next() => delivery,
                    _ = stop.wait_for(|stopped| *stopped) => return,
                };
                let Some(Ok(delivery)) = delivery else {
                    let _ = stop.wait_for(|stopped| *stopped).await;
                    return;
                };
                self.look_at(client, &delivery).await;
                self.take(delivery);
            }
        }
    }

    /// Reads what there is.
    async fn catch_up(&mut self, client: &Client) -> u64 {
        let mut subscription = begin(client, self.files, self.last).await.unwrap();
        let head = subscription.head();
        while self.last < head {
            let delivery = subscription.next().await.unwrap().unwrap();
            self.take(delivery);
        }
        head
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Event(message) => {
                let sequence = message.event.sequence;
                assert!(sequence > self.last, "{sequence} after {}", self.last);
                self.last = sequence;
                self.seen.insert(sequence, message);
            }
            Delivery::Lost(lost) => {
                assert!(lost.from <= lost.to && lost.to > self.last, "{lost:?}");
                self.lost.push(lost);
            }
            Delivery::CaughtUp(sequence) => {
                assert!(sequence >= self.last, "{sequence} after {}", self.last);
                self.last = sequence;
            }
        }
    }

    /// The file of an event is there at that version, or something newer is known of it.
    async fn look_at(&mut self, client: &Client, delivery: &Delivery) {
        let Delivery::Event(message) = delivery else {
            return;
        };
        if !self.files || self.random.below(4) > 0 {
            return;
        }
        let sequence = message.event.sequence;
        for change in &message.event.changes {
            let Some(state) = left(change) else { continue };
            match client.stat(&state.path).await {
                Ok(file) => {
                    let version = file.version.expect("no other program writes here");
                    assert!(version >= sequence, "{change:?} is not there yet");
                    assert!(version > sequence || file.digest == state.digest);
                }
                Err(ClientError::Remote(reply)) => assert_eq!(reply.code, ErrorCode::NotFound),
                // The server was killed.
                Err(_) => return,
            }
        }
    }

    fn is_lost(&self, sequence: u64) -> bool {
        let mut lost = self.lost.iter();
        lost.any(|lost| (lost.from..=lost.to).contains(&sequence))
    }
}

/// The file that a change leaves.
const fn left(change: &FileChange) -> Option<&FileState> {
    match change {
        FileChange::Created(file) | FileChange::Replaced(file) | FileChange::Moved { file, .. } => {
            Some(file)
        }
        FileChange::Removed { .. } => None,
    }
}

/// What a message says, wherever that is kept.
fn digest(message: &Message) -> Digest {
    let attached = message.event.attachment.as_ref();
    attached.map_or_else(|| Digest::of(&message.payload), |a| a.digest)
}

fn says(message: &Message, said: &Said) -> bool {
    let event = &message.event;
    match said {
        Said::Message(topic, wanted) => {
            let is_of = event.topic.as_ref().is_some_and(|t| t.as_str() == topic);
            is_of && digest(message) == *wanted
        }
        Said::File(path, wanted) => {
            let mut states = event.changes.iter().filter_map(left);
            states.any(|file| file.path == *path && file.digest == Some(*wanted))
        }
        Said::Removed(path) => {
            let mut changes = event.changes.iter();
            changes
                .any(|change| matches!(change, FileChange::Removed { path: gone } if gone == path))
        }
    }
}

struct Scene {
    server: Server,
    runtime: Runtime,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    /// Whether old messages make room for new ones.
    forgets: bool,
    n_kills: usize,
    slowest: Duration,
}

impl Scene {
    fn new(arguments: &[&str]) -> Self {
        let setup = Setup {
            policy: Some(everything()),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            ..Setup::default()
        };
        Self {
            server: Server::start_with(setup),
            runtime: Runtime::new().unwrap(),
            writers: (0..N_WRITERS).map(Writer::new).collect(),
            readers: vec![Reader::new(false), Reader::new(true)],
            forgets: !arguments.is_empty(),
            n_kills: 0,
            slowest: Duration::ZERO,
        }
    }

    fn kill_after(&mut self, moment: Duration) {
        let client = client(&self.server);
        let (stop, stopped) = watch::channel(false);
        let (runtime, mut writers, mut readers) = (&self.runtime, Vec::new(), Vec::new());
        for mut writer in self.writers.drain(..) {
            let client = client.clone();
            writers.push(runtime.spawn(async move {
                writer.work(&client).await;
                writer
            }));
        }
        // Where old messages go the readers are away now and then, and find them gone.
        let are_away = self.forgets && !self.n_kills.is_multiple_of(3);
        self.n_kills += 1;
        for mut reader in self.readers.drain(..) {
            let (client, stopped) = (client.clone(), stopped.clone());
            readers.push(runtime.spawn(async move {
                if !are_away {
                    reader.read(&client, stopped).await;
                }
                reader
            }));
        }
        // The moment of the kill is the test's input, not a wait for anything.
        std::thread::sleep(moment);
        self.server.kill();
        stop.send_replace(true);
        let (found, read) = self.runtime.block_on(async {
            let (mut found, mut read) = (Vec::new(), Vec::new());
            for task in writers {
                found.push(task.await.unwrap());
            }
            for task in readers {
                read.push(task.await.unwrap());
            }
            (found, read)
        });
        (self.writers, self.readers) = (found, read);
    }

    fn restart(&mut self) {
        self.slowest = self.slowest.max(self.server.restart());
        assert_eq!(self.server.staged(), Vec::<String>::new());
        let client = client(&self.server);
        self.runtime.block_on(async {
            for writer in &mut self.writers {
                writer.recover(&client).await;
            }
        });
        let n_attached: usize = self.writers.iter().map(|writer| writer.n_attached).sum();
        let attached = std::fs::read_dir(self.server.root().join(".fsvc/attached")).unwrap();
        let n_there = attached.count();
        let fits = n_there == n_attached || (self.forgets && n_there <= n_attached);
        assert!(
            fits,
            "{n_there} attached contents for {n_attached} messages"
        );
    }

    /// Holds everything that was told and seen against what is there at the end.
    fn verify(&mut self) {
        let client = client(&self.server);
        let mut all: Vec<Reader> = vec![Reader::new(false), Reader::new(true)];
        let heads: Vec<u64> = self.runtime.block_on(async {
            let mut heads = Vec::new();
            for reader in all.iter_mut().chain(&mut self.readers) {
                heads.push(reader.catch_up(&client).await);
            }
            heads
        });
        let [messages, changes] = [&all[0], &all[1]];
        assert!(changes.lost.is_empty() && self.readers[1].lost.is_empty());
        assert_eq!(
            self.readers[1].seen, changes.seen,
            "the watcher missed some"
        );
        let seen = &self.readers[0];
        for (sequence, message) in &messages.seen {
            let is_known = seen.seen.get(sequence) == Some(message);
            assert!(is_known || seen.is_lost(*sequence), "{sequence} was missed");
        }
        if !self.forgets {
            assert_eq!(seen.seen, messages.seen);
            assert!(seen.lost.is_empty());
            let every: BTreeSet<u64> = messages
                .seen
                .keys()
                .chain(changes.seen.keys())
                .copied()
                .collect();
            assert_eq!(every, (1..=heads[0]).collect(), "a gap");
        }
        for (sequence, said) in self.writers.iter().flat_map(|w| &w.acknowledged) {
            let found = [seen, changes].map(|reader| reader.seen.get(sequence));
            match found.into_iter().flatten().next() {
                Some(message) => assert!(says(message, said), "{said:?}: {message:?}"),
                None => assert!(seen.is_lost(*sequence), "{sequence} is lost: {said:?}"),
            }
        }
        let mut said = BTreeSet::new();
        for message in seen.seen.values() {
            let topic = message.event.topic.clone().unwrap();
            assert!(
                said.insert((topic, digest(message).to_string())),
                "{message:?} is there twice"
            );
        }
        self.verify_attachments(&client, &messages.seen);
        verify_tree(&self.server.root(), &changes.seen);
    }

    fn verify_attachments(&self, client: &Client, messages: &BTreeMap<u64, Message>) {
        let attached = messages
            .iter()
            .filter(|(_, m)| m.event.attachment.is_some());
        let mut n_fetched = 0;
        for (sequence, message) in attached {
            let fetched = self.runtime.block_on(client.fetch(*sequence, Vec::new()));
            let (_, content) = fetched.unwrap();
            assert_eq!(Digest::of(&content), digest(message), "{sequence}");
            n_fetched += 1;
        }
        assert!(n_fetched > 0);
    }
}

/// Every file in the tree is as the last event of its name says, and there is no other.
fn verify_tree(root: &Path, changes: &BTreeMap<u64, Message>) {
    let mut expected: BTreeMap<PathBuf, Digest> = BTreeMap::new();
    for change in changes.values().flat_map(|message| &message.event.changes) {
        if let FileChange::Moved { from, .. } | FileChange::Removed { path: from } = change {
            expected.remove(Path::new(from.relative()));
        }
        if let Some(file) = left(change) {
            expected.insert(file.path.relative().into(), file.digest.unwrap());
        }
    }
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_file() {
                found.insert(name, Digest::of(&std::fs::read(&path).unwrap()));
            } else if name != Path::new(".fsvc") {
                open.push(path);
            }
        }
    }
    assert_eq!(found, expected);
}

fn play(arguments: &[&str], n_kills: usize) {
    let mut scene = Scene::new(arguments);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let began = Instant::now();
    for _ in 0..n_kills {
        scene.kill_after(Duration::from_millis(10 + random.below(250)));
        scene.restart();
    }
    scene.verify();
    let n_told: usize = scene.writers.iter().map(|w| w.acknowledged.len()).sum();
    let [n_messages, n_changes] = [0, 1].map(|n: usize| scene.readers[n].seen.len());
    eprintln!(
        "{n_kills} kills in {:?}: {n_told} acknowledged, none lost; {n_messages} messages and \
         {n_changes} changes read in order, {} gaps told; slowest restart {:?}",
        began.elapsed(),
        scene.readers[0].lost.len(),
        scene.slowest
    );
    assert!(n_told > n_kills, "the writers did not come to write");
    assert_eq!(scene.forgets, !scene.readers[0].lost.is_empty());
    assert!(scene.slowest < RESTART_MAX, "{:?}", scene.slowest);
    if !scene.forgets {
        scene.server.signal("TERM");
        scene.server.wait(Duration::from_secs(10));
        agree(&scene.server.root(), "after the last kill");
    }
}

#[test]
fn a_kill_at_any_moment_loses_no_record_and_no_reader_misses_one() {
    play(&[], count("FSVC_TEST_KILLS", 8));
}

#[test]
fn a_kill_while_old_messages_make_room_leaves_nothing_lost_in_silence() {
    play(&["--keep-size", "100KB"], count("FSVC_TEST_KILLS", 8));
}
