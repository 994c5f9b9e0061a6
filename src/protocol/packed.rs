//! Packed bodies: again and again a line of JSON, and the bytes that it announces.
//!
//! Takes a body in pieces cut anywhere, and keeps no more of it than one line.

use thiserror::Error;

/// Longest line, without its end.
pub const LINE_SIZE_MAX: usize = 4 << 10;

/// What comes next in a packed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed<'a> {
    /// A line, whole; [`Unpacker::expect`] says how many bytes it announces.
    Line(Vec<u8>),
    /// Some of the bytes that were announced.
    Bytes(&'a [u8]),
}

/// A body that is not packed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PackedError {
    #[error("a line of a packed body is longer than {LINE_SIZE_MAX} bytes")]
    LongLine,
    #[error("a packed body ends in the middle of a line, or of the bytes that one announced")]
    Truncated,
}

/// Splits a packed body.
#[derive(Debug, Default)]
pub struct Unpacker {
    line: Vec<u8>,
    n_expected: u64,
}

impl Unpacker {
    /// What the next bytes of `input` are; takes them off it. `None` when more input is needed.
    ///
    /// # Errors
    /// A line is too long.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Packed<'a>>, PackedError> {
        if self.n_expected > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let n = usize::try_from(self.n_expected)
                .unwrap_or(usize::MAX)
                .min(input.len());
            let (bytes, rest) = input.split_at(n);
            *input = rest;
            self.n_expected -= n as u64;
            return Ok(Some(Packed::Bytes(bytes)));
        }
        let end = input.iter().position(|byte| *byte == b'\n');
        let part = &input[..end.unwrap_or(input.len())];
        if self.line.len() + part.len() > LINE_SIZE_MAX {
            return Err(PackedError::LongLine);
        }
        self.line.extend_from_slice(part);
        *input = &input[end.map_or(input.len(), |end| end + 1)..];
        Ok(end.map(|_| Packed::Line(std::mem::take(&mut self.line))))
    }

    /// After a line: so many bytes come before the next one.
    pub const fn expect(&mut self, n: u64) {
        self.n_expected = n;
    }

    /// The body has ended.
    ///
    /// # Errors
    /// It ended too early.
    pub const fn finish(&self) -> Result<(), PackedError> {
        if self.n_expected == 0 && self.line.is_empty() {
            return Ok(());
        }
        Err(PackedError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines and the bytes behind each, from a body cut into pieces.
    fn unpack(body: &[u8], piece_size: usize) -> Result<Vec<(String, Vec<u8>)>, PackedError> {
        let mut unpacker = Unpacker::default();
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for mut piece in body.chunks(piece_size) {
            while let Some(next) = unpacker.next(&mut piece)? {
                match next {
                    Packed::Line(line) => {
                        let line = String::from_utf8(line).unwrap();
                        unpacker.expect(line.parse().unwrap());
                        found.push((line, Vec::new()));
                    }
                    Packed::Bytes(bytes) => found.last_mut().unwrap().1.extend_from_slice(bytes),
                }
            }
        }
        unpacker.finish()?;
        Ok(found)
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let body = b"3\na\nb0\n2\n\n\n1\nz";
        let whole = unpack(body, body.len()).unwrap();
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[0], ("3".to_owned(), b"a\nb".to_vec()));
        assert_eq!(whole[2].1, b"\n\n");
        for size in 1..body.len() {
            assert_eq!(unpack(body, size).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        assert_eq!(unpack(b"3\nab", 2), Err(PackedError::Truncated));
        assert_eq!(unpack(b"3", 1), Err(PackedError::Truncated));
        let long = vec![b'1'; LINE_SIZE_MAX + 1];
        assert_eq!(unpack(&long, 100), Err(PackedError::LongLine));
    }
}
