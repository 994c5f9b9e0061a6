//! What --compress saves: bytes that pass between a client and a server, whichever way files go.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use fsvc::client::{Client, Delta, Options, TransferOptions};

use crate::compression::{noise, words};
use crate::harness::{Server, text, with_input};
use crate::messages::runtime;
use crate::relay::Relay;
use crate::trees::files;

/// What passes, both ways, while a command runs that must do what it is to.
#[track_caller]
fn passed(server: &Server, relay: &Relay, arguments: &[&str]) -> u64 {
    let before = relay.n_passed();
    let output = server
        .client_at(&relay.address, "dev", arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    relay.n_passed() - before
}

#[test]
fn files_come_and_go_as_they_are_and_with_fewer_bytes() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let local = server.directory.path().join("local");
    let back = server.directory.path().join("back");
    let (from, to) = (local.to_str().unwrap(), back.to_str().unwrap());
    // Too small to try, small, whole, in parts, in parts of which the last is small; what shrinks and
    // what does not.
    for (content, shrinks) in [
        (words(10), false),
        (words(40_000), true),
        (words(1 << 20), true),
        (noise(1 << 20), false),
        (words(12 << 20), true),
        (words((6 << 20) + 1), true),
        (noise(6 << 20), false),
    ] {
        fs::write(&local, &content).unwrap();
        let size = content.len() as u64;
        let most = if shrinks {
            size / 3 + 20_000
        } else {
            size + size / 50 + 40_000
        };
        for streams in ["1", "3"] {
            let flags = ["--compress", "--streams", streams];
            let name = format!("/{streams}");
            let put = [&["put", "--delta", "never", from, &name][..], &flags].concat();
            let n_put = passed(&server, &relay, &put);
            assert!(server.get(&name) == content);
            let n_got = passed(&server, &relay, &[&["get", &name, to][..], &flags].concat());
            assert!(fs::read(&back).unwrap() == content);
            for n in [n_put, n_got] {
                assert!(n < most, "{n} of {size}, {streams} streams");
                assert!(shrinks || n > size, "{n} of {size}");
            }
        }
        let plain = passed(&server, &relay, &["get", "/1", to]);
        assert!(plain > size);
        // From and to pipes, and in a set.
        let input = ["put", "--compress", "-", "/b"];
        let output = with_input(&mut server.client("dev", &input), &content);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let output = server.run(&["get", "--compress", "/b", "-"]);
        assert!(output.stdout == content);
        server.ok(&["get", "--compress", "--range", "3-", "/b", to]);
        assert!(fs::read(&back).unwrap() == content[3..]);
        server.ok(&["append", "--compress", from, "/b"]);
        assert!(server.get("/b") == content.repeat(2));
        server.ok(&["put", "--compress", "--atomic", from, "/set/"]);
        assert!(server.get("/set/local") == content);
    }
    assert!(server.staged().is_empty());
}

