//! Files on their way: small ones gathered into requests, so many requests at a time.

use std::io::ErrorKind;
use std::sync::Arc;

use super::SMALL_SIZE_MAX;
use super::download::Fetcher;
use super::folder::Folder;
use super::outcome::TreeError;
use super::plan::{Fetching, Sending};
use super::run::Run;
use super::upload::Sender;
use crate::protocol::MESSAGE_SIZE_MAX;

/// Small files in one request.
const BATCH_FILES_MAX: usize = 256;
/// Their bytes.
const BATCH_SIZE_MAX: u64 = 1 << 20;
/// Bytes of the names of files in one request, which is one message.
const NAMES_SIZE_MAX: usize = MESSAGE_SIZE_MAX - 1_024;

impl Run<'_> {
    pub(super) async fn send(&mut self, sending: Sending) -> Result<(), TreeError> {
        let size = sending.file.fingerprint.size;
        if size > SMALL_SIZE_MAX {
            let sender = self.sender()?;
            self.wait_for_room().await?;
            self.open
                .spawn(async move { Ok(vec![sender.send_large(sending).await]) });
            return Ok(());
        }
        if self.is_full(self.sends.len(), size) {
            self.flush().await?;
        }
        self.batch_size += size;
        self.sends.push(sending);
        Ok(())
    }

    pub(super) async fn fetch(&mut self, fetching: Fetching) -> Result<(), TreeError> {
        let size = fetching.file.size;
        // What has no digest is verified as a whole, before it gets its name.
        if size > SMALL_SIZE_MAX || fetching.file.digest.is_none() {
            let downloads = self.fetcher()?;
            self.wait_for_room().await?;
            self.open
                .spawn(async move { Ok(vec![downloads.fetch_large(fetching).await]) });
            return Ok(());
        }
        // In JSON, where every byte may be escaped.
        let name_size = 2 * fetching.file.path.as_str().len() + 3;
        if self.is_full(self.fetches.len(), size) || self.names_size + name_size > NAMES_SIZE_MAX {
            self.flush().await?;
        }
        self.batch_size += size;
        self.names_size += name_size;
        self.fetches.push(fetching);
        Ok(())
    }

    const fn is_full(&self, n_files: usize, size: u64) -> bool {
        n_files >= BATCH_FILES_MAX || self.batch_size + size > BATCH_SIZE_MAX
    }

    /// Sends off what was gathered.
    pub(super) async fn flush(&mut self) -> Result<(), TreeError> {
        self.batch_size = 0;
        self.names_size = 0;
        let sends = std::mem::take(&mut self.sends);
        if !sends.is_empty() {
            let sender = self.sender()?;
            self.wait_for_room().await?;
            self.open
                .spawn(async move { sender.send_small(sends).await });
        }
        let fetches = std::mem::take(&mut self.fetches);
        if !fetches.is_empty() {
            let downloads = self.fetcher()?;
            self.wait_for_room().await?;
            self.open
                .spawn(async move { downloads.fetch_small(fetches).await });
        }
        Ok(())
    }

    async fn wait_for_room(&mut self) -> Result<(), TreeError> {
        while self.open.len() >= self.transfer.n_jobs.max(1) {
            if let Some(finished) = self.open.join_next().await {
                self.finished(finished)?;
                self.tell();
            }
        }
        Ok(())
    }

    fn sender(&self) -> Result<Sender, TreeError> {
        Ok(Sender {
            client: self.client.clone(),
            folder: self.folder()?,
            conditions: self.transfer.conditions,
            n_streams: self.transfer.n_streams,
            delta: self.transfer.delta,
            patience: self.patience.clone(),
        })
    }

    fn fetcher(&self) -> Result<Fetcher, TreeError> {
        Ok(Fetcher {
            client: self.client.clone(),
            folder: self.folder()?,
            keeps_modes: self.transfer.keeps_modes,
            n_streams: self.transfer.n_streams,
            patience: self.patience.clone(),
        })
    }

    fn folder(&self) -> Result<Arc<Folder>, TreeError> {
        let missing = || TreeError::Local(ErrorKind::NotFound.into());
        self.folder.clone().ok_or_else(missing)
    }
}
