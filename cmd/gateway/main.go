// Command gateway is Mendian: the REST gateway, its simulator of WeChat, and
// the commands that set both up. `gateway help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "gateway: "+plain(err))
	os.Exit(1)
}

// plain is an error as a person at a terminal should read it.
func plain(err error) string {
	if errors.Is(err, secret.ErrSealed) {
		return secret.ErrSealed.Error()
	}
	p, ok := problem.As(err)
	if !ok {
		return err.Error()
	}
	title, detail := problem.Text(p.Code, "en")
	if p.Detail != "" {
		detail = p.Detail
	}
	text := title + " " + detail + " [" + p.Code + "]"
	for _, f := range p.Fields {
		text += "\n  " + f.Pointer + ": " + f.Detail
	}
	if p.Err != nil && p.Kind == problem.Internal {
		text += "\n  " + p.Err.Error()
	}
	return text
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "gateway",
		Short: "A REST gateway for WeChat third-party platforms",
		Long: `Mendian manages the stores, map locations and live-broadcast goods of WeChat
merchants through a clean JSON REST API.

Settings are environment variables (docs/reference/configuration.md); each has a
twin that ends in _FILE and names a file to read it from.

To try it without anything installed:  gateway dev`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; see gateway help", args[0])
			}
			return cmd.Help()
		},
	}
	root.AddCommand(newServeCmd(), newDevCmd(), newSandboxCmd(), newMigrateCmd(), newTenantCmd(), newKeyCmd(), newKeysetCmd(), newDoctorCmd(), newErrorsCmd(), newVersionCmd())
	return root
}
