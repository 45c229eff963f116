package main

import (
	"context"
	"io"
	"net"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/provision"
)

func newServe(load loader) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve clients and move their mailboxes, until SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			// The database, the key and the log are nobody else's business.
			syscall.Umask(0o077)
			return serve(cmd.Context(), cfg, cmd.ErrOrStderr(), nil, nil)
		},
	}
}

// serve runs migproxy with its log where the settings say. ready may be nil;
// drivers (by domain) are those of the settings where it is nil.
func serve(ctx context.Context, cfg *config.Config, stderr io.Writer, drivers map[string]provision.Driver, ready func([]net.Addr)) error {
	log, closeLog, err := newLogger(cfg.Log, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	err = run(ctx, runOptions{Config: cfg, Log: log, Drivers: drivers, Ready: ready})
	if err != nil && cfg.Log.File != "" {
		// Without a file the error is seen as the command's own, on standard error.
		log.Error("migproxy ended", zap.Error(err))
	}
	return err
}
