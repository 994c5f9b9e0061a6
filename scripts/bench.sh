#!/usr/bin/env bash
# Measures fsvc beside its peers, in one run on one machine, and prints ratios.
# What is missing is installed where that is possible, and else named.
#
#   scripts/bench.sh                 files beside nginx and sftp, messages beside NATS
#   scripts/bench.sh files           1 GiB on tmpfs, small puts on this disk
#   scripts/bench.sh messages        publish, fan-out, latency, memory
#   scripts/bench.sh transfers       many small files, a resumed put, a delta, a sync of a large tree
#   BENCH_MIB=256 BENCH_RUNS=3 scripts/bench.sh
set -euo pipefail
cd "$(dirname "$0")/.."

part=${1:-all}
case $part in
all | files | messages | transfers) ;;
*) echo "usage: $0 [files|messages|transfers]" >&2 && exit 2 ;;
esac

PATH=$PATH:/usr/sbin
. scripts/tools.sh
tool cargo "" "Rust 1.90 or newer: https://rustup.rs"
tool python3 python3 "Python 3.9 or newer"

if [ "$part" = all ] || [ "$part" = files ] || [ "$part" = transfers ]; then
    tool nginx nginx "nginx, with its WebDAV module"
    tool curl curl "curl 7.66 or newer"
    tool sftp openssh-client "OpenSSH's client"
    tool sshd openssh-server "OpenSSH's server"
    cargo build --release --quiet
fi
if [ "$part" = all ] || [ "$part" = files ]; then
    python3 scripts/bench.py
fi
if [ "$part" = all ] || [ "$part" = transfers ]; then
    tool rsync rsync "rsync 3.2.4 or newer, for --fsync"
    python3 scripts/bench_transfers.py
fi
if [ "$part" = all ] || [ "$part" = messages ]; then
    # In a shell of its own, because a missing tool ends it.
    if (tool nats-server nats-server "nats-server 2.9 or newer, from https://nats.io"); then
        cargo build --release --quiet --bin fsvc --example bench_messages
        exec python3 scripts/bench_messages.py
    fi
    echo "messages are skipped: there is no NATS to measure them beside" >&2
fi
