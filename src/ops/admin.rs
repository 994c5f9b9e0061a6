//! The log, looked at by its administrators: `admin` on the root.

use jiff::Timestamp;

use super::{OpError, Service};
use crate::identity::Identity;
use crate::log::{LogError, Page, Sequence};
use crate::path::Prefix;
use crate::policy::Action;
use crate::protocol::{DamagedRecord, LogStats, LogVerified, LogVerify};

/// Records that are checked for one page.
const CHECKED_MAX: u64 = 20_000;
/// Damaged records that one page names.
const DAMAGED_MAX: usize = 100;
const PAGE: Page = Page {
    n_max: 1024,
    size_max: 4 << 20,
};

impl Service {
    /// What the log says of itself. Blocks.
    ///
    /// # Errors
    /// No grant covers it, or a part failed.
    pub fn log_stats(&self, who: &Identity) -> Result<LogStats, OpError> {
        self.policy()
            .authorize(who, Action::Admin, &Prefix::root())?;
        let stats = self.parts.log.stats().map_err(OpError::Log)?;
        let totals = self.parts.index.totals().map_err(OpError::Index)?;
        Ok(LogStats {
            first: stats.first.0,
            head: self.tail.head().0,
            n_records: stats.n_records,
            file_size: stats.file_size,
            n_files: totals.n_files,
            n_topics: totals.n_topics,
            n_messages: totals.n_messages,
            messages_size: totals.messages_size,
            n_cursors: self.cursors.n_cursors() as u64,
            files_lost_to: totals.files_lost_to.0,
            time: Timestamp::now(),
        })
    }

    /// Reads a page of the log and says which records are damaged. Blocks.
    ///
    /// # Errors
    /// No grant covers it, or a part failed.
    pub fn log_verify(&self, who: &Identity, request: LogVerify) -> Result<LogVerified, OpError> {
        self.policy()
            .authorize(who, Action::Admin, &Prefix::root())?;
        let head = self.tail.head();
        let mut next = Sequence(request.from.max(1));
        let mut verified = LogVerified {
            n_checked: 0,
            damaged: Vec::new(),
            next: None,
        };
        while next <= head {
            if verified.n_checked >= CHECKED_MAX || verified.damaged.len() >= DAMAGED_MAX {
                verified.next = Some(next.0);
                break;
            }
            match self.parts.log.read(next, PAGE) {
                Ok(records) => {
                    let Some(last) = records.last() else { break };
                    verified.n_checked += records.len() as u64;
                    next = last.sequence.next();
                }
                Err(LogError::DamagedRecord { sequence, reason }) => {
                    verified.n_checked += 1;
                    next = sequence.next();
                    verified.damaged.push(DamagedRecord {
                        sequence: sequence.0,
                        reason,
                    });
                }
                Err(error) => return Err(OpError::Log(error)),
            }
        }
        Ok(verified)
    }
}
