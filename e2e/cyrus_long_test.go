//go:build long

package e2e

import (
	"testing"

	"migproxy/e2e/servers"
)

func TestMoveFromCourierToCyrus(t *testing.T) {
	source := servers.StartCourier(t, map[string]string{user: password})
	moveToCyrus(t, endpoint{imap: source.IMAP, pop3: source.POP3, tls: "none"}, "INBOX.", ".")
}
