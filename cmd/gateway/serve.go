package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/handlers"
	"github.com/mendian/mendian/internal/inbox"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/migration"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/reference"
	"github.com/mendian/mendian/internal/rotation"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// garbage is how much of it, in percent of what is in use, lies about before it
// is collected, unless GOGC says otherwise. What is in use is little beside what
// requests leave behind: at Go's own 100 the collector took twice as much of a
// read's CPU time (docs/performance.md).
const garbage = 200

func newServeCmd() *cobra.Command {
	var printConfig bool
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the REST API", Args: cobra.NoArgs,
		Long: `Serves the REST API and WeChat's pushes on GATEWAY_ADDR, and health, metrics and
pprof on GATEWAY_ADMIN_ADDR. Run any number of processes on one database, each
with a GATEWAY_SPOOL_DIR of its own that survives restarts.

SIGTERM drains: no new requests after GATEWAY_DRAIN_DELAY, then what was sent to
WeChat is waited for and committed. A second SIGTERM ends at once; nothing is lost.`,
		Example: "  gateway migrate && gateway serve",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Context())
			if printConfig {
				if perr := printSettings(cmd.OutOrStdout(), cfg); perr != nil {
					return perr
				}
				return err
			}
			if err != nil {
				return err
			}
			lines := observe.NewLines(os.Stderr)
			defer lines.Flush()
			log, err := observe.NewLogger(lines, cfg.LogLevel)
			if err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(garbage)
			}
			return serve(cmd.Context(), cfg, log, nil)
		},
	}
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "show the settings, secrets hidden, and exit")
	return cmd
}

// A gateway is one serving process, assembled.
type gateway struct {
	cfg     config.Config
	log     *slog.Logger
	db      *postgres.DB
	keyset  *secret.Keyset
	spool   *spool.Spool
	changes *postgres.Changes
	metrics *observe.Metrics
	// background runs what goes on beside the requests.
	background *observe.Background
	tenants    *tenant.Tenants
	keys       *tenant.Keys
	wechat     *wechat.Client
	auth       *authorizer.Authorizer
	ledger     *ledger.Ledger
	inbox      *inbox.Inbox
	migrations *migration.Migrations
	rotation   *rotation.Holder
	edge       *handlers.Edge

	replayed atomic.Bool
	draining atomic.Bool
}

