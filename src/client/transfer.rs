//! Files, from and to anything that can be read or written.
//!
//! Says what a put and a get are; how bodies move is `upload`'s and `download`'s.

use std::io::{Read, Write};

use super::download::Downloaded;
use super::{Client, ClientError};
use crate::path::RemotePath;
use crate::protocol::{Conditions, FileInfo, Get, Op, Put};

/// How a put is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Bytes, where the source's length is known: lets the server refuse early.
    pub size: Option<u64>,
    pub conditions: Conditions,
}

impl Client {
    /// Writes a file out of anything that can be read.
    ///
    /// The file is there, whole and durable, when this returns; else nothing was changed, unless
    /// the connection was lost before the answer.
    ///
    /// # Errors
    /// The source or the connection failed, or the server refused.
    ///
    /// # Cancel safety
    /// Dropping the future gives the transfer up; nothing is published unless all was sent already.
    pub async fn put(
        &self,
        path: &RemotePath,
        source: impl Read + Send + 'static,
        options: PutOptions,
    ) -> Result<FileInfo, ClientError> {
        self.upload(put_request(path, options), source, options.size)
            .await
    }

    /// Writes a file out of memory. A small one is handed to no thread.
    ///
    /// # Errors
    /// As [`Client::put`].
    ///
    /// # Cancel safety
    /// As [`Client::put`].
    pub async fn put_bytes(
        &self,
        path: &RemotePath,
        content: Vec<u8>,
        conditions: Conditions,
    ) -> Result<FileInfo, ClientError> {
        let options = PutOptions {
            size: Some(content.len() as u64),
            conditions,
        };
        self.upload_bytes(put_request(path, options), content).await
    }

    /// Reads a file into anything that can be written, and gives that back.
    ///
    /// # Errors
    /// The sink or the connection failed, the server refused, or what arrived is not what it
    /// announced; the sink then holds nothing of worth.
    ///
    /// # Cancel safety
    /// Dropping the future gives the transfer up.
    pub async fn get<W: Write + Send + 'static>(
        &self,
        path: &RemotePath,
        sink: W,
    ) -> Result<(FileInfo, W), ClientError> {
        let request = Op::Get(Get { path: path.clone() });
        let Downloaded {
            answer,
            digest,
            sink,
        } = self.download::<FileInfo, W>(request, sink).await?;
        let file = FileInfo {
            digest: Some(digest),
            ..answer
        };
        Ok((file, sink))
    }
}

fn put_request(path: &RemotePath, options: PutOptions) -> Op {
    let Conditions {
        if_absent,
        if_version,
    } = options.conditions;
    Op::Put(Put {
        path: path.clone(),
        size: options.size,
        if_absent,
        if_version,
    })
}
