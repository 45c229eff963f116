package proxy

import (
	"errors"
	"net"
	"time"
)

// duplex is one end of a connection inside the process. It is made of two
// net.Pipes, one for each direction, so that either side can end its own
// direction and still read the other; nothing is buffered.
type duplex struct {
	in, out net.Conn
}

var _ net.Conn = (*duplex)(nil)

func newDuplex() (client, server *duplex) {
	clientOut, serverIn := net.Pipe()
	serverOut, clientIn := net.Pipe()
	return &duplex{in: clientIn, out: clientOut}, &duplex{in: serverIn, out: serverOut}
}

func (d *duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }

// CloseWrite ends what this side sends.
func (d *duplex) CloseWrite() error { return d.out.Close() }

// Close ends both directions.
func (d *duplex) Close() error { return errors.Join(d.in.Close(), d.out.Close()) }

func (d *duplex) LocalAddr() net.Addr  { return d.in.LocalAddr() }
func (d *duplex) RemoteAddr() net.Addr { return d.in.RemoteAddr() }

func (d *duplex) SetReadDeadline(t time.Time) error  { return d.in.SetReadDeadline(t) }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }

func (d *duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.SetReadDeadline(t), d.SetWriteDeadline(t))
}
