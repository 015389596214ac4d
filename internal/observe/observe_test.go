package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"in a URL", `Get "http://127.0.0.1:1/wxa/add_store?access_token=CANARY&x=1": refused`, `Get "http://127.0.0.1:1/wxa/add_store?access_token=[REDACTED]&x=1": refused`},
		{"component token", "component_access_token=CANARY", "component_access_token=[REDACTED]"},
		{"in JSON", `{"authorizer_refresh_token":"CANARY-1","errcode":0}`, `{"authorizer_refresh_token=[REDACTED]","errcode":0}`},
		{"in JSON in a string", `\"access_token\": \"CANARY\"`, `\"access_token=[REDACTED]\"`},
		{"upper case", "APPSECRET: CANARY", "APPSECRET=[REDACTED]"},
		{"a space alone", "access_token CANARYCANARYCANARYCANARY", "access_token=[REDACTED]"},
		{"ticket", "component_verify_ticket='ticket@@@CANARY'", "component_verify_ticket=[REDACTED]'"},
		{"code", "/callback?auth_code=queryauthcode@@@CANARY&expires_in=3600", "/callback?auth_code=[REDACTED]&expires_in=3600"},
		{"header", "Authorization: Bearer CANARY", "Authorization=[REDACTED]"},
		{"JSON web token", "key eyJhbGciOiJFZERTQSJ9.eyJDQU5BUlkiOjF9.c2ln was refused", "key [REDACTED] was refused"},
		{"twice", Scrub(`{"secret":"CANARY"}`) + Scrub("password=CANARY x"), `{"secret=[REDACTED]"}password=[REDACTED] x`},
		{"prose survives", "ticket is stale, the secret was set, token refreshed", "ticket is stale, the secret was set, token refreshed"},
		{"ids survive", "op_01jd7k4b2tf8b5x6q0y3z8d4ef audit 525022786", "op_01jd7k4b2tf8b5x6q0y3z8d4ef audit 525022786"},
	} {
		if got := Scrub(tc.in); got != tc.want {
			t.Errorf("%s: Scrub(%q)\n got %q\nwant %q", tc.name, tc.in, got, tc.want)
		}
	}
}

func TestLoggerScrubs(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(&out, "debug")
	if err != nil {
		t.Fatal(err)
	}
	inner := errors.New("Post http://x/y?access_token=CANARY: timeout")
	log.Debug("call failed access_token=CANARY", "err", fmt.Errorf("store.add: %w", inner), "body", []byte(`{"secret":"CANARY"}`),
		"text", "refresh_token=CANARY", "n", 1)
	if got := out.String(); strings.Contains(got, "CANARY") || strings.Count(got, Redacted) != 4 {
		t.Errorf("log = %s", got)
	}
	out.Reset()
	log.With("url", "/x?access_token=CANARY").WithGroup("a").Info("in a group", slog.Group("b", "secret", "secret=CANARY"), "later", valuer{})
	if got := out.String(); strings.Contains(got, "CANARY") || strings.Count(got, Redacted) != 3 || !strings.Contains(got, `"a":{"b":{"secret":`) {
		t.Errorf("log = %s", got)
	}
	if _, err := NewLogger(&out, "loud"); err == nil {
		t.Error("NewLogger takes the level loud")
	}
	out.Reset()
	quiet, _ := NewLogger(&out, "WARN")
	quiet.Info("not shown")
	if out.Len() != 0 {
		t.Errorf("info at level warn: %s", out.String())
	}
}

// valuer says only when it is logged what it is.
type valuer struct{}

func (valuer) LogValue() slog.Value { return slog.StringValue("password=CANARY") }

func all(m *Metrics) {
	m.RequestServed("/v1/stores", "GET", 200, time.Millisecond)
	m.ProblemAnswered("not_found")
	m.AuthFailure("token_invalid")
	m.UpstreamObserved("store.add", "executed", time.Millisecond)
	m.TokenRefreshed("authorizer", "refreshed")
	m.TicketAge("ten_1", time.Minute)
	m.PushReceived("component", "stored")
	m.InboxApplied("add_store_audit_info", "applied", time.Second)
	m.BackgroundRan("reconcile operations", "done")
	m.CircuitChanged("store", "open")
	m.ReadRetried("store.list")
	m.Trips().Add(1)
}

func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	all(m)
	got := get(t, AdminHandler(m, func(context.Context) error { return nil }), "/metrics", http.StatusOK)
	var served []string
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (mendian_\w+) `).FindAllStringSubmatch(got, -1) {
		served = append(served, match[1])
	}
	page, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, match := range regexp.MustCompile("(?m)^\\| `(\\w+)`").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, match[1])
	}
	slices.Sort(documented)
	slices.Sort(served)
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("documented and served metrics differ (-documented +served):\n%s", diff)
	}
	m.TicketForgotten("ten_1")
	if got := get(t, AdminHandler(m, nil), "/metrics", http.StatusOK); strings.Contains(got, "ten_1") {
		t.Error("a closed tenant's ticket still has an age")
	}
}

func TestAdminHandler(t *testing.T) {
	t.Parallel()
	var reason error
	h := AdminHandler(NewMetrics(), func(context.Context) error { return reason })
	get(t, h, "/healthz", http.StatusOK)
	get(t, h, "/readyz", http.StatusOK)
	get(t, h, "/debug/pprof/cmdline", http.StatusOK)
	get(t, h, "/v1/me", http.StatusNotFound)
	reason = errors.New("database: password=CANARY refused")
	if got := get(t, h, "/readyz", http.StatusServiceUnavailable); strings.Contains(got, "CANARY") {
		t.Errorf("readyz = %s", got)
	}
}

func get(t *testing.T, h http.Handler, path string, want int) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != want {
		t.Errorf("GET %s = %d, want %d", path, w.Code, want)
	}
	return w.Body.String()
}

// BenchmarkLine is one line of the kind that each request writes.
func BenchmarkLine(b *testing.B) {
	log, err := NewLogger(io.Discard, "info")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		line := slog.NewRecord(time.Now(), slog.LevelInfo, "request", 0)
		line.AddAttrs(slog.String("request_id", "req_01jd7k4b2tf8b5x6q0y3z8d4ef"), slog.String("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
			slog.String("method", "GET"), slog.String("route", "/v1/stores"), slog.Int("status", 200), slog.Float64("duration_ms", 1.234),
			slog.String("client_ip", "192.0.2.1"), slog.String("tenant_id", "ten_01jd7jx5p0f3e4d5c6b7a8n9mp"),
			slog.String("merchant_id", "mch_01jd7k3v9wf4x8s2m6q0r5t1ya"), slog.String("key_id", "key_01jd7jz0m1f2c3d4e5f6g7h8jk"))
		_ = log.Handler().Handle(b.Context(), line)
	}
}

func BenchmarkScrubClean(b *testing.B) {
	for b.Loop() {
		Scrub("/v1/stores/:id answered by op_01jd7k4b2tf8b5x6q0y3z8d4ef for mch_01jd7k3v9wf4x8s2m6q0r5t1ya in 3 ms")
	}
}

// What the expressions find, the cheap test finds too.
func FuzzScrub(f *testing.F) {
	for _, s := range []string{"access_token=x", "Ticket: y", "eyJhbGciOi.x.y", "App Secret", "PASSWORD=x", "AES_KEY=x", "\u017fecret=x", "encoding_aes\u212aey=x", "Authorization: x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !suspicious(s) && (named.MatchString(s) || jwt.MatchString(s)) {
			t.Errorf("suspicious(%q) = false", s)
		}
	})
}
