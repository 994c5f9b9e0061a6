//! Uploads: parts that arrive over any connection.
//!
//! A run of parts is moved by a thread of its own. What came whole counts, however the body ends.

use std::sync::Arc;

use super::body::Progress;
use super::coded::Arriving;
use super::{Outcome, Session, SessionError, queue_done, queue_result};
use crate::connection::{Connection, ConnectionError};
use crate::ops::{OpError, Service, UploadWriter};
use crate::protocol::{Op, Packed, PatchStep, Status, Trailer, Unpacker, Uploads, Write, Written};
use crate::socket::Transport;

/// How many bytes a patch that is compressed may have for each byte of its parts, and how many more.
const PATCH_TIMES: u64 = 2;
const PATCH_SIZE: u64 = 64 << 10;
/// Bytes of the base that are copied at a time.
const COPY_SIZE: usize = 256 << 10;

impl Session {
    pub(super) async fn write<IO: Transport>(
        &self,
        connection: Connection<IO>,
        id: u64,
        write: Write,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let (is_patch, encoding) = (write.patch, write.encoding);
        let size_max = if is_patch {
            let lines = write.size.saturating_mul(PATCH_TIMES);
            lines.saturating_add(PATCH_SIZE)
        } else {
            write.size
        };
        let who = Arc::clone(&self.identity);
        let plan = move |service: &Service| service.plan_write(&who, &write);
        let planned = match self.shared.service.blocking(plan).await {
            Ok(writer) => self.transfer_slot().await.map(|slot| (writer, slot)),
            Err(error) => Err(error),
        };
        let (writer, slot) = match planned {
            Ok(planned) => planned,
            Err(error) => return self.refuse(connection, id, error, Progress::Open).await,
        };
        let work = async move |connection: &mut Connection<IO>| {
            let _slot = slot;
            let body = match Arriving::new(encoding, Some(size_max)) {
                Ok(body) => body,
                Err(error) => return Ok((Progress::Open, Err(error), 0)),
            };
            let mut sink = PartsSink {
                writer,
                patch: is_patch.then(Patch::default),
                n_received: 0,
            };
            let received = sink.receive(connection, body).await;
            received.map(|(progress, outcome)| (progress, outcome, sink.writer.n_parts()))
        };
        let (mut connection, received) = connection
            .on_thread(self.standing.stop_taking(), work)
            .await?;
        let (progress, outcome, n_parts) = match received {
            Ok(received) => received,
            Err(error) => return Err(self.give_up(connection, error.into()).await),
        };
        if let Err(error) = outcome {
            return self.refuse(connection, id, error, progress).await;
        }
        let outcome = queue_result(&mut connection, id, Ok(Written { n_parts }));
        connection.flush().await?;
        Ok((connection, outcome))
    }

    /// What is asked about an upload without a body.
    pub(super) async fn about_upload<IO: Transport>(
        &self,
        mut connection: Connection<IO>,
        id: u64,
        op: Op,
    ) -> Result<(Connection<IO>, Outcome), SessionError> {
        let (service, who) = (&self.shared.service, Arc::clone(&self.identity));
        let outcome = match op {
            Op::Begin(begin) => {
                let taken = service
                    .blocking(move |s| s.begin_upload(&who, &begin))
                    .await;
                queue_result(&mut connection, id, taken)
            }
            Op::Status(Status { upload, from }) => {
                let look = move |s: &Service| s.upload_status(&who, upload, from);
                queue_result(&mut connection, id, service.blocking(look).await)
            }
            Op::Abort(abort) => {
                let end = service.blocking(move |s| s.abort(&who, &abort));
                queue_done(&mut connection, id, end.await)
            }
            Op::Uploads(Uploads { after }) => {
                let look = move |s: &Service| Ok(s.list_uploads(&who, after));
                queue_result(&mut connection, id, service.blocking(look).await)
            }
            _ => unreachable!("nothing else is asked here"),
        };
        connection.flush().await?;
        Ok((connection, outcome))
    }
}

/// Where a body goes: bytes of parts, or steps that make them.
struct PartsSink {
    writer: UploadWriter,
    patch: Option<Patch>,
    n_received: u64,
}

/// A patch that is being read.
struct Patch {
    unpacker: Unpacker,
    buffer: Vec<u8>,
}

impl Default for Patch {
    fn default() -> Self {
        Self {
            unpacker: Unpacker::default(),
            buffer: vec![0; COPY_SIZE],
        }
    }
}

impl PartsSink {
    async fn receive<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
        mut body: Arriving,
    ) -> Result<(Progress, Result<(), OpError>), ConnectionError> {
        loop {
            let next = body.next(connection).await?;
            let taken = next.and_then(|(piece, trailer)| {
                self.take(piece)?;
                trailer.map(|trailer| self.end(&trailer)).transpose()
            });
            match taken {
                Ok(None) => {}
                Ok(Some(())) => return Ok((Progress::Ended, Ok(()))),
                Err(error) => return Ok((body.progress(), Err(error))),
            }
        }
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), OpError> {
        self.n_received += piece.len() as u64;
        let Some(patch) = &mut self.patch else {
            return self.writer.write(piece);
        };
        while let Some(next) = patch.unpacker.next(&mut piece)? {
            match next {
                Packed::Bytes(bytes) => self.writer.write(bytes)?,
                Packed::Line(line) => match step(&line)? {
                    PatchStep::Data(n) => patch.unpacker.expect(n),
                    PatchStep::Copy { offset, size } => {
                        self.writer.copy(offset, size, &mut patch.buffer)?;
                    }
                },
            }
        }
        Ok(())
    }

    fn end(&self, trailer: &Trailer) -> Result<(), OpError> {
        let size = match trailer {
            Trailer::Abort { abort } => return Err(OpError::Aborted(*abort)),
            Trailer::Whole { .. } => {
                return Err(OpError::BadRequest(
                    "the end of a write has a size and no digest: that of the file comes with commit",
                ));
            }
            Trailer::Range { size } => *size,
        };
        if let Some(patch) = &self.patch {
            patch.unpacker.finish()?;
        }
        let n_left = self.writer.n_left();
        if size == self.n_received && n_left == 0 {
            return Ok(());
        }
        Err(OpError::Upload {
            upload: self.writer.upload(),
            reason: format!(
                "the end of the body says {size} bytes, {} came, and {n_left} of the parts are missing",
                self.n_received
            ),
        })
    }
}

/// A step that does something: one that did not would cost nothing to send for ever.
fn step(line: &[u8]) -> Result<PatchStep, OpError> {
    let step = PatchStep::decode(line);
    let step =
        step.map_err(|_| OpError::BadRequest("a line of a patch is not one of its steps"))?;
    match step {
        PatchStep::Data(0) | PatchStep::Copy { size: 0, .. } => {
            Err(OpError::BadRequest("a step of a patch has no bytes"))
        }
        step => Ok(step),
    }
}
