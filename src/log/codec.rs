//! Records as bytes: a checksum, the length of a JSON header, the header, a message's content.
//!
//! The checksum covers all that follows it, so that a spoiled record is found when it is read.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attached, Change, LogError, Matter, Message, Payload, Record, Sequence, milliseconds};
use crate::identity::SpiffeId;
use crate::label::DedupId;
use crate::path::Topic;

const CHECKSUM_SIZE: usize = 8;
const LENGTH_SIZE: usize = 4;

/// A record without a message's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    sequence: Sequence,
    identity: Cow<'a, SpiffeId>,
    time: Timestamp,
    /// The latest time of any record up to this, in milliseconds, where that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clock_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    changes: Cow<'a, [Change]>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    replaced: Cow<'a, [u32]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, DedupId>>,
    #[serde(default, skip_serializing_if = "is_none_forgotten")]
    n_forgotten: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<MessageHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageHeader {
    topic: Topic,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attached: Option<Attached>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dedup_id: Option<DedupId>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reply_wanted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<Sequence>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_none_forgotten(n_forgotten: &u32) -> bool {
    *n_forgotten == 0
}

/// A record and the latest time of any record up to it.
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) clock_ms: u64,
}

pub(super) fn encode(record: &Record, clock_ms: u64) -> Vec<u8> {
    let (message, content) = match &record.matter {
        Matter::Files(_) => (None, None),
        Matter::Message(message) => {
            let (attached, content) = match &message.payload {
                Payload::Inline(bytes) => (None, Some(bytes)),
                Payload::Attached(attached) => (Some(*attached), None),
            };
            let header = MessageHeader {
                topic: message.topic.clone(),
                attached,
                dedup_id: message.dedup_id.clone(),
                reply_wanted: message.reply_wanted,
                reply_to: message.reply_to,
            };
            (Some(header), content)
        }
    };
    let header = Header {
        sequence: record.sequence,
        identity: Cow::Borrowed(&record.identity),
        time: record.time,
        clock_ms: (clock_ms != milliseconds(record.time)).then_some(clock_ms),
        changes: Cow::Borrowed(record.matter.changes()),
        replaced: Cow::Borrowed(&record.replaced),
        request_id: record.request_id.as_ref().map(Cow::Borrowed),
        n_forgotten: record.n_forgotten,
        message,
    };
    let mut bytes = vec![0; CHECKSUM_SIZE + LENGTH_SIZE];
    serde_json::to_writer(&mut bytes, &header).expect("a header is plain JSON");
    let length = u32::try_from(bytes.len() - CHECKSUM_SIZE - LENGTH_SIZE)
        .expect("a set has fewer members than this holds");
    bytes[CHECKSUM_SIZE..][..LENGTH_SIZE].copy_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(content.map_or(&[], |content| content));
    let sum = checksum(&bytes[CHECKSUM_SIZE..]);
    bytes[..CHECKSUM_SIZE].copy_from_slice(&sum);
    bytes
}

pub(super) fn decode(sequence: Sequence, bytes: &[u8]) -> Result<Stored, LogError> {
    let damaged = |reason: String| LogError::DamagedRecord { sequence, reason };
    let (sum, covered) = bytes
        .split_first_chunk::<CHECKSUM_SIZE>()
        .ok_or_else(|| damaged("it is cut off".to_owned()))?;
    if checksum(covered) != *sum {
        return Err(damaged("its checksum does not fit".to_owned()));
    }
    let (length, rest) = covered
        .split_first_chunk::<LENGTH_SIZE>()
        .ok_or_else(|| damaged("it is cut off".to_owned()))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, content) = rest
        .split_at_checked(length)
        .ok_or_else(|| damaged("its header is cut off".to_owned()))?;
    let header: Header<'_> =
        serde_json::from_slice(header).map_err(|error| damaged(error.to_string()))?;
    if header.sequence != sequence {
        return Err(damaged(format!(
            "record {} stands in its place",
            header.sequence.0
        )));
    }
    let clock_ms = header.clock_ms.unwrap_or(milliseconds(header.time));
    let matter = match header.message {
        None => Matter::Files(header.changes.into_owned()),
        Some(message) => Matter::Message(Message {
            topic: message.topic,
            payload: match message.attached {
                Some(attached) => Payload::Attached(attached),
                None => Payload::Inline(Arc::from(content)),
            },
            dedup_id: message.dedup_id,
            reply_wanted: message.reply_wanted,
            reply_to: message.reply_to,
        }),
    };
    let record = Record {
        sequence,
        identity: header.identity.into_owned(),
        time: header.time,
        matter,
        replaced: header.replaced.into_owned(),
        request_id: header.request_id.map(Cow::into_owned),
        n_forgotten: header.n_forgotten,
    };
    Ok(Stored { record, clock_ms })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_SIZE] {
    let hash = blake3::hash(bytes);
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a hash is longer than a checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Record {
        Record {
            sequence: Sequence(7),
            identity: "spiffe://acme.internal/client/dev".parse().unwrap(),
            time: "2026-11-25T10:00:00.25Z".parse().unwrap(),
            matter: Matter::Message(Message {
                topic: "a/b".parse().unwrap(),
                payload: Payload::Inline(Arc::from(&b"\x00\xff{}"[..])),
                dedup_id: Some("x".parse().unwrap()),
                reply_wanted: true,
                reply_to: Some(Sequence(3)),
            }),
            replaced: Vec::new(),
            request_id: None,
            n_forgotten: 0,
        }
    }

    #[test]
    fn records_read_back_as_they_were() {
        let record = message();
        let bytes = encode(&record, milliseconds(record.time));
        let stored = decode(Sequence(7), &bytes).unwrap();
        assert_eq!(
            (stored.record, stored.clock_ms),
            (record, 1_795_600_800_250)
        );
        let stored = decode(Sequence(7), &encode(&message(), u64::MAX)).unwrap();
        assert_eq!(stored.clock_ms, u64::MAX);
    }

    #[test]
    fn what_a_record_never_had_is_not_written() {
        let plain = Record {
            matter: Matter::Files(Vec::new()),
            ..message()
        };
        let bytes = encode(&plain, milliseconds(plain.time));
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.ends_with(r#""time":"2026-11-25T10:00:00.25Z"}"#),
            "{text}"
        );
        let asked = Record {
            request_id: Some("x".parse().unwrap()),
            n_forgotten: 3,
            ..plain
        };
        let stored = decode(Sequence(7), &encode(&asked, 0)).unwrap();
        assert_eq!(stored.record, asked);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(&message(), 0);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut spoiled = bytes.clone();
                spoiled[at] ^= 1 << bit;
                assert!(
                    decode(Sequence(7), &spoiled).is_err(),
                    "byte {at} bit {bit}"
                );
            }
            assert!(decode(Sequence(7), &bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(decode(Sequence(8), &bytes).is_err());
    }
}
