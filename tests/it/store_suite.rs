//! What every store must do, whatever it keeps its content in.
//!
//! Each case gets an empty store and knows nothing but the trait.

use std::collections::HashSet;

use fsvc::content::{ContentId, Stamp};
use fsvc::path::{Prefix, RemotePath};
use fsvc::store::{Content, Name, Names, Publication, Published, Sealed, Store, StoreError};

/// One thing that a store must do.
pub(crate) type Case = fn(&dyn Store);

/// Every case, by name.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("content_comes_back", content_comes_back),
    (
        "staged_content_is_not_visible",
        staged_content_is_not_visible,
    ),
    (
        "an_unfinished_upload_leaves_nothing",
        an_unfinished_upload_leaves_nothing,
    ),
    ("a_sweep_spares_what_is_kept", a_sweep_spares_what_is_kept),
    ("every_stamp_is_new", every_stamp_is_new),
    (
        "an_open_file_stays_what_it_was",
        an_open_file_stays_what_it_was,
    ),
    ("placing_can_be_done_twice", placing_can_be_done_twice),
    ("renaming_can_be_done_twice", renaming_can_be_done_twice),
    ("removing_can_be_done_twice", removing_can_be_done_twice),
    (
        "a_file_with_another_stamp_is_left_alone",
        a_file_with_another_stamp_is_left_alone,
    ),
    ("taken_names_are_refused", taken_names_are_refused),
    (
        "what_a_refused_put_made_blocks_no_name",
        what_a_refused_put_made_blocks_no_name,
    ),
    (
        "what_was_prepared_in_vain_goes",
        what_was_prepared_in_vain_goes,
    ),
    ("empty_directories_go", empty_directories_go),
    ("missing_names_are_not_found", missing_names_are_not_found),
    (
        "pages_add_up_to_the_directory",
        pages_add_up_to_the_directory,
    ),
    ("attaching_can_be_done_twice", attaching_can_be_done_twice),
    (
        "what_is_attached_is_in_no_tree",
        what_is_attached_is_in_no_tree,
    ),
    ("detaching_can_be_done_twice", detaching_can_be_done_twice),
    (
        "what_is_nowhere_cannot_be_attached",
        what_is_nowhere_cannot_be_attached,
    ),
    (
        "an_open_attachment_stays_what_it_was",
        an_open_attachment_stays_what_it_was,
    ),
    ("parts_come_in_any_order", parts_come_in_any_order),
    ("parts_that_are_not_there", parts_that_are_not_there),
    ("notes_come_back", notes_come_back),
    (
        "a_sweep_spares_the_notes_of_what_is_kept",
        a_sweep_spares_the_notes_of_what_is_kept,
    ),
];

/// A checked name.
#[track_caller]
pub(crate) fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

/// A sealed content.
#[track_caller]
pub(crate) fn seal(store: &dyn Store, content: &[u8]) -> Sealed {
    let mut upload = store.begin(Some(content.len() as u64)).unwrap();
    content
        .chunks(64 << 10)
        .for_each(|piece| upload.write(piece).unwrap());
    upload.seal().unwrap()
}

/// The step that makes `sealed` the file at `to`.
pub(crate) fn place(sealed: Sealed, to: &str) -> Publication {
    Publication::Place {
        content: sealed.content,
        stamp: sealed.stamp,
        path: path(to),
    }
}

/// Makes `content` the file at `to`, durably.
#[track_caller]
pub(crate) fn put(store: &dyn Store, to: &str, content: &[u8]) -> Stamp {
    store.prepare(&path(to)).unwrap();
    let sealed = seal(store, content);
    assert_eq!(store.publish(&place(sealed, to)).unwrap(), Published::Done);
    store.sync().unwrap();
    sealed.stamp
}

/// All of a file, in pieces as the server reads them.
pub(crate) fn read(store: &dyn Store, from: &str) -> Result<Vec<u8>, StoreError> {
    read_all(&*store.open(&path(from))?)
}

/// All of an attached content.
pub(crate) fn read_attached(store: &dyn Store, id: ContentId) -> Result<Vec<u8>, StoreError> {
    read_all(&*store.open_attached(id)?)
}

fn read_all(content: &dyn Content) -> Result<Vec<u8>, StoreError> {
    let mut whole = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let n = content.read_at(&mut piece, whole.len() as u64).unwrap();
        if n == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(&piece[..n]);
    }
}

