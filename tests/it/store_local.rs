//! What the store in a directory tree does beyond the common suite: what other programs put into
//! the tree is listed at most, and followed nowhere.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use fsvc::path::Prefix;
use fsvc::store::local::LocalStore;
use fsvc::store::{Publication, Published, Store, StoreError};
use rustix::fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat};

use crate::store_faults::Mount;
use crate::store_suite::{self, names, paged, path, put, read, read_attached, seal};

/// A directory of its own for a test, in memory where there is such a file system.
pub(crate) fn scratch() -> tempfile::TempDir {
    let chosen = std::env::var_os("FSVC_TEST_DIR").map(PathBuf::from);
    tempfile::tempdir_in(chosen.as_deref().unwrap_or(Path::new("/dev/shm")))
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// An empty store in a directory of its own.
pub(crate) fn empty() -> (tempfile::TempDir, LocalStore) {
    let scratch = scratch();
    let store = LocalStore::open(&scratch.path().join("root"), 0).unwrap();
    (scratch, store)
}

/// How many contents are staged.
pub(crate) fn n_staged(root: &Path) -> usize {
    fs::read_dir(root.join(".fsvc/staging")).unwrap().count()
}

#[test]
fn the_suite_holds() {
    for (name, case) in store_suite::CASES {
        eprintln!("{name}");
        let (scratch, store) = empty();
        case(&store);
        store.sweep(&HashSet::new()).unwrap();
        assert_eq!(n_staged(&scratch.path().join("root")), 0, "{name}");
    }
}

#[test]
fn a_root_is_for_one_server() {
    let (scratch, store) = empty();
    let root = scratch.path().join("root");
    let second = LocalStore::open(&root, 0).err().unwrap();
    assert!(second.to_string().contains("another server"), "{second}");
    let mode = |name| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
    let private = [".fsvc", ".fsvc/staging", ".fsvc/attached"];
    assert_eq!(private.map(mode), [0o700; 3]);
    drop(store);
    LocalStore::open(&root, 0).unwrap();
    fs::write(scratch.path().join("file"), "").unwrap();
    assert!(LocalStore::open(&scratch.path().join("file"), 0).is_err());
    assert!(LocalStore::open(&scratch.path().join("no/parent"), 0).is_err());
    let linked = scratch.path().join("linked");
    fs::create_dir(&linked).unwrap();
    symlink(root.join(".fsvc"), linked.join(".fsvc")).unwrap();
    assert!(LocalStore::open(&linked, 0).is_err());
}

#[test]
fn what_was_attached_is_there_after_reopening() {
    let (scratch, store) = empty();
    let root = scratch.path().join("root");
    let [kept, gone, late] = [b"kept", b"gone", b"late"].map(|text| seal(&store, text).content);
    for content in [kept, gone] {
        let step = Publication::Attach { content };
        assert_eq!(store.publish(&step).unwrap(), Published::Done);
    }
    store.sync().unwrap();
    store.detach(&[gone]).unwrap();
    drop(store);
    let store = LocalStore::open(&root, 0).unwrap();
    // What recovery does: the same again, and what is still staged for it.
    for content in [kept, late] {
        let step = Publication::Attach { content };
        assert_eq!(store.publish(&step).unwrap(), Published::Done);
    }
    assert_eq!(store.sweep(&HashSet::new()).unwrap(), 0);
    assert_eq!(read_attached(&store, kept).unwrap(), b"kept");
    assert_eq!(read_attached(&store, late).unwrap(), b"late");
    assert!(matches!(
        read_attached(&store, gone),
        Err(StoreError::NotFound)
    ));
    assert_eq!(
        fs::read_dir(root.join(".fsvc/attached")).unwrap().count(),
        2
    );
}

#[test]
fn only_regular_files_of_the_tree_are_opened() {
    let (scratch, store) = empty();
    let root = scratch.path().join("root");
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/file"), "inside").unwrap();
    fs::hard_link(root.join("d/file"), root.join("hard")).unwrap();
    fs::write(scratch.path().join("secret"), "outside").unwrap();
    symlink(scratch.path().join("secret"), root.join("link")).unwrap();
    symlink("d/file", root.join("inner")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink(scratch.path(), root.join("out")).unwrap();
    symlink("d", root.join("in")).unwrap();
    mkfifoat(CWD, root.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let device = FileType::CharacterDevice;
    let has_device = mknodat(CWD, root.join("device"), device, Mode::RUSR, makedev(1, 5)).is_ok();

    for good in ["/d/file", "/hard"] {
        assert_eq!(read(&store, good).unwrap(), b"inside", "{good}");
    }
    let device = has_device.then_some("/device");
    for bad in ["/link", "/inner", "/dangling", "/magic", "/fifo", "/socket"]
        .into_iter()
        .chain(device)
    {
        for refused in [
            read(&store, bad).err(),
            store.stat(&path(bad)).err(),
            store.prepare(&path(bad)).err(),
        ] {
            assert!(
                matches!(refused, Some(StoreError::NotAFile(_))),
                "{bad}: {refused:?}"
            );
        }
    }
    for bad in ["/out/secret", "/in/file", "/magic/etc/passwd", "/link/x"] {
        for refused in [
            read(&store, bad).err(),
            store.stat(&path(bad)).err(),
            store.prepare(&path(bad)).err(),
            store.list(&path(bad).parent(), None, 9).err(),
        ] {
            assert!(
                matches!(refused, Some(StoreError::Confined(_))),
                "{bad}: {refused:?}"
            );
        }
    }
    let refused = store.prepare(&path("/fifo/x"));
    assert!(
        matches!(refused, Err(StoreError::NotAFile(_))),
        "{refused:?}"
    );
    let listed = store.list(&Prefix::root(), None, 100).unwrap();
    assert_eq!(names(&listed), ["d/", "hard"]);
    assert_eq!(listed.n_unnameable, 0);
}

#[test]
fn an_unreadable_file_is_refused_and_listed() {
    let (scratch, store) = empty();
    let file = scratch.path().join("root/locked");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    match read(&store, "/locked") {
        Ok(content) => assert!(rustix::process::geteuid().is_root() && content == b"x"),
        Err(refused) => assert!(matches!(refused, StoreError::Io { .. }), "{refused:?}"),
    }
    let listed = store.list(&Prefix::root(), None, 10).unwrap();
    assert_eq!(names(&listed), ["locked"]);
}

#[test]
fn another_file_system_in_the_tree_is_not_part_of_it() {
    let (scratch, store) = empty();
    let Some(_mount) = Mount::tmpfs(&scratch.path().join("root/mounted"), "1m") else {
        return;
    };
    let bad = path("/mounted/x");
    for refused in [store.stat(&bad).err(), store.prepare(&bad).err()] {
        assert!(
            matches!(refused, Some(StoreError::Confined(_))),
            "{refused:?}"
        );
    }
}

#[track_caller]
fn check_page(
    store: &dyn Store,
    after: Option<&str>,
    n_max: usize,
    expected: (&[&str], bool, u64),
) {
    let listed = store.list(&Prefix::root(), after, n_max).unwrap();
    let found = names(&listed);
    assert_eq!(
        (found.as_slice(), listed.more, listed.n_unnameable),
        (
            expected
                .0
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
                .as_slice(),
            expected.1,
            expected.2,
        )
    );
}

#[test]
fn names_that_no_path_can_spell_are_counted() {
    use std::os::unix::ffi::OsStrExt;
    let (scratch, store) = empty();
    let odd: [&[u8]; 5] = [b"b\xff", b"c ", b"c\x1b[2J", b".hidden.", b"z\\"];
    let own: [&[u8]; 3] = [b".fsvc-x", b".FSVC", b".fsvc\xff"];
    let good: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    for name in odd.iter().chain(&own).chain(&good) {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::write(scratch.path().join("root").join(name), "").unwrap();
    }
    check_page(&store, None, 9, (&["a", "b", "c", "d"], false, 5));
    check_page(&store, None, 2, (&["a", "b"], true, 1));
    check_page(&store, Some("b"), 1, (&["c"], true, 1));
    check_page(&store, Some("c"), 1, (&["d"], false, 3));
}

#[test]
fn pages_of_a_large_directory_equal_its_sorted_names() {
    let (scratch, store) = empty();
    fs::create_dir(scratch.path().join("root/d")).unwrap();
    let mut expected: Vec<String> = (0..5000u32)
        .map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    for name in &expected {
        fs::write(scratch.path().join("root/d").join(name), "").unwrap();
    }
    expected.sort();
    assert_eq!(paged(&store, &"/d".parse().unwrap(), 7), expected);
}

#[test]
fn what_changes_between_two_pages_is_in_the_next_one() {
    let (scratch, store) = empty();
    let root = scratch.path().join("root");
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(root.join(name), "").unwrap();
    }
    // Long enough for names that were read ahead to be kept.
    let changed = fs::metadata(&root).unwrap().modified().unwrap();
    while changed.elapsed().unwrap_or_default().as_millis() < 200 {
        std::thread::yield_now();
    }
    check_page(&store, None, 2, (&["a", "b"], true, 0));
    check_page(&store, Some("b"), 2, (&["c", "d"], true, 0));
    check_page(&store, Some("b"), 2, (&["c", "d"], true, 0));
    fs::write(root.join("d1"), "").unwrap();
    fs::remove_file(root.join("e")).unwrap();
    check_page(&store, Some("d"), 2, (&["d1"], false, 0));
}

#[test]
fn a_moved_hard_link_loses_its_old_name() {
    let (scratch, store) = empty();
    let root = scratch.path().join("root");
    let stamp = put(&store, "/a/x", b"linked");
    fs::hard_link(root.join("a/x"), root.join("y")).unwrap();
    let step = Publication::Rename {
        from: path("/a/x"),
        to: path("/y"),
        stamp,
    };
    assert_eq!(store.publish(&step).unwrap(), Published::Done);
    assert_eq!(
        names(&store.list(&Prefix::root(), None, 10).unwrap()),
        ["y"]
    );
}
