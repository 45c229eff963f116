package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"
)

// Drop is a source that is read over POP3: one maildrop, whose messages have
// neither flags nor dates. Nothing in it writes. After an error it is closed.
type Drop interface {
	// Server is the host:port that was reached.
	Server() string
	// List lists the messages as they are now. Their UIDs are the ledger's, and
	// for those that it cannot name, ones that it does not have; they stay the
	// same from one Drop of an account to the next.
	List(ctx context.Context) ([]DropMessage, error)
	// Read passes on the octets of a message. fn is not called, and there is no
	// error, for one that the server does not give. What fn got is the message
	// only if it read to io.EOF.
	Read(ctx context.Context, uid uint32, fn func(io.Reader) error) error
	Close() error
}

// DropMessage is one message of a maildrop.
type DropMessage struct {
	UID  uint32
	Size int64 // as the server says, in octets; many count wrong
}

// dropValidity is the UIDVALIDITY under which the ledger has what was read over
// POP3.
const dropValidity = 1

// What is said of a source that was read over POP3.
const (
	noteDrop = "The source was read over POP3 by the copier's own reader, not by go-imap."
	noteBare = "POP3 tells no flags and no dates; they were not compared."
)

// dropReader shows a maildrop as one folder.
type dropReader struct {
	drop   Drop
	listed []DropMessage
	buf    []byte
}

var _ reader = (*dropReader)(nil)

func newDropReader(d Drop) *dropReader { return &dropReader{drop: d, buf: make([]byte, 32<<10)} }

func (d *dropReader) close() { _ = d.drop.Close() }

func (d *dropReader) namespaces(context.Context) (string, rune, []string, error) {
	return "", '/', nil, nil
}

func (d *dropReader) list(context.Context, string) ([]mailbox, error) {
	return []mailbox{{name: "INBOX", selectable: true}}, nil
}

func (d *dropReader) examine(ctx context.Context, name string) (box opened, err error) {
	if !isInbox(name) {
		return opened{}, &refusal{errors.New("POP3 has INBOX alone")}
	}
	d.listed, err = d.drop.List(ctx)
	return opened{exists: uint32(len(d.listed)), uidValidity: dropValidity}, err
}

func (d *dropReader) messages(_ context.Context, _ uint32, v *view) error {
	v.bare = true
	for _, m := range d.listed {
		v.add(m.UID, m.Size, time.Time{}, nil)
	}
	return nil
}

func (d *dropReader) digests(ctx context.Context, uids []uint32, fn func(uid uint32, sum [32]byte)) error {
	for _, uid := range uids {
		err := d.drop.Read(ctx, uid, func(r io.Reader) error {
			h := sha256.New()
			if _, err := io.CopyBuffer(h, r, d.buf); err != nil {
				return err
			}
			fn(uid, [32]byte(h.Sum(nil)))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
