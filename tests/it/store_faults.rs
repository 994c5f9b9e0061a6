//! The store in a directory tree when the disk refuses: nothing is left behind, nothing is believed
//! after a failed sync, and what was broken off can be done again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fsvc::fault::arm_thread;
use fsvc::path::Prefix;
use fsvc::store::local::LocalStore;
use fsvc::store::{Publication, Published, Store, StoreError, Unsealed};

use crate::store_local::{empty, n_staged, scratch};
use crate::store_suite::{names, path, place, put, read, read_attached, seal};

#[test]
fn a_full_disk_is_refused_and_leaves_nothing() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let Some(_mount) = Mount::tmpfs(&root, "16m") else {
        return;
    };
    let store = LocalStore::open(&root, 1 << 20).unwrap();
    let full = |outcome: Option<StoreError>| {
        assert!(
            matches!(outcome, Some(StoreError::OutOfSpace(_))),
            "{outcome:?}"
        );
        assert_eq!(n_staged(&root), 0);
    };
    for size in [16 << 20, u64::MAX] {
        full(store.begin(Some(size)).err());
    }
    // Two uploads cannot be promised the same space.
    let first = store.begin(Some(9 << 20)).unwrap();
    assert!(matches!(
        store.begin(Some(9 << 20)).err(),
        Some(StoreError::OutOfSpace(_))
    ));
    drop(first);
    let mut upload = store.begin(None).unwrap();
    let piece = vec![1; 1 << 20];
    let refused = (0..17).find_map(|_| upload.write(&piece).err());
    drop(upload);
    full(refused);
    fs::write(root.join("ballast"), vec![0; 12 << 20]).unwrap();
    full(store.begin(Some(4 << 20)).err());
    fs::remove_file(root.join("ballast")).unwrap();
    let content = vec![7; 8 << 20];
    put(&store, "/fits", &content);
    assert!(read(&store, "/fits").unwrap() == content);
}

/// A writer for each part, as connections come and go: together they leave the reserve alone.
#[test]
fn parts_leave_the_reserve_alone() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    let Some(_mount) = Mount::tmpfs(&root, "32m") else {
        return;
    };
    let store = LocalStore::open(&root, 16 << 20).unwrap();
    let refused = store.allocate(17 << 20, b"note").err();
    assert!(
        matches!(refused, Some(StoreError::OutOfSpace(_))),
        "{refused:?}"
    );
    assert_eq!(n_staged(&root), 0);
    let content = store.allocate(15 << 20, b"note").unwrap();
    fs::write(root.join("ballast"), vec![0; 8 << 20]).unwrap();
    let piece = vec![1; 1 << 20];
    let mut n_written = 0;
    for number in 0..15 {
        let parts = store.parts(content).unwrap();
        match parts.write_at(&piece, number << 20) {
            Ok(()) => n_written += 1,
            Err(error) => assert!(matches!(error, StoreError::OutOfSpace(_)), "{error:?}"),
        }
    }
    // Eight fit, and it is looked after as many again at the latest.
    assert!(n_written < 15, "{n_written}");
    fs::remove_file(root.join("ballast")).unwrap();
    store
        .parts(content)
        .unwrap()
        .write_at(&piece, 14 << 20)
        .unwrap();
    store.forget(content);
    assert_eq!(n_staged(&root), 0);
}

#[cfg(debug_assertions)]
#[test]
fn a_disk_that_fills_up_meanwhile_leaves_nothing() {
    let (scratch, store) = empty();
    for plan in [
        "store.mkdir=EDQUOT",
        "store.stage.create=ENOSPC",
        "store.stage.write=ENOSPC@2",
    ] {
        let armed = arm_thread(plan).unwrap();
        let put = || {
            store.prepare(&path("/d/x"))?;
            let mut upload = store.begin(None)?;
            upload.write(b"one")?;
            upload.write(b"two")
        };
        let refused = put();
        assert!(
            matches!(refused, Err(StoreError::OutOfSpace(_))),
            "{plan}: {refused:?}"
        );
        assert_eq!(n_staged(&scratch.path().join("root")), 0, "{plan}");
        drop(armed);
    }
    put(&store, "/d/x", b"space is back");
}

