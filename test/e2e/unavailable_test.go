package e2e

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/test/world"
)

// Each way in which a gateway can't serve a request that is as it should be:
// 503, and when to come again.

// More at the same time than the process takes.
func TestOverload(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(map[string]string{"GATEWAY_MAX_IN_FLIGHT": "1"})
	c := w.Demo(g)
	w.Fault("wxa/get_store_list", 1, map[string]any{"delay_ms": 2000})
	slow := c.Begin("GET", "/v1/stores?source=live", nil)
	w.Eventually("the gateway is full", func() error {
		a := c.Do("GET", "/v1/me", nil)
		if a.Code() != "overloaded" || a.Status != 503 || a.Header.Get("Retry-After") == "" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	slow().Want(200)
	c.Do("GET", "/v1/me", nil).Want(200)
}

// A process that is told to end says so to who is still connected, and ends.
func TestShutdown(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	c.Do("GET", "/v1/me", nil).Want(200)
	g.Signal(syscall.SIGTERM)
	w.Eventually("it says so", func() error {
		a := c.Do("GET", "/v1/me", nil)
		if a.Code() != "shutting_down" || a.Status != 503 || a.Header.Get("Retry-After") != "1" {
			return fmt.Errorf("%d %v %s", a.Status, a.Header, a.Body)
		}
		return nil
	})
	g.WaitExit(20 * time.Second)
	if g.ExitCode() != 0 {
		t.Errorf("exit code %d", g.ExitCode())
	}
}

// The database is away: 503, nothing is sent to WeChat, and it goes on when
// the database is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	store := w.NewStore(1)
	allow := func(yes bool) {
		cfg, err := pgx.ParseConfig(w.DSN)
		if err != nil {
			t.Fatal(err)
		}
		name := cfg.Database
		cfg.Database = "postgres"
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS %t`, pgx.Identifier{name}.Sanitize(), yes)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name); err != nil {
			t.Fatal(err)
		}
	}
	warm := func() {
		for _, path := range []string{liveStores, "/v1/districts?level=province"} {
			c.Do("GET", path, nil).Want(200)
		}
	}
	w.Eventually("these reads need no database", func() error {
		due := w.Row(`SELECT count(*) AS n FROM merchants WHERE inventory_due_at <= now() + interval '1 minute'`)["n"]
		before := g.Metric("mendian_database_round_trips_total")
		warm()
		if after := g.Metric("mendian_database_round_trips_total"); after != before || due != int64(0) {
			return fmt.Errorf("%v round trips, %v comparisons with WeChat due", after-before, due)
		}
		return nil
	})
	allow(false)
	warm()
	if a := c.Do("GET", "/v1/stores", nil).WantProblem(503, "storage_unavailable"); a.Header.Get("Retry-After") == "" || a.Get("retryable") != "true" {
		t.Errorf("%v %s", a.Header, a.Body)
	}
	c.Do("POST", "/v1/stores", store).WantProblem(503, "storage_unavailable")
	c.Do("POST", "/v1/stores?validate_only=true", store).WantProblem(503, "storage_unavailable")
	if n := len(w.Journal("wxa/add_store")); n != 0 {
		t.Errorf("WeChat was asked %d times for what could not be recorded", n)
	}
	if resp, err := http.Get(g.URL + "/readyz"); err != nil || resp.StatusCode != 503 {
		t.Errorf("readyz: %v %v", resp, err)
	}
	allow(true)
	w.Eventually("it works again", func() error {
		if a := c.Do("POST", "/v1/stores", store); a.Status != 202 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	g.WaitReady()
}
