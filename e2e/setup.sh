#!/bin/sh
# Puts in place what the end-to-end tests need on a Debian or Ubuntu machine:
# Dovecot, mbsync, promtool, Python and a C compiler (for the race detector) by
# apt-get, where they are missing, and Courier and Cyrus unpacked into
# e2e/.servers, because neither can be installed beside Dovecot. No system
# service is started. "setup.sh long" has PostgreSQL and Postfix as well.
# Does nothing when everything is there.
set -eu
cd "$(dirname "$0")"

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		command -v sudo >/dev/null || fail "this needs root: install sudo, or run $* as root first"
		sudo "$@"
	fi
}

updated=
update() {
	[ -z "$updated" ] || return 0
	say "reading the package lists (apt-get update)"
	as_root apt-get -qq -o DPkg::Lock::Timeout=120 update
	updated=yes
}

# ---- what apt-get installs

missing=
need() { # need PROGRAM PACKAGE...: the packages are wanted if the program is not there
	program=$1
	shift
	PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing="$missing $*"
}
need dovecot dovecot-core
need /usr/lib/dovecot/imap dovecot-imapd
need /usr/lib/dovecot/pop3 dovecot-pop3d
[ -e /usr/lib/dovecot/modules/auth/libdriver_sqlite.so ] || missing="$missing dovecot-sqlite"
need mbsync isync
need promtool prometheus
need python3 python3
need unshare util-linux
if [ "${1:-}" = long ]; then
	[ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || missing="$missing postgresql"
	[ -e /usr/lib/dovecot/modules/auth/libdriver_pgsql.so ] || missing="$missing dovecot-pgsql"
	/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || missing="$missing python3-psycopg2"
fi
[ -n "$(command -v gcc || command -v clang || true)" ] || missing="$missing gcc libc6-dev"

policy=/usr/sbin/policy-rc.d
policy_is_ours=
cleanup() {
	[ -z "$policy_is_ours" ] || as_root rm -f "$policy"
	[ -z "${scratch:-}" ] || rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

if [ -n "$missing" ]; then
	command -v apt-get >/dev/null || fail "install these by hand, this machine has no apt-get:$missing"
	say "installing with apt-get:$missing"
	update
	# The packages' own services are not to start: the tests run their own.
	if [ ! -e "$policy" ]; then
		policy_is_ours=yes
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod 755 "$policy"
	fi
	# shellcheck disable=SC2086 # a list of packages
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends $missing >/dev/null
fi

# ---- what is unpacked

# pick prints the first of several names that can be downloaded.
pick() {
	for name in $(echo "$1" | tr '|' ' '); do
		if apt-cache policy "$name" 2>/dev/null | grep -q 'Candidate: [^(]'; then
			echo "$name"
			return
		fi
	done
}

# Each word is one package, or names that it has in different releases.
courier="courier-imap courier-pop courier-base courier-authlib courier-authlib-userdb
	libcourier-unicode4|libcourier-unicode7|libcourier-unicode8 libgamin0|libfam0t64|libfam0
	libidn12 libltdl7 libgdbm6|libgdbm6t64 libpcre3|libpcre2-8-0"
courier_programs="usr/bin/imapd usr/sbin/couriertcpd usr/lib/courier/courier/courierpop3*
	usr/lib/courier/courier/imaplogin usr/lib/courier/courier-authlib/authdaemond"
courier_packages() {
	for alternatives in $courier; do
		name=$(pick "$alternatives")
		[ -n "$name" ] || return 1
		echo "$name"
	done
}

cyrus_programs="usr/lib/cyrus/bin/master usr/lib/cyrus/bin/imapd usr/lib/cyrus/bin/pop3d
	usr/lib/cyrus/bin/ctl_cyrusdb usr/sbin/saslpasswd2"
# Its libraries are those that apt-get would install beside it.
cyrus_packages() {
	apt-get -s --no-install-recommends install cyrus-imapd cyrus-pop3d sasl2-bin |
		sed -n 's/^Inst \(cyrus-[^ ]*\|sasl2-bin\|lib[^ ]*\) .*/\1/p' | grep .
}

postfix_packages() {
	apt-get -s --no-install-recommends install postfix |
		sed -n 's/^Inst \(postfix\|lib[^ ]*\) .*/\1/p' | grep .
}

download() { # PACKAGES: the function that lists them; into $scratch
	names=$("$1") || return 1
	# shellcheck disable=SC2086 # a list of packages
	(cd "$scratch" && apt-get -qq download $names)
}

# unresolved DIR PROGRAM... lists the libraries that neither the packages nor
# this machine has.
unresolved() {
	dir=$1
	shift
	(cd "$dir" && LD_LIBRARY_PATH=$(find "$PWD/usr/lib" "$PWD/lib" -name '*.so*' -exec dirname {} \; 2>/dev/null | sort -u | tr '\n' ':') \
		ldd "$@") | sed -n 's/^[[:space:]]*\(.*\) => not found$/\1/p' | sort -u
}

unpack() { # NAME PACKAGES PROGRAM...: the first program says whether it is there
	server=$1
	packages=$2
	shift 2
	[ ! -e ".servers/$server/$1" ] || return 0
	command -v apt-get >/dev/null || fail "$server is unpacked from Debian's packages, and this machine has no apt-get"
	say "unpacking $server into e2e/.servers/$server"
	scratch=$(mktemp -d)
	chmod 1777 "$scratch" # apt-get downloads as a user of its own
	if ! download "$packages" 2>/dev/null; then
		update
		download "$packages" || fail "the packages of $server cannot be downloaded; is a Debian or Ubuntu mirror in /etc/apt?"
	fi
	mkdir -p .servers
	rm -rf ".servers/$server.new"
	mkdir ".servers/$server.new"
	for package in "$scratch"/*.deb; do
		dpkg -x "$package" ".servers/$server.new"
	done
	rm -rf "$scratch"
	# shellcheck disable=SC2068 # patterns
	lost=$(cd ".servers/$server.new" && unresolved . $@)
	[ -z "$lost" ] || fail "$server lacks $lost; add the packages to e2e/setup.sh"
	mv ".servers/$server.new" ".servers/$server" # only now does it count as there
}

# shellcheck disable=SC2086 # lists of programs
unpack courier courier_packages $courier_programs
# shellcheck disable=SC2086
unpack cyrus cyrus_packages $cyrus_programs
[ "${1:-}" != long ] || [ -e /usr/sbin/postmap ] || unpack postfix postfix_packages usr/sbin/postmap
