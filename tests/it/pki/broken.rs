//! Directories in disorder: each is refused by name or repaired, and a CA is never replaced.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// The run is refused, names `part`, and leaves everything as it was.
#[track_caller]
fn refused(place: &Place, part: &str) -> PkiError {
    let before = tree(&place.dir);
    let error = place.run(&["new.example.com"], &[]).unwrap_err();
    let text = format!("{error} {:?}", error.hint());
    assert!(text.contains(part), "{part:?} is not in {text}");
    assert!(tree(&place.dir) == before, "changed despite {error}");
    error
}

#[test]
fn a_ca_whose_parts_disagree_is_refused() {
    let other = Place::ready();
    for name in [
        "ca-private/ca-key.pem",
        "ca-private/ca-cert.pem",
        "ca.pem",
        "ca.crl",
    ] {
        let place = Place::ready();
        fs::copy(other.path(name), place.path(name)).unwrap();
        let error = refused(&place, name);
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.hint().unwrap().contains("backup"), "{name}");
    }
}

#[test]
fn a_ca_with_a_part_missing_is_refused() {
    for (name, part) in [
        ("ca-private/ca-key.pem", "is not here"),
        ("ca-private/ca-cert.pem", "ca-cert.pem is missing"),
        ("ca-private/index.jsonl", "touch"),
    ] {
        let place = Place::ready();
        place.remove(name);
        refused(&place, part);
    }
    // Without ca.pem as well, the list of issued certificates still tells that there was a CA.
    for name in ["ca-private/ca-key.pem", "ca-private/ca-cert.pem"] {
        let place = Place::ready();
        place.remove("ca-private/ca-key.pem");
        place.remove("ca-private/ca-cert.pem");
        place.remove("ca.pem");
        if name.ends_with("cert.pem") {
            let other = Place::ready();
            fs::copy(
                other.path("ca-private/ca-key.pem"),
                place.path("ca-private/ca-key.pem"),
            )
            .unwrap();
        }
        refused(&place, "is missing");
    }
}

#[test]
fn what_can_be_derived_again_is() {
    for name in [
        "ca.pem",
        "ca.crl",
        "server.pem",
        "server-key.pem",
        "clients/dev.pem",
        "policy.toml",
    ] {
        let place = Place::ready();
        let before = place.read(name);
        place.remove(name);
        let report = place.run(&[], &[]).unwrap();
        assert_eq!(report.ca.state, State::Kept);
        let again = place.read(name);
        assert_eq!(
            again == before,
            ["ca.pem", "policy.toml"].contains(&name),
            "{name}"
        );
        assert!(place.run(&[], &[]).unwrap().is_unchanged(), "{name}");
    }
    let place = Place::ready();
    place.remove("ca.crl");
    place.run(&[], &[]).unwrap();
    assert_eq!(place.read("ca-private/crl-number"), "2\n");
}

#[test]
fn garbage_is_refused_by_name() {
    let place = Place::ready();
    let certificate = place.read("server.pem");
    let key = place.read("server-key.pem");
    let half = &certificate[..certificate.len() / 2];
    let utf16: Vec<u8> = certificate
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let contents: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"hello\n".to_vec(),
        vec![0; 4096],
        half.as_bytes().to_vec(),
        utf16,
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec(),
        [key.as_bytes(), key.as_bytes()].concat(),
        [certificate.as_bytes(), key.as_bytes()].concat(),
    ];
    let names = [
        "ca.pem",
        "ca.crl",
        "ca-private/ca-cert.pem",
        "ca-private/ca-key.pem",
        "server.pem",
        "server-key.pem",
        "clients/dev.pem",
        "clients/dev-key.pem",
    ];
    for name in names {
        let kept = fs::read(place.path(name)).unwrap();
        for content in &contents {
            place.write(name, content);
            refused(&place, name);
        }
        place.write(name, kept);
    }
    place.write("ca-private/crl-number", "many\n");
    place.remove("ca.crl");
    refused(&place, "crl-number");
}

