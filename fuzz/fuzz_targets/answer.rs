//! Bytes from a server as a greeting, an answer, a notice or a trailer: never a panic.

#![no_main]

use fsvc::protocol::{FileInfo, Greeting, Listing, Notice, Response, Trailer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Greeting::decode(bytes);
    let _ = Notice::decode(bytes);
    let _ = Trailer::decode(bytes);
    let _ = Response::<FileInfo>::decode(bytes);
    let _ = Response::<Listing>::decode(bytes);
});
