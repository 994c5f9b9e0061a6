//! Disks of the client that are full: what came whole stays, nothing else does, and the same command
//! completes it when there is room.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::Server;
use crate::trees::{files, run};

/// A file system of its own, gone with this.
pub struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// Nothing, where that is not permitted.
    pub fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self(directory))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file until there is no more room.
    pub fn fill(&self, name: &str) {
        use std::io::Write;
        let mut file = fs::File::create(self.path().join(name)).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_full_disk_of_the_client_loses_nothing_and_keeps_no_half_file() {
    let Some(tmpfs) = Tmpfs::mount("6m") else {
        eprintln!("not permitted to mount a tmpfs: not tested");
        return;
    };
    let server = Server::start();
    let source = server.directory.path().join("source");
    fs::create_dir(&source).unwrap();
    let content = |n: usize| vec![u8::try_from(n % 251).unwrap(); 3_000 + n];
    for n in 0..1_000 {
        fs::write(source.join(format!("{n:04}")), content(n)).unwrap();
    }
    fs::write(source.join("large"), content(8 << 20)).unwrap();
    server.ok(&["put", "-r", source.to_str().unwrap(), "/t"]);

    let old = tmpfs.path().join("old");
    fs::write(&old, "old").unwrap();
    let said = server.fails(1, &["get", "/t/large", old.to_str().unwrap()]);
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(files(tmpfs.path()).into_keys().collect::<Vec<_>>(), ["old"]);
    assert_eq!(fs::read(&old).unwrap(), b"old");
    fs::remove_file(&old).unwrap();

    tmpfs.fill("ballast");
    fs::OpenOptions::new()
        .write(true)
        .open(tmpfs.path().join("ballast"))
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    let back = tmpfs.path().join("back");
    let back = back.to_str().unwrap();
    // Of the disk's own words, or of those for the whole run.
    let said = server.fails(1, &["get", "-r", "/t", back]);
    let is_full = ["No space left", "no storage space"]
        .iter()
        .any(|words| said.contains(words));
    assert!(is_full, "{said}");
    let came = files(back);
    assert!(!came.contains_key("large"));
    let sent = files(&source);
    for (name, content) in &came {
        assert!(sent[name] == *content, "{name}");
    }

    let grown = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(tmpfs.path())
        .status();
    assert!(grown.is_ok_and(|status| status.success()));
    let (code, summary) = run(&server, &["get", "-r", "/t", back]);
    assert_eq!(code, 0, "{summary}");
    assert_eq!(summary["n_same"], came.len());
    assert!(files(back) == sent);
}
