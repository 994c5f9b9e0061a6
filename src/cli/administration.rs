//! What an operator asks of the log and of the tree.
//!
//! The answers come in pages and are summed up here.

use serde_json::json;

use super::exit::Exit;
use super::files::{Failure, Outcome, request};
use super::message_args::{AdminCommand, LogCommand};
use super::output::{Output, seconds};
use crate::client::{Client, ClientError};
use crate::escape::Escaped;
use crate::path::Prefix;
use crate::protocol::{LogStats, Reconciled};

pub(super) async fn run(client: &Client, command: &AdminCommand, output: Output) -> Outcome {
    match command {
        AdminCommand::Log(LogCommand::Stats { .. }) => stats(client, output).await,
        AdminCommand::Log(LogCommand::Verify { .. }) => verify(client, output).await,
    }
}

pub(super) async fn reconcile(client: &Client, prefix: &Prefix, output: Output) -> Outcome {
    let mut total = Reconciled {
        n_files: 0,
        n_found: 0,
        n_gone: 0,
        next: None,
    };
    loop {
        let page = client.reconcile(prefix, total.next.take()).await;
        let page = page.map_err(request("reconcile", prefix.as_str()))?;
        total.n_files += page.n_files;
        total.n_found += page.n_found;
        total.n_gone += page.n_gone;
        if page.next.is_none() {
            break;
        }
        total.next = page.next;
    }
    let text = format!(
        "{prefix}: {} files, {} found and recorded, {} gone and recorded",
        total.n_files, total.n_found, total.n_gone
    );
    Ok(output.result(&total, &text)?)
}

async fn stats(client: &Client, output: Output) -> Outcome {
    let stats = client.log_stats().await;
    let stats = stats.map_err(request("admin log stats", ""))?;
    Ok(output.result(&stats, &stats_text(&stats))?)
}

fn stats_text(stats: &LogStats) -> String {
    let mut text = format!(
        "records   {} to {}, {} kept, {} bytes on disk\n\
         files     {}\n\
         messages  {} in {} topics, {} bytes\n\
         cursors   {}\n\
         time      {}",
        stats.first,
        stats.head,
        stats.n_records,
        stats.file_size,
        stats.n_files,
        stats.n_messages,
        stats.n_topics,
        stats.messages_size,
        stats.n_cursors,
        seconds(stats.time)
    );
    if stats.files_lost_to > 0 {
        let note = format!("\nhistory   of files whole after {}", stats.files_lost_to);
        text.push_str(&note);
    }
    text
}

async fn verify(client: &Client, output: Output) -> Outcome {
    let failed = || request("admin log verify", "");
    let (mut from, mut n_checked, mut n_damaged) = (0, 0, 0_u64);
    loop {
        let page = client.log_verify(from).await.map_err(failed())?;
        n_checked += page.n_checked;
        for damaged in &page.damaged {
            n_damaged += 1;
            let reason = Escaped::new(&damaged.reason);
            output.result(damaged, &format!("{} {reason}", damaged.sequence))?;
        }
        match page.next {
            Some(next) if next > from => from = next,
            Some(_) => {
                let error = ClientError::Misplaced("its pages run in a circle");
                return Err(failed()(error));
            }
            None => break,
        }
    }
    let object = json!({"n_checked": n_checked, "n_damaged": n_damaged});
    output.note(
        &object,
        &format!("{n_checked} records checked, {n_damaged} damaged"),
    )?;
    if n_damaged > 0 {
        return Err(Failure::Refused(Exit::Failed));
    }
    Ok(())
}
