//! Names in other places than the URI: taken where the CA's setting says so, and nowhere else.

use std::slice::from_ref;

use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Use, SanType};

use super::{CORP, Cases, trust, trusting};
use crate::matrix::{Ca, Pair, named, uris};

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A pair of this CA with these alternative names and this common name.
fn pair(ca: &Ca, common_name: Option<&str>, names: &[SanType]) -> Pair {
    ca.client(|params| {
        params.distinguished_name = common_name.map(named).unwrap_or_default();
        params.subject_alt_names = names.to_vec();
    })
}

fn cases(corp: &Ca, more: &str) -> Cases {
    let settings = trust("corp.pem", "corp.example", more);
    Cases::new(trusting(&[("corp", corp)], &settings))
}

#[test]
fn a_dns_name_is_the_identity_where_the_setting_says_so() {
    let corp = Ca::root("corp root");
    let mut cases = cases(&corp, "identity = \"dns\"");
    let id = "spiffe://corp.example/dns/host-1.corp.example";
    let host = dns("host-1.corp.example");
    cases.is(&pair(&corp, None, from_ref(&host)), id);
    cases.is(&pair(&corp, Some("another"), from_ref(&host)), id);
    cases.is(&pair(&corp, None, &[dns("HOST-1.Corp.example")]), id);

    let none = ["no DNS name", "no other name is used"];
    cases.refused(&pair(&corp, Some("host-1.corp.example"), &[]), &none);
    cases.refused(&corp.client_named(CORP), &none);
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    cases.refused(&pair(&corp, None, from_ref(&address)), &none);
    let two = pair(&corp, None, &[host.clone(), dns("b.example")]);
    cases.refused(&two, &["2 DNS names (host-1.corp.example, b.example)"]);
    let beside = ["other names besides its DNS name"];
    let mail = SanType::Rfc822Name("ann@corp.example".try_into().unwrap());
    for other in [uris(&[CORP]).remove(0), address, mail] {
        cases.refused(&pair(&corp, None, &[host.clone(), other]), &beside);
    }
    for name in ["*.corp.example", "a_b!", "a b", "a\u{7f}b", "%61"] {
        let says = "a character outside";
        cases.refused(&pair(&corp, None, &[dns(name)]), &[says]);
    }
    for name in ["a/b", "../team/ann", "a..b", ".a", "a.", ".", ".."] {
        cases.refused(
            &pair(&corp, None, &[dns(name)]),
            &["DNS name", "cannot be used"],
        );
    }
    let long = format!("{}.example", "x".repeat(240));
    cases.refused(&pair(&corp, None, &[dns(&long)]), &["at most 256"]);
}

#[test]
fn a_common_name_is_the_identity_where_the_setting_says_so() {
    let corp = Ca::root("corp root");
    let mut cases = cases(&corp, "identity = \"cn\"");
    let id = "spiffe://corp.example/cn/ann";
    cases.is(&pair(&corp, Some("ann"), &[]), id);
    cases.is(&pair(&corp, Some("ann"), &[dns("host-1.corp.example")]), id);

    let none = ["no common name", "no other name is used"];
    cases.refused(&pair(&corp, None, &[dns("host-1.corp.example")]), &none);
    cases.refused(&pair(&corp, None, &uris(&[CORP])), &none);
    let both = pair(&corp, Some("ann"), &uris(&[CORP]));
    cases.refused(&both, &["other names besides its common name"]);
    for name in [
        "Ann",
        "a b",
        "*",
        "",
        "ann\0bob",
        "\u{1b}[2J",
        "a\u{301}",
        CORP,
    ] {
        let says = "the certificate's";
        cases.refused(&pair(&corp, Some(name), &[]), &[says, "name"]);
    }
    for name in ["a/b", "../team/ann", "team/ann", "/", "a/"] {
        cases.refused(
            &pair(&corp, Some(name), &[]),
            &["common name", "one part of an identity"],
        );
    }
    for name in [".", ".."] {
        cases.refused(&pair(&corp, Some(name), &[]), &["segment"]);
    }
}

/// rcgen writes one common name only; two are put in by their bytes.
#[test]
fn two_common_names_are_none() {
    let corp = Ca::root("corp root");
    let mut cases = cases(&corp, "identity = \"cn\"");
    let two = corp.client(|params| {
        params.distinguished_name = named("ann");
        params.subject_alt_names = vec![];
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        params.distinguished_name.push(second, "bob");
    });
    cases.refused(&two, &["2 common names (ann, bob)"]);
}

