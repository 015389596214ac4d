package postgres_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

const addOutbox = `INSERT INTO outbox (tenant_id, id, type, payload) VALUES ($1, $2, $3, '{}')`

type outboxRow struct {
	Tenant, ID uuid.UUID
	Type       string
}

// together writes each of these rows, with what queue adds, while the first two
// hold the lanes and wait for a lock, so that all others wait for those.
func together(t *testing.T, db *postgres.DB, hold *pgx.Conn, rows []outboxRow, about func(i int) uuid.UUID, queue func(i int, b *postgres.Batch)) []error {
	t.Helper()
	ctx := t.Context()
	exec := func(sql string) {
		t.Helper()
		if _, err := hold.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
	errs := make([]error, len(rows))
	var all sync.WaitGroup
	write := func(i int) {
		all.Go(func() {
			b := db.NewBatch(rows[i].Tenant)
			b.Queue(addOutbox, rows[i])
			queue(i, b)
			errs[i] = observe.Caught(func() error { return db.RunTogether(ctx, b, about(i)) })
		})
	}
	write(0)
	write(1)
	deadline := time.Now().Add(20 * time.Second)
	for n := 0; n < 2; {
		if err := hold.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox'::regclass`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait for the lock, want 2", n)
		}
	}
	for i := range rows[2:] {
		write(2 + i)
	}
	for most := time.Now().Add(100 * time.Millisecond); postgres.Waiting(db) < len(rows)-2 && time.Now().Before(most); { // less than their patience
		runtime.Gosched()
	}
	exec("COMMIT")
	all.Wait()
	return errs
}

