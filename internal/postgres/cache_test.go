package postgres

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mendian/mendian/internal/observe"
)

// A cacheBundle is a cache whose heartbeats the test sends.
type cacheBundle struct {
	*Cache[string]
	changes *Changes
	key     Key
}

func newCacheBundle() cacheBundle {
	changes := (&DB{}).NewChanges(slog.New(slog.DiscardHandler))
	return cacheBundle{NewCache[string](changes, 10, "things"), changes, Key{Tenant: uuid.New(), ID: uuid.New()}}
}

func (b cacheBundle) beat() { b.changes.handle("beat " + b.changes.self) }

func (b cacheBundle) has() bool { _, ok := b.Peek(b.key); return ok }

// An entry is believed for a minute while heartbeats come back, and for five
// seconds where they don't: a revocation counts that soon although nobody told.
func TestHowLongAnEntryIsBelieved(t *testing.T) {
	t.Parallel()
	t.Run("deaf", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newCacheBundle()
			b.Put(b.key, "v")
			time.Sleep(ttlDeaf - 1)
			if !b.has() {
				t.Error("gone before five seconds")
			}
			time.Sleep(time.Nanosecond)
			if b.has() {
				t.Error("still believed after five seconds")
			}
		})
	})
	t.Run("hearing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newCacheBundle()
			b.beat()
			b.Put(b.key, "v")
			for range 59 {
				time.Sleep(time.Second)
				b.beat()
				if !b.has() {
					t.Fatal("gone although heartbeats come")
				}
			}
			time.Sleep(time.Second)
			if b.has() {
				t.Error("still believed after a minute")
			}
		})
	})
	t.Run("falling silent", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := newCacheBundle()
			b.beat()
			b.Put(b.key, "v")
			for range 10 {
				time.Sleep(time.Second)
				b.beat()
			}
			time.Sleep(deafAfter - 1)
			if !b.has() {
				t.Error("gone within three seconds of silence")
			}
			time.Sleep(time.Nanosecond)
			if b.has() {
				t.Error("an entry of 13 s is believed after three seconds of silence")
			}
		})
	})
	t.Run("another process's heartbeat", func(t *testing.T) {
		t.Parallel()
		b := newCacheBundle()
		b.changes.handle("beat " + uuid.NewString())
		if b.changes.Hearing() {
			t.Error("somebody else's heartbeat counts")
		}
	})
}

// A notification drops the row of its tenant, and no other.
func TestChangesDropRows(t *testing.T) {
	t.Parallel()
	b := newCacheBundle()
	other := Key{Tenant: uuid.New(), ID: b.key.ID}
	b.Put(b.key, "mine")
	b.Put(other, "theirs")
	b.changes.handle("things " + b.key.Tenant.String() + " " + b.key.ID.String())
	if _, ok := b.Peek(other); b.has() || !ok {
		t.Error("not the tenant's own row was dropped, or another one too")
	}
	b.changes.handle("others " + other.Tenant.String() + " " + other.ID.String())
	b.changes.handle("nonsense")
	if _, ok := b.Peek(other); !ok {
		t.Error("a change of another table dropped a row")
	}
	b.changes.dropAll()
	if _, ok := b.Peek(other); ok {
		t.Error("a row survived that may have changed unheard")
	}
}

// However many ask, one loads; what changed while it was loaded isn't kept.
func TestLoadOnce(t *testing.T) {
	t.Parallel()
	b := newCacheBundle()
	var loads atomic.Int64
	begun, release := make(chan struct{}), make(chan struct{})
	load := func(context.Context) (string, error) {
		if loads.Add(1) == 1 {
			close(begun)
		}
		<-release
		return "old", nil
	}
	var askers sync.WaitGroup
	for range 20 {
		askers.Go(func() {
			if v, err := b.Get(t.Context(), b.key, load); v != "old" || err != nil {
				t.Errorf("Get = %q, %v", v, err)
			}
		})
	}
	<-begun
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := b.Get(left, b.key, load); !errors.Is(err, context.Canceled) {
		t.Errorf("an asker who left: %v", err)
	}
	b.Drop(b.key)
	close(release)
	askers.Wait()
	if n := loads.Load(); n > 2 {
		t.Errorf("%d loads", n)
	}
	if loads.Load() == 1 && b.has() {
		t.Error("a row that changed while it was read is kept")
	}
}

// With the database away what was true a minute ago may be used; what it says
// is believed at once.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newCacheBundle()
		b.Put(b.key, "v")
		failing := func(err error) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { return "", err }
		}
		away := errors.New("connection refused")
		time.Sleep(ttlDeaf)
		if v, err := b.Get(t.Context(), b.key, failing(away)); v != "v" || err != nil {
			t.Errorf("with the database away: %q, %v", v, err)
		}
		for _, said := range []error{pgx.ErrNoRows, &pgconn.PgError{Code: "42501"}} {
			if _, err := b.Get(t.Context(), b.key, failing(said)); !errors.Is(err, said) {
				t.Errorf("the database said %v, Get %v", said, err)
			}
		}
		time.Sleep(ttlStale)
		if _, err := b.Get(t.Context(), b.key, failing(away)); !errors.Is(err, away) {
			t.Errorf("after a minute: %v", err)
		}
	})
}

// A load that panics fails, and the process goes on: singleflight would end it.
func TestLoadPanics(t *testing.T) {
	t.Parallel()
	b := newCacheBundle()
	_, err := b.Get(t.Context(), b.key, func(context.Context) (string, error) { panic("out of range") })
	if _, ok := errors.AsType[*observe.Panic](err); !ok {
		t.Errorf("Get() = %v, want the panic", err)
	}
}

// A row that changes while it is kept isn't kept: whichever of the two comes
// first, the change is heard.
func TestDropWhileKeeping(t *testing.T) {
	t.Parallel()
	b := newCacheBundle()
	var turn, done atomic.Int64
	const turns = 2_000
	keeps := make(chan func(string), 1)
	go func() {
		for i := range int64(turns) {
			keep := <-keeps
			turn.Store(i + 1)
			keep("before the change")
			done.Store(i + 1)
		}
	}()
	for i := range int64(turns) {
		keeps <- b.Loading(b.key)
		for turn.Load() <= i { // without a pause, which would be too long
		}
		for range i % 64 { // now sooner, now later
			_ = turn.Load()
		}
		b.Drop(b.key)
		for done.Load() <= i {
			runtime.Gosched()
		}
		if b.has() {
			t.Fatalf("turn %d: what was read before the change is believed after it", i)
		}
	}
}
