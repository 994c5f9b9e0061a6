//! What a policy grants, and what it says to a question.

use fsvc::identity::{Identity, SpiffeId};
use fsvc::path::{RemotePath, Topic};
use fsvc::policy::{Action, Policy, Target};
use jiff::Timestamp;
use proptest::prelude::*;

pub(crate) const DESIGN: &str = r#"
[[grant]]
to    = "spiffe://acme.internal/client/{name}"
allow = ["list", "read", "create", "replace", "delete"]
on    = "/home/{name}/**"

[[grant]]
to    = ["spiffe://acme.internal/client/ingest"]
allow = ["create", "publish"]
on    = ["/inbox/**", "topic:telemetry/**"]

[[expect]]
who   = "spiffe://acme.internal/client/ingest"
cannot = ["read", "delete"]
on    = "/inbox/a.json"
"#;

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn client(name: &str) -> SpiffeId {
    id(&format!("spiffe://acme.internal/client/{name}"))
}

pub(crate) fn grant(to: &str, allow: &str, on: &str) -> String {
    format!("[[grant]]\nto = {to}\nallow = {allow}\non = {on}\n")
}

fn reading(on: &str) -> Policy {
    let text = grant(
        r#""spiffe://acme.internal/client/dev""#,
        r#"["read", "list"]"#,
        on,
    );
    Policy::parse(&text).unwrap()
}

#[track_caller]
fn answers(policy: &Policy, who: &str, action: &str, on: &str, expected: bool) {
    let verdict = policy.ask(&client(who), action, on).unwrap();
    assert_eq!(
        verdict.is_allowed, expected,
        "{who} {action} {on}: {verdict:?}"
    );
    let target: Target = on.parse().unwrap();
    let action: Action = action.parse().unwrap();
    assert_eq!(policy.may(&client(who), action, &target), expected);
}

#[test]
fn the_design_example_grants_what_it_says() {
    let policy = Policy::parse(DESIGN).unwrap();
    assert_eq!(policy.n_grants(), 2);
    // Who is meant is counted, whatever may be done: the one pattern, and the name.
    for (who, n) in [("ingest", 2), ("ann", 1), ("ann/x", 0)] {
        assert_eq!(policy.n_grants_to(&client(who)), n, "{who}");
    }
    let stranger = id("spiffe://other.internal/client/ann");
    assert_eq!(policy.n_grants_to(&stranger), 0);
    answers(&policy, "dev", "read", "/home/dev/a", true);
    answers(&policy, "dev", "list", "/home/dev/", true);
    answers(&policy, "dev", "list", "/home/dev/deep/er/", true);
    answers(&policy, "dev", "read", "/home/dev", false);
    answers(&policy, "dev", "list", "/home/", false);
    answers(&policy, "dev", "list", "/", false);
    answers(&policy, "dev", "read", "/home/ops/a", false);
    answers(&policy, "dev", "read", "/home/devel/a", false);
    answers(&policy, "dev", "admin", "/home/dev/", false);
    answers(&policy, "dev", "create", "/inbox/a", false);
    answers(&policy, "ingest", "create", "/inbox/a.json", true);
    answers(&policy, "ingest", "replace", "/inbox/a.json", false);
    answers(&policy, "ingest", "publish", "topic:telemetry/a/b", true);
    answers(&policy, "ingest", "publish", "topic:telemetry", false);
    answers(&policy, "ingest", "publish", "topic:other", false);
    answers(&policy, "ingest", "subscribe", "topic:telemetry/a", false);
    answers(&policy, "ingest/x", "create", "/inbox/a.json", false);
}

#[test]
fn another_trust_domain_is_another_world() {
    let policy = Policy::parse(DESIGN).unwrap();
    let stranger = id("spiffe://acme.internal.evil/client/dev");
    assert!(
        !policy
            .ask(&stranger, "read", "/home/dev/a")
            .unwrap()
            .is_allowed
    );
}

#[track_caller]
fn covers(on: &str, covered: &[&str], not_covered: &[&str]) {
    let policy = reading(&format!("\"{on}\""));
    for name in covered {
        answers(&policy, "dev", "read", name, true);
    }
    for name in not_covered {
        answers(&policy, "dev", "read", name, false);
    }
    answers(&policy, "other", "read", "/a", false);
}

