package isolation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/postgres"
)

// What holds tenants apart is guarded twice: each query's predicate, and
// row-level security. Here is what takes one of them away, or both, and the
// proof that it is gone.

var predicate = regexp.MustCompile(`(?:\w+\.)?tenant_id = (\$\d+)`)

// withoutPredicates takes the tenant's predicate out of a query and leaves its
// argument in.
func withoutPredicates(sql string) string {
	return predicate.ReplaceAllString(sql, "($1::uuid IS NOT NULL)")
}

// bypassingRole makes a role that row-level security does not bind, with the
// rights of the serving role.
func (w *two) bypassingRole(t *testing.T) string {
	t.Helper()
	suffix := make([]byte, 6)
	_, _ = rand.Read(suffix) // never fails
	name := "mendian_test_bypass_" + hex.EncodeToString(suffix)
	w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE ROLE `+name+` NOLOGIN BYPASSRLS IN ROLE `+postgres.AppRole)
		if !postgres.IsCode(err, "42501") {
			return err
		}
		// Only a superuser gives that attribute. A policy that lets all rows
		// through has the same effect.
		if _, err := conn.Exec(ctx, `CREATE ROLE `+name+` NOLOGIN IN ROLE `+postgres.AppRole); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, `DO $$ BEGIN EXECUTE format('GRANT `+name+` TO %I', current_user); EXCEPTION WHEN OTHERS THEN NULL; END $$`); err != nil {
			return err
		}
		for _, table := range w.tenantTables(t) {
			if _, err := conn.Exec(ctx, `CREATE POLICY everything ON `+table+` TO `+name+` USING (true) WITH CHECK (true)`); err != nil {
				return err
			}
		}
		return nil
	})
	t.Cleanup(func() {
		w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `DROP OWNED BY `+name+`; DROP ROLE `+name)
			return err
		})
	})
	return name
}

// prove shows that the guards that should be off are off, and the others on:
// as tenant B, one query without a predicate, and one whose predicate names
// nobody.
func (w *two) prove(t *testing.T, db *postgres.DB, noPolicy, noSQL bool) {
	t.Helper()
	count := func(sql string, args ...any) (n int) {
		t.Helper()
		err := db.InTenant(t.Context(), w.b.id, func(tx postgres.DBTX) error { return tx.QueryRow(t.Context(), sql, args...).Scan(&n) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(`SELECT count(*) FROM resources WHERE tenant_id <> current_tenant()`); (n > 0) != noPolicy {
		t.Fatalf("a query without a predicate shows tenant B %d stores of A; row-level security off: %v", n, noPolicy)
	}
	if n := count(`SELECT count(*) FROM resources WHERE tenant_id = $1`, uuid.New()); (n > 0) != noSQL {
		t.Fatalf("a query for nobody's stores shows %d; predicates off: %v", n, noSQL)
	}
	if n := count(`SELECT count(*) FROM resources WHERE tenant_id = $1`, w.a.id); (n > 0) != (noSQL || noPolicy) {
		t.Fatalf("a query for A's stores shows tenant B %d; predicates off: %v, row-level security off: %v", n, noSQL, noPolicy)
	}
}
