//! A handshake for its own sake: what each end says of the other.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::{Client, ClientError};
use crate::protocol::Hello;

/// What the two ends said.
#[derive(Debug)]
pub struct Met {
    /// What the server takes the client for, and until when.
    pub hello: Arc<Hello>,
    /// The certificates that the server showed, its own first; they are verified.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Client {
    /// Shakes hands on a new connection, and ends it. Cancel safe.
    ///
    /// # Errors
    /// The connection failed, or one end refused the other.
    pub async fn meet(&self) -> Result<Met, ClientError> {
        let link = self.connect().await?;
        let (_, session) = link.connection.stream().get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        Ok(Met {
            hello: Arc::clone(&link.hello),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        })
    }
}