#[test]
fn patterns_cover_whole_segments() {
    covers("/**", &["/", "/a", "/a/", "/a/b"], &[]);
    covers("/", &["/"], &["/a", "/a/"]);
    covers("/a", &["/a"], &["/", "/a/", "/a/b", "/ab"]);
    covers("/a/", &["/a/"], &["/a", "/a/b", "/a/b/", "/"]);
    covers("/a/*", &["/a/b"], &["/a", "/a/", "/a/b/", "/a/b/c"]);
    covers("/a/*/", &["/a/b/"], &["/a/", "/a/b", "/a/b/c/"]);
    covers("/*/b", &["/a/b", "/x/b"], &["/b", "/a/c", "/a/b/c"]);
    covers(
        "/team-a/**",
        &["/team-a/x", "/team-a/"],
        &["/team-ab/x", "/team-ab/", "/team-a", "/team/a/x"],
    );
    covers("/a/*/**", &["/a/b/c", "/a/b/"], &["/a/b", "/a/"]);
}

#[test]
fn a_captured_value_is_one_literal_segment() {
    let text = grant(
        r#""spiffe://acme.internal/client/{team}/{name}""#,
        r#""read""#,
        r#"["/{team}/{name}/**", "/log/{name}"]"#,
    );
    let policy = Policy::parse(&text).unwrap();
    answers(&policy, "a/b", "read", "/a/b/c", true);
    answers(&policy, "a/b", "read", "/log/b", true);
    answers(&policy, "a/b", "read", "/b/a/c", false);
    answers(&policy, "a/b", "read", "/a/c/c", false);
    answers(&policy, "a", "read", "/a/b/c", false);
    // These can be in an identity, but not in a name.
    let policy = Policy::parse(DESIGN).unwrap();
    for name in [".fsvc", "x."] {
        answers(&policy, name, "list", "/home/", false);
        answers(&policy, name, "read", "/home/x/a", false);
    }
}

#[test]
fn everyone_of_a_trust_domain_can_be_meant() {
    let text = grant(
        r#"["spiffe://acme.internal/client/*", "spiffe://acme.internal/service/**"]"#,
        r#""read""#,
        r#""/public/**""#,
    );
    let policy = Policy::parse(&text).unwrap();
    let may = |who: &str| policy.ask(&id(who), "read", "/public/a").unwrap();
    assert!(may("spiffe://acme.internal/client/dev").is_allowed);
    assert!(!may("spiffe://acme.internal/client/dev/x").is_allowed);
    assert!(may("spiffe://acme.internal/service/a/b").is_allowed);
    assert!(!may("spiffe://acme.internal/service").is_allowed);
    assert!(!may("spiffe://other/service/a").is_allowed);
}

#[test]
fn a_permit_names_what_was_asked_and_a_denial_says_why() {
    let policy = Policy::parse(DESIGN).unwrap();
    let identity = Identity {
        id: client("dev"),
        serial: "00".to_owned(),
        ca: "CN=test".to_owned(),
        valid_from: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::MAX,
    };
    let path: RemotePath = "/home/dev/a".parse().unwrap();
    let permit = policy.authorize(&identity, Action::Delete, &path).unwrap();
    assert_eq!(permit.identity(), &identity);
    assert_eq!(
        (permit.action(), permit.resource()),
        (Action::Delete, &path)
    );
    let path: RemotePath = "/a/b".parse().unwrap();
    let denied = policy.authorize(&identity, Action::Delete, &path);
    assert_eq!(
        denied.unwrap_err().to_string(),
        "spiffe://acme.internal/client/dev may not delete /a/b: no grant covers it"
    );
    let topic: Topic = "a/b".parse().unwrap();
    let denied = policy.authorize(&identity, Action::Publish, &topic);
    assert_eq!(denied.unwrap_err().on, "topic:a/b");
}

