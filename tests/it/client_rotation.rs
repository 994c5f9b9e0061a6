//! Clients that run while their certificate files are replaced: they take the new ones by themselves, and
//! none that are not good; and what they do once their certificate is over.

mod files;
mod programs;
mod strange;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fsvc::client::{
    CertificateNews, Client, ClientError, Observer, Options, PublishOptions, TransferOptions,
};
use fsvc::protocol::{ErrorCode, Start};
use jiff::Timestamp;

use crate::cuts::{Random, path, same};
use crate::harness::{Server, Setup};
use crate::matrix::{Ca, Matrix, Pair, now_plus, uris};
use crate::messages::{LIMIT, event, filters, next, runtime, say, topic};
use crate::relay::Relay;

const POLICY: &str = r#"
    [[grant]]
    to = "spiffe://test.internal/client/*"
    allow = ["list", "read", "create", "replace", "delete"]
    on = "/**"
    [[grant]]
    to = "spiffe://test.internal/client/*"
    allow = ["publish", "subscribe"]
    on = "topic:**"
"#;

/// A server, and the files of the client `good`, which a test replaces.
struct Ground {
    matrix: Matrix,
    server: Server,
}

impl Ground {
    fn new() -> Self {
        let matrix = Matrix::new();
        matrix.add(
            "other",
            &matrix
                .ca
                .client_named("spiffe://test.internal/client/other"),
        );
        let server = Server::start_with(Setup {
            certs: Some(matrix.dir().to_owned()),
            policy: Some(POLICY.to_owned()),
            ..Setup::default()
        });
        Self { matrix, server }
    }

    /// A pair of the client that ends so many seconds from now.
    fn pair(&self, seconds: i64) -> Pair {
        ending(&self.matrix.ca, seconds)
    }

    fn options(&self, retry_for: Duration) -> Options {
        let mut options = Options::from_directory(&self.server.address, self.matrix.dir(), "good");
        options.retry_for = retry_for;
        options
    }

    /// A client whose news are kept.
    fn client(&self, retry_for: Duration) -> (Client, News) {
        followed(Client::new(self.options(retry_for)).unwrap())
    }

    fn certificate(&self) -> PathBuf {
        self.matrix.path("clients/good.pem")
    }
}

fn ending(ca: &Ca, seconds: i64) -> Pair {
    ca.client(|params| params.not_after = now_plus(time::Duration::seconds(seconds)))
}

#[derive(Clone, Default)]
struct News(Arc<Mutex<Vec<CertificateNews>>>);

