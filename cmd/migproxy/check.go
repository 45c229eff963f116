package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/upstream"
)

// probeTimeout bounds the probe of one server.
const probeTimeout = 20 * time.Second

// capabilityNames are those that matter to a move.
var capabilityNames = []string{"UIDPLUS", "MULTIAPPEND", "LITERAL+", "SPECIAL-USE", "NAMESPACE", "ID", "IDLE", "XCLIENT"}

func newCheck(load loader) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the settings, probe every server and say what will and will not be kept",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			return check(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
}

// finding is what was found out about one server.
type finding struct {
	domain   *config.Domain
	side     string // source or target
	protocol config.Protocol
	server   *upstream.Server
	settings *config.Server
	probe    upstream.Probe
	err      error
	// loggedIn is set where the capabilities after a login are known; loginErr
	// where the migration account of parking could not be logged in.
	loggedIn []string
	loginErr error
	// master may log in for every user; nil where the settings name none.
	master *upstream.Master
	trial  *trial // of a target's IMAP; nil where it could not be tried
}

func (f *finding) name() string { return f.side + " " + string(f.protocol) }

// has says whether the server shows a capability; before a login a no means
// little, since many servers show the rest only then.
func (f *finding) has(capability string) bool {
	return slices.Contains(f.probe.Capabilities, capability) || slices.Contains(f.loggedIn, capability)
}

func check(ctx context.Context, cfg *config.Config, out io.Writer) error {
	domains, err := upstream.Domains(cfg, zap.NewNop())
	if err != nil {
		return err
	}
	if _, err := drivers(cfg); err != nil {
		return err
	}
	if _, err := aliasRules(cfg); err != nil {
		return err
	}
	findings := servers(cfg, domains)
	var all sync.WaitGroup
	for _, f := range findings {
		all.Go(func() { probe(ctx, f) })
	}
	all.Wait()
	if err := writeFindings(out, findings); err != nil {
		return err
	}
	unusable := 0
	for _, f := range findings {
		if f.err != nil || f.loginErr != nil {
			unusable++
		}
	}
	if unusable > 0 {
		return fmt.Errorf("%d of %d servers cannot be used as the settings say; see the notes", unusable, len(findings))
	}
	return nil
}

// servers lists every server of the settings.
func servers(cfg *config.Config, domains map[string]*upstream.Domain) (all []*finding) {
	for i := range cfg.Domains {
		c := &cfg.Domains[i]
		d := domains[c.Name]
		for _, f := range []*finding{
			{domain: c, side: "source", protocol: config.IMAP, server: d.Source.IMAP, settings: c.Source.IMAP},
			{domain: c, side: "source", protocol: config.POP3, server: d.Source.POP3, settings: c.Source.POP3},
			{domain: c, side: "target", protocol: config.IMAP, server: d.Target.IMAP, settings: c.Target.IMAP, master: d.Target.Master},
			{domain: c, side: "target", protocol: config.POP3, server: d.Target.POP3, settings: c.Target.POP3},
		} {
			if f.server != nil {
				all = append(all, f)
			}
		}
	}
	return all
}

// probe asks one server. The target's IMAP is logged in to as well where the
// settings name an account for that, the migration account of parking, and tried
// with test messages there.
func probe(ctx context.Context, f *finding) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if f.probe, f.err = f.server.Probe(ctx); f.err != nil {
		return
	}
	parking := f.domain.Parking
	if f.side != "target" || f.protocol != config.IMAP {
		return
	}
	if parking.Mode == config.ParkAccount {
		f.loggedIn, f.loginErr = capabilitiesOf(ctx, f.server, parking)
	}
	if f.loginErr == nil {
		f.trial = try(ctx, f.server, parking, f.master)
	}
}

func capabilitiesOf(ctx context.Context, server *upstream.Server, parking config.Parking) ([]string, error) {
	password, err := config.ReadPassword(parking.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("parking.password_file: %w", err)
	}
	local, domain, _ := strings.Cut(parking.Account, "@")
	session, err := server.Login(ctx, upstream.Credentials{
		Identity: config.Identity{Login: parking.Account, Local: local, Domain: domain},
		Password: password,
	}, upstream.Client{})
	if err != nil {
		return nil, fmt.Errorf("parking.account %s: %w", parking.Account, err)
	}
	defer func() { _ = session.Conn.Close() }()
	if err := session.Conn.SetDeadline(time.Now().Add(probeTimeout)); err == nil {
		_, _ = io.WriteString(session.Conn, "bye LOGOUT\r\n") // a courtesy: the connection ends anyway
	}
	return session.Capabilities, nil
}
