package postgres_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// A heard is what one process heard of the tenants.
type heard struct {
	*postgres.Changes
	tenants chan uuid.UUID
	drops   atomic.Int64
}

func listen(t *testing.T, dsn string) *heard {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{Changes: db.NewChanges(slog.New(slog.DiscardHandler)), tenants: make(chan uuid.UUID, 100)}
	h.Subscribe("tenants", func(tenant, _ uuid.UUID) { h.tenants <- tenant })
	h.OnDrop(func() { h.drops.Add(1) })
	if h.Hearing() {
		t.Error("it hears before it listens")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; db.Close() })
	until(t, "the listener hears", h.Hearing)
	return h
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s in vain: %s", what)
		}
	}
}

func (h *heard) wants(t *testing.T, tenant uuid.UUID) {
	t.Helper()
	select {
	case got := <-h.tenants:
		if got != tenant {
			t.Errorf("heard of %s, want %s", got, tenant)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("never heard of %s", tenant)
	}
}

// Two processes hear of a row that a third party changed. One whose connection
// is cut knows at once that it is deaf, forgets everything when it listens
// again, and hears on.
func TestListener(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	a, b := listen(t, dsn), listen(t, dsn)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	exec := func(sql string, args ...any) int64 {
		t.Helper()
		tag, err := conn.Exec(t.Context(), sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		return tag.RowsAffected()
	}
	tenant := uuid.New()
	exec(`INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, 'T', 'ref', 'wx0000000000000001')`, tenant)
	for _, h := range []*heard{a, b} {
		h.wants(t, tenant)
		if n := h.drops.Load(); n != 1 {
			t.Errorf("everything was forgotten %d times, want once at the start", n)
		}
	}
	for n := int64(2); n < 5; n++ {
		if cut := exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mendian listener' AND datname = current_database()`); cut != 2 {
			t.Fatalf("cut %d listeners", cut)
		}
		for _, h := range []*heard{a, b} {
			until(t, "the process listens again", func() bool { return h.drops.Load() == n })
			until(t, "the process hears again", h.Hearing)
		}
		exec(`UPDATE tenants SET name = name || 'x' WHERE id = $1`, tenant)
		for _, h := range []*heard{a, b} {
			h.wants(t, tenant)
		}
	}
	// A change that is rolled back is none.
	exec(`BEGIN`)
	exec(`UPDATE tenants SET name = 'undone' WHERE id = $1`, tenant)
	exec(`ROLLBACK`)
	exec(`DELETE FROM tenants WHERE id = $1`, tenant)
	for _, h := range []*heard{a, b} {
		h.wants(t, tenant)
		select {
		case <-h.tenants:
			t.Error("heard of a change that never was")
		default:
		}
	}
}
