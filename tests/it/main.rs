//! The tests that see fsvc from outside, in one binary.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground gives way")]
#![allow(
    unreachable_pub,
    reason = "nothing is reached from outside of a test binary"
)]

// The parts, through their seams.
mod attachments;
mod cursors_suite;
mod database_faults;
mod index_suite;
mod journal;
mod live_sessions;
mod log_suite;
mod memory;
mod messages_suite;
mod pki;
mod policy_refusals;
mod policy_suite;
mod power_cut;
mod retention;
mod store_faults;
mod store_local;
mod store_races;
mod store_suite;

// The program.
mod append;
mod append_wire;
mod attack;
mod bad_bundles;
mod bad_lists;
mod bad_names;
mod bad_states;
mod bit_rot;
mod certificates;
mod certs;
mod certs_bound;
mod certs_bundle;
mod certs_check;
mod certs_issue;
mod certs_life;
mod certs_places;
mod certs_request;
mod certs_revoke;
mod certs_rotate;
mod certs_show;
mod certs_verifiers;
mod check_connect;
mod client_rotation;
mod compression;
mod compression_moves;
mod crash;
mod crash_messages;
mod cuts;
mod deltas;
mod docs;
mod drain;
mod failure_texts;
mod faults;
mod full_disk;
mod harness;
mod hostile;
mod many;
mod matrix;
mod messages;
mod names;
mod packs;
mod plain_peers;
mod properties;
mod python_client;
mod ranges;
mod raw;
mod reconcile;
mod refusals;
mod relay;
mod reload;
mod reload_order;
mod request_ids;
mod resume;
mod resume_state;
mod rights;
mod rights_of_messages;
mod round_trip;
mod server_identity;
mod session;
mod start;
mod strange_servers;
mod tidy;
mod torn;
mod transport;
mod trees;
mod trees_large;
mod trees_watched;
mod trust;
mod uploads;
mod uploads_broken;
mod waiting;
mod watch;
mod wire;
