package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/textproto"
)

// refreshTimeout bounds how long a command waits for fresh contents.
const refreshTimeout = 10 * time.Second

// errParked refuses every change. UNAVAILABLE (RFC 5530) is temporary, so that
// a client keeps what it wanted to save and tries again later.
var errParked = &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeUnavailable,
	Text: "Your mailbox is being moved, please try again later"}

// parkSession is one IMAP session in a parked mailbox: an INBOX that can be
// read and nothing else. Its methods are called by one goroutine at a time,
// Poll excepted.
type parkSession struct {
	ctx     context.Context // ends with the Broker
	mailbox mailbox
	closed  func()

	// polling: a client that goes away while it idles is polled once more by the
	// server, beside the IDLE that is just ending.
	polling  sync.Mutex
	selected bool
	view     contents // as the client knows it; sequence numbers count in it
}

var (
	_ imapserver.SessionNamespace   = (*parkSession)(nil)
	_ imapserver.SessionMove        = (*parkSession)(nil)
	_ imapserver.SessionAppendLimit = (*parkSession)(nil)
)

var parkCaps = imap.CapSet{
	imap.CapIMAP4rev1: {}, imap.CapNamespace: {}, imap.CapUIDPlus: {}, imap.CapMove: {}, imap.CapESearch: {},
	imap.CapChildren: {}, imap.CapLiteralPlus: {},
}

func (s *parkSession) fresh() contents {
	ctx, cancel := context.WithTimeout(s.ctx, refreshTimeout)
	defer cancel()
	return s.mailbox.contents(ctx)
}

func (s *parkSession) Close() error {
	s.closed()
	return nil
}

func (s *parkSession) Login(string, string) error { return errParked }

func (s *parkSession) Select(name string, _ *imap.SelectOptions) (*imap.SelectData, error) {
	if !isInbox(name) {
		return nil, errParked
	}
	s.selected, s.view = true, s.fresh()
	data := &imap.SelectData{
		Flags:       []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft},
		NumMessages: uint32(len(s.view.messages)),
		UIDNext:     s.view.uidNext,
		UIDValidity: s.view.uidValidity,
	}
	if data.NumMessages > 0 {
		data.FirstUnseenSeqNum = 1
	}
	return data, nil
}

func (s *parkSession) Unselect() error {
	s.selected, s.view = false, contents{}
	return nil
}

func isInbox(name string) bool { return strings.EqualFold(name, "INBOX") }

func (s *parkSession) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '/'}}}, nil
}

func (s *parkSession) List(w *imapserver.ListWriter, ref string, patterns []string, o *imap.ListOptions) error {
	if len(patterns) == 0 { // RFC 9051 section 6.3.9: the delimiter is asked for
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: '/'})
	}
	if o.SelectSpecialUse {
		return nil
	}
	for _, p := range patterns {
		if !isInbox(p) && !imapserver.MatchList("INBOX", '/', ref, p) {
			continue
		}
		data := &imap.ListData{Mailbox: "INBOX", Delim: '/', Attrs: []imap.MailboxAttr{imap.MailboxAttrHasNoChildren}}
		if o.SelectSubscribed || o.ReturnSubscribed {
			data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
		}
		return w.WriteList(data)
	}
	return nil
}

func (s *parkSession) Status(name string, _ *imap.StatusOptions) (*imap.StatusData, error) {
	if !isInbox(name) {
		return nil, errParked
	}
	c := s.fresh()
	n, none, no := uint32(len(c.messages)), uint32(0), int64(0)
	var size int64
	for _, m := range c.messages {
		size += int64(len(m.octets))
	}
	return &imap.StatusData{Mailbox: "INBOX", NumMessages: &n, NumUnseen: &n, NumRecent: &none, NumDeleted: &none,
		UIDNext: c.uidNext, UIDValidity: c.uidValidity, Size: &size, DeletedStorage: &no}, nil
}

// Poll tells the client what has changed in the selected mailbox. Where no
// EXPUNGE may be sent (RFC 9051 section 7.5.1) all of it waits.
func (s *parkSession) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	s.polling.Lock()
	defer s.polling.Unlock()
	if !s.selected || !allowExpunge {
		return nil
	}
	next := s.fresh()
	if next.uidValidity != s.view.uidValidity {
		return nil // another mailbox, which the client learns of when it selects
	}
	there := make(map[imap.UID]bool, len(next.messages))
	for _, m := range next.messages {
		there[m.uid] = true
	}
	left := len(s.view.messages)
	for i := left - 1; i >= 0; i-- { // from the end: numbers before it stay
		if there[s.view.messages[i].uid] {
			continue
		}
		if err := w.WriteExpunge(uint32(i + 1)); err != nil {
			return err
		}
		left--
	}
	s.view = next
	if len(next.messages) > left {
		return w.WriteNumMessages(uint32(len(next.messages)))
	}
	return nil
}

