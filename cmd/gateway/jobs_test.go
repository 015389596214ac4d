package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/observe"
)

// A job that panics is done again when its time comes.
func TestJobAfterPanic(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := 0
	j := job{"look", time.Millisecond, func(context.Context) error {
		if n++; n == 3 {
			cancel()
			return nil
		}
		panic("out of range")
	}}
	j.run(ctx, observe.NewBackground(slog.New(slog.DiscardHandler), observe.NewMetrics()))
	if n < 3 {
		t.Errorf("done %d times, want 3", n)
	}
}
