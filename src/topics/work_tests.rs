//! How much work a schema and a message can make: bombs are refused, the rest is quick.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::tests::{fits, misfit, schema_refused};

/// What the server's threads have.
const STACK_SIZE: usize = 2 << 20;
/// Far more than any check may take on a busy machine, far less than a bomb takes.
const FAST: Duration = Duration::from_secs(5);

/// Does it as a thread of the server would, and tells how long it took.
#[track_caller]
fn fast(work: impl FnOnce() + Send + 'static) {
    let begun = Instant::now();
    let thread = thread::Builder::new().stack_size(STACK_SIZE).spawn(work);
    thread.unwrap().join().unwrap();
    assert!(begun.elapsed() < FAST, "took {:?}", begun.elapsed());
}

#[test]
fn recursion_on_the_same_value_is_refused() {
    for schema in [
        r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##,
        r##"{"$ref":"#"}"##,
        r##"{"not":{"if":{"then":{"$ref":"#"}}}}"##,
        r##"{"items":{"anyOf":[{"dependentSchemas":{"a":{"$ref":"#/items"}}}]}}"##,
    ] {
        schema_refused(schema, "applies itself to the same value without end");
    }
}

#[test]
fn work_that_multiplies_is_refused() {
    let mut laughs = r##"{"$ref":"#/$defs/0","$defs":{"##.to_owned();
    for n in 0..24 {
        let next = n + 1;
        let twice = format!(r##"{{"$ref":"#/$defs/{next}"}},{{"$ref":"#/$defs/{next}"}}"##);
        write!(laughs, "\"{n}\":{{\"anyOf\":[{twice}]}},").unwrap();
    }
    laughs += "\"24\":{\"type\":\"null\"}}}";
    schema_refused(&laughs, "more than 1000 checks");
    let mut nested = "{\"unevaluatedProperties\":false}".to_owned();
    for _ in 0..16 {
        nested = format!(r#"{{"allOf":[{nested}],"unevaluatedProperties":false}}"#);
    }
    for schema in [
        r##"{"allOf":[{"items":{"$ref":"#"}},{"items":{"$ref":"#"}}]}"##,
        r##"{"anyOf":[{"properties":{"a":{"$ref":"#"}}},{"patternProperties":{"^a":{"$ref":"#"}}}]}"##,
        r##"{"items":{"$ref":"#"},"contains":{"$ref":"#"}}"##,
        &nested,
    ] {
        schema_refused(schema, "more than 1000 checks");
    }
    let wide = vec![r#"{"pattern":"a+b+c"}"#; 200].join(",");
    schema_refused(&format!("{{\"allOf\":[{wide}]}}"), "more than 1000 checks");
    let many = vec!["true"; 2_100].join(",");
    schema_refused(
        &format!("{{\"allOf\":[{many}]}}"),
        "more than 2000 subschemas",
    );
    let name = "x".repeat(5_000);
    let long = format!(r#"{{"properties":{{"{name}":{{"items":{{}}}}}}}}"#);
    schema_refused(&long, "have more than 4096 bytes");
    let deep = "{\"not\":".repeat(65) + "1" + &"}".repeat(65);
    schema_refused(&deep, "nested deeper than 64 levels");
}

#[test]
fn recursion_of_trees_is_allowed() {
    let any = r##"{"anyOf":[{"type":"number"},{"type":"array","items":{"$ref":"#"}},
        {"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}},
         "additionalProperties":{"$ref":"#"}}]}"##;
    fits(any, r#"{"left":{"right":[1,{"x":2}]},"right":3}"#);
    misfit(
        any,
        r#"{"left":{"right":[1,{"x":null}]}}"#,
        "",
        "not valid under any",
    );
    let list = r##"{"properties":{"value":{"type":"string","pattern":"^[a-z]+$"},"children":
        {"type":"array","items":{"$ref":"#"}}},"unevaluatedProperties":false}"##;
    misfit(
        list,
        r#"{"children":[{"children":[{"value":"A"}]}]}"#,
        "/children/0/children/0/value",
        "does not match",
    );
}

#[test]
fn no_pattern_takes_long() {
    fast(|| {
        let long = format!("\"{}b\"", "a".repeat(60_000));
        misfit(r#"{"pattern":"^(a+)+$"}"#, &long, "", "does not match");
    });
    let many = |pattern: &str, n: usize| {
        let all = vec![format!(r#"{{"pattern":"{pattern}"}}"#); n].join(",");
        format!(r#"{{"allOf":[{all}]}}"#)
    };
    let uuid = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
    let large = "^(a|b|aa)*a(a|b){400}[^ab]";
    fits(&many(uuid, 80), "1");
    fits(&many(large, 8), "1");
    schema_refused(&many(large, 10), "more than 1000 checks");
    schema_refused(r#"{"pattern":"((a{100}){100}){100}"}"#, "at \"/pattern\": ");
    schema_refused(r#"{"pattern":"(?=a)b"}"#, "at \"/pattern\": ");
    schema_refused(r#"{"pattern":"(a)\\1"}"#, "at \"/pattern\": ");
}

#[test]
fn the_longest_checks_fit_time_and_stack() {
    let mut chain = r##"{"$ref":"#/$defs/0","$defs":{"##.to_owned();
    for n in 0..300 {
        write!(
            chain,
            r##""{n}":{{"anyOf":[{{"oneOf":[{{"$ref":"#/$defs/{}"}}]}}]}},"##,
            n + 1
        )
        .unwrap();
    }
    chain += "\"300\":{\"type\":\"null\"}}}";
    fast(move || misfit(&chain, "1", "", "not valid under any"));
    let mut chain = r##"{"$ref":"#/$defs/0","$defs":{"##.to_owned();
    for n in 0..990 {
        write!(
            chain,
            r##""{n}":{{"properties":{{"a":{{"$ref":"#/$defs/{}"}}}}}},"##,
            n + 1
        )
        .unwrap();
    }
    chain += "\"990\":{\"type\":\"null\"}}}";
    fast(move || fits(&chain, &("{\"a\":".repeat(32) + "1" + &"}".repeat(32))));
    let numbers: Vec<String> = (0..12_000).map(|n| n.to_string()).collect();
    let numbers = format!("[{}]", numbers.join(","));
    let unique = numbers.clone();
    fast(move || fits(r#"{"uniqueItems":true}"#, &unique));
    let options = (0..400).map(|n| format!("{{\"minimum\":{}}}", 100_000 + n));
    let options = options.collect::<Vec<_>>().join(",");
    let schema = format!(r#"{{"anyOf":[{{"items":{{"anyOf":[{options}]}}}}]}}"#);
    fast(move || misfit(&schema, &numbers, "", "too large to say where"));
}
