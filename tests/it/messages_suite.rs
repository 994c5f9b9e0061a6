//! What every log and index promise about messages: order, topics, deduplication, times.

use fsvc::filter::TopicFilter;
use fsvc::identity::SpiffeId;
use fsvc::index::TopicState;
use fsvc::log::{Conflict, Draft, Message, Page, Sequence};
use fsvc::path::Topic;
use jiff::SignedDuration;

use crate::journal::{Journal, at, attached, draft, embedded, message, page, put, said, say};
use crate::journal::{sequence_of, topic};
use crate::memory::Memory;

fn every_promise<J: Journal>(new: impl Fn() -> J) {
    messages_and_files_are_one_order(new());
    the_same_message_is_taken_once(&new());
    what_makes_it_the_same_is_the_identity_the_topic_and_the_id(&new());
    topics_count_their_messages(&new());
    topics_are_found_by_filter_and_by_page(&new());
    what_came_after_is_counted(&new());
    replies_are_in_no_topic(&new());
    a_time_leads_to_the_first_that_is_young_enough(&new());
    a_page_ends_with_its_bytes_and_holds_one_at_least(&new());
    it_is_known_which_files_were_replaced(new());
}

#[test]
fn memory_keeps_every_promise() {
    every_promise(Memory::default);
}

#[test]
fn embedded_keeps_every_promise() {
    every_promise(embedded);
}

fn append(journal: &impl Journal, one: Draft) -> Result<Sequence, Conflict> {
    journal.append(&[one]).remove(0)
}

fn filter(text: &str) -> TopicFilter {
    text.parse().unwrap()
}

fn under_id(to: &str, id: &str) -> Message {
    Message {
        dedup_id: Some(id.parse().unwrap()),
        ..message(to, b"x")
    }
}

fn names(found: Vec<(Topic, TopicState)>) -> Vec<String> {
    let names = found.into_iter().map(|(topic, _)| topic.to_string());
    names.collect()
}

fn messages_and_files_are_one_order<J: Journal>(journal: J) {
    let large = Message {
        payload: attached(7, 100_000),
        reply_wanted: true,
        ..message("a", b"")
    };
    let batch = [
        draft(vec![put("/a")], vec![]),
        say("a", b"\x00\xff{}"),
        say("a", b""),
        draft(vec![put("/b"), put("/c")], vec![]),
        said(large, 3),
    ];
    journal.append(&batch);
    let expected = |records: &[fsvc::log::Record]| {
        let pairs = records.iter().zip(batch.iter());
        for ((record, draft), number) in pairs.zip(1..) {
            assert_eq!(*record, draft.clone().into_record(Sequence(number)));
        }
        assert_eq!(records.len(), batch.len());
    };
    expected(&journal.log().read(Sequence(1), page(10)).unwrap());
    let journal = journal.reopened();
    expected(&journal.log().read(Sequence(1), page(10)).unwrap());
    assert_eq!(append(&journal, say("a", b"more")), Ok(Sequence(6)));
}

fn the_same_message_is_taken_once(journal: &impl Journal) {
    let duplicate = |sequence| {
        Err(Conflict::Duplicate {
            sequence: Sequence(sequence),
        })
    };
    let one = || said(under_id("a", "1"), 0);
    let results = journal.append(&[one(), one(), said(under_id("a", "2"), 0), one()]);
    let expected = [Ok(Sequence(1)), duplicate(1), Ok(Sequence(2)), duplicate(1)];
    assert_eq!(results, expected);
    assert_eq!(append(journal, one()), duplicate(1));
    assert_eq!(append(journal, said(under_id("a", "2"), 9)), duplicate(2));
    assert_eq!(journal.log().head().unwrap(), Sequence(2));
    let state = journal.index().topic(&topic("a")).unwrap().unwrap();
    assert_eq!((state.n_messages, state.last), (2, Sequence(2)));
}

