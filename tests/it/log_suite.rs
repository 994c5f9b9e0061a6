//! What every log promises.

use fsvc::log::{Condition, Conflict, Draft, Message, Sequence};

use crate::journal::{Journal, draft, embedded, message, open_at, page, path, put, remove, said};
use crate::memory::Memory;

const N_RACERS: usize = 16;

fn every_promise<J: Journal>(new: impl Fn() -> J) {
    sequences_begin_at_one_and_have_no_gaps(&new());
    conflicts_leave_nothing(&new());
    conditions_see_the_drafts_before_them(&new());
    reading_is_bounded_and_starts_anywhere(&new());
    what_was_appended_is_there_after_reopening(new());
    of_racing_appends_one_wins(&new());
    a_request_makes_one_record(&new());
}

#[test]
fn memory_log_keeps_every_promise() {
    every_promise(Memory::default);
}

#[test]
fn embedded_log_keeps_every_promise() {
    every_promise(embedded);
}

fn once(at: &str) -> Draft {
    draft(vec![put(at)], vec![Condition::Absent(path(at))])
}

fn append_one(journal: &impl Journal, one: Draft) -> Result<Sequence, Conflict> {
    let mut results = journal.append(&[one]);
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn sequences_begin_at_one_and_have_no_gaps(journal: &impl Journal) {
    assert_eq!(journal.log().head().unwrap(), Sequence(0));
    assert_eq!(journal.log().published().unwrap(), Sequence(0));
    let batch = [once("/a"), once("/a"), once("/b")];
    let results = journal.append(&batch);
    assert_eq!(results[0], Ok(Sequence(1)));
    assert!(results[1].is_err());
    assert_eq!(results[2], Ok(Sequence(2)));
    assert_eq!(append_one(journal, once("/c")), Ok(Sequence(3)));
    assert_eq!(journal.log().head().unwrap(), Sequence(3));
    let read = journal.log().read(Sequence(0), page(10)).unwrap();
    let sequences: Vec<u64> = read.iter().map(|record| record.sequence.0).collect();
    assert_eq!(sequences, [1, 2, 3]);
}

fn conflicts_leave_nothing(journal: &impl Journal) {
    append_one(journal, once("/a")).unwrap();
    let refused = journal.log().append(&[once("/a")], Sequence(1)).unwrap();
    let conflict = Conflict::Exists {
        path: path("/a"),
        found: Sequence(1),
    };
    assert_eq!(refused, [Err(conflict)]);
    assert_eq!(journal.log().head().unwrap(), Sequence(1));
    assert_eq!(journal.log().published().unwrap(), Sequence(0));
    assert!(journal.append(&[]).is_empty());
}

fn conditions_see_the_drafts_before_them(journal: &impl Journal) {
    let at = |version| Condition::Version(path("/a"), Sequence(version));
    let overwrite = |version| draft(vec![put("/a")], vec![at(version)]);
    let results = journal.append(&[overwrite(1), once("/a"), overwrite(1), overwrite(1)]);
    let gone = Conflict::Gone {
        path: path("/a"),
        wanted: Sequence(1),
    };
    let changed = Conflict::Changed {
        path: path("/a"),
        found: Sequence(2),
        wanted: Sequence(1),
    };
    let expected = [Err(gone), Ok(Sequence(1)), Ok(Sequence(2)), Err(changed)];
    assert_eq!(results, expected);
}

fn reading_is_bounded_and_starts_anywhere(journal: &impl Journal) {
    let batch: Vec<Draft> = (0..10).map(|n| once(&format!("/f{n}"))).collect();
    journal.append(&batch);
    let read = |from, n_max| journal.log().read(Sequence(from), page(n_max)).unwrap();
    assert_eq!(read(1, 3).len(), 3);
    assert_eq!(read(9, 5).len(), 2);
    assert_eq!(read(4, 1)[0].sequence, Sequence(4));
    assert!(read(11, 5).is_empty());
    assert!(read(1, 0).is_empty());
    assert!(read(u64::MAX, 1).is_empty());
}

fn what_was_appended_is_there_after_reopening<J: Journal>(journal: J) {
    let batch = [once("/a"), once("/b/c")];
    journal.log().append(&batch, Sequence(1)).unwrap();
    let before = journal.log().read(Sequence(1), page(10)).unwrap();
    assert_eq!(before[0], batch[0].clone().into_record(Sequence(1)));
    let journal = journal.reopened();
    assert_eq!(journal.log().read(Sequence(1), page(10)).unwrap(), before);
    assert_eq!(journal.log().published().unwrap(), Sequence(1));
    assert_eq!(append_one(&journal, once("/d")), Ok(Sequence(3)));
}

fn of_racing_appends_one_wins(journal: &impl Journal) {
    for round in 1..=4 {
        let condition = match round {
            1 => Condition::Absent(path("/a")),
            _ => Condition::Version(path("/a"), Sequence(round - 1)),
        };
        let one = draft(vec![put("/a")], vec![condition]);
        let winners = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..N_RACERS)
                .map(|_| scope.spawn(|| append_one(journal, one.clone()).is_ok()))
                .collect();
            let won = racers.into_iter().map(|racer| racer.join().unwrap());
            won.filter(|won| *won).count()
        });
        assert_eq!(winners, 1, "round {round}");
        assert_eq!(journal.log().head().unwrap(), Sequence(round));
    }
}

fn a_request_makes_one_record(journal: &impl Journal) {
    let asked = |id: &str, at: &str| Draft {
        request_id: Some(id.parse().unwrap()),
        ..once(at)
    };
    let by_other = Draft {
        identity: "spiffe://acme.internal/client/other".parse().unwrap(),
        ..asked("1", "/d")
    };
    // A message with the same id, even one whose topic and id look like it.
    let message = said(
        Message {
            dedup_id: Some("1".parse().unwrap()),
            ..message("1", b"x")
        },
        0,
    );
    let duplicate = Err(Conflict::Duplicate {
        sequence: Sequence(1),
    });
    let batch = [
        asked("1", "/a"),
        asked("1", "/a"),
        asked("2", "/a"),
        message,
        by_other,
        // Under an id that was refused before.
        asked("2", "/b"),
        asked("1", "/elsewhere"),
    ];
    let results = journal.append(&batch);
    let exists = Err(Conflict::Exists {
        path: path("/a"),
        found: Sequence(1),
    });
    let expected = [
        Ok(Sequence(1)),
        duplicate.clone(),
        exists,
        Ok(Sequence(2)),
        Ok(Sequence(3)),
        Ok(Sequence(4)),
        duplicate.clone(),
    ];
    assert_eq!(results, expected);
    let gone = draft(vec![remove("/a"), put("/a/b")], vec![]);
    assert_eq!(append_one(journal, gone), Ok(Sequence(5)));
    assert_eq!(append_one(journal, asked("1", "/a")), duplicate);
    let who = once("/a").identity;
    let found = |id: &str| journal.index().request(&who, &id.parse().unwrap()).unwrap();
    assert_eq!(found("1"), Some(Sequence(1)));
    assert_eq!(found("2"), Some(Sequence(4)));
    assert_eq!(found("3"), None);
    let records = journal.log().read(Sequence(1), page(10)).unwrap();
    assert_eq!(records[0].request_id.as_ref().unwrap().as_str(), "1");
    assert_eq!(records[1].request_id, None);
}

#[test]
fn two_servers_cannot_have_one_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    let _first = open_at(&file);
    let error = fsvc::database::Database::open(&file).err().unwrap();
    assert!(error.to_string().contains("is in use"), "{error}");
}

#[test]
fn the_log_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.redb");
    let _open = open_at(&file);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
