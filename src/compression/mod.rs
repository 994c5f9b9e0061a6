//! One frame of RFC 8878, in or out, piece by piece.
//!
//! A frame of a few bytes may stand for any number: what is decoded is made only as it is asked for,
//! one piece at a time, so that whoever takes it stops it where it is too much. Neither side holds
//! more than [`DECODER_SIZE_MAX`].

mod sample;

use std::io;

use thiserror::Error;
use zstd::stream::raw::{CParameter, DParameter, Decoder as RawDecoder, Encoder as RawEncoder};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

pub use sample::{CONTENT_SIZE_MIN, SAMPLE_SIZE, pays, pays_in_memory, shrinks};

/// Largest window that is taken, as a power of two: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;
/// Bytes that a decoder holds at most: its window, two blocks and its tables. An encoder holds less.
pub const DECODER_SIZE_MAX: usize = (1 << WINDOW_LOG_MAX) + (1 << 20);
/// Bytes of a frame that are made at a time.
const PIECE_SIZE: usize = 64 << 10;
/// Fast enough to keep up with a fast network.
const LEVEL: i32 = 1;
/// A frame may be so much longer than what it stands for, so that it cannot go on for ever and stand
/// for nothing: so many times, and so many bytes.
const LONGER_TIMES: u64 = 4;
const LONGER_SIZE: u64 = 1 << 20;

/// Why bytes are not one whole frame.
#[derive(Debug, Error)]
pub enum CompressionError {
    #[error("there is no memory for compression")]
    Memory(#[source] io::Error),
    #[error("the body is not one frame of zstd with a window of at most 8 MiB")]
    Malformed(#[source] io::Error),
    #[error("the body's frame of zstd is cut short")]
    Truncated,
    #[error("something stands behind the body's frame of zstd: one frame was expected")]
    Behind,
    #[error("the body's frame of zstd has {frame} bytes so far and stands for {content}")]
    Longer { frame: u64, content: u64 },
}

/// Takes a frame apart.
pub struct Decoder {
    raw: RawDecoder<'static>,
    is_whole: bool,
    n_taken: u64,
    n_made: u64,
}

/// Makes a frame.
pub struct Encoder {
    raw: RawEncoder<'static>,
    piece: Vec<u8>,
}

impl Decoder {
    /// For one frame.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> Result<Self, CompressionError> {
        let mut raw = RawDecoder::new().map_err(CompressionError::Memory)?;
        raw.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(CompressionError::Memory)?;
        Ok(Self {
            raw,
            is_whole: false,
            n_taken: 0,
            n_made: 0,
        })
    }

    /// Takes bytes of the frame from the front of `frame` and fills `content`, until one is used up and
    /// nothing more comes of it; says how many were filled in.
    ///
    /// # Errors
    /// They are not bytes of one frame.
    pub fn decode(
        &mut self,
        frame: &mut &[u8],
        content: &mut [u8],
    ) -> Result<usize, CompressionError> {
        let mut filled = 0;
        while filled < content.len() {
            if self.is_whole {
                if frame.is_empty() {
                    break;
                }
                return Err(CompressionError::Behind);
            }
            let mut input = InBuffer::around(frame);
            let mut output = OutBuffer::around(&mut content[filled..]);
            let left = self.raw.run(&mut input, &mut output);
            let (n_in, n_out) = (input.pos(), output.pos());
            let left = left.map_err(CompressionError::Malformed)?;
            *frame = &frame[n_in..];
            filled += n_out;
            self.n_taken += n_in as u64;
            self.n_made += n_out as u64;
            self.is_whole = left == 0;
            self.check_length()?;
            // What was not filled although there was room has all been given.
            if frame.is_empty() && filled < content.len() {
                break;
            }
        }
        Ok(filled)
    }

    const fn check_length(&self) -> Result<(), CompressionError> {
        let (frame, content) = (self.n_taken, self.n_made);
        if frame
            > content
                .saturating_mul(LONGER_TIMES)
                .saturating_add(LONGER_SIZE)
        {
            return Err(CompressionError::Longer { frame, content });
        }
        Ok(())
    }

    /// Whether the frame was whole.
    ///
    /// # Errors
    /// It was not.
    pub const fn finish(&self) -> Result<(), CompressionError> {
        if self.is_whole {
            return Ok(());
        }
        Err(CompressionError::Truncated)
    }
}

impl Encoder {
    /// For one frame.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> Result<Self, CompressionError> {
        let mut raw = RawEncoder::new(LEVEL).map_err(CompressionError::Memory)?;
        // The body has a digest of its own.
        raw.set_parameter(CParameter::ChecksumFlag(false))
            .map_err(CompressionError::Memory)?;
        Ok(Self {
            raw,
            piece: Vec::with_capacity(PIECE_SIZE),
        })
    }