// rowsOf makes so many tenants, and rows of theirs in turn.
func rowsOf(t *testing.T, db *postgres.DB, tenants, n int) (rows []outboxRow) {
	t.Helper()
	ids := make([]uuid.UUID, tenants)
	for i := range ids {
		ids[i] = uuid.New()
		if err := db.InTenant(t.Context(), ids[i], func(tx postgres.DBTX) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, $2, $2, $2)`, ids[i], ids[i].String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		rows = append(rows, outboxRow{ids[i%tenants], uuid.New(), "x"})
	}
	return rows
}

// transactions counts those that wrote these rows; 0 of a row that isn't there.
func transactions(t *testing.T, conn *pgx.Conn, rows []outboxRow) map[int64]int {
	t.Helper()
	out := map[int64]int{}
	for _, r := range rows {
		var xmin int64
		err := conn.QueryRow(t.Context(), `SELECT xmin::text::bigint FROM outbox WHERE tenant_id = $1 AND id = $2`, r.Tenant, r.ID).Scan(&xmin)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		out[xmin]++
	}
	return out
}

type countRow struct{ N int }

// opened is a database as the gateway serves from it, and its owner's connection.
func opened(t *testing.T) (*postgres.DB, *pgx.Conn) {
	t.Helper()
	dsn := pgtest.DSN(t)
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return db, conn
}

// Batches that wait at the same moment share a transaction, and each still is
// its own tenant's: row-level security lets none see another's row.
func TestRunTogether(t *testing.T) {
	t.Parallel()
	db, conn := opened(t)
	rows := rowsOf(t, db, 3, 24)
	seen := make([]countRow, len(rows))
	var foreign [24]countRow
	errs := together(t, db, conn, rows, func(i int) uuid.UUID { return rows[i].ID }, func(i int, b *postgres.Batch) {
		postgres.QueueOne(b, `SELECT count(*)::int FROM outbox WHERE id = $1`, struct{ ID uuid.UUID }{rows[i].ID}, &seen[i])
		postgres.QueueOne(b, `SELECT count(*)::int FROM outbox WHERE tenant_id <> $1`, struct{ ID uuid.UUID }{rows[i].Tenant}, &foreign[i])
	})
	for i, err := range errs {
		if err != nil || seen[i].N != 1 || foreign[i].N != 0 {
			t.Errorf("%d: %v, sees %d rows of its own and %d of others", i, err, seen[i].N, foreign[i].N)
		}
	}
	if n := transactions(t, conn, rows); n[0] > 0 || len(n) > 4 {
		t.Errorf("24 rows by transaction: %v, want all in two of one row and one or two of the others", n)
	}
}

// What is refused of one fails it alone, and a reading that fails is its own.
func TestRunTogetherFailsAlone(t *testing.T) {
	t.Parallel()
	db, conn := opened(t)
	rows := rowsOf(t, db, 2, 12)
	foreign := slices.IndexFunc(rows, func(r outboxRow) bool { return r.Tenant != rows[0].Tenant })
	refused, stranger, blind := 5, 6, 7
	var none countRow
	errs := together(t, db, conn, rows, func(i int) uuid.UUID { return rows[i].ID }, func(i int, b *postgres.Batch) {
		switch i {
		case refused:
			b.Queue(`SELECT require(false, $1)`, struct{ Code string }{postgres.RefusedState})
		case stranger:
			other := rows[foreign]
			if other.Tenant == rows[i].Tenant {
				other = rows[0]
			}
			b.Queue(addOutbox, outboxRow{other.Tenant, uuid.New(), "not mine"})
		case blind:
			postgres.QueueOne(b, `SELECT 1 WHERE $1 = 'never'`, struct{ Never string }{"now"}, &none)
		}
	})
	for i, err := range errs {
		var ok bool
		switch i {
		case refused:
			ok = postgres.IsCode(err, postgres.RefusedState)
		case stranger:
			ok = postgres.IsCode(err, "42501")
		case blind:
			ok = postgres.IsNotFound(err)
		default:
			ok = err == nil
		}
		if !ok {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := transactions(t, conn, rows); n[0] != 2 {
		t.Errorf("rows by transaction: %v, want all but the two that were refused", n)
	}
	if n := transactions(t, conn, []outboxRow{rows[refused], rows[stranger]}); n[0] != 2 {
		t.Errorf("of the refused ones: %v", n)
	}
}

// What one can't read, and what its reading does, is its own: all are committed,
// and all others are told so.
func TestRunTogetherReadsApart(t *testing.T) {
	t.Parallel()
	db, conn := opened(t)
	rows := rowsOf(t, db, 2, 12)
	read := make([]countRow, len(rows))
	errs := together(t, db, conn, rows, func(i int) uuid.UUID { return rows[i].ID }, func(i int, b *postgres.Batch) {
		switch i % 4 {
		case 0:
			postgres.QueueOne(b, `SELECT nullif($1::int, 1)`, struct{ One int32 }{1}, &read[i])
		case 1:
			b.QueueRows(`SELECT $1::int`, struct{ One int32 }{1}, func(pgx.Rows) error { panic("of one") })
		default:
			postgres.QueueOne(b, `SELECT $1::int`, struct{ One int32 }{1}, &read[i])
		}
	})
	for i, err := range errs {
		ok := err == nil && read[i].N == 1
		switch i % 4 {
		case 0:
			_, ok = errors.AsType[pgx.ScanArgError](err)
		case 1:
			_, ok = errors.AsType[*observe.Panic](err)
		}
		if !ok {
			t.Errorf("%d: %v, read %d", i, err, read[i].N)
		}
	}
	if n := transactions(t, conn, rows); n[0] > 0 || len(n) > 4 {
		t.Errorf("rows by transaction: %v, want all in few", n)
	}
}

// A value of one that can't be written to Postgres is its own: all others are
// committed.
func TestRunTogetherWritesApart(t *testing.T) {
	t.Parallel()
	db, conn := opened(t)
	rows := rowsOf(t, db, 2, 12)
	errs := together(t, db, conn, rows, func(i int) uuid.UUID { return rows[i].ID }, func(i int, b *postgres.Batch) {
		if i == 5 {
			b.Queue(`SELECT $1::int`, struct{ Many int64 }{1 << 40})
		}
	})
	for i, err := range errs {
		if (err != nil) != (i == 5) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := transactions(t, conn, rows); n[0] != 1 {
		t.Errorf("rows by transaction: %v, want all but one", n)
	}
}

// Where the last of a group is refused amid what it reads, and can't read that
// either, nobody is told that he was committed who was not.
func TestRunTogetherRefusedAmidRows(t *testing.T) {
	t.Parallel()
	db, conn := opened(t)
	rows := rowsOf(t, db, 1, 8)
	last := 3
	rows[last].ID = uuid.Max // groups take rows in this order
	errs := together(t, db, conn, rows, func(i int) uuid.UUID { return rows[i].ID }, func(i int, b *postgres.Batch) {
		if i == last {
			b.QueueRows(`SELECT 1 / ($1::int - n) FROM generate_series(1, 2) n`, struct{ N int32 }{2}, func(rows pgx.Rows) error {
				rows.Next()
				return errors.New("can't read that")
			})
		}
	})
	for i, err := range errs {
		if there := transactions(t, conn, rows[i:i+1])[0] == 0; there != (err == nil) {
			t.Errorf("%d: told %v, committed: %t", i, err, there)
		}
	}
	if errs[last] == nil {
		t.Error("the last one was told nothing")
	}
}

// Of batches about the same a group has one: two in one group would hold the
// rows of the first, while the second waits for a group that waits for those.
func TestRunTogetherOneOfEach(t *testing.T) {
	t.Parallel()
	db, conn := opened(t)
	rows := rowsOf(t, db, 1, 6)
	errs := together(t, db, conn, rows, func(int) uuid.UUID { return rows[0].ID }, func(int, *postgres.Batch) {})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n := transactions(t, conn, rows); n[0] > 0 || len(n) != len(rows) {
		t.Errorf("rows by transaction: %v, want each in its own", n)
	}
}

// blocked waits for hold's lock, and writes r.
func blocked(db *postgres.DB, r outboxRow) *postgres.Batch {
	b := db.NewBatch(r.Tenant)
	b.Queue(`SELECT pg_advisory_xact_lock_shared($1)`, struct{ Lock int64 }{1})
	b.Queue(addOutbox, r)
	return b
}

// waiting returns once so many wait for hold's lock.
func waiting(t *testing.T, hold *pgx.Conn, want int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for n := 0; n < want; {
		if err := hold.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait for the lock, want %d", n, want)
		}
	}
}

// Whoever waits for a lock keeps nobody waiting for long, neither in both lanes
// nor in a group; and is done once the lock is free.
func TestRunTogetherHasLittlePatience(t *testing.T) {
	t.Parallel()
	db, hold := opened(t)
	if _, err := hold.Exec(t.Context(), `SELECT pg_advisory_lock(1)`); err != nil {
		t.Fatal(err)
	}
	rows := rowsOf(t, db, 4, 12)
	errs := make([]error, len(rows))
	var stuck, others sync.WaitGroup
	for i, r := range rows[:2] {
		stuck.Go(func() { errs[i] = db.RunTogether(t.Context(), blocked(db, r), r.ID) })
	}
	waiting(t, hold, 2)
	stuck.Go(func() { errs[2] = db.RunTogether(t.Context(), blocked(db, rows[2]), rows[2].ID) })
	for i, r := range rows[3:] {
		others.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // less than the server's time for a lock
			defer cancel()
			b := db.NewBatch(r.Tenant)
			b.Queue(addOutbox, r)
			errs[3+i] = db.RunTogether(ctx, b, r.ID)
		})
	}
	others.Wait()
	if _, err := hold.Exec(t.Context(), `SELECT pg_advisory_unlock(1)`); err != nil {
		t.Fatal(err)
	}
	stuck.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n := transactions(t, hold, rows); n[0] > 0 {
		t.Errorf("rows by transaction: %v", n)
	}
}

// Nobody waits longer than he may, alone or in a group.
func TestRunTogetherEndsInTime(t *testing.T) {
	t.Parallel()
	db, hold := opened(t)
	if _, err := hold.Exec(t.Context(), `SELECT pg_advisory_lock(1)`); err != nil {
		t.Fatal(err)
	}
	rows := rowsOf(t, db, 2, 5)
	errs := make([]error, len(rows))
	var all sync.WaitGroup
	for i, r := range rows {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			defer cancel()
			errs[i] = db.RunTogether(ctx, blocked(db, r), r.ID)
		})
	}
	all.Wait()
	for i, err := range errs {
		if !errors.Is(err, context.DeadlineExceeded) || !postgres.Unavailable(err) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// Of a group whose connection ends before it is heard, nobody is told that it
// was committed or refused, and nothing is run again.
func TestRunTogetherLosesItsConnection(t *testing.T) {
	t.Parallel()
	db, hold := opened(t)
	ctx, over := context.WithCancel(t.Context())
	defer over()
	killer, err := pgx.ConnectConfig(ctx, hold.Config())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for ctx.Err() == nil {
			_, _ = killer.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`)
		}
	}()
	rows := rowsOf(t, db, 2, 8)
	errs := together(t, db, hold, rows, func(i int) uuid.UUID { return rows[i].ID }, func(i int, b *postgres.Batch) {
		if i > 1 {
			b.Queue(`SELECT pg_sleep($1)`, struct{ Seconds float64 }{4})
		}
	})
	for i, err := range errs {
		if i > 1 && err == nil || err != nil && (postgres.Refused(err) || errors.Is(err, postgres.ErrNotAsked) || !postgres.Unavailable(err)) {
			t.Errorf("%d: %v", i, err)
		}
		if n := transactions(t, hold, rows[i:i+1]); (n[0] == 0) != (err == nil) {
			t.Errorf("%d: told %v, in transactions %v", i, err, n)
		}
	}
}
