#!/usr/bin/python3
"""Creates accounts by HTTP, for a server with a REST interface.

    command: [/usr/local/lib/migproxy/rest-api.py, "https://admin.example.com/api", /etc/migproxy/api-token]

Every interface has its own paths and names: perform is the place to write yours. The password is in the body of
the request and nowhere else, the token in a header.
"""
import base64
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

DONE, TAKEN = 0, 2


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Neither password nor token goes to a place that is not in the settings."""

    def redirect_request(self, *_):
        return None


def call(method, path, name, body=None):
    """Asks the server, and gives the status and what it said. Only these statuses are answers."""
    with open(sys.argv[2]) as file:
        token = file.readline().rstrip("\n")
    request = urllib.request.Request(
        sys.argv[1] + path + urllib.parse.quote(name, safe="@"), method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=20) as answer:
            return answer.status, json.load(answer) if answer.status == 200 else None
    except urllib.error.HTTPError as error:
        if error.code in (404, 409):
            return error.code, None
        sys.exit("%s %s: HTTP %d" % (method, error.url, error.code))
    except OSError as error:
        sys.exit("%s: %s" % (sys.argv[1], error))


def perform(request):
    op, account, alias = request["op"], request["account"], request.get("alias", "")
    if op in ("ensure", "set_password") and "password" not in request:
        sys.exit("the password is not UTF-8, and JSON cannot carry it; let the user choose another")
    if op == "lookup":
        # An address is taken as an account or as somebody's alias.
        for path in "/accounts/", "/aliases/":
            if call("GET", path, account)[0] != 404:
                return TAKEN
        return DONE
    if op == "ensure":  # PUT makes the account, or sets the password of the one that is there
        status, _ = call("PUT", "/accounts/", account, {"password": request["password"]})
    elif op == "set_password":
        status, _ = call("PATCH", "/accounts/", account, {"password": request["password"]})
    elif op == "add_alias":
        status, _ = call("PUT", "/aliases/", alias, {"account": account})
    elif op == "remove_alias":
        status, found = call("GET", "/aliases/", alias)
        if status == 404 or found["account"] != account:
            return DONE
        status, _ = call("DELETE", "/aliases/", alias)
    else:
        sys.exit("unknown operation " + op)
    if status == 404:
        sys.exit("there is no account " + account)
    return TAKEN if status == 409 else DONE


sys.exit(perform(json.load(sys.stdin)))
