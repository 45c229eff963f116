package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"migproxy/upstream"
)

// Login logs the account in on one server, over IMAP. Its errors say what to do.
type Login func(ctx context.Context) (*upstream.Session, error)

const (
	// maxFailures is after how many failures of go-imap on one server the rest
	// is read by the copier's reader: each costs a login.
	maxFailures = 3
	// wireAttempts is how often the copier's reader is tried.
	wireAttempts = 3
	// digestChunk is how many messages one command reads.
	digestChunk = 200
)

// side is one server, with up to two connections to it: go-imap's and, where
// that fails, the copier's.
type side struct {
	which   string // "source" or "target"
	login   Login
	drop    func(context.Context) (Drop, error) // if set, it is read over POP3, by nothing else
	timeout time.Duration

	server        string // host:port that was reached
	library, wire *link
	failures      int   // of go-imap
	last          error // of these
}

// link is a connection.
type link struct {
	reader
	folder string // that is open; empty for none
}

// loginError is a login that failed. It ends the account: another try could only
// lock it.
type loginError struct{ error }

func (e loginError) Unwrap() error { return e.error }

func isLogin(err error) bool {
	_, ok := errors.AsType[loginError](err)
	return ok
}

// connect logs in.
func (s *side) connect(ctx context.Context) (*upstream.Session, error) {
	session, err := s.login(ctx)
	if err != nil {
		return nil, s.notLoggedIn(err)
	}
	s.server = session.Server
	return session, nil
}

func (s *side) notLoggedIn(err error) error {
	return loginError{fmt.Errorf("the %s: %w", s.which, err)}
}

// open gives a connection of go-imap's or of the copier's; fresh says that it
// was made for this call.
func (s *side) open(ctx context.Context, byWire bool) (l *link, fresh bool, err error) {
	at := s.at(byWire)
	if *at != nil {
		return *at, false, nil
	}
	r, err := s.reader(ctx, byWire)
	if err != nil {
		return nil, false, err
	}
	l = &link{reader: r}
	*at = l
	return l, true, nil
}

func (s *side) reader(ctx context.Context, byWire bool) (reader, error) {
	if s.drop != nil {
		d, err := s.drop(ctx)
		if err != nil {
			return nil, s.notLoggedIn(err)
		}
		s.server = d.Server()
		return newDropReader(d), nil
	}
	session, err := s.connect(ctx)
	switch {
	case err != nil:
		return nil, err
	case byWire:
		return newWire(session, s.timeout), nil
	default:
		return newLibrary(session, s.timeout), nil
	}
}

func (s *side) at(byWire bool) **link {
	if byWire {
		return &s.wire
	}
	return &s.library
}

// try does something on a connection. One that was made before may have been
// ended by the server meanwhile: then it is done once more on a new one.
func (s *side) try(ctx context.Context, byWire bool, f func(*link) error) error {
	for {
		l, fresh, err := s.open(ctx, byWire)
		if err != nil {
			return err
		}
		err = f(l)
		if _, lacking := errors.AsType[incomplete](err); err == nil || lacking || isRefusal(err) {
			return err
		}
		l.close()
		*s.at(byWire) = nil
		if fresh || ctx.Err() != nil || !dropped(err) {
			return err
		}
	}
}