// assemble opens everything and starts nothing.
func assemble(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *gateway, err error) {
	if unsafe := cfg.Unsafe(); len(unsafe) > 0 {
		if cfg.Production() {
			return nil, fmt.Errorf("GATEWAY_ENV is production, which refuses: %q", unsafe)
		}
		log.Warn("settings that production refuses", "settings", unsafe)
	}
	g := &gateway{cfg: cfg, log: log, metrics: observe.NewMetrics()}
	g.background = observe.NewBackground(log, g.metrics)
	defer func() {
		if err != nil {
			g.close(ctx)
		}
	}()
	if g.keyset, err = secret.OpenKeyset(cfg.KeysetFile); err != nil {
		return nil, err
	}
	if g.spool, err = spool.Open(cfg.SpoolDir, g.keyset); err != nil {
		return nil, fmt.Errorf("GATEWAY_SPOOL_DIR: %w", err)
	}
	if g.db, err = openMigrated(ctx, postgres.Config{DSN: cfg.DatabaseURL.Reveal(), MaxConns: cfg.DBMaxConns, Split: true}); err != nil {
		return nil, err
	}
	g.changes = g.db.NewChanges(log)
	g.tenants = tenant.New(tenant.Deps{DB: g.db, Keyset: g.keyset, Changes: g.changes, Log: log, Production: cfg.Production(),
		DefaultRate: tenant.RateLimit{PerSecond: cfg.KeyRate, Burst: cfg.KeyBurst}})
	g.keys = tenant.NewKeys(g.tenants)
	g.wechat = wechat.NewClient(cfg.WeChatAPIURL, func(endpoint string, class wechat.Class, took time.Duration) {
		g.metrics.UpstreamObserved(endpoint, class.String(), took)
	})
	g.auth = authorizer.New(authorizer.Deps{DB: g.db, Keyset: g.keyset, Tenants: g.tenants, WeChat: g.wechat, Changes: g.changes, Spool: g.spool, Log: log, Background: g.background,
		Metrics: authorizer.Metrics{
			TokenRefreshed: g.metrics.TokenRefreshed,
			CircuitChanged: g.metrics.CircuitChanged,
			ReadRetried:    g.metrics.ReadRetried,
			TicketReceived: func(t uuid.UUID, _ time.Duration) { g.metrics.TicketAge(t.String(), 0) },
		},
		Config: authorizer.Config{PublicURL: cfg.PublicURL, MPURL: cfg.WeChatMPURL, OpenURL: cfg.WeChatOpenURL, Instance: g.spool.Instance(), Remembered: cfg.CachedMerchants, Pace: schedule().Polls}})
	g.ledger = ledger.New(ledger.Deps{DB: g.db, Keyset: g.keyset, Authorizer: g.auth, Spool: g.spool, Changes: g.changes,
		Schedule: schedule(), Log: log, Background: g.background})
	g.inbox = inbox.New(inbox.Deps{DB: g.db, Keyset: g.keyset, Spool: g.spool, Tenants: g.tenants, Authorizer: g.auth, Ledger: g.ledger, Metrics: g.metrics, Background: g.background, Log: log})
	g.migrations = migration.New(migration.Deps{DB: g.db, Authorizer: g.auth, Ledger: g.ledger, Background: g.background, Log: log,
		Instance: g.spool.Instance(), Pace: schedule().Polls})
	g.rotation = &rotation.Holder{DB: g.db, Keyset: g.keyset, Spool: g.spool, Log: log}
	g.edge, err = g.newEdge()
	return g, err
}

func (g *gateway) newEdge() (*handlers.Edge, error) {
	server := handlers.NewServer(handlers.Deps{Tenants: g.tenants, Keys: g.keys, Authorizer: g.auth, Ledger: g.ledger, Inbox: g.inbox, Migrations: g.migrations, DB: g.db,
		Reference: reference.New(g.auth), Keyset: g.keyset, Log: g.log, PublicURL: g.cfg.PublicURL})
	var trusted []netip.Prefix
	for _, p := range g.cfg.TrustedProxy {
		trusted = append(trusted, netip.MustParsePrefix(p)) // validated
	}
	return handlers.New(handlers.Config{
		Server: server, Authenticate: g.keys.Authenticate, Public: server.Public, Ready: g.ready, Log: g.log, Metrics: g.metrics,
		PublicURL: g.cfg.PublicURL, AllowedOrigin: server.AllowedOrigin, LocalhostOrigins: g.cfg.CORSLocalhost, TrustedProxies: trusted, Docs: g.cfg.Docs,
		KeyRate: tenant.RateLimit{PerSecond: g.cfg.KeyRate, Burst: g.cfg.KeyBurst}, TenantRate: g.cfg.TenantRate, MaxInFlight: g.cfg.MaxInFlight,
	})
}

// ready says why this process should get no traffic.
func (g *gateway) ready(ctx context.Context) error {
	switch {
	case g.draining.Load():
		return errors.New("shutting down")
	case !g.replayed.Load():
		return errors.New("the spool is being replayed")
	}
	if err := g.spool.Ready(); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	// As a push would ask: that requests use up their connections is no reason
	// to send everybody to the other replicas.
	ctx, cancel := context.WithTimeout(postgres.Using(ctx, postgres.Pushes), 2*time.Second)
	defer cancel()
	return g.db.CheckRole(ctx)
}

