package config

import "net/netip"

// Address is a host and a port. Host is empty where a listener takes every
// address.
type Address struct {
	Host string
	Port uint16
}

// Addresses is one address or a list of them.
type Addresses []Address

// Network is an IP prefix; a bare address is the prefix of itself alone.
type Network struct{ netip.Prefix }
