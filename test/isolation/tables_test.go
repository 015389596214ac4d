package isolation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/test/world"
)

// Tables whose rows nobody may change once they are written.
var appendOnly = []string{"wechat_id_ledger", "change_log"}

// A column is one that a made-up row needs.
type column struct {
	name, typ string
	check     string // of the table, where it names the column
	key       bool
}

// scoped lists the tables under row-level security with their columns that
// have no default, from the catalogue.
func scoped(t *testing.T, conn *pgx.Conn) map[string][]column {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
			coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY (k.conkey)), ''),
			EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' AND a.attnum = ANY (k.conkey))
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND c.relrowsecurity AND a.attnotnull AND NOT a.atthasdef
		ORDER BY 1, a.attnum`)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]column{}
	var table string
	var c column
	if _, err := pgx.ForEachRow(rows, []any{&table, &c.name, &c.typ, &c.check, &c.key}, func() error {
		out[table] = append(out[table], c)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(out) < 19 {
		t.Fatalf("saw %d tables under row-level security, which can't be all", len(out))
	}
	return out
}

var firstLiteral = regexp.MustCompile(`'([^']+)'`)

// madeUp is an INSERT of one row that breaks no rule of the table but its
// foreign keys.
func madeUp(t *testing.T, table string, columns []column, tenant uuid.UUID) (string, []any) {
	t.Helper()
	var names, marks []string
	var args []any
	for i, c := range columns {
		var v any
		switch {
		case c.name == "tenant_id":
			v = tenant
		case c.typ == "uuid":
			v = uuid.New()
		case c.check != "" && c.typ != "integer" && c.typ != "bigint": // 1 satisfies those
			literal := firstLiteral.FindStringSubmatch(c.check)
			if literal == nil {
				t.Fatalf("%s.%s: what satisfies %s?", table, c.name, c.check)
			}
			v = literal[1]
		case c.typ == "text":
			v = "x" + uuid.NewString()
		case c.typ == "bytea":
			v = []byte(uuid.NewString())
		case c.typ == "bytea[]":
			v = [][]byte{}
		case c.typ == "text[]":
			v = []string{"x"}
		case c.typ == "jsonb":
			v = map[string]string{}
		case c.typ == "timestamp with time zone", c.typ == "date":
			v = time.Now()
		case c.typ == "integer", c.typ == "bigint":
			v = 1
		default:
			t.Fatalf("%s.%s: what is a %s?", table, c.name, c.typ)
		}
		names, marks, args = append(names, `"`+c.name+`"`), append(marks, fmt.Sprintf("$%d", i+1)), append(args, v)
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(names, ", "), strings.Join(marks, ", ")), args
}

