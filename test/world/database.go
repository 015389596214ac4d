package world

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

// Query reads rows as the database's owner: what the REST API doesn't show.
func (w *World) Query(sql string, args ...any) []map[string]any {
	w.t.Helper()
	var out []map[string]any
	w.inTenant(func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToMap)
		return err
	})
	return out
}

// Row is Query where exactly one row is wanted.
func (w *World) Row(sql string, args ...any) map[string]any {
	w.t.Helper()
	rows := w.Query(sql, args...)
	if len(rows) != 1 {
		w.t.Fatalf("%d rows, want 1: %s", len(rows), sql)
	}
	return rows[0]
}

// Exec changes rows as the database's owner, where a test plays the passing of
// time: the simulator's clock can be advanced, the database's can't. It fails
// the test when no row was changed.
func (w *World) Exec(sql string, args ...any) {
	w.t.Helper()
	w.inTenant(func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			w.t.Errorf("nothing was changed by %s", sql)
		}
		return err
	})
}

// Wipe empties the database, as it is before the first migration.
func (w *World) Wipe() {
	w.t.Helper()
	w.inTenant(func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
		return err
	})
}

// inTenant runs fn in a transaction of the world's tenant: row-level security
// binds the owner too, unless it is a superuser.
func (w *World) inTenant(fn func(context.Context, pgx.Tx) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.DSN)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('app.tenant_id', $1, true)", w.UUID(typeid.Tenant, w.Tenant.ID).String()); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// UUID is an id of the REST API as the database holds it.
func (w *World) UUID(p typeid.Prefix, id string) uuid.UUID {
	w.t.Helper()
	u, err := typeid.Parse(p, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// Open decrypts a sealed column of the world's tenant with its keyset.
func (w *World) Open(table, column, appid, row string, sealed any) string {
	w.t.Helper()
	keys, err := secret.OpenKeyset(w.Env["GATEWAY_KEYSET_FILE"])
	if err != nil {
		w.t.Fatal(err)
	}
	ct, ok := sealed.([]byte)
	if !ok {
		w.t.Fatalf("%s.%s is %T, want bytes", table, column, sealed)
	}
	plain, err := keys.Open(secret.Place{Table: table, Column: column, Tenant: w.UUID(typeid.Tenant, w.Tenant.ID), AppID: appid, Row: row}, ct)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(plain)
}
