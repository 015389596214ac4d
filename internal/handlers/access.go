package handlers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/typeid"
)

// statusClientLeft is recorded, never sent: the client was gone before the
// answer.
const statusClientLeft = 499

// observe is the outermost layer: it gives the request its ids, turns errors
// and panics into answers, and writes the one log line and the one metric.
func (e *Edge) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		r := c.Request()
		s := &state{
			requestID: typeid.Format(typeid.Request, typeid.New()),
			method:    r.Method, url: r.URL, accept: r.Header.Get("Accept-Language"),
		}
		var parent string
		s.traceID, parent = traceparent(r.Header.Get("Traceparent"))
		h := c.Response().Header()
		h.Set("Request-Id", s.requestID)
		h.Set("Traceparent", parent)
		ctx := quota.Watch(postgres.WithTripCounter(r.Context(), e.cfg.Metrics.Trips()), s.noteQuota)
		c.SetRequest(r.WithContext(context.WithValue(ctx, stateKey{}, s)))

		if err := e.guarded(next, c); err != nil {
			c.Error(err)
		}

		status := c.Response().Status
		if errors.Is(context.Cause(r.Context()), context.Canceled) && s.problem != nil {
			status = statusClientLeft
		}
		route := c.Path()
		if route == "" || s.problem != nil && s.problem.Code == problem.CodeNotFound && s.operation == nil {
			route = "other"
		}
		end := time.Now()
		took := end.Sub(start)
		e.cfg.Metrics.RequestServed(route, methodLabel(r.Method), status, took)
		if s.problem != nil && status != statusClientLeft {
			e.cfg.Metrics.ProblemAnswered(s.problem.Code)
		}
		e.log(r.Context(), c, s, route, status, end, took)
		return nil
	}
}

// guarded turns a panic into an error. The stack goes to the log, the body of
// the request never.
func (e *Edge) guarded(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler: //nolint:errorlint // net/http panics with this very value
			panic(p) // its own way to drop a connection
		default:
			err = problem.Of(problem.CodeInternal).WithErr(&observe.Panic{Value: p, Stack: debug.Stack()})
		}
	}()
	return next(c)
}

// log writes the request's only line: no path, no query, no header, no body.
func (e *Edge) log(ctx context.Context, c echo.Context, s *state, route string, status int, end time.Time, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case status >= 500:
		level = slog.LevelError
	case route == "/healthz" || route == "/readyz":
		level = slog.LevelDebug
	}
	if !e.cfg.Log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 14)
	attrs = append(attrs, slog.String("request_id", s.requestID), slog.String("trace_id", s.traceID),
		slog.String("method", methodLabel(s.method)), slog.String("route", route), slog.Int("status", status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000), slog.String("client_ip", c.RealIP()))
	if s.caller.TenantID != uuid.Nil {
		attrs = append(attrs, slog.String("tenant_id", typeid.Format(typeid.Tenant, s.caller.TenantID)))
	}
	if s.merchant != "" {
		attrs = append(attrs, slog.String("merchant_id", s.merchant))
	}
	if s.caller.KeyID != uuid.Nil {
		attrs = append(attrs, slog.String("key_id", typeid.Format(typeid.Key, s.caller.KeyID)))
	}
	if s.leakedKey != "" {
		attrs = append(attrs, slog.String("leaked_key_id", s.leakedKey))
	}
	if s.problem != nil {
		attrs = append(attrs, slog.String("code", s.problem.Code))
	}
	if s.err != nil {
		attrs = append(attrs, slog.String("err", observe.Scrub(s.err.Error())))
	}
	if p, ok := errors.AsType[*observe.Panic](s.err); ok {
		attrs = append(attrs, slog.String("stack", observe.Scrub(string(p.Stack))))
	}
	// What a Logger would add is the place in our source, which no line shows.
	line := slog.NewRecord(end, level, observe.RequestLine, 0)
	line.AddAttrs(attrs...)
	_ = e.cfg.Log.Handler().Handle(ctx, line) // as a Logger does: nobody could be told
}

// methodLabel keeps what a caller may invent out of logs and metrics.
func methodLabel(m string) string {
	switch m {
	case "GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS":
		return m
	}
	return "other"
}

// traceparent continues a W3C trace context (version 00), or begins one: the
// trace's id, and the header that names our span in it.
func traceparent(in string) (traceID, out string) {
	var ids [24]byte
	_, _ = rand.Read(ids[:]) // never fails (crypto/rand)
	flags := "00"
	text := append(make([]byte, 0, len("00-")+32+1+16+len("-00")), "00-"...)
	if validTraceparent(in) {
		text, flags = append(text, in[3:35]...), in[53:55]
	} else {
		text = hex.AppendEncode(text, ids[8:])
	}
	text = hex.AppendEncode(append(text, '-'), ids[:8])
	out = string(append(append(text, '-'), flags...))
	return out[3:35], out
}

func validTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' ||
		s[3:35] == "00000000000000000000000000000000" || s[36:52] == "0000000000000000" {
		return false
	}
	for i := 3; i < len(s); i++ {
		c := s[i]
		if i != 35 && i != 52 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
