package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// A Panic is a panic that was caught, as an error. Its text has no stack.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Caught calls do and returns its error, or *Panic. It is for work on
// goroutines of its own, where a panic would end the process with all that
// others do in it.
func Caught(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	return do()
}

// Background is how work runs that no request waits for.
type Background struct {
	log     *slog.Logger
	metrics *Metrics
}

// NewBackground returns a Background that logs and counts there.
func NewBackground(log *slog.Logger, m *Metrics) *Background { return &Background{log, m} }

// Run calls do. An error or a panic is logged, a panic with its stack, counted,
// and goes no further: whatever is wrong with one piece of work, the process
// goes on, and so does the loop that it was part of. What fails because ctx has
// ended is no error. work names it in log and metrics, from a closed set.
func (b *Background) Run(ctx context.Context, work string, do func(context.Context) error, attrs ...slog.Attr) {
	err := Caught(func() error { return do(ctx) })
	level, outcome := slog.LevelWarn, "failed"
	switch p, panicked := errors.AsType[*Panic](err); {
	case panicked:
		level, outcome = slog.LevelError, "panicked"
		attrs = append(attrs, slog.String("stack", Scrub(string(p.Stack))))
	case err == nil:
		b.metrics.BackgroundRan(work, "done")
		return
	case ctx.Err() != nil:
		return
	}
	b.metrics.BackgroundRan(work, outcome)
	b.log.LogAttrs(context.WithoutCancel(ctx), level, "background work", append(attrs, slog.String("work", work), slog.Any("err", err))...)
}
