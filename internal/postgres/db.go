// Package postgres is the door to the database: the pool that serves as
// mendian_app, the tenant's transaction and batch, migrations, caches kept
// true by LISTEN/NOTIFY, and the queries that sqlc generates.
//
// The pool is never handed out. Whatever touches a tenant's rows goes through
// InTenant or a tenant batch, so that row-level security always knows the
// tenant; and every query says tenant_id = @tenant_id besides, so that either
// guard holds alone.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"
)

// AppRole is the role that every serving connection has from its first
// statement. It can't log in, can't bypass row-level security, and has no
// UPDATE or DELETE on the append-only tables.
const AppRole = "mendian_app"

// Config says how to open a DB.
type Config struct {
	DSN      string
	MaxConns int32 // 0: pgxpool's default
	// Split keeps a Share of MaxConns for each use. Without it all are one.
	Split bool
	// Role replaces AppRole, and Rewrite each query's text, in the tests that
	// switch one of the two tenant guards off. Both are empty in production.
	Role    string
	Rewrite func(sql string) string
}

// DB serves queries as AppRole. It is safe for concurrent use.
type DB struct {
	pools      []*pgxpool.Pool // one, or one a Share
	gatherings [shares]gathering
	dsn        string
	role       string
	rewrite    func(string) string
}

// Open connects. It fails when the connection's role could bypass row-level
// security, unless Config.Role asked for that.
func Open(ctx context.Context, c Config) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, errors.New("the database DSN can't be read") // pgx would quote the password
	}
	db := &DB{dsn: c.DSN, role: c.Role, rewrite: c.Rewrite}
	if db.role == "" {
		db.role = AppRole
	}
	params := cfg.ConnConfig.RuntimeParams
	params["role"] = db.role
	params["application_name"] = "mendian"
	params["statement_timeout"] = "5000"
	params["lock_timeout"] = "2000"
	params["idle_in_transaction_session_timeout"] = "10000"
	params["jit"] = "off"
	// A connection keeps its plans: one made while a table was small, that reads
	// it whole, would be followed when it is large.
	params["enable_seqscan"] = "off"
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	cfg.ConnConfig.Tracer = tripCounter{}
	cfg.AfterConnect = ourTypes
	if c.MaxConns > 0 {
		cfg.MaxConns = c.MaxConns
	}
	total, parts := cfg.MaxConns, Share(1)
	if c.Split {
		parts = shares
	}
	for s := range parts {
		if c.Split {
			cfg.MaxConns = s.of(total)
			params["application_name"] = "mendian " + s.String()
		}
		pool, err := pgxpool.NewWithConfig(ctx, cfg.Copy())
		if err != nil {
			db.Close()
			return nil, fmt.Errorf("open the database: %w", err)
		}
		db.pools = append(db.pools, pool)
	}
	if c.Role == "" {
		if err := db.CheckRole(ctx); err != nil {
			db.Close()
			return nil, err
		}
	}
	return db, nil
}

// Close waits for running queries and closes all connections.
func (db *DB) Close() {
	for _, p := range db.pools {
		p.Close()
	}
}

// InUse is the number of connections that are in use.
func (db *DB) InUse() (n int) {
	for _, p := range db.pools {
		n += int(p.Stat().AcquiredConns())
	}
	return n
}

// Ping asks for one round trip.
func (db *DB) Ping(ctx context.Context) error {
	return db.with(ctx, func(c *pgxpool.Conn) error { return c.Ping(ctx) })
}

// ErrRole is returned when the serving role is not bound by row-level security.
var ErrRole = errors.New("the serving role can bypass row-level security")

// CheckRole fails with ErrRole when current_user is a superuser or may bypass
// row-level security, and with another error when it isn't AppRole.
func (db *DB) CheckRole(ctx context.Context) error {
	var user string
	var bypass bool
	err := db.with(ctx, func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, `SELECT current_user::text, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user`).Scan(&user, &bypass)
	})
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe) && (pe.Code == "22023" || pe.Code == "42704" || pe.Code == "42501"):
		return fmt.Errorf("can't serve as %s: run `gateway migrate` first: %w", AppRole, err)
	case err != nil:
		return fmt.Errorf("ask the database who we are: %w", err)
	case bypass:
		return fmt.Errorf("%w: %s", ErrRole, user)
	case user != AppRole:
		return fmt.Errorf("serving as %q, want %q", user, AppRole)
	}
	return nil
}

