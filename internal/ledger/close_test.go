package ledger

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A call that WeChat doesn't answer keeps no process from ending.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &Ledger{Deps: Deps{Log: slog.New(slog.DiscardHandler)}}
		l.ctx, l.stop = context.WithCancel(t.Context())
		answer := make(chan struct{})
		l.work.Go(func() { <-answer })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		l.Close(ctx)
		if took := time.Since(begun); took != 10*time.Second+stopFor {
			t.Errorf("Close took %s", took)
		}
		close(answer)
	})
}
