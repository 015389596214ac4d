package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/postgres"
)

func TestNewServesAsTheApplication(t *testing.T) {
	t.Parallel()
	db := New(t)
	var user, database string
	err := db.InSystem(t.Context(), func(tx postgres.DBTX) error {
		return tx.QueryRow(t.Context(), `SELECT current_user::text, current_database()::text`).Scan(&user, &database)
	})
	if err != nil {
		t.Fatal(err)
	}
	if user != postgres.AppRole || !cloneName.MatchString(database) {
		t.Errorf("user %s in database %s", user, database)
	}
}

func TestClonesAreIsolated(t *testing.T) {
	t.Parallel()
	a, b := DSN(t), DSN(t)
	query(t, a, `CREATE TABLE mine (v int)`)
	if got := query(t, a, `SELECT count(*)::text FROM pg_class WHERE relname = 'mine'`); got != "1" {
		t.Errorf("in its own database: %s", got)
	}
	if got := query(t, b, `SELECT count(*)::text FROM pg_class WHERE relname = 'mine'`); got != "0" {
		t.Errorf("in another test's database: %s", got)
	}
}

func TestClonesInParallel(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]bool{}
	t.Run("clones", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				name := query(t, DSN(t), `SELECT current_database()::text`)
				mu.Lock()
				defer mu.Unlock()
				seen[name] = true
			})
		}
	})
	if len(seen) != 8 {
		t.Fatalf("%d databases for 8 tests", len(seen))
	}
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	for name := range seen {
		if got := query(t, s.dsn, `SELECT count(*)::text FROM pg_database WHERE datname = '`+name+`'`); got != "0" {
			t.Errorf("%s was not dropped", name)
		}
	}
}

// recorder stands for a test that fails.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestLeakedConnectionFailsTheTest(t *testing.T) {
	t.Parallel()
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: DSN(t)})
	if err != nil {
		t.Fatal(err)
	}
	inside, release := make(chan struct{}), make(chan struct{})
	go func() {
		_ = db.InSystem(context.WithoutCancel(t.Context()), func(postgres.DBTX) error {
			close(inside)
			<-release
			return errors.New("enough")
		})
	}()
	<-inside
	defer close(release)
	r := &recorder{TB: t}
	closeDB(r, db, 50*time.Millisecond)
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], "never given back") {
		t.Errorf("got %q", r.failures)
	}
}

// On a server that somebody else runs the role may lack what is needed. The
// roles here are never committed: the server may be somebody else's.
func TestRoleThatMayNotCreate(t *testing.T) {
	t.Parallel()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	for rights, want := range map[string]string{
		"NOCREATEDB NOCREATEROLE": "CREATEDB CREATEROLE",
		"CREATEDB NOCREATEROLE":   "CREATEDB CREATEROLE",
		"CREATEDB CREATEROLE":     "",
	} {
		err := s.connected(t.Context(), func(conn *pgx.Conn) error {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(context.Background()) }()
			for _, sql := range []string{
				`CREATE ROLE mendian_test_role ` + rights,
				`GRANT mendian_test_role TO CURRENT_USER`,
				`SET LOCAL ROLE mendian_test_role`,
			} {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			return mayCreate(t.Context(), conn)
		})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", rights, err)
		}
	}
}

func TestSweepDropsOnlyWhatIsOldAndOurs(t *testing.T) {
	t.Parallel()
	now := time.Unix(0x70000000, 0)
	for _, tc := range []struct {
		name, comment string
		want          bool
	}{
		{"mendian_test_6ffe0000_abcdefghijkl", "", true},
		{"mendian_test_6fffff00_abcdefghijkl", "", false},
		{"mendian_test_tpl_0123456789ab", now.Add(-8 * 24 * time.Hour).Format(time.RFC3339), true},
		{"mendian_test_tpl_0123456789ab", now.Add(-6 * 24 * time.Hour).Format(time.RFC3339), false},
		{"mendian_test_tpl_0123456789ab", "", false},
		{"mendian_test_of_somebody", "", false},
		{"postgres", "", false},
	} {
		if got := isOld(tc.name, tc.comment, now); got != tc.want {
			t.Errorf("isOld(%q, %q) = %v, want %v", tc.name, tc.comment, got, tc.want)
		}
	}

	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	old := "mendian_test_00000001_" + strings.Repeat("a", 12)
	query(t, s.dsn, `CREATE DATABASE `+old)
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s.dsn, `SELECT string_agg(datname, ',') FROM pg_database WHERE datname IN ('`+old+`', '`+s.template+`')`); got != s.template {
		t.Errorf("left: %s", got)
	}
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:p%40@h:5/a?sslmode=disable": "postgres://u:p%40@h:5/x?sslmode=disable",
		"postgres://u@/a?host=/s&port=5":          "postgres://u@/x?host=%2Fs&port=5",
		"postgresql://h?dbname=a":                 "postgresql://h/x",
		"host=h dbname=a":                         "host=h dbname=a dbname=x",
	} {
		got := withDatabase(dsn, "x")
		if got != want {
			t.Errorf("withDatabase(%q) = %q, want %q", dsn, got, want)
		}
		if cfg, err := pgx.ParseConfig(got); err != nil || cfg.Database != "x" {
			t.Errorf("%q names another database (%v)", got, err)
		}
	}
}

func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(got, ",")
}
