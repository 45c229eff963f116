// Command migproxy is an IMAP and POP3 login proxy that moves mailboxes from
// an old server to a new one at their owners' first login.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"migproxy/admin"
	"migproxy/config"
)

// The exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a wrong use of the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and gives its exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	running := false
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// What cobra refuses before this is a wrong command line.
	root.PersistentPreRun = func(*cobra.Command, []string) { running = true }
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var usage usageError
	if errors.As(err, &usage) || !running {
		fmt.Fprintf(stderr, "migproxy: %s; see `migproxy help`\n", printable(err.Error()))
		return exitUsage
	}
	// An error may be several, such as all that is wrong with the settings.
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "migproxy: %s\n", printable(line))
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:                "migproxy",
		Short:              "An IMAP and POP3 login proxy that moves mailboxes at their owners' first login",
		SilenceUsage:       true,
		SilenceErrors:      true,
		DisableSuggestions: true,
		RunE:               commandMissing,
	}
	var configFile string
	root.PersistentFlags().StringVar(&configFile, "config", "", "the settings `file`")
	load := func() (*config.Config, error) {
		if configFile == "" {
			return nil, usageError{"name the settings file with --config"}
		}
		return config.Load(configFile, os.Environ())
	}
	connect := func() (*admin.Client, error) {
		cfg, err := load()
		if err != nil {
			return nil, err
		}
		return admin.NewClient(cfg.Admin.Socket), nil
	}
	root.AddCommand(
		newServe(load), newCheck(load), newDemo(),
		newSwitch(connect, true), newSwitch(connect, false), newWave(load, connect), newMigrate(load, connect), newComplete(connect), newStatus(connect),
		newAccounts(connect), newAccount(connect), newAliases(connect), newVerify(connect), newLog(connect),
		newVersion(), newMan(),
	)
	return root
}

// loader reads the settings; connector prepares to ask the running server.
type (
	loader    func() (*config.Config, error)
	connector func() (*admin.Client, error)
)

// offer has the shell complete a flag by one of these values.
func offer(cmd *cobra.Command, flag string, values ...string) {
	// Cannot fail: it is called once, where the flag was made.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func commandMissing(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+args[0])}
	}
	return usageError{"name a command"}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "migproxy %s %s\n", version(), runtime.Version())
			return err
		},
	}
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
