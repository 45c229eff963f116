package migrator

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"slices"

	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/migrator/imapwire"
	"migproxy/migrator/pop3wire"
	"migproxy/store"
	"migproxy/upstream"
)

const (
	// markMessages is how many messages of INBOX a mailbox is recognised by.
	markMessages = 5
	// The first markWindow UIDs are listed to find them, markGrowth times as many
	// when they are not among those, and all instead of markAll.
	markWindow, markGrowth, markAll = 1 << 10, 1 << 4, 1 << 30
	// sameTries is how often a mailbox is held against the one that it seems to be.
	sameTries = 3
	// markHeader bounds what is looked at of a message's header, in octets.
	markHeader = 32 << 10
)

// errIsAlias ends the work on an account that is a name of another one.
var errIsAlias = errors.New("the account has become a login alias of another")

// oneOfItsNames looks, before an account is made, whether its mailbox on the
// source is that of an account which migproxy knows, so that one owner who logs
// in under several names is moved once. If the password opens that account too,
// the name becomes a login alias of it, and the error is errIsAlias. Where
// anything is left to doubt, the administrator decides; whoever he lets go on
// becomes an account of his own.
func (j *job) oneOfItsNames(ctx context.Context) error {
	a := j.claim.Account
	if a.Origin != store.OriginUnknown || a.Mode != config.ModeAccounts || j.m.memory.isOwn(a) {
		return nil
	}
	mark, opened, delivered, err := j.mark(ctx)
	if mark == nil || err != nil {
		return err
	}
	others, err := j.claim.Alike(ctx, *mark)
	if err != nil || len(others) == 0 {
		return err
	}
	owner := others[0]
	switch {
	case len(mark.Messages) == 0:
		return j.askWhose(owner, "its mailbox is empty, as that of %s is or was, which proves nothing")
	case len(others) > 1:
		return j.askWhose(owner, "its mailbox shows the same messages as those of several accounts, one of them %s")
	case !delivered:
		return j.askWhose(owner, "its mailbox shows the same messages as that of %s, and none of them came by mail, so that whoever made the mailboxes may have put them there")
	case j.sourceCreds.Master != nil:
		return j.askWhose(owner, "its mailbox seems to be that of %s, and no password is known to prove it")
	}
	opens, err := j.passwordOpens(ctx, owner)
	if err != nil {
		return err
	}
	if !opens {
		return j.askWhose(owner, "its mailbox seems to be that of %s, which this password does not open")
	}
	if err := j.isTheSame(ctx, owner, opened); err != nil {
		return err
	}
	j.m.step(stepNameBefore)
	if err := j.claim.BecomeAlias(ctx, owner.ID); errors.Is(err, store.ErrChanged) {
		return again(errorInternal, fmt.Errorf("the account %s has changed meanwhile: it is looked at again", owner.Identity.Address()))
	} else if err != nil {
		return err
	}
	j.m.step(stepNameCommitted)
	j.m.memory.forget(a.ID)
	text := fmt.Sprintf("'%s' is another name of '%s'", j.address, owner.Identity.Address())
	j.log.Info("the account is another name of one that is known", zap.String("owner", owner.Identity.Address()))
	j.event(ctx, text)
	if err := j.m.o.Store.Event(ctx, owner.Identity.Address(), text); err != nil {
		j.log.Warn("an event could not be written", zap.String("event", text), zap.Error(err))
	}
	return errIsAlias
}

// askWhose has the account wait for the administrator. If he says retry, it
// becomes an account of its own; a new password is looked at anew.
func (j *job) askWhose(owner store.Account, what string) error {
	a := j.claim.Account
	j.m.memory.askWhose(a)
	address := owner.Identity.Address()
	return &halt{state: store.Waiting, reason: errorName, err: fmt.Errorf(
		what+": if they are one, `migproxy account alias %s %s`; if not, `migproxy account retry %s` makes it an account of its own",
		address, address, j.address, j.address)}
}

// mark reads what the mailbox is recognised by, in the state in which it was opened;
// nil is nothing. delivered says that one of the messages came by mail: no other
// mailbox was given the like.
func (j *job) mark(ctx context.Context) (mark *store.Mark, opened imapwire.Selected, delivered bool, err error) {
	opened, err = j.source.Examine(ctx, popInbox)
	if err != nil {
		return nil, opened, false, again(errorSource, fmt.Errorf("the source's folder %s: %w", popInbox, err))
	}
	mark = &store.Mark{UIDLs: !wired(j.source), UIDValidity: max(1, opened.UIDValidity), UIDNext: opened.UIDNext}
	if opened.Exists == 0 {
		if mark.UIDLs {
			return nil, opened, false, nil // all empty maildrops are alike
		}
		return mark, opened, false, nil
	}
	uids, err := j.lowest(ctx, int(min(opened.Exists, markMessages)))
	if err != nil {
		return nil, opened, false, err
	}
	inbox := &folder{Folder: store.Folder{Source: popInbox, SourceUIDValidity: mark.UIDValidity}}
	sum := newDigester()
	err = j.readSource(ctx, inbox, uids, func(uid uint32, _ int64, r io.Reader) error {
		head := make([]byte, markHeader)
		n, err := io.ReadFull(r, head)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		_, _ = sum.Write(head[:n])
		delivered = delivered || hasReceived(head[:n])
		_, err = io.Copy(sum, r)
		mark.Messages = append(mark.Messages, store.MarkMessage{UID: uid, Digest: sum.sum().canonical})
		return err
	})
	if err != nil || len(mark.Messages) == 0 { // it lists them and does not give them
		return nil, opened, false, err
	}
	slices.SortFunc(mark.Messages, func(a, b store.MarkMessage) int { return cmp.Compare(a.UID, b.UID) })
	return mark, opened, delivered, nil
}