// close gives everything up, in the order that loses nothing.
func (g *gateway) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if g.ledger != nil {
		g.ledger.Close(ctx)
	}
	if g.auth != nil {
		g.auth.Close()
	}
	if g.keys != nil {
		g.keys.FlushUsed(ctx)
	}
	if g.spool != nil {
		if err := g.spool.Close(); err != nil {
			g.log.Error("close the spool", "err", err)
		}
	}
	if g.wechat != nil {
		g.wechat.Close()
	}
	if g.db != nil {
		g.db.Close()
	}
}

// serve runs a gateway until ctx ends. started, if not nil, is called once it
// is ready, with the address it listens on.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger, started func(*gateway, net.Addr)) error {
	g, err := assemble(ctx, cfg, log)
	if err != nil {
		return err
	}
	// What goes on beside the requests ends after them.
	life, end := context.WithCancel(postgres.Using(context.WithoutCancel(ctx), postgres.Workers))
	var background sync.WaitGroup
	defer func() {
		end()
		background.Wait()
		g.close(ctx)
	}()
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return fmt.Errorf("GATEWAY_ADDR: %w", err)
	}
	adminLn, err := net.Listen("tcp", cfg.AdminAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("GATEWAY_ADMIN_ADDR: %w", err), ln.Close())
	}
	public := handlers.NewHTTPServer(cfg.Addr, g.edge)
	admin := &http.Server{Handler: observe.AdminHandler(g.metrics, g.ready), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- admin.Serve(adminLn) }()
	log.Info("listening", "addr", ln.Addr().String(), "admin_addr", adminLn.Addr().String(), "instance", g.spool.Instance(), "version", currentVersion().Version)
	defer admin.Close()

	background.Go(func() { g.keep(life, "hear changes", endless(g.changes.Run)) })
	if err := g.rotation.Check(ctx); err != nil {
		return errors.Join(fmt.Errorf("GATEWAY_KEYSET_FILE: %w", err), public.Close())
	}
	if err := g.ledger.Replay(ctx, g.inbox.Left); err != nil {
		return errors.Join(fmt.Errorf("replay the spool: %w", err), public.Close())
	}
	if err := g.rotation.Hold(ctx); err != nil { // after the spool was read
		return errors.Join(fmt.Errorf("hold the keyset: %w", err), public.Close())
	}
	g.replayed.Store(true)
	// Not before: what is accepted now must not be taken for what an earlier
	// process left. Until then connections wait in the listener's queue.
	go func() { failed <- public.Serve(ln) }()
	background.Go(func() { g.keep(life, "note used keys", endless(g.keys.Run)) })
	for _, job := range g.jobs() {
		background.Go(func() { job.run(life, g.background) })
	}
	fault.At("before_workers")
	// Requests are under way: should the database go away at this moment, they
	// must not go along.
	background.Go(func() { g.keep(life, "apply pushes", g.inbox.Work) })
	log.Info("ready")
	if started != nil {
		started(g, ln.Addr())
	}

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	return g.drain(public)
}

// sayNo is how long who is still connected is told shutting_down, before
// net/http begins to cut connections off without a word.
const sayNo = 250 * time.Millisecond

// drain is design reliability.md §11: say no, let what runs end, commit.
func (g *gateway) drain(public *http.Server) error {
	again, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	g.log.Info("shutting down")
	g.draining.Store(true)
	select {
	case <-again.Done():
	case <-time.After(g.cfg.DrainDelay): // load balancers notice /readyz
	}
	g.edge.Stop()
	select {
	case <-again.Done():
	case <-time.After(sayNo):
	}
	ctx, cancel := context.WithTimeout(again, 15*time.Second)
	defer cancel()
	err := public.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		g.log.Warn("some requests were not waited for; what they sent is committed or taken over")
		err = public.Close()
	}
	if again.Err() != nil {
		// Asked for twice: that it wasn't waited for is no error.
		g.log.Warn("ended at once; what is open is taken over at the next start")
		return public.Close()
	}
	return err
}