#[cfg(debug_assertions)]
#[test]
fn a_failed_sync_ends_all_changes() {
    for plan in [
        "store.seal.fsync=EIO@1",
        "store.sync.fsync=EIO@1",
        "store.publish.rename=EIO@1",
        "store.attach=EIO@1",
        "store.attach.after=EIO@1",
    ] {
        let (scratch, store) = empty();
        put(&store, "/old", b"old");
        let sealed = seal(&store, b"sealed before");
        let stamp = store.stat(&path("/old")).unwrap();
        let _armed = arm_thread(plan).unwrap();
        let mut upload = store.begin(None).unwrap();
        upload.write(b"new").unwrap();
        let failed = upload.seal().and_then(|sealed| {
            if plan.starts_with("store.attach") {
                let content = sealed.content;
                store.publish(&Publication::Attach { content })?;
            }
            store.publish(&place(sealed, "/new"))?;
            store.sync()
        });
        assert!(
            matches!(failed, Err(StoreError::Io { .. })),
            "{plan}: {failed:?}"
        );
        if plan.starts_with("store.seal") {
            assert_eq!(n_staged(&scratch.path().join("root")), 1);
        }
        let remove = Publication::Remove {
            path: path("/old"),
            stamp,
        };
        for refused in [
            store.begin(None).err(),
            store.prepare(&path("/n/x")).err(),
            store.publish(&place(sealed, "/s")).err(),
            store.publish(&remove).err(),
            store.sync().err(),
        ] {
            let Some(StoreError::ReadOnly(reason)) = refused else {
                panic!("{plan}: {refused:?}");
            };
            assert!(reason.contains("Input/output error"), "{reason}");
        }
        assert_eq!(read(&store, "/old").unwrap(), b"old");
        assert!(store.list(&Prefix::root(), None, 10).is_ok());
    }
}

/// A step that was broken off anywhere, done again by the next server, comes out right.
#[cfg(debug_assertions)]
#[test]
fn a_step_broken_off_anywhere_can_be_done_again() {
    let points = fsvc::fault::POINTS
        .iter()
        .filter(|point| point.starts_with("store."));
    for point in points.filter(|point| !point.contains("stage") && !point.contains("seal")) {
        let (scratch, store) = empty();
        let root = scratch.path().join("root");
        let moved = put(&store, "/a/b/moved", b"moved");
        let removed = put(&store, "/c/d/removed", b"removed");
        put(&store, "/new/file", b"old");
        let sealed = seal(&store, b"new");
        let deep = seal(&store, b"deep");
        let content = seal(&store, b"attached").content;
        let steps = [
            Publication::Attach { content },
            place(sealed, "/new/file"),
            place(deep, "/made/for/it"),
            Publication::Rename {
                from: path("/a/b/moved"),
                to: path("/e/f/moved"),
                stamp: moved,
            },
            Publication::Remove {
                path: path("/c/d/removed"),
                stamp: removed,
            },
        ];
        for nth in 1..=4 {
            let _armed = arm_thread(&format!("{point}=EIO@{nth}")).unwrap();
            let _broken_off = steps
                .iter()
                .try_for_each(|step| store.publish(step).map(drop));
            let _broken_off = store.sync();
        }
        drop(store);
        let store = LocalStore::open(&root, 0).unwrap();
        for step in &steps {
            assert_eq!(
                store.publish(step).unwrap(),
                Published::Done,
                "{point}: {step:?}"
            );
        }
        store.sync().unwrap();
        let listed = store.list(&Prefix::root(), None, 10).unwrap();
        assert_eq!(names(&listed), ["e/", "made/", "new/"], "{point}");
        assert_eq!(read(&store, "/new/file").unwrap(), b"new", "{point}");
        assert_eq!(read(&store, "/made/for/it").unwrap(), b"deep", "{point}");
        assert_eq!(read(&store, "/e/f/moved").unwrap(), b"moved", "{point}");
        assert_eq!(read_attached(&store, content).unwrap(), b"attached");
        assert_eq!(n_staged(&root), 0, "{point}");
    }
}

/// A file system that is gone with this value.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// None where this user may not mount.
    pub(crate) fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "fsvc-test"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the store under test may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Ends so many contents without making them durable.
