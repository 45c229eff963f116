#!/usr/bin/python3
"""Creates accounts in the PostgreSQL database of a Dovecot. Needs the package python3-psycopg2.

    command: [/usr/local/lib/migproxy/dovecot-postgresql.py, "host=/run/postgresql dbname=mail user=migproxy"]

The database knows the system's user migproxy (peer in pg_hba.conf). Where it wants a password, name a file
with it: "... passfile=/etc/migproxy/pgpass".
"""
import base64
import hashlib
import json
import os
import sys

import psycopg2

DONE, TAKEN = 0, 2


def hashed(password):
    """A scheme that Dovecot knows and Python has without further packages."""
    salt, rounds = os.urandom(16).hex(), 20000
    digest = hashlib.pbkdf2_hmac("sha1", password, salt.encode(), rounds)
    return "{PBKDF2}$1$%s$%d$%s" % (salt, rounds, digest.hex())


def owner(db, address):
    """Whose address this is, or None."""
    db.execute("SELECT address FROM users WHERE address = %s"
               " UNION SELECT address FROM aliases WHERE alias = %s", (address, address))
    row = db.fetchone()
    return row and row[0]


def perform(db, request):
    op, account = request["op"], request["account"]
    if op in ("ensure", "set_password") and "password" not in request:
        sys.exit("the password is not UTF-8, with which no user of this database can log in; let the user choose another")
    if op == "lookup":
        return TAKEN if owner(db, account) else DONE
    if op == "ensure":
        if owner(db, account) not in (None, account):
            return TAKEN
        db.execute("INSERT INTO users (address, password) VALUES (%s, %s)"
                   " ON CONFLICT (address) DO UPDATE SET password = excluded.password",
                   (account, hashed(base64.b64decode(request["password_base64"]))))
    elif op == "set_password":
        db.execute("UPDATE users SET password = %s WHERE address = %s",
                   (hashed(base64.b64decode(request["password_base64"])), account))
        if db.rowcount != 1:
            sys.exit("there is no account " + account)
    elif op == "add_alias":
        has = owner(db, request["alias"])
        if has is not None:
            return DONE if has == account else TAKEN
        if owner(db, account) != account:
            sys.exit("there is no account " + account)
        db.execute("INSERT INTO aliases (alias, address) VALUES (%s, %s)", (request["alias"], account))
    elif op == "remove_alias":
        db.execute("DELETE FROM aliases WHERE alias = %s AND address = %s", (request["alias"], account))
    else:
        sys.exit("unknown operation " + op)
    return DONE


def main():
    request = json.load(sys.stdin)
    connection = psycopg2.connect(sys.argv[1], connect_timeout=10)
    with connection, connection.cursor() as db:  # one transaction, taken back at an error
        db.execute("SET LOCAL lock_timeout = '20s'")
        # Nobody else writes between the question and the answer.
        db.execute("LOCK TABLE users, aliases IN SHARE ROW EXCLUSIVE MODE")
        return perform(db, request)


try:
    sys.exit(main())
except psycopg2.Error as error:
    sys.exit("PostgreSQL: %s" % error)
