//! The command line while its files are replaced; a client that is revoked, and one whose files are links
//! that turn elsewhere all at once.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fsvc::client::{CertificateNews, Client, Options};
use fsvc::tls::client::{Files, OwnFiles};

use super::{Ground, followed, serial, serial_of, wait_for_end};
use crate::harness::text;
use crate::matrix::now_plus;
use crate::messages::{LIMIT, runtime};
use crate::relay::Relay;

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.env("FSVC_RETRY_FOR", "30s");
        Self(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Ends it; what it has said on standard error.
    fn said(mut self) -> String {
        self.0.kill().unwrap();
        let mut said = Vec::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_end(&mut said)
            .unwrap();
        text(&said)
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_folder_is_kept_on_the_server_across_the_end_of_a_certificate() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(4));
    let folder = ground.server.directory.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("first"), "1").unwrap();
    let arguments = ["sync", "folder", "fsvc:/f", "--watch"];
    let running = Running::start(&mut ground.server.client("good", &arguments));
    let there = |name: &str| std::fs::read(ground.server.root().join("f").join(name)).is_ok();
    wait_until("the first", || there("first"));
    wait_for_end(&ground);
    std::fs::write(folder.join("second"), "2").unwrap();
    ground.matrix.add("good", &ground.pair(86_400));
    wait_until("the second", || there("second"));
    let said = running.said();
    assert!(said.contains("new certificate files are in use"), "{said}");
}

#[test]
fn a_subscriber_prints_every_message_across_the_end_of_its_certificate() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(4));
    let arguments = ["subscribe", "t", "--since", "0", "--json", "--quiet"];
    let mut running = Running::start(&mut ground.server.client("good", &arguments));
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut say_and_hear = |n: u32| {
        let payload = n.to_string();
        let mut publish = ground.server.client("other", &["publish", "t", "-"]);
        assert!(
            crate::harness::with_input(&mut publish, payload.as_bytes())
                .status
                .success()
        );
        let line = lines.next().unwrap().unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["payload"], n, "{line}");
    };
    say_and_hear(1);
    wait_for_end(&ground);
    ground.matrix.add("good", &ground.pair(86_400));
    (2..5).for_each(say_and_hear);
    // It was asked for silence.
    let said = running.said();
    assert_eq!(said, "");
}

#[test]
fn a_client_that_was_revoked_goes_on_with_its_new_certificate() {
    let mut ground = Ground::new();
    let revoked = ground.pair(86_400);
    ground.matrix.add("good", &revoked);
    let relay = Relay::to(&ground.server.address);
    let mut options = ground.options(LIMIT);
    options.server.clone_from(&relay.address);
    let client = Client::new(options.clone()).unwrap();
    options.retry_for = Duration::ZERO;
    let hasty = Client::new(options).unwrap();
    runtime().block_on(async {
        let before = serial(&client).await;
        hasty.ping().await.unwrap();
        let list = ground
            .matrix
            .ca
            .list(&[&revoked], now_plus(time::Duration::DAY));
        ground.matrix.write("ca.crl", list);
        ground.server.restart();
        relay.turn_to(&ground.server.address);
        client.close().await;
        hasty.close().await;
        let error = hasty.ping().await.unwrap_err();
        assert!(error.is_of_certificate(), "{error:?}");
        assert!(error.to_string().contains("revoked"), "{error}");
        let waiting = client.clone();
        let waiting = tokio::spawn(async move { serial(&waiting).await });
        tokio::task::yield_now().await;
        ground.matrix.add("good", &ground.pair(86_400));
        let now = waiting.await.unwrap();
        assert_ne!(now, before);
        assert_eq!(now, serial_of(&ground));
    });
}

/// Puts a pair where a mounted secret is turned to: all its files change with one rename.
fn turn(directory: &Path, generation: &str, ground: &Ground, seconds: i64) {
    let pair = ground.pair(seconds);
    let at = directory.join(generation);
    std::fs::create_dir(&at).unwrap();
    for (name, content) in [
        ("tls.crt", &pair.chain),
        ("tls.key", &pair.key),
        ("ca.crt", &ground.matrix.ca.pem),
    ] {
        std::fs::write(at.join(name), content).unwrap();
    }
    std::os::unix::fs::symlink(generation, directory.join("..next")).unwrap();
    std::fs::rename(directory.join("..next"), directory.join("..data")).unwrap();
}

#[test]
fn links_that_turn_all_at_once_are_followed() {
    let ground = Ground::new();
    let directory = ground.matrix.path("mounted");
    std::fs::create_dir(&directory).unwrap();
    turn(&directory, "..1", &ground, 86_400);
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), directory.join(name)).unwrap();
    }
    let options = Options {
        files: Files {
            ca: directory.join("ca.crt"),
            own: Some(OwnFiles {
                certificate: directory.join("tls.crt"),
                key: directory.join("tls.key"),
            }),
            server_id: None,
        },
        ..ground.options(Duration::ZERO)
    };
    let (client, news) = followed(Client::new(options).unwrap());
    runtime().block_on(async {
        let mut before = serial(&client).await;
        for n in 2..20 {
            turn(&directory, &format!("..{n}"), &ground, 86_400);
            client.close().await;
            let now = serial(&client).await;
            assert_ne!(now, before);
            before = now;
            let told = news.take();
            assert!(
                matches!(&told[..], [CertificateNews::Changed { .. }]),
                "{told:?}"
            );
        }
    });
}
