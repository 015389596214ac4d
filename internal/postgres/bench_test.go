package postgres_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// A query of a tenant in a transaction.
func BenchmarkInTenant(b *testing.B) {
	db := pgtest.New(b)
	tenant := uuid.New()
	b.ReportAllocs()
	for b.Loop() {
		err := db.InTenant(b.Context(), tenant, func(tx postgres.DBTX) error {
			_, err := tx.Exec(b.Context(), "SELECT name FROM tenants WHERE id = $1", tenant)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
