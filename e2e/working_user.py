"""A user who works in his mailbox while it is moved, with clients that the
project did not write: imaplib on several connections, and mbsync.

Reads a JSON request in the first line of standard input and writes events, one
JSON object a line. He keeps a model of what the mailbox must contain; what he
does comes from the seed. When a login shows the new mailbox, he says so with the
model of this moment, waits for a line "go", works a little more and ends.

He behaves as mail clients do: a connection that ends while nothing of it is
outstanding is opened again without a word, and a command that was never answered
with anything is given again there. Everything else that a client would show its
user ends him with the event "violation".

With "crashes" the proxy dies now and then: connections may break anywhere, and
the proxy may not be there for a while. Whether a command was carried out is then
looked up, and the whole mailbox is held against the model at each return.
"""
import hashlib
import imaplib
import json
import os
import random
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

from client import mailboxes, quoted, text

imaplib._MAXLINE = 100_000_000

INBOX = ("INBOX",)
SENT = ("Sent",)
PHONE = ("Phone",)  # nobody but mbsync writes here
KEEP = {INBOX, SENT, PHONE}  # neither renamed nor removed
FLAGS = ["\\Seen", "\\Answered", "\\Flagged", "\\Draft", "$Work", "$Later", "NonJunk", "Projekt-7"]
NAMES = ["Rechnungen", "Büro & Co", "Lists", "2024", "Ideen", "日本", "Reise", "Bank"]
LOGIN_TAKES = 20  # seconds, at most
CUT = (imaplib.IMAP4.abort, OSError)


class Violation(Exception):
    """What a mail client would have shown its user, or mail that is not there."""


class Cut(Exception):
    """The connection ended; quiet says that nothing was outstanding."""

    def __init__(self, quiet, why):
        super().__init__(why)
        self.quiet = quiet


