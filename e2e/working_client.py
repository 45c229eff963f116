"""The clients of working_user.py: imaplib on a socket of our own, and what stands
before mbsync.
"""
import imaplib
import re
import select
import socket
import ssl
import sys
import threading

sys.dont_write_bytecode = True

from client import text

imaplib._MAXLINE = 100_000_000

LOGIN_TAKES = 20  # seconds, at most
CUT = (imaplib.IMAP4.abort, OSError)


class Violation(Exception):
    """What a mail client would have shown its user, or mail that is not there."""


class Cut(Exception):
    """The connection ended; quiet says that nothing was outstanding."""

    def __init__(self, quiet, why):
        super().__init__(why)
        self.quiet = quiet


def utf7(name):
    """Modified UTF-7 (RFC 3501, section 5.1.3)."""
    out = []
    for part in re.findall(r"[\x20-\x7e]+|[^\x20-\x7e]+", name):
        if part[0] > "~":
            out.append("&" + part.encode("utf-7")[1:].rstrip(b"-").decode().replace("/", ",") + "-")
        else:
            out.append(part.replace("&", "&-"))
    return "".join(out)


def bodies(data):
    """What surrounds each literal of a FETCH, and the literal."""
    for item, tail in zip(data, data[1:] + [b""]):
        if isinstance(item, tuple):
            yield item[0] + b" " + (tail if isinstance(tail, bytes) else b""), item[1]


def flags_in(head):
    return {f for f in text(re.search(rb"FLAGS \(([^)]*)\)", head)[1]).split() if f != "\\Recent"}


class Connection(imaplib.IMAP4):
    """imaplib on a socket of our own, so that it is known what came when."""

    def __init__(self, user, port, tls):
        self.user, self.tls = user, tls
        self.buf, self.got, self.selected, self.idling = b"", [], None, None
        super().__init__("127.0.0.1", port, LOGIN_TAKES + 10)

    def open(self, host="", port=143, timeout=None):
        self.sock = socket.create_connection((host, port), timeout)
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)

    def shutdown(self):
        self.sock.close()

    def send(self, data):
        self.user.note(self, "C", data)
        self.sock.sendall(data)

    def fill(self):
        more = self.sock.recv(65536)
        self.buf += more
        return bool(more)

    def readline(self):
        while b"\n" not in self.buf:
            if not self.fill():
                if self.buf:
                    self.got.append(self.buf)  # a part of a line is no quiet end
                self.user.note(self, "S", b"(end) " + self.buf)
                return b""
        line, _, self.buf = self.buf.partition(b"\n")
        line += b"\n"
        self.user.note(self, "S", line)
        self.got.append(line)
        return line

    def read(self, size):
        while len(self.buf) < size and self.fill():
            pass
        data, self.buf = self.buf[:size], self.buf[size:]
        self.got.append(data)
        return data

    def waiting(self):
        """Whether something can be read at once."""
        return self.buf or self.tls and self.sock.pending() or select.select([self.sock], [], [], 0)[0]

    def quiet(self):
        """Whether nothing but a goodbye came since the last command was begun; not a
        server's own fault."""
        return all(line.upper().startswith(b"* BYE") and line.endswith(b"\n") and b"[ALERT]" not in line for line in self.got)

    def run(self, name, *args):
        """A command that is right, and so must be done."""
        self.got = []
        try:
            typ, data = getattr(self, name)(*args)
        except CUT as e:
            raise Cut(self.quiet(), "{} {}: {}".format(name, args[:1], e)) from e
        except imaplib.IMAP4.error as e:
            raise Violation("{} {}: {}".format(name, args, e)) from e
        if typ != "OK":
            raise Violation("{} {}: {} {}".format(name, args, typ, data))
        return data

    def lines(self, until):
        """Lines that come, up to one that begins so, or as long as there are any."""
        while until is not None or self.waiting():
            try:
                line = self.readline()
            except OSError as e:
                raise Cut(True, str(e)) from e
            if not line or line.upper().startswith(b"* BYE"):
                raise Cut(not self.buf, "while idle: {!r}".format(line))
            if until is not None and line.startswith(until):
                return line
            if not line.startswith(b"* "):
                raise Violation("unasked for: {!r}".format(line))

    def idle(self):
        tag = self._new_tag()
        self.got = []
        try:
            self.send(tag + b" IDLE\r\n")
            line = self.readline()
            while line.startswith(b"* ") and not line.upper().startswith(b"* BYE"):
                line = self.readline()
        except OSError as e:
            raise Cut(self.quiet(), "IDLE: {}".format(e)) from e
        if not line.startswith(b"+"):
            if line and not line.upper().startswith(b"* BYE"):
                raise Violation("IDLE: {!r}".format(line))
            raise Cut(self.quiet(), "IDLE: {!r}".format(line))
        self.idling, self.got = tag, []

    def done(self):
        tag, self.idling = self.idling, None
        try:
            self.send(b"DONE\r\n")
        except OSError as e:
            raise Cut(True, str(e)) from e
        if b" OK" not in self.lines(tag):
            raise Violation("DONE was not answered with OK")


MBSYNC = """IMAPAccount far
Host 127.0.0.1
Port {port}
User {user}
Pass {password}
SSLType None
AuthMechs LOGIN
Timeout 30

IMAPStore far
Account far

MaildirStore near
Path {dir}/
Inbox {dir}/INBOX
SubFolders Verbatim

Channel inbox
Far :far:INBOX
Near :near:INBOX
Create Near
Expunge Near
Sync Pull
SyncState {dir}/state-

Channel phone
Far :far:Phone
Near :near:Phone
Create Near
Expunge Both
Sync All
CopyArrivalDate yes
SyncState {dir}/state-
"""


class Tap:
    """Stands before the proxy for mbsync, and sees what comes from it."""

    def __init__(self, user):
        self.user, self.came, self.ended, self.threads = user, b"", False, []

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread(self.accept)
        return self

    def thread(self, f, *args):
        self.threads.append(threading.Thread(target=f, args=args, daemon=True))
        self.threads[-1].start()

    def accept(self):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", self.user.r["imap"]))
        self.thread(self.pump, client, server, "C")
        self.pump(server, client, "S")

    def pump(self, a, b, who):
        try:
            while data := a.recv(65536):
                self.user.note(self, who, data)
                if who == "S":
                    self.came += data
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if who == "S":
            self.ended = True

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for t in self.threads:
            t.join(10)

    def judge(self):
        """How the server ended the connection: not, quietly or in a response."""
        lines, rest = [], self.came
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            if literal := re.search(rb"\{(\d+)\}\r?$", line):
                n = int(literal[1])
                if len(rest) < n:
                    return "in a response"
                rest = rest[n:]
                continue
            lines.append(line.upper())
        bye = lines[-1:] if lines and lines[-1].startswith(b"* BYE") else []
        since = []  # what came after the last tagged answer, or the greeting
        for l in lines[1:]:
            since = [] if not l.startswith((b"* ", b"+ ")) else since + [l]
        if rest or bye and [l for l in since if l not in bye]:
            return "in a response"
        return "quietly" if bye or self.ended and not since else None
