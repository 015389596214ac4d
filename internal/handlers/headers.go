package handlers

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/problem"
)

// fixedHeaders are those that every answer has, whatever is asked.
func fixedHeaders(publicURL string) http.Header {
	h := http.Header{}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if strings.HasPrefix(publicURL, "https://") {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	return h
}

// Values of headers of most answers, made once.
var (
	noStore  = []string{"no-store"}
	jsonUTF8 = []string{"application/json; charset=utf-8"}
)

// privateHeaders are on every answer to an authenticated caller. What a
// handler lets be kept (Cache-Control) depends on the key and the merchant.
func (e *Edge) privateHeaders(c echo.Context, s *state) {
	res := c.Response()
	res.Before(func() {
		h := res.Header()
		if h.Get("Content-Type") == "application/json" {
			h["Content-Type"] = jsonUTF8 // before one is added: a full map of eight grows even when it is told what it has
		}
		switch h.Get("Cache-Control") {
		case "":
			h["Cache-Control"] = noStore
		case "no-store":
		default:
			h.Add("Vary", "Authorization, Merchant-Id")
		}
		s.quotaHeaders(h)
	})
}

// What browsers may send and read across origins.
const (
	corsMethods = "GET, POST, PUT, PATCH, DELETE"
	corsRequest = "Authorization, Content-Type, Merchant-Id, Idempotency-Key, If-Match, If-None-Match, Accept-Language, Traceparent"
	corsExposed = "Request-Id, ETag, Location, Link, Operation-Id, Idempotency-Replayed, Retry-After, RateLimit, RateLimit-Policy"
)

// preflight answers a browser's question before its request: exact origins
// only, never for the admin surface. Anybody else's OPTIONS is refused.
func (e *Edge) preflight(c echo.Context) error {
	r, h := c.Request(), c.Response().Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || r.Header.Get("Access-Control-Request-Method") == "" ||
		strings.HasPrefix(r.URL.Path, "/v1/admin/") || !e.allowedOrigin(c, origin) {
		return problem.Of(problem.CodeMethodNotAllowed)
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsRequest)
	h.Set("Access-Control-Max-Age", "600")
	return c.NoContent(http.StatusNoContent)
}

// corsHeaders lets pages of allowed origins read the answer. They are decided
// when it begins: by then the tenant is known, unless the key was refused, and
// then any tenant's origin may read why.
func (e *Edge) corsHeaders(c echo.Context) {
	origin := c.Request().Header.Get("Origin")
	if origin == "" || strings.HasPrefix(c.Path(), "/v1/admin") {
		return
	}
	c.Response().Header().Add("Vary", "Origin")
	c.Response().Before(func() {
		if e.allowedOrigin(c, origin) {
			c.Response().Header().Set("Access-Control-Allow-Origin", origin)
			c.Response().Header().Set("Access-Control-Expose-Headers", corsExposed)
		}
	})
}

func (e *Edge) allowedOrigin(c echo.Context, origin string) bool {
	if e.cfg.LocalhostOrigins && localhost(origin) {
		return true
	}
	return e.cfg.AllowedOrigin != nil && e.cfg.AllowedOrigin(c.Request().Context(), origin)
}

// localhost reports whether an origin is a page served on this machine.
func localhost(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" || u.RawQuery != "" {
		return false
	}
	switch u.Hostname() {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}