    /// Takes the next bytes of the content; puts the bytes of the frame that are ready behind `frame`.
    ///
    /// # Errors
    /// There is no memory.
    pub fn encode(&mut self, content: &[u8], frame: &mut Vec<u8>) -> Result<(), CompressionError> {
        let mut input = InBuffer::around(content);
        while input.pos() < content.len() {
            self.step(frame, |raw, output| raw.run(&mut input, output))?;
        }
        Ok(())
    }

    /// Ends the frame: puts its last bytes behind `frame`.
    ///
    /// # Errors
    /// There is no memory.
    pub fn finish(&mut self, frame: &mut Vec<u8>) -> Result<(), CompressionError> {
        while self.step(frame, |raw, output| raw.finish(output, true))? > 0 {}
        Ok(())
    }

    fn step(
        &mut self,
        frame: &mut Vec<u8>,
        work: impl FnOnce(&mut RawEncoder<'_>, &mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
    ) -> Result<usize, CompressionError> {
        self.piece.clear();
        let left = work(&mut self.raw, &mut OutBuffer::around(&mut self.piece));
        frame.extend_from_slice(&self.piece);
        left.map_err(CompressionError::Memory)
    }
}

/// A content that is in memory, as one frame. Blocks.
///
/// # Errors
/// There is no memory.
pub fn compressed(content: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut frame = Vec::new();
    let mut encoder = Encoder::new()?;
    encoder.encode(content, &mut frame)?;
    encoder.finish(&mut frame)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing makes smaller.
    pub(super) fn noise(size: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().finalize_xof();
        let mut bytes = vec![0; size];
        reader.fill(&mut bytes);
        bytes
    }

    /// Decodes a frame that comes in steps, at most so many bytes of what it stands for.
    fn decoded(frame: &[u8], step: usize, size_max: usize) -> Result<Vec<u8>, CompressionError> {
        let mut decoder = Decoder::new()?;
        let (mut content, mut piece) = (Vec::new(), vec![0; 1000]);
        for mut rest in frame.chunks(step.max(1)) {
            loop {
                let n = decoder.decode(&mut rest, &mut piece)?;
                content.extend_from_slice(&piece[..n]);
                if content.len() > size_max {
                    return Ok(content);
                }
                if n < piece.len() {
                    break;
                }
            }
            assert!(rest.is_empty());
        }
        decoder.finish()?;
        Ok(content)
    }

    fn whole(frame: &[u8], step: usize) -> Result<Vec<u8>, CompressionError> {
        decoded(frame, step, usize::MAX)
    }

    #[test]
    fn what_is_compressed_comes_out_again_however_it_is_cut() {
        for content in [
            Vec::new(),
            b"a".to_vec(),
            vec![7; PIECE_SIZE],
            vec![7; 3 * PIECE_SIZE + 1],
            noise(5 * PIECE_SIZE),
        ] {
            let frame = compressed(&content).unwrap();
            for step in [1, 100, frame.len()] {
                assert!(whole(&frame, step).unwrap() == content, "{step}");
            }
        }
    }

    #[test]
    fn only_one_whole_frame_is_one() {
        let frame = compressed(&noise(3000)).unwrap();
        for size in [0, 1, 4, frame.len() / 2, frame.len() - 1] {
            let cut = whole(&frame[..size], 7);
            assert!(matches!(cut, Err(CompressionError::Truncated)), "{size}");
        }
        for behind in [&frame[..], &b"x"[..]] {
            for step in [1, frame.len(), 2 * frame.len()] {
                let two = whole(&[&frame, behind].concat(), step);
                assert!(matches!(two, Err(CompressionError::Behind)));
            }
        }
        let garbage = whole(&noise(100), 100);
        assert!(matches!(garbage, Err(CompressionError::Malformed(_))));
    }

    #[test]
    fn a_window_over_the_limit_is_refused() {
        for (log, fits) in [(WINDOW_LOG_MAX, true), (WINDOW_LOG_MAX + 1, false)] {
            let mut encoder = Encoder::new().unwrap();
            let window = CParameter::WindowLog(log);
            encoder.raw.set_parameter(window).unwrap();
            let mut frame = Vec::new();
            encoder.encode(&vec![7; 20 << 20], &mut frame).unwrap();
            encoder.finish(&mut frame).unwrap();
            assert_eq!(whole(&frame, 1000).is_ok(), fits, "{log}");
        }
    }

    #[test]
    fn a_decoder_holds_no_more_than_it_says() {
        let mut context = zstd::zstd_safe::DCtx::create();
        let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        context.set_parameter(window).unwrap();
        // The largest window, and the beginning of a block.
        let window = u8::try_from(WINDOW_LOG_MAX - 10).unwrap() << 3;
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0, window];
        let frame = [&header[..], &[4, 0, 0x10]].concat();
        let mut made = vec![0; 1000];
        let mut output = OutBuffer::around(&mut made[..]);
        let mut input = InBuffer::around(&frame);
        context.decompress_stream(&mut output, &mut input).unwrap();
        let size = context.sizeof();
        assert!(
            (1 << WINDOW_LOG_MAX..=DECODER_SIZE_MAX).contains(&size),
            "{size}"
        );
    }

