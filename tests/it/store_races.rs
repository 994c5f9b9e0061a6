//! The store in a directory tree while others change what it works on.
//!
//! `FSVC_TEST_RACES` and `FSVC_TEST_REPLACEMENTS` make these longer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fsvc::path::Prefix;
use fsvc::store::local::LocalStore;
use fsvc::store::{Publication, Published, Store, StoreError};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::store_local::{empty, scratch};
use crate::store_suite::{names, path, place, put, read, seal};

fn count(name: &str, default: usize) -> usize {
    let text = std::env::var(name);
    text.map_or(default, |text| text.parse().unwrap())
}

/// Exchanges two names until told to stop.
fn exchange(first: &Path, second: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        renameat_with(CWD, first, CWD, second, RenameFlags::EXCHANGE).unwrap();
    }
}

/// Runs `work` while the directory `root/d` and a link to `outside` change places.
fn while_swapping<T>(root: &Path, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let stop = &stop;
    thread::scope(|scope| {
        scope.spawn(move || exchange(&root.join("d"), &root.join("link"), stop));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn no_swapped_link_leads_out_of_the_tree() {
    let n_races = count("FSVC_TEST_RACES", 20_000);
    let scratch = scratch();
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    let mut store = LocalStore::open(&root, 0).unwrap();
    let stamp = put(&store, "/d/file", b"inside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "secret").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    // By its stamp this is the file that the store is told to move and to remove.
    let bait = outside.join("only-outside");
    fs::write(&bait, "secret").unwrap();
    let bait = fs::File::options().write(true).open(bait).unwrap();
    bait.set_modified(stamp.modified.into()).unwrap();

    let naive = root.join("d/file");
    let n_escaped = while_swapping(&root, || {
        let read = |_| fs::read(&naive).is_ok_and(|content| content == b"secret");
        (0..n_races).map(read).filter(|escaped| *escaped).count()
    });
    assert!(
        n_escaped > 0,
        "the race was never lost by an opening that follows links"
    );

    let (mut n_opened, mut n_refused, mut n_reopened) = (0, 0, 0);
    while_swapping(&root, || {
        for round in 0..n_races {
            match read(&store, "/d/file") {
                Ok(content) => {
                    assert_eq!(content, b"inside");
                    n_opened += 1;
                }
                Err(StoreError::Confined(_) | StoreError::NotFound) => n_refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            if round % 8 == 0
                && let Err(refused) = change(&store)
            {
                assert!(!matches!(refused, StoreError::OutOfSpace(_)), "{refused:?}");
                drop(store);
                store = LocalStore::open(&root, 0).unwrap();
                n_reopened += 1;
            }
            if let Ok(listed) = store.list(&"/d".parse().unwrap(), None, 9) {
                assert!(!names(&listed).contains(&"only-outside".to_owned()));
            }
            let from = path("/d/only-outside");
            let to = path("/stolen");
            let rename = Publication::Rename {
                from: from.clone(),
                to,
                stamp,
            };
            assert!(!matches!(store.publish(&rename), Ok(Published::Done)));
            let _refused = store.publish(&Publication::Remove { path: from, stamp });
        }
    });
    eprintln!(
        "{n_races} races: {n_escaped} escapes by the naive opening; the store opened {n_opened}, \
         refused {n_refused}, was reopened {n_reopened} times"
    );
    assert!(n_opened > 0 && n_refused > 0);
    let mut left: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["file", "only-outside"]);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"secret");
}

/// Puts a file next to the one that is read, makes a directory there, and removes both.
fn change(store: &dyn Store) -> Result<(), StoreError> {
    for to in ["/d/new", "/d/deep/er/new"] {
        store.prepare(&path(to))?;
        let sealed = seal(store, b"public");
        store.publish(&place(sealed, to))?;
        store.publish(&Publication::Remove {
            path: path(to),
            stamp: sealed.stamp,
        })?;
    }
    store.sync()
}

#[test]
fn no_read_is_torn_by_a_replacement() {
    let n_replacements = count("FSVC_TEST_REPLACEMENTS", 500);
    let (_scratch, store) = empty();
    let version = |n: usize| {
        let byte = u8::try_from(n % 256).unwrap();
        vec![byte; 100_000 + usize::from(byte) * 701]
    };
    put(&store, "/x", &version(0));
    let done = AtomicBool::new(false);
    let n_read = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut n_read = 0;
                    while !done.load(Ordering::Relaxed) {
                        let content = read(&store, "/x").unwrap();
                        let expected = version(usize::from(content[0]));
                        assert!(content == expected, "torn after {n_read} reads");
                        n_read += 1;
                    }
                    n_read
                })
            })
            .collect();
        for n in 1..=n_replacements {
            put(&store, "/x", &version(n));
        }
        done.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum::<usize>()
    });
    eprintln!("{n_read} reads during {n_replacements} replacements");
    assert!(n_read > 0);
}

/// Files come and go in the same directories from several threads: none is lost to the removal of
/// a directory that was empty a moment ago.
#[test]
fn directories_that_come_and_go_lose_no_file() {
    let (_scratch, store) = empty();
    thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..200 {
                    let to = format!("/a/b{}/{thread}", round % 2);
                    let stamp = put(store, &to, to.as_bytes());
                    assert_eq!(read(store, &to).unwrap(), to.as_bytes());
                    let remove = Publication::Remove {
                        path: path(&to),
                        stamp,
                    };
                    store.publish(&remove).unwrap();
                    store.sync().unwrap();
                }
            });
        }
    });
    let listed = store.list(&Prefix::root(), None, 10).unwrap();
    assert!(listed.names.is_empty(), "{listed:?}");
}
