#!/bin/sh
# Puts in place what the end-to-end tests need on a Debian or Ubuntu machine:
# Dovecot, mbsync, promtool, Python and a C compiler (for the race detector) by
# apt-get, where they are missing, and Courier unpacked into e2e/.servers,
# because it cannot be installed beside Dovecot. No system service is started.
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
need mbsync isync
need promtool prometheus
need python3 python3
need unshare util-linux
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

# ---- Courier

# Each word is one package, or names that it has in different releases.
courier="courier-imap courier-pop courier-base courier-authlib courier-authlib-userdb
	libcourier-unicode4|libcourier-unicode7|libcourier-unicode8 libgamin0|libfam0t64|libfam0
	libidn12 libltdl7 libgdbm6|libgdbm6t64 libpcre3|libpcre2-8-0"

# pick prints the first of several names that can be downloaded.
pick() {
	for name in $(echo "$1" | tr '|' ' '); do
		if apt-cache policy "$name" 2>/dev/null | grep -q 'Candidate: [^(]'; then
			echo "$name"
			return
		fi
	done
}

download() { # into $scratch
	names=
	for alternatives in $courier; do
		name=$(pick "$alternatives")
		[ -n "$name" ] || return 1
		names="$names $name"
	done
	# shellcheck disable=SC2086 # a list of packages
	(cd "$scratch" && apt-get -qq download $names)
}

# unresolved lists the libraries that neither the packages nor this machine has.
unresolved() {
	LD_LIBRARY_PATH=$(find "$1/usr/lib" "$1/lib" -name '*.so*' -exec dirname {} \; | sort -u | tr '\n' ':') \
		ldd "$1/usr/bin/imapd" "$1/usr/sbin/couriertcpd" "$1"/usr/lib/courier/courier/courierpop3* \
		"$1"/usr/lib/courier/courier/imaplogin "$1"/usr/lib/courier/courier-authlib/authdaemond |
		sed -n 's/^[[:space:]]*\(.*\) => not found$/\1/p' | sort -u
}

if [ ! -e .servers/courier/usr/bin/imapd ]; then
	command -v apt-get >/dev/null || fail "Courier is unpacked from Debian's packages, and this machine has no apt-get"
	say "unpacking Courier into e2e/.servers/courier"
	scratch=$(mktemp -d)
	chmod 1777 "$scratch" # apt-get downloads as a user of its own
	if ! download 2>/dev/null; then
		update
		download || fail "Courier's packages cannot be downloaded; is a Debian or Ubuntu mirror in /etc/apt?"
	fi
	mkdir -p .servers
	rm -rf .servers/courier.new
	mkdir .servers/courier.new
	for package in "$scratch"/*.deb; do
		dpkg -x "$package" .servers/courier.new
	done
	lost=$(unresolved .servers/courier.new)
	[ -z "$lost" ] || fail "Courier lacks $lost; add the packages to e2e/setup.sh"
	mv .servers/courier.new .servers/courier # only now does it count as there
fi
