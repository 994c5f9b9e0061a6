//! The chunks of a file that the server has.

use super::download::{Announcement, Downloaded};
use super::{Client, ClientError};
use crate::delta::{ChunkMap, fits};
use crate::digest::Digest;
use crate::path::RemotePath;
use crate::protocol::{ChunkList, Op, Signature};

/// Bytes of the longest list that is taken: what a client keeps in memory is a few times as much.
const SIGNATURE_SIZE_MAX: u64 = 32 << 20;

/// A list of chunks as an announcement: it is as long as it is.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Announced(ChunkList);

impl Announcement for Announced {
    fn size(&self) -> Option<u64> {
        None
    }

    fn size_max(&self) -> u64 {
        ChunkMap::signature_size_max(self.0.size, self.0.chunk_size).min(SIGNATURE_SIZE_MAX)
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

impl Client {
    /// The chunks of a version of a file, and how they were cut.
    pub(super) async fn signature(
        &self,
        path: &RemotePath,
        version: u64,
    ) -> Result<(ChunkList, ChunkMap), ClientError> {
        let request = Op::Signature(Signature {
            path: path.clone(),
            if_version: Some(version),
        });
        let Downloaded { answer, sink, .. } = self
            .download::<Announced, Vec<u8>>(request, Vec::new())
            .await?;
        let list = answer.0;
        if list.version != version || !fits(list.chunk_size) {
            return Err(ClientError::Misplaced("chunks of another file"));
        }
        let chunks = ChunkMap::read(&sink, list.size);
        let chunks = chunks.map_err(|_| ClientError::Misplaced("chunks that make up no file"))?;
        Ok((list, chunks))
    }
}