// dropped reports whether the server ended the connection.
func dropped(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (s *side) close() {
	for _, l := range []*link{s.library, s.wire} {
		if l != nil {
			l.close()
		}
	}
}

// final reports whether an error is one that the other reader would get too.
func final(ctx context.Context, err error) bool {
	return err == nil || isLogin(err) || isNotOpened(err) || ctx.Err() != nil
}

// note says that the copier's reader was used, and why.
func (s *side) note(what, why string) string {
	why, _, _ = strings.Cut(why, "\n") // a panic of go-imap's has its stack
	return fmt.Sprintf("%s of the %s was read by the copier's own reader, not by go-imap: %s", what, s.which, why)
}

// givenUp says why go-imap is not tried any more.
func (s *side) givenUp() string {
	if s.failures < maxFailures {
		return ""
	}
	return fmt.Sprintf("it failed %d times on this server, the last time with %v", s.failures, s.last)
}

// failed counts a failure of go-imap, and says what it was.
func (s *side) failed(err error) string {
	s.failures++
	s.last = err
	return err.Error()
}

// folders lists the personal folders.
func (s *side) folders(ctx context.Context) (boxes []mailbox, notes []string, err error) {
	list := func(l *link) (err error) {
		boxes, err = personal(ctx, l)
		return err
	}
	if s.drop != nil {
		err = s.try(ctx, true, list)
		return boxes, []string{noteDrop}, err
	}
	if err = s.try(ctx, false, list); final(ctx, err) {
		return boxes, nil, err
	}
	notes = append(notes, s.note("The list of folders", s.failed(err)))
	return boxes, notes, s.try(ctx, true, list)
}

// count is how many messages a folder has.
func (s *side) count(ctx context.Context, name string) (n int64, err error) {
	err = s.try(ctx, !canName(name), func(l *link) error {
		l.folder = ""
		box, err := l.examine(ctx, name)
		n = int64(box.exists)
		return err
	})
	return n, err
}

// read lists a folder. A server that does not open it is a notOpened.
func (s *side) read(ctx context.Context, name string) (v *view, notes []string, err error) {
	read := func(l *link) (err error) {
		l.folder = ""
		if v, err = readFolder(ctx, l, name); err == nil {
			l.folder = name
		}
		return err
	}
	if s.drop != nil {
		err = s.try(ctx, true, read)
		return v, []string{noteBare}, err
	}
	why := s.givenUp()
	if why == "" && !canName(name) {
		why = "it cannot send this name"
	}
	if why == "" {
		if err = s.try(ctx, false, read); final(ctx, err) {
			return v, nil, err
		}
		why = s.failed(err)
	}
	for range wireAttempts {
		// Mail that comes or goes meanwhile makes the list incomplete.
		if err = s.try(ctx, true, read); final(ctx, err) {
			break
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return v, []string{s.note("The folder", why)}, nil
}

// digest reads messages of a folder that was read before, by their indices in
// its view, and notes their digests there. done is called for each. An error is
// a login's or the context's; messages that a server does not give are left
// unread.
func (s *side) digest(ctx context.Context, name string, v *view, list []int32, done func()) (notes []string, err error) {
	byWire, why := 0, ""
	for chunk := range slices.Chunk(list, digestChunk) {
		open := make(map[uint32]int32, len(chunk))
		for _, i := range chunk {
			open[v.messages[i].uid] = i
		}
		d := digesting{side: s, name: name, view: v, open: open, done: done}
		reason := s.givenUp()
		if reason == "" && !canName(name) {
			reason = "it cannot send this name"
		}
		if reason == "" && s.drop == nil {
			if err = d.by(ctx, false); isLogin(err) || ctx.Err() != nil {
				return notes, err
			}
			reason = "it did not give them"
			if err != nil {
				reason = s.failed(err)
			}
		}
		before := len(open)
		for attempt := 0; attempt < wireAttempts && len(open) > 0; attempt++ {
			if err = d.by(ctx, true); isLogin(err) || ctx.Err() != nil {
				return notes, err
			}
			if err == nil {
				break
			}
		}
		if n := before - len(open); n > 0 {
			byWire += n
			why = reason
		}
	}
	if byWire > 0 && s.drop == nil {
		notes = append(notes, s.note(fmt.Sprintf("The text of %d messages", byWire), why))
	}
	return notes, nil
}

// digesting is the reading of some messages.
type digesting struct {
	*side
	name string
	view *view
	open map[uint32]int32 // by UID: not read yet
	done func()
}

// by reads what is open by one of the readers.
func (d *digesting) by(ctx context.Context, byWire bool) error {
	return d.try(ctx, byWire, func(l *link) error {
		if l.folder != d.name {
			l.folder = ""
			box, err := l.examine(ctx, d.name)
			if err != nil {
				return err
			}
			if max(1, box.uidValidity) != d.view.uidValidity {
				return incomplete{"the folder's UIDVALIDITY changed meanwhile"}
			}
			l.folder = d.name
		}
		uids := make([]uint32, 0, len(d.open))
		for uid := range d.open {
			uids = append(uids, uid)
		}
		slices.Sort(uids)
		return l.digests(ctx, uids, func(uid uint32, sum [32]byte) {
			i, wanted := d.open[uid]
			if !wanted {
				return
			}
			delete(d.open, uid)
			d.view.read(i, sum)
			d.done()
		})
	})
}
