//! Files, from and to anything that can be read or written.
//!
//! Says what a put and a get are; how bodies move is `upload`'s and `download`'s.

use std::io::{Read, Write};

use super::download::Downloaded;
use super::{Client, ClientError, request_id};
use crate::label::DedupId;
use crate::path::RemotePath;
use crate::protocol::{Append, Attributes, Conditions, FileInfo, Get, Got, Op, Put};

/// How a put is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Bytes, where the source's length is known: lets the server refuse early.
    pub size: Option<u64>,
    pub conditions: Conditions,
    /// What makes it the same put when it is sent again; one of its own if absent.
    pub request_id: Option<DedupId>,
    /// What the source's file system knows about it.
    pub attributes: Option<Attributes>,
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
        let size = options.size;
        self.upload(put_request(path, options), source, size).await
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
            request_id: None,
            attributes: None,
        };
        self.upload_bytes(put_request(path, options), content).await
    }

    /// Writes bytes behind those of a file, which must have `if_size` bytes before; one that is not there
    /// has none. `size` bytes come, where that is known.
    ///
    /// # Errors
    /// As [`Client::put`]; the file has another size.
    ///
    /// # Cancel safety
    /// As [`Client::put`].
    pub async fn append(
        &self,
        path: &RemotePath,
        source: impl Read + Send + 'static,
        if_size: u64,
        size: Option<u64>,
    ) -> Result<FileInfo, ClientError> {
        let request = Op::Append(Append {
            path: path.clone(),
            if_size,
            size,
            request_id: request_id::fresh(),
            encoding: None,
        });
        self.upload(request, source, size).await
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
        let request = Op::Get(Get {
            accept: self.accept(),
            ..Get::whole(path.clone())
        });
        let Downloaded {
            answer: Got { file: answer, .. },
            digest,
            sink,
        } = self.download::<Got, W>(request, sink).await?;
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
        attributes: options.attributes,
        request_id: options.request_id.or_else(request_id::fresh),
        encoding: None,
    })
}
