#!/usr/bin/env python3
"""A client of fsvc/1 in nothing but Python's standard library: put, get, ls.

Written from PROTOCOL.md, whose clauses it names. BLAKE3 is not in the standard library, so a
plain one is here: slow, and every byte is verified all the same.
"""
import argparse, json, os, select, socket, ssl, struct, sys, tempfile

PIECE_SIZE, TIMEOUT_S = 64 << 10, 60
LIMITS = {b"M": 64 << 10, b"D": 1 << 20, b"E": 4 << 10}  # P2.2
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),  # columns, then diagonals
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def compress(cv, words, counter, size, flags):
    """One BLAKE3 block: the new chaining value."""
    m, mask = words, 0xFFFFFFFF
    v = [*cv, *IV[:4], counter & mask, counter >> 32, size, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(QUARTERS):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            for word, right, down in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                va = (va + vb + word) & mask
                vd ^= va
                vd = (vd >> right | vd << 32 - right) & mask
                vc = (vc + vd) & mask
                vb ^= vc
                vb = (vb >> down | vb << 32 - down) & mask
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        m = [m[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


class Blake3:
    """Hashes piece by piece. A subtree joins its left neighbour as soon as more input follows."""
    def __init__(self):
        self.pending, self.size, self.n_chunks, self.subtrees = b"", 0, 0, []

    def update(self, piece):
        self.size += len(piece)
        data = self.pending + piece
        at = 0
        while len(data) - at > 1024:  # the last chunk waits: it may be the root
            cv = compress(*self.chunk(data[at:at + 1024]))
            at, self.n_chunks, n = at + 1024, self.n_chunks + 1, self.n_chunks + 1
            while n % 2 == 0:
                cv, n = compress(IV, self.subtrees.pop() + cv, 0, 64, PARENT), n // 2
            self.subtrees.append(cv)
        self.pending = data[at:]

    def chunk(self, data):
        """Compresses all blocks of a chunk but the last: what is left to compress."""
        cv, flags, last = IV, CHUNK_START, max(0, (len(data) - 1) // 64)
        for i in range(last + 1):
            block = data[64 * i:64 * i + 64]
            step = [cv, list(struct.unpack("<16I", block.ljust(64, b"\0"))), self.n_chunks, len(block), flags]
            if i < last:
                cv, flags = compress(*step), 0
        return [*step[:4], step[4] | CHUNK_END]

    def digest(self):
        node = self.chunk(self.pending)
        for left in reversed(self.subtrees):
            node = [IV, left + compress(*node), 0, 64, PARENT]
        node[2], node[4] = 0, node[4] | ROOT
        return "blake3:" + struct.pack("<8I", *compress(*node)).hex()


class Failure(Exception):
    def __init__(self, text, code=1):
        super().__init__(text)
        self.code = code


def refusal(reply):
    return "{code}: {message!a}".format(**reply["error"])


class Connection:
    def __init__(self, server, tls_dir, name):
        host, port = server.rsplit(":", 1)
        context = ssl.create_default_context(cafile=os.path.join(tls_dir, "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3  # P1.1
        context.set_alpn_protocols(["fsvc/1"])  # P1.2
        own = os.path.join(tls_dir, "clients", name)  # P1.3
        context.load_cert_chain(own + ".pem", own + "-key.pem")
        raw = socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S)
        self.socket = context.wrap_socket(raw, server_hostname=host.strip("[]"))
        self.id, greeting = 0, self.message()  # P1.6, P3.1: a refused certificate shows here
        if "hello" not in greeting:
            raise Failure(refusal(greeting), 5)

    def send(self, kind, content):
        self.socket.sendall(kind + struct.pack(">I", len(content)) + content)  # P2.1

    def read(self, size):
        parts = bytearray()
        while len(parts) < size:
            parts += (part := self.socket.recv(min(size - len(parts), PIECE_SIZE)))
            if not part:
                raise Failure("the server closed the connection", 5)
        return bytes(parts)

    def frame(self):
        kind, size = struct.unpack(">cI", self.read(5))
        if not 0 < size <= LIMITS.get(kind, 0):
            raise Failure(f"a malformed frame from the server: {kind!r}, {size} bytes")
        return kind, self.read(size)

    def message(self):
        kind, content = self.frame()
        if kind != b"M":
            raise Failure(f"a {kind!r} frame where a message belongs")
        return json.loads(content)

    def ask(self, op, **fields):
        self.id += 1
        self.send(b"M", json.dumps({"id": self.id, "op": op, **fields}).encode())

    def answer(self):
        reply = self.message()
        if "error" in reply:
            raise Failure(refusal(reply))
        if reply.get("id") != self.id:  # P4.3
            raise Failure(f"the server answered request {reply.get('id')}, {self.id} was asked")
        return reply["ok"]

    def has_answered(self):
        return self.socket.pending() > 0 or bool(select.select([self.socket], [], [], 0)[0])

    def put(self, local, remote):
        hasher = Blake3()
        with open(local, "rb") as file:
            self.ask("put", path=remote, size=os.fstat(file.fileno()).st_size)
            try:
                while piece := file.read(PIECE_SIZE):
                    if self.socket.pending() or select.select([self.socket], [], [], 0)[0]:
                        self.send(b"E", b'{"abort":"unavailable"}')  # P6.5: refused before the end
                        return self.answer()
                    hasher.update(piece)
                    self.send(b"D", piece)
                self.send(b"E", json.dumps({"size": hasher.size, "digest": hasher.digest()}).encode())
            except ConnectionError:  # P8.1: the last words say why
                pass
        return self.answer()

    def get(self, remote, local):
        self.ask("get", path=remote)
        info, hasher = self.answer(), Blake3()
        with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(local)), prefix=".fsvc-") as directory:
            temporary = os.path.join(directory, "part")
            with open(temporary, "wb") as file:
                while (frame := self.frame())[0] == b"D":
                    hasher.update(frame[1])
                    file.write(frame[1])
            trailer, arrived = json.loads(frame[1]), {"size": hasher.size, "digest": hasher.digest()}
            if frame[0] != b"E" or "abort" in trailer:  # P6.4
                raise Failure(f"the server gave up in the middle: {trailer!a}")
            for announced in (trailer, {**arrived, **info}):  # P6.6: the answer may lack the digest
                if any(announced.get(field) != arrived[field] for field in arrived):
                    raise Failure(f"announced {announced}, arrived {arrived}")
            os.replace(temporary, local)
        return info

    def ls(self, directory):
        after = {}
        while after is not None:  # P5.5
            self.ask("list", path=directory, **after)
            page = self.answer()
            for entry in page["entries"]:
                print(json.dumps(entry["path"], ensure_ascii=True)[1:-1])
            after = {"after": page["next"]} if "next" in page else None


def main():
    parser = argparse.ArgumentParser(description="A client of fsvc/1 in the standard library.")
    parser.add_argument("--server", default="localhost:7443", metavar="HOST:PORT")
    parser.add_argument("--tls-dir", default="certs")
    parser.add_argument("--as", dest="name", default="dev")
    parser.add_argument("command", choices=["put", "get", "ls"])
    parser.add_argument("names", nargs="+", help="put LOCAL REMOTE, get REMOTE LOCAL, ls DIRECTORY")
    options = parser.parse_args()
    if len(options.names) != (1 if options.command == "ls" else 2):
        parser.error("put LOCAL REMOTE, get REMOTE LOCAL, ls DIRECTORY")
    try:
        connection = Connection(options.server, options.tls_dir, options.name)
        info = getattr(connection, options.command)(*options.names)
    except (Failure, OSError, ValueError) as error:
        print(f"fsvc_client: {error}", file=sys.stderr)
        return getattr(error, "code", 5 if isinstance(error, (ssl.SSLError, ConnectionError)) else 1)
    if info:
        print(json.dumps(info))
    return 0


if __name__ == "__main__":
    sys.exit(main())