// Attacks 84 and 85, for every table that the catalogue knows: without a
// tenant the serving role sees and changes nothing, and that is no error;
// with tenant B nothing of A; it can't give a row away or take one; and what
// is append-only stays. On connections that are new and on ones that have
// served.
func TestEveryTableHidesOtherTenants(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := pgtest.DSN(t)
	owner, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.WithoutCancel(ctx))
	tables := scoped(t, owner)
	// Rows are made up one by one, so they can't point at each other.
	if _, err := owner.Exec(ctx, `DO $$ DECLARE k record; BEGIN
		FOR k IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace LOOP
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', k.t, k.conname);
		END LOOP; END $$`); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(ctx, postgres.Config{DSN: dsn, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	a, b := uuid.New(), uuid.New()
	for table, columns := range tables {
		for _, tenant := range []uuid.UUID{a, b} {
			if err := db.InTenant(ctx, tenant, func(tx postgres.DBTX) error {
				sql, args := madeUp(t, table, columns, tenant)
				_, err := tx.Exec(ctx, sql, args...)
				return err
			}); err != nil {
				t.Fatalf("%s: make a row: %v", table, err)
			}
		}
	}
	for table, columns := range tables {
		count := func(tx postgres.DBTX, where string, args ...any) (n int) {
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM `+table+` WHERE `+where, args...).Scan(&n); err != nil {
				t.Errorf("%s: count where %s: %v", table, where, err)
			}
			return n
		}
		// changed is how many rows a statement changes, or -1 where the role may not.
		changed := func(tx postgres.DBTX, sql string, args ...any) int64 {
			tag, err := tx.Exec(ctx, sql, args...)
			switch {
			case postgres.IsCode(err, "42501"):
				return -1
			case err != nil:
				t.Errorf("%s: %s: %v", table, sql, err)
			}
			return tag.RowsAffected()
		}
		nothing := int64(0)
		if slices.Contains(appendOnly, table) {
			nothing = -1
		}
		for range 2 { // a new setting of the tenant, and one that was ''
			for _, statement := range []string{`UPDATE ` + table + ` SET tenant_id = tenant_id`, `DELETE FROM ` + table} {
				tried(t, "85")
				_ = db.InSystem(ctx, func(tx postgres.DBTX) error {
					if n := count(tx, `true`); n != 0 {
						t.Errorf("%s: %d rows without a tenant", table, n)
					}
					if n := changed(tx, statement); n != nothing {
						t.Errorf("without a tenant, %s changes %d rows, want %d", statement, n, nothing)
					}
					return errors.New("roll back")
				})
				_ = db.InTenant(ctx, b, func(tx postgres.DBTX) error {
					if n := count(tx, `tenant_id = $1`, a); n != 0 {
						t.Errorf("%s: %d rows of A as B", table, n)
					}
					if n := count(tx, `true`); n != 1 {
						t.Errorf("%s: %d rows as B, want its own", table, n)
					}
					if n := changed(tx, statement+` WHERE tenant_id = $1`, a); n != nothing {
						t.Errorf("as B, %s of A changes %d rows, want %d", statement, n, nothing)
					}
					return errors.New("roll back")
				})
			}
		}
		for name, statement := range map[string]func(postgres.DBTX) error{
			"inserting a row of A": func(tx postgres.DBTX) error {
				sql, args := madeUp(t, table, columns, a)
				_, err := tx.Exec(ctx, sql, args...)
				return err
			},
			"giving its row to A": func(tx postgres.DBTX) error {
				_, err := tx.Exec(ctx, `UPDATE `+table+` SET tenant_id = $1`, a)
				return err
			},
			"emptying the table": func(tx postgres.DBTX) error {
				_, err := tx.Exec(ctx, `TRUNCATE `+table)
				return err
			},
			"switching the guard off": func(tx postgres.DBTX) error {
				_, err := tx.Exec(ctx, `ALTER TABLE `+table+` DISABLE ROW LEVEL SECURITY`)
				return err
			},
		} {
			if err := db.InTenant(ctx, b, statement); !postgres.IsCode(err, "42501") {
				t.Errorf("%s: as B, %s = %v, want refused", table, name, err)
			}
		}
		for _, tenant := range []uuid.UUID{a, b} { // all of it came to nothing
			_ = db.InTenant(ctx, tenant, func(tx postgres.DBTX) error {
				if n := count(tx, `true`); n != 1 {
					t.Errorf("%s: %d rows of a tenant afterwards, want 1", table, n)
				}
				return nil
			})
		}
	}
	for _, table := range appendOnly { // change_log stands outside row-level security
		for _, statement := range []string{`UPDATE ` + table + ` SET tenant_id = tenant_id`, `DELETE FROM ` + table, `TRUNCATE ` + table} {
			tried(t, "84")
			err := db.InSystem(ctx, func(tx postgres.DBTX) error {
				_, err := tx.Exec(ctx, statement)
				return err
			})
			if !postgres.IsCode(err, "42501") {
				t.Errorf("%s = %v, want permission denied", statement, err)
			}
		}
	}
}

// The role that serves is mendian_app, whatever role the DSN has and asks for;
// and a role that row-level security does not bind is refused.
func TestServingRole(t *testing.T) {
	t.Parallel()
	w := &two{World: world.New(t, world.Options{})}
	bypass := w.bypassingRole(t)
	u, err := url.Parse(w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	asking := func(name, value string) string {
		q := u.Query()
		q.Set(name, value)
		c := *u
		c.RawQuery = q.Encode()
		return c.String()
	}
	for name, dsn := range map[string]string{
		"the owner's":                    w.DSN,
		"one that asks for another role": asking("role", bypass),
		"one with options":               asking("options", "-crole="+bypass),
		"one with row security off":      asking("row_security", "off"),
	} {
		tried(t, "84")
		db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var user string
		if err := db.InSystem(t.Context(), func(tx postgres.DBTX) error {
			return tx.QueryRow(t.Context(), `SELECT current_user::text`).Scan(&user)
		}); err != nil || user != postgres.AppRole {
			t.Errorf("%s: serves as %q, %v, want %s", name, user, err, postgres.AppRole)
		}
		if err := db.CheckRole(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		db.Close()
	}
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: w.DSN, Role: bypass})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.CheckRole(t.Context()); !errors.Is(err, postgres.ErrRole) && !fallsBack(t, w, bypass) {
		t.Errorf("a role that bypasses row-level security: %v, want ErrRole", err)
	}
	// The binary is ready only when it serves as that role.
	g := w.Start(map[string]string{"DATABASE_URL": asking("options", "-crole="+bypass)})
	w.Client(g, "").Do("GET", "/v1/me", nil).Want(http.StatusOK)
	// One that may not become that role does not serve at all.
	const password = "of-a-role-of-its-own"
	poor := "mendian_test_poor_" + strings.TrimPrefix(bypass, "mendian_test_bypass_")
	w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE ROLE `+poor+` LOGIN PASSWORD '`+password+`'; GRANT SELECT ON goose_db_version TO `+poor)
		return err
	})
	t.Cleanup(func() {
		w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `DROP OWNED BY `+poor+`; DROP ROLE `+poor)
			return err
		})
	})
	u.User = url.UserPassword(poor, password)
	g = w.Launch(map[string]string{"DATABASE_URL": asking("user", poor)})
	g.WaitExit(20 * time.Second)
	if said := "can't serve as " + postgres.AppRole; g.ExitCode() != 1 || !strings.Contains(g.Output(), said) {
		t.Errorf("a role that may not become %s: exit code %d, want %q in: %s", postgres.AppRole, g.ExitCode(), said, g.Tail(5))
	}
}

