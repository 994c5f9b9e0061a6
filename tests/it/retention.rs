//! What is let go of, and that nothing is missed by it: against a reference that looks at every
//! record, at random.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fsvc::content::ContentId;
use fsvc::index::fold::apply;
use fsvc::index::{Indexed, TOPICS_MAX};
use fsvc::label::DedupId;
use fsvc::log::{Change, Conflict, Draft, Keep, Matter, Message, Record, Retention, Sequence};
use fsvc::path::{Prefix, RemotePath, Topic};
use proptest::prelude::*;

use crate::journal::{Embedded, Journal, at, attached, draft, embedded_keeping, entry, message};
use crate::journal::{page, path, put, remove, rename, said, stamp, sure, topic};
use crate::memory::Memory;

/// Files for 100 seconds; topic `short` for 50, and all but the newest within 30 bytes.
pub(crate) fn keep() -> Keep {
    let messages = |topic: &Topic| {
        let (age, size) = match topic.as_str() {
            "short" => (50, 30),
            _ => (300, 1000),
        };
        Retention {
            age: Duration::from_secs(age),
            size,
        }
    };
    Keep {
        history: Duration::from_secs(100),
        messages: Box::new(messages),
    }
}

fn journal() -> Embedded {
    embedded_keeping(keep)
}

/// Lets go of everything that has outlived its time, `n_max` records at a time.
fn expire(journal: &impl Journal, seconds: i64, n_max: usize) -> usize {
    let mut n_removed = 0;
    loop {
        match journal.log().expire(at(seconds), n_max).unwrap() {
            0 => return n_removed,
            n => n_removed += n,
        }
    }
}

/// What is in the log so far stands in the tree.
fn publish_all(journal: &impl Journal) {
    let head = journal.log().head().unwrap();
    journal.log().append(&[], head).unwrap();
}

fn kept(journal: &impl Journal) -> Vec<Record> {
    journal.log().read(Sequence(1), page(usize::MAX)).unwrap()
}

fn sequences(journal: &impl Journal) -> Vec<u64> {
    kept(journal).iter().map(|r| r.sequence.0).collect()
}

fn filed(seconds: i64, changes: Vec<Change>) -> Draft {
    Draft {
        time: at(seconds),
        ..draft(changes, vec![])
    }
}

fn put_of(seed: u8, to: &str) -> Change {
    let (path, entry) = (path(to), entry(seed));
    Change::Put { path, entry }
}

/// The index as it comes out of what is kept.
fn folded(journal: &impl Journal) -> BTreeMap<RemotePath, Indexed> {
    let mut entries = BTreeMap::new();
    for record in kept(journal) {
        sure(apply(&record, &mut entries));
    }
    entries
}

fn indexed(journal: &impl Journal) -> BTreeMap<RemotePath, Indexed> {
    let all = journal.index().range(&Prefix::root(), None, usize::MAX);
    all.unwrap().into_iter().collect()
}

#[test]
fn a_file_that_is_there_is_never_forgotten() {
    let journal = journal();
    journal.append(&[
        filed(0, vec![put("/a")]),
        filed(1, vec![put("/b")]),
        filed(2, vec![put("/a")]),
        filed(3, vec![rename("/b", "/c")]),
        filed(4, vec![remove("/a")]),
    ]);
    publish_all(&journal);
    assert_eq!(expire(&journal, 99, 10), 0);
    assert_eq!(expire(&journal, 1_000_000, 10), 4);
    assert_eq!(sequences(&journal), [4]);
    assert_eq!(folded(&journal), indexed(&journal));
    let totals = journal.index().totals().unwrap();
    assert_eq!(totals.files_lost_to, Sequence(5));
    let stats = journal.log().stats().unwrap();
    assert_eq!((stats.first, stats.n_records), (Sequence(4), 1));
    assert_eq!(journal.log().head().unwrap(), Sequence(5));
}

#[test]
fn a_set_is_trimmed_to_what_is_still_so() {
    let journal = journal();
    journal.append(&[
        filed(0, vec![put_of(9, "/x")]),
        filed(
            1,
            vec![
                put_of(1, "/a"),
                put_of(2, "/x"),
                put_of(3, "/b"),
                remove("/x"),
            ],
        ),
        filed(2, vec![put_of(4, "/a")]),
    ]);
    publish_all(&journal);
    expire(&journal, 1000, 1);
    assert_eq!(sequences(&journal), [2, 3]);
    let set = &kept(&journal)[0];
    assert_eq!(set.matter, Matter::Files(vec![put_of(3, "/b")]));
    assert_eq!(set.replaced, [0; 0]);
    assert_eq!((set.n_forgotten, set.n_changes()), (3, 4));
    journal.append(&[filed(5, vec![put_of(5, "/b")])]);
    publish_all(&journal);
    expire(&journal, 1000, 1);
    assert_eq!(sequences(&journal), [3, 4]);
    assert_eq!(folded(&journal), indexed(&journal));
}

