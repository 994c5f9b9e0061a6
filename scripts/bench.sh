#!/usr/bin/env bash
# Measures fsvc beside its peers, in one run on one machine, and prints ratios.
# What is missing is installed where that is possible, and else named.
#
#   scripts/bench.sh                 1 GiB on tmpfs, small puts on this disk
#   BENCH_MIB=256 BENCH_RUNS=3 scripts/bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin
need() { # command, Debian package
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $2" >&2
        (apt-get update -qq && apt-get install -y -qq "$2") >/dev/null 2>&1 || true
    fi
    command -v "$1" >/dev/null || { echo "bench.sh needs $1 (Debian package $2)" >&2; exit 1; }
}
need python3 python3
need nginx nginx
need curl curl
need sftp openssh-client
need sshd openssh-server

cargo build --release --quiet
exec python3 scripts/bench.py
