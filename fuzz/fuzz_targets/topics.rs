//! A schema and a message: never a panic, a hang or a deep stack, whatever either says.

#![no_main]

use std::time::Duration;

use fsvc::log::Retention;
use fsvc::topics::Topics;
use libfuzzer_sys::fuzz_target;

const RULES: &str = "[[topic]]\nname = \"a\"\nschema = \"s\"\n";

fuzz_target!(|input: (&[u8], &[u8])| {
    let (schema, message) = input;
    let defaults = Retention {
        age: Duration::MAX,
        size: u64::MAX,
    };
    match Topics::parse(RULES, defaults, |_| Ok(schema.to_vec())) {
        Ok(topics) => {
            let topic = "a".parse().expect("a is a topic");
            if let Err(misfit) = topics.check(&topic, message) {
                assert!(!misfit.to_string().contains('\u{1b}'));
            }
        }
        Err(error) => assert!(!error.to_string().contains('\u{1b}')),
    }
});
