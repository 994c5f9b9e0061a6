//! Kills in the middle of everything.
//!
//! Eight writers, each with names of its own, so that what must be there after a kill is known: the
//! state after the last acknowledged change, or the one after the change that was under way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fsvc::client::{Client, ClientError, Options};
use fsvc::digest::Digest;
use fsvc::path::RemotePath;
use fsvc::protocol::{Conditions, ErrorCode};

use crate::harness::Server;

const N_WRITERS: u64 = 8;
const N_NAMES: u64 = 4;
/// Some bodies are staged whole, some moved by a thread of their own.
const SIZES: [usize; 5] = [0, 64, 5_000, 65_536, 300_000];
/// How long the first two changes of eight writers take at most.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
const RESTART_MAX: Duration = Duration::from_secs(5);

/// What each name of one writer holds.
type State = BTreeMap<String, Vec<u8>>;

/// Small, seeded, and enough to be unpredictable to the server.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

struct Writer {
    number: u64,
    random: Random,
    acknowledged: State,
    /// Changes that were acknowledged, of all writers.
    n_acknowledged: Arc<AtomicUsize>,
    /// The state after the change that was under way when the server died.
    under_way: Option<State>,
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, Vec<u8>),
    Remove(String),
    Move(String, String),
    Copy(String, String),
}

impl Writer {
    fn new(number: u64, n_acknowledged: &Arc<AtomicUsize>) -> Self {
        let random = Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1));
        Self {
            number,
            random,
            acknowledged: State::new(),
            n_acknowledged: Arc::clone(n_acknowledged),
            under_way: None,
        }
    }

    fn name(&mut self) -> String {
        format!("/w{}/d{}/f", self.number, self.random.below(N_NAMES))
    }

    fn step(&mut self) -> Step {
        let (name, other) = (self.name(), self.name());
        match self.random.below(8) {
            0 => Step::Remove(name),
            1 if name != other => Step::Move(name, other),
            2 if name != other => Step::Copy(name, other),
            _ => {
                let size = SIZES[usize::try_from(self.random.below(SIZES.len() as u64)).unwrap()];
                let mut content = Vec::with_capacity(size + 8);
                while content.len() < size {
                    content.extend(self.random.next().to_le_bytes());
                }
                content.truncate(size);
                Step::Put(name, content)
            }
        }
    }

    /// Works until the server is gone.
    async fn work(&mut self, client: &Client) {
        loop {
            let step = self.step();
            let mut after = self.acknowledged.clone();
            apply(&mut after, &step);
            match run(client, &step).await {
                Ok(()) => {
                    self.acknowledged = after;
                    self.n_acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(ClientError::Remote(reply)) if reply.code == ErrorCode::NotFound => {
                    assert_eq!(after, self.acknowledged, "{step:?} was refused: {reply:?}");
                }
                Err(ClientError::Remote(reply)) => panic!("{step:?}: {reply:?}"),
                Err(_) => {
                    self.under_way = Some(after);
                    return;
                }
            }
        }
    }

    /// Finds out which of the two states is there, and holds every view of it against that.
    async fn verify(&mut self, client: &Client, root: &Path) {
        let mut found = State::new();
        for number in 0..N_NAMES {
            let name = format!("/w{}/d{number}/f", self.number);
            let path: RemotePath = name.parse().unwrap();
            match client.get(&path, Vec::new()).await {
                Ok((file, content)) => {
                    assert!(file.version.is_some(), "{name} lost its version");
                    assert_eq!(file.digest, Some(Digest::of(&content)));
                    assert_eq!(std::fs::read(root.join(path.relative())).unwrap(), content);
                    found.insert(name, content);
                }
                Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                    assert!(
                        !root.join(path.relative()).is_file(),
                        "{name} is visible in the tree"
                    );
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
        let expected = [Some(&self.acknowledged), self.under_way.as_ref()];
        let fits = expected.into_iter().flatten().any(|state| *state == found);
        assert!(
            fits,
            "writer {}: lost or torn: {:?}",
            self.number,
            sizes(&found)
        );
        self.acknowledged = found;
        self.under_way = None;
    }
}

fn sizes(state: &State) -> Vec<(&String, usize)> {
    state
        .iter()
        .map(|(name, content)| (name, content.len()))
        .collect()
}

fn apply(state: &mut State, step: &Step) {
    match step {
        Step::Put(name, content) => {
            state.insert(name.clone(), content.clone());
        }
        Step::Remove(name) => {
            state.remove(name);
        }
        Step::Move(from, to) => {
            if let Some(content) = state.remove(from) {
                state.insert(to.clone(), content);
            }
        }
        Step::Copy(from, to) => {
            if let Some(content) = state.get(from).cloned() {
                state.insert(to.clone(), content);
            }
        }
    }
}

async fn run(client: &Client, step: &Step) -> Result<(), ClientError> {
    let path = |name: &String| name.parse::<RemotePath>().unwrap();
    let free = Conditions::default();
    match step {
        Step::Put(name, content) => client
            .put_bytes(&path(name), content.clone(), free)
            .await
            .map(drop),
        Step::Remove(name) => client.remove(&path(name), None).await.map(drop),
        Step::Move(from, to) => client.rename(&path(from), &path(to), free).await.map(drop),
        Step::Copy(from, to) => client.copy(&path(from), &path(to), free).await.map(drop),
    }
}

pub fn client(server: &Server) -> Client {
    let mut options = Options::from_directory(&server.address, server.certs(), "dev");
    options.retry_for = Duration::ZERO;
    Client::new(options).unwrap()
}

pub fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let n_kills = count("FSVC_TEST_KILLS", 8);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = Server::start();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let n_acknowledged = || acknowledged.load(Ordering::Relaxed);
    let mut writers: Vec<Writer> = (0..N_WRITERS)
        .map(|number| Writer::new(number, &acknowledged))
        .collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut slowest = Duration::ZERO;
    for _ in 0..n_kills {
        let client = client(&server);
        let tasks: Vec<_> = writers
            .drain(..)
            .map(|mut writer| {
                let client = client.clone();
                runtime.spawn(async move {
                    writer.work(&client).await;
                    writer
                })
            })
            .collect();
        // Now and then even before the first change.
        let is_awaited = random.below(4) > 0;
        let n_before = n_acknowledged();
        let until = Instant::now() + WRITE_LIMIT;
        while is_awaited && n_acknowledged() < n_before + 2 {
            assert!(Instant::now() < until, "the writers do not come to write");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The moment of the kill is the test's input, not a wait for anything.
        std::thread::sleep(Duration::from_millis(10 + random.below(150)));
        server.kill();
        writers = runtime.block_on(async {
            let mut writers = Vec::new();
            for task in tasks {
                writers.push(task.await.unwrap());
            }
            writers
        });
        slowest = slowest.max(server.restart());
        assert_eq!(server.staged(), Vec::<String>::new());
        let client = self::client(&server);
        let root = server.root();
        runtime.block_on(async {
            for writer in &mut writers {
                writer.verify(&client, &root).await;
            }
        });
    }
    let n_acknowledged = n_acknowledged();
    eprintln!(
        "{n_kills} kills, {n_acknowledged} acknowledged, none lost or torn; slowest restart {slowest:?}"
    );
    assert!(
        n_acknowledged > n_kills,
        "the writers did not come to write"
    );
    assert!(slowest < RESTART_MAX, "{slowest:?}");
}
