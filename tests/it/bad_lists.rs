//! Revocation lists that are not what they seem: by another CA, of a part, out of their time, of a
//! CA itself, too long.
//!
//! None of them starts a server, and none takes the place of a good one under a running server.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration as Wait, Instant};

use rcgen::{CrlDistributionPoint, KeyUsagePurpose, SerialNumber};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use time::Duration;

use crate::certificates::der::{self, INTEGER, SEQUENCE, wrap};
use crate::certificates::log_with;
use crate::harness::{Server, fsvc, text};
use crate::matrix::{Ca, Matrix, Pair, now_plus};
use crate::raw::Raw;
use crate::reload::{EVERY, n_in_log, until};

/// Longest wait for a server that should not start to say so.
const LIMIT: Wait = Wait::from_secs(20);
const REFUSED: &str = "nothing was read anew";
const HOLDS: &str = "other certificates hold now";
const NUMBER: [u8; 5] = [6, 3, 0x55, 0x1d, 20];
const DELTA: u8 = 27;
const POINT: u8 = 28;
/// Where things stand in the signed part of a list.
const VERSION: usize = 0;
const BEGIN: usize = 3;
const END: usize = 4;
/// Entries of the longest list that is tried: above it stands the limit of the file.
const N_LONG: usize = 100_000;

fn bytes(list: &str) -> Vec<u8> {
    let list = CertificateRevocationListDer::from_pem_slice(list.as_bytes());
    list.unwrap().to_vec()
}

fn pem(der: &[u8]) -> String {
    fsvc::tls::pem::encode("X509 CRL", der)
}

