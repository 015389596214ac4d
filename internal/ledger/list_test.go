package ledger

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
)

// A connection keeps the plan of a page of our records. What is planned while
// there is nothing, and Postgres knows it, must still do when there is much.
func TestPageIsPlannedByIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.merchant
	var plan []string
	err := b.db.InTenant(t.Context(), m.TenantID, func(tx postgres.DBTX) error {
		for _, sql := range []string{
			`SET LOCAL ROLE NONE`, `ANALYZE resources`, `ANALYZE audits`, `SET LOCAL ROLE ` + postgres.AppRole, `SET LOCAL plan_cache_mode = force_generic_plan`,
			`PREPARE page (uuid, uuid, text, uuid, int) AS ` + dbsqlc.ResourcePage,
		} {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				return err
			}
		}
		rows, err := tx.Query(t.Context(), `EXPLAIN EXECUTE page ('`+m.TenantID.String()+`', '`+m.ID.String()+`', 'store', '`+uuid.Max.String()+`', 21)`)
		if err != nil {
			return err
		}
		plan, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(plan, "\n")
	for _, want := range []string{"(tenant_id = $1) AND (merchant_id = $2) AND (type = $3) AND (id < $4)", "(tenant_id = $1) AND (merchant_id = $2) AND (id = r.audit_id)"} {
		if !strings.Contains(got, "Index Cond: ("+want+")") || strings.Contains(got, "Seq Scan") {
			t.Fatalf("%s is not looked up by an index:\n%s", want, got)
		}
	}
}