#[test]
fn trees_of_small_texts_travel_with_fewer_bytes() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let folder = server.directory.path().join("folder");
    fs::create_dir_all(folder.join("sub")).unwrap();
    for n in 0..300 {
        let text = [&words(3000)[..], format!("file {n}").as_bytes()].concat();
        fs::write(folder.join(format!("sub/{n}")), text).unwrap();
    }
    // One that does not travel with others.
    fs::write(folder.join("large"), words(900_000)).unwrap();
    let from = folder.to_str().unwrap();
    let size: u64 = files(&folder).values().map(|file| file.len() as u64).sum();

    let plain = passed(&server, &relay, &["put", "-r", from, "/plain"]);
    assert!(plain > size);
    let put = passed(&server, &relay, &["put", "-r", "--compress", from, "/t"]);
    assert!(put < plain / 3, "{put} of {plain}");
    assert_eq!(files(server.root().join("t")), files(&folder));
    let set = ["put", "-r", "--atomic", "--compress", from, "/set"];
    let set = passed(&server, &relay, &set);
    assert!(set < plain / 3, "{set} of {plain}");
    assert_eq!(files(server.root().join("set")), files(&folder));
    let sync = ["sync", "--compress", from, "fsvc:/sync"];
    let sync = passed(&server, &relay, &sync);
    assert!(sync < plain / 3, "{sync} of {plain}");
    assert_eq!(files(server.root().join("sync")), files(&folder));

    let back = |name: &str| server.directory.path().join(name);
    let plain = passed(&server, &relay, &["get", "-r", "/t", "plain"]);
    assert!(plain > size);
    let got = passed(&server, &relay, &["get", "-r", "--compress", "/t", "got"]);
    // The listing is not compressed.
    assert!(got < plain - size / 2, "{got} of {plain}");
    for name in ["plain", "got"] {
        assert_eq!(files(back(name)), files(&folder));
    }
    // Nothing that shrinks goes as it is, with the same request.
    let noisy = back("noisy");
    fs::create_dir_all(&noisy).unwrap();
    for (n, content) in noise(20 * 9000).chunks(9000).enumerate() {
        fs::write(noisy.join(n.to_string()), content).unwrap();
    }
    let from = noisy.to_str().unwrap();
    let put = passed(&server, &relay, &["put", "-r", "--compress", from, "/n"]);
    assert!(put > 20 * 9000);
    server.ok(&["get", "-r", "--compress", "/n", "noisy-back"]);
    assert_eq!(files(back("noisy-back")), files(&noisy));
}

fn client_through(server: &Server, relay: &Relay) -> Client {
    let mut options = Options::from_directory(&relay.address, server.certs(), "dev");
    options.retry_for = Duration::from_secs(60);
    Client::new(options).unwrap()
}

#[test]
fn what_is_compressed_goes_on_after_cuts() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let client = client_through(&server, &relay).compressing(true);
    let local = server.directory.path().join("local");
    // Of several runs, half of which shrink.
    let content = [words(20 << 20), noise(6 << 20)].concat();
    fs::write(&local, &content).unwrap();
    let options = || TransferOptions {
        n_streams: Some(2),
        delta: Delta::Never,
        ..TransferOptions::default()
    };
    let name = "/a".parse().unwrap();
    let put = async |cuts: &[u64]| {
        relay.cut_after(cuts);
        client.put_file(&local, &name, options()).await.unwrap()
    };
    let file = runtime().block_on(put(&[100_000, 400_000, 1_000_000, 2_000_000]));
    assert_eq!(relay.n_cuts_left(), 0);
    assert_eq!(file.size, content.len() as u64);
    assert!(server.get("/a") == content);

    let back = server.directory.path().join("back");
    let client = Arc::new(client_through(&server, &relay).compressing(true));
    relay.cut_after(&[200_000, 400_000, 1_000_000, 2_000_000]);
    let got = runtime().block_on(client.get_file(&name, &back, options()));
    assert_eq!(got.unwrap().digest, file.digest);
    assert_eq!(relay.n_cuts_left(), 0);
    assert!(fs::read(&back).unwrap() == content);
    assert!(server.staged().is_empty());
}

#[test]
fn only_what_changed_is_sent_and_that_compressed() {
    let server = Server::start();
    let relay = Relay::to(&server.address);
    let local = server.directory.path().join("local");
    let from = local.to_str().unwrap();
    let mut content = [words(4 << 20), noise(8 << 20)].concat();
    fs::write(&local, &content).unwrap();
    server.ok(&["put", from, "/a"]);
    // A text that was not there.
    let new: Vec<u8> = words(3 << 20).iter().map(u8::to_ascii_uppercase).collect();
    content.splice(100_000..100_000, new);
    fs::write(&local, &content).unwrap();
    server.ok(&["cp", "/a", "/b"]);
    let put = ["put", "--delta", "always", from, "/b"];
    let plain = passed(&server, &relay, &put);
    let put = ["put", "--compress", "--delta", "always", from, "/a"];
    let n = passed(&server, &relay, &put);
    assert!((3 << 20..6 << 20).contains(&plain), "{plain}");
    assert!(n < plain / 2, "{n} of {plain}");
    assert!(server.get("/a") == content);
}
