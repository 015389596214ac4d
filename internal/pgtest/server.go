package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/localpg"
	"github.com/mendian/mendian/internal/postgres"
)

const (
	clonePrefix    = "mendian_test_"
	templatePrefix = "mendian_test_tpl_"
	templateLock   = 0x6d656e6469616e // an advisory lock of the database that the DSN names
)

// server is where clones are made. Its DSN's role owns them.
type server struct {
	dsn      string
	template string
}

// shared is the server of this test binary. It is never stopped: localpg ends
// what it started when the binary ends, in whatever way.
var shared = sync.OnceValues(func() (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	pg, err := localpg.Start(ctx, localpg.Options{
		MaxConnections: 300,
		Logf:           func(format string, args ...any) { fmt.Fprintf(os.Stderr, "pgtest: "+format+"\n", args...) },
	})
	if err != nil {
		return nil, err
	}
	s, err := newServer(ctx, pg.DSN())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", pg.Describe(), err), pg.Stop())
	}
	if pg.External() {
		if err := s.sweep(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", pg.Describe(), err)
		}
	}
	return s, nil
})

func newServer(ctx context.Context, dsn string) (*server, error) {
	s := &server{dsn: dsn, template: templatePrefix + postgres.SchemaHash()[:12]}
	return s, s.connected(ctx, func(conn *pgx.Conn) error {
		if err := mayCreate(ctx, conn); err != nil {
			return err
		}
		return s.makeTemplate(ctx, conn)
	})
}

// connected runs f on a connection of its own: a pool would keep goroutines
// that a test's leak check sees.
func (s *server) connected(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

func mayCreate(ctx context.Context, conn *pgx.Conn) error {
	var role string
	var super, db, roles bool
	err := conn.QueryRow(ctx, `SELECT rolname::text, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user`).Scan(&role, &super, &db, &roles)
	if err != nil {
		return err
	}
	if super || db && roles {
		return nil
	}
	return fmt.Errorf(`the role %q can't make test databases: run ALTER ROLE %s CREATEDB CREATEROLE, or unset DATABASE_URL, so that a server is started for the tests`,
		role, pgx.Identifier{role}.Sanitize())
}

// makeTemplate migrates a database once for all test binaries that use this
// server. It gets its name when it is complete, and nobody can connect to it,
// which would keep it from being cloned.
func (s *server) makeTemplate(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, templateLock); err != nil {
		return err
	}
	defer func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, templateLock) // else closing the connection does
	}()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, s.template).Scan(&exists); err != nil || exists {
		return err
	}
	building := s.template + "_new"
	for _, sql := range []string{
		`DROP DATABASE IF EXISTS ` + building + ` WITH (FORCE)`,
		`CREATE DATABASE ` + building + ` TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' STRATEGY FILE_COPY`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := postgres.Migrate(ctx, withDatabase(s.dsn, building)); err != nil {
		return err
	}
	for _, sql := range []string{
		`ALTER DATABASE ` + building + ` ALLOW_CONNECTIONS false`,
		`COMMENT ON DATABASE ` + building + ` IS '` + time.Now().UTC().Format(time.RFC3339) + `'`,
		`ALTER DATABASE ` + building + ` RENAME TO ` + s.template,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// clone makes a database. Its name says when, for sweep.
func (s *server) clone(ctx context.Context) (name string, err error) {
	name = fmt.Sprintf("%s%08x_%s", clonePrefix, time.Now().Unix(), strings.ToLower(rand.Text()[:12]))
	err = s.connected(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE DATABASE `+name+` TEMPLATE `+s.template+` STRATEGY FILE_COPY`)
		return err
	})
	return name, err
}

func (s *server) drop(ctx context.Context, name string) error {
	return s.connected(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`)
		return err
	})
}

var cloneName = regexp.MustCompile(`^` + clonePrefix + `([0-9a-f]{8})_[a-z0-9]{12}$`)

// sweep drops what killed test binaries of days before left on a server that
// lives on: clones, and templates of schemas that are no longer used.
func (s *server) sweep(ctx context.Context) error {
	return s.connected(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
			WHERE datname ^@ $1 AND pg_has_role(datdba, 'MEMBER')`, clonePrefix)
		if err != nil {
			return err
		}
		var old []string
		var name, comment string
		_, err = pgx.ForEachRow(rows, []any{&name, &comment}, func() error {
			if isOld(name, comment, time.Now()) && name != s.template {
				old = append(old, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, name := range old {
			if _, err := conn.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{name}.Sanitize()); err != nil && !postgres.IsCode(err, "55006") { // object_in_use
				return err
			}
		}
		return nil
	})
}

func isOld(name, comment string, now time.Time) bool {
	if m := cloneName.FindStringSubmatch(name); m != nil {
		made, err := strconv.ParseInt(m[1], 16, 64)
		return err == nil && now.Sub(time.Unix(made, 0)) > 24*time.Hour
	}
	if strings.HasPrefix(name, templatePrefix) {
		made, err := time.Parse(time.RFC3339, comment)
		return err == nil && now.Sub(made) > 7*24*time.Hour
	}
	return false
}

// withDatabase is the DSN of another database of the same server.
func withDatabase(dsn, name string) string {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " dbname=" + name
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn + " dbname=" + name // not reached: localpg has connected with it
	}
	u.Path, u.RawPath = "/"+name, ""
	q := u.Query()
	q.Del("dbname")
	q.Del("database")
	u.RawQuery = q.Encode()
	return u.String()
}