#[test]
fn harmless_variations_of_pem_are_read() {
    for edit in [
        |text: &str| text.replace('\n', "\r\n"),
        |text: &str| format!("Certificate:\n    Data: as openssl -text prints it\n{text}"),
        |text: &str| format!("{text}\n\n\n"),
        |text: &str| format!("\u{feff}{text}"),
    ] {
        let place = Place::ready();
        for name in [
            "ca.pem",
            "ca.crl",
            "server.pem",
            "clients/dev.pem",
            "ca-private/ca-cert.pem",
        ] {
            place.write(name, edit(&place.read(name)));
        }
        assert!(place.run(&[], &[]).unwrap().is_unchanged());
    }
}

/// The server's pair is replaced by other files; the next run renews it for the reason expected.
#[track_caller]
fn renewed(source: &Place, files: &[(&str, &str)], expected: &str) {
    let place = Place::ready();
    for (from, to) in files {
        fs::copy(source.path(from), place.path(to)).unwrap();
    }
    let report = place.run(&[], &[]).unwrap();
    let why = serde_json::to_value(why(&report.server.state)).unwrap();
    assert_eq!(why["why"], expected);
    assert_eq!(
        hosts(&report),
        ["localhost", "127.0.0.1", "::1", "buildbox"]
    );
    assert!(place.run(&[], &[]).unwrap().is_unchanged());
    let archived = fs::read_dir(place.path("ca-private/archive")).unwrap();
    assert_eq!(archived.count(), 1);
}

#[test]
fn a_server_certificate_that_does_not_fit_is_renewed_with_the_reason() {
    let (cert, key) = ("server.pem", "server-key.pem");
    let other = Place::ready();
    renewed(&other, &[(key, key)], "key_mismatch");
    renewed(&other, &[(cert, cert)], "signed_by_other");
    renewed(&other, &[(cert, cert), (key, key)], "signed_by_other");
}

#[test]
fn a_client_certificate_in_the_place_of_the_servers_is_renewed() {
    let place = Place::ready();
    for (from, to) in [
        ("clients/dev.pem", "server.pem"),
        ("clients/dev-key.pem", "server-key.pem"),
    ] {
        fs::copy(place.path(from), place.path(to)).unwrap();
    }
    let report = place.run(&[], &[]).unwrap();
    assert!(matches!(why(&report.server.state), Why::Unfit { .. }));
    assert_eq!(report.clients[0].state, State::Kept);
}

#[test]
fn a_client_under_another_name_is_renewed() {
    let place = Place::ready();
    for (from, to) in [("dev.pem", "eve.pem"), ("dev-key.pem", "eve-key.pem")] {
        fs::rename(
            place.path("clients").join(from),
            place.path("clients").join(to),
        )
        .unwrap();
    }
    let report = place.run(&[], &[]).unwrap();
    assert!(
        matches!(why(&report.clients[0].state), Why::WrongIdentity { found } if found.ends_with("/dev"))
    );
    assert_eq!(report.clients.len(), 1);
}

#[test]
fn a_directory_of_something_else_is_not_written_to() {
    for name in ["server.pem", "main.rs", "clients", "ca.crl"] {
        let place = Place::new();
        fs::create_dir(&place.dir).unwrap();
        place.write(name, "something");
        let error = refused(&place, name);
        assert!(matches!(error, PkiError::Foreign { .. }), "{error}");
    }
}

#[test]
fn links_and_odd_files_are_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    for name in [
        "ca.pem",
        "ca.crl",
        "server.pem",
        "server-key.pem",
        "policy.toml",
        "ca-private/ca-key.pem",
        "ca-private/index.jsonl",
        "clients",
    ] {
        let place = Place::ready();
        let target = elsewhere.path().join(name.replace('/', "-"));
        fs::rename(place.path(name), &target).unwrap();
        symlink(&target, place.path(name)).unwrap();
        refused(&place, "symbolic link");
        fs::remove_file(place.path(name)).unwrap();
        if name == "clients" {
            fs::write(place.path(name), "").unwrap();
            refused(&place, "is a file, not a directory");
        } else {
            fs::create_dir(place.path(name)).unwrap();
            refused(&place, "is a directory, not a file");
        }
    }
    let place = Place::ready();
    let link = place.dir.with_file_name("link");
    symlink(&place.dir, &link).unwrap();
    let error = ensure(&options(&link, &[], &[]), now()).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    let dangling = place.dir.with_file_name("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert!(ensure(&options(&dangling, &[], &[]), now()).is_err());
    assert!(!place.dir.with_file_name("nowhere").is_dir());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    for (name, mode, fix) in [
        ("ca-private/ca-key.pem", 0o640, "chmod 600"),
        ("ca-private", 0o755, "chmod 700"),
        ("server-key.pem", 0o604, "chmod 600"),
        ("clients/dev-key.pem", 0o644, "chmod 600"),
    ] {
        let place = Place::ready();
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
        refused(&place, fix);
    }
}

