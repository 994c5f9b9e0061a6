//! Chains with CAs between, on both sides, and whose word counts in them.

use rcgen::{GeneralSubtree, NameConstraints};
use time::Duration;

use super::{CORP, Cases, serve, trust, trusting};
use crate::harness::text;
use crate::matrix::{Ca, Matrix, named, now_plus};

/// What may come of a chain: the CAs between may sign, and what they sign is of the root's domain.
#[test]
fn what_a_ca_between_signs_is_of_its_roots_domain() {
    let corp = Ca::root("corp root");
    let between = corp.below("corp issuing", |_| {});
    let last = between.below("corp team", |_| {});
    let settings = trust("corp.pem", "corp.example", "");
    let matrix = trusting(&[("corp", &corp)], &settings);
    let lists = [&matrix.ca, &corp, &between, &last].map(Ca::empty_list);
    matrix.write("ca.crl", lists.concat());
    let mut cases = Cases::new(matrix);
    let says = "its CA CN=corp root may name only corp.example, not test.internal";
    let pair = between.client_named(CORP).with(&[&between.pem]);
    cases.is(&pair, CORP);
    let chain: [&[&str]; 3] = [
        &[&last.pem, &between.pem],
        &[&between.pem, &last.pem],
        &[&last.pem, &between.pem, &corp.pem],
    ];
    for between in chain {
        cases.is(&last.client_named(CORP).with(between), CORP);
        cases.refused(&last.client(|_| {}).with(between), &[says]);
    }
    // A CA of another domain that is shown, too, signed nothing.
    let own = cases.matrix.ca.pem.clone();
    let pair = between.client(|_| {}).with(&[&own, &between.pem]);
    cases.refused(&pair, &[says]);
}

/// A root that is trusted, and a CA below it that is trusted for something else.
#[test]
fn the_nearest_trusted_ca_counts() {
    let corp = Ca::root("corp root");
    let lab = corp.below("corp lab", |_| {});
    let below = lab.below("bench", |_| {});
    let settings = trust("corp.pem", "corp.example", "") + &trust("lab.pem", "lab.example", "");
    let matrix = trusting(&[("corp", &corp), ("lab", &lab)], &settings);
    let lists = [&matrix.ca, &corp, &lab, &below].map(Ca::empty_list);
    matrix.write("ca.crl", lists.concat());
    let mut cases = Cases::new(matrix);
    let name = "spiffe://lab.example/bench/1";
    let says = "its CA CN=corp lab may name only lab.example, not corp.example";
    for with in [&[][..], &[&lab.pem], &[&lab.pem, &corp.pem]] {
        let with: Vec<&str> = with.iter().map(|pem: &&String| pem.as_str()).collect();
        cases.is(&lab.client_named(name).with(&with), name);
        cases.refused(&lab.client_named(CORP).with(&with), &[says]);
    }
    let with = [&below.pem, &lab.pem].map(String::as_str);
    cases.is(&below.client_named(name).with(&with), name);
    cases.refused(&below.client_named(CORP).with(&with), &[says]);
    cases.is(&corp.client_named(CORP), CORP);
    let pair = corp.client_named(name);
    cases.refused(&pair, &["may name only corp.example, not lab.example"]);
}

/// TLS goes by another certificate of the trusted CA, up to the root, where the one in the bundle
/// does not serve: it is that CA all the same.
#[test]
fn the_nearest_trusted_ca_counts_whichever_way_tls_goes() {
    let corp = Ca::root("corp root");
    // No URI fits constraints of directory names.
    let lab = corp.below("corp lab", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DirectoryName(named("nobody"))],
            excluded_subtrees: vec![],
        });
    });
    let free = corp.vouch_for(&lab, |params| params.name_constraints = None);
    let settings = trust("corp.pem", "corp.example", "") + &trust("lab.pem", "lab.example", "");
    let mut cases = Cases::new(trusting(&[("corp", &corp), ("lab", &lab)], &settings));
    let name = "spiffe://lab.example/bench/1";
    cases.is(&lab.client_named(name).with(&[&free.chain]), name);
    let says = "its CA CN=corp lab may name only lab.example, not corp.example";
    let pair = lab.client_named(CORP).with(&[&free.chain]);
    cases.refused(&pair, &[says]);
}

/// A CA between that two roots vouch for, one of which takes that back: TLS still finds a way, and
/// that way is the one that counts.
#[test]
fn a_way_that_was_revoked_is_none() {
    let (corp, lab, between) = (
        Ca::root("corp root"),
        Ca::root("lab root"),
        Ca::root("both"),
    );
    let settings = trust("corp.pem", "corp.example", "") + &trust("lab.pem", "lab.example", "");
    let matrix = trusting(&[("corp", &corp), ("lab", &lab)], &settings);
    let (by_corp, by_lab) = (
        corp.vouch_for(&between, |_| {}),
        lab.vouch_for(&between, |_| {}),
    );
    let tomorrow = now_plus(Duration::DAY);
    let lists = [
        matrix.ca.empty_list(),
        corp.list(&[&by_corp], tomorrow),
        lab.empty_list(),
        between.empty_list(),
    ];
    matrix.write("ca.crl", lists.concat());
    let mut cases = Cases::new(matrix);
    let name = "spiffe://lab.example/bench/1";
    for with in [[&by_corp, &by_lab], [&by_lab, &by_corp]] {
        let with = with.map(|pair| pair.chain.as_str());
        cases.is(&between.client_named(name).with(&with), name);
        let says = "its CA CN=lab root may name only lab.example, not corp.example";
        cases.refused(&between.client_named(CORP).with(&with), &[says]);
    }
    let pair = between.client_named(CORP).with(&[&by_corp.chain]);
    let name = cases.add(&pair);
    let output = cases.server.client(&name, &["whoami"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output.stderr).contains("revoked"),
        "{}",
        text(&output.stderr)
    );
}

/// The server's own chain, with what is between and without; clients have the root alone.
#[test]
fn a_server_sends_the_cas_between() {
    let matrix = Matrix::new();
    let root = Ca::root("servers' root");
    let between = root.below("servers' issuing", |_| {});
    let last = between.below("servers' team", |_| {});
    let pair = last.server(&["localhost", "127.0.0.1"], |_| {});
    matrix.write("server-ca.pem", &matrix.ca.pem);
    matrix.write_key("server-key.pem", &pair.key);
    // The clients' bundle and the server's are two, and neither has a CA of the other's.
    matrix.write("ca.pem", &root.pem);
    matrix.write(
        "server.pem",
        pair.clone().with(&[&last.pem, &between.pem]).chain,
    );
    let server = serve(&matrix);
    let good = server.client("good", &["whoami"]).output().unwrap();
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    drop(server);

    matrix.write("server.pem", pair.chain);
    let server = serve(&matrix);
    let good = server.client("good", &["whoami"]).output().unwrap();
    assert_eq!(good.status.code(), Some(5), "{}", text(&good.stderr));
}
