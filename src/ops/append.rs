//! Bytes behind those of a file: a new version, made of the old one and what comes.
//!
//! The version that was read must still be there when the new one is committed, so that of two that
//! append at once one is told, and nothing is lost.

use super::repeat::written;
use super::{OpError, OpenFile, PutPlan, Service};
use crate::identity::Identity;
use crate::protocol::{Append, FileInfo, Put};

/// What an append is to do.
pub enum Appending {
    /// Put the body behind what the file has, if it is there.
    Plan(Box<PutPlan>, Option<OpenFile>),
    /// It was done before.
    Done(FileInfo),
}

impl Service {
    /// Whether an append may begin, and behind what. Blocks.
    ///
    /// # Errors
    /// No grant covers the put that it is, or the file does not have the size that was said.
    pub fn plan_append(&self, who: &Identity, append: &Append) -> Result<Appending, OpError> {
        let mut put = Put {
            path: append.path.clone(),
            size: append.size,
            if_absent: false,
            if_version: None,
            attributes: None,
            request_id: append.request_id.clone(),
            encoding: None,
        };
        self.plan_put(who, &put)?;
        if let Some(id) = &append.request_id
            && let Some(record) = self.repeated(who, id)?
        {
            return Ok(Appending::Done(written(&record, &append.path)?));
        }
        let file = match self.open_settled(&append.path) {
            Ok(file) => Some(file),
            Err(OpError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let size = file.as_ref().map_or(0, |file| file.info.size);
        match &file {
            Some(file) => {
                put.if_version = Some(file.version()?);
            }
            None => put.if_absent = true,
        }
        let mut plan = self.plan_put(who, &put)?;
        plan.target.look(file.as_ref().map(|file| &file.info))?;
        if size != append.if_size {
            return Err(OpError::OtherSize {
                path: append.path.clone(),
                wanted: append.if_size,
                size,
            });
        }
        plan.is_same_content = false;
        Ok(Appending::Plan(Box::new(plan), file))
    }
}
