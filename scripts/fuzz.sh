#!/usr/bin/env bash
# Coverage-guided fuzzing of everything that a peer or an operator can send.
#   scripts/fuzz.sh [SECONDS]      for each target, 60 if not given
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is missing: cargo install cargo-fuzz, and rustup toolchain install nightly" >&2
    exit 1
fi
for target in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    echo "== $name"
    cargo +nightly fuzz run "$name" -- -max_total_time="${1:-60}" -rss_limit_mb=512 -timeout=1
done
