"""Trees, resumed transfers, syncs and deltas, beside curl, rsync and sftp; called by bench.sh.

Each round runs every contestant once. Nothing is deleted between two rounds: a file system that has just
freed many inodes is slow to give them out again, which would hit whoever comes next.
"""

import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import bench

FILES = int(os.environ.get("BENCH_FILES", "10000"))
TREE_FILES = int(os.environ.get("BENCH_TREE_FILES", "100000"))
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
RESUME_MIB = int(os.environ.get("BENCH_RESUME_MIB", "4096"))
DELTA_MIB = int(os.environ.get("BENCH_DELTA_MIB", "1024"))
BLOCK = 4096
FSVC = bench.FSVC


def say(text):
    print(text, flush=True)


class Relay:
    """Passes bytes on, counts those from the client, and cuts once after so many of them."""

    def __init__(self, address, cut_after=None):
        host, port = address.rsplit(":", 1)
        self.target = (host, int(port))
        self.cut_after, self.sent, self.cut_at, self.first_new_byte = cut_after, 0, None, None
        self.sockets, self.lock = [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def address(self):
        return f"localhost:{self.listener.getsockname()[1]}"

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            with self.lock:
                self.sockets += [client, server]
            began = time.monotonic()
            threading.Thread(target=self.pump, args=(client, server, began), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, None), daemon=True).start()

    def pump(self, source, sink, began):
        """`began` is when the connection came, on the way from the client."""
        mine = 0
        try:
            while True:
                piece = source.recv(1 << 18)
                if not piece:
                    break
                sink.sendall(piece)
                if began is None:
                    continue
                mine += len(piece)
                with self.lock:
                    self.sent += len(piece)
                    # More than a handshake and requests: content is on its way.
                    if self.cut_at and began > self.cut_at and mine > 1 << 16 and self.first_new_byte is None:
                        self.first_new_byte = time.monotonic() - began
                    if self.cut_after and self.cut_at is None and self.sent >= self.cut_after:
                        self.cut_at = time.monotonic()
                        for each in self.sockets:
                            try:
                                each.shutdown(socket.SHUT_RDWR)
                            except OSError:
                                pass
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


def rate_report(title, rounds, peers):
    """Files per second, and the median of the ratios to each peer; more is better."""
    say(f"\n{title}")
    median = statistics.median
    for name in rounds[0]:
        rate = median([FILES / r[name][0] for r in rounds])
        cpu = median([r[name][1] / FILES * 1e6 for r in rounds])
        line = f"  {name:14} {rate:8,.0f} files/s   {cpu:6.0f} us CPU each"
        if name == "fsvc":
            line += "".join(
                f"   {median([r[peer][0] / r[name][0] for r in rounds]):5.2f} x {peer}" for peer in peers if peer in rounds[0]
            )
        say(line)


def curl_list(path, lines):
    path.write_text("".join(lines))
    return ["-Z", "--parallel-max", "16", "--no-progress-meter", "-K", path]


