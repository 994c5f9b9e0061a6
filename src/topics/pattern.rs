//! Patterns in schemas: only those that match in time linear in the text, and what one counts.
//!
//! Matching can take as long as the compiled pattern times the text, so a large pattern counts as
//! much more than a small one.

use jsonschema::{PatternOptions, Regex};
use serde_json::json;

/// Largest compiled pattern, in bytes.
const SIZE_MAX: usize = 64 << 10;
/// Largest compiled pattern that counts as a small one, in bytes.
const SMALL_SIZE_MAX: usize = 8 << 10;
/// Most bytes that the engine keeps to be fast, for each pattern.
const CACHE_SIZE_MAX: usize = 1 << 20;
/// What matching a small pattern counts, in checks.
const SMALL_CHECKS: usize = 10;
/// What matching another pattern counts, in checks.
const LARGE_CHECKS: usize = 100;

/// The engine, which knows neither looking around nor back references.
pub(super) fn engine() -> PatternOptions<Regex> {
    engine_of(SIZE_MAX)
}

/// What matching `pattern` counts, in checks.
pub(super) fn checks(pattern: &str) -> usize {
    // The engine does not tell the size, only whether a limit holds it.
    let small = jsonschema::options().with_pattern_options(engine_of(SMALL_SIZE_MAX));
    match small.build(&json!({ "pattern": pattern })) {
        Ok(_) => SMALL_CHECKS,
        Err(_) => LARGE_CHECKS,
    }
}

fn engine_of(size_max: usize) -> PatternOptions<Regex> {
    PatternOptions::regex()
        .size_limit(size_max)
        .dfa_size_limit(CACHE_SIZE_MAX)
}