#[test]
fn explanations_name_the_grant_and_its_line() {
    let policy = Policy::parse(DESIGN).unwrap();
    let explained = |who: &str, on: &str| policy.ask(&client(who), "create", on).unwrap().reason;
    assert_eq!(
        explained("ingest", "/inbox/a"),
        "spiffe://acme.internal/client/ingest may create /inbox/a: grant 2 (line 7) covers it"
    );
    assert!(explained("dev", "/home/dev/a").contains("grant 1 (line 2) covers it"));
    assert!(explained("dev", "/inbox/a").ends_with("no grant covers it"));
    let error = |action, on| policy.ask(&client("dev"), action, on).unwrap_err();
    assert!(error("write", "/a").to_string().contains("not an action"));
    assert!(error("read", "a").to_string().contains("begins with /"));
    let error = error("publish", "/a").to_string();
    assert_eq!(error, "publish applies to topics, /a is none of them");
}

/// The rules of matching as they are told, by recursion over both lists of segments.
fn told(pattern: &[&str], name: &[&str], captured: &str, is_directory: bool) -> bool {
    match (pattern, name) {
        (["**"], []) => is_directory,
        (["**"], _) | ([], []) => true,
        ([], _) | (_, []) => false,
        ([first, pattern @ ..], [segment, name @ ..]) => {
            let fits = match *first {
                "*" => true,
                "{c}" => *segment == captured,
                literal => literal == *segment,
            };
            fits && told(pattern, name, captured, is_directory)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn matching_is_as_it_is_told(
        pattern in proptest::collection::vec("a|ab|b|\\*|\\{c\\}", 0..4),
        pattern_end in "|/|/\\*\\*",
        name in proptest::collection::vec("a|ab|b", 0..5),
        is_directory in any::<bool>(),
        captured in "a|ab|x",
    ) {
        let is_directory = is_directory || name.is_empty();
        let on = match (pattern.is_empty(), pattern_end.as_str()) {
            (true, "") => "/".to_owned(),
            (true, end) => end.to_owned(),
            (false, end) => format!("/{}{end}", pattern.join("/")),
        };
        // A second pattern uses the capture, and covers nothing that is asked for here.
        let to = r#""spiffe://acme.internal/client/{c}""#;
        let policy = Policy::parse(&grant(to, "\"read\"", &format!("[\"{on}\", \"/z/{{c}}\"]")));
        let policy = policy.unwrap();
        let asked = match (name.is_empty(), is_directory) {
            (true, _) => "/".to_owned(),
            (false, true) => format!("/{}/", name.join("/")),
            (false, false) => format!("/{}", name.join("/")),
        };
        let mut rules: Vec<&str> = pattern.iter().map(String::as_str).collect();
        let segments: Vec<&str> = name.iter().map(String::as_str).collect();
        let expected = if on.ends_with("**") {
            rules.push("**");
            told(&rules, &segments, &captured, is_directory)
        } else {
            on.ends_with('/') == is_directory && told(&rules, &segments, &captured, is_directory)
        };
        let verdict = policy.ask(&client(&captured), "read", &asked).unwrap();
        prop_assert_eq!(verdict.is_allowed, expected, "{} on {}", on, asked);
    }

    #[test]
    fn without_a_grant_there_is_no_right(
        segments in proptest::collection::vec("[a-z]{1,3}", 1..4),
        who in "[a-z]{1,3}",
        action in 0..Action::ALL.len(),
    ) {
        let policy = reading(r#""/granted/**""#);
        let action = Action::ALL[action];
        let name = segments.join("/");
        let on = match action {
            Action::Publish | Action::Subscribe => format!("topic:{name}"),
            _ => format!("/other/{name}"),
        };
        prop_assert!(!policy.ask(&client(&who), action.as_str(), &on).unwrap().is_allowed);
    }

    #[test]
    fn no_text_ends_the_process(text in "[\\[\\]a-z=\"\n{}/*. ]{0,80}") {
        let _answer = Policy::parse(&text);
        let _answer = Policy::parse(&grant("\"spiffe://td/a\"", "\"read\"", &format!("{text:?}")));
        let _answer = Policy::parse(&grant(&format!("{text:?}"), "\"read\"", "\"/a\""));
    }
}
