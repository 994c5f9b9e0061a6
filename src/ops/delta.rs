//! The version of a file that another one is like.
//!
//! It is named by its number: chunks of one version and bytes of another would make a third.

use super::{OpError, Service};
use crate::identity::Identity;
use crate::protocol::{Get, Signature};
use crate::store::Content;

impl Service {
    /// Opens a file as the base of another, and says its version. Blocks.
    ///
    /// # Errors
    /// No grant lets the identity read it, it is not there, has another version, or none.
    pub fn open_base(
        &self,
        who: &Identity,
        request: &Signature,
    ) -> Result<(u64, Box<dyn Content>), OpError> {
        let path = &request.path;
        let base = Get {
            if_version: request.if_version,
            ..Get::whole(path.clone())
        };
        let file = self.open_file(who, &base)?;
        let found = file.version()?;
        Ok((found, file.content))
    }
}
