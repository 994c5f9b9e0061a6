"""Paired measurements of messages, fsvc beside NATS; called by bench.sh.

Each round runs every contestant once and the median of the rounds' ratios is printed, as in bench.py.
The load is `examples/bench_messages`, the same for both sides.
"""

import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from bench import FSVC, Bench, cpu, free_port, memory, words

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
LOAD = pathlib.Path("target/release/examples/bench_messages").resolve()
IMAGE_SIZE = 8 << 30
SECONDS = 5
PUBLISHERS = 16
SIZE = 256
IN_FLIGHT = 100
SUBSCRIBERS = 100
FAN_MESSAGES = 20_000
FAN_SIZE = 128
RATE = 1_000
LATENCY_SECONDS = 10
PUTS = 300
SLOW_SUBSCRIBERS = 1_000
SLOW_MIB = 20
NOFILE = 16_384
# Longest run of the load generator; it bounds itself far below.
RUN_SECONDS_MAX = 180

NATS = """
listen: "127.0.0.1:{port}"
server_name: "{name}"
max_connections: 10000
tls {{
  cert_file: "{certs}/server.pem"
  key_file: "{certs}/server-key.pem"
  ca_file: "{certs}/ca.pem"
  verify: true
  timeout: 10
}}
jetstream {{ store_dir: "{store}", max_memory_store: 64M, max_file_store: 6G }}
"""


class Images:
    """File systems in files, so that all contestants write to the same kind of place."""

    def __init__(self, directory):
        self.dir = directory
        self.mounted = []

    def mount(self, name, options):
        """An empty ext4 of its own; None where it cannot be mounted."""
        image, place = self.dir / f"{name}.img", self.dir / name
        place.mkdir()
        with open(image, "wb") as file:
            file.truncate(IMAGE_SIZE)
        made = ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image]
        for command in (made, ["mount", "-o", f"loop,{options}", image, place]):
            try:
                done = subprocess.run(words(command), capture_output=True, text=True, check=False)
            except FileNotFoundError as error:
                print(f"no file system of its own for {name}: {error}", flush=True)
                return None
            if done.returncode != 0:
                print(f"no file system of its own for {name}: {done.stderr.strip()}", flush=True)
                return None
        self.mounted.append(place)
        return place

    def close(self):
        for place in self.mounted:
            # A lazy unmount goes through even if something still looks at it.
            if subprocess.run(["umount", place], capture_output=True, check=False).returncode != 0:
                subprocess.run(["umount", "-l", place], check=False)