fn what_makes_it_the_same_is_the_identity_the_topic_and_the_id(journal: &impl Journal) {
    let other: SpiffeId = "spiffe://acme.internal/client/other".parse().unwrap();
    let first = said(under_id("a", "1"), 0);
    let by_other = Draft {
        identity: other,
        ..first.clone()
    };
    // The id looks like the end of a longer topic, and the other way round.
    let longer = said(under_id("a/b", "1"), 0);
    let batch = [first, by_other, longer, said(under_id("a", "b 1"), 0)];
    let plain = say("a", b"x");
    let all: Vec<Draft> = batch
        .iter()
        .cloned()
        .chain([plain.clone(), plain])
        .collect();
    let expected: Vec<_> = (1..=6).map(|n| Ok(Sequence(n))).collect();
    assert_eq!(journal.append(&all), expected);
    let again = journal.append(&batch);
    assert!(again.iter().all(Result::is_err), "{again:?}");
}

fn topics_count_their_messages(journal: &impl Journal) {
    assert_eq!(journal.index().topic(&topic("a")).unwrap(), None);
    let large = Message {
        payload: attached(1, 70_000),
        ..message("a", b"")
    };
    journal.append(&[
        say("a", b"12345"),
        draft(vec![put("/a")], vec![]),
        say("a/b", b""),
        said(large, 0),
    ]);
    let state = |name: &str| journal.index().topic(&topic(name)).unwrap();
    let expected = |n_messages, size, last| {
        Some(TopicState {
            n_messages,
            size,
            last: Sequence(last),
            lost_to: Sequence(0),
        })
    };
    assert_eq!(state("a"), expected(2, 70_005, 4));
    assert_eq!(state("a/b"), expected(1, 0, 3));
    assert_eq!(state("b"), None);
    let totals = journal.index().totals().unwrap();
    let counts = (totals.n_files, totals.n_topics, totals.n_messages);
    assert_eq!((counts, totals.messages_size), ((1, 2, 3), 70_005));
    let lost = [
        totals.files_lost_to,
        totals.messages_lost_to,
        totals.topics_lost_to,
    ];
    assert_eq!(lost, [Sequence(0); 3]);
}

fn topics_are_found_by_filter_and_by_page(journal: &impl Journal) {
    let all = ["a", "a-x", "a/b", "a/b/c", "a/c", "ab", "b/b", "b"];
    let drafts: Vec<Draft> = all.iter().map(|name| say(name, b"x")).collect();
    journal.append(&drafts);
    let found = |text: &str, after: Option<&str>, n_max| {
        let after = after.map(topic);
        names(
            journal
                .index()
                .topics(&filter(text), after.as_ref(), n_max)
                .unwrap(),
        )
    };
    let every = ["a", "a-x", "a/b", "a/b/c", "a/c", "ab", "b", "b/b"];
    assert_eq!(found("**", None, 100), every);
    assert_eq!(found("a", None, 100), ["a"]);
    assert_eq!(found("a/*", None, 100), ["a/b", "a/c"]);
    assert_eq!(found("a/**", None, 100), ["a/b", "a/b/c", "a/c"]);
    assert_eq!(found("*/b", None, 100), ["a/b", "b/b"]);
    assert_eq!(found("*", None, 100), ["a", "a-x", "ab", "b"]);
    assert_eq!(found("none/**", None, 100), [""; 0]);
    assert_eq!(found("**", None, 0), [""; 0]);
    assert_eq!(found("a/**", Some("a"), 1), ["a/b"]);
    assert_eq!(found("a/**", Some("a/b/c"), 9), ["a/c"]);
    assert_eq!(found("a/**", Some("b"), 9), [""; 0]);
    for n_max in 1..=every.len() {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = found("**", seen.last().map(String::as_str), n_max);
            assert!(page.len() <= n_max);
            let Some(_) = page.last() else { break };
            seen.extend(page);
        }
        assert_eq!(seen, every);
    }
}

fn what_came_after_is_counted(journal: &impl Journal) {
    let batch = [
        say("a", b"1"),
        say("b", b"2"),
        say("a", b"3"),
        draft(vec![put("/a")], vec![]),
        say("a", b"5"),
    ];
    journal.append(&batch);
    let after = |name: &str, position| {
        let index = journal.index();
        index.n_after(&topic(name), Sequence(position)).unwrap()
    };
    let counts = [0, 1, 2, 3, 4, 5, u64::MAX].map(|position| after("a", position));
    assert_eq!(counts, [3, 2, 2, 1, 1, 0, 0]);
    assert_eq!((after("b", 1), after("b", 2), after("c", 0)), (1, 0, 0));
}

