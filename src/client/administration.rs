//! What an operator asks: is the log sound, and does it say what the tree holds?
//!
//! Long answers come in pages; asking for a page twice does no harm.

use super::{Client, ClientError};
use crate::path::Prefix;
use crate::protocol::{LogStats, LogVerified, LogVerify, Op, Reconcile, Reconciled};

impl Client {
    /// Records what other programs did in one page of the tree; ask again with `after` set to its
    /// `next`.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn reconcile(
        &self,
        path: &Prefix,
        after: Option<String>,
    ) -> Result<Reconciled, ClientError> {
        let path = path.clone();
        self.ask(Op::Reconcile(Reconcile { path, after })).await
    }

    /// What the log says of itself.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn log_stats(&self) -> Result<LogStats, ClientError> {
        self.ask(Op::LogStats).await
    }

    /// Looks for damage in one page of the log; ask again with `from` set to its `next`.
    ///
    /// # Errors
    /// The connection failed, or the server refused.
    pub async fn log_verify(&self, from: u64) -> Result<LogVerified, ClientError> {
        self.ask(Op::LogVerify(LogVerify { from })).await
    }
}