    #[test]
    fn what_stands_for_very_much_comes_only_as_it_is_asked_for() {
        let frame = compressed(&vec![0; 64 << 20]).unwrap();
        assert!(frame.len() < 64 << 10);
        let n = decoded(&frame, frame.len(), 1000).unwrap().len();
        assert!((1001..=2000).contains(&n), "{n}");
    }

    #[test]
    fn a_frame_that_stands_for_nothing_does_not_go_on_for_ever() {
        // A header without a size, then empty blocks of which none is the last.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x48];
        frame.resize(frame.len() + 3 * (1 << 20), 0);
        let endless = whole(&frame, 1000);
        let Err(CompressionError::Longer {
            frame: size,
            content: 0,
        }) = endless
        else {
            panic!("{endless:?}");
        };
        assert!(size <= LONGER_SIZE + 1000, "{size}");
        // The same in a frame that is to be skipped.
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0xf0][..], &frame].concat();
        let skipped = whole(&skipped, 1000);
        assert!(matches!(skipped, Err(CompressionError::Longer { .. })));
    }

    #[test]
    fn spoiled_frames_neither_panic_nor_grow() {
        let text = b"all work and no play makes a dull frame; ".repeat(2000);
        let frame = compressed(&[&text[..], &noise(5000), &text].concat()).unwrap();
        let size_max = 1 << 20;
        let (mut n_refused, seeds) = (0, noise(4 * 3000));
        for seed in seeds.chunks_exact(4) {
            let mut spoiled = frame.clone();
            let at = usize::from(u16::from_be_bytes([seed[0], seed[1]]));
            // Half of them near the beginning, where the header and the tables are.
            let at = if seed[3] & 1 == 0 { at % 40 } else { at } % spoiled.len();
            match seed[3] % 3 {
                0 => spoiled[at] ^= 1 << (seed[2] % 8),
                1 => spoiled[at] = seed[2],
                _ => drop(spoiled.drain(at..(at + 1 + usize::from(seed[2])).min(frame.len()))),
            }
            match decoded(&spoiled, 1 + usize::from(seed[2]) * 20, size_max) {
                Ok(content) => assert!(content.len() <= size_max + 1000),
                Err(_) => n_refused += 1,
            }
        }
        assert!(n_refused > 1000, "{n_refused}");
    }
}
