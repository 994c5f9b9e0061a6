//! A compressed body from a peer: never a panic, never more at a time than was asked for, and an end.

#![no_main]

use fsvc::compression::Decoder;
use libfuzzer_sys::fuzz_target;

/// What the body may stand for.
const SIZE_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::new().expect("there is memory");
    let (mut rest, mut piece, mut size) = (bytes, [0; 4096], 0);
    while let Ok(n) = decoder.decode(&mut rest, &mut piece) {
        size += n;
        if n < piece.len() || size > SIZE_MAX {
            break;
        }
    }
    assert!(size <= SIZE_MAX + piece.len());
    let _ = decoder.finish();
});
