package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// Whoever uses up a share takes nothing from the others, and is told so before
// the database was asked.
func TestShares(t *testing.T) {
	t.Parallel()
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: pgtest.DSN(t), MaxConns: 4, Split: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	hold := func(s postgres.Share) (letGo func()) {
		held, done, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- db.InSystem(postgres.Using(context.Background(), s), func(postgres.DBTX) error {
				close(held)
				<-done
				return nil
			})
		}()
		select {
		case <-held:
		case err := <-ended:
			t.Fatal(err)
		}
		return func() {
			close(done)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	// Of four: two, one, one.
	for _, s := range []postgres.Share{postgres.Requests, postgres.Requests, postgres.Workers, postgres.Pushes} {
		defer hold(s)()
	}
	var asked sync.WaitGroup
	defer asked.Wait()
	for s, patience := range map[postgres.Share]time.Duration{postgres.Requests: time.Minute, postgres.Pushes: time.Minute, postgres.Workers: 100 * time.Millisecond} {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(postgres.Using(context.Background(), s), patience)
			defer cancel()
			err := db.Ping(ctx)
			if !errors.Is(err, postgres.ErrNotAsked) || !postgres.Unavailable(err) {
				t.Errorf("share %d: %v", s, err)
			}
			if over := ctx.Err() != nil; over != (s == postgres.Workers) {
				t.Errorf("share %d waited until its context's end: %t", s, over)
			}
		})
	}
}
