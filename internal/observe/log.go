// Package observe is how a running gateway is seen from outside: structured
// logs, Prometheus metrics, and the handler of the admin listener with health,
// metrics and profiles.
//
// It must never show a secret: every log value passes the scrubber, metrics
// have no label that a caller can choose freely, and profiles are served on
// the admin listener only.
package observe

import (
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
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: scrubAttr})), nil
}
