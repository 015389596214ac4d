package postgres

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/observe"
)

// How long an entry may be believed. While heartbeats come back silence means
// no change; when they don't, a revocation must still count within 5 s; and
// when the database can't be asked, what was true lives for a minute more.
const (
	ttlHearing = 60 * time.Second
	ttlDeaf    = 5 * time.Second
	ttlStale   = 60 * time.Second
)

// Key names a row in a Cache, by its id or, where it is found by another
// thing, by its name; both, where it is a thing of another row. The tenant comes
// first, always: no tenant can ever be answered from another one's entry.
type Key struct {
	Tenant uuid.UUID
	ID     uuid.UUID
	Name   string
}

// A Cache holds rows of one table in memory, bounded, and true: Changes drops
// what changed. Only found rows are kept.
type Cache[V any] struct {
	changes *Changes
	entries *lru.Cache[Key, entry[V]]
	loads   singleflight.Group
	drops   atomic.Int64 // counts invalidations, so that a load that raced with one isn't kept
}

type entry[V any] struct {
	value V
	at    time.Time
}

// NewCache makes a cache of at most size rows that follows the changes of the
// tables, whose notified ids are the cache's keys.
func NewCache[V any](changes *Changes, size int, tables ...string) *Cache[V] {
	c := &Cache[V]{
		changes: changes,
		entries: memory.New[Key, entry[V]](size),
	}
	for _, table := range tables {
		changes.Subscribe(table, func(tenant, id uuid.UUID) { c.Drop(Key{Tenant: tenant, ID: id}) })
	}
	changes.OnDrop(c.DropAll)
	return c
}

// Put keeps a row that was read anyway. It is for what never changes: a row
// that can must come in through Get or Loading, which see invalidations.
func (c *Cache[V]) Put(k Key, v V) { c.entries.Add(k, entry[V]{v, time.Now()}) }

// Loading is called before a row is read that can change. keep keeps what was
// read, unless an invalidation came between.
func (c *Cache[V]) Loading(k Key) (keep func(V)) {
	before, at := c.drops.Load(), time.Now()
	return func(v V) {
		if c.drops.Load() != before {
			return
		}
		c.entries.Add(k, entry[V]{v, at})
		if c.drops.Load() != before { // it came between, and found nothing to drop
			c.entries.Remove(k)
		}
	}
}

// Drop forgets one row.
func (c *Cache[V]) Drop(k Key) {
	c.drops.Add(1)
	c.entries.Remove(k)
}

// DropAll forgets every row.
func (c *Cache[V]) DropAll() {
	c.drops.Add(1)
	c.entries.Purge()
}

// Peek returns what Get would return without asking the database.
func (c *Cache[V]) Peek(k Key) (V, bool) {
	e, ok := c.entries.Get(k)
	if !ok || time.Since(e.at) >= c.ttl() {
		var zero V
		return zero, false
	}
	return e.value, true
}

func (c *Cache[V]) ttl() time.Duration {
	if c.changes.Hearing() {
		return ttlHearing
	}
	return ttlDeaf
}

// Get returns the row, from memory or by load, which runs once however many
// ask at a time. When load fails for another reason than a missing row, an
// entry of at most a minute is returned instead: the database is away, and
// reads go on as far as is honest.
func (c *Cache[V]) Get(ctx context.Context, k Key, load func(context.Context) (V, error)) (V, error) {
	if v, ok := c.Peek(k); ok {
		return v, nil
	}
	// One for each share: a push must not wait for a request's connection.
	ch := c.loads.DoChan(k.Tenant.String()+" "+strconv.Itoa(int(shareOf(ctx)))+" "+k.ID.String()+" "+k.Name, func() (any, error) {
		if v, ok := c.Peek(k); ok {
			return v, nil // loaded between our look and our turn
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		keep := c.Loading(k)
		var v V
		err := observe.Caught(func() (err error) { v, err = load(ctx); return err })
		if err != nil {
			return v, err
		}
		keep(v)
		return v, nil
	})
	var zero V
	select {
	case <-ctx.Done():
		return zero, ctx.Err()
	case r := <-ch:
		if r.Err == nil {
			return r.Val.(V), nil
		}
		if e, ok := c.entries.Get(k); ok && !answered(r.Err) && time.Since(e.at) < ttlStale {
			return e.value, nil
		}
		return zero, r.Err
	}
}

// answered reports whether the database said something, if only that there is
// no such row.
func answered(err error) bool { return IsNotFound(err) || Refused(err) }