class Messages(Bench):
    """The servers, by the name under which their figures are printed."""

    def __init__(self, directory):
        super().__init__(directory)
        self.sides = {}

    def add_fsvc(self, root, *flags):
        serve = [FSVC, "serve", "--tls-dir", self.certs, "--root", root, "--listen", "127.0.0.1:0"]
        serve += ["--log", "error", "--connections-per-identity-max", SLOW_SUBSCRIBERS * 2, *flags]
        server, address = self.spawn(serve, ready=True)
        self.sides["fsvc"] = ("fsvc", server, address)

    def add_nats(self, name, store):
        port = free_port()
        config = self.dir / f"{name.replace(' ', '-')}.conf"
        config.write_text(NATS.format(port=port, name=config.stem, certs=self.certs, store=store))
        server = subprocess.Popen(["nats-server", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.servers.append(server)
        self.sides[name] = ("nats", server, f"127.0.0.1:{port}")
        wait_for_port(port, server)

    def end(self):
        """Ends the servers that run, for others to be started."""
        self.close()
        self.servers, self.sides = [], {}

    def load(self, name, *figure):
        """What the load generator found, and the CPU seconds of the server meanwhile."""
        side, server, address = self.sides[name]
        before = cpu(server.pid)
        command = words([LOAD, side, address, self.certs, *figure])
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=RUN_SECONDS_MAX, check=True)
        return json.loads(done.stdout) | {"cpu": cpu(server.pid) - before}

    def rounds(self, figures, n=RUNS):
        """Runs each contestant once a round; the first round is not counted."""
        found = []
        for _ in range(n + 1):
            found.append({name: self.load(name, *figure) for name, figure in figures.items()})
        return found[1:]


def wait_for_port(port, server, limit=10):
    until = time.monotonic() + limit
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None or time.monotonic() > until:
            sys.exit("nats-server does not start")
        time.sleep(0.05)


def report(title, rounds, peers, key, unit, per_message=True):
    """Prints the medians of one figure, and the medians of the ratios to each peer."""
    median = statistics.median
    print(f"\n{title}")
    for name in rounds[0]:
        line = f"  {name:28} {median([r[name][key] for r in rounds]):10,.{2 if unit == 'ms' else 0}f} {unit}"
        if per_message:
            each = median([r[name]["cpu"] / r[name]["messages"] for r in rounds])
            line += f"   server cpu {each * 1e6:6.1f} us each"
        for peer in peers:
            if name == "fsvc" and peer in rounds[0]:
                line += f"   {median([r[name][key] / r[peer][key] for r in rounds]):5.2f} x {peer}"
        print(line, flush=True)


def publish(bench, peers):
    for in_flight, title in (
        (1, f"durable publish of {SIZE} bytes, {PUBLISHERS} publishers, each waits for its acknowledgement"),
        (IN_FLIGHT, f"the same, {IN_FLIGHT} messages a publisher in flight; fsvc takes them as lines of one request"),
    ):
        figure = ("publish", PUBLISHERS, SECONDS, SIZE, in_flight)
        rounds = bench.rounds({name: figure for name in ("fsvc", *peers)})
        report(title, rounds, peers, "rate", "messages/s")


def fan_out(bench, peer):
    figure = ("fan-out", SUBSCRIBERS, FAN_MESSAGES, FAN_SIZE)
    rounds = bench.rounds({"fsvc": figure, peer: figure})
    title = f"fan-out of {FAN_MESSAGES:,} messages of {FAN_SIZE} bytes to {SUBSCRIBERS} subscribers, " \
        "until each has all; fsvc's are durable first, NATS core's never"
    rounds = [{("NATS core" if name == peer else name): found for name, found in r.items()} for r in rounds]
    report(title, rounds, ["NATS core"], "rate", "deliveries/s")


def spread(title, found):
    print(f"\n{title}")
    for name, times in found.items():
        line = f"  {name:28} p50 {times['p50']:6.2f} ms   p99 {times['p99']:6.2f} ms   max {times['max']:6.2f} ms"
        if name == "fsvc":
            line += "".join(f"   {times['p99'] / other['p99']:5.2f} x p99 of {peer}"
                            for peer, other in found.items() if peer != name)
        print(line, flush=True)


def latency(bench, peers):
    figure = ("latency", RATE, LATENCY_SECONDS, SIZE)
    found = {name: bench.load(name, *figure) for name in ("fsvc", *peers)}
    spread(f"publish to receive at {RATE:,} messages/s of {SIZE} bytes, {LATENCY_SECONDS} s, on this disk", found)
    found = {"fsvc": bench.load("fsvc", "watch", PUTS, 4096)}
    spread(f"a put's answer to its event at a watcher, {PUTS} puts of 4 KiB; 0 where the event was first", found)


def steps(bench, name, *figure):
    """Runs the load, and looks at the server's memory whenever it pauses."""
    side, server, address = bench.sides[name]
    command = words([LOAD, side, address, bench.certs, *figure])
    seen = {"fresh": memory(server.pid, "VmRSS")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        try:
            for line in load.stdout:
                if line.startswith("{"):
                    continue
                seen[line.strip()] = memory(server.pid, "VmRSS")
                load.stdin.write("\n")
                load.stdin.flush()
        finally:
            load.kill()
    seen["peak"] = memory(server.pid, "VmHWM")
    return seen


def slow(bench, peer):
    """Of fresh servers: what an earlier load left in memory is not counted."""
    figure = ("slow", SLOW_SUBSCRIBERS, SLOW_MIB)
    found = {name: steps(bench, name, *figure) for name in ("fsvc", peer)}
    print(f"\nserver memory with {SLOW_SUBSCRIBERS:,} subscribers that read nothing")
    own, other = found["fsvc"], found[peer]
    for name, seen in (("fsvc", own), ("NATS core", other)):
        line = f"  {name:28} fresh {seen['fresh']:6.1f} MiB   subscribed {seen['subscribed']:6.1f} MiB"
        if name == "fsvc":
            line += f"   {own['subscribed'] / other['subscribed']:5.2f} x NATS core"
            line += f"   {SLOW_MIB} MiB published {own['published']:6.1f} MiB   peak {own['peak']:6.1f} MiB"
        print(line, flush=True)
    print("  (NATS core is sent nothing here: it would hold up to 64 MiB for each of them before it drops one)")


def places(images, disk):
    """Where fsvc and JetStream write: one kind of file system for all, where it can be mounted."""
    plain = images.mount("plain", "defaults")
    synchronous = plain and images.mount("sync", "sync")
    if plain is None:
        plain = disk / "stores"
        plain.mkdir()
    kind = subprocess.run(["stat", "-f", "-c", "%T", plain], capture_output=True, text=True, check=True).stdout.strip()
    what = "a loop-mounted image" if images.mounted else "this disk"
    print(f"fsvc and JetStream write to {kind} on {what}", flush=True)
    print("JetStream as it is syncs every two minutes: what it acknowledges is not durable yet")
    if synchronous:
        print("JetStream, sync: its store is on the same kind of image mounted -o sync, so that each write is durable; "
              "2.9 has no setting for that")
    else:
        print("JetStream, sync: skipped, no file system can be mounted -o sync here")
    return plain, synchronous


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = NOFILE if hard == resource.RLIM_INFINITY else min(NOFILE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        disk = pathlib.Path(enter(tempfile.TemporaryDirectory(prefix="fsvc-bench-", dir="target"))).resolve()
        images = Images(disk)
        stack.callback(images.close)
        version = subprocess.run(["nats-server", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"messages: {RUNS} rounds on {os.cpu_count()} cores, medians; {version}", flush=True)
        plain, synchronous = places(images, disk)
        bench = Messages(disk)
        stack.callback(bench.close)
        bench.add_fsvc(plain / "fresh")
        bench.add_nats("fresh", plain / "nats-fresh")
        slow(bench, "fresh")
        bench.end()
        bench.add_fsvc(plain / "fsvc")
        bench.add_nats("JetStream", plain / "jetstream")
        peers = ["JetStream"]
        if synchronous:
            bench.add_nats("JetStream, sync", synchronous / "jetstream")
            peers.append("JetStream, sync")
        publish(bench, peers)
        fan_out(bench, "JetStream")
        bench.end()
        # What is measured by the clock and not beside a peer: without a second file system below.
        bench.add_fsvc(disk / "fsvc")
        bench.add_nats("JetStream", disk / "jetstream")
        latency(bench, ["JetStream"])


if __name__ == "__main__":
    main()
