//! Text as a policy: never a panic, and the error of a bad one is safe to print.

#![no_main]

use fsvc::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Policy::parse(text) {
        Ok(policy) => assert!(policy.n_grants() > 0),
        Err(error) => assert!(!error.to_string().contains('\u{1b}')),
    }
});