def small(bench_, where, peers):
    """Many small files up and down."""
    d = where
    source = d / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number:05}").write_bytes(os.urandom(BLOCK))
    bench_.dir = d
    server, fsvc = bench_.fsvc(d / "data")
    nginx, curl, url = bench_.nginx()
    if "sftp -r" in peers:
        sshd, sftp, ssh = ssh_peers(bench_)
    bench.run(fsvc("ping"), server)
    os.sync()
    puts, gets = [], []
    for turn in range(RUNS + 1):
        up = [f'upload-file="{source}/{n:05}"\nurl="{url}/{turn}/{n:05}"\n' for n in range(FILES)]
        down = [f'url="{url}/{turn}/{n:05}"\noutput="{d}/curl{turn}/{n:05}"\n' for n in range(FILES)]
        (d / f"curl{turn}").mkdir()
        put = {
            "fsvc": bench.run(fsvc("put", "-r", source, f"/{turn}/"), server),
            "curl -Z": bench.run([*curl, *curl_list(d / "up", up)], nginx),
        }
        if "sftp -r" in peers:
            target = f"127.0.0.1:{d}/rsync{turn}/"
            put["rsync --fsync"] = bench.run(["rsync", "-r", "--fsync", "-e", ssh, f"{source}/", target], sshd)
            (d / f"sftp{turn}").mkdir()
            (d / "batch").write_text(f"put -r {source} {d}/sftp{turn}/\n")
            put["sftp -r"] = bench.run([*sftp, d / "batch", "127.0.0.1"], sshd)
        puts.append(put)
        gets.append({
            "fsvc": bench.run(fsvc("get", "-r", f"/{turn}/", d / f"fsvc{turn}"), server),
            "curl -Z": bench.run([*curl, *curl_list(d / "down", down)], nginx),
        })
        check = subprocess.run(["diff", "-rq", source, d / f"fsvc{turn}"], capture_output=True, check=False)
        if check.returncode:
            sys.exit(f"what came back differs: {check.stdout.decode()[:500]}")
    kind = "tmpfs" if str(d).startswith("/dev/shm") else "this disk"
    rate_report(f"put of {FILES} files of {BLOCK} bytes on {kind}, each durable with fsvc and rsync", puts[1:], peers)
    rate_report(f"get of {FILES} files of {BLOCK} bytes on {kind}", gets[1:], peers)


def ssh_peers(bench_):
    sshd, sftp = bench_.sshd()
    port = sftp[sftp.index("-P") + 1]
    options = [word for word in sftp[2:-1] if word not in ("-P", port)]
    return sshd, sftp, " ".join(map(str, ["ssh", *options, "-p", port]))