#[test]
fn what_a_change_undid_never_outlives_it() {
    let journal = journal();
    // The clock was set back after the first record: it is the younger one.
    journal.append(&[filed(500, vec![put("/a")]), filed(0, vec![remove("/a")])]);
    publish_all(&journal);
    assert_eq!(expire(&journal, 550, 10), 0);
    assert_eq!(folded(&journal), indexed(&journal));
    assert_eq!(expire(&journal, 600, 10), 2);
    assert_eq!(sequences(&journal), [0; 0]);
}

#[test]
fn what_is_not_published_is_kept() {
    let journal = journal();
    let batch = [
        filed(0, vec![put("/a")]),
        filed(0, vec![remove("/a")]),
        said(message("short", b"x"), 0),
    ];
    journal.log().append(&batch, Sequence(0)).unwrap();
    assert_eq!(expire(&journal, 1_000_000, 10), 0);
    // Nor does it make room for what is new.
    journal.append(&[said(message("short", &[0; 40]), 0)]);
    assert_eq!(sequences(&journal), [1, 2, 3, 4]);
    journal.log().append(&[], Sequence(1)).unwrap();
    assert_eq!(expire(&journal, 1_000_000, 10), 1);
    publish_all(&journal);
    assert_eq!(expire(&journal, 1_000_000, 10), 3);
}

#[test]
fn a_topic_keeps_its_newest_message_until_that_is_too_old() {
    let journal = journal();
    let draft = |seconds| said(message("short", &[b'x'; 40]), seconds);
    journal.append(&[draft(0), draft(1)]);
    publish_all(&journal);
    let results = journal.log().append(&[draft(2)], Sequence(2)).unwrap();
    assert!(results[0].is_ok());
    publish_all(&journal);
    assert_eq!(sequences(&journal), [3]);
    assert_eq!(expire(&journal, 52, 10), 0);
    assert_eq!(expire(&journal, 53, 10), 1);
    let state = journal.index().topic(&topic("short")).unwrap().unwrap();
    assert_eq!((state.n_messages, state.size), (0, 0));
    assert_eq!((state.last, state.lost_to), (Sequence(3), Sequence(3)));
    assert_eq!(journal.index().totals().unwrap().n_topics, 0);
    assert_eq!(journal.append(&[draft(60)]), [Ok(Sequence(4))]);
    assert_eq!(journal.index().totals().unwrap().n_topics, 1);
}

#[test]
fn a_message_that_is_gone_can_be_sent_again() {
    let journal = journal();
    let once = |seconds| {
        let message = Message {
            dedup_id: Some("1".parse().unwrap()),
            ..message("short", b"x")
        };
        said(message, seconds)
    };
    assert_eq!(journal.append(&[once(0)]), [Ok(Sequence(1))]);
    assert!(journal.append(&[once(0)])[0].is_err());
    publish_all(&journal);
    assert_eq!(expire(&journal, 1000, 10), 1);
    assert_eq!(journal.append(&[once(1000)]), [Ok(Sequence(2))]);
}

#[test]
fn contents_of_messages_that_are_gone_are_named_until_they_are_forgotten() {
    let journal = journal();
    let large = |seed: u8| {
        let message = Message {
            payload: attached(seed, 10),
            ..message("short", b"")
        };
        said(message, 0)
    };
    journal.append(&[large(1), large(2), large(3)]);
    publish_all(&journal);
    assert_eq!(journal.log().detached(10).unwrap(), []);
    expire(&journal, 1000, 10);
    let journal = journal.reopened();
    let ids = [1, 2, 3].map(|seed| ContentId::from_random([seed; 16]));
    assert_eq!(journal.log().detached(10).unwrap(), ids);
    assert_eq!(journal.log().detached(2).unwrap(), ids[..2]);
    journal.log().forget_detached(&ids[..2]).unwrap();
    journal.log().forget_detached(&ids[..2]).unwrap();
    assert_eq!(journal.log().detached(10).unwrap(), ids[2..]);
}