/// Without the setting, and of a CA that has none, a URI is needed, whatever else is there.
#[test]
fn no_other_name_stands_in_for_a_uri() {
    let corp = Ca::root("corp root");
    for more in ["", "identity = \"uri\""] {
        let mut cases = cases(&corp, more);
        let says = ["no URI name"];
        let host = dns("host-1.corp.example");
        cases.refused(&pair(&corp, Some("ann"), &[]), &says);
        cases.refused(&pair(&corp, Some(CORP), from_ref(&host)), &says);
        let ours = &cases.matrix.ca;
        let bare = pair(ours, Some("good"), &[]);
        let named = pair(ours, None, from_ref(&host));
        cases.refused(&bare, &says);
        cases.refused(&named, &says);
        let both = [uris(&[CORP]), vec![host]].concat();
        cases.refused(&pair(&corp, None, &both), &["other names besides its URI"]);
    }
}

/// The setting of one CA is not another's.
#[test]
fn each_ca_has_its_own_source() {
    let (corp, lab) = (Ca::root("corp root"), Ca::root("lab root"));
    let settings = trust("corp.pem", "corp.example", "identity = \"cn\"")
        + &trust("lab.pem", "corp.example", "identity = \"dns\"");
    let mut cases = Cases::new(trusting(&[("corp", &corp), ("lab", &lab)], &settings));
    let host = dns("ann");
    let ann = |ca: &Ca| pair(ca, Some("ann"), from_ref(&host));
    cases.is(&ann(&corp), "spiffe://corp.example/cn/ann");
    cases.is(&ann(&lab), "spiffe://corp.example/dns/ann");
    cases.refused(&ann(&cases.matrix.ca), &["no URI name"]);
    cases.refused(&pair(&lab, Some("ann"), &[]), &["no DNS name"]);
}

/// What SPIRE and others issue is for both sides at once.
#[test]
fn certificates_for_both_sides_are_taken_where_the_setting_says_so() {
    let corp = Ca::root("corp root");
    let uses = |uses: &[Use]| {
        let uses = uses.to_vec();
        corp.client(|params: &mut CertificateParams| {
            params.subject_alt_names = uris(&[CORP]);
            params.extended_key_usages = uses;
        })
    };
    let both = uses(&[Use::ServerAuth, Use::ClientAuth]);
    let more = uses(&[Use::ServerAuth, Use::ClientAuth, Use::Any]);
    let mut with = cases(&corp, "also_servers = true");
    with.is(&both, CORP);
    with.is(&uses(&[Use::ClientAuth]), CORP);
    with.refused(&more, &["for other purposes besides"]);
    with.refused(&uses(&[]), &["no clientAuth"]);
    let hosts = |names: Vec<SanType>| {
        corp.client(|params: &mut CertificateParams| {
            params.subject_alt_names = names;
            params.extended_key_usages = vec![Use::ServerAuth, Use::ClientAuth];
        })
    };
    let host = || dns("host-1.corp.example");
    with.is(&hosts([uris(&[CORP]), vec![host()]].concat()), CORP);
    with.refused(&hosts(vec![host()]), &["no URI name"]);
    let mail = SanType::Rfc822Name("ann@corp.example".try_into().unwrap());
    let mailed = hosts([uris(&[CORP]), vec![mail]].concat());
    with.refused(&mailed, &["other names besides its URI"]);
    let ours = with.matrix.ca.client(|params| {
        params.extended_key_usages = vec![Use::ServerAuth, Use::ClientAuth];
    });
    with.refused(&ours, &["for other purposes besides"]);
    let mut without = cases(&corp, "");
    without.refused(&both, &["for other purposes besides"]);
}

/// Names that are said in a place that nobody looks at are no names.
#[test]
fn an_extension_that_is_not_known_names_nobody() {
    let corp = Ca::root("corp root");
    let mut cases = cases(&corp, "identity = \"dns\"");
    let strange = corp.client(|params| {
        params.subject_alt_names = vec![];
        // The alternative names of the issuer, which holds the DNS name "ann".
        let content = vec![0x30, 5, 0x82, 3, b'a', b'n', b'n'];
        let extension = CustomExtension::from_oid_content(&[2, 5, 29, 18], content);
        params.custom_extensions = vec![extension];
    });
    cases.refused(&strange, &["no DNS name"]);
}
