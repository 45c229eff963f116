package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// listenAdvice adds what to do to an error of opening the listeners.
func listenAdvice(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; end the process that has this port (ss -ltnp tells which), or choose another under listeners", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; under listeners, write an address that this machine has, or none before the port for all of them", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; ports below 1024 take CAP_NET_BIND_SERVICE, which deploy/migproxy.service gives", err)
	}
	return err
}

// stateAdvice adds what to do to an error of opening the database or the key.
func stateAdvice(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; make its directory, owned by the user that migproxy runs as (deploy/migproxy.service does it)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; it and its directory must belong to the user that migproxy runs as", err)
	}
	return err
}
