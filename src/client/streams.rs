//! Streams of one transfer: each takes runs of parts until there are none.
//!
//! When one breaks, no more runs are given out: what is left is planned anew, for all of them.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::ClientError;
use super::parts::{Run, Work};

/// Moves what is not done, over at most `n_streams` at a time.
///
/// # Errors
/// One of them failed: a refusal before an interruption, which it says more than.
pub(super) async fn run<M>(
    work: &Arc<Work>,
    n_streams: usize,
    move_run: impl Fn(Run) -> M + Clone + Send + 'static,
) -> Result<(), ClientError>
where
    M: Future<Output = Result<(), ClientError>> + Send + 'static,
{
    work.plan();
    let n_left = work.n_parts() - work.n_done();
    let n_needed = n_streams.min(usize::try_from(n_left).unwrap_or(usize::MAX));
    let mut streams = JoinSet::new();
    for _ in 0..n_needed {
        let (work, move_run) = (Arc::clone(work), move_run.clone());
        streams.spawn(async move {
            while let Some(run) = work.next(n_streams) {
                move_run(run).await?;
            }
            Ok(())
        });
    }
    let mut outcome: Result<(), ClientError> = Ok(());
    while let Some(ended) = streams.join_next().await {
        let ended = ended.unwrap_or(Err(ClientError::Source(io::Error::other(
            "a stream of the transfer ended by itself",
        ))));
        if ended.is_err() {
            work.halt();
        }
        outcome = match (outcome, ended) {
            (Err(first), Err(other)) if !first.is_passing() || other.is_passing() => Err(first),
            (outcome, Ok(())) => outcome,
            (_, ended) => ended,
        };
    }
    outcome
}