/// The empty list of a CA with its signed part changed, signed again.
fn changed(ca: &Ca, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> String {
    let good = bytes(&ca.empty_list());
    let mut values = der::signed_part(&good);
    change(&mut values);
    pem(&der::sign(ca, &good, &wrap(SEQUENCE, &values.concat())))
}

/// The same with its extensions changed.
fn extended(ca: &Ca, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> String {
    changed(ca, |values| {
        let last = values.last_mut().unwrap();
        let mut extensions = der::each(der::first(der::first(last).content).content);
        change(&mut extensions);
        *last = wrap(0xa0, &wrap(SEQUENCE, &extensions.concat()));
    })
}

fn extension(number: u8, is_critical: bool, content: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical { &[1, 1, 0xff] } else { &[] };
    let oid = [6, 3, 0x55, 0x1d, number];
    wrap(SEQUENCE, &[&oid, critical, &wrap(4, content)].concat())
}

fn with(ca: &Ca, number: u8, is_critical: bool, content: &[u8]) -> String {
    extended(ca, |extensions| {
        extensions.push(extension(number, is_critical, content));
    })
}

/// A list that says where it is to be had, and what it is about.
fn of_part(ca: &Ca, part: &[u8]) -> String {
    let uri = wrap(0x86, b"http://crl.test.internal/a.crl");
    let point = wrap(0xa0, &wrap(0xa0, &uri));
    with(ca, POINT, true, &wrap(SEQUENCE, &[&point, part].concat()))
}

fn is_number(extension: &[u8]) -> bool {
    extension.windows(NUMBER.len()).any(|part| part == NUMBER)
}

type Case = (&'static str, String, &'static str);

/// Lists that are not what a list of this CA should be.
fn odd_forms(ca: &Ca) -> Vec<Case> {
    [odd_makes(ca), odd_parts(ca), odd_fields(ca)].concat()
}

/// Lists that somebody else made.
fn odd_makes(ca: &Ca) -> Vec<Case> {
    let by_another = Ca::root("matrix root").empty_list();
    let mut bent = bytes(&ca.empty_list());
    *bent.last_mut().unwrap() ^= 1;
    let mut behind = bytes(&ca.empty_list());
    behind.extend_from_slice(&[5, 0]);
    let signature = "is not signed by the key of that CA";
    vec![
        ("another key", by_another, signature),
        ("another signature", pem(&bent), signature),
        ("bytes behind", pem(&behind), "is malformed"),
    ]
}

/// Lists that say less, or more, than what this CA revoked.
fn odd_parts(ca: &Ca) -> Vec<Case> {
    let one = [INTEGER, 1, 1];
    let users = wrap(SEQUENCE, &[0x81, 1, 0xff]);
    let entry_of_another = {
        let name = wrap(0xa4, &wrap(SEQUENCE, &[]));
        let more = wrap(SEQUENCE, &extension(29, true, &wrap(SEQUENCE, &name)));
        let serial = wrap(INTEGER, &[7]);
        let time = wrap(0x18, b"20200101000000Z");
        wrap(SEQUENCE, &wrap(SEQUENCE, &[serial, time, more].concat()))
    };
    let of_another = changed(ca, |values| {
        // An empty list may hold the sequence of its entries, too.
        if values.len() > END + 2 {
            values.remove(END + 1);
        }
        values.insert(END + 1, entry_of_another);
    });
    let part = |part: &[u8]| of_part(ca, part);
    let (delta, indirect) = ("is a delta list", "is an indirect list");
    let some = part(&[0x83, 2, 6, 0x40]);
    let no_list = "has no revocation list from it";
    vec![
        ("delta", with(ca, DELTA, true, &one), delta),
        ("mild delta", with(ca, DELTA, false, &one), delta),
        ("indirect", part(&[0x84, 1, 0xff]), indirect),
        ("an entry of another CA", of_another, indirect),
        ("some reasons", some, "for some reasons only"),
        ("no reasons", part(&[0x83, 1, 0]), "for some reasons only"),
        ("no bits", part(&[0x83, 0]), "cannot be used"),
        ("attributes", part(&[0x85, 1, 0xff]), "cannot be used"),
        ("CAs alone", part(&[0x82, 1, 0xff]), no_list),
        (
            "an unclear part",
            with(ca, POINT, true, &users),
            "not clearly about which",
        ),
    ]
}

/// Lists whose fields are not as they must be.
fn odd_fields(ca: &Ca) -> Vec<Case> {
    let nine = [INTEGER, 1, 9];
    let far = wrap(0x18, b"20490101000000Z");
    let unnumbered = extended(ca, |all| all.retain(|one| !is_number(one)));
    let critical = extended(ca, |all| {
        all.retain(|one| !is_number(one));
        all.push(extension(20, true, &nine));
    });
    let early = changed(ca, |values| values[BEGIN] = far);
    let endless = changed(ca, |values| drop(values.remove(END)));
    let old = changed(ca, |values| drop(values.remove(VERSION)));
    let unknown = with(ca, 99, true, &[5, 0]);
    vec![
        ("unknown and critical", unknown, "cannot be used"),
        ("no number", unnumbered, "has no number"),
        ("critical", critical, "its number is marked critical"),
        ("two", with(ca, 20, false, &nine), "it has two numbers"),
        ("early", early, "is not valid until 2049-01-01"),
        ("no end", endless, "does not say when the next one comes"),
        ("version 1", old, "is of version 1"),
    ]
}

/// Lists that are sound, and do not go together with the rest.
fn misfits(ca: &Ca) -> Vec<Case> {
    let day = now_plus(Duration::DAY);
    let newer = ca.numbered_list(2, &[&ca.client(|_| {})], day);
    let none = Ca::root("nobody").empty_list();
    vec![
        (
            "itself",
            ca.numbered_list(9, &[&ca.as_pair()], day),
            "names the CA CN=matrix root",
        ),
        (
            "an old and a new one",
            ca.empty_list() + &newer,
            "two lists of CN=matrix root",
        ),
        ("the other way round", newer + &ca.empty_list(), "two lists"),
        ("of a stranger", none, "has no revocation list from it"),
        ("a certificate", ca.pem.clone(), "expected revocation lists"),
        (
            "a list and a certificate",
            ca.empty_list() + &ca.pem,
            "expected revocation lists",
        ),
        (
            "one that is indented",
            ca.empty_list() + &ca.empty_list().replace("-----BEGIN", " -----BEGIN"),
            "2 PEM items, of which 1 can be read",
        ),
        (
            "too long",
            ca.empty_list() + &"#\n".repeat(9 << 20),
            "at most 16777216 are read",
        ),
    ]
}

/// What becomes of a server with this directory; one that starts is ended after a while.
pub fn serve(matrix: &Matrix) -> Output {
    let mut command = fsvc();
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "error"]);
    command.arg("--tls-dir").arg(matrix.dir());
    command.arg("--root").arg(matrix.path("data"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let limit = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > limit {
            let _ = child.kill();
        }
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap()
}

/// A server does not start with this directory, and says this in a line or two.
#[track_caller]
fn no_start(matrix: &Matrix, name: &str, says: &str) {
    let output = serve(matrix);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
    assert!(stderr.contains(says), "{name}: {says:?} not in: {stderr}");
    let directory = matrix.dir().display().to_string();
    assert!(stderr.contains(&directory), "{name}: {stderr}");
    assert!(stderr.lines().count() <= 2, "{name}: {stderr}");
}

#[test]
fn no_server_starts_with_a_list_that_is_not_what_it_seems() {
    let matrix = Matrix::new();
    for (name, list, says) in [odd_forms(&matrix.ca), misfits(&matrix.ca)].concat() {
        matrix.write("ca.crl", list);
        no_start(&matrix, name, says);
    }
    for good in [matrix.ca.empty_list(), from_minutes(&matrix.ca, 9)] {
        matrix.write("ca.crl", good);
        drop(matrix.serve(&[]));
    }
    matrix.write("ca.crl", from_minutes(&matrix.ca, 12));
    no_start(&matrix, "early", "is not valid until");
}

/// A list by a clock that is ahead.
fn from_minutes(ca: &Ca, minutes: i64) -> String {
    let from = now_plus(Duration::minutes(minutes));
    let (date, clock) = (from.date(), from.time());
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    changed(ca, |values| values[BEGIN] = wrap(0x18, text.as_bytes()))
}

#[test]
fn under_a_running_server_the_good_list_stays_and_one_line_says_why() {
    let matrix = Matrix::new();
    let revoked = matrix.ca.client(|_| {});
    matrix.add("revoked", &revoked);
    let day = now_plus(Duration::DAY);
    matrix.write("ca.crl", matrix.ca.list(&[&revoked], day));
    let server = matrix.serve(&EVERY);
    let mut session = Raw::connect(&server, "good");
    let cases = [odd_forms(&matrix.ca), misfits(&matrix.ca)].concat();
    for (number, (name, list, says)) in (2..).zip(cases) {
        let n_refused = n_in_log(&server, REFUSED);
        matrix.replace("ca.crl", list);
        until(&format!("{name}: {}", server.log()), || {
            n_in_log(&server, REFUSED) > n_refused
        });
        let log = server.log();
        let said = log.lines().rfind(|line| line.contains(REFUSED)).unwrap();
        assert!(said.contains(says), "{name}: {says:?} not in: {said}");
        assert_verdicts(&server, name);
        session.lives();
        // Looked at again and again, and told once.
        for _ in 0..3 {
            server.signal("HUP");
            session.lives();
        }
        assert_eq!(n_in_log(&server, REFUSED), n_refused + 1, "{name}");
        // A good one is taken again.
        let n_held = n_in_log(&server, HOLDS);
        let next = matrix.ca.numbered_list(number, &[&revoked], day);
        matrix.replace("ca.crl", next);
        until("a good list", || n_in_log(&server, HOLDS) > n_held);
    }
}

/// Who was revoked stays out, who was not stays in.
#[track_caller]
fn assert_verdicts(server: &Server, name: &str) {
    for (client, code) in [("good", 0), ("revoked", 5)] {
        let output = server.client(client, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
    }
}

#[test]
fn lists_and_cas_that_do_not_fit_each_other_are_refused() {
    let matrix = Matrix::new();
    let day = now_plus(Duration::DAY);
    let ca = &matrix.ca;
    // A CA below that is trusted by itself, and that the one above it revoked.
    let below = ca.below("below", |_| {});
    matrix.write("ca.pem", ca.pem.clone() + &below.pem);
    let list = ca.list(&[&below.as_pair()], day);
    matrix.write("ca.crl", list + &below.empty_list());
    no_start(&matrix, "a CA below", "names the CA CN=below");
    // A stranger's list of the same certificate is nobody's word.
    let stranger = Ca::root("stranger");
    let list = stranger.list(&[&below.as_pair()], day);
    let lists = ca.empty_list() + &below.empty_list() + &list;
    matrix.write("ca.crl", lists);
    drop(matrix.serve(&[]));
    // Two CAs of one name: a list is one of them's.
    let twin = Ca::root("matrix root");
    matrix.write("ca.pem", ca.pem.clone() + &twin.pem);
    for lists in [
        ca.empty_list(),
        twin.empty_list(),
        ca.empty_list() + &twin.empty_list(),
    ] {
        matrix.write("ca.crl", lists);
        no_start(&matrix, "twins", "ca.pem trusts two CAs with the name");
    }
    // One that may sign certificates and no lists.
    let mute = Ca::root_with("mute", |ca| {
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    matrix.write("ca.pem", ca.pem.clone() + &mute.pem);
    let list = bytes(&Ca::root("mute").empty_list());
    let signed = wrap(SEQUENCE, &der::signed_part(&list).concat());
    let list = pem(&der::sign(&mute, &list, &signed));
    matrix.write("ca.crl", ca.empty_list() + &list);
    no_start(&matrix, "no cRLSign", "may not sign lists (no cRLSign)");
}

#[test]
fn a_list_of_two_parts_is_used_for_both() {
    let matrix = Matrix::new();
    let revoked = matrix.ca.client(|_| {});
    matrix.add("revoked", &revoked);
    let users = parts(&matrix.ca, &revoked, 0x81);
    let cas = of_part(&matrix.ca, &[0x82, 1, 0xff]);
    for lists in [users.clone(), users.clone() + &cas, cas + &users] {
        matrix.write("ca.crl", lists);
        assert_verdicts(&matrix.serve(&[]), "parts");
    }
}

/// A certificate says where its list is to be had: any of the places will do, and no other.
#[test]
fn a_list_of_another_place_says_nothing() {
    let matrix = Matrix::new();
    let at = |places: &[&str]| {
        let points = places.iter().map(|place| CrlDistributionPoint {
            uris: vec![format!("http://crl.internal/{place}")],
        });
        let points = points.collect();
        matrix
            .ca
            .client(|params| params.crl_distribution_points = points)
    };
    let revoked = at(&["a", "u"]);
    matrix.add("revoked", &revoked);
    let cases = [
        ("second", at(&["a", "u"]), 0),
        ("first", at(&["u", "a"]), 0),
        ("nowhere", at(&[]), 0),
        ("elsewhere", at(&["a", "b"]), 5),
    ];
    for (name, pair, _) in &cases {
        matrix.add(name, pair);
    }
    matrix.write("ca.crl", parts(&matrix.ca, &revoked, 0x81));
    let server = matrix.serve(&[]);
    assert_verdicts(&server, "two places");
    for (name, _, code) in cases {
        let output = server.client(name, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
    }
}

/// The list of a CA for a part of its certificates, which revokes this one.
fn parts(ca: &Ca, revoked: &Pair, part: u8) -> String {
    let good = bytes(&ca.list(&[revoked], now_plus(Duration::DAY)));
    let mut values = der::signed_part(&good);
    let last = values.last_mut().unwrap();
    let mut extensions = der::each(der::first(der::first(last).content).content);
    let uri = wrap(0xa0, &wrap(0xa0, &wrap(0x86, b"http://crl.internal/u")));
    let content = wrap(SEQUENCE, &[&uri[..], &[part, 1, 0xff]].concat());
    extensions.push(extension(POINT, true, &content));
    *last = wrap(0xa0, &wrap(SEQUENCE, &extensions.concat()));
    pem(&der::sign(ca, &good, &wrap(SEQUENCE, &values.concat())))
}

#[test]
fn a_long_list_is_read_to_its_end() {
    let matrix = Matrix::new();
    let revoked = matrix.ca.client(|_| {});
    matrix.add("revoked", &revoked);
    let filler = (0..N_LONG).map(|n| Pair {
        serial: SerialNumber::from_slice(&[&[0x55; 12], &n.to_be_bytes()[..]].concat()),
        ..revoked.clone()
    });
    let all: Vec<Pair> = filler.chain([revoked.clone()]).collect();
    let all: Vec<&Pair> = all.iter().collect();
    let list = matrix.ca.list(&all, now_plus(Duration::DAY));
    assert!(list.len() > 4 << 20, "{}", list.len());
    matrix.write("ca.crl", list);
    assert_verdicts(&matrix.serve(&[]), "long");
}

/// What a server would not start with, `certs bundle` does not put in its place.
#[test]
fn no_bundle_takes_a_list_that_a_server_would_refuse() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("certs");
    crate::harness::gen_certs(&dir, &["dev"]);
    let ca = Ca::root("matrix root");
    let write = |name: &str, text: &str| fs::write(scratch.path().join(name), text).unwrap();
    write("ca.pem", &ca.pem);
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let before = (read("ca.pem"), read("ca.crl"));
    for (name, list, says) in odd_forms(&ca) {
        write("ca.crl", &list);
        let output = add(scratch.path());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{name}: {stderr}");
        // The server says more of this one: it could have two lists of one CA.
        let says = if name == "CAs alone" {
            "is about the CAs below it alone"
        } else {
            says
        };
        assert!(stderr.contains(says), "{name}: {says:?} not in: {stderr}");
        assert_eq!((read("ca.pem"), read("ca.crl")), before, "{name}");
    }
    write("ca.crl", &ca.empty_list());
    assert_eq!(add(scratch.path()).status.code(), Some(0));
}

fn add(place: &Path) -> Output {
    let mut command: Command = fsvc();
    command.args(["certs", "bundle", "add", "ca.pem", "--crl", "ca.crl"]);
    command.current_dir(place).output().unwrap()
}

/// The list of a CA that the client sends along is looked at when it does: nobody is let in by it.
#[test]
fn a_list_of_a_ca_between_that_is_not_its_own_lets_nobody_in() {
    let mute = |ca: &mut rcgen::CertificateParams| {
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    };
    let matrix = Matrix::new();
    let between = matrix.ca.below("between", |_| {});
    let silent = matrix.ca.below("silent", mute);
    matrix.add("between", &between.client(|_| {}).with(&[&between.pem]));
    matrix.add("silent", &silent.client(|_| {}).with(&[&silent.pem]));
    let by_silent = {
        let list = bytes(&Ca::root("silent").empty_list());
        let signed = wrap(SEQUENCE, &der::signed_part(&list).concat());
        pem(&der::sign(&silent, &list, &signed))
    };
    let lists = matrix.ca.empty_list() + &by_silent + &Ca::root("between").empty_list();
    matrix.write("ca.crl", lists);
    let server = matrix.serve(&[]);
    for (client, why) in [
        (
            "between",
            "the list of CN=between is not signed by the key of that CA",
        ),
        ("silent", "the list of CN=silent is of a CA that may not"),
    ] {
        let from = server.log().len();
        let output = server.client(client, &["whoami"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{client}: {stderr}");
        assert!(stderr.contains("[TLS17]"), "{client}: {stderr}");
        let log = log_with(&server, from, why);
        assert!(log.contains("code=\"TLS17\""), "{client}: {log}");
    }
    let output = server.client("good", &["whoami"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
