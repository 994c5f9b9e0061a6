//! Bytes from a client as a request: never a panic, and what is read is written back the same.

#![no_main]

use fsvc::protocol::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Request::decode(bytes) {
        Ok(request) => assert_eq!(Request::decode(&request.encode()), Ok(request)),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