/// The names of a directory, those of directories with a slash.
#[track_caller]
pub(crate) fn names(listed: &Names) -> Vec<String> {
    let text = |name: &Name| match name {
        Name::File { name, .. } => name.clone(),
        Name::Directory { name } => format!("{name}/"),
    };
    listed.names.iter().map(text).collect()
}

#[track_caller]
fn check_names(store: &dyn Store, directory: &str, expected: &[&str]) {
    let listed = store.list(&directory.parse().unwrap(), None, 100).unwrap();
    assert_eq!(names(&listed), expected, "{directory}");
    assert!(!listed.more);
}

#[track_caller]
fn check_done(store: &dyn Store, step: &Publication, expected: Published) {
    assert_eq!(store.publish(step).unwrap(), expected, "{step:?}");
    store.sync().unwrap();
}

fn content_comes_back(store: &dyn Store) {
    for size in [0, 1, 65_535, 65_536, 65_537, 3 << 20] {
        let content: Vec<u8> = (0..=250).cycle().take(size).collect();
        let to = format!("/a/b/{size}");
        let stamp = put(store, &to, &content);
        assert_eq!(stamp.size, content.len() as u64);
        assert_eq!(store.stat(&path(&to)).unwrap(), stamp);
        assert_eq!(store.open(&path(&to)).unwrap().stamp(), stamp);
        assert!(read(store, &to).unwrap() == content, "{size} bytes differ");
    }
}

fn staged_content_is_not_visible(store: &dyn Store) {
    let mut upload = store.begin(None).unwrap();
    upload.write(b"one").unwrap();
    check_names(store, "/", &[]);
    let sealed = upload.seal().unwrap();
    check_names(store, "/", &[]);
    check_done(store, &place(sealed, "/x"), Published::Done);
    check_names(store, "/", &["x"]);
}

fn an_unfinished_upload_leaves_nothing(store: &dyn Store) {
    let mut upload = store.begin(Some(10)).unwrap();
    upload.write(b"half").unwrap();
    drop(upload);
    assert_eq!(store.sweep(&HashSet::new()).unwrap(), 0);
}

fn a_sweep_spares_what_is_kept(store: &dyn Store) {
    let [kept, swept, discarded] = [b"1", b"2", b"3"].map(|content| seal(store, content));
    store.discard(discarded.content);
    assert_eq!(store.sweep(&HashSet::from([kept.content])).unwrap(), 1);
    check_done(store, &place(kept, "/kept"), Published::Done);
    check_done(store, &place(swept, "/swept"), Published::Missing);
    check_names(store, "/", &["kept"]);
}

fn every_stamp_is_new(store: &dyn Store) {
    let stamps: HashSet<_> = (0..1000)
        .map(|_| {
            let sealed = seal(store, b"same");
            store.discard(sealed.content);
            sealed.stamp.modified
        })
        .collect();
    assert_eq!(stamps.len(), 1000);
}

fn an_open_file_stays_what_it_was(store: &dyn Store) {
    let stamp = put(store, "/x", b"old");
    let old = store.open(&path("/x")).unwrap();
    put(store, "/x", b"newer");
    let mut buffer = [0; 8];
    assert_eq!(old.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer[..3], b"old");
    assert_eq!(old.stamp(), stamp);
    assert_eq!(read(store, "/x").unwrap(), b"newer");
}

fn placing_can_be_done_twice(store: &dyn Store) {
    let first = seal(store, b"first");
    let second = seal(store, b"second");
    for _ in 0..2 {
        check_done(store, &place(first, "/d/x"), Published::Done);
        assert_eq!(read(store, "/d/x").unwrap(), b"first");
    }
    check_done(store, &place(second, "/d/x"), Published::Done);
    check_done(store, &place(first, "/d/x"), Published::Missing);
    assert_eq!(read(store, "/d/x").unwrap(), b"second");
    check_done(store, &place(first, "/never/was"), Published::Missing);
    check_names(store, "/", &["d/"]);
}

fn renaming_can_be_done_twice(store: &dyn Store) {
    let stamp = put(store, "/a/x", b"moved");
    put(store, "/b/y", b"replaced");
    let step = Publication::Rename {
        from: path("/a/x"),
        to: path("/b/y"),
        stamp,
    };
    for _ in 0..2 {
        check_done(store, &step, Published::Done);
        assert_eq!(read(store, "/b/y").unwrap(), b"moved");
        check_names(store, "/", &["b/"]);
    }
    let nowhere = Publication::Rename {
        from: path("/a/x"),
        to: path("/c/z"),
        stamp,
    };
    check_done(store, &nowhere, Published::Missing);
    let in_place = Publication::Rename {
        from: path("/b/y"),
        to: path("/b/y"),
        stamp,
    };
    check_done(store, &in_place, Published::Done);
    assert_eq!(read(store, "/b/y").unwrap(), b"moved");
    check_names(store, "/", &["b/"]);
}

