//! The tests that see fsvc from outside, in one binary.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground gives way")]
#![allow(
    unreachable_pub,
    reason = "nothing is reached from outside of a test binary"
)]

// The parts, through their seams.
mod database_faults;
mod index_suite;
mod journal;
mod log_suite;
mod pki;
mod policy_refusals;
mod policy_suite;
mod store_faults;
mod store_local;
mod store_races;
mod store_suite;

// The program.
mod certificates;
mod crash;
mod docs;
mod drain;
mod faults;
mod harness;
mod matrix;
mod names;
mod properties;
mod python_client;
mod raw;
mod refusals;
mod rights;
mod round_trip;
mod session;
mod start;
mod strange_servers;
mod tidy;
mod torn;
mod transport;
mod wire;
