//! A handshake for its own sake: what each end says of the other, and who else is in between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Client, ClientError, connect};
use crate::protocol::Hello;

/// What a server never gets to see inside of TLS, and answers without it (PROTOCOL.md).
const PLAIN_QUESTION: &[u8] = b"{\"op\":\"ping\"}\n";
/// How an fsvc begins its answer to that.
const PLAIN_ANSWER: &[u8] = br#"{"error":{"code":"tls_required""#;

/// How long a proxy and what is behind it may take for that: what answers at all does so at once.
const PLAIN_PATIENCE: Duration = Duration::from_secs(3);

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

    /// Whether what nobody greeted on is a proxy that ends TLS, with an fsvc behind that gets plain text.
    /// To be asked only after [`Self::meet`] came to nothing. Cancel safe.
    pub async fn is_plain_behind(&self) -> bool {
        let shared = &self.shared;
        let set = shared.credentials.set();
        let mut answer = [0; PLAIN_ANSWER.len()];
        let asked = async {
            let shaken = connect::shake_hands(&shared.options, &set).await;
            let mut stream = shaken.map_err(io::Error::other)?;
            stream.write_all(PLAIN_QUESTION).await?;
            stream.flush().await?;
            stream.read_exact(&mut answer).await
        };
        let asked = timeout(PLAIN_PATIENCE, asked).await;
        matches!(asked, Ok(Ok(_))) && answer == PLAIN_ANSWER
    }
}
