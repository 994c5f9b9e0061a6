//! The binary: hands the command line to `cli` and ends with its exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    fsvc::cli::run().into()
}