fn replies_are_in_no_topic(journal: &impl Journal) {
    let reply = Message {
        reply_to: Some(Sequence(1)),
        ..message("a", b"yes")
    };
    journal.append(&[say("a", b"?"), said(reply.clone(), 0), said(reply, 0)]);
    let state = journal.index().topic(&topic("a")).unwrap().unwrap();
    assert_eq!((state.n_messages, state.last), (1, Sequence(1)));
    let found = journal.index().topics(&filter("**"), None, 10).unwrap();
    assert_eq!(names(found), ["a"]);
    let index = journal.index();
    assert_eq!(index.n_after(&topic("a"), Sequence(0)).unwrap(), 1);
    let totals = index.totals().unwrap();
    assert_eq!((totals.n_topics, totals.n_messages), (1, 3));
    let read = journal.log().read(Sequence(2), page(1)).unwrap();
    let message = read[0].matter.message().unwrap();
    assert_eq!(message.reply_to, Some(Sequence(1)));
}

/// The clock is set back between records, more than once.
fn a_time_leads_to_the_first_that_is_young_enough(journal: &impl Journal) {
    assert_eq!(journal.log().since(at(0)).unwrap(), Sequence(1));
    let times = [10, 20, 5, 6, 30, 1, 29, 31, 2, 40];
    let drafts: Vec<Draft> = times
        .iter()
        .map(|time| said(message("a", b""), *time))
        .collect();
    journal.append(&drafts);
    let since = |time| journal.log().since(time).unwrap().0;
    for time in 0..=41 {
        let first = times.iter().position(|record| *record >= time);
        let expected = first.map_or(times.len(), |index| index) as u64 + 1;
        assert_eq!(since(at(time)), expected, "at {time}");
    }
    // A part of a millisecond never makes a record too old.
    let hair = SignedDuration::from_nanos(1);
    assert_eq!(since(at(30) - hair), 5);
    assert!(since(at(30) + hair) <= 8);
    assert_eq!(since(at(-5)), 1);
}

fn a_page_ends_with_its_bytes_and_holds_one_at_least(journal: &impl Journal) {
    let drafts: Vec<Draft> = (0..8).map(|n| say("a", &vec![n; 10_000])).collect();
    journal.append(&drafts);
    let read = |n_max, size_max| {
        let page = Page { n_max, size_max };
        let records = journal.log().read(Sequence(2), page).unwrap();
        assert!(records.first().is_none_or(|r| r.sequence == Sequence(2)));
        records.len()
    };
    assert_eq!(read(100, 0), 1);
    assert_eq!(read(100, 9_999), 1);
    assert_eq!(read(100, 20_000), 1);
    assert_eq!(read(100, 35_000), 3);
    assert_eq!(read(2, 35_000), 2);
    assert_eq!(read(100, usize::MAX), 7);
    assert_eq!(read(0, usize::MAX), 0);
}

fn it_is_known_which_files_were_replaced<J: Journal>(journal: J) {
    use crate::journal::{remove, rename};
    let batch = [
        draft(vec![put("/a"), put("/b")], vec![]),
        draft(vec![put("/c"), put("/a"), remove("/b"), put("/b")], vec![]),
        draft(vec![put("/d"), put("/d"), rename("/d", "/a")], vec![]),
        draft(vec![rename("/a", "/e")], vec![]),
    ];
    let results = journal.log().append(&batch, Sequence(0)).unwrap();
    let expected = [vec![], vec![1], vec![1, 2], vec![]];
    for (result, replaced) in results.iter().zip(&expected) {
        assert_eq!(result.as_ref().unwrap().replaced, *replaced);
    }
    let sequences: Vec<_> = results.into_iter().map(sequence_of).collect();
    assert_eq!(sequences, [1, 2, 3, 4].map(|n| Ok(Sequence(n))));
    let journal = journal.reopened();
    let read = journal.log().read(Sequence(1), page(10)).unwrap();
    let replaced: Vec<_> = read.into_iter().map(|record| record.replaced).collect();
    assert_eq!(replaced, expected);
}
