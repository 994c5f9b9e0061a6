//! The command line: the only place that prints, reads the environment, and decides the exit code.

mod about;
mod administration;
mod args;
mod bound;
mod ca;
mod ca_args;
mod certs;
mod certs_args;
mod check;
mod durations;
mod event_text;
mod exit;
mod expiry;
mod explain;
mod file_args;
mod files;
mod life;
mod life_args;
mod lines;
mod message_args;
mod messages;
mod open;
mod output;
mod payload;
mod progress;
mod publish;
mod reader;
mod reload;
mod serve;
mod set;
mod since;
mod sync;
mod tls_dir;
mod transfer;
mod tree;
mod tree_report;

use clap::Parser;

use args::{Arguments, Command};
pub use exit::Exit;
use output::Output;

/// Runs the command that the process was started with.
pub fn run() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    match arguments.command {
        Command::GenCerts(arguments) => certs::run(&arguments),
        Command::Certs(command) => life::run(&command),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Client(command) => {
            let output = Output::new(&command);
            files::run(*command, output)
        }
    }
}
