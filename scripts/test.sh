#!/usr/bin/env bash
# Format, lints, docs, all tests. Works from a fresh clone: installs what is missing where it can,
# and else names it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

tool cargo "" "Rust 1.90 or newer: https://rustup.rs"
tool cc gcc "a C compiler"
tool openssl openssl "OpenSSL"
tool python3 python3 "Python 3.9 or newer"

echo "== format" && cargo fmt --check
echo "== lints" && cargo clippy --locked --quiet --all-targets -- -D warnings
echo "== docs" && RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps
echo "== doc tests" && cargo test --locked --quiet --doc
echo "== tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast --status-level slow
else
    cargo test --locked --no-fail-fast --lib --bins --tests
fi
