package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/localpg"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
)

// A devCommand is `gateway dev` with its flags.
type devCommand struct {
	addr, sandboxAddr, adminAddr string
	data                         string
	ephemeral, verbose           bool
	auditDelay                   time.Duration
	out                          io.Writer
}

func newDevCmd() *cobra.Command {
	var d devCommand
	cmd := &cobra.Command{
		Use: "dev", Short: "Run everything on this machine: Postgres, the simulator of WeChat, the gateway, a demo tenant", Args: cobra.NoArgs,
		Long: `Starts a PostgreSQL of its own, the simulator of WeChat and the gateway, makes a
demo tenant with four merchants, and a fifth whose stores wait for migration,
and prints a key and a first call to try.

PostgreSQL is, in this order: DATABASE_URL if set; installed server binaries,
version 15 or newer; Docker if a daemon answers; a download of server binaries.
GATEWAY_POSTGRES=local|docker|download forces one.

Data is kept over Ctrl-C and restarts unless --ephemeral is given.
Everything about WeChat here is simulated.`,
		Example: "  gateway dev\n  gateway dev --addr :9000 --ephemeral\n  gateway dev reset",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out = cmd.OutOrStdout()
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.addr, "addr", ":8080", "address of the REST API")
	f.StringVar(&d.sandboxAddr, "sandbox-addr", ":8081", "address of the simulator of WeChat")
	f.StringVar(&d.adminAddr, "admin-addr", "127.0.0.1:9090", "address of health, metrics and pprof")
	f.BoolVar(&d.ephemeral, "ephemeral", false, "keep nothing: a new database and simulator each time")
	f.BoolVar(&d.verbose, "verbose", false, "write the gateway's log to the terminal instead of a file")
	f.DurationVar(&d.auditDelay, "audit-delay", 5*time.Second, "how long the simulated WeChat takes over a store's audit")
	cmd.PersistentFlags().StringVar(&d.data, "data", "", "directory that keeps everything (default: one of your own, which the start names)")
	cmd.AddCommand(&cobra.Command{
		Use: "reset", Short: "Remove the kept data", Args: cobra.NoArgs,
		Long:    "Removes what `gateway dev`, started in this directory, has kept. It refuses while one is running.",
		Example: "  gateway dev reset",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out = cmd.OutOrStdout()
			return d.reset()
		},
	})
	return cmd
}

// directories are where Postgres's and everything else's data lie.
func (d *devCommand) directories() (pg, own string, err error) {
	if d.data != "" {
		data, err := filepath.Abs(d.data)
		return filepath.Join(data, "postgres"), filepath.Join(data, "gateway"), err
	}
	if pg, err = localpg.DefaultDataDir("postgres"); err != nil {
		return "", "", err
	}
	own, err = localpg.DefaultDataDir("gateway")
	return pg, own, err
}

func (d *devCommand) reset() error {
	pg, own, err := d.directories()
	if err != nil {
		return err
	}
	release, err := holdDirectory(own)
	if err != nil {
		return err
	}
	defer release()
	if err := errors.Join(os.RemoveAll(pg), os.RemoveAll(own)); err != nil {
		return err
	}
	// Left by an earlier run, it would name a database that is gone.
	if err := os.Remove(".env.dev"); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	fmt.Fprintf(d.out, "removed %s and %s\n", pg, own)
	return nil
}

