// Package pgtest gives each test a real PostgreSQL database of its own, with
// the schema that `gateway migrate` makes, so that no test shares rows with
// another one and all of them can run in parallel.
//
// One server serves a whole test binary; package localpg finds or starts it.
// A database is a clone of a template that is migrated once, a few hundredths
// of a second. It must never skip a test because there is no database, and on
// a server that DATABASE_URL names it must never touch a database whose name
// does not begin with mendian_test_.
//
// A package that checks for leaked goroutines has to ignore the one that waits
// for the server: goleak.IgnoreAnyFunction with Waiting.
package pgtest

import (
	"context"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/postgres"
)

// Waiting is the function whose goroutine lives as long as the server.
const Waiting = "github.com/mendian/mendian/internal/localpg.(*process).run"

// New returns a database of the test's own, opened as in production: its
// queries run as mendian_app, bound by row-level security. When the test ends
// it is closed and dropped, and the test fails if a connection of it is still
// in use.
func New(t testing.TB) *postgres.DB {
	t.Helper()
	dsn := DSN(t)
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatalf("open the test's database: %v", err)
	}
	t.Cleanup(func() { closeDB(t, db, 5*time.Second) })
	return db
}

// DSN returns the DSN of a database of the test's own, as the role that owns
// it: for tests that run the built binary or look past row-level security. The
// database is dropped when the test ends, whoever is still connected.
func DSN(t testing.TB) string {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("this test needs PostgreSQL: %v", err)
	}
	// Not the test's own context: a clone that is given up halfway stays behind.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name, err := s.clone(ctx)
	if err != nil {
		t.Fatalf("make the test's database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.drop(ctx, name); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return withDatabase(s.dsn, name)
}

// closeDB waits a little for what the test's end has just cancelled. With a
// connection still out Close would wait forever.
func closeDB(t testing.TB, db *postgres.DB, patience time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(patience); db.InUse() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%d connections were never given back: rows not closed, a transaction left open, or a goroutine that outlives its test", db.InUse())
			go db.Close()
			return
		}
	}
	db.Close()
}
