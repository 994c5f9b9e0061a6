#!/usr/bin/env bash
# The main job, for real: certificates, a server, a file up and down, a stranger refused.
# Everything happens in a temporary directory and on a free port, and is taken down at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

tool cargo "" "Rust 1.90 or newer: https://rustup.rs"
tool cc gcc "a C compiler"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { echo "demo failed: $*" >&2; exit 1; }

say "Building fsvc"
cargo build --locked --release
PATH="$PWD/target/release:$PATH"
source_file="$PWD/README.md"

work=$(mktemp -d)
server=
cleanup() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; fi
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

say "\$ fsvc gen-certs"
fsvc gen-certs
# A policy that was edited by hand is left alone: the guest gets a certificate and no grant.
echo "# edited" >>certs/policy.toml
fsvc gen-certs --client guest --quiet

say "\$ fsvc serve"
fsvc serve --listen 127.0.0.1:0 --log warn >ready 2>server.log &
server=$!
for _ in $(seq 100); do
    grep -q "listening on" ready && break
    kill -0 "$server" 2>/dev/null || { cat server.log >&2; fail "the server did not start"; }
    sleep 0.05
done
cat ready
FSVC_SERVER=$(awk '{print $NF}' ready)
export FSVC_SERVER FSVC_AS=dev

say "\$ fsvc put README.md /docs/README.md"
fsvc put "$source_file" /docs/README.md

say "\$ fsvc get /docs/README.md copy.md"
fsvc get /docs/README.md copy.md
cmp "$source_file" copy.md || fail "what came back differs"
echo "the same, byte for byte; and a plain file on the server:"
ls -l data/docs/README.md
cmp "$source_file" data/docs/README.md || fail "what is stored differs"

say "\$ fsvc ls -l /docs; fsvc stat /docs/README.md"
fsvc ls -l /docs
fsvc stat /docs/README.md

say "\$ fsvc watch /inbox --cursor loader ...: one service puts, another reacts"
fsvc watch /inbox --since 0 --cursor loader --no-ack --json --count 2 |
while read -r event; do
    sequence=$(expr "$event" : '{"sequence":\([0-9]*\)') || continue
    printf '%s\n' "$event" | grep -oE '"change":"(created|replaced|moved)"[^}]*' | sed 's/.*"path":"\([^"]*\)".*/\1/' |
    while read -r path; do
        fsvc get "$path" arrived --quiet || [ $? = 3 ] || exit
        echo "event $sequence: $path, $(wc -c <arrived) bytes"
    done || exit
    fsvc ack loader "$sequence" --quiet
done >reacted &
reactor=$!
fsvc put "$source_file" /inbox/first.md
fsvc put --atomic "$source_file" copy.md /inbox/release/
wait "$reactor"
cat reacted
grep -q " /inbox/first.md," reacted || fail "no reaction to the first file"
grep -q " /inbox/release/copy.md," reacted || fail "no reaction to the set"

say "\$ fsvc publish line-4/temperature; fsvc subscribe 'line-4/*' --since 0 --no-follow"
fsvc publish line-4/temperature '{"celsius":21.5}'
fsvc subscribe 'line-4/*' --since 0 --no-follow | grep -q 21.5 || fail "the message is not there"
fsvc last 'line-4/**'

say "A known client without a grant is denied:"
code=0; fsvc ls / --as guest || code=$?
[ "$code" = 4 ] || fail "exit code $code, not 4"

say "A stranger, with a certificate of another CA, is refused:"
fsvc gen-certs --dir other --client mallory --quiet
code=0
fsvc ls / --ca certs/ca.pem --cert other/clients/mallory.pem --key other/clients/mallory-key.pem \
    || code=$?
[ "$code" = 5 ] || fail "exit code $code, not 5"

say "All of it held."
