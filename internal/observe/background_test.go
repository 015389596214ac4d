package observe

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestBackground(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(&out, "info")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics()
	b := NewBackground(log, m)
	ended, end := context.WithCancel(t.Context())
	end()
	b.Run(t.Context(), "look", func(context.Context) error { return nil })
	b.Run(ended, "look", func(ctx context.Context) error { return ctx.Err() })
	if out.Len() != 0 {
		t.Errorf("nothing failed, and the log says %s", out.String())
	}
	b.Run(t.Context(), "look", func(context.Context) error { return errors.New("no answer") })
	if got := out.String(); !strings.Contains(got, `"WARN"`) || !strings.Contains(got, "no answer") || strings.Contains(got, "stack") {
		t.Errorf("an error is logged as %s", got)
	}
	out.Reset()
	b.Run(ended, "look", func(context.Context) error { return thrown() })
	if got := out.String(); !strings.Contains(got, `"ERROR"`) || !strings.Contains(got, "panic: out of range") || !strings.Contains(got, "observe.thrown") {
		t.Errorf("a panic is logged as %s", got)
	}
	got := get(t, AdminHandler(m, nil), "/metrics", http.StatusOK)
	for _, outcome := range []string{"done", "failed", "panicked"} {
		if want := `mendian_background_total{outcome="` + outcome + `",work="look"} 1`; !strings.Contains(got, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func thrown() error { panic("out of range") }
