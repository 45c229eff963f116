package servers_test

import (
	"crypto/tls"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"

	"migproxy/e2e/servers"
)

// The passwords of a real server's users may hold any byte.
func TestDovecotTakesAnyPassword(t *testing.T) {
	d := servers.StartDovecot(t, servers.DovecotOptions{Separator: ".", Prefix: "INBOX."})
	const password = `a"b\c{d%e:f g `
	d.AddUser("anna@example.com", password)
	d.Kill()
	d.Start()
	c, err := imapclient.DialTLS(servers.Address(d.IMAPS), &imapclient.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("anna@example.com", password).Wait(); err != nil {
		t.Fatal(err)
	}
	ns, err := c.Namespace().Wait()
	if err != nil || ns.Personal[0].Prefix != "INBOX." {
		t.Fatalf("%v %v", ns, err)
	}
}