impl News {
    fn take(&self) -> Vec<CertificateNews> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn followed(client: Client) -> (Client, News) {
    let news = News::default();
    let kept = news.clone();
    client.on_certificates(move |one| kept.0.lock().unwrap().push(one.clone()));
    (client, news)
}

/// The serial number that the server sees.
async fn serial(client: &Client) -> String {
    client.whoami().await.unwrap().serial
}

/// That of a certificate on disk.
fn serial_of(ground: &Ground) -> String {
    let chain = fsvc::tls::client::chain_facts(&ground.certificate()).unwrap();
    chain[0].serial.clone()
}

/// Until a certificate that was just written ends.
fn wait_for_end(ground: &Ground) {
    let chain = fsvc::tls::client::chain_facts(&ground.certificate()).unwrap();
    let until = Instant::now() + LIMIT;
    while Timestamp::now() <= chain[0].not_after {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

/// Tells a test of the first interruption.
#[derive(Default)]
struct Interruptions {
    n_of_certificate: Mutex<usize>,
}

impl Observer for Interruptions {
    fn expect(&self, _size: u64) {}
    fn moved(&self, _size: u64) {}
    fn begin_again(&self) {}
    fn interrupted(&self, why: &ClientError) {
        *self.n_of_certificate.lock().unwrap() += usize::from(why.is_of_certificate());
    }
}

#[test]
fn new_files_are_used_for_the_next_connection() {
    let ground = Ground::new();
    let (client, news) = ground.client(Duration::ZERO);
    runtime().block_on(async {
        let before = serial(&client).await;
        assert_eq!(before, serial_of(&ground));
        ground.matrix.add("good", &ground.pair(86_400));
        let now = serial_of(&ground);
        assert_ne!(before, now);
        // Nobody has looked yet: the kept connection is used.
        assert_eq!(serial(&client).await, before);
        assert_eq!(news.take(), []);
        client.close().await;
        assert_eq!(serial(&client).await, now);
        let changed = CertificateNews::Changed {
            certificate: Some(ground.certificate()),
            expires_at: client.renewal().map(|renewal| renewal.expires_at),
        };
        assert_eq!(news.take(), [changed]);
        // The same files, written anew, are no news.
        let same = std::fs::read(ground.certificate()).unwrap();
        std::fs::write(ground.certificate(), same).unwrap();
        client.close().await;
        assert_eq!(serial(&client).await, now);
        assert_eq!(news.take(), []);
    });
}

#[test]
fn kept_connections_of_a_certificate_near_its_end_are_left_for_a_new_one() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(50));
    let (client, _) = ground.client(Duration::ZERO);
    runtime().block_on(async {
        let before = serial(&client).await;
        ground.matrix.add("good", &ground.pair(86_400));
        let now = serial_of(&ground);
        let until = Instant::now() + LIMIT;
        loop {
            let shown = serial(&client).await;
            if shown == now {
                break;
            }
            assert_eq!(shown, before);
            assert!(Instant::now() < until, "the old certificate is still used");
        }
    });
}

#[test]
fn a_set_that_is_not_good_is_not_used_and_told_of_once() {
    let ground = Ground::new();
    let good = ground.pair(86_400);
    ground.matrix.add("good", &good);
    let (client, news) = ground.client(Duration::ZERO);
    let ca = &ground.matrix.ca;
    let other = ca.client(|_| {});
    let of = |chain: &str, key: &str| Pair {
        chain: chain.to_owned(),
        key: key.to_owned(),
        serial: good.serial.clone(),
    };
    let csr = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
    let early = ca.client(|params| params.not_before = now_plus(time::Duration::HOUR));
    let stranger =
        ca.client(|params| params.subject_alt_names = uris(&["spiffe://test.internal/client/eve"]));
    let cases = [
        (of("", &good.key), "is empty"),
        (of("what?", &good.key), "found no PEM"),
        (of(&good.key, &good.chain), "found PRIVATE KEY"),
        (of(csr, &good.key), "found CERTIFICATE REQUEST"),
        (of(&other.chain, &good.key), "does not belong to"),
        (ending(ca, -60), " expired 2"),
        (early, "is not valid until 2"),
        (ca.server(&["localhost"], |_| {}), "is not for client use"),
        (stranger, "is of spiffe://test.internal/client/eve"),
    ];
    runtime().block_on(async {
        let before = serial(&client).await;
        for (pair, reason) in cases {
            ground.matrix.add("good", &pair);
            for _ in 0..3 {
                client.close().await;
                assert_eq!(serial(&client).await, before, "{reason}");
            }
            let told = news.take();
            let [CertificateNews::Unusable { reason: said, .. }] = &told[..] else {
                panic!("{reason}: {told:?}");
            };
            assert!(said.contains(reason), "{reason:?} not in: {said}");
        }
        // A CA that is none spoils a set as well.
        ground.matrix.add("good", &other);
        ground.matrix.write("ca.pem", &other.chain);
        client.close().await;
        assert_eq!(serial(&client).await, before);
        let told = news.take();
        assert!(
            matches!(&told[..], [CertificateNews::Unusable { reason, .. }] if reason.contains("is not a CA")),
            "{told:?}"
        );
        ground.matrix.write("ca.pem", &ground.matrix.ca.pem);
        client.close().await;
        assert_eq!(serial(&client).await, serial_of(&ground));
        let told = news.take();
        assert!(matches!(&told[..], [CertificateNews::Changed { .. }]), "{told:?}");
    });
}

#[test]
fn a_request_after_the_end_goes_on_with_files_that_come_in_time() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(3));
    let (client, _) = ground.client(LIMIT);
    runtime().block_on(async {
        let before = serial(&client).await;
        wait_for_end(&ground);
        let waiting = client.clone();
        let waiting = tokio::spawn(async move { serial(&waiting).await });
        // It can do nothing yet; it may have asked already, or not.
        tokio::task::yield_now().await;
        ground.matrix.add("good", &ground.pair(86_400));
        let shown = waiting.await.unwrap();
        assert_ne!(shown, before);
        assert_eq!(shown, serial_of(&ground));
    });
}

