package servers_test

import (
	"crypto/tls"
	"testing"

	"github.com/emersion/go-imap/v2"
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

// Courier has no UIDNEXT in SELECT, no SPECIAL-USE, no MULTIAPPEND and no
// LITERAL+: the tests stand on that.
func TestCourierIsWhatOthersAreNot(t *testing.T) {
	const password = `se"cret`
	s := servers.StartCourier(t, map[string]string{"anna@example.com": password})
	c, err := imapclient.DialInsecure(servers.Address(s.IMAP), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login("anna@example.com", password).Wait(); err != nil {
		t.Fatal(err)
	}
	caps, err := c.Capability().Wait()
	if err != nil {
		t.Fatal(err)
	}
	for _, cap := range []imap.Cap{imap.CapSpecialUse, imap.CapMultiAppend, imap.CapLiteralPlus} {
		if _, has := caps[cap]; has {
			t.Errorf("courier offers %s", cap)
		}
	}
}

// Cyrus with virtual domains, in both of its ways to write names.
func TestCyrusWritesNamesInTwoWays(t *testing.T) {
	for classic, prefix := range map[bool]string{false: "", true: "INBOX."} {
		const password = `a"b\c{d%e:f g ü `
		s := servers.StartCyrus(t, servers.CyrusOptions{Classic: classic})
		s.AddUser("anna@example.com", password)
		c, err := imapclient.DialStartTLS(servers.Address(s.IMAP), &imapclient.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Login("anna@example.com", password).Wait(); err != nil {
			t.Fatal(err)
		}
		ns, err := c.Namespace().Wait()
		if err != nil || ns.Personal[0].Prefix != prefix {
			t.Fatalf("%+v %v", ns, err)
		}
	}
}