fn removing_can_be_done_twice(store: &dyn Store) {
    let stamp = put(store, "/a/b/x", b"gone");
    let step = Publication::Remove {
        path: path("/a/b/x"),
        stamp,
    };
    for _ in 0..2 {
        check_done(store, &step, Published::Done);
        check_names(store, "/", &[]);
    }
}

fn a_file_with_another_stamp_is_left_alone(store: &dyn Store) {
    let old = put(store, "/x", b"old");
    put(store, "/x", b"new");
    let remove = Publication::Remove {
        path: path("/x"),
        stamp: old,
    };
    let rename = Publication::Rename {
        from: path("/x"),
        to: path("/y"),
        stamp: old,
    };
    check_done(store, &remove, Published::Done);
    check_done(store, &rename, Published::Missing);
    assert_eq!(read(store, "/x").unwrap(), b"new");
    check_names(store, "/", &["x"]);
}

fn taken_names_are_refused(store: &dyn Store) {
    put(store, "/a/b", b"file");
    for below in ["/a/b/c", "/a/b/c/d/e"] {
        match store.prepare(&path(below)) {
            Err(StoreError::FileAbove { path, above }) => {
                assert_eq!((path.as_str(), above.as_str()), (below, "/a/b"));
            }
            other => panic!("{below}: {other:?}"),
        }
    }
    let refused = store.prepare(&path("/a"));
    assert!(
        matches!(refused, Err(StoreError::Directory(_))),
        "{refused:?}"
    );
    store.prepare(&path("/a/b")).unwrap();
    check_names(store, "/", &["a/"]);
    check_names(store, "/a", &["b"]);
}

fn what_a_refused_put_made_blocks_no_name(store: &dyn Store) {
    store.prepare(&path("/a/b/c/d")).unwrap();
    store.prepare(&path("/a/x/y")).unwrap();
    put(store, "/a", b"file");
    assert_eq!(read(store, "/a").unwrap(), b"file");
    let stamp = store.stat(&path("/a")).unwrap();
    store.prepare(&path("/e/f")).unwrap();
    let step = Publication::Rename {
        from: path("/a"),
        to: path("/e"),
        stamp,
    };
    check_done(store, &step, Published::Done);
    check_names(store, "/", &["e"]);
}

fn what_was_prepared_in_vain_goes(store: &dyn Store) {
    put(store, "/a/stays", b"");
    let vain = ["/a/b/c/d", "/x/y", "/a/new", "/z"].map(path);
    let places: Vec<_> = vain.iter().map(|path| (path, None)).collect();
    let vain: Vec<_> = vain.iter().collect();
    for result in store.prepare_all(&places) {
        result.unwrap();
    }
    check_names(store, "/", &["a/", "x/"]);
    // Twice, since a crash may come in between; and what has a file stays.
    for _ in 0..2 {
        store.release(&vain).unwrap();
        check_names(store, "/", &["a/"]);
        check_names(store, "/a", &["stays"]);
    }
    store
        .release(&[&path("/a/stays"), &path("/a/stays/x")])
        .unwrap();
    assert_eq!(read(store, "/a/stays").unwrap(), b"");
    store.sync().unwrap();
}

fn empty_directories_go(store: &dyn Store) {
    put(store, "/a/stays", b"");
    let stamp = put(store, "/a/b/c/d/x", b"deep");
    let step = Publication::Remove {
        path: path("/a/b/c/d/x"),
        stamp,
    };
    check_done(store, &step, Published::Done);
    check_names(store, "/a", &["stays"]);
    let stamp = store.stat(&path("/a/stays")).unwrap();
    let step = Publication::Rename {
        from: path("/a/stays"),
        to: path("/top"),
        stamp,
    };
    check_done(store, &step, Published::Done);
    check_names(store, "/", &["top"]);
    // The root itself stays when it is empty.
    let step = Publication::Remove {
        path: path("/top"),
        stamp,
    };
    check_done(store, &step, Published::Done);
    check_names(store, "/", &[]);
}

