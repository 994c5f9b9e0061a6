//! Bytes from a peer as frames: never a panic, and what is read is written back the same.

#![no_main]

use fsvc::protocol::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((frame, after))) = Frame::decode(rest) {
        let mut again = Vec::new();
        frame.encode(&mut again).expect("a frame that was read can be written");
        assert_eq!(again, rest[..rest.len() - after.len()]);
        rest = after;
    }
});
