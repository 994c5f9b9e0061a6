//! Tables of names that are taken and names that are refused.
//!
//! Every refusal is held to its reason, since the reason is what the operator reads.

use super::*;

#[track_caller]
fn host(text: &str, expected: Result<&str, Reason>) {
    let found = text.parse::<Host>().map(|host| host.to_string());
    assert_eq!(
        found.as_deref().map_err(|error| error.reason),
        expected,
        "{text:?}"
    );
}

#[test]
fn hosts_are_taken_in_one_spelling() {
    host("localhost", Ok("localhost"));
    host("LOCALHOST", Ok("localhost"));
    host("files.example.com.", Ok("files.example.com"));
    host("127.0.0.1", Ok("127.0.0.1"));
    host("::1", Ok("::1"));
    host("[::1]", Ok("::1"));
    host("2001:DB8:0::1", Ok("2001:db8::1"));
    host("fe80::1", Ok("fe80::1"));
    host("*.files.example.com", Ok("*.files.example.com"));
    host("*.example.com", Ok("*.example.com"));
    host("xn--bcher-kva.example", Ok("xn--bcher-kva.example"));
    host("3com.example", Ok("3com.example"));
    host(&"a".repeat(63), Ok(&"a".repeat(63)));
    assert!(matches!("10.0.0.7".parse(), Ok(Host::Ip(_))));
}

#[test]
fn unusable_hosts_are_refused_with_their_reason() {
    let long = ["a".repeat(63).as_str(); 4].join(".");
    host("", Err(Reason::Empty));
    host(".", Err(Reason::EmptyLabel));
    host("a..b", Err(Reason::EmptyLabel));
    host(".a", Err(Reason::EmptyLabel));
    host("host:8443", Err(Reason::Port));
    host("127.0.0.1:80", Err(Reason::Port));
    host("[::1]:80", Err(Reason::Port));
    host("[::1", Err(Reason::Character('[')));
    host("[x]", Err(Reason::Character('[')));
    host("[::1]x", Err(Reason::Character('[')));
    host("https://x", Err(Reason::Url));
    host("x/y", Err(Reason::Character('/')));
    host("a_b", Err(Reason::Character('_')));
    host("u@x", Err(Reason::Character('@')));
    host("x\0", Err(Reason::Character('\0')));
    host("x\n", Err(Reason::Character('\n')));
    host("-x", Err(Reason::Edge));
    host("x-", Err(Reason::Edge));
    host(&"a".repeat(64), Err(Reason::LabelTooLong));
    host(&long, Err(Reason::TooLong { max: DNS_SIZE_MAX }));
    host(
        &"a.".repeat(5_000),
        Err(Reason::TooLong { max: DNS_SIZE_MAX }),
    );
    host("*", Err(Reason::Wildcard));
    host("*.", Err(Reason::Wildcard));
    host("*.com", Err(Reason::Wildcard));
    host("*.*.x.y", Err(Reason::Wildcard));
    host("a.*.b", Err(Reason::Wildcard));
    host("a*.b.c", Err(Reason::Wildcard));
    host("fe80::1%eth0", Err(Reason::Zone));
    host("[fe80::1%25eth0]", Err(Reason::Zone));
    host("127.1", Err(Reason::Numeric));
    host("1.2.3.4.5", Err(Reason::Numeric));
    host("256.1.1.1", Err(Reason::Numeric));
    host("0x7f.0x1", Err(Reason::Numeric));
    host("12345", Err(Reason::Numeric));
    host("0.0.0.0", Err(Reason::BindAddress));
    host("::", Err(Reason::BindAddress));
    host("224.0.0.1", Err(Reason::BindAddress));
    host("bücher.example", Err(Reason::NotAscii));
    host("a b", Err(Reason::List));
    host("a,b", Err(Reason::List));
}

