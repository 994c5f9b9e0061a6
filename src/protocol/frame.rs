//! Frames: one byte of kind, four of length, then that many bytes.
//!
//! The length is checked against the kind's limit before anything is reserved for it.

use thiserror::Error;

/// Bytes of a frame before its content.
pub const HEADER_SIZE: usize = 5;
/// Most bytes of a message.
pub const MESSAGE_SIZE_MAX: usize = 64 << 10;
/// Most bytes of a body in one frame.
pub const DATA_SIZE_MAX: usize = 1 << 20;
/// Most bytes of a trailer.
pub const TRAILER_SIZE_MAX: usize = 4 << 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One JSON object.
    Message,
    /// Bytes of a body.
    Data,
    /// The end of a body: a JSON trailer.
    End,
}

/// A frame's first bytes, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub size: usize,
}

/// A whole frame, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub content: &'a [u8],
}

/// Bytes that are not a frame. The position in the stream is lost: the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a frame of unknown kind {0:#04x}; M, D and E are known")]
    UnknownKind(u8),
    #[error("a frame of kind {kind:?} with {size} bytes, at most {size_max} are allowed")]
    TooLarge {
        kind: Kind,
        size: usize,
        size_max: usize,
    },
    #[error("an empty frame of kind {0:?}")]
    Empty(Kind),
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Message => b'M',
            Self::Data => b'D',
            Self::End => b'E',
        }
    }

    /// Most bytes that a frame of this kind may hold.
    pub const fn size_max(self) -> usize {
        match self {
            Self::Message => MESSAGE_SIZE_MAX,
            Self::Data => DATA_SIZE_MAX,
            Self::End => TRAILER_SIZE_MAX,
        }
    }
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// The kind is unknown, or the length is zero or over the kind's limit.
    pub fn decode(bytes: [u8; HEADER_SIZE]) -> Result<Self, FrameError> {
        let [kind, length @ ..] = bytes;
        let kind = match kind {
            b'M' => Kind::Message,
            b'D' => Kind::Data,
            b'E' => Kind::End,
            other => return Err(FrameError::UnknownKind(other)),
        };
        let size = u32::from_be_bytes(length) as usize;
        if size == 0 {
            return Err(FrameError::Empty(kind));
        }
        if size > kind.size_max() {
            return Err(FrameError::TooLarge {
                kind,
                size,
                size_max: kind.size_max(),
            });
        }
        Ok(Self { kind, size })
    }

    /// Writes a header.
    ///
    /// # Errors
    /// The length is zero or over the kind's limit.
    pub fn encode(self) -> Result<[u8; HEADER_SIZE], FrameError> {
        let size = u32::try_from(self.size).unwrap_or(u32::MAX).to_be_bytes();
        let bytes = [self.kind.byte(), size[0], size[1], size[2], size[3]];
        Self::decode(bytes).map(|_| bytes)
    }
}

impl<'a> Frame<'a> {
    /// Takes one whole frame off the front of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    /// The header is malformed.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let Header { kind, size } = Header::decode(*header)?;
        if rest.len() < size {
            return Ok(None);
        }
        let (content, rest) = rest.split_at(size);
        Ok(Some((Self { kind, content }, rest)))
    }

    /// Appends the frame's bytes to `out`.
    ///
    /// # Errors
    /// The content is empty or over the kind's limit; nothing is appended.
    pub fn encode(self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let header = Header {
            kind: self.kind,
            size: self.content.len(),
        }
        .encode()?;
        out.extend_from_slice(&header);
        out.extend_from_slice(self.content);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        Frame {
            kind: Kind::Message,
            content: b"{}",
        }
        .encode(&mut out)
        .unwrap();
        assert_eq!(out, b"M\0\0\0\x02{}");
        assert_eq!(
            Frame::decode(&out),
            Ok(Some((
                Frame {
                    kind: Kind::Message,
                    content: b"{}"
                },
                &b""[..]
            )))
        );
    }

    #[test]
    fn a_partial_frame_is_not_an_error() {
        let whole = b"D\0\0\0\x03abc";
        for cut in 0..whole.len() {
            assert_eq!(Frame::decode(&whole[..cut]), Ok(None));
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        for kind in [Kind::Message, Kind::Data, Kind::End] {
            let size = kind.size_max();
            assert!(Header { kind, size }.encode().is_ok());
            let over = Header {
                kind,
                size: size + 1,
            }
            .encode();
            assert_eq!(
                over,
                Err(FrameError::TooLarge {
                    kind,
                    size: size + 1,
                    size_max: size
                })
            );
            assert_eq!(
                Header { kind, size: 0 }.encode(),
                Err(FrameError::Empty(kind))
            );
        }
        assert!(Header::decode([b'D', 0xff, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(
            Header::decode([0x16, 3, 1, 0, 0]),
            Err(FrameError::UnknownKind(0x16))
        );
    }
}
