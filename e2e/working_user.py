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
looked up; if it was not, the whole mailbox is held against the model at once.
"""
import hashlib
import imaplib
import json
import os
import random
import re
import select
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from client import mailboxes, quoted, text
from working_client import CUT, LOGIN_TAKES, MBSYNC, Connection, Cut, Tap, Violation, bodies, flags_in, utf7

INBOX = ("INBOX",)
SENT = ("Sent",)
PHONE = ("Phone",)  # nobody but mbsync writes here
KEEP = {INBOX, SENT, PHONE}  # neither renamed nor removed
FLAGS = ["\\Seen", "\\Answered", "\\Flagged", "\\Draft", "$Work", "$Later", "NonJunk", "Projekt-7"]
NAMES = ["Rechnungen", "Büro & Co", "Lists", "2024", "Ideen", "日本", "Reise", "Bank"]


def emit(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Message:
    def __init__(self, id, digest, octets, flags):
        self.id, self.digest, self.octets, self.flags = id, digest, octets, set(flags)

    def copy(self):
        return Message(self.id, self.digest, self.octets, self.flags)

    def __str__(self):
        return "{} {} [{}]".format(self.digest, self.octets, " ".join(sorted(self.flags)))


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
                    if is_done is not None and not done:
                        self.check(c)
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
        return any(n == name and "\\noselect" not in map(str.lower, attrs) for n, _, attrs in mailboxes(c.run("list", '""', quoted(name))))

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

    DECK = ("append append append send flag flag flag flag flag read move move move copy delete delete expunge "
            "create rename rename remove subscribe look").split()

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