fn finish(store: &dyn Store, n: u8) -> Vec<Unsealed> {
    let finish = |n| {
        let mut upload = store.begin(Some(1)).unwrap();
        upload.write(&[n]).unwrap();
        upload.finish().unwrap()
    };
    (0..n).map(finish).collect()
}

#[test]
fn many_contents_are_sealed_together() {
    for n in [0, 1, 7, 8, 100] {
        let (scratch, store) = empty();
        let sealed = store.seal_all(&finish(&store, n)).unwrap();
        assert_eq!(sealed.len(), usize::from(n));
        let steps: Vec<Publication> = sealed
            .into_iter()
            .zip(0..n)
            .map(|(sealed, n)| place(sealed, &format!("/d{}/{n}", n % 30)))
            .collect();
        let published = store.publish_all(&steps).unwrap();
        assert!(published.iter().all(|one| *one == Published::Done));
        store.sync().unwrap();
        for n in 0..n {
            assert_eq!(read(&store, &format!("/d{}/{n}", n % 30)).unwrap(), [n]);
        }
        assert_eq!(n_staged(&scratch.path().join("root")), 0);
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_sync_of_many_that_fails_seals_none_and_ends_all_changes() {
    for (n, plan) in [
        (3, "store.seal.fsync=EIO@2"),
        (8, "store.whole.syncfs=EIO@1"),
        (100, "store.whole.syncfs.after=EIO@1"),
        // The first is that of the contents, the second that of their directories.
        (20, "store.whole.syncfs=EIO@2"),
        (3, "store.sync.fsync=EIO@2"),
    ] {
        let (_scratch, store) = empty();
        put(&store, "/old", b"old");
        let unsealed = finish(&store, n);
        let _armed = arm_thread(plan).unwrap();
        let done = store.seal_all(&unsealed).and_then(|sealed| {
            let steps = sealed.into_iter().zip(0..n);
            let steps: Vec<_> = steps
                .map(|(one, n)| place(one, &format!("/{n}/x")))
                .collect();
            store.prepare_all(&[(&path("/0/x"), None)]).remove(0)?;
            store.publish_all(&steps)?;
            store.sync()
        });
        assert!(
            matches!(done, Err(StoreError::Io { .. })),
            "{plan}: {done:?}"
        );
        for refused in [
            store.seal_all(&unsealed).err(),
            store.seal_all(&[]).err(),
            store.begin(None).err(),
            store.prepare_all(&[(&path("/n/x"), None)]).remove(0).err(),
            store.publish_all(&[]).err(),
            store.sync().err(),
        ] {
            assert!(
                matches!(refused, Some(StoreError::ReadOnly(_))),
                "{plan}: {refused:?}"
            );
        }
        assert_eq!(read(&store, "/old").unwrap(), b"old");
    }
}

#[test]
fn a_batch_of_names_goes_on_after_one_that_is_taken() {
    let (_scratch, store) = empty();
    put(&store, "/a/file", b"x");
    let names = ["/a/file/below", "/a/b", "/a", "/a/c/d", "/e"].map(path);
    let places: Vec<_> = names.iter().map(|name| (name, None)).collect();
    let verdicts = store.prepare_all(&places);
    let is_free: Vec<bool> = verdicts.iter().map(Result::is_ok).collect();
    assert_eq!(is_free, [false, true, false, true, true]);
    // What is removed in a batch takes its directory along; the next file makes it again.
    let old = store.stat(&path("/a/file")).unwrap();
    let sealed = store.seal_all(&finish(&store, 3)).unwrap();
    let steps = [
        place(sealed[0], "/g/one"),
        Publication::Remove {
            path: path("/a/file"),
            stamp: old,
        },
        Publication::Remove {
            path: path("/g/one"),
            stamp: sealed[0].stamp,
        },
        place(sealed[1], "/g/two"),
        place(sealed[2], "/a/file"),
    ];
    let published = store.publish_all(&steps).unwrap();
    assert!(published.iter().all(|one| *one == Published::Done));
    assert_eq!(read(&store, "/g/two").unwrap(), [1]);
    assert_eq!(read(&store, "/a/file").unwrap(), [2]);
}
