//! A connection on a thread of its own, for as long as a body takes.

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Connection, ConnectionError};
use crate::socket::Transport;

impl<IO: Transport> Connection<IO> {
    /// Runs `work` on a thread of its own, with the stream in blocking mode, and gives the
    /// connection back. The thread ends soon after `stop`, or when the returned future is dropped.
    ///
    /// # Errors
    /// The stream does not take the mode, or the thread panicked; the connection is lost.
    pub async fn on_thread<T: Send + 'static>(
        mut self,
        stop: &CancellationToken,
        work: impl AsyncFnOnce(&mut Self) -> T + Send + 'static,
    ) -> Result<(Self, T), ConnectionError> {
        let stop = stop.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        let runtime = Handle::current();
        let thread = tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                self.io.block(self.stall, &stop)?;
                let value = work(&mut self).await;
                self.io.unblock()?;
                Ok((self, value))
            })
        });
        thread
            .await
            .map_err(|_| ConnectionError::ThreadLost)?
            .map_err(ConnectionError::Io)
    }
}
