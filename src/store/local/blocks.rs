//! Bytes on their way to a disk past the page cache, which begin and end at its blocks.

/// Bytes that are written together.
const BUFFER_SIZE: usize = 512 << 10;
/// What a disk writes at least, or a multiple of it.
pub(super) const BLOCK_SIZE: usize = 4096;

/// A buffer in which the first byte is the first of a block of memory, too. It has no memory before
/// something is in it.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    begin: usize,
    n: usize,
}

impl Buffer {
    /// Bytes that are in it.
    pub(super) const fn len(&self) -> usize {
        self.n
    }

    /// Whether so many bytes more fit.
    pub(super) const fn has_room(&self, size: usize) -> bool {
        self.n + size <= BUFFER_SIZE
    }

    /// Takes what fits.
    pub(super) fn append(&mut self, piece: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BUFFER_SIZE + BLOCK_SIZE];
            self.begin = self.bytes.as_ptr().align_offset(BLOCK_SIZE).min(BLOCK_SIZE);
        }
        let begin = self.begin + self.n;
        self.bytes[begin..begin + piece.len()].copy_from_slice(piece);
        self.n += piece.len();
    }

    /// All of it, and zeros up to the end of its last block.
    pub(super) fn blocks(&mut self) -> &[u8] {
        let end = self.n.next_multiple_of(BLOCK_SIZE);
        let blocks = &mut self.bytes[self.begin..self.begin + end];
        blocks[self.n..].fill(0);
        blocks
    }

    /// It is on the disk.
    pub(super) fn clear(&mut self) {
        self.n = 0;
    }
}