#[test]
fn a_ca_is_never_changed() {
    let place = Place::ready();
    let before = tree(&place.dir);
    let mut other = place.options(&[], &[]);
    other.trust_domain = Some("acme.internal".to_owned());
    let error = ensure(&other, now()).unwrap_err();
    assert!(
        error.to_string().contains("buildbox.fsvc.internal"),
        "{error}"
    );
    assert!(error.to_string().contains("acme.internal"), "{error}");
    let mut other = place.options(&[], &[]);
    other.ca_days = Some(10);
    let error = ensure(&other, now()).unwrap_err();
    assert!(error.to_string().contains("3650 days"), "{error}");
    let mut same = place.options(&[], &[]);
    same.ca_days = Some(3650);
    same.trust_domain = Some("buildbox.fsvc.internal".to_owned());
    assert!(ensure(&same, now()).unwrap().is_unchanged());
    let error = place.run_at(place.now - days(2)).unwrap_err();
    assert!(error.hint().unwrap().contains("clock"), "{error}");
    assert_eq!(tree(&place.dir), before);
}

#[test]
fn a_certificate_that_is_no_ca_is_refused_as_one() {
    let place = Place::ready();
    for (from, to) in [
        ("server.pem", "ca-private/ca-cert.pem"),
        ("server-key.pem", "ca-private/ca-key.pem"),
    ] {
        fs::copy(place.path(from), place.path(to)).unwrap();
    }
    refused(&place, "not a CA");
}

#[test]
fn a_torn_list_of_issued_certificates_is_continued_and_a_corrupt_one_refused() {
    let place = Place::ready();
    let whole = place.read("ca-private/index.jsonl");
    place.write("ca-private/index.jsonl", format!("{whole}{{\"serial\":\"0"));
    place.run(&[], &["alice"]).unwrap();
    let after = place.read("ca-private/index.jsonl");
    assert!(after.starts_with(&whole) && after.lines().count() == 4);
    place.write("ca-private/index.jsonl", format!("nonsense\n{after}"));
    refused(&place, "line 1");
    // An operator who lost the list starts a new one; the trust domain comes from the server.
    place.write("ca-private/index.jsonl", "");
    let report = place.run(&[], &[]).unwrap();
    assert_eq!(report.trust_domain, "buildbox.fsvc.internal");
    assert!(report.is_unchanged());
}

#[test]
fn options_that_make_no_sense_touch_nothing() {
    let place = Place::new();
    let many: Vec<String> = (0..500).map(|n| format!("h{n}")).collect();
    let edits: [fn(&mut Options); 9] = [
        |o| o.days = 0,
        |o| o.days = 1_000_000_000,
        |o| o.ca_days = Some(0),
        |o| o.hosts = vec!["host:1".to_owned()],
        |o| o.clients = vec!["../x".to_owned()],
        |o| o.trust_domain = Some("Acme".to_owned()),
        |o| o.dir = PathBuf::new(),
        |o| o.dir = PathBuf::from("/"),
        |o| o.hosts = vec![String::new()],
    ];
    for edit in edits {
        let mut options = place.options(&[], &[]);
        edit(&mut options);
        let error = ensure(&options, now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    let mut options = place.options(&[], &[]);
    options.hosts = many;
    assert_eq!(
        ensure(&options, now()).unwrap_err().kind(),
        ErrorKind::Usage
    );
    assert!(!place.dir.is_dir());
}

#[test]
fn odd_places_work() {
    let place = Place::new();
    for name in ["with space", "ünïcode", "a/b/c", "-dash"] {
        let dir = place.dir.join(name);
        let report = ensure(&options(&dir, &[], &[]), now()).unwrap();
        assert_eq!(report.ca.state, State::Made);
        assert!(
            ensure(&options(&dir, &[], &[]), now())
                .unwrap()
                .is_unchanged()
        );
    }
}