// DBTX is what the generated queries run on.
type DBTX interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

// tx puts Config.Rewrite in front of a transaction's queries.
type tx struct {
	pgx.Tx
	rewrite func(string) string
}

func (t tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return t.Tx.Exec(ctx, t.rewrite(sql), args...)
}

func (t tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return t.Tx.Query(ctx, t.rewrite(sql), args...)
}

func (t tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return t.Tx.QueryRow(ctx, t.rewrite(sql), args...)
}

// InTenant runs fn in one transaction of the tenant and commits when it
// returns nil. It is run again on a serialisation failure or deadlock, so fn
// must have no effect outside the transaction.
func (db *DB) InTenant(ctx context.Context, tenant uuid.UUID, fn func(DBTX) error) error {
	return db.inTx(ctx, beginOf(tenant, ""), fn)
}

// InSnapshot is InTenant for readings that have to agree with each other.
func (db *DB) InSnapshot(ctx context.Context, tenant uuid.UUID, fn func(DBTX) error) error {
	return db.inTx(ctx, beginOf(tenant, snapshotMode), fn)
}

// beginOf begins a transaction and sets its tenant, in one round trip. What is
// put into the text is hexadecimal digits and hyphens.
func beginOf(tenant uuid.UUID, mode string) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: "BEGIN " + mode + "; SELECT set_config('app.tenant_id', '" + tenant.String() + "', true)"}
}

// InSystem runs fn in a transaction without a tenant: only the few tables and
// functions that are listed as not tenant-scoped show anything there.
func (db *DB) InSystem(ctx context.Context, fn func(DBTX) error) error {
	return db.inTx(ctx, pgx.TxOptions{}, fn)
}

func (db *DB) inTx(ctx context.Context, options pgx.TxOptions, fn func(DBTX) error) error {
	const tries = 4
	for n := 1; ; n++ {
		err := db.with(ctx, func(c *pgxpool.Conn) error {
			return pgx.BeginTxFunc(ctx, c, options, func(t pgx.Tx) error {
				if db.rewrite != nil {
					return fn(tx{t, db.rewrite})
				}
				return fn(t)
			})
		})
		if n < tries && (IsCode(err, "40001") || IsCode(err, "40P01")) {
			continue
		}
		return err
	}
}

// IsCode reports whether err came from Postgres with this SQLSTATE.
func IsCode(err error, sqlstate string) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == sqlstate
}

// IsUnique reports whether err is a violation of the named unique constraint or index.
func IsUnique(err error, constraint string) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "23505" && pe.ConstraintName == constraint
}

// Unavailable reports whether err means that the database could not be asked
// or did not answer, rather than what it answered.
func Unavailable(err error) bool {
	var ce *pgconn.ConnectError
	if errors.As(err, &ce) { // whatever the server said to it
		return true
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch pe.Code {
		case "53300", "55P03", "57014": // too many connections; lock and statement time limits
			return true
		}
		return strings.HasPrefix(pe.Code, "57P") || strings.HasPrefix(pe.Code, "08")
	}
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, ErrNotAsked) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		pgconn.SafeToRetry(err) || errors.Is(err, puddle.ErrClosedPool)
}

// IsNotFound reports whether a query for one row found none.
func IsNotFound(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

type tripsKey struct{}

// WithTripCounter returns a context under which every query and every batch
// adds one to n: a round trip each.
func WithTripCounter(ctx context.Context, n *atomic.Int64) context.Context {
	return context.WithValue(ctx, tripsKey{}, n)
}

type tripCounter struct{}

func count(ctx context.Context) context.Context {
	if n, ok := ctx.Value(tripsKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
	return ctx
}

func (tripCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return count(ctx)
}
func (tripCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (tripCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return count(ctx)
}
func (tripCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (tripCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// ClockSkew is how far this machine's clock is ahead of the database's.
func (db *DB) ClockSkew(ctx context.Context) (time.Duration, error) {
	before := time.Now()
	var there time.Time
	if err := db.with(ctx, func(c *pgxpool.Conn) error { return c.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&there) }); err != nil {
		return 0, err
	}
	// The answer is from the middle of the round trip, more or less.
	return before.Add(time.Since(before) / 2).Sub(there), nil
}

// ServerVersion is server_version_num of the server at dsn (150004 is 15.4).
func ServerVersion(ctx context.Context, dsn string) (int, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return 0, errors.New("the database DSN can't be read")
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	var v int
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&v)
	return v, err
}
