//! Names that are no identity, and identities that have no rights.
//!
//! A name that could be read in two ways is no name.

use rcgen::{DnType, SanType};

use super::Cases;
use crate::matrix::{GOOD, Matrix, named, uris};

#[test]
fn names_that_are_no_identity_are_refused_by_the_profile() {
    let mut cases = Cases::new(Matrix::new());
    let nothing = |common_name: &str| {
        let name = named(common_name);
        cases.matrix.ca.client(|params| {
            params.distinguished_name = name;
            params.subject_alt_names = vec![];
        })
    };
    let with = |names: Vec<SanType>| {
        cases
            .matrix
            .ca
            .client(|params| params.subject_alt_names = names)
    };
    let dns = SanType::DnsName("good.test.internal".try_into().unwrap());
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    let mail = SanType::Rfc822Name("good@test.internal".try_into().unwrap());
    let beside = |name: SanType| [uris(&[GOOD]), vec![name]].concat();
    let many: Vec<String> = (0..5_000).map(|n| format!("spiffe://t/{n}")).collect();
    let several: Vec<String> = (0..50).map(|n| format!("spiffe://t/{n}")).collect();
    let many = many.iter().map(String::as_str).collect::<Vec<_>>();
    let several = uris(&several.iter().map(String::as_str).collect::<Vec<_>>());
    let (many, more) = (with(uris(&many[..2_000])), with(uris(&many)));
    let pairs = [
        (nothing("good"), "no URI name"),
        (nothing(GOOD), "no URI name"),
        (nothing(""), "no URI name"),
        (nothing("good\0evil"), "no URI name"),
        (nothing("good\n\u{1b}[2Jevil"), "no URI name"),
        (
            with(uris(&[GOOD, "spiffe://test.internal/client/evil"])),
            "2 URI names",
        ),
        (with(uris(&[GOOD, GOOD])), "2 URI names"),
        (with(several), "50 URI names"),
        (with(beside(dns.clone())), "other names besides its URI"),
        (with(beside(address)), "other names besides its URI"),
        (with(beside(mail)), "other names besides its URI"),
        (with(vec![dns]), "no URI name"),
    ];
    for (pair, says) in pairs {
        cases.refused(&pair, says, says);
    }
    cases.refused(&many, "the chain has", "at most 4 and 16384 are taken");
    cases.refused_by_both(&more, "closed the connection before", "TLS22");
}

#[test]
fn uris_that_could_be_read_in_two_ways_are_refused() {
    const OUTSIDE: &str = "a character outside";
    const SCHEME: &str = "does not begin with spiffe://";
    const SEGMENT: &str = "an empty, . or .. segment";
    let mut cases = Cases::new(Matrix::new());
    let (long, longer) = ("x".repeat(300), "x".repeat(4_096));
    for (uri, says) in [
        ("spiffe://test.internal/client/*", OUTSIDE),
        ("spiffe://test.internal/client/Good", OUTSIDE),
        ("spiffe://TEST.internal/client/good", OUTSIDE),
        ("SPIFFE://test.internal/client/good", SCHEME),
        ("https://test.internal/client/good", SCHEME),
        ("good", SCHEME),
        ("", SCHEME),
        ("spiffe://test.internal/client/../good", SEGMENT),
        ("spiffe://test.internal/./client/good", SEGMENT),
        ("spiffe://test.internal//client/good", SEGMENT),
        ("spiffe://test.internal/client/good/", SEGMENT),
        ("spiffe://test.internal/client/good?x=1", OUTSIDE),
        ("spiffe://test.internal/client/good#x", OUTSIDE),
        ("spiffe://test.internal/client/%67ood", OUTSIDE),
        ("spiffe://test.internal/client/%2e%2e/good", OUTSIDE),
        ("spiffe://user@test.internal/client/good", OUTSIDE),
        ("spiffe://test.internal:7443/client/good", OUTSIDE),
        ("spiffe://test.internal/client/good\0evil", OUTSIDE),
        (
            "spiffe://test.internal/client/good\r\n\u{1b}]0;x\u{7}",
            OUTSIDE,
        ),
        ("spiffe://test.internal", "has no path"),
        ("spiffe:///client/good", "trust domain"),
        (&format!("{GOOD}{long}"), "at most 256 are allowed"),
        (&format!("{GOOD}{longer}"), "at most 256 are allowed"),
    ] {
        let pair = cases.matrix.ca.client_named(uri);
        cases.refused(&pair, says, says);
    }
}

#[test]
fn others_who_are_someone_get_in_without_rights() {
    let mut cases = Cases::new(Matrix::new());
    let foreign = "spiffe://elsewhere.internal/client/good";
    let pair = cases.matrix.ca.client_named(foreign);
    cases.without_rights(&pair, foreign);
    let near = "spiffe://test.internal/client/good2";
    let pair = cases.matrix.ca.client_named(near);
    cases.without_rights(&pair, near);
    let server = "spiffe://test.internal/server/good";
    let pair = cases.matrix.ca.client_named(server);
    cases.without_rights(&pair, server);
    // The common name counts for nothing, whatever it holds.
    let pair = cases.matrix.ca.client(|params| {
        params.subject_alt_names = uris(&[near]);
        params.distinguished_name = named("good\0\n\u{1b}[2J");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "admin");
    });
    cases.without_rights(&pair, near);
}
