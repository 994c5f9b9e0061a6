"""Paired measurements of fsvc and its peers; called by bench.sh.

Each round runs every contestant once, so that a drift of the machine's speed hits all alike; what is
printed is the median of the rounds' ratios. CPU seconds are those of client and server together, as
the kernel accounts them.
"""

import os
import pathlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MIB = int(os.environ.get("BENCH_MIB", "1024"))
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
SMALL_PUTS = 200
SETTLE_SECONDS = 0.5
WARMINGS_MAX = 8
TICKS = os.sysconf("SC_CLK_TCK")
FSVC = pathlib.Path("target/release/fsvc").resolve()

# nginx verifies nothing and syncs nothing: it is the bar for the bare transport.
NGINX = """
daemon off; master_process off; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {dir}/body;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_protocols TLSv1.3; ssl_verify_client on; ssl_session_tickets off;
    ssl_certificate {certs}/server.pem; ssl_certificate_key {certs}/server-key.pem;
    ssl_client_certificate {certs}/ca.pem;
    location / {{ root {dir}/www; dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {dir}/host
AuthorizedKeysFile {dir}/user.pub
PidFile none
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stat(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def tree(pid):
    """A process and its descendants, as far as they still run."""
    found = [pid]
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if int(stat(entry.name)[1]) == pid:
                found += tree(int(entry.name))
        except OSError:
            continue
    return found


def cpu(pid):
    """CPU seconds of a process, its descendants, and those of them that it has waited for."""
    total = 0
    for each in tree(pid):
        try:
            total += sum(map(int, stat(each)[11:15]))
        except OSError:
            continue
    return total / TICKS


def used_memory(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return 0.0


def words(command):
    return [str(part) for part in command]


def run(command, server):
    """Wall and CPU seconds of a client command, the server's share included."""
    # What others left to be written is not to be waited for by who makes durable what is his.
    os.sync()
    before, own = cpu(server.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(words(command), check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - began
    # What a server does behind its answer, such as giving back space, counts as well.
    time.sleep(SETTLE_SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
    return wall, client + cpu(server.pid) - before


def wait_for(command, fine=(0,), limit=10):
    until = time.monotonic() + limit
    while True:
        done = subprocess.run(words(command), capture_output=True, check=False)
        if done.returncode in fine:
            return
        if time.monotonic() > until:
            sys.exit(f"not ready: {words(command)}: {done.stderr.decode()}")


class Bench:
    """The servers, and how to reach each."""

    def __init__(self, directory):
        self.dir = directory
        self.certs = directory / "certs"
        self.servers = []
        subprocess.run([FSVC, "gen-certs", "--quiet", "--dir", self.certs], check=True)

    def spawn(self, command, ready=False):
        server = subprocess.Popen(words(command), stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        return server, server.stdout.readline().split()[-1] if ready else None

    def close(self):
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        for server in self.servers:
            server.wait(timeout=60)

    def fsvc(self, root):
        serve = [FSVC, "serve", "--tls-dir", self.certs, "--root", root, "--listen", "127.0.0.1:0"]
        serve += ["--log", "error"]
        server, address = self.spawn(serve, ready=True)
        self.address = address
        flags = ["--quiet", "--tls-dir", self.certs, "--as", "dev", "--server", address]
        return server, lambda *rest: [FSVC, *rest, *flags]

    def nginx(self):
        port = free_port()
        (self.dir / "www").mkdir()
        (self.dir / "nginx.conf").write_text(NGINX.format(dir=self.dir, certs=self.certs, port=port))
        server, _ = self.spawn(["nginx", "-p", self.dir, "-c", self.dir / "nginx.conf"])
        client = self.certs / "clients"
        curl = ["curl", "-sSf", "--cacert", self.certs / "ca.pem", "--cert", client / "dev.pem"]
        curl += ["--key", client / "dev-key.pem"]
        url = f"https://localhost:{port}"
        wait_for([*curl, "-o", os.devnull, f"{url}/"], fine=(0, 22))
        return server, curl, url

    def sshd(self):
        port = free_port()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / name], check=True)
        (self.dir / "sshd.conf").write_text(SSHD.format(dir=self.dir, port=port))
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        server, _ = self.spawn([shutil.which("sshd"), "-D", "-E", self.dir / "sshd.log", "-f", self.dir / "sshd.conf"])
        options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.dir}/known"]
        options += ["-o", "LogLevel=ERROR", "-i", self.dir / "user", "-P", port]
        sftp = ["sftp", "-q", *options, "-b"]
        (self.dir / "probe").write_text("pwd\n")
        wait_for([*sftp, self.dir / "probe", "127.0.0.1"])
        return server, sftp


def report(title, rounds):
    """Prints the medians, and the medians of the ratios of fsvc to each peer."""
    median = statistics.median
    print(f"\n{title}")
    for name in rounds[0]:
        wall, used = (median([r[name][i] for r in rounds]) for i in (0, 1))
        line = f"  {name:14} wall {wall:6.2f} s   cpu {used:6.2f} s"
        if name != "fsvc":
            wall, used = (median([r["fsvc"][i] / r[name][i] for r in rounds]) for i in (0, 1))
            line += f"   fsvc takes {wall:.2f} x the wall and {used:.2f} x the cpu of it"
        print(line, flush=True)


class Memory:
    """Memory that is there: a virtual machine may give back to its host what was freed, and whoever gets it next
    waits. In `directory`, since file systems take it in pieces of different sizes."""

    def __init__(self, directory):
        self.file, self.best = directory / "memory", float("inf")

    def warm(self):
        """Takes as much as a copy of the file needs, and frees it, until it is had as fast as ever."""
        for _ in range(WARMINGS_MAX):
            began = time.monotonic()
            with open(self.file, "wb") as file:
                for _ in range(MIB):
                    file.write(bytes(1 << 20))
            took = time.monotonic() - began
            self.file.unlink()
            self.best = min(self.best, took)
            if took < 1.2 * self.best:
                return


def bulk(bench, where):
    bench.dir = where
    memory = Memory(where)

    def timed(command, server):
        os.sync()
        memory.warm()
        return run(command, server)

    source, target = where / "source", where / "target"
    with open(source, "wb") as file:
        for _ in range(MIB):
            file.write(os.urandom(1 << 20))
    (bench.dir / "data").mkdir()
    server, fsvc = bench.fsvc(bench.dir / "data")
    run(fsvc("ping"), server)
    idle = used_memory(server.pid, "VmRSS")
    nginx, curl, url = bench.nginx()
    sshd, sftp = bench.sshd()
    (bench.dir / "put").write_text(f"put {source} {bench.dir}/sftp.bin\n")
    (bench.dir / "get").write_text(f"get {bench.dir}/sftp.bin {target}\n")
    puts, gets = [], []
    for _ in range(RUNS + 1):
        puts.append({
            "fsvc": timed(fsvc("put", source, "/big.bin"), server),
            "curl + nginx": timed([*curl, "-T", source, f"{url}/big.bin"], nginx),
            "sftp": timed([*sftp, bench.dir / "put", "127.0.0.1"], sshd),
        })
        gets.append({
            "fsvc": timed(fsvc("get", "/big.bin", target), server),
            "curl + nginx": timed([*curl, "-o", target, f"{url}/big.bin"], nginx),
            "sftp": timed([*sftp, bench.dir / "get", "127.0.0.1"], sshd),
        })
    # The first round warms caches and is not counted.
    kind = "tmpfs" if str(where).startswith("/dev/shm") else "this disk"
    report(f"put of {MIB} MiB on {kind}; fsvc verifies it and makes it durable", puts[1:])
    report(f"get of {MIB} MiB on {kind}; fsvc verifies it", gets[1:])
    for name, rest in (("put", ("put", source, "/big.bin")), ("get", ("get", "/big.bin", target))):
        pathlib.Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        run(fsvc(*rest), server)
        peak = used_memory(server.pid, "VmHWM")
        print(f"server memory during a {name}: {peak - idle:.1f} MiB above the {idle:.1f} MiB of a fresh server", flush=True)


def small(bench, disk):
    files = disk / "files"
    (disk / "data").mkdir()
    files.mkdir()
    names = [files / f"{number:04}" for number in range(SMALL_PUTS)]
    for name in names:
        name.write_bytes(os.urandom(4096))
    server, fsvc = bench.fsvc(disk / "data")
    run(fsvc("put", names[0], names[1], "/small/"), server)
    rounds = []
    for turn in range(RUNS):
        began = time.monotonic()
        for number in range(SMALL_PUTS):
            with open(disk / f"sync-{turn}-{number}", "wb") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
        sync = (time.monotonic() - began) / SMALL_PUTS
        each = run(fsvc("put", *names, f"/small-{turn}/"), server)[0] / SMALL_PUTS
        rounds.append((each / sync, each * 1e3, sync * 1e3))
    ratio, each, sync = (statistics.median(column) for column in zip(*rounds))
    print(f"\nput of 4 KiB on this disk, one after the other: {each:.2f} ms each, "
          f"{ratio:.2f} x the {sync:.2f} ms of one new file with one fsync")


def main():
    with tempfile.TemporaryDirectory(prefix="fsvc-bench-", dir="/dev/shm") as fast, \
            tempfile.TemporaryDirectory(prefix="fsvc-bench-", dir="target") as disk:
        fast, disk = pathlib.Path(fast), pathlib.Path(disk).resolve()
        (fast / "bulk").mkdir()
        (disk / "bulk").mkdir()
        bench = Bench(fast)
        try:
            print(f"{RUNS} rounds on {os.cpu_count()} cores, medians", flush=True)
            for where in (fast / "bulk", disk / "bulk"):
                bulk(bench, where)
                shutil.rmtree(where)
            small(bench, disk)
        finally:
            bench.close()


if __name__ == "__main__":
    main()
