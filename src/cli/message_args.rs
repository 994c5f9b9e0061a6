//! The flags of the commands on messages, on the log, and of the operator; they hold the defaults.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::Common;
use super::durations::duration;
use super::since::Since;
use crate::filter::TopicFilter;
use crate::label::{CursorName, DedupId};
use crate::path::{Prefix, Topic};

#[derive(Debug, Subcommand)]
pub(super) enum MessageCommand {
    /// Show what happens to files
    #[command(after_help = "Example: fsvc watch /inbox/\n         \
                            fsvc watch / --since 1h --no-follow --json\n         \
                            fsvc watch /inbox/ --since 0 --cursor loader")]
    Watch {
        /// A directory, or a file
        #[arg(default_value = "/")]
        prefix: Prefix,
        #[command(flatten)]
        reader: ReaderFlags,
        #[command(flatten)]
        common: Common,
    },
    /// Send a message to a topic
    #[command(
        after_help = "Example: fsvc publish line-4/temperature 21.5\n         \
                            fsvc publish chat/hall '\"hello\"'\n         \
                            fsvc publish frames/cam-1 --file frame.jpg\n         \
                            tail -f readings.ndjson | fsvc publish line-4/readings - --lines"
    )]
    Publish {
        topic: Topic,
        #[command(flatten)]
        content: ContentFlags,
        /// Each line is a message; empty ones are passed over
        #[arg(long)]
        lines: bool,
        /// What makes this message the same when it is sent again: it is taken once
        #[arg(long, value_name = "ID")]
        dedup_id: Option<DedupId>,
        #[command(flatten)]
        common: Common,
    },
    /// Print the messages of topics
    #[command(after_help = "Example: fsvc subscribe 'line-4/*'\n         \
                            fsvc subscribe 'chat/**' --since 1h --json\n         \
                            fsvc subscribe jobs --cursor workers --group\n\
                            In a filter * is one segment, and ** at the end is the rest.")]
    Subscribe {
        #[arg(required = true)]
        filter: Vec<TopicFilter>,
        #[command(flatten)]
        reader: ReaderFlags,
        /// Fetch what is attached to a message into this directory, under its sequence number
        #[arg(long, value_name = "DIR")]
        attachments: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Send a message and print the reply to it
    #[command(after_help = "Example: fsvc request rpc/sum '[1, 2, 3]' --timeout 5s")]
    Request {
        topic: Topic,
        #[command(flatten)]
        content: ContentFlags,
        /// Longest wait for the reply, at most 5m
        #[arg(long, default_value = "30s", value_parser = duration)]
        timeout: Duration,
        #[command(flatten)]
        common: Common,
    },
    /// Reply to a message that asks for it
    #[command(after_help = "Example: fsvc reply 4711 6")]
    Reply {
        /// The message's sequence number
        sequence: u64,
        #[command(flatten)]
        content: ContentFlags,
        #[command(flatten)]
        common: Common,
    },
    /// List topics, and how far your cursors are behind
    #[command(after_help = "Example: fsvc topics 'line-4/**'\n\
                            Columns: messages, bytes, latest message, its time, CURSOR:LAG, topic.")]
    Topics {
        filter: Option<TopicFilter>,
        #[command(flatten)]
        common: Common,
    },
    /// Print the latest message of each topic
    #[command(after_help = "Example: fsvc last 'line-4/*' --json")]
    Last {
        #[arg(required = true)]
        filter: Vec<TopicFilter>,
        #[command(flatten)]
        common: Common,
    },
    /// Fetch what is attached to a message; - is standard output
    #[command(after_help = "Example: fsvc fetch 4711 frame.jpg")]
    Fetch {
        /// The message's sequence number
        sequence: u64,
        /// Where to put it [default: the number, in this directory]
        local: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Say that what a cursor gave is done with
    #[command(after_help = "Example: fsvc ack loader 4711")]
    Ack {
        cursor: CursorName,
        /// Up to this message; for a group, this one
        sequence: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Take a cursor away
    #[command(after_help = "Example: fsvc forget loader")]
    Forget {
        cursor: CursorName,
        #[command(flatten)]
        common: Common,
    },
    /// Record what other programs did in the served directory
    #[command(after_help = "Example: fsvc reconcile /inbox/")]
    Reconcile {
        #[arg(default_value = "/")]
        prefix: Prefix,
        #[command(flatten)]
        common: Common,
    },
}

/// Where a reader begins, how it is remembered, when it ends.
#[derive(Debug, Args)]
pub(super) struct ReaderFlags {
    /// Begin after this record, at this RFC 3339 time, this long ago (1h, 7d), or where this cursor
    /// stands [default: with what comes next]
    #[arg(long, value_name = "SEQ|TIME|DURATION|CURSOR")]
    pub(super) since: Option<Since>,
    /// Have the server remember what was printed, under this name; a new one begins at --since
    #[arg(long, value_name = "NAME")]
    pub(super) cursor: Option<CursorName>,
    /// Share what comes with every other reader of the cursor
    #[arg(long)]
    pub(super) group: bool,
    /// When what a reader of the cursor has not acknowledged is sent again [default: 30s]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(super) ack_timeout: Option<Duration>,
    /// Leave it to fsvc ack to say what is done with, instead of what was printed
    #[arg(long, requires = "cursor", conflicts_with = "no_follow")]
    pub(super) no_ack: bool,
    /// End after this many events
    #[arg(long, value_name = "N")]
    pub(super) count: Option<NonZeroU64>,
    /// End when everything is printed that is there at the start
    #[arg(long)]
    pub(super) no_follow: bool,
}

/// What a message says.
#[derive(Debug, Args)]
pub(super) struct ContentFlags {
    /// JSON, a string in quotes of its own: '"hello"'; or -, any bytes from standard input
    #[arg(value_name = "JSON|-", conflicts_with = "file")]
    pub(super) content: Option<String>,
    /// Any bytes, from this file
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Look after the log
    #[command(subcommand)]
    Log(LogCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Show what the log says of itself
    #[command(after_help = "Example: fsvc admin log stats --json")]
    Stats {
        #[command(flatten)]
        common: Common,
    },
    /// Read every record and say which are damaged
    #[command(after_help = "Example: fsvc admin log verify\nExit code 1 if any is damaged.")]
    Verify {
        #[command(flatten)]
        common: Common,
    },
}

impl MessageCommand {
    /// What the command has in common with the others.
    pub(super) const fn common(&self) -> &Common {
        match self {
            Self::Watch { common, .. }
            | Self::Publish { common, .. }
            | Self::Subscribe { common, .. }
            | Self::Request { common, .. }
            | Self::Reply { common, .. }
            | Self::Topics { common, .. }
            | Self::Last { common, .. }
            | Self::Fetch { common, .. }
            | Self::Ack { common, .. }
            | Self::Forget { common, .. }
            | Self::Reconcile { common, .. } => common,
        }
    }
}

impl AdminCommand {
    /// What the command has in common with the others.
    pub(super) const fn common(&self) -> &Common {
        match self {
            Self::Log(LogCommand::Stats { common } | LogCommand::Verify { common }) => common,
        }
    }
}
