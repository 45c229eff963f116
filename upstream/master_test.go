package upstream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"migproxy/config"
)

func TestMasterNames(t *testing.T) {
	anna := config.Identity{Login: "Anna", Local: "anna", Domain: "example.com"}
	for _, c := range []struct {
		name                    string
		creds                   Credentials
		user, authzid, password string
	}{
		{"herself", Credentials{Identity: anna, Authzid: "x", Password: config.NewSecret("own")}, "anna", "x", "own"},
		{"authzid", Credentials{Identity: anna, Password: config.NewSecret("own"),
			Master: &Master{User: "admin", Style: config.MasterAuthzid, Password: config.NewSecret("master")}}, "admin", "anna", "master"},
		{"separator", Credentials{Identity: anna, Authzid: "x",
			Master: &Master{User: "admin", Style: config.MasterSeparator, Password: config.NewSecret("master")}}, "anna*admin", "", "master"},
	} {
		t.Run(c.name, func(t *testing.T) {
			user, authzid, password := c.creds.names("{local}")
			if user != c.user || authzid != c.authzid || password.Reveal() != c.password {
				t.Errorf("got %q, %q, %q", user, authzid, password.Reveal())
			}
		})
	}
}

// The error of a master user without a password names the setting.
func TestMasterPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master")
	cfg := &config.Config{Domains: []config.Domain{{Name: "example.com",
		Source: config.Source{Master: config.Master{User: "admin", PasswordFile: path}}}}}
	for _, c := range []struct{ text, password, wants string }{
		{"", "", "domains: example.com: source.master: password_file: "},
		{" p w\r\n", " p w", ""},
		{"p\n\n", "p\n", ""},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		domains, err := Domains(cfg, zap.NewNop())
		switch {
		case c.wants != "":
			if err == nil || !strings.HasPrefix(err.Error(), c.wants) {
				t.Errorf("%q: %v", c.text, err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.text, err)
		default:
			d := domains["example.com"]
			if d.Source.Master.Password.Reveal() != c.password || d.Target.Master != nil {
				t.Errorf("%q: %+v", c.text, d)
			}
		}
	}
}
