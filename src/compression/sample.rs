//! Whether compressing pays: tried out on samples, so that what does not shrink costs little.

use std::io;

use super::compressed;

/// Smallest content that is worth a frame.
pub const CONTENT_SIZE_MIN: u64 = 16 << 10;
/// Bytes of which it is tried out whether compressing pays.
pub const SAMPLE_SIZE: usize = 64 << 10;
/// In hundredths: what a sample must become at most.
const SHRUNK_MAX: usize = 90;

/// Whether bytes become so much fewer that compressing what they are a sample of pays. Blocks.
pub fn shrinks(sample: &[u8]) -> bool {
    let sample = &sample[..sample.len().min(SAMPLE_SIZE)];
    compressed(sample)
        .is_ok_and(|frame| !sample.is_empty() && frame.len() * 100 <= sample.len() * SHRUNK_MAX)
}

/// Whether compressing `size` bytes pays, by what `read` fills in of their beginning and their middle:
/// it is given where, and says how many there were. Blocks.
pub fn pays(size: u64, mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> bool {
    if size < CONTENT_SIZE_MIN {
        return false;
    }
    let mut sample = vec![0; SAMPLE_SIZE];
    let mut shrinks_at = |offset: u64| {
        let left = usize::try_from(size - offset).unwrap_or(SAMPLE_SIZE);
        let room = left.min(SAMPLE_SIZE);
        read(&mut sample[..room], offset).is_ok_and(|n| shrinks(&sample[..n]))
    };
    shrinks_at(0) && shrinks_at(size / 2)
}

/// The same of what is in memory. Blocks.
pub fn pays_in_memory(content: &[u8]) -> bool {
    let is_large = content.len() as u64 >= CONTENT_SIZE_MIN;
    is_large && shrinks(content) && shrinks(&content[content.len() / 2..])
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn noise_does_not_shrink_and_text_does() {
        let text = b"all work and no play ".repeat(10_000);
        assert!(shrinks(&text));
        assert!(!shrinks(&noise(SAMPLE_SIZE)));
        assert!(!shrinks(b""));
        assert!(pays_in_memory(&text));
        assert!(!pays_in_memory(&text[..10_000]));
        // Its beginning shrinks, its middle does not.
        let half = [&text[..], &noise(text.len() + 1000)].concat();
        assert!(!pays_in_memory(&half));
        for (content, expected) in [(&text, true), (&half, false)] {
            let read = |sample: &mut [u8], at: u64| {
                let at = usize::try_from(at).unwrap();
                sample.copy_from_slice(&content[at..at + sample.len()]);
                Ok(sample.len())
            };
            assert_eq!(pays(content.len() as u64, read), expected);
        }
        assert!(!pays(1 << 20, |_, _| Err(io::ErrorKind::NotFound.into())));
    }
}