// Idle polls until stop (RFC 2177).
func (s *parkSession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	tick := time.NewTicker(noticeAge + time.Second) // when the notice may be rendered anew
	defer tick.Stop()
	for {
		if err := s.Poll(w, true); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-s.ctx.Done():
			<-stop // closing the connection ends it
			return nil
		case <-tick.C:
		}
	}
}

func (s *parkSession) Fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions) error {
	for i, m := range s.view.messages {
		if !s.contains(set, i) {
			continue
		}
		if err := writeMessage(w.CreateMessage(uint32(i+1)), m, o); err != nil {
			return err
		}
	}
	return nil
}

// contains reports whether the message at an index is in a set of the client's.
func (s *parkSession) contains(set imap.NumSet, index int) bool {
	last := len(s.view.messages) - 1
	switch set := set.(type) {
	case imap.SeqSet:
		for _, r := range set {
			if inRange(uint32(index+1), r.Start, r.Stop, uint32(last+1)) {
				return true
			}
		}
	case imap.UIDSet:
		if imap.IsSearchRes(set) {
			return false // SEARCHRES (RFC 5182) is not offered
		}
		for _, r := range set {
			if inRange(uint32(s.view.messages[index].uid), uint32(r.Start), uint32(r.Stop), uint32(s.view.messages[last].uid)) {
				return true
			}
		}
	}
	return false
}

// inRange reports whether n is in start:stop, in either order; 0 is "*", the
// last number there is (RFC 9051 section 9, seq-range).
func inRange(n, start, stop, last uint32) bool {
	if start == 0 {
		start = last
	}
	if stop == 0 {
		stop = last
	}
	return min(start, stop) <= n && n <= max(start, stop)
}

func writeMessage(w *imapserver.FetchResponseWriter, m *parkedMessage, o *imap.FetchOptions) (err error) {
	// An open response holds back all others, so it is closed in any case.
	defer func() { err = errors.Join(err, w.Close()) }()
	w.WriteUID(m.uid)
	if o.Flags {
		w.WriteFlags(nil)
	}
	if o.InternalDate {
		w.WriteInternalDate(m.date)
	}
	if o.RFC822Size {
		w.WriteRFC822Size(int64(len(m.octets)))
	}
	if o.Envelope {
		// A header that is not one gives an empty envelope.
		h, _ := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(m.octets)))
		w.WriteEnvelope(imapserver.ExtractEnvelope(h))
	}
	if o.BodyStructure != nil {
		w.WriteBodyStructure(imapserver.ExtractBodyStructure(bytes.NewReader(m.octets)))
	}
	for _, section := range o.BodySection {
		b := imapserver.ExtractBodySection(bytes.NewReader(m.octets), section)
		if err := writeLiteral(w.WriteBodySection(section, int64(len(b))), b); err != nil {
			return err
		}
	}
	for _, section := range o.BinarySection {
		b := imapserver.ExtractBinarySection(bytes.NewReader(m.octets), section)
		if err := writeLiteral(w.WriteBinarySection(section, int64(len(b))), b); err != nil {
			return err
		}
	}
	for _, section := range o.BinarySectionSize {
		w.WriteBinarySectionSize(section, imapserver.ExtractBinarySectionSize(bytes.NewReader(m.octets), section))
	}
	return nil
}

func writeLiteral(w io.WriteCloser, b []byte) error {
	_, err := w.Write(b)
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Append reads the message to its end, as the client sends it, and keeps none
// of it.
func (s *parkSession) Append(_ string, r imap.LiteralReader, _ *imap.AppendOptions) (*imap.AppendData, error) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return nil, errParked
}

// AppendLimit is the largest there is: a message refused for its size would
// not be tried again.
func (s *parkSession) AppendLimit() uint32 { return math.MaxUint32 }

func (s *parkSession) Create(string, *imap.CreateOptions) error         { return errParked }
func (s *parkSession) Delete(string) error                              { return errParked }
func (s *parkSession) Rename(string, string, *imap.RenameOptions) error { return errParked }
func (s *parkSession) Subscribe(string) error                           { return errParked }
func (s *parkSession) Unsubscribe(string) error                         { return errParked }

func (s *parkSession) Copy(imap.NumSet, string) (*imap.CopyData, error)       { return nil, errParked }
func (s *parkSession) Move(*imapserver.MoveWriter, imap.NumSet, string) error { return errParked }

func (s *parkSession) Store(*imapserver.FetchWriter, imap.NumSet, *imap.StoreFlags, *imap.StoreOptions) error {
	return errParked
}

// Expunge is refused, except as part of CLOSE, where there is nothing to
// expunge and an error would keep the mailbox open.
func (s *parkSession) Expunge(w *imapserver.ExpungeWriter, _ *imap.UIDSet) error {
	if *w == (imapserver.ExpungeWriter{}) {
		return nil
	}
	return errParked
}
