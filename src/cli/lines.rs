//! Lines of one long input, cut into batches that fit a request.
//!
//! Every line is counted, so that one that is refused can be found; no line and no batch grows past
//! its limit.

use std::mem;

use crate::client::{LINES_MAX, LINES_SIZE_MAX, PAYLOAD_SIZE_MAX};

/// Lines that are sent at a time.
pub(super) const BATCH_LINES_MAX: usize = 1000;
/// Bytes that are sent at a time.
pub(super) const BATCH_SIZE_MAX: usize = 512 << 10;

const _: () = assert!(BATCH_LINES_MAX <= LINES_MAX && BATCH_SIZE_MAX <= LINES_SIZE_MAX);

/// What came of some input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Batch(Batch),
    /// This line is longer than a message that can be sent among others.
    TooLong(u64),
}

/// Lines that are published together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Where each stands in the whole input, from 1.
    pub(super) numbers: Vec<u64>,
    pub(super) body: Vec<u8>,
}

/// Cuts what it is fed.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// A line that has not ended.
    line: Vec<u8>,
    is_too_long: bool,
    n_lines: u64,
    batch: Batch,
}

impl Cutter {
    /// Takes the next piece of the input; full batches come out.
    pub(super) fn feed(&mut self, piece: &[u8], cuts: &mut Vec<Cut>) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end]);
            self.end_line(cuts);
            rest = &rest[end + 1..];
        }
        self.extend(rest);
    }

    /// Gives out the lines that are whole, few as they may be.
    pub(super) fn flush(&mut self, cuts: &mut Vec<Cut>) {
        if !self.batch.numbers.is_empty() {
            cuts.push(Cut::Batch(mem::take(&mut self.batch)));
        }
    }

    /// The input has ended; its last line may be without a line feed.
    pub(super) fn finish(&mut self, cuts: &mut Vec<Cut>) {
        if !self.line.is_empty() || self.is_too_long {
            self.end_line(cuts);
        }
        self.flush(cuts);
    }

    fn extend(&mut self, part: &[u8]) {
        if self.line.len() + part.len() > PAYLOAD_SIZE_MAX {
            self.is_too_long = true;
            self.line.clear();
        }
        if !self.is_too_long {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, cuts: &mut Vec<Cut>) {
        self.n_lines += 1;
        if mem::take(&mut self.is_too_long) {
            cuts.push(Cut::TooLong(self.n_lines));
            return;
        }
        if self.line.is_empty() {
            return;
        }
        if self.batch.body.len() + 1 + self.line.len() > BATCH_SIZE_MAX {
            self.flush(cuts);
        }
        if !self.batch.numbers.is_empty() {
            self.batch.body.push(b'\n');
        }
        self.batch.body.append(&mut self.line);
        self.batch.numbers.push(self.n_lines);
        if self.batch.numbers.len() == BATCH_LINES_MAX {
            self.flush(cuts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(input: &[u8], piece_size: usize) -> Vec<Cut> {
        let (mut cutter, mut cuts) = (Cutter::default(), Vec::new());
        for piece in input.chunks(piece_size) {
            cutter.feed(piece, &mut cuts);
        }
        cutter.finish(&mut cuts);
        cuts
    }

    fn batch(numbers: &[u64], body: &str) -> Cut {
        Cut::Batch(Batch {
            numbers: numbers.to_vec(),
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn lines_are_numbered_and_empty_ones_passed_over() {
        for piece_size in 1..9 {
            assert_eq!(cut(b"a\nbc\n", piece_size), [batch(&[1, 2], "a\nbc")]);
            assert_eq!(cut(b"\na\n\n\nb", piece_size), [batch(&[2, 5], "a\nb")]);
            assert_eq!(cut(b"\n\n", piece_size), []);
        }
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_not_kept() {
        let most = "x".repeat(PAYLOAD_SIZE_MAX);
        let input = format!("a\n{most}x\n{most}\n{most}x");
        for piece_size in [1000, PAYLOAD_SIZE_MAX + 1, input.len()] {
            let cuts = cut(input.as_bytes(), piece_size);
            assert_eq!(cuts[0], Cut::TooLong(2));
            assert_eq!(cuts[1], Cut::TooLong(4));
            assert_eq!(cuts[2], batch(&[1, 3], &format!("a\n{most}")));
        }
    }

    #[test]
    fn no_batch_is_over_its_limits_and_cuts_do_not_depend_on_the_pieces() {
        let many = "1\n".repeat(2 * BATCH_LINES_MAX + 1);
        let long = format!("{}\n", "y".repeat(PAYLOAD_SIZE_MAX)).repeat(20);
        for input in [many, long] {
            let cuts = cut(input.as_bytes(), 777);
            assert_eq!(cuts, cut(input.as_bytes(), input.len()));
            assert_eq!(cuts.len(), 3);
            for cut in cuts {
                let Cut::Batch(batch) = cut else {
                    panic!("{cut:?}")
                };
                assert!(batch.numbers.len() <= BATCH_LINES_MAX);
                assert!(batch.body.len() <= BATCH_SIZE_MAX);
            }
        }
    }
}