#[test]
fn a_time_is_found_among_what_is_left() {
    let journal = journal();
    let draft = |to: &str, seconds| said(message(to, b"x"), seconds);
    journal.append(&[
        draft("short", 10),
        draft("long", 20),
        draft("short", 90),
        draft("long", 30),
        draft("short", 40),
        draft("long", 95),
    ]);
    publish_all(&journal);
    expire(&journal, 145, 10);
    // The clock was at 90 when it was set back.
    assert_eq!(sequences(&journal), [2, 4, 6]);
    for time in 0..=100 {
        let since = journal.log().since(at(time)).unwrap();
        let kept = kept(&journal);
        let mut young = kept.iter().filter(|record| record.time >= at(time));
        assert!(young.all(|record| record.sequence >= since), "at {time}");
    }
    assert_eq!(journal.log().since(at(91)).unwrap(), Sequence(5));
    assert_eq!(journal.log().since(at(96)).unwrap(), Sequence(7));
}

#[test]
fn as_many_topics_as_fit_are_known_and_empty_ones_make_room() {
    let journal = journal();
    let name = |n: u64| {
        if n == 0 {
            "short".to_owned()
        } else {
            format!("t/{n}")
        }
    };
    let batch: Vec<Draft> = (0..TOPICS_MAX)
        .map(|n| said(message(&name(n), b""), 0))
        .collect();
    assert!(journal.append(&batch).iter().all(Result::is_ok));
    let more = || said(message("more", b""), 100);
    let refused = Conflict::TooManyTopics {
        topic: topic("more"),
        n_max: TOPICS_MAX,
    };
    assert_eq!(journal.append(&[more()]), [Err(refused)]);
    assert!(journal.append(&[said(message("t/5", b""), 100)])[0].is_ok());
    publish_all(&journal);
    // Topic `short` is empty now: its name is given up, and what was in it is known to be lost.
    assert_eq!(expire(&journal, 100, 10), 1);
    let head = journal.log().head().unwrap();
    assert_eq!(journal.append(&[more()]), [Ok(head.next())]);
    assert_eq!(journal.index().topic(&topic("short")).unwrap(), None);
    let totals = journal.index().totals().unwrap();
    assert_eq!(
        (totals.topics_lost_to, totals.n_topics),
        (Sequence(1), TOPICS_MAX)
    );
    let short = said(message("short", b""), 100);
    assert!(journal.append(&[short])[0].is_err());
}

/// What is done to both.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Draft>),
    Published(u64),
    /// After so many seconds more.
    Expire(i64, usize),
    Detach,
}

fn any_path() -> impl Strategy<Value = RemotePath> {
    proptest::collection::vec("[ab]", 1..3)
        .prop_map(|segments| path(&format!("/{}", segments.join("/"))))
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any_path(), any::<u8>())
            .prop_map(|(path, seed)| Change::Put { path, entry: entry(seed) }),
        1 => (any_path(), any::<u8>())
            .prop_map(|(path, seed)| Change::Found { path, entry: entry(seed) }),
        2 => any_path().prop_map(|path| Change::Remove { path, stamp: stamp() }),
        2 => (any_path(), any_path(), any::<u8>())
            .prop_map(|(from, to, seed)| Change::Move { from, to, entry: entry(seed) }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let payload = prop_oneof![
        3 => (0..25_usize).prop_map(|size| message("short", &vec![0; size]).payload),
        1 => (any::<u8>(), 0..500_u64).prop_map(|(seed, size)| attached(seed, size)),
    ];
    let id = proptest::option::of(0..3_u8);
    let to = prop_oneof![Just("short"), Just("short"), Just("long"), Just("long/er")];
    (to, payload, id, proptest::bool::weighted(0.1)).prop_map(|(to, payload, id, is_reply)| {
        Message {
            payload,
            dedup_id: id.map(|id| id.to_string().parse().unwrap()),
            reply_to: is_reply.then_some(Sequence(1)),
            ..message(to, b"")
        }
    })
}

/// Ids of requests, few enough to come again.
const N_REQUEST_IDS: u8 = 12;

fn request_id(n: u8) -> DedupId {
    format!("request {n}").parse().unwrap()
}

/// Which record each request made, as the index says it and as it comes out of what is kept.
fn requests(journal: &impl Journal) -> [Vec<Option<Sequence>>; 2] {
    let who = draft(vec![], vec![]).identity;
    let ids = (0..N_REQUEST_IDS).map(request_id);
    let known = ids
        .clone()
        .map(|id| journal.index().request(&who, &id).unwrap());
    let records = kept(journal);
    let made = ids.map(|id| {
        let is_it = |record: &&Record| {
            record.matter.message().is_none() && record.request_id.as_ref() == Some(&id)
        };
        records.iter().find(is_it).map(|record| record.sequence)
    });
    [known.collect(), made.collect()]
}

