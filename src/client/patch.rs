//! The body of a `write` that patches: what the server has is named, the rest is sent.
//!
//! Only what stands one after the other in the base becomes one step, so that a body is never longer
//! than its content by more than a line for each chunk.

use crate::delta::{ChunkMap, ChunkName};
use crate::protocol::PatchStep;

/// Makes the body, chunk by chunk.
pub(super) struct PatchEncoder<'a> {
    base: &'a ChunkMap,
    /// Bytes of the base that are to be copied: from where, and how many.
    copy: Option<(u64, u64)>,
    body: Vec<u8>,
}

impl<'a> PatchEncoder<'a> {
    pub(super) const fn new(base: &'a ChunkMap) -> Self {
        Self {
            base,
            copy: None,
            body: Vec::new(),
        }
    }

    /// Takes the next chunk.
    pub(super) fn push(&mut self, name: &ChunkName, chunk: &[u8]) {
        let size = chunk.len() as u64;
        match (self.base.find(name), &mut self.copy) {
            (Some(offset), Some((from, n))) if *from + *n == offset => *n += size,
            (Some(offset), _) => {
                self.end_copy();
                self.copy = Some((offset, size));
            }
            (None, _) => {
                self.end_copy();
                self.step(PatchStep::Data(size));
                self.body.extend_from_slice(chunk);
            }
        }
    }

    fn end_copy(&mut self) {
        if let Some((offset, size)) = self.copy.take() {
            self.step(PatchStep::Copy { offset, size });
        }
    }

    fn step(&mut self, step: PatchStep) {
        serde_json::to_writer(&mut self.body, &step).expect("a step is plain JSON");
        self.body.push(b'\n');
    }

    /// No more chunks come.
    pub(super) fn finish(&mut self) {
        self.end_copy();
    }

    /// What of the body is made; it is given once.
    pub(super) const fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{chunk_size, chunks};
    use crate::protocol::{Packed, Unpacker};

    fn content(seed: u64, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 32);
        let mut state = seed.to_le_bytes().to_vec();
        while bytes.len() < size {
            state = blake3::hash(&state).as_bytes().to_vec();
            bytes.extend_from_slice(&state);
        }
        bytes.truncate(size);
        bytes
    }

    fn patch(base: &[u8], new: &[u8]) -> Vec<u8> {
        let size = chunk_size(base.len() as u64);
        let signature: Vec<u8> = chunks(base, size)
            .flat_map(|chunk| chunk.unwrap().0.encode())
            .collect();
        let map = ChunkMap::read(&signature, base.len() as u64).unwrap();
        let mut encoder = PatchEncoder::new(&map);
        for chunk in chunks(new, size) {
            let (name, bytes) = chunk.unwrap();
            encoder.push(&name, &bytes);
        }
        encoder.finish();
        std::mem::take(encoder.body())
    }

    fn apply(base: &[u8], body: &[u8]) -> Vec<u8> {
        let (mut unpacker, mut rest, mut new) = (Unpacker::default(), body, Vec::new());
        while let Some(next) = unpacker.next(&mut rest).unwrap() {
            match next {
                Packed::Bytes(bytes) => new.extend_from_slice(bytes),
                Packed::Line(line) => match PatchStep::decode(&line).unwrap() {
                    PatchStep::Data(n) => unpacker.expect(n),
                    PatchStep::Copy { offset, size } => {
                        let at = usize::try_from(offset).unwrap();
                        new.extend_from_slice(&base[at..at + usize::try_from(size).unwrap()]);
                    }
                },
            }
        }
        unpacker.finish().unwrap();
        new
    }

    #[test]
    fn a_patch_makes_the_new_out_of_the_old() {
        let old = content(1, 3 << 20);
        let mut new = old[1000..].to_vec();
        new.splice(500_000..500_100, content(2, 5_000));
        new.extend_from_slice(&old[..200_000]);
        let body = patch(&old, &new);
        assert_eq!(apply(&old, &body), new);
        assert!(body.len() < 200_000, "{}", body.len());
    }

    #[test]
    fn nothing_in_common_costs_little_more() {
        let new = content(4, 1 << 20);
        let body = patch(&content(3, 1 << 20), &new);
        assert!(body.len() > new.len());
        assert!(body.len() < new.len() + new.len() / 50);
        let same = patch(&new, &new);
        assert!(same.len() < 100, "{}", same.len());
    }
}