fn missing_names_are_not_found(store: &dyn Store) {
    put(store, "/a/b", b"file");
    for missing in ["/x", "/a/x", "/x/y/z", "/a/b/c"] {
        let opened = store.open(&path(missing)).map(|content| content.stamp());
        assert!(matches!(opened, Err(StoreError::NotFound)), "{opened:?}");
        let stamp = store.stat(&path(missing));
        assert!(matches!(stamp, Err(StoreError::NotFound)), "{stamp:?}");
        let listed = store.list(&path(missing).as_prefix(), None, 10);
        assert!(matches!(listed, Err(StoreError::NotFound)), "{listed:?}");
    }
    let opened = store.open(&path("/a")).map(|content| content.stamp());
    assert!(
        matches!(opened, Err(StoreError::Directory(_))),
        "{opened:?}"
    );
    let listed = store.list(&path("/a/b").as_prefix(), None, 10);
    assert!(matches!(listed, Err(StoreError::NotAFile(_))), "{listed:?}");
}

fn pages_add_up_to_the_directory(store: &dyn Store) {
    let mut expected: Vec<String> = ["b", "B", "a b", "ü", "日本", "a", "a.b", "-", "~", "aa"]
        .map(str::to_owned)
        .to_vec();
    expected.sort();
    for name in &expected {
        put(store, &format!("/{name}"), name.as_bytes());
    }
    for n_max in 1..=expected.len() + 1 {
        assert_eq!(paged(store, &Prefix::root(), n_max), expected, "{n_max}");
    }
    let none = store.list(&Prefix::root(), None, 0).unwrap();
    assert!(none.names.is_empty() && none.more);
    let behind = store.list(&Prefix::root(), Some("日本"), 5).unwrap();
    assert!(behind.names.is_empty() && !behind.more);
}

/// All names of a directory, collected by pages of `n_max`.
pub(crate) fn paged(store: &dyn Store, directory: &Prefix, n_max: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().map(|name| name.trim_end_matches('/'));
        let listed = store.list(directory, after, n_max).unwrap();
        assert!(listed.names.len() <= n_max);
        all.extend(names(&listed));
        if !listed.more {
            return all;
        }
    }
}

fn attach(store: &dyn Store, content: ContentId, expected: Published) {
    check_done(store, &Publication::Attach { content }, expected);
}

fn attaching_can_be_done_twice(store: &dyn Store) {
    for size in [0, 1, 100_000] {
        let content: Vec<u8> = (0..=250).cycle().take(size).collect();
        let sealed = seal(store, &content);
        for _ in 0..2 {
            attach(store, sealed.content, Published::Done);
            let opened = store.open_attached(sealed.content).unwrap();
            assert_eq!(opened.stamp(), sealed.stamp);
            assert!(read_attached(store, sealed.content).unwrap() == content);
        }
        // It is no longer staged: a sweep leaves it, and it cannot be placed.
        assert_eq!(store.sweep(&HashSet::new()).unwrap(), 0);
        store.discard(sealed.content);
        check_done(store, &place(sealed, "/x"), Published::Missing);
        assert!(read_attached(store, sealed.content).unwrap() == content);
    }
}

fn what_is_attached_is_in_no_tree(store: &dyn Store) {
    let sealed = seal(store, b"attached");
    attach(store, sealed.content, Published::Done);
    check_names(store, "/", &[]);
    put(store, "/x", b"file");
    assert_eq!(read(store, "/x").unwrap(), b"file");
    assert_eq!(read_attached(store, sealed.content).unwrap(), b"attached");
    check_names(store, "/", &["x"]);
}

fn detaching_can_be_done_twice(store: &dyn Store) {
    let [gone, kept] = [b"gone", b"kept"].map(|content| seal(store, content).content);
    attach(store, gone, Published::Done);
    attach(store, kept, Published::Done);
    let never = ContentId::from_random([9; 16]);
    for _ in 0..2 {
        store.detach(&[never, gone]).unwrap();
        store.detach(&[]).unwrap();
        let opened = read_attached(store, gone);
        assert!(matches!(opened, Err(StoreError::NotFound)), "{opened:?}");
        assert_eq!(read_attached(store, kept).unwrap(), b"kept");
    }
    // What is gone is nowhere.
    attach(store, gone, Published::Missing);
}

fn what_is_nowhere_cannot_be_attached(store: &dyn Store) {
    let never = ContentId::from_random([9; 16]);
    attach(store, never, Published::Missing);
    let discarded = seal(store, b"discarded").content;
    store.discard(discarded);
    attach(store, discarded, Published::Missing);
    let placed = seal(store, b"placed");
    check_done(store, &place(placed, "/x"), Published::Done);
    attach(store, placed.content, Published::Missing);
    assert_eq!(read(store, "/x").unwrap(), b"placed");
    for content in [never, discarded, placed.content] {
        let opened = read_attached(store, content);
        assert!(matches!(opened, Err(StoreError::NotFound)), "{opened:?}");
    }
    // The store goes on.
    put(store, "/y", b"file");
}