def client(command):
    """Runs a client; its output, and its peak of memory in MiB."""
    # Its own words for how far it is, on standard error, are many and of no interest.
    process = subprocess.Popen(bench.words(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, peak = [], 0
    reader = threading.Thread(target=lambda: out.append(process.stdout.read().decode()))
    reader.start()
    # What the kernel says of a child that ended counts what Python had when it was made.
    while process.poll() is None:
        try:
            peak = max(peak, bench.used_memory(process.pid, "VmHWM"))
        except OSError:
            pass
        time.sleep(0.005)
    reader.join()
    if process.returncode:
        sys.exit(f"{bench.words(command)}: {''.join(out)[-2000:]}")
    return out[0], peak


def resume(bench_, d):
    """A put that is cut at nine tenths, and goes on by itself."""
    source = d / "large"
    with open(source, "wb") as file:
        for _ in range(RESUME_MIB):
            file.write(os.urandom(1 << 20))
    size = RESUME_MIB << 20
    bench_.dir = d
    server, fsvc = bench_.fsvc(d / "data-resume")
    relay = Relay(bench_.address, cut_after=size * 9 // 10)
    command = [word if word != bench_.address else relay.address() for word in fsvc("put", source, "/large")]
    began = time.monotonic()
    client(command)
    relay.close()
    again = (relay.sent - size) / size
    say(f"\nput of {RESUME_MIB} MiB cut at 90 %: {time.monotonic() - began:.1f} s, {again:.1%} of the bytes sent again, "
        f"{relay.first_new_byte * 1e3:.0f} ms from the new connection to new bytes")
    same = subprocess.run(["cmp", source, d / "data-resume/large"], check=False).returncode == 0
    source.unlink()
    if not same:
        sys.exit("what was put differs")


def delta(bench_, d):
    """One per cent of a large file changed, in blocks all over it."""
    source = d / "changing"
    with open(source, "wb") as file:
        for _ in range(DELTA_MIB):
            file.write(os.urandom(1 << 20))
    size = DELTA_MIB << 20
    bench_.dir = d
    server, fsvc = bench_.fsvc(d / "data-delta")
    client(fsvc("put", source, "/changing"))
    with open(source, "r+b") as file:
        for block in random.sample(range(size // BLOCK), size // BLOCK // 100):
            file.seek(block * BLOCK)
            file.write(os.urandom(BLOCK))
    relay = Relay(bench_.address)
    command = fsvc("put", "--delta", "always", source, "/changing")
    command = [word if word != bench_.address else relay.address() for word in command]
    began = time.monotonic()
    client(command)
    relay.close()
    say(f"\nput of {DELTA_MIB} MiB of which 1 % changed, in blocks of {BLOCK} bytes: "
        f"{relay.sent / size:.1%} of the bytes sent, {time.monotonic() - began:.1f} s")
    if subprocess.run(["cmp", source, d / "data-delta/changing"], check=False).returncode:
        sys.exit("what was put differs")
    source.unlink()


def summary(text):
    """The last object of the output that has a summary."""
    found = [json.loads(line) for line in text.splitlines() if '"summary"' in line]
    return found[-1]["summary"]


def sync(bench_, d):
    """A large tree that has not changed, and one of which one file in a hundred has."""
    source = d / "tree"
    names = []
    for number in range(TREE_FILES):
        directory = source / f"{number // 100:04}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        names.append(directory / f"{number % 100:02}")
        names[-1].write_bytes(b"%d" % number)
    bench_.dir = d
    server, fsvc = bench_.fsvc(d / "data-sync")
    environment = {"XDG_CACHE_HOME": str(d / "cache"), "XDG_STATE_HOME": str(d / "state")}
    os.environ.update(environment)
    idle = bench.used_memory(server.pid, "VmRSS")
    _, own_idle = client(fsvc("ping"))

    def once(*command):
        pathlib.Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        began = time.monotonic()
        out, own = client(fsvc(*command, "--json"))
        took, peak = time.monotonic() - began, bench.used_memory(server.pid, "VmHWM")
        memory = f"over idle: client {own - own_idle:.0f} MiB, server {peak - idle:.0f} MiB"
        return took, summary(out)["n_moved"], memory

    first, moved, memory = once("sync", source, "fsvc:/tree")
    say(f"\nsync of {TREE_FILES} files for the first time: {first:.1f} s, {TREE_FILES / first:,.0f} files/s, {memory}")
    # Digests of files that changed just now are not kept.
    time.sleep(2.5)
    once("sync", source, "fsvc:/tree")
    again, moved, memory = once("sync", source, "fsvc:/tree")
    say(f"nothing changed: {again:.2f} s, {moved} files sent, {memory}")
    for name in random.sample(names, TREE_FILES // 100):
        name.write_bytes(b"changed " + name.name.encode())
    again, moved, memory = once("sync", source, "fsvc:/tree")
    say(f"1 % changed: {again:.2f} s, {moved} files sent, {memory}")
    again, moved, memory = once("get", "-r", "/tree", d / "back")
    say(f"get of all of them: {again:.2f} s, {moved} files, {memory}")


def main():
    parts = sys.argv[1:] or ["small", "resume", "delta", "sync"]
    with tempfile.TemporaryDirectory(prefix="fsvc-bench-", dir="/dev/shm") as fast, \
            tempfile.TemporaryDirectory(prefix="fsvc-bench-", dir="target") as disk:
        fast, disk = pathlib.Path(fast), pathlib.Path(disk).resolve()
        bench_ = bench.Bench(fast)
        try:
            say(f"{RUNS} rounds on {os.cpu_count()} cores, medians")
            if "small" in parts:
                (fast / "small").mkdir()
                small(bench_, fast / "small", ["curl -Z"])
                small(bench_, disk, ["curl -Z", "rsync --fsync", "sftp -r"])
            for part, run in (("resume", resume), ("delta", delta), ("sync", sync)):
                if part in parts:
                    directory = fast / part
                    directory.mkdir()
                    run(bench_, directory)
        finally:
            bench_.close()


if __name__ == "__main__":
    main()
