package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/sandbox"
)

func newSandboxCmd() *cobra.Command {
	var c sandbox.Config
	cmd := &cobra.Command{
		Use: "sandbox", Short: "Run the simulator of WeChat on its own", Args: cobra.NoArgs,
		Long: `A stateful simulator of WeChat's third-party platform: tickets, tokens, the
authorisation page, stores, audits, encrypted pushes, and a control API at
/_sandbox/ (internal/sandbox/README.md). Point a gateway at it with
GATEWAY_WECHAT_API_URL, GATEWAY_WECHAT_MP_URL and GATEWAY_WECHAT_OPEN_URL.

It guards nothing: keep it away from strangers.`,
		Example: "  gateway sandbox --addr 127.0.0.1:8081 --state sandbox.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
			ln, err := net.Listen("tcp", c.Addr)
			if err != nil {
				return fmt.Errorf("--addr: %w", err)
			}
			if c.BaseURL == "" {
				c.BaseURL = "http://" + reachable(ln.Addr())
			}
			fmt.Fprintf(cmd.OutOrStdout(), "sandbox on %s\n", c.BaseURL)
			return runSandbox(cmd.Context(), ln, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Addr, "addr", "127.0.0.1:8081", "listen address")
	f.StringVar(&c.BaseURL, "url", "", "what browsers and the gateway call it (default http:// and the address)")
	f.StringVar(&c.StateFile, "state", "", "file that keeps the state over restarts (default: memory only)")
	f.DurationVar(&c.TicketInterval, "ticket-interval", 10*time.Second, "time between two pushed tickets")
	f.DurationVar(&c.AuditDelay, "audit-delay", 5*time.Second, "virtual time until a store's audit is decided")
	f.Int64Var(&c.Seed, "seed", 0, "makes issued ids repeat from run to run (0: random)")
	return cmd
}

// runSandbox serves until ctx ends.
func runSandbox(ctx context.Context, ln net.Listener, c sandbox.Config) error {
	s, err := sandbox.New(c)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer s.Close()
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(ln) }()
	go func() { failed <- s.Run(ctx) }()
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	// Its clients hold long-poll-free connections: nothing is worth waiting for.
	if cerr := server.Close(); err == nil || errors.Is(err, http.ErrServerClosed) {
		err = cerr
	}
	return err
}

// reachable is the address that a client on this machine dials.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
