#!/usr/bin/env bash
# Measures fsvc beside its peers, in one run on one machine, and prints ratios.
# What is missing is installed where that is possible, and else named.
#
#   scripts/bench.sh                 1 GiB on tmpfs, small puts on this disk
#   BENCH_MIB=256 BENCH_RUNS=3 scripts/bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin
. scripts/tools.sh
tool cargo "" "Rust 1.90 or newer: https://rustup.rs"
tool python3 python3 "Python 3.9 or newer"
tool nginx nginx "nginx, with its WebDAV module"
tool curl curl "curl"
tool sftp openssh-client "OpenSSH's client"
tool sshd openssh-server "OpenSSH's server"

cargo build --release --quiet
exec python3 scripts/bench.py
