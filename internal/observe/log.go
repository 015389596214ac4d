// Package observe is how a running gateway is seen from outside: structured
// logs, Prometheus metrics, and the handler of the admin listener with health,
// metrics and profiles.
//
// It must never show a secret: every log value passes the scrubber, metrics
// have no label that a caller can choose freely, and profiles are served on
// the admin listener only.
package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// NewLogger makes the JSON logger of the process. level is debug, info, warn
// or error. Messages are constants; keys are snake_case; values are scrubbed.
func NewLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	lines, _ := w.(*Lines)
	return slog.New(scrubbing{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}), lines}), nil
}

// scrubbing takes secrets out of what it hands on. It does what a ReplaceAttr
// would, which slog calls with every attribute after making a value of it, the
// time and the level too; nearly all lines are handed on as they are.
type scrubbing struct {
	slog.Handler
	lines *Lines // that the handler writes to, if any
}

func (h scrubbing) Handle(ctx context.Context, r slog.Record) error {
	if h.lines != nil && (r.Message != RequestLine || r.Level >= slog.LevelWarn) {
		defer h.lines.Flush()
	}
	clean := !suspicious(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		clean = clean && plain(a.Value)
		return clean
	})
	if clean {
		return h.Handler.Handle(ctx, r)
	}
	out := slog.NewRecord(r.Time, r.Level, Scrub(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(scrubAttr(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h scrubbing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return scrubbing{h.Handler.WithAttrs(scrubAttrs(attrs)), h.lines}
}

func (h scrubbing) WithGroup(name string) slog.Handler {
	return scrubbing{h.Handler.WithGroup(name), h.lines}
}
