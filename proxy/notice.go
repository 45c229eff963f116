package proxy

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-message/mail"

	"migproxy/store"
)

// defaultNotice is what a user reads while his mail is copied.
const defaultNotice = `{{define "subject"}}Your mailbox is being moved{{if .Expected}} ({{.Percent}}%){{end}}{{end -}}
Hello,

your mailbox {{.Address}} is being moved to a new server. This happens
automatically, and you need not do or change anything.
{{if .Expected}}
Progress: {{.Messages}} of {{.Expected}} messages copied ({{.Percent}}%).
{{end}}
Until it is done you see only this message. None of your mail is lost: all
of it, and all of your folders, will be here when the move has ended. Your
mail program then reconnects by itself.

Please do not delete or reconfigure your account meanwhile.

{{.Hostname}}
`

// noticeData is what a template may use.
type noticeData struct {
	Address  string // of the user
	Domain   string
	Hostname string // of this server
	Messages int64  // copied so far
	Expected int64  // in all; 0 while they are not counted yet
	Percent  int64  // of the messages, 0 to 100
}

func newNoticeData(a store.Account, hostname string) noticeData {
	d := noticeData{Address: a.Identity.Address(), Domain: a.Identity.Domain, Hostname: hostname,
		Messages: a.Messages, Expected: a.Expected}
	if a.Expected > 0 {
		d.Messages = min(a.Messages, a.Expected) // mail goes on arriving after the count
		d.Percent = d.Messages * 100 / a.Expected
	}
	return d
}

// notice renders the message that stands in a parked mailbox.
type notice struct {
	tmpl     *template.Template
	hostname string
}

// newNotice parses the template in a file, or the built-in one where path is
// empty. The template's text is the body; a template "subject" defined in it is
// the subject. It is rendered once to find its mistakes now.
func newNotice(path, hostname string) (*notice, error) {
	text := defaultNotice
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("parking.template: %w", err)
		}
		text = string(b)
	}
	tmpl, err := template.New("notice").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parking.template: %w", err)
	}
	n := &notice{tmpl: tmpl, hostname: hostname}
	if _, err := n.render(noticeData{}, 1, time.Unix(0, 0)); err != nil {
		return nil, fmt.Errorf("parking.template: %w", err)
	}
	return n, nil
}

// render gives the whole message (RFC 5322). uid makes its Message-ID.
func (n *notice) render(d noticeData, uid uint32, now time.Time) ([]byte, error) {
	var body, subject bytes.Buffer
	if err := n.tmpl.Execute(&body, d); err != nil {
		return nil, err
	}
	subject.WriteString("Your mailbox is being moved")
	if t := n.tmpl.Lookup("subject"); t != nil {
		subject.Reset()
		if err := t.Execute(&subject, d); err != nil {
			return nil, err
		}
	}
	var h mail.Header
	h.SetDate(now)
	h.SetAddressList("From", []*mail.Address{{Name: "Postmaster", Address: "postmaster@" + d.Domain}})
	if !strings.ContainsFunc(d.Address, func(r rune) bool { return r >= utf8.RuneSelf }) {
		h.SetAddressList("To", []*mail.Address{{Address: d.Address}}) // others need RFC 6532
	}
	// A line break in a rendered subject would begin another header field.
	h.SetSubject(strings.Join(strings.Fields(subject.String()), " "))
	h.SetMessageID(fmt.Sprintf("%d.%d@%s", now.Unix(), uid, d.Domain))
	h.Set("Auto-Submitted", "auto-generated") // RFC 3834
	h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
	h.Set("Content-Transfer-Encoding", "quoted-printable")
	var out bytes.Buffer
	w, err := mail.CreateSingleInlineWriter(&out, h)
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(strings.ReplaceAll(body.String(), "\r\n", "\n"), "\n", "\r\n")
	if _, err := w.Write([]byte(text)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
