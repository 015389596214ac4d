package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// Tables outside row-level security, each with its reason. Nothing else may be.
var notTenantScoped = map[string]string{
	"tenants":      "read by push ref and by a token's tid before a tenant is known; holds no secret",
	"signing_keys": "the installation's own key ring; private parts are sealed",
	"admin_keys":   "keys of the installation, bound to no tenant",
	"change_log":   "changes of the installation have no tenant; only admin routes read it, and nobody can alter it",

	"keyset_holders": "which process holds which keys, by id; no tenant is concerned",

	"goose_db_version": "which migrations ran; read-only for the serving role",
}

type table struct {
	name                 string
	rls, forced, hasTID  bool
	key                  []string
	insert, update, dele bool // what the serving role may do
}

func tables(t *testing.T, conn *pgx.Conn) []table {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
			EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped),
			coalesce((SELECT array_agg(a.attname::text ORDER BY k.n)
				FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n), pg_attribute a
				WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.attnum), '{}'),
			has_table_privilege('mendian_app', c.oid, 'INSERT'), has_table_privilege('mendian_app', c.oid, 'UPDATE'), has_table_privilege('mendian_app', c.oid, 'DELETE')
		FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x table, err error) {
		return x, r.Scan(&x.name, &x.rls, &x.forced, &x.hasTID, &x.key, &x.insert, &x.update, &x.dele)
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func owner(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// A table is tenant-scoped, or stands in the list above with a reason
// (security.md §1). A new table without row-level security fails here.
func TestEveryTableIsTenantScopedOrListed(t *testing.T) {
	t.Parallel()
	conn := owner(t)
	list := tables(t, conn)
	if len(list) < 20 {
		t.Fatalf("saw %d tables, which can't be all", len(list))
	}
	for name := range notTenantScoped {
		if !slices.ContainsFunc(list, func(x table) bool { return x.name == name }) {
			t.Errorf("%s is listed and doesn't exist", name)
		}
	}
	for _, x := range list {
		if _, ok := notTenantScoped[x.name]; ok {
			if x.rls {
				t.Errorf("%s is listed as not tenant-scoped, and has row-level security", x.name)
			}
			continue
		}
		if !x.hasTID || len(x.key) == 0 || x.key[0] != "tenant_id" {
			t.Errorf("%s: primary key %v, want tenant_id first, or a reason in the list", x.name, x.key)
		}
		if !x.rls || !x.forced {
			t.Errorf("%s: row-level security %v, forced %v, want both", x.name, x.rls, x.forced)
		}
	}
}

// The policies let the serving role at the tenant's rows and at no others.
func TestPolicies(t *testing.T) {
	t.Parallel()
	conn := owner(t)
	type policy struct{ name, cmd, using, check string }
	const ours = "(tenant_id = current_tenant())"
	for _, x := range tables(t, conn) {
		if !x.rls {
			continue
		}
		rows, err := conn.Query(t.Context(), `
			SELECT polname, polcmd::text, coalesce(pg_get_expr(polqual, polrelid), ''), coalesce(pg_get_expr(polwithcheck, polrelid), '')
			FROM pg_policy WHERE polrelid = $1::regclass
			  AND (0 = ANY(polroles) OR EXISTS (SELECT 1 FROM unnest(polroles) r WHERE r <> 0 AND pg_has_role('mendian_app', r, 'MEMBER')))`, x.name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (p policy, err error) {
			return p, r.Scan(&p.name, &p.cmd, &p.using, &p.check)
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]policy{{"tenant", "*", ours, ours}}, got, cmp.AllowUnexported(policy{})); d != "" {
			t.Errorf("%s: policies for mendian_app (-want +got):\n%s", x.name, d)
		}
	}
}

// A row can't point at another tenant's: between tenant-scoped tables every
// foreign key holds tenant_id on both sides.
func TestForeignKeysStayInTheTenant(t *testing.T) {
	t.Parallel()
	conn := owner(t)
	rows, err := conn.Query(t.Context(), `
		SELECT con.conname || ' of ' || c.relname, f.relname,
			ARRAY(SELECT a.attname::text FROM unnest(con.conkey) k, pg_attribute a WHERE a.attrelid = con.conrelid AND a.attnum = k),
			ARRAY(SELECT a.attname::text FROM unnest(con.confkey) k, pg_attribute a WHERE a.attrelid = con.confrelid AND a.attnum = k)
		FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid JOIN pg_class f ON f.oid = con.confrelid
		WHERE con.contype = 'f' AND c.relnamespace = 'public'::regnamespace AND c.relrowsecurity`)
	if err != nil {
		t.Fatal(err)
	}
	var name, target string
	var from, to []string
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&name, &target, &from, &to}, func() error {
		n++
		want := "tenant_id"
		if target == "tenants" {
			want = "id"
		}
		if !slices.Contains(from, "tenant_id") || !slices.Contains(to, want) {
			t.Errorf("%s: %v to %s %v, want tenant_id on both sides", name, from, target, to)
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Fatalf("saw %d foreign keys, %v", n, err)
	}
}

// What runs with the owner's rights returns ids or a yes or no, never contents.
func TestSecurityDefinersReturnIDsOnly(t *testing.T) {
	t.Parallel()
	conn := owner(t)
	rows, err := conn.Query(t.Context(), `
		SELECT proname, pg_get_function_result(oid), coalesce(array_to_string(proconfig, ','), '')
		FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	// What returns something else, and why that tells nobody's business.
	listed := map[string]string{
		"newest_tickets": "when each tenant's newest ticket came: for the metrics",
		"sealed_values":  "how many values lie in a column under a key, over all tenants: for the rotation of the keyset",
		"sweep_expired":  "how many rows went",
		"sweep_spent":    "how many rows went",
		"sweep_quotas":   "how many rows went",
	}
	var name, result, config string
	_, err = pgx.ForEachRow(rows, []any{&name, &result, &config}, func() error {
		if listed[name] != "" {
			result = "boolean"
		}
		columns := strings.Split(strings.TrimSuffix(strings.TrimPrefix(result, "TABLE("), ")"), ", ")
		for _, c := range columns {
			if c != "boolean" && c != "tenant_id uuid" && c != "id uuid" {
				t.Errorf("%s returns %s", name, result)
			}
		}
		if !strings.Contains(config, "search_path=") {
			t.Errorf("%s has no search_path of its own", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Attack 84.
func TestAppendOnlyTables(t *testing.T) {
	t.Parallel()
	for _, x := range tables(t, owner(t)) {
		appendOnly := x.name == "change_log" || x.name == "wechat_id_ledger"
		readOnly := x.name == "goose_db_version"
		want := [3]bool{!readOnly, !appendOnly && !readOnly, !appendOnly && !readOnly}
		if got := [3]bool{x.insert, x.update, x.dele}; got != want {
			t.Errorf("%s: mendian_app may insert, update, delete: %v, want %v", x.name, got, want)
		}
	}
}

// Attack 85: without a tenant, or with another one, every tenant's row is
// absent, on a fresh connection and on one that has served a tenant.
func TestNoTenantSeesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx := t.Context()
	a, z := uuid.New(), uuid.New()
	insert := func(tenant, as uuid.UUID) error {
		return db.InTenant(ctx, as, func(tx postgres.DBTX) error {
			_, err := tx.Exec(ctx, `INSERT INTO outbox (tenant_id, id, type, payload) VALUES ($1, $2, 'x', '{}')`, tenant, uuid.New())
			return err
		})
	}
	count := func(tx postgres.DBTX) (n int) {
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM outbox`).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	for i, tenant := range []uuid.UUID{a, z} {
		if err := db.InSystem(ctx, func(tx postgres.DBTX) error {
			if n := count(tx); n != 0 {
				t.Errorf("without a tenant: %d rows", n)
			}
			_, err := tx.Exec(ctx, `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, $2, $2, $2)`, tenant, fmt.Sprint(i))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := insert(tenant, tenant); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // over all pooled connections
		_ = db.InTenant(ctx, a, func(tx postgres.DBTX) error {
			if n := count(tx); n != 1 {
				t.Errorf("tenant a sees %d rows, want its own", n)
			}
			return nil
		})
		_ = db.InSystem(ctx, func(tx postgres.DBTX) error {
			if n := count(tx); n != 0 {
				t.Errorf("after a tenant's transaction: %d rows", n)
			}
			return nil
		})
	}
	if err := insert(a, z); !postgres.IsCode(err, "42501") {
		t.Errorf("inserting another tenant's row = %v, want refused by row-level security", err)
	}
}