#[track_caller]
fn client(text: &str, expected: Result<(), Reason>) {
    let found = text.parse::<ClientName>();
    assert_eq!(
        found.map(|_| ()).map_err(|error| error.reason),
        expected,
        "{text:?}"
    );
}

#[test]
fn client_names_are_file_names_and_path_segments() {
    for name in ["dev", "a", "0", "a.b", "a-b_c.d", "x.", "keys", "key"] {
        client(name, Ok(()));
    }
    client(&"x".repeat(CLIENT_SIZE_MAX), Ok(()));
    let too_long = Err(Reason::TooLong {
        max: CLIENT_SIZE_MAX,
    });
    client(&"x".repeat(CLIENT_SIZE_MAX + 1), too_long);
    client("", Err(Reason::Empty));
    client("..", Err(Reason::Edge));
    client(".hidden", Err(Reason::Edge));
    client("-x", Err(Reason::Edge));
    client("a/b", Err(Reason::Character('/')));
    client("../x", Err(Reason::Character('/')));
    client("a\0b", Err(Reason::Character('\0')));
    client("a\nb", Err(Reason::Character('\n')));
    client("a\u{1b}b", Err(Reason::Character('\u{1b}')));
    client("a\u{202e}b", Err(Reason::NotAscii));
    client("é", Err(Reason::NotAscii));
    client("CON", Err(Reason::UpperCase));
    client("Dev", Err(Reason::UpperCase));
    client("a b", Err(Reason::List));
    client("a,b", Err(Reason::List));
    client("%41", Err(Reason::Character('%')));
    client("*", Err(Reason::Character('*')));
    client("dev-key", Err(Reason::KeySuffix));
    client("server", Err(Reason::Reserved));
    client("ca", Err(Reason::Reserved));
}

#[track_caller]
fn domain(text: &str, expected: Result<(), Reason>) {
    let found = text.parse::<TrustDomain>();
    assert_eq!(
        found.map(|_| ()).map_err(|error| error.reason),
        expected,
        "{text:?}"
    );
}

#[test]
fn trust_domains_are_lower_case_labels() {
    for name in ["acme.internal", "a", "a_b", "buildbox.fsvc.internal"] {
        domain(name, Ok(()));
    }
    let too_long = Err(Reason::TooLong {
        max: TRUST_DOMAIN_SIZE_MAX,
    });
    domain(&"x".repeat(TRUST_DOMAIN_SIZE_MAX + 1), too_long);
    domain("", Err(Reason::Empty));
    domain("Acme.internal", Err(Reason::UpperCase));
    domain("acme:443", Err(Reason::Character(':')));
    domain("%41", Err(Reason::Character('%')));
    domain("spiffe://acme", Err(Reason::Url));
    domain("acme/x", Err(Reason::Character('/')));
    domain("u@acme", Err(Reason::Character('@')));
    domain(".", Err(Reason::Edge));
    domain("..", Err(Reason::Edge));
    domain(".acme", Err(Reason::Edge));
    domain("acme.", Err(Reason::Edge));
    domain("a..b", Err(Reason::EmptyLabel));
    domain("ácme", Err(Reason::NotAscii));
}

#[test]
fn the_longest_names_still_make_an_identity() {
    let domain: TrustDomain = "x".repeat(TRUST_DOMAIN_SIZE_MAX).parse().unwrap();
    let name: ClientName = "y".repeat(CLIENT_SIZE_MAX).parse().unwrap();
    assert_eq!(domain.client(&name).segments().last(), Some(name.as_str()));
    assert_eq!(domain.server().trust_domain(), domain.as_str());
}

#[test]
fn a_refusal_names_the_value_and_the_way_out() {
    let error = "host:8443".parse::<Host>().unwrap_err();
    assert_eq!(error.to_string(), "host host:8443: has a port");
    assert!(error.hint().unwrap().contains("leave it out"));
    let error = "a\u{1b}[31m".parse::<ClientName>().unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}
