#!/usr/bin/python3
"""Creates accounts in a Cyrus on this machine: a mailbox over IMAP, a password in the sasldb.

    command: [/usr/local/lib/migproxy/cyrus.py, "127.0.0.1:143", cyrus, /etc/migproxy/cyrus]

The arguments are the server, its administrator (admins in imapd.conf) and a file with his password. The settings
of Cyrus are virtdomains: userid and sasl_pwcheck_method: auxprop; the sasldb must be writable for migproxy.
"""
import base64
import imaplib
import json
import subprocess
import sys

DONE, TAKEN = 0, 2


def program(*command, secret=b""):
    done = subprocess.run(command, input=secret, capture_output=True, timeout=20)
    if done.returncode:
        sys.exit("%s: %s" % (command[0], done.stderr.decode(errors="replace").strip() or "failed"))
    return done.stdout.decode(errors="replace")


def has_password(account):
    lines = program("sasldblistusers2").splitlines()
    return account + ": userPassword" in lines


def set_password(account, password):
    local, domain = account.split("@")
    program("saslpasswd2", "-c", "-p", "-u", domain, local, secret=password)


def mailbox(cyrus, account):
    """The name of an account's mailbox, as this server writes names."""
    if not account.isascii():
        sys.exit("create %s by hand: its name needs an encoding that this script has not" % account)
    separator = cyrus.list('""', '""')[1][0].split(b'"')[1].decode()
    return '"user%s%s"' % (separator, account.replace("&", "&-"))


def has_mailbox(cyrus, account):
    return cyrus.list('""', mailbox(cyrus, account))[1] != [None]


def perform(cyrus, request):
    op, account = request["op"], request["account"]
    if op in ("add_alias", "remove_alias"):
        sys.exit("a Cyrus has no aliases; they belong into the mail server before it")
    password = base64.b64decode(request.get("password_base64", ""))
    if op == "lookup":
        return TAKEN if has_mailbox(cyrus, account) or has_password(account) else DONE
    if op == "ensure":
        if not has_mailbox(cyrus, account):
            answer, text = cyrus.create(mailbox(cyrus, account))
            # Another call of this script may have been faster.
            if answer != "OK" and not has_mailbox(cyrus, account):
                sys.exit("CREATE: %s" % text[0].decode(errors="replace"))
        set_password(account, password)
    elif op == "set_password":
        if not has_mailbox(cyrus, account):
            sys.exit("there is no account " + account)
        set_password(account, password)
    else:
        sys.exit("unknown operation " + op)
    return DONE


def main():
    request = json.load(sys.stdin)
    host, port = sys.argv[1].rsplit(":", 1)
    with open(sys.argv[3]) as file:
        secret = file.readline().rstrip("\n")
    cyrus = imaplib.IMAP4(host, int(port), timeout=20)
    cyrus.login(sys.argv[2], secret)
    try:
        return perform(cyrus, request)
    finally:
        cyrus.logout()


try:
    sys.exit(main())
except (OSError, imaplib.IMAP4.error, subprocess.TimeoutExpired) as error:
    sys.exit("Cyrus: %s" % error)
