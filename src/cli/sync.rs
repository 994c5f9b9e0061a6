//! sync: one side made like the other, once or for as long as the folder changes.

use tokio::signal::unix::{SignalKind, signal};

use super::file_args::{Place, SyncFlags};
use super::files::{Failure, Outcome};
use super::output::Output;
use super::tree::transfer;
use super::tree_report::{Report, conclude};
use crate::client::Client;
use crate::client::tree::{self, Direction};
use crate::escape::Escaped;

pub(super) async fn run(client: &Client, flags: SyncFlags, output: Output) -> Outcome {
    let (direction, local, remote) = match (flags.from, flags.to) {
        (Place::Local(local), Place::Remote(remote)) => (Direction::Up, local, remote),
        (Place::Remote(remote), Place::Local(local)) => (Direction::Down, local, remote),
        (Place::Local(_), Place::Local(_)) => {
            let text = "one of the two must be on the server: write it fsvc:/path";
            return Err(Failure::Usage(text.to_owned()));
        }
        (Place::Remote(_), Place::Remote(_)) => {
            let text = "one of the two must be a local folder: write it without fsvc:";
            return Err(Failure::Usage(text.to_owned()));
        }
    };
    if flags.watch && direction == Direction::Down {
        let text =
            "--watch is for a local folder that is sent; for the server's changes see fsvc watch";
        return Err(Failure::Usage(text.to_owned()));
    }
    let name = local.display().to_string();
    let what = match direction {
        Direction::Up => format!("sync {} to {remote}", Escaped::new(&name)),
        Direction::Down => format!("sync {remote} to {}", Escaped::new(&name)),
    };
    let mut transfer = transfer(
        direction,
        local,
        remote,
        &flags.filters,
        flags.run,
        flags.common.retry_for,
    );
    transfer.deletions_max = flags.delete.then_some(flags.max_delete);
    transfer.keeps_modes = flags.keep_modes;
    transfer.n_streams = flags.streams.n_streams;
    let reporter = Report::open(output, transfer.dry_run);
    if flags.watch {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        return tokio::select! {
            ended = tree::watch(client, &transfer, &reporter) => match ended {
                Ok(never) => match never {},
                Err(error) => Err(Failure::Tree(what, Box::new(error))),
            },
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        };
    }
    let done = tree::transfer(client, &transfer, &reporter).await;
    drop(reporter);
    conclude(
        &done.map_err(|error| Failure::Tree(what, Box::new(error)))?,
        output,
    )
}