#[test]
fn a_message_that_was_refused_for_its_certificate_is_sent_again_once() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(3));
    // No patience is needed where the new files are there.
    let (client, _) = ground.client(Duration::ZERO);
    runtime().block_on(async {
        client.ping().await.unwrap();
        wait_for_end(&ground);
        ground.matrix.add("good", &ground.pair(86_400));
        let on = topic("a/b");
        let publish = |text: &'static str| client.publish(&on, text, PublishOptions::default());
        let first = publish("one").await.unwrap().sequence;
        let second = publish("two").await.unwrap().sequence;
        assert_eq!(second, first + 1);
    });
}

#[test]
fn without_new_files_the_error_names_the_file_the_end_and_the_way_out() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(3));
    let (client, _) = ground.client(Duration::ZERO);
    let error = runtime().block_on(async {
        client.ping().await.unwrap();
        wait_for_end(&ground);
        client.ping().await.unwrap_err()
    });
    assert!(error.is_of_certificate(), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::CertificateExpired));
    let (said, hint) = (error.to_string(), error.hint().unwrap());
    let certificate = ground.certificate().display().to_string();
    assert!(said.contains(&certificate), "{said}");
    assert!(said.contains(" expired 2"), "{said}");
    assert!(hint.contains("fsvc certs renew good"), "{hint}");
    // New files that are no good are the other half of the story.
    ground.matrix.write("clients/good.pem", "what?");
    let error = runtime().block_on(client.ping()).unwrap_err().to_string();
    assert!(
        error.contains(" expired 2") && error.contains("found no PEM"),
        "{error}"
    );
}

#[test]
fn a_put_that_takes_longer_than_its_certificate_lives_completes() {
    for comes_late in [false, true] {
        let ground = Ground::new();
        ground.matrix.add("good", &ground.pair(4));
        let relay = Relay::to(&ground.server.address);
        let mut options = ground.options(LIMIT);
        options.server.clone_from(&relay.address);
        let client = Client::new(options).unwrap();
        let content = Random(0x0dd_ba11).content(24 << 20);
        let local = ground.server.directory.path().join("source");
        std::fs::write(&local, &content).unwrap();
        relay.hold_after(6 << 20);
        let observer = Arc::new(Interruptions::default());
        let transfer = TransferOptions {
            observer: Some(Arc::clone(&observer) as _),
            ..TransferOptions::default()
        };
        let putting = client.clone();
        let from = local.clone();
        let put = std::thread::spawn(move || {
            runtime().block_on(async move {
                putting.ping().await?;
                putting.put_file(&from, &path("/long"), transfer).await
            })
        });
        relay.wait_held();
        wait_for_end(&ground);
        if !comes_late {
            ground.matrix.add("good", &ground.pair(86_400));
        }
        relay.release();
        if comes_late {
            let until = Instant::now() + LIMIT;
            while *observer.n_of_certificate.lock().unwrap() == 0 {
                assert!(Instant::now() < until && !put.is_finished());
                std::thread::yield_now();
            }
            ground.matrix.add("good", &ground.pair(86_400));
        }
        put.join().unwrap().unwrap();
        same(&ground.server.root().join("long"), &content);
        assert_eq!(ground.server.staged(), Vec::<String>::new());
    }
}

#[test]
fn a_get_that_takes_longer_than_its_certificate_lives_completes() {
    let ground = Ground::new();
    let content = Random(0xfee1_600d).content(24 << 20);
    std::fs::write(ground.server.directory.path().join("source"), &content).unwrap();
    let put = ground
        .server
        .client("other", &["put", "source", "/long"])
        .output();
    assert!(put.unwrap().status.success());
    ground.matrix.add("good", &ground.pair(4));
    let relay = Relay::to(&ground.server.address);
    let mut options = ground.options(LIMIT);
    options.server.clone_from(&relay.address);
    let client = Client::new(options).unwrap();
    let local = ground.server.directory.path().join("target");
    relay.hold_after(6 << 20);
    let into = local.clone();
    let get = std::thread::spawn(move || {
        runtime().block_on(async move {
            client.ping().await?;
            let options = TransferOptions::default();
            client.get_file(&path("/long"), &into, options).await
        })
    });
    relay.wait_held();
    wait_for_end(&ground);
    ground.matrix.add("good", &ground.pair(86_400));
    relay.release();
    get.join().unwrap().unwrap();
    same(&local, &content);
}