// fallsBack tells that the server let us make no role with the attribute.
func fallsBack(t *testing.T, w *two, role string) bool {
	return len(w.sql(t, `SELECT 1 FROM pg_roles WHERE rolname = $1 AND rolbypassrls`, role)) == 0
}

// poolUses is a million in the long form: make attack ARGS="-pool 1000000".
var poolUses = flag.Int("pool", 20_000, "how often a pooled connection is used and looked at")

// Attack 86: whatever ended the transaction before, the next user of a pooled
// connection finds no tenant on it.
func TestPooledConnectionsForgetTheTenant(t *testing.T) {
	t.Parallel()
	const workers = 8
	dsn := pgtest.DSN(t)
	open := func(conns int32) *postgres.DB {
		db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn, MaxConns: conns})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		return db
	}
	type params struct{ N int }
	// The question has no rows unless a tenant is set; it is asked in one trip.
	const left = `SELECT t::uuid, t::uuid FROM (SELECT NULLIF(current_setting('app.tenant_id', true), '') AS t) x WHERE t IS NOT NULL LIMIT $1`
	leaky := open(1) // a setting that outlives its transaction is found
	if err := leaky.InSystem(t.Context(), func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `SELECT set_config('app.tenant_id', $1, false)`, uuid.NewString())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if due, err := leaky.Due(t.Context(), left, 1); len(due) != 1 {
		t.Fatalf("a tenant that was left on purpose is not found: %v, %v", due, err)
	}
	db := open(4)
	ends := []func(context.Context, uuid.UUID){
		func(ctx context.Context, tenant uuid.UUID) { // it commits
			_ = db.InTenant(ctx, tenant, func(tx postgres.DBTX) error { return nil })
		},
		func(ctx context.Context, tenant uuid.UUID) { // the caller gives up
			_ = db.InTenant(ctx, tenant, func(tx postgres.DBTX) error { return errors.New("no") })
		},
		func(ctx context.Context, tenant uuid.UUID) { // the database refuses
			_ = db.InTenant(ctx, tenant, func(tx postgres.DBTX) error { _, err := tx.Exec(ctx, `SELECT 1/0`); return err })
		},
		func(ctx context.Context, tenant uuid.UUID) { // the handler panics
			defer func() { _ = recover() }()
			_ = db.InTenant(ctx, tenant, func(tx postgres.DBTX) error { panic("bug") })
		},
		func(ctx context.Context, tenant uuid.UUID) { // a batch commits
			_ = db.Run(ctx, db.NewBatch(tenant))
		},
		func(ctx context.Context, tenant uuid.UUID) { // a batch is refused
			b := db.NewBatch(tenant)
			b.Queue(`SELECT require($1 = 0, 'MD003')`, params{1})
			_ = db.Run(ctx, b)
		},
	}
	cancelled := func(ctx context.Context, tenant uuid.UUID) { // the client leaves, in the middle
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if rand.N(2) == 0 {
			_ = db.InTenant(ctx, tenant, func(tx postgres.DBTX) error { cancel(); return ctx.Err() })
			return
		}
		b := db.NewBatch(tenant)
		b.Queue(`SELECT pg_sleep(0.02) WHERE $1 = 1`, params{1})
		go cancel()
		_ = db.Run(ctx, b)
	}
	var pool sync.WaitGroup
	for range workers {
		pool.Go(func() {
			for i := range *poolUses / workers {
				if i%100 == 99 { // costs a connection each time
					cancelled(t.Context(), uuid.New())
				} else {
					ends[rand.N(len(ends))](t.Context(), uuid.New())
				}
				due, err := db.Due(t.Context(), left, 1)
				if err != nil || len(due) != 0 {
					t.Errorf("iteration %d: the tenant %v is still set, %v", i, due, err)
					return
				}
			}
		})
	}
	pool.Wait()
	tried(t, "86")
}
