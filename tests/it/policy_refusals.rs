//! Texts that are no policy, and what is said about them.

use std::fmt::Write as _;

use fsvc::policy::{EXPECTATIONS_MAX, GRANTS_MAX, POLICY_SIZE_MAX, Policy};

use crate::policy_suite::{DESIGN, grant};

#[track_caller]
fn refused(text: &str, line: usize, why: &str) {
    let error = Policy::parse(text).unwrap_err().to_string();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
    let line = format!("line {line}: ");
    assert!(error.starts_with(&line), "{error:?} is not at {line:?}");
}

#[test]
fn grants_that_cannot_be_meant_are_refused() {
    let (dev, named) = (r#""spiffe://td/a""#, r#""spiffe://td/{name}""#);
    let read = r#""read""#;
    refused(
        &grant(dev, r#""write""#, r#""/a""#),
        3,
        "write is not an action",
    );
    refused(
        &grant(dev, r#"["read", "x"]"#, r#""/a""#),
        3,
        "x is not an action",
    );
    refused(
        &grant(dev, r#""publish""#, r#""/a""#),
        3,
        "publish applies to topics",
    );
    refused(
        &grant(dev, read, r#""topic:a""#),
        3,
        "read applies to files",
    );
    refused(
        &grant(dev, read, r#"["/a", "topic:a"]"#),
        3,
        "names topics, and no action",
    );
    refused(
        &grant(dev, "[]", r#""/a""#),
        3,
        "\"allow\" is an empty list",
    );
    refused(&grant(dev, read, "[]"), 4, "\"on\" is an empty list");
    refused(&grant("[]", read, r#""/a""#), 2, "\"to\" is an empty list");
    refused(
        &grant(named, read, r#""/a""#),
        2,
        "captures {name}, which \"on\" does not use",
    );
    refused(
        &grant(dev, read, r#""/{x}/a""#),
        2,
        "uses {x}, which spiffe://td/a",
    );
}

#[test]
fn identities_that_cannot_be_meant_are_refused() {
    let to = |to: &str| grant(&format!("{to:?}"), r#""read""#, r#""/a""#);
    refused(&to("spiffe://td/{a}/{a}"), 2, "{a} stands twice");
    refused(&to("spiffe://*/a"), 2, "trust domain has to be written out");
    refused(
        &to("spiffe://{td}/a"),
        2,
        "trust domain has to be written out",
    );
    refused(&to("spiffe://td"), 2, "no path after the trust domain");
    refused(&to("spiffe://td/"), 2, "no path");
    refused(&to("spiffe://td/a/"), 2, "empty, . or .. segment");
    refused(&to("spiffe://td/**/a"), 2, "only be the last segment");
    refused(&to("spiffe://td/A"), 2, "outside a-z");
    refused(&to("td/a"), 2, "does not begin with spiffe://");
    refused(&to("*"), 2, "written out");
}

#[test]
fn names_that_cannot_be_meant_are_refused() {
    let on = |on: &str| grant(r#""spiffe://td/a""#, r#""read""#, &format!("{on:?}"));
    refused(&on("a/b"), 4, "begins with /");
    refused(&on("*"), 4, "begins with /");
    refused(&on(""), 4, "begins with /");
    refused(&on("//"), 4, "empty segment");
    refused(&on("/a//"), 4, "empty segment");
    refused(&on("/a//b"), 4, "empty segment");
    refused(&on("//**"), 4, "empty segment");
    refused(&on("/a/../b"), 4, "segment ..");
    refused(&on("/.fsvc/**"), 4, "belong to the server");
    refused(&on("/a/**/b"), 4, "only be the last segment");
    refused(&on("/a/**/"), 4, "only be the last segment");
    refused(&on("/a/b*"), 4, "stands alone");
    refused(&on("/a/***"), 4, "stands alone");
    refused(&on("/a**"), 4, "stands alone");
    refused(&on("/{a"), 4, "a capture is a whole segment");
    refused(&on("/x{a}"), 4, "a capture is a whole segment");
    refused(&on("/{}"), 4, "a capture is a whole segment");
    refused(&on("/{A}"), 4, "a capture is a whole segment");
    refused(&on("topic:"), 4, "empty");
    refused(&on("topic:/a"), 4, "no leading /");
}

#[test]
fn texts_that_are_no_policy_are_refused() {
    let whole = grant(r#""spiffe://td/a""#, r#""read""#, r#""/a""#);
    refused(
        &format!("{whole}deny = \"/b\"\n"),
        5,
        "unknown field `deny`",
    );
    refused(&format!("{whole}[[deny]]\n"), 5, "unknown field `deny`");
    refused("\n[[grant]]\nto = \"spiffe://td/a\"\n", 2, "missing field");
    refused("[[grant]]\nto = 1\n", 2, "a string or a list of strings");
    refused("[[grant]]\nto = [1]\n", 2, "string");
    refused("[grant]\nto = \"a\"\n", 1, "sequence");
    refused("[[grant]]\nto = \"a\n", 2, "");
    refused("[[grant]]\nto = \"a\"\nto = \"b\"\n", 3, "duplicate key");
    refused("\0", 1, "");
    refused("\u{1b}[2J", 1, "");
    let bomb = "[".repeat(100_000);
    refused(&format!("grant = {bomb}"), 1, "");
    refused(&format!("{} = 1", vec!["a"; 100_000].join(".")), 1, "");
    for empty in ["", "# nothing\n", "grant = []"] {
        let error = Policy::parse(empty).unwrap_err().to_string();
        assert!(error.contains("grants nothing"), "{error}");
        assert!(error.contains("[[grant]]\nto "), "{error}");
    }
}

#[test]
fn a_policy_has_limits() {
    let one = grant(r#""spiffe://td/a""#, r#""read""#, r#""/a""#);
    let error = |text: &str| Policy::parse(text).unwrap_err().to_string();
    let large = format!("{one}#{}", "x".repeat(POLICY_SIZE_MAX));
    assert!(error(&large).contains("bytes, at most"));
    let many = one.repeat(GRANTS_MAX);
    assert_eq!(Policy::parse(&many).unwrap().n_grants(), GRANTS_MAX);
    assert!(error(&format!("{many}{one}")).contains("10001 grants"));
    let mut expecting = one;
    for _ in 0..=EXPECTATIONS_MAX {
        let expect = "[[expect]]\nwho = \"spiffe://td/a\"\ncan = \"read\"\non = \"/a\"\n";
        expecting.write_str(expect).unwrap();
    }
    assert!(error(&expecting).contains("1001 expectations"));
}

fn expecting(expect: &str) -> String {
    format!("{DESIGN}\n[[expect]]\nwho = \"spiffe://acme.internal/client/dev\"\n{expect}\n")
}

#[test]
fn expectations_that_hold_change_nothing() {
    for text in [
        "can = \"read\"\non = \"/home/dev/a\"",
        "can = [\"read\", \"list\"]\ncannot = \"admin\"\non = [\"/home/dev/\", \"/home/dev/a\"]",
        "cannot = [\"publish\", \"read\"]\non = [\"topic:telemetry/x\", \"/inbox/a\"]",
    ] {
        Policy::parse(&expecting(text)).unwrap();
    }
}

#[test]
fn the_first_failing_expectation_refuses_the_policy() {
    let refuses = |text: &str, why: &str| refused(&expecting(text), 17, why);
    refuses(
        "can = \"read\"\non = \"/inbox/a\"",
        "expectation 2: spiffe://acme.internal/client/dev should be able to read /inbox/a, \
         and no grant covers it",
    );
    refuses(
        "cannot = [\"admin\", \"delete\"]\non = \"/home/dev/a\"",
        "should not be able to delete /home/dev/a, and grant 1 (line 2) allows it",
    );
    refuses("on = \"/a\"", "neither \"can\" nor \"cannot\"");
    refuses("can = \"fly\"\non = \"/a\"", "fly is not an action");
    refuses("can = []\non = \"/a\"", "empty list");
    refuses("can = \"read\"\non = []", "read applies to files");
    refuses("can = \"read\"\non = \"/a/*x/../\"", "segment ..");
    refuses(
        "can = \"publish\"\non = \"/a\"",
        "publish applies to topics",
    );
    let wild = DESIGN.replace("client/ingest\"\ncannot", "client/*\"\ncannot");
    refused(&wild, 12, "\"who\" is one identity");
}
