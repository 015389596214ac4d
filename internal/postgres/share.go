package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A Share is a part of the connections, kept for one use, so that none of the
// others can take all of them (Config.Split).
type Share uint8

// The shares: of the connections pushes have a tenth, the work that nobody
// waits for a fifth, and requests the rest, which is what a context has that
// says nothing.
const (
	Requests Share = iota
	Workers
	Pushes
	shares
)

// String is the share's name in pg_stat_activity, after ours.
func (s Share) String() string { return [shares]string{"requests", "workers", "pushes"}[s] }

// of is the share's part of so many connections. None is without any.
func (s Share) of(conns int32) int32 {
	workers, pushes := max(1, conns/5), max(1, conns/10)
	return [shares]int32{max(1, conns-workers-pushes), workers, pushes}[s]
}

type shareKey struct{}

// Using returns a context whose queries take their connections from s.
func Using(ctx context.Context, s Share) context.Context {
	return context.WithValue(ctx, shareKey{}, s)
}

func shareOf(ctx context.Context) Share {
	s, _ := ctx.Value(shareKey{}).(Share)
	return s
}

func (db *DB) pool(ctx context.Context) *pgxpool.Pool {
	return db.pools[shareOf(ctx)%Share(len(db.pools))]
}

// ErrNotAsked is of what failed before the database was asked anything: there
// was no connection to be had.
var ErrNotAsked = errors.New("no connection to the database")

// longestWait is how long a request or a push waits for a connection of its
// share. Work that nobody waits for waits as long as it may take.
const longestWait = 2 * time.Second

// acquire takes a connection of ctx's share, which must be released. Errors:
// ErrNotAsked.
func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	wait := ctx
	if len(db.pools) > 1 && shareOf(ctx) != Workers {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, longestWait)
		defer cancel()
	}
	conn, err := db.pool(ctx).Acquire(wait)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotAsked, err)
	}
	return conn, nil
}

// with runs do on a connection of ctx's share.
func (db *DB) with(ctx context.Context, do func(*pgxpool.Conn) error) error {
	conn, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return do(conn)
}
