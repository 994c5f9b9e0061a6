//! Many small files as one packed body.
//!
//! A file is read whole before its line is written, so that the line is true of the bytes behind it.

use tracing::warn;

use super::{OpError, Service};
use crate::identity::Identity;
use crate::path::RemotePath;
use crate::protocol::{
    ErrorCode, ErrorReply, Get, GetMany, LINE_SIZE_MAX, MANY_PATHS_MAX, MANY_SIZE_MAX, PackedGet,
};

impl Service {
    /// Whether so many files may be asked for; each is asked about when it is read.
    ///
    /// # Errors
    /// There are too many.
    pub fn plan_gets(&self, request: &GetMany) -> Result<(), OpError> {
        if request.paths.len() > MANY_PATHS_MAX {
            return Err(OpError::TooMany {
                what: "paths in one request",
                n_max: MANY_PATHS_MAX,
            });
        }
        Ok(())
    }

    /// Adds the line of a file to `packed`, and its bytes, or the reason why they are not there.
    /// Blocks.
    pub fn pack_file(&self, who: &Identity, path: &RemotePath, packed: &mut Vec<u8>) {
        let begin = packed.len();
        if let Err(error) = self.pack_whole(who, path, packed) {
            packed.truncate(begin);
            let reply = error.reply();
            if matches!(reply.code, ErrorCode::Internal | ErrorCode::Unavailable) {
                let error = &error as &dyn std::error::Error;
                warn!(%path, error, "a file of many could not be read");
            }
            queue_line(packed, &PackedGet::Error(reply));
        }
    }

    fn pack_whole(
        &self,
        who: &Identity,
        path: &RemotePath,
        packed: &mut Vec<u8>,
    ) -> Result<(), OpError> {
        let file = self.open_file(who, &Get::whole(path.clone()))?;
        let size = file.info.size;
        if size > MANY_SIZE_MAX {
            return Err(OpError::TooLarge {
                what: "a file among many",
                size,
                size_max: MANY_SIZE_MAX,
            });
        }
        queue_line(packed, &PackedGet::File(file.info));
        let begin = packed.len();
        let n = usize::try_from(size).unwrap_or(usize::MAX);
        packed.resize(begin + n, 0);
        match file.content.read_at(&mut packed[begin..], 0) {
            Ok(n_read) if n_read == n => Ok(()),
            // Cut short by another program.
            _ => Err(OpError::Unsettled(path.clone())),
        }
    }
}

fn queue_line(packed: &mut Vec<u8>, line: &PackedGet) {
    let begin = packed.len();
    serde_json::to_writer(&mut *packed, line).expect("the wire types are plain JSON");
    if packed.len() - begin > LINE_SIZE_MAX {
        packed.truncate(begin);
        let short = PackedGet::Error(ErrorReply {
            code: match line {
                PackedGet::Error(reply) => reply.code,
                PackedGet::File(_) => ErrorCode::TooLarge,
            },
            message: "what is to be said of the file does not fit a line".to_owned(),
        });
        serde_json::to_writer(&mut *packed, &short).expect("the wire types are plain JSON");
    }
    packed.push(b'\n');
}
