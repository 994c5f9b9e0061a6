//! The tests that see fsvc from outside, in one binary.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground gives way")]

mod database_faults;
mod index_suite;
mod journal;
mod log_suite;
mod policy_refusals;
mod policy_suite;