func (d *devCommand) run(ctx context.Context) (err error) {
	start := time.Now()
	if err := d.takePorts(); err != nil {
		return err
	}
	pgDir, own := "", ""
	if d.ephemeral {
		if own, err = os.MkdirTemp("", "mendian-dev-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(own)) }()
	} else if pgDir, own, err = d.directories(); err != nil {
		return err
	}
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	release, err := holdDirectory(own)
	if err != nil {
		return err
	}
	defer release()
	log, logPlace, err := d.logger(own)
	if err != nil {
		return err
	}

	pg, err := localpg.Start(ctx, localpg.Options{DataDir: pgDir, Durable: !d.ephemeral, Logf: func(format string, args ...any) {
		fmt.Fprintf(d.out, format+"\n", args...)
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	cfg, err := d.config(ctx, pg.DSN(), own)
	if err != nil {
		return err
	}
	if err := migrate(ctx, cfg, log); err != nil {
		return err
	}

	// The simulator outlives the gateway, which may be waiting for an answer.
	simCtx, endSim := context.WithCancel(context.WithoutCancel(ctx))
	defer endSim()
	ln, err := net.Listen("tcp", d.sandboxAddr)
	if err != nil {
		return fmt.Errorf("--sandbox-addr: %w", err)
	}
	simState := filepath.Join(own, "sandbox.state")
	if d.ephemeral {
		simState = ""
	}
	simDone := make(chan error, 1)
	go func() {
		simDone <- runSandbox(simCtx, ln, sandbox.Config{Addr: d.sandboxAddr, BaseURL: cfg.WeChatAPIURL, StateFile: simState, AuditDelay: d.auditDelay, Logger: log})
	}()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	seeded := make(chan error, 1)
	err = serve(ctx, cfg, log, func(g *gateway, _ net.Addr) {
		go func() {
			err := d.welcome(ctx, g, cfg, own, pg.Describe(), logPlace, start)
			if err != nil {
				stop()
			}
			seeded <- err
		}()
	})
	endSim()
	err = errors.Join(err, <-simDone)
	select {
	case serr := <-seeded:
		if serr != nil && !errors.Is(serr, context.Canceled) {
			err = errors.Join(fmt.Errorf("make the demo: %w", serr), err)
		}
	default:
	}
	return err
}

// takePorts refuses early, naming the flag, and turns port 0 into one that is free.
func (d *devCommand) takePorts() error {
	for _, p := range []struct {
		flag string
		addr *string
	}{{"--addr", &d.addr}, {"--sandbox-addr", &d.sandboxAddr}, {"--admin-addr", &d.adminAddr}} {
		ln, err := net.Listen("tcp", *p.addr)
		if err != nil {
			return fmt.Errorf("%s is taken or can't be listened on; choose another with %s HOST:PORT (%w)", *p.addr, p.flag, err)
		}
		// Kept open until all three are known, so that no two get the same.
		defer ln.Close()
		*p.addr = ln.Addr().String()
	}
	return nil
}

func (d *devCommand) logger(own string) (*slog.Logger, string, error) {
	if d.verbose {
		log, err := observe.NewLogger(os.Stderr, "info")
		return log, "this terminal", err
	}
	path := filepath.Join(own, "gateway.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, "", err
	}
	log, err := observe.NewLogger(f, "info")
	return log, path, err
}

// config is what a gateway is told here; the environment counts for nothing
// but what is not set below.
func (d *devCommand) config(ctx context.Context, dsn, own string) (config.Config, error) {
	cfg, err := config.Load(ctx, func(string) (string, bool) { return "", false })
	if err != nil {
		return cfg, err
	}
	simulator := "http://" + reachableText(d.sandboxAddr)
	cfg.DatabaseURL = secret.NewText(dsn)
	cfg.Env = "development"
	cfg.Addr, cfg.AdminAddr = d.addr, d.adminAddr
	cfg.PublicURL = "http://" + reachableText(d.addr)
	cfg.WeChatAPIURL, cfg.WeChatMPURL, cfg.WeChatOpenURL = simulator, simulator, simulator
	cfg.KeysetFile, cfg.SpoolDir = filepath.Join(own, "keyset.json"), filepath.Join(own, "spool")
	cfg.DrainDelay = 0
	cfg.CORSLocalhost = true
	return cfg, nil
}

func reachableText(addr string) string {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return addr
	}
	return reachable(a)
}

// quote writes s for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
