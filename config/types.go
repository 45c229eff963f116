package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Address is a host and a port. Host is empty where a listener takes every
// address; port 0 lets the system choose one.
type Address struct {
	Host string
	Port uint16
}

// String gives the address as net.Dial and net.Listen take it.
func (a Address) String() string {
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// hostName is a name as resolvers take it, with an underscore for those who
// use one.
var hostName = regexp.MustCompile(`^[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?(\.[\pL\pN_]([\pL\pN_-]*[\pL\pN_])?)*\.?$`)

// UnmarshalText reads "host:port", ":port", "192.0.2.1:port" or "[::1]:port".
func (a *Address) UnmarshalText(text []byte) error {
	s := string(text)
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address; write host:port, such as mail.example.com:993, [::1]:143 or :143", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%q has no valid port; write a number from 0 to 65535 behind the colon", s)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostName.MatchString(host) {
		return fmt.Errorf("%q has no valid host; write a name or an IP address, or nothing before the colon for every address", s)
	}
	*a = Address{Host: host, Port: uint16(n)}
	return nil
}

// Addresses is one address or a list of them.
type Addresses []Address

// Network is an IP prefix; a bare address is the prefix of itself alone.
type Network struct{ netip.Prefix }

// UnmarshalText reads "192.0.2.0/24", "2001:db8::/32" or a bare address.
func (n *Network) UnmarshalText(text []byte) error {
	s := string(text)
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		n.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is not a network; write a prefix such as 192.0.2.0/24 or a single address", s)
	}
	if p != p.Masked() {
		return fmt.Errorf("%q has bits set behind its length; write %s", s, p.Masked())
	}
	n.Prefix = p
	return nil
}

// Duration is a time.Duration that also reads days: "90d", "1d12h". It is
// never negative.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String gives the duration in hours, minutes and seconds.
func (d Duration) String() string { return d.Std().String() }

// UnmarshalText reads a duration of the standard library, with a whole number
// of days before it if need be.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write a number and a unit, such as 30s, 5m, 12h, 90d or 1d12h", text)
	}
	*d = Duration(v)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	var days time.Duration
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, err
		}
		days, s = time.Duration(n)*24*time.Hour, after
		if s == "" {
			return days, nil
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil {
		return 0, err
	}
	if rest < 0 || strings.ContainsAny(s, "+-") || rest > math.MaxInt64-days {
		return 0, errors.New("out of range")
	}
	return days + rest, nil
}

// Values lists what may be written.
func (TLSVersion) Values() []string { return []string{"1.2", "1.3"} }

// Values lists what may be written.
func (PlaintextLogin) Values() []string {
	return []string{string(PlaintextNever), string(PlaintextAlways), string(PlaintextLoopback)}
}

// Values lists what may be written.
func (Protocol) Values() []string { return []string{string(IMAP), string(POP3)} }

// Values lists what may be written.
func (TLSMode) Values() []string {
	return []string{string(TLSNone), string(TLSStartTLS), string(TLSImplicit), string(TLSDetect)}
}

// Values lists what may be written.
func (MasterStyle) Values() []string {
	return []string{string(MasterAuthzid), string(MasterSeparator)}
}

// Values lists what may be written.
func (Mode) Values() []string { return []string{string(ModeAccounts), string(ModePasswords)} }

// Values lists what may be written.
func (AccessMode) Values() []string {
	return []string{string(AccessStandard), string(AccessUsername), string(AccessExtended)}
}

// Values lists what may be written.
func (Driver) Values() []string {
	return []string{string(DriverExec), string(DriverPasswdFile), string(DriverNone)}
}

// Values lists what may be written.
func (ParkingMode) Values() []string {
	return []string{string(ParkSource), string(ParkNotice), string(ParkAccount), string(ParkHold)}
}

// known checks a value of an enumeration.
func known(value string, values []string) error {
	if slices.Contains(values, value) {
		return nil
	}
	return fmt.Errorf("%q is not known; write %s", value, oneOf(values))
}