/// Messages from somebody else, to a reader whose certificate ends meanwhile; it is renewed at once, or
/// only after its end.
fn read_across_the_end(comes_late: bool, start: &Start) {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(4));
    // Who moves over in time is never cut, and needs no patience.
    let (client, _) = ground.client(if comes_late { LIMIT } else { Duration::ZERO });
    let writer = Options::from_directory(&ground.server.address, ground.matrix.dir(), "other");
    let writer = Client::new(writer).unwrap();
    let ends = client.renewal().unwrap().expires_at;
    let reading = async {
        let subscribed = client.subscribe(filters(&["t"]), start.clone()).await;
        let mut stream = subscribed.unwrap();
        let (mut seen, mut n) = (Vec::new(), 0);
        let until = Instant::now() + LIMIT;
        // Goes on for a while after the end, when only the new certificate is good.
        let mut n_after = 0;
        while n_after < 20 {
            assert!(Instant::now() < until);
            n_after += usize::from(Timestamp::now() > ends);
            n += 1;
            let sequence = say(&writer, "t", &n.to_string()).await;
            let message = event(&mut stream).await;
            assert_eq!(message.event.sequence, sequence);
            seen.push(String::from_utf8(message.payload).unwrap());
            if let Some(cursor) = &start.cursor {
                client.ack(cursor, sequence).await.unwrap();
            }
        }
        let expected: Vec<String> = (1..=n).map(|n: i32| n.to_string()).collect();
        assert_eq!(seen, expected);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if comes_late {
                wait_for_end(&ground);
            }
            ground.matrix.add("good", &ground.pair(86_400));
        });
        runtime().block_on(reading);
    });
}

#[test]
fn a_reader_moves_over_to_its_new_certificate_before_the_end() {
    read_across_the_end(false, &Start::default());
}

#[test]
fn a_reader_comes_back_with_its_new_certificate_after_the_end() {
    read_across_the_end(true, &Start::default());
}

#[test]
fn a_reader_with_a_cursor_moves_over_too() {
    let start = Start {
        cursor: Some("loader".parse().unwrap()),
        ..Start::default()
    };
    read_across_the_end(false, &start);
}

#[test]
fn a_reader_that_nobody_renews_ends_with_the_reason() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(3));
    let (client, news) = ground.client(Duration::from_secs(1));
    runtime().block_on(async {
        let subscribed = client.subscribe(filters(&["t"]), Start::default()).await;
        let mut stream = subscribed.unwrap();
        let error = loop {
            match next(&mut stream).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is_of_certificate(), "{error:?}");
        assert!(error.to_string().contains(" expired 2"), "{error}");
        assert!(stream.next().await.is_none());
        // That it waited was said once.
        let told = news.take();
        let is_wait = |one: &&CertificateNews| matches!(one, CertificateNews::Waiting { .. });
        assert_eq!(told.iter().filter(is_wait).count(), 1, "{told:?}");
    });
}

#[test]
fn a_reader_stays_where_it_is_while_the_server_does_not_take_the_new_certificate() {
    let ground = Ground::new();
    ground.matrix.add("good", &ground.pair(50));
    let (client, news) = ground.client(Duration::ZERO);
    let writer = Options::from_directory(&ground.server.address, ground.matrix.dir(), "other");
    let writer = Client::new(writer).unwrap();
    runtime().block_on(async {
        let subscribed = client.subscribe(filters(&["t"]), Start::default()).await;
        let mut stream = subscribed.unwrap();
        // Good, but of a CA that the server does not know.
        let stranger = Ca::root("new root");
        ground.matrix.add("good", &ending(&stranger, 86_400));
        let until = Instant::now() + LIMIT;
        let mut n = 0;
        let mut told = Vec::new();
        // It has looked, and tried; and goes on reading on the old connection.
        while !told
            .iter()
            .any(|one| matches!(one, CertificateNews::NotTaken { .. }))
        {
            assert!(Instant::now() < until, "{told:?}");
            n += 1;
            let sequence = say(&writer, "t", &n.to_string()).await;
            assert_eq!(event(&mut stream).await.event.sequence, sequence);
            told.extend(news.take());
        }
        ground.matrix.add("good", &ground.pair(86_400));
        let sequence = say(&writer, "t", "last").await;
        assert_eq!(event(&mut stream).await.event.sequence, sequence);
    });
}
