package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/mendian/mendian/migrations"
)

// SchemaHash names the state that Migrate leads to: a hash over the migration
// files and the grants.
func SchemaHash() string {
	h := sha256.New()
	_ = fs.WalkDir(migrations.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(migrations.FS, path)
		fmt.Fprintf(h, "%s %d\n", path, len(b))
		h.Write(b)
		return err
	})
	h.Write([]byte(grants))
	return hex.EncodeToString(h.Sum(nil))
}

// Migrate brings the database to the newest schema: the migrations, then the
// grants of AppRole, which it makes. Several processes may
// run it at once; a second run changes nothing. It works as the DSN's own
// role, which needs CREATEROLE unless it is a superuser.
func Migrate(ctx context.Context, dsn string) error {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return errors.New("the database DSN can't be read")
	}
	cfg.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer pool.Close()
	if err := ensureRole(ctx, pool); err != nil {
		return fmt.Errorf("make the role %s (CREATEROLE or a superuser is needed): %w", AppRole, err)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	sqldb := stdlib.OpenDBFromPool(pool)
	defer sqldb.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, sqldb, migrations.FS, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("apply migrations: %w", err)
	}
	err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		// Grants of two at once would meet in the catalogue.
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(7369645)`); err != nil {
			return err
		}
		defer func() {
			_, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(7369645)`)
		}()
		_, err := conn.Exec(ctx, grants)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply the grants: %w", err)
	}
	return nil
}

// MigrationStatus tells what is applied, 0 in an empty database, and what is
// newest. It only reads.
func MigrationStatus(ctx context.Context, dsn string) (current, target int64, err error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return 0, 0, errors.New("the database DSN can't be read")
	}
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range files {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return 0, 0, err
		}
		target = max(target, n)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&current)
	if IsCode(err, "42P01") { // undefined_table
		return 0, target, nil
	}
	return current, target, err
}

// ensureRole makes AppRole and lets the connecting role become it. Roles
// belong to the whole cluster, so databases that migrate at once meet here.
func ensureRole(ctx context.Context, pool *pgxpool.Pool) error {
	const sql = `
		DO $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mendian_app') THEN
				CREATE ROLE mendian_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
			END IF;
			IF NOT pg_has_role(current_user, 'mendian_app', 'MEMBER') THEN
				EXECUTE format('GRANT mendian_app TO %I', current_user);
			END IF;
		END $$`
	var err error
	for range 20 {
		_, err = pool.Exec(ctx, sql)
		var pe *pgconn.PgError
		// Somebody else was faster (duplicate_object, unique_violation), or
		// the catalogue row was changed under us (internal_error).
		if !errors.As(err, &pe) || (pe.Code != "42710" && pe.Code != "23505" && pe.Code != "XX000") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return err
}

// grants gives AppRole its rights anew each time: what is not said here is not
// allowed. change_log and wechat_id_ledger are append-only.
const grants = `
	REVOKE ALL ON ALL TABLES IN SCHEMA public FROM mendian_app, PUBLIC;
	REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
	REVOKE ALL ON ALL PROCEDURES IN SCHEMA public FROM mendian_app, PUBLIC;
	GRANT USAGE ON SCHEMA public TO mendian_app;
	GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO mendian_app;
	REVOKE UPDATE, DELETE ON wechat_id_ledger, change_log FROM mendian_app;
	REVOKE INSERT, UPDATE, DELETE ON goose_db_version FROM mendian_app;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO mendian_app;
	GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO mendian_app;
`