def emit(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


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


class Message:
    def __init__(self, id, digest, octets, flags):
        self.id, self.digest, self.octets, self.flags = id, digest, octets, set(flags)

    def copy(self):
        return Message(self.id, self.digest, self.octets, self.flags)

    def __str__(self):
        return "{} {} [{}]".format(self.digest, self.octets, " ".join(sorted(self.flags)))


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
        return not any(b"[ALERT]" in line for line in self.got) and all(line.upper().startswith(b"* BYE") and line.endswith(b"\n") for line in self.got)

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


class User:
    def __init__(self, request):
        self.r = request
        self.random = random.Random(request["seed"])
        self.folders, self.subscribed = {}, set()
        self.slots = {}
        self.crashes = request.get("crashes", False)
        self.flipped = self.fresh = False
        self.renamed = set()
        self.pending = None  # what mbsync was told to make of its mailbox
        self.began = time.monotonic()
        self.serial = 0
        self.stats = {"ops": 0, "before": 0, "cut": 0, "repeated": 0, "logins": [], "kinds": {}, "mbsync": 0, "mbsync cut": 0}
        self.transcript = open(request["transcript"], "ab")

    # ---- what is written down

    def note(self, c, who, data):
        if len(data) > 300:
            data = data[:200] + b"...(%d octets)" % len(data)
        self.transcript.write(b"%8.3f %x %s %r\n" % (time.monotonic() - self.began, id(c) & 0xffff, who.encode(), data))
        self.transcript.flush()

    def say(self, what):
        self.note(None, "--", what.encode())

    def model(self):
        return {
            "folders": {self.plain(p): sorted(map(str, m)) for p, m in self.folders.items()},
            "subscribed": sorted(map(self.plain, self.subscribed)),
        }

    @staticmethod
    def plain(path):
        return "\0".join(map(utf7, path))

    # ---- connections

    def name(self, path, c):
        if path == INBOX:
            return "INBOX"
        if c.side == "source" and path[0] in self.r.get("source_names", {}):
            path = (self.r["source_names"][path[0]],) + path[1:]
        return c.prefix + c.sep.join(map(utf7, path))

    def connect(self, slot):
        tls = slot == 1 and "imaps" in self.r
        patience = time.monotonic() + 60
        while True:
            began = time.monotonic()
            c = None
            try:
                c = Connection(self, self.r["imaps"] if tls else self.r["imap"], tls)
                c._encoding = "utf-8"
                c.login(self.r["user"], self.r["password"])
                break
            except CUT as e:
                # A login that was not answered is no login; but only a proxy that
                # died may do this.
                if not self.crashes or time.monotonic() > patience:
                    raise Violation("the login was not answered: {!r}".format(e)) from e
                self.stats["cut"] += 1
                time.sleep(0.05)  # until the proxy is there again
            except imaplib.IMAP4.error as e:
                raise Violation("the login was refused after {:.1f} s: {}".format(time.monotonic() - began, e)) from e
        took = time.monotonic() - began
        self.stats["logins"].append(round(took, 3))
        if took > LOGIN_TAKES:
            raise Violation("a login took {:.1f} s".format(took))
        try:
            self.look_around(c)
        except Cut as e:
            self.lost(slot, e)
            return self.connect(slot)
        self.slots[slot] = c
        self.say("slot {} is on the {}, its login took {:.3f} s".format(slot, c.side, took))
        if c.side == "target" and not self.flipped:
            self.on_target(slot)
        elif c.side == "source" and self.flipped:
            raise Violation("a login shows the old mailbox, after one that showed the new one")
        return c

    def look_around(self, c):
        c.run("capability")
        data = text(c.run("namespace")[0])
        m = re.match(r'\(\("([^"]*)" "(.)"', data)
        if not m:
            raise Violation("NAMESPACE: {!r}".format(data))
        c.prefix, c.sep = m.groups()
        c.side = "source" if [c.prefix, c.sep] == self.r["source"] else "target"

    def conn(self, slot):
        c = self.slots.get(slot)
        if c is None:
            return self.connect(slot)
        # Half of the time he looks first whether it was closed, as the event loop
        # of a client does; the other half he finds out by a command.
        if self.random.random() < 0.5 and c.waiting() and not c.idling:
            try:
                c.lines(None)
            except Cut as e:
                self.lost(slot, e)
                return self.connect(slot)
        return c

    def lost(self, slot, cut):
        self.say("slot {} lost, {}: {}".format(slot, "quietly" if cut.quiet else "IN A COMMAND", cut))
        c = self.slots.pop(slot, None)
        if c is not None:
            c.sock.close()
        self.stats["cut"] += 1
        if not cut.quiet and not self.crashes:
            raise Violation("cut in the middle of a command: {}".format(cut))

    def on_target(self, slot):
        """The first login that shows the new mailbox."""
        self.flipped = True
        self.stats["before"] = self.stats["ops"]
        for other in [s for s in self.slots if s != slot]:
            if not select.select([self.slots[other].sock], [], [], 5)[0]:
                raise Violation("slot {} lives on while the next login is on the target".format(other))
            try:
                self.slots[other].lines(b"(what never comes)")
            except Cut as e:
                self.lost(other, e)
        if self.pending is not None:
            self.phone_settled(self.slots[slot], either=True)
        self.check(self.slots[slot])
        emit("flipped", model=self.model(), stats=self.stats)
        if sys.stdin.readline() != "go\n":
            raise SystemExit("not told to go on")

    # ---- commands

    def do(self, slot, path, act, is_done=None):
        """Does one command, again where it was never begun. path is selected first."""
        while True:
            try:
                c = self.conn(slot)
                if path is not None:
                    self.select(c, path)
                return act(c)
            except Cut as e:
                self.lost(slot, e)
                self.stats["repeated"] += 1
                if not self.crashes:
                    continue
            while True:  # whether a crash came before or after it
                try:
                    c = self.conn(slot)
                    done = is_done is not None and is_done(c)
                    break
                except Cut as e:
                    self.lost(slot, e)
            if done:
                return None

    def select(self, c, path):
        if c.idling:
            c.done()
        if c.selected != path:
            c.run("select", quoted(self.name(path, c)))
            c.selected = path

    def find(self, c, path, id):
        """The UIDs of a message in a folder, as a set for a command."""
        self.select(c, path)
        c.run("noop")
        uids = c.run("uid", "SEARCH", "HEADER", "Message-ID", quoted(id))[0].split()
        want = sum(m.id == id for m in self.folders[path])
        if len(uids) != want:
            raise Violation("{} in {} on the {}: {} times, not {}".format(id, path, c.side, len(uids), want))
        return b",".join(uids).decode()

    def count(self, c, path, id):
        self.select(c, path)
        c.run("noop")
        return len(c.run("uid", "SEARCH", "HEADER", "Message-ID", quoted(id))[0].split())

    def there(self, c, path):
        name = self.name(path, c)
        return any(n == name for n, _, attrs in mailboxes(c.run("list", '""', quoted(name))) if "\\noselect" not in [a.lower() for a in attrs])

    def append(self, slot, path, flags=(), twice=False):
        id, octets = self.compose()
        message = Message(id, hashlib.sha256(octets).hexdigest(), len(octets), flags)
        date = imaplib.Time2Internaldate(1_600_000_000 + self.serial) if self.random.random() < 0.5 else None
        for n in range(1, 2 + twice):
            self.do(slot, None, lambda c: c.run("append", quoted(self.name(path, c)), "({})".format(" ".join(flags)), date, octets),
                    lambda c: self.count(c, path, id) == n)
            self.folders[path].append(message.copy())

    def compose(self):
        self.serial += 1
        id = "<{}-{:05d}@work.example>".format(self.r["seed"], self.serial)
        lines = ["line {} {}".format(i, self.random.getrandbits(64)) for i in range(self.random.randrange(1, 60))]
        return id, "From: <b@example.net>\r\nTo: <anna@example.com>\r\nSubject: work {}\r\nMessage-ID: {}\r\n\r\n{}\r\n".format(
            self.serial, id, "\r\n".join(lines)).encode()

    def some(self, flags=FLAGS):
        return sorted(self.random.sample(flags, self.random.randrange(0, 4)))

    def folder(self, but=(), filled=False):
        return self.random.choice(sorted(p for p, m in self.folders.items() if p != PHONE and p not in but and (
            not filled or any("\\Deleted" not in x.flags for x in m))))

    def message(self, path):
        """All messages of one identity, of those that are not marked as deleted."""
        ids = sorted({m.id for m in self.folders[path] if "\\Deleted" not in m.flags})
        id = self.random.choice(ids)
        return id, [m for m in self.folders[path] if m.id == id]

    def store(self, slot, path, id, op, flags):
        self.do(slot, path, lambda c: c.run("uid", "STORE", self.find(c, path, id), op, "({})".format(" ".join(flags))))
        for m in self.folders[path]:
            if m.id == id:
                m.flags = m.flags | set(flags) if op[0] == "+" else m.flags - set(flags) if op[0] == "-" else set(flags)

    def copy(self, slot, path, id, to, command="COPY"):
        before = sum(m.id == id for m in self.folders[to])
        moved = [m for m in self.folders[path] if m.id == id]
        self.do(slot, path, lambda c: c.run("uid", command, self.find(c, path, id), quoted(self.name(to, c))),
                lambda c: self.count(c, to, id) == before + len(moved))
        self.folders[to] += [m.copy() for m in moved]
        if command == "MOVE":
            self.folders[path] = [m for m in self.folders[path] if m.id != id]

    def expunge(self, slot, path, id=None):
        """Expunges one message by UID, or all that are marked as deleted."""
        if id is None:
            self.do(slot, path, lambda c: c.run("expunge"))
            self.folders[path] = [m for m in self.folders[path] if "\\Deleted" not in m.flags]
        else:
            self.do(slot, path, lambda c: c.run("uid", "EXPUNGE", self.find(c, path, id)), lambda c: self.count(c, path, id) == 0)
            self.folders[path] = [m for m in self.folders[path] if m.id != id]

    def subscribe(self, slot, path, on=True):
        self.do(slot, None, lambda c: c.run("subscribe" if on else "unsubscribe", quoted(self.name(path, c))))
        (self.subscribed.add if on else self.subscribed.discard)(path)

    def leave(self, path):
        """No connection has a folder selected that is renamed or removed."""
        for slot in list(self.slots):
            c = self.slots.get(slot)
            if c is not None and c.selected and c.selected[:len(path)] == path:
                self.do(slot, INBOX, lambda c: None)

    # ---- what he does

    def op_append(self, slot):
        self.append(slot, self.folder(), self.some(), twice=self.random.random() < 0.15)

    def op_send(self, slot):
        self.append(slot, SENT, ["\\Seen"])

    def op_flag(self, slot):
        path = self.folder(filled=True)
        id, _ = self.message(path)
        self.store(slot, path, id, self.random.choice(["+FLAGS", "-FLAGS", "+FLAGS.SILENT", "FLAGS"]), self.some() or ["\\Flagged"])

    def op_read(self, slot):
        path = self.folder(filled=True)
        id, found = self.message(path)
        data = self.do(slot, path, lambda c: c.run("uid", "FETCH", self.find(c, path, id), "(UID BODY[])"))
        for m in found:
            m.flags.add("\\Seen")
        for item in data or []:
            if isinstance(item, tuple) and hashlib.sha256(item[1]).hexdigest() != found[0].digest:
                raise Violation("{} in {} has other octets".format(id, path))

    def op_move(self, slot):
        path = self.folder(filled=True)
        id, _ = self.message(path)
        to = self.folder(but=[path])
        if any(m.id == id for m in self.folders[to]):
            return self.op_copy(slot)
        if "MOVE" in self.conn(slot).capabilities and self.r.get("move", True) and self.random.random() < 0.5:
            return self.copy(slot, path, id, to, "MOVE")
        self.copy(slot, path, id, to)
        self.store(slot, path, id, "+FLAGS", ["\\Deleted"])
        self.expunge(slot, path, id)

    def op_copy(self, slot):
        path = self.folder(filled=True)
        id, _ = self.message(path)
        to = self.folder(but=[path])
        if all(m.id != id for m in self.folders[to]):
            self.copy(slot, path, id, to)

    def op_delete(self, slot):
        path = self.folder(filled=True)
        id, _ = self.message(path)
        self.store(slot, path, id, "+FLAGS", ["\\Deleted"])
        if self.random.random() < 0.7:
            self.expunge(slot, path, id)

    def op_expunge(self, slot):
        self.expunge(slot, self.folder())

    def op_create(self, slot):
        parent = self.random.choice([()] + sorted(p for p in self.folders if p not in KEEP and len(p) < 3))
        free = [n for n in NAMES if parent + (n,) not in self.folders]
        if not free:
            return
        path = parent + (self.random.choice(free),)
        self.do(slot, None, lambda c: c.run("create", quoted(self.name(path, c))), lambda c: self.there(c, path))
        self.folders[path] = []
        if self.random.random() < 0.8:
            self.subscribe(slot, path)
        for _ in range(self.random.randrange(0, 3)):
            self.append(slot, path, self.some())

    def op_rename(self, slot):
        """Also a folder with children, and into another parent."""
        mine = sorted(p for p in self.folders if p not in KEEP)
        may = [p for p in mine if not any(q[:len(p)] == p for q in self.renamed)] if self.r.get("renames_once") else mine
        if not may:
            return self.op_create(slot)
        path = self.random.choice(may)
        parent = self.random.choice([path[:-1], ()] + [p for p in mine if p[:len(path)] != path and len(p) < 2])
        free = [n for n in NAMES if parent + (n,) not in self.folders]
        if not free:
            return
        to = parent + (self.random.choice(free),)
        self.leave(path)
        self.do(slot, None, lambda c: c.run("rename", quoted(self.name(path, c)), quoted(self.name(to, c))), lambda c: self.there(c, to))
        for old in [p for p in self.folders if p[:len(path)] == path]:
            self.folders[to + old[len(path):]] = self.folders.pop(old)
            self.renamed.add(to + old[len(path):])
        for old in sorted(p for p in self.subscribed if p[:len(path)] == path):
            self.subscribe(slot, to + old[len(path):])
            self.subscribe(slot, old, False)

    def op_remove(self, slot):
        leaves = sorted(p for p in self.folders if p not in KEEP and not any(q[:len(p)] == p and q != p for q in self.folders))
        if len(leaves) < 3:
            return self.op_create(slot)
        path = self.random.choice(leaves)
        self.leave(path)
        self.subscribe(slot, path, False)
        self.do(slot, None, lambda c: c.run("delete", quoted(self.name(path, c))), lambda c: not self.there(c, path))
        del self.folders[path]

    def op_subscribe(self, slot):
        path = self.folder(but=[SENT])  # which servers subscribe by themselves
        self.subscribe(slot, path, path not in self.subscribed)

    def op_look(self, slot):
        for path in self.random.sample(sorted(self.folders), min(3, len(self.folders))):
            self.do(slot, None, lambda c: c.run("status", quoted(self.name(path, c)), "(MESSAGES UIDNEXT UIDVALIDITY)"))

    DECK = "append append append send flag flag flag flag flag read move move move copy delete delete expunge create rename rename remove subscribe look".split()

    # ---- the second client

    def phone(self):
        """Changes the phone's own mailbox by files, and runs mbsync over it."""
        fresh = self.flipped and not self.fresh
        if fresh:  # other UIDs: a client forgets what it had, which mbsync does only when told
            self.fresh = True
            self.r["phone"] += "-new"
        box = os.path.join(self.r["phone"], "Phone", "cur")
        for sub in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(box, "..", sub), exist_ok=True)
        after = [m.copy() for m in self.folders[PHONE]]
        files = sorted(os.listdir(box))
        gone = self.random.randrange(len(files)) if len(files) > 2 else None
        for n, f in enumerate(files):
            head, _, flags = f.partition(":2,")
            with open(os.path.join(box, f), "rb") as file:
                id = re.search(rb"Message-ID: (\S+)", file.read())[1].decode()
            m = [m for m in after if m.id == id]
            if len(m) != 1:
                raise Violation("mbsync has {} in its mailbox, which is there {} times".format(id, len(m)))
            if n == gone:
                flags += "T"
                after.remove(m[0])
            elif self.random.random() < 0.4:
                flags = "".join(set(flags) ^ {"F"})
                m[0].flags ^= {"\\Flagged"}
            os.rename(os.path.join(box, f), os.path.join(box, head + ":2," + "".join(sorted(flags))))
        for _ in range(self.random.randrange(1, 3)):
            id, octets = self.compose()
            after.append(Message(id, None, 0, ["\\Seen"]))
            with open(os.path.join(box, "{}.{}.phone:2,S".format(1_700_000_000 + self.serial, self.serial)), "wb") as f:
                f.write(octets.replace(b"\r\n", b"\n"))
        self.pending = after
        if self.mbsync("inbox", "phone"):
            self.do(0, None, self.phone_settled)
        if fresh:
            got = sum(len(os.listdir(os.path.join(self.r["phone"], "INBOX", d))) for d in ("cur", "new"))
            want = sum("\\Deleted" not in m.flags for m in self.folders[INBOX])
            if got != want:
                raise Violation("mbsync finds {} messages in the new INBOX, not {}".format(got, want))

    def phone_settled(self, c, either=False):
        """Takes over what mbsync did; either, if it was cut and may have done a part."""
        self.select(c, PHONE)
        c.run("noop")
        shown = []
        if c.run("uid", "SEARCH", "ALL")[0]:
            for head, octets in bodies(c.run("uid", "FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")):
                id = re.search(rb"Message-ID: (\S+)", octets)[1].decode()
                shown.append(Message(id, hashlib.sha256(octets).hexdigest(), len(octets), flags_in(head)))
        before = {m.id: m for m in self.folders[PHONE]}
        after = {m.id: m for m in self.pending}
        wrong = []
        for id in sorted(set(before) | set(after)):
            found = [m for m in shown if m.id == id]
            may = [x.get(id) for x in ([before, after] if either else [after])]
            if len(found) > 1 or not found and None not in may or found and all(
                    m is None or m.flags != found[0].flags - ({"\\Deleted"} if either else set()) for m in may):
                wrong.append("{}: {} may be {}".format(id, list(map(str, found)), list(map(str, may))))
        wrong += ["{} is nobody's".format(m.id) for m in shown if m.id not in before and m.id not in after]
        if wrong:
            raise Violation("mbsync's mailbox on the {}: {}".format(c.side, "\n".join(wrong[:30])))
        self.folders[PHONE], self.pending = shown, None

    def mbsync(self, *channels):
        """Whether it ended well; if not, the flip came between, or this is a violation."""
        rc = self.r["phone"] + ".rc"
        for _ in range(5):
            with Tap(self) as tap:
                with open(rc, "w") as f:
                    f.write(MBSYNC.format(port=tap.port, dir=self.r["phone"], user=self.r["user"], password=self.r["password"]))
                ended = subprocess.run(["mbsync", "-c", rc, *channels], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
            said = ended.stdout.decode("utf-8", "replace").strip()
            self.say("mbsync ended with {}: {}".format(ended.returncode, said))
            self.stats["mbsync"] += 1
            if ended.returncode == 0:
                return True
            self.stats["mbsync cut"] += 1
            cut = tap.judge()
            if cut == "in a response":
                raise Violation("mbsync was cut in the middle of a response: {}".format(said))
            was = self.flipped
            self.do(0, INBOX, lambda c: c.run("noop"))
            if self.flipped and not was:
                return False
            if cut is None:
                raise Violation("mbsync: {}".format(said))
        raise Violation("mbsync was cut too often: {}".format(said))

    # ---- the whole mailbox

    def check(self, c):
        """Holds what a connection shows against the model."""
        shown = {}
        if c.idling:
            c.done()
        names = {self.name(p, c): p for p in self.folders}
        for name, _, attrs in mailboxes(c.run("list")):
            if "\\noselect" in [a.lower() for a in attrs]:
                continue
            if name not in names:
                # A crash may leave a folder that was created and is none any more.
                if name not in self.r.get("own", []) and not (self.crashes and self.empty(c, name)):
                    raise Violation("on the {} there is a folder {!r}".format(c.side, name))
                continue
            found = []
            c.run("select", quoted(name))
            c.selected = names[name]
            if c.run("uid", "SEARCH", "ALL")[0]:
                for head, header in bodies(c.run("uid", "FETCH", "1:*", "(UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")):
                    id = re.search(rb"<[^>]*>", header)
                    found.append((text(id[0]) if id else "", sorted(flags_in(head))))
            shown[names[name]] = found
        wrong = []
        for path in sorted(set(shown) | set(self.folders)):
            if path not in shown:
                wrong.append("{} is missing".format(path))
                continue
            want = sorted((m.id, sorted(m.flags)) for m in self.folders[path])
            got = sorted(shown[path])
            wrong += ["{}: missing {}".format(path, m) for m in want if m not in got]
            wrong += ["{}: too many {}".format(path, m) for m in got if m not in want or got.count(m) > want.count(m)]
        if wrong:
            raise Violation("the {} shows another mailbox:\n{}".format(c.side, "\n".join(wrong[:30])))

    def empty(self, c, name):
        status = c.run("status", quoted(name), "(MESSAGES)")
        return b"MESSAGES 0)" in status[0]

    # ---- his day

    def fill(self):
        """Makes the mailbox that he has from the start."""
        self.folders[INBOX] = []
        for path in [SENT, PHONE, ("Lists",), ("Lists", "Ideen"), ("Lists", "Ideen", "2024"), ("Bank",), ("Büro & Co",), ("Reise",)]:
            if not self.do(0, None, lambda c: self.there(c, path)):
                self.do(0, None, lambda c: c.run("create", quoted(self.name(path, c))))
            self.folders[path] = []
            self.subscribe(0, path)
        for n in range(self.r["messages"]):
            self.append(0, INBOX if n % 3 == 0 else self.folder(), self.some(), twice=n % 20 == 7)

    def work(self):
        deck, phone = [], 8
        after = self.r.get("after", 15)
        while not self.flipped or after > 0:
            for _ in range(self.random.randrange(4, 16)):
                if not deck:
                    deck = list(self.DECK)
                    self.random.shuffle(deck)
                op = deck.pop()
                self.say(op)
                flipped = self.flipped
                getattr(self, "op_" + op)(self.random.randrange(0, 2))
                self.stats["ops"] += 1
                self.stats["kinds"][op] = self.stats["kinds"].get(op, 0) + 1
                after -= flipped
                phone -= 1
                if phone <= 0 and "phone" in self.r:
                    phone = 25
                    self.phone()
            # No quiet moment, and so no flip, before everything was done, once or twice.
            some = self.stats["ops"] >= len(self.DECK) * (2 if self.crashes else 1) and not self.flipped
            self.rest(self.random.choice([0.1, 2.5, 2.5] if some else [0.1, 0.3]) * self.random.uniform(0.8, 1.1))
            if time.monotonic() - self.began > self.r["limit"]:
                if self.r.get("stays"):
                    break
                raise Violation("no flip within {} s".format(self.r["limit"]))
        if "phone" in self.r:
            self.phone()
        self.check(self.conn(0))
        for slot in list(self.slots):
            c = self.slots.pop(slot)
            if c.idling:
                c.done()
            c.logout()
        emit("done", model=self.model(), stats=self.stats)

    def rest(self, seconds):
        """He does nothing for a while; one connection listens, another asks now and then."""
        self.do(2, INBOX, self.listen)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([c.sock for c in self.slots.values()], [], [], left)
            for slot, c in list(self.slots.items()):
                if c.sock in ready and self.slots.get(slot) is c:
                    try:
                        c.lines(None)
                    except Cut as e:
                        self.lost(slot, e)
                        if c.idling:  # one that listens comes back at once
                            self.do(slot, INBOX, self.listen)
                        elif "phone" in self.r and self.random.random() < 0.5:
                            self.mbsync("inbox")  # it changes nothing, wherever it gets to
                        else:
                            self.op_send(slot)

    def listen(self, c):
        if "IDLE" in c.capabilities:
            c.idle()
        else:
            c.run("noop")


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


def main():
    request = json.loads(sys.stdin.readline())
    user = User(request)
    try:
        proxy = request["imap"]
        request["imap"] = request["source_port"]
        user.fill()
        user.slots.pop(0).logout()
        request["imap"] = proxy
        emit("filled", model=user.model())
        if sys.stdin.readline() != "go\n":
            raise SystemExit("not told to go on")
        user.began, user.stats["logins"] = time.monotonic(), []
        user.work()
    except Violation as e:
        user.say("VIOLATION {}".format(e))
        emit("violation", text=str(e), model=user.model(), stats=user.stats)


main()