fn an_open_attachment_stays_what_it_was(store: &dyn Store) {
    let sealed = seal(store, b"old");
    attach(store, sealed.content, Published::Done);
    let open = store.open_attached(sealed.content).unwrap();
    store.detach(&[sealed.content]).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(open.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer[..3], b"old");
}

fn parts_come_in_any_order(store: &dyn Store) {
    let content = store.allocate(9, b"note").unwrap();
    let (one, two) = (store.parts(content).unwrap(), store.parts(content).unwrap());
    two.write_at(b"ddd", 6).unwrap();
    one.write_at(b"xxxx", 0).unwrap();
    two.write_at(b"abc", 0).unwrap();
    one.sync().unwrap();
    assert!(store.seal_parts(content, 8).is_err());
    assert!(store.seal_parts(content, 10).is_err());
    let before = store.seal_parts(content, 9).unwrap();
    one.write_at(b"efg", 3).unwrap();
    // Sealed again it has another stamp, so that nobody takes one for the other.
    let sealed = store.seal_parts(content, 9).unwrap();
    assert_eq!(sealed.content, content);
    assert!(sealed.stamp.modified > before.stamp.modified);
    store.prepare(&path("/parts")).unwrap();
    check_done(store, &place(sealed, "/parts"), Published::Done);
    assert_eq!(read(store, "/parts").unwrap(), b"abcefgddd");
    assert_eq!(store.stat(&path("/parts")).unwrap(), sealed.stamp);
    // What is published is not taken away with the notes.
    store.forget(content);
    assert!(store.notes(content, 9).is_err());
    assert_eq!(read(store, "/parts").unwrap(), b"abcefgddd");
}

fn parts_that_are_not_there(store: &dyn Store) {
    let gone = store.allocate(2, b"note").unwrap();
    let before = store.parts(gone).unwrap();
    store.forget(gone);
    for content in [gone, ContentId::from_random([7; 16])] {
        assert!(matches!(
            store.parts(content).err(),
            Some(StoreError::NotFound)
        ));
        assert!(store.seal_parts(content, 2).is_err());
        assert!(store.notes(content, 9).is_err());
        store.forget(content);
    }
    // Whoever still holds it open brings nothing back.
    before.write_at(b"xx", 0).unwrap();
    assert!(store.parts(gone).is_err());
    assert!(store.noted().unwrap().is_empty());
}

fn notes_come_back(store: &dyn Store) {
    let [one, two] = [b"one".as_slice(), b"two"].map(|note| store.allocate(1, note).unwrap());
    store.note(one, b", more", true).unwrap();
    store.note(two, b", more", false).unwrap();
    store.note(one, b", last", false).unwrap();
    assert_eq!(store.notes(one, 100).unwrap(), b"one, more, last");
    assert_eq!(store.notes(one, 5).unwrap(), b"one, ");
    store.replace_notes(one, b"anew").unwrap();
    store.note(one, b", again", true).unwrap();
    assert_eq!(store.notes(one, 100).unwrap(), b"anew, again");
    assert_eq!(store.notes(two, 100).unwrap(), b"two, more");
    let mut noted: Vec<_> = store.noted().unwrap();
    noted.sort_by_key(|noted| noted.content);
    let mut both = [one, two];
    both.sort();
    assert_eq!(
        noted.iter().map(|noted| noted.content).collect::<Vec<_>>(),
        both
    );
    // What is staged as a whole has no notes.
    let sealed = seal(store, b"whole");
    assert_eq!(store.noted().unwrap().len(), 2);
    store.discard(sealed.content);
}

fn a_sweep_spares_the_notes_of_what_is_kept(store: &dyn Store) {
    let [kept, lost] = [(); 2].map(|()| store.allocate(1, b"note").unwrap());
    assert_eq!(store.sweep(&HashSet::from([kept])).unwrap(), 1);
    assert_eq!(store.notes(kept, 9).unwrap(), b"note");
    assert!(store.parts(kept).is_ok());
    assert!(store.notes(lost, 9).is_err());
    assert!(matches!(
        store.parts(lost).err(),
        Some(StoreError::NotFound)
    ));
    assert_eq!(store.noted().unwrap().len(), 1);
}
