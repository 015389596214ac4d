package postgres

import (
	"context"
	"errors"
	"reflect"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// SQLSTATEs that the function require raises on our behalf inside a batch.
const (
	RefusedKeyTaken = "MD001" // the idempotency key exists
	RefusedQuota    = "MD002" // the day's quota is spent
	RefusedState    = "MD003" // the row is not in the state that the write needs
	Validated       = "MD004" // nothing speaks against it: all is undone
	RefusedMedia    = "MD005" // a temporary file has expired
)

// A Batch is a tenant's transaction in one round trip: everything queued up to
// Run is sent at once, and Postgres takes a pipeline up to its Sync as one
// transaction, without BEGIN and COMMIT.
type Batch struct {
	b        pgx.Batch
	tenant   uuid.UUID
	rewrite  func(string) string
	snapshot bool
}

// NewBatch starts a batch of the tenant; setting the tenant is its first statement.
func (db *DB) NewBatch(tenant uuid.UUID) *Batch {
	b := &Batch{tenant: tenant, rewrite: db.rewrite}
	b.b.Queue(setTenant, tenant.String())
	return b
}

// NewSnapshot starts a batch of readings that agree with each other: all see
// the database as it was at one moment, where NewBatch's statements each see
// what was committed before them.
func (db *DB) NewSnapshot(tenant uuid.UUID) *Batch {
	b := &Batch{tenant: tenant, rewrite: db.rewrite, snapshot: true}
	b.b.Queue("BEGIN " + snapshotMode)
	b.b.Queue(setTenant, tenant.String())
	return b
}

const setTenant = `SELECT set_config('app.tenant_id', $1, true)`

const snapshotMode = "ISOLATION LEVEL REPEATABLE READ READ ONLY"

// Queue adds a generated query. params is its …Params struct, whose fields
// sqlc writes in the order of the query's placeholders.
func (b *Batch) Queue(sql string, params any) { b.queue(sql, params) }

// QueueRows adds a query whose rows read consumes when Run executes.
func (b *Batch) QueueRows(sql string, params any, read func(pgx.Rows) error) {
	b.queue(sql, params).Query(read)
}

// QueueOne adds a query of exactly one row, which Run reads into *into; with
// none, Run returns pgx.ErrNoRows and has committed nevertheless. T is the
// generated row type, whose fields are in the order of the columns.
func QueueOne[T any](b *Batch, sql string, params any, into *T) {
	b.queue(sql, params).Query(func(rows pgx.Rows) error {
		row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[T])
		if err == nil {
			*into = row // what was known before outlives a broken connection
		}
		return err
	})
}

// QueueMany adds a query of any number of rows, which Run reads into *into.
func QueueMany[T any](b *Batch, sql string, params any, into *[]T) {
	b.queue(sql, params).Query(func(rows pgx.Rows) error {
		list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		if err == nil {
			*into = list
		}
		return err
	})
}

func (b *Batch) queue(sql string, params any) *pgx.QueuedQuery {
	if b.rewrite != nil {
		sql = b.rewrite(sql)
	}
	v := reflect.ValueOf(params)
	args := make([]any, v.NumField())
	for i := range args {
		args[i] = v.Field(i).Interface()
	}
	return b.b.Queue(sql, args...)
}

// Run sends b. nil, and only nil, means that it was committed. Any other
// outcome but a *pgconn.PgError or ErrNotAsked leaves that open: the connection broke.
func (db *DB) Run(ctx context.Context, b *Batch) error {
	if b.snapshot {
		b.b.Queue("COMMIT") // after a failure the pool drops the connection
	}
	return db.with(ctx, func(c *pgxpool.Conn) error { return c.SendBatch(ctx, &b.b).Close() })
}

// Refused reports whether the database answered and refused, so that nothing
// of the batch or transaction was committed.
func Refused(err error) bool {
	var pe *pgconn.PgError
	// 57Pxx: the server went away in the middle, which says nothing of a commit.
	return errors.As(err, &pe) && (len(pe.Code) < 3 || pe.Code[:3] != "57P")
}
