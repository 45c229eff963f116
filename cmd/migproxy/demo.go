package main

import (
	"context"
	"net"
	"os"

	"github.com/spf13/cobra"

	"migproxy/cmd/migproxy/internal/demo"
	"migproxy/config"
	"migproxy/provision"
)

func newDemo() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a move: an old server with mail, a new one and the proxy between them, all embedded",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), demo.Options{Once: once, Out: os.Stdout,
				Serve: func(ctx context.Context, cfg *config.Config, drivers map[string]provision.Driver, ready func()) error {
					return serve(ctx, cfg, cmd.ErrOrStderr(), drivers, func([]net.Addr) { ready() })
				}})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the show")
	return cmd
}
