#!/usr/bin/python3
"""Creates accounts in the SQLite database of a Dovecot.

    command: [/usr/local/lib/migproxy/dovecot-sqlite.py, /var/lib/mail-users/users.db]
"""
import base64
import hashlib
import json
import os
import sqlite3
import sys
import urllib.parse

DONE, TAKEN = 0, 2


def hashed(password):
    """A scheme that Dovecot knows and Python has without further packages."""
    salt, rounds = os.urandom(16).hex(), 20000
    digest = hashlib.pbkdf2_hmac("sha1", password, salt.encode(), rounds)
    return "{PBKDF2}$1$%s$%d$%s" % (salt, rounds, digest.hex())


def owner(db, address):
    """Whose address this is, or None."""
    row = db.execute("SELECT address FROM users WHERE address = ?"
                     " UNION SELECT address FROM aliases WHERE alias = ?", (address, address)).fetchone()
    return row and row[0]


def perform(db, request):
    op, account = request["op"], request["account"]
    if op == "lookup":
        return TAKEN if owner(db, account) else DONE
    if op == "ensure":
        if owner(db, account) not in (None, account):
            return TAKEN
        db.execute("INSERT INTO users (address, password) VALUES (?, ?)"
                   " ON CONFLICT (address) DO UPDATE SET password = excluded.password",
                   (account, hashed(base64.b64decode(request["password_base64"]))))
    elif op == "set_password":
        changed = db.execute("UPDATE users SET password = ? WHERE address = ?",
                             (hashed(base64.b64decode(request["password_base64"])), account))
        if changed.rowcount != 1:
            sys.exit("there is no account " + account)
    elif op == "add_alias":
        has = owner(db, request["alias"])
        if has is not None:
            return DONE if has == account else TAKEN
        if owner(db, account) != account:
            sys.exit("there is no account " + account)
        db.execute("INSERT INTO aliases (alias, address) VALUES (?, ?)", (request["alias"], account))
    elif op == "remove_alias":
        db.execute("DELETE FROM aliases WHERE alias = ? AND address = ?", (request["alias"], account))
    else:
        sys.exit("unknown operation " + op)
    return DONE


def main():
    request = json.load(sys.stdin)
    # mode=rw: a wrong path is an error, not a new database.
    db = sqlite3.connect("file:" + urllib.parse.quote(sys.argv[1]) + "?mode=rw", uri=True,
                         timeout=20, isolation_level=None)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("BEGIN IMMEDIATE")  # nobody else writes between the question and the answer
    status = perform(db, request)
    db.execute("COMMIT")
    return status


try:
    sys.exit(main())
except sqlite3.Error as error:
    sys.exit("SQLite, %s: %s" % (sys.argv[1], error))
