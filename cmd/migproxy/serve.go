package main

import (
	"context"
	"io"
	"net"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"migproxy/config"
	"migproxy/provision"
)

// gcPercent is how much garbage the server lets gather, in percent of what lives,
// where GOGC says nothing. What it does is mostly waiting for others: with half of
// Go's default, memory at its peak is a tenth less, for hardly more CPU time.
const gcPercent = 50

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
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
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
