package postgres_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// Somebody commits between two readings: those of a snapshot agree
// nevertheless, those of an ordinary batch need not.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tenant := uuid.New()
	inTenant := func(fn func(postgres.DBTX) error) {
		t.Helper()
		if err := db.InTenant(t.Context(), tenant, fn); err != nil {
			t.Error(err)
		}
	}
	inTenant(func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, 'before', 'ref', 'wx00000000000000aa')`, tenant)
		return err
	})
	const lock = 20261122
	for _, c := range []struct {
		name  string
		start func(uuid.UUID) *postgres.Batch
		want  [2]string
	}{
		{"batch", db.NewBatch, [2]string{"before", "batch"}},
		{"snapshot", db.NewSnapshot, [2]string{"batch", "batch"}},
	} {
		type id struct{ ID uuid.UUID }
		var got [2]string
		b := c.start(tenant)
		read := func(into *string) {
			b.QueueRows(`SELECT name FROM tenants WHERE id = $1`, id{tenant}, func(rows pgx.Rows) (err error) {
				*into, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
				return err
			})
		}
		read(&got[0])
		b.Queue(`SELECT pg_advisory_xact_lock($1)`, struct{ Key int }{lock})
		read(&got[1])
		done := make(chan error, 1)
		inTenant(func(tx postgres.DBTX) error {
			if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, lock); err != nil {
				return err
			}
			go func() { done <- db.Run(t.Context(), b) }()
			for waits := 0; waits == 0; {
				if err := t.Context().Err(); err != nil {
					return err
				}
				<-time.After(time.Millisecond)
				if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1`, lock).Scan(&waits); err != nil {
					return err
				}
			}
			_, err := tx.Exec(t.Context(), `UPDATE tenants SET name = $2 WHERE id = $1`, tenant, c.name)
			return err
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got != c.want {
			t.Errorf("%s read %q, want %q", c.name, got, c.want)
		}
	}
	// A reading that fails leaves no connection in its transaction.
	b := db.NewSnapshot(tenant)
	b.Queue(`SELECT 1 / $1::int`, struct{ N int }{0})
	if err := db.Run(t.Context(), b); !postgres.IsCode(err, "22012") {
		t.Errorf("division by zero: %v", err)
	}
	inTenant(func(postgres.DBTX) error { return nil })
}
