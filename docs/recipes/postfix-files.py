#!/usr/bin/python3
"""Creates virtual users of a Postfix in files: addresses and aliases for it, passwords for the Dovecot beside it.

    command: [/usr/local/lib/migproxy/postfix-files.py, /etc/mail-users]

The directory holds users (a Dovecot passwd-file), vmailbox and virtual (for postmap), and belongs to migproxy.
"""
import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys

DONE, TAKEN = 0, 2


def hashed(password):
    """A scheme that Dovecot knows and Python has without further packages."""
    salt, rounds = os.urandom(16).hex(), 20000
    digest = hashlib.pbkdf2_hmac("sha1", password, salt.encode(), rounds)
    return "{PBKDF2}$1$%s$%d$%s" % (salt, rounds, digest.hex())


def key_of(line, separator):
    return "" if line.startswith("#") or not line.strip() else line.split(separator)[0]


def read(name, separator):
    """A file's lines as pairs (key, line); comments and blank lines have the key ""."""
    with open(name) as file:
        return [(key_of(line, separator), line) for line in file.read().splitlines()]


def write(name, lines):
    """Replaces a file as a whole, so that nobody ever reads half of it."""
    old = os.stat(name)
    with open(name + ".new", "w") as file:
        os.fchmod(file.fileno(), old.st_mode & 0o777)
        file.writelines(line + "\n" for _, line in lines)
        file.flush()
        os.fsync(file.fileno())
        new = os.fstat(file.fileno())
    later = max(new.st_mtime, int(old.st_mtime) + 1)  # Dovecot looks at whole seconds
    os.utime(name + ".new", (later, later))
    os.rename(name + ".new", name)


def put(name, separator, key, line):
    write(name, [pair for pair in read(name, separator) if pair[0] != key] + ([(key, line)] if line else []))


def postmap(name):
    done = subprocess.run(["postmap", "hash:" + name], capture_output=True, timeout=20)
    if done.returncode:
        sys.exit("postmap %s: %s" % (name, done.stderr.decode(errors="replace").strip()))


def perform(request):
    op, account, alias = request["op"], request["account"], request.get("alias", "")
    users = {key for key, _ in read("users", ":")} | {key for key, _ in read("vmailbox", None)}
    aliases = {key: line.split()[1] for key, line in read("virtual", None) if key}
    password = base64.b64decode(request.get("password_base64", ""))
    if op == "lookup":
        return TAKEN if account in users or account in aliases else DONE
    if op == "ensure":
        if account in aliases:
            return TAKEN
        # Also where it is there already: an earlier call may have been cut off.
        put("vmailbox", None, account, account + " OK")
        postmap("vmailbox")
        put("users", ":", account, "%s:%s::::::" % (account, hashed(password)))
    elif op == "set_password":
        if account not in users:
            sys.exit("there is no account " + account)
        put("users", ":", account, "%s:%s::::::" % (account, hashed(password)))
    elif op == "add_alias":
        if account not in users:
            sys.exit("there is no account " + account)
        if alias in users and alias != account or aliases.get(alias, account) != account:
            return TAKEN
        if alias != account:
            put("virtual", None, alias, alias + " " + account)
        postmap("virtual")
    elif op == "remove_alias":
        if aliases.get(alias) == account:
            put("virtual", None, alias, None)
        postmap("virtual")
    else:
        sys.exit("unknown operation " + op)
    return DONE


def main():
    request = json.load(sys.stdin)
    os.chdir(sys.argv[1])
    with open("lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return perform(request)


try:
    sys.exit(main())
except (OSError, subprocess.TimeoutExpired) as error:
    sys.exit(str(error))