/// At most so many seconds before the latest time, as by a clock that was set back.
fn any_draft() -> impl Strategy<Value = Draft> {
    let back = prop_oneof![3 => Just(0), 1 => 0..60_i64];
    let matter = prop_oneof![
        proptest::collection::vec(any_change(), 1..4).prop_map(Matter::Files),
        any_message().prop_map(Matter::Message),
    ];
    let id = proptest::option::of(0..N_REQUEST_IDS);
    (matter, back, id).prop_map(|(matter, back, id)| Draft {
        time: at(-back),
        matter,
        request_id: id.map(request_id),
        ..draft(vec![], vec![])
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(any_draft(), 1..6).prop_map(Step::Append),
        2 => (0..=4_u64).prop_map(Step::Published),
        3 => (0..150_i64, 1..6_usize).prop_map(|(passed, n_max)| Step::Expire(passed, n_max)),
        1 => Just(Step::Detach),
    ]
}

/// Both journals, and the time.
struct Both {
    disk: Embedded,
    memory: Memory,
    now: i64,
    /// Messages that were ever there, by topic.
    said: BTreeMap<Topic, BTreeSet<u64>>,
}

impl Both {
    fn take(&mut self, step: &Step) {
        let logs = [self.disk.log(), self.memory.log()];
        let head = logs[0].head().unwrap();
        match step {
            Step::Append(drafts) => {
                let mut drafts = drafts.clone();
                for draft in &mut drafts {
                    draft.time = at(self.now) + draft.time.duration_since(at(0));
                }
                let published = logs[0].published().unwrap();
                let [results, expected] = logs.map(|log| log.append(&drafts, published).unwrap());
                assert_eq!(results, expected);
                for record in results.iter().flatten() {
                    if let Some(message) = record.matter.message()
                        && message.reply_to.is_none()
                    {
                        let said = self.said.entry(message.topic.clone()).or_default();
                        said.insert(record.sequence.0);
                    }
                }
            }
            Step::Published(behind) => {
                let published = Sequence(head.0.saturating_sub(*behind));
                let published = published.max(logs[0].published().unwrap());
                for log in logs {
                    log.append(&[], published).unwrap();
                }
            }
            Step::Expire(passed, n_max) => {
                self.now += passed;
                let n_removed = expire(&self.disk, self.now, *n_max);
                assert_eq!(n_removed, expire(&self.memory, self.now, *n_max));
            }
            Step::Detach => {
                let [gone, expected] = logs.map(|log| log.detached(3).unwrap());
                assert_eq!(gone, expected);
                for log in logs {
                    log.forget_detached(&gone).unwrap();
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let (disk, memory) = (&self.disk, &self.memory);
        assert_eq!(kept(disk), kept(memory));
        assert_eq!(indexed(disk), indexed(memory));
        assert_eq!(folded(disk), indexed(disk), "folded anew it is another one");
        let [known, made] = requests(disk);
        assert_eq!(
            known, made,
            "requests are known for as long as their record is"
        );
        assert_eq!(known, requests(memory)[0]);
        let (totals, expected) = (disk.index().totals(), memory.index().totals());
        assert_eq!(totals.unwrap(), expected.unwrap());
        let every = "**".parse().unwrap();
        let topics = disk.index().topics(&every, None, usize::MAX).unwrap();
        let expected = memory.index().topics(&every, None, usize::MAX).unwrap();
        assert_eq!(topics, expected);
        assert_eq!(
            disk.log().detached(usize::MAX).unwrap(),
            memory.log().detached(usize::MAX).unwrap()
        );
        let kept: BTreeSet<u64> = sequences(disk).into_iter().collect();
        for (topic, state) in topics {
            let said = &self.said[&topic];
            for gone in said.iter().filter(|sequence| !kept.contains(*sequence)) {
                assert!(state.lost_to.0 >= *gone, "{topic}: {gone} is lost silently");
            }
            for position in [0, state.lost_to.0, state.last.0] {
                let position = Sequence(position);
                let (n, expected) = (
                    disk.index().n_after(&topic, position),
                    memory.index().n_after(&topic, position),
                );
                assert_eq!(n.unwrap(), expected.unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(32),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_kept_is_what_the_reference_keeps(
        steps in proptest::collection::vec(any_step(), 1..25),
    ) {
        let mut both = Both {
            disk: journal(),
            memory: Memory::keeping(keep),
            now: 1_000,
            said: BTreeMap::new(),
        };
        for step in &steps {
            both.take(step);
        }
        let head = both.disk.log().head().unwrap().0;
        both.take(&Step::Published(0));
        both.take(&Step::Expire(1_000_000, 3));
        let disk = both.disk.reopened();
        prop_assert_eq!(folded(&disk), indexed(&disk));
        let [known, made] = requests(&disk);
        prop_assert_eq!(known, made);
        prop_assert_eq!(disk.log().head().unwrap().0, head);
    }
}
