"""A mail client that the project did not write: Python's imaplib and poplib.

Reads one JSON request on standard input and writes one JSON answer.
"""
import base64
import hashlib
import imaplib
import json
import poplib
import re
import ssl
import sys

imaplib._MAXLINE = 100_000_000
poplib._MAXLINE = 100_000_000


def text(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (list, tuple)):
        return [text(v) for v in value]
    return value


def context(request):
    # The certificates are the tests' own; who shows which is checked in Go.
    ctx = ssl.create_default_context()
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    if request.get("server_name"):  # another than the address that is connected to
        wrap = ctx.wrap_socket
        ctx.wrap_socket = lambda sock, server_hostname=None, **kw: wrap(sock, server_hostname=request["server_name"], **kw)
    return ctx


def host(request):
    return request.get("host") or "127.0.0.1"


def imap(request):
    if request["tls"] == "implicit":
        c = imaplib.IMAP4_SSL(host(request), request["port"], ssl_context=context(request), timeout=30)
    else:
        c = imaplib.IMAP4(host(request), request["port"], timeout=30)
        if request["tls"] == "starttls":
            c.starttls(context(request))
    c._encoding = "utf-8"  # or login() takes ASCII passwords only
    if request.get("sasl"):
        plain = "\0{}\0{}".format(request["user"], request["password"]).encode()
        c.authenticate("PLAIN", lambda _: plain)
    else:
        c.login(request["user"], request["password"])
    return c


def pop3(request):
    if request["tls"] == "implicit":
        c = poplib.POP3_SSL(host(request), request["port"], context=context(request), timeout=30)
    else:
        c = poplib.POP3(host(request), request["port"], timeout=30)
        if request["tls"] == "starttls":
            c.stls(context(request))
    c.user(request["user"])
    c.pass_(request["password"])
    return c


LIST = re.compile(rb'\((?P<attrs>[^)]*)\) (?:"(?P<delim>[^"]*)"|NIL) (?P<name>.*)$')


def mailboxes(answer):
    for line in answer:
        if line is None:
            continue
        if isinstance(line, tuple):  # the name came as a literal
            head, name = LIST.match(re.sub(rb"\{\d+\}$", b"x", line[0])), line[1]
        elif line == b"":
            continue
        else:
            head = LIST.match(line)
            name = head["name"]
            if name.startswith(b'"'):
                name = re.sub(rb"\\(.)", rb"\1", name[1:-1])
        yield text(name), text(head["delim"] or b""), text(head["attrs"]).split()


def quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


FETCH = re.compile(
    rb'UID (?P<uid>\d+)|FLAGS \((?P<flags>[^)]*)\)|INTERNALDATE "(?P<date>[^"]*)"')


def messages(c):
    found = {}
    typ, data = c.uid("FETCH", "1:*", "(UID FLAGS INTERNALDATE BODY.PEEK[])")
    assert typ == "OK", (typ, data)
    for item, tail in zip(data, data[1:] + [b""]):
        if not isinstance(item, tuple):
            continue
        rest = tail if isinstance(tail, bytes) else b""
        m = {}
        for hit in FETCH.finditer(item[0] + b" " + rest):
            m.update({k: v for k, v in hit.groupdict().items() if v is not None})
        found[int(m["uid"])] = {
            "uid": int(m["uid"]),
            "sha256": hashlib.sha256(item[1]).hexdigest(),
            "octets": len(item[1]),
            "flags": sorted(f for f in text(m["flags"]).split() if f != "\\Recent"),
            "date": text(m["date"]).strip(),
        }
    return [found[uid] for uid in sorted(found)]


def dump(request):
    c = imap(request)
    typ, data = c.list()
    assert typ == "OK"
    folders = []
    for name, delim, attrs in mailboxes(data):
        folder = {"name": name, "delim": delim, "attrs": attrs, "messages": []}
        if not {"\\noselect", "\\nonexistent"} & {a.lower() for a in attrs}:
            typ, data = c.select(quoted(name), readonly=True)
            assert typ == "OK", (name, data)
            if int(data[0]):
                folder["messages"] = messages(c)
        folders.append(folder)
    typ, data = c.lsub()
    subscribed = [n for n, _, attrs in mailboxes(data) if "\\noselect" not in {a.lower() for a in attrs}]
    c.logout()
    return {"folders": folders, "subscribed": sorted(subscribed)}


def commands(request):
    """Runs imaplib methods by name and gives back what each said."""
    c = imap(request)
    answers = []
    for method, *args in request.get("commands", []):
        try:
            args = [base64.b64decode(a[4:]) if isinstance(a, str) and a.startswith("b64:") else a for a in args]
            answers.append(text(list(getattr(c, method)(*args))))
        except imaplib.IMAP4.error as e:
            answers.append(["error", [str(e)]])
    return {"answers": answers, "capabilities": list(c.capabilities)}


def pop3dump(request):
    c = pop3(request)
    if "UTF8" in c.capa():  # or a Courier wraps messages with 8-bit headers into others
        c.utf8()
    count, _ = c.stat()
    uidl = [text(line).split(" ", 1)[1] for line in c.uidl()[1]]
    digests = [hashlib.sha256(b"\r\n".join(c.retr(i + 1)[1]) + b"\r\n").hexdigest() for i in range(count)]
    c.quit()
    return {"uidl": uidl, "digests": digests}


def pop3list(request):
    """Reads no message."""
    c = pop3(request)
    uidl = [text(line).split(" ", 1)[1] for line in c.uidl()[1]]
    c.quit()
    return {"uidl": uidl}


def pop3take(request):
    """Reads all messages, and deletes as many of the first as the command says."""
    c = pop3(request)
    count, _ = c.stat()
    uidl = [text(line).split(" ", 1)[1] for line in c.uidl()[1]]
    digests = [hashlib.sha256(b"\r\n".join(c.retr(i + 1)[1]) + b"\r\n").hexdigest() for i in range(count)]
    for i in range(request["commands"][0][0]):
        c.dele(i + 1)
    c.quit()
    return {"uidl": uidl, "digests": digests}


def main():
    request = json.load(sys.stdin)
    try:
        answer = {"ok": True, **globals()[request["op"]](request)}
    except (imaplib.IMAP4.error, poplib.error_proto) as e:
        answer = {"ok": False, "error": str(e)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
