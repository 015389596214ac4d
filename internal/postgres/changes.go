package postgres

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	channel = "mendian"
	// beatEvery and deafAfter make a lost notification count for at most 5 s:
	// see Cache.
	beatEvery = time.Second
	deafAfter = 3 * time.Second
)

// Changes hears which rows changed, in this process and in others, and tells
// the caches. Triggers in the database send the notifications, so no code
// path can forget to.
//
// Once a second it sends a heartbeat through the server to itself: as long as
// that comes back, silence means that nothing changed.
type Changes struct {
	db       *DB
	log      *slog.Logger
	self     string
	lastBeat atomic.Int64 // unix nanoseconds; 0 while deaf

	mu   sync.Mutex
	subs map[string][]func(tenant, id uuid.UUID)
	drop []func()
}

// NewChanges makes a Changes that hears nothing until Run.
func (db *DB) NewChanges(log *slog.Logger) *Changes {
	return &Changes{db: db, log: log, self: uuid.NewString(), subs: map[string][]func(uuid.UUID, uuid.UUID){}}
}

// Subscribe calls fn for every change of the table. tenant is zero for tables
// that have none; id is the row's, zero where that is no UUID.
func (c *Changes) Subscribe(table string, fn func(tenant, id uuid.UUID)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[table] = append(c.subs[table], fn)
}

// OnDrop calls fn whenever notifications may have been missed.
func (c *Changes) OnDrop(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop = append(c.drop, fn)
}

// Hearing reports whether a heartbeat came back within the last three seconds.
func (c *Changes) Hearing() bool {
	t := c.lastBeat.Load()
	return t != 0 && time.Since(time.Unix(0, t)) < deafAfter
}

// Run listens until ctx ends, reconnecting as long as it takes.
func (c *Changes) Run(ctx context.Context) {
	backoff := 50 * time.Millisecond
	for ctx.Err() == nil {
		heard, err := c.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		c.lastBeat.Store(0)
		c.log.WarnContext(ctx, "listener lost its connection", "err", err)
		if heard {
			backoff = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, 2*time.Second)
	}
}

func (c *Changes) listen(ctx context.Context) (heard bool, err error) {
	cfg := c.db.pools[0].Config().ConnConfig.Copy()
	cfg.Tracer = nil
	cfg.RuntimeParams["application_name"] = "mendian listener"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return false, err
	}
	// From here on nothing is missed; what was missed before is unknown.
	c.dropAll()
	next := time.Now()
	for {
		if !time.Now().Before(next) {
			if _, err := conn.Exec(ctx, "SELECT pg_notify($1, $2)", channel, "beat "+c.self); err != nil {
				return heard, err
			}
			next = time.Now().Add(beatEvery)
		}
		wait, cancel := context.WithDeadline(ctx, next)
		n, err := conn.WaitForNotification(wait)
		cancel()
		switch {
		case err == nil:
			heard = true
			c.handle(n.Payload)
		case ctx.Err() != nil:
			return heard, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded) && !conn.IsClosed():
		default:
			return heard, err
		}
	}
}

func (c *Changes) handle(payload string) {
	table, rest, _ := strings.Cut(payload, " ")
	if table == "beat" {
		if rest == c.self {
			c.lastBeat.Store(time.Now().UnixNano())
		}
		return
	}
	first, second, _ := strings.Cut(rest, " ")
	tenant, _ := uuid.Parse(first)
	id, _ := uuid.Parse(second)
	c.mu.Lock()
	subs := c.subs[table]
	c.mu.Unlock()
	for _, fn := range subs {
		fn(tenant, id)
	}
}

func (c *Changes) dropAll() {
	c.mu.Lock()
	drop := c.drop
	c.mu.Unlock()
	for _, fn := range drop {
		fn()
	}
}
