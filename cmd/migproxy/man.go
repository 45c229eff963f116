package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is for `make man`.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages into a directory",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("man: %w; name a directory that may be written", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			escape(root)
			header := &doc.GenManHeader{Section: "8", Source: "migproxy", Manual: "System administration"}
			return doc.GenManTree(root, header, args[0])
		},
	}
}

// escape keeps the backslashes of the commands' texts, which cobra/doc reads as
// Markdown.
func escape(cmd *cobra.Command) {
	cmd.Long = strings.ReplaceAll(cmd.Long, `\`, `\\`)
	for _, c := range cmd.Commands() {
		escape(c)
	}
}