// hasReceived reports whether a header shows that its message came by mail
// (RFC 5321 section 4.4).
func hasReceived(head []byte) bool {
	header, _ := textproto.NewReader(bufio.NewReader(bytes.NewReader(head))).ReadMIMEHeader()
	return len(header["Received"]) > 0
}

// lowest lists the n lowest UIDs of INBOX, which is open, without listing all of
// a large one.
func (j *job) lowest(ctx context.Context, n int) ([]uint32, error) {
	for last := uint32(markWindow); ; last *= markGrowth {
		if last >= markAll {
			last = 0 // to the end
		}
		var uids []uint32
		err := j.source.FetchMeta(ctx, 1, last, func(m imapwire.Meta) error {
			if at, there := slices.BinarySearch(uids, m.UID); !there && at < n {
				uids = slices.Insert(uids, at, m.UID)
				uids = uids[:min(len(uids), n)]
			}
			return nil
		})
		if err != nil {
			return nil, again(errorSource, fmt.Errorf("list the messages of %s: %w", popInbox, err))
		}
		if len(uids) == n || last == 0 {
			return uids, nil
		}
	}
}

// passwordOpens reports whether this account's password opens another one, on the server
// that answers for it. The mailbox is closed before: a maildrop is locked by
// whoever reads it.
func (j *job) passwordOpens(ctx context.Context, owner store.Account) (bool, error) {
	_ = j.source.Close()
	password, _, err := j.password(ctx)
	if err != nil {
		return false, err
	}
	side, which := j.domain.Source, "source"
	if answersOnTarget(owner) {
		side, which = j.domain.Target, "target"
	}
	server := side.IMAP
	if server == nil {
		server = side.POP3
	}
	session, err := j.session(ctx, server, upstream.Credentials{Identity: owner.Identity, Password: password})
	switch outcome(err) {
	case upstream.Accepted:
		_ = session.Conn.Close() // that it was let in is the whole answer
		return true, nil
	case upstream.Miss, upstream.Refused:
		return false, nil
	}
	return false, again(errorName, fmt.Errorf("its mailbox seems to be that of %s, and the %s cannot be asked whether this password opens that account: %w", owner.Identity.Address(), which, err))
}

// isTheSame makes sure that the INBOX of another account on the source is in the
// state in which this one's was opened, so that the two are one mailbox, and not a
// copy of it that began with the same messages. Otherwise the error says what then.
func (j *job) isTheSame(ctx context.Context, owner store.Account, opened imapwire.Selected) error {
	server, err := j.sourceServer()
	if err != nil {
		return err
	}
	session, err := j.session(ctx, server, upstream.Credentials{Identity: owner.Identity, Password: j.sourceCreds.Password})
	switch outcome(err) {
	case upstream.Accepted:
	case upstream.Miss, upstream.Refused:
		return j.askWhose(owner, "its mailbox seems to be that of %s, which this password does not open on the source")
	default:
		return again(errorName, fmt.Errorf("its mailbox seems to be that of %s, and the source cannot be asked whether it is: %w", owner.Identity.Address(), err))
	}
	is, err := j.inboxOf(ctx, session)
	switch {
	case err != nil:
		return again(errorName, fmt.Errorf("its mailbox seems to be that of %s, which cannot be looked at on the source: %w", owner.Identity.Address(), err))
	case is.Exists == opened.Exists && (session.Protocol == config.POP3 || is.UIDNext == opened.UIDNext && is.UIDValidity == opened.UIDValidity):
		return nil
	case j.claim.Account.Attempts < sameTries: // mail may have come in between
		return again(errorName, fmt.Errorf("its mailbox seems to be that of %s, which shows something else by now: it is looked at again", owner.Identity.Address()))
	}
	return j.askWhose(owner, "its mailbox begins with the same messages as that of %s, and goes on with others, as a copy of it would")
}

// inboxOf opens the INBOX of a session, which ends with that. Over POP3 it has the
// number of messages alone: UIDs are each account's own there.
func (j *job) inboxOf(ctx context.Context, session *upstream.Session) (is imapwire.Selected, err error) {
	if session.Protocol != config.POP3 {
		c := j.wire(session)
		is, err = c.Examine(ctx, popInbox)
		_ = c.Logout(ctx) // the answer is known already
		return is, err
	}
	c := pop3wire.New(session, pop3wire.Options{Timeout: j.m.ioTimeout})
	err = c.List(ctx, func(int, int64) error { is.Exists++; return nil })
	_ = c.Quit(ctx) // nothing was marked
	return is, err
}

// answersOnTarget: the target is asked for the account's password, not the
// source.
func answersOnTarget(a store.Account) bool {
	return a.Moved() || !a.FlippedAt.IsZero() || a.Origin == store.OriginAdopted
}
