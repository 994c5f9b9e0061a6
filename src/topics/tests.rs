//! What an operator and a publisher see of the rules; each table says input and outcome.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;

const DEFAULTS: Retention = Retention {
    age: Duration::from_secs(60),
    size: 1_000,
};
fn parse_with(text: &str, schema: &str) -> Result<Topics, TopicsError> {
    Topics::parse(text, DEFAULTS, |name| match name {
        "s.json" => Ok(schema.as_bytes().to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

pub(super) fn with_schema(schema: &str) -> Result<Topics, TopicsError> {
    parse_with("[[topic]]\nname = \"**\"\nschema = \"s.json\"\n", schema)
}

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

#[track_caller]
fn refused(text: &str, why: &str) {
    let error = parse_with(text, "{}").unwrap_err().to_string();
    assert!(error.starts_with(why), "{error:?} is not {why:?}");
}

#[track_caller]
pub(super) fn schema_refused(schema: &str, why: &str) {
    let error = with_schema(schema).unwrap_err().to_string();
    assert!(
        error.starts_with("line 3: topic 1: schema s.json: "),
        "{error}"
    );
    assert!(error.contains(why), "{error:?} does not say {why:?}");
}

#[track_caller]
pub(super) fn misfit(schema: &str, message: &str, pointer: &str, why: &str) {
    let topics = with_schema(schema).unwrap();
    let error = topics.check(&topic("a"), message.as_bytes()).unwrap_err();
    assert_eq!(error.pointer, pointer, "{error}");
    assert!(error.reason.contains(why), "{error:?} does not say {why:?}");
}

#[track_caller]
pub(super) fn fits(schema: &str, message: &str) {
    let topics = with_schema(schema).unwrap();
    assert_eq!(topics.check(&topic("a"), message.as_bytes()), Ok(()));
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let entry = "[[topic]]\nname = \"a\"\nkeep = \"1d\"\n";
    refused("x = 1", "line 1: unknown field `x`, expected `topic`");
    refused(
        "[[topic]]\nname = \"a\"\nkep = \"1d\"",
        "line 3: unknown field `kep`",
    );
    refused("[[topic]]\nkeep = \"1d\"", "line 1: missing field `name`");
    refused("[[topic]]\nname = 7", "line 2: invalid type");
    refused(
        "[[topic]]\nname = \"a\"",
        "line 2: topic 1: it says nothing about its topics",
    );
    refused(
        "\n[[topic]]\nname = []\nkeep = \"1d\"",
        "line 3: topic 1: \"name\" is an empty list",
    );
    refused(
        "[[topic]]\nname = \"a/\"\nkeep = \"1d\"",
        "line 2: topic 1: a/: the name has an empty",
    );
    refused(
        "[[topic]]\nname = \"**/a\"\nkeep = \"1d\"",
        "line 2: topic 1: **/a: ** can only be",
    );
    for keep in ["", "0s", "-1d", "7", "1 month", "ever"] {
        let text = format!("[[topic]]\nname = \"a\"\nkeep = \"{keep}\"");
        refused(
            &text,
            &format!("line 3: topic 1: \"keep\" is {keep}, which is no time"),
        );
    }
    for size in ["", "0", "-1", "1 XB", "much"] {
        let text = format!("[[topic]]\nname = \"a\"\nkeep_size = \"{size}\"");
        refused(
            &text,
            &format!("line 3: topic 1: \"keep_size\" is {size}, which is no size"),
        );
    }
    refused(
        &entry.repeat(2),
        "line 5: topic 2: a stands already at line 2, which alone decides",
    );
    refused(
        "[[topic]]\nname = [\"a\", \"b\", \"a\"]\nkeep = \"1d\"",
        "line 2: topic 1: a stands already at line 2",
    );
    refused(
        "[[topic]]\nname = \"a\"\nschema = \"\\u001bx\"",
        r"line 3: topic 1: schema \u{1b}x: cannot be read: entity not found",
    );
}

#[test]
fn limits_of_a_file_hold() {
    refused(
        &"#".repeat(TOPICS_FILE_SIZE_MAX + 1),
        "the file has 1048577 bytes",
    );
    let mut text = String::new();
    for number in 0..=RULES_MAX {
        write!(text, "[[topic]]\nname = \"a/{number}\"\nkeep = \"1d\"\n").unwrap();
    }
    refused(&text, "the file has 1001 entries, at most 1000 are allowed");
    let names: Vec<String> = (0..=NAMES_MAX).map(|n| format!("\"{n}\"")).collect();
    let text = format!("[[topic]]\nname = [{}]\nkeep = \"1d\"", names.join(","));
    refused(&text, "the file has more than 10000 names");
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(SCHEMA_SIZE_MAX));
    schema_refused(&large, "it has 262156 bytes, at most 262144 are allowed");
}

#[test]
fn the_first_entry_that_matches_decides_alone() {
    let text = r#"
        [[topic]]
        name = ["a/b", "x/*"]
        keep = "7d"
        [[topic]]
        name = "a/**"
        keep = "1h 30m"
        keep_size = "1GiB"
        schema = "s.json"
        [[topic]]
        name = "**"
        keep_size = "2kB"
    "#;
    let topics = parse_with(text, "false").unwrap();
    let check = |name: &str, age_secs: u64, size: u64, has_schema: bool| {
        let age = Duration::from_secs(age_secs);
        assert_eq!(
            topics.retention(&topic(name)),
            Retention { age, size },
            "{name}"
        );
        assert_eq!(topics.has_schema(&topic(name)), has_schema, "{name}");
        assert_eq!(
            topics.check(&topic(name), b"1").is_err(),
            has_schema,
            "{name}"
        );
    };
    check("a/b", 7 * 86_400, DEFAULTS.size, false);
    check("x/y", 7 * 86_400, DEFAULTS.size, false);
    check("a/c", 5_400, 1 << 30, true);
    check("z", DEFAULTS.age.as_secs(), 2_000, false);
}

#[test]
fn without_rules_the_defaults_hold() {
    for topics in [Topics::none(DEFAULTS), parse_with("# none\n", "").unwrap()] {
        assert_eq!(topics.retention(&topic("a")), DEFAULTS);
        assert_eq!(topics.check(&topic("a"), b"\xff no JSON"), Ok(()));
        assert!(!topics.has_schema(&topic("a")));
    }
}

#[test]
fn one_file_is_loaded_once() {
    let text = "[[topic]]\nname = \"a\"\nschema = \"s\"\n[[topic]]\nname = \"b\"\nschema = \"s\"\n";
    let mut n_loads = 0;
    let load = |_: &str| {
        n_loads += 1;
        Ok(b"true".to_vec())
    };
    Topics::parse(text, DEFAULTS, load).unwrap();
    assert_eq!(n_loads, 1);
}

#[test]
fn a_misfit_says_where() {
    let schema = r#"{"type":"object","required":["t"],"additionalProperties":false,"properties":
        {"t":{"type":"number","minimum":-273.15},"a/b":{"items":{"type":"string"}},"\u001b":{"type":"null"}}}"#;
    fits(schema, r#"{"t":-1.5e1,"a/b":["x"]}"#);
    misfit(schema, r#"{"t":-300}"#, "/t", "less than the minimum");
    misfit(
        schema,
        r#"{"t":1,"a/b":["x",1]}"#,
        "/a~1b/1",
        "not of type \"string\"",
    );
    misfit(
        schema,
        r#"{"t":1,"\u001b":1}"#,
        r"/\u{1b}",
        "not of type \"null\"",
    );
    misfit(schema, "{}", "", "\"t\" is a required property");
    misfit(schema, "7", "", "not of type \"object\"");
    misfit(
        schema,
        r#"{"t":1,"t":1}"#,
        "",
        "not JSON: the key \"t\" stands twice",
    );
    misfit(schema, "{", "", "not JSON: EOF");
    misfit(schema, "{}{}", "", "not JSON: trailing");
    misfit(
        "true",
        &"[".repeat(MESSAGE_DEPTH_MAX + 1),
        "",
        "nested deeper than 32",
    );
    let deep = "[".repeat(MESSAGE_DEPTH_MAX) + &"]".repeat(MESSAGE_DEPTH_MAX);
    fits("true", &deep);
    let error = with_schema(schema)
        .unwrap()
        .check(&topic("a"), b"{\"t\":\"secret\"}");
    let text = error.unwrap_err().to_string();
    assert!(
        text.starts_with("the message does not fit the topic's schema at /t: "),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn the_draft_is_what_the_schema_says() {
    // A list of items means the first ones in draft 7, and is nothing in 2020-12.
    let items =
        r#"{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"null"}]}"#;
    misfit(items, "[1]", "/0", "not of type \"null\"");
    misfit(
        r#"{"prefixItems":[{"type":"null"}]}"#,
        "[1]",
        "/0",
        "not of type",
    );
    schema_refused(
        r#"{"$schema":"https://example.com/own"}"#,
        "is no known draft",
    );
    schema_refused(r#"{"items":[{}]}"#, "at \"/items\": ");
    schema_refused("7", "at \"\": ");
    schema_refused(
        "{\"a\":1,\"a\":1}",
        "it is not JSON: the key \"a\" stands twice",
    );
    schema_refused("", "it is not JSON: EOF");
}

#[test]
fn a_reference_stays_in_its_document() {
    let good = r##"{"$id":"https://example.com/t","$ref":"#/$defs/a~1b","$defs":
        {"a/b":{"items":{"$ref":"#n"}},"n":{"$anchor":"n","type":"null"}}}"##;
    misfit(good, "[null,1]", "/1", "not of type \"null\"");
    for reference in [
        "https://example.com/x",
        "file:///etc/passwd",
        "other.json#/a",
        "x",
    ] {
        let schema = format!(r#"{{"items":{{"$ref":"{reference}"}}}}"#);
        schema_refused(
            &schema,
            &format!("at \"/items\": $ref {reference} leaves the document"),
        );
    }
    schema_refused(
        r##"{"$ref":"#/$defs/a"}"##,
        "$ref #/$defs/a is no subschema of this document",
    );
    schema_refused(
        r##"{"x":{},"$ref":"#/x"}"##,
        "$ref #/x is no subschema of this document",
    );
    schema_refused(
        r##"{"items":{"$dynamicRef":"#a"}}"##,
        "$dynamicRef is not supported",
    );
    schema_refused(
        r#"{"items":{"$id":"b"}}"#,
        "at \"/items\": $id can only stand at the top",
    );
    schema_refused(
        r#"{"items":{"$schema":"b"}}"#,
        "$schema can only stand at the top",
    );
}
