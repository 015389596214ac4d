package handlers

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// maxBearer is the longest key that is looked at: parsing a longer one would
// cost an attacker less than us.
const maxBearer = 4 << 10

// authenticate finds out who calls, before anything of the request is looked
// at more closely (design security.md §2).
func (e *Edge) authenticate(c echo.Context, s *state) error {
	admin := c.Path() == "/v1/admin" || strings.HasPrefix(c.Path(), "/v1/admin/") || strings.HasPrefix(c.Request().URL.Path, "/v1/admin/")
	err := e.identify(c, s, admin)
	if err == nil {
		return nil
	}
	p, ok := problem.As(err)
	if !ok || p.Kind != problem.Unauthenticated {
		return err
	}
	e.cfg.Metrics.AuthFailure(p.Code)
	if wait := e.failures.count(c.RealIP()); wait > 0 {
		// A valid key never comes here, so one bad client behind a shared
		// address doesn't lock out the others.
		limited := problem.Of(problem.CodeRateLimited)
		limited.RetryAfter, limited.Err = wait, err
		return limited
	}
	challenge := `Bearer realm="mendian"`
	if p.Code != problem.CodeTokenMissing {
		challenge += `, error="invalid_token"`
	}
	c.Response().Header().Set("WWW-Authenticate", challenge)
	return err
}

func (e *Edge) identify(c echo.Context, s *state, admin bool) error {
	r := c.Request()
	if strings.Contains(r.URL.RawQuery, "token=") || strings.Contains(r.URL.RawQuery, "api_key=") {
		for _, name := range []string{"access_token", "token", "api_key"} {
			if key := r.URL.Query().Get(name); key != "" {
				return e.leaked(c, s, name, key, admin)
			}
		}
	}
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0 || len(headers) == 1 && headers[0] == "":
		return problem.Of(problem.CodeTokenMissing)
	case len(headers) > 1:
		return badParameter(s, "Authorization", ruleRepeated, "")
	}
	scheme, bearer, _ := strings.Cut(headers[0], " ")
	switch {
	case !strings.EqualFold(scheme, "bearer") || bearer == "":
		return problem.Of(problem.CodeTokenInvalid).WithFields(field(s, "Authorization", ruleScheme, ""))
	case len(bearer) > maxBearer || strings.ContainsAny(bearer, " ,\t"):
		return problem.Of(problem.CodeTokenInvalid)
	}
	caller, err := e.cfg.Authenticate(r.Context(), bearer, admin)
	switch {
	case err != nil:
		return err
	case admin && !caller.Admin:
		s.caller = caller
		return problem.Of(problem.CodeNotFound) // as if the admin surface weren't there
	case !admin && caller.Admin:
		return problem.Of(problem.CodeTokenInvalid)
	}
	s.caller = caller
	return nil
}

// leaked refuses a key that came in the query, where proxies and browsers
// write it down, and flags it in the log and the metrics when it is a real one.
func (e *Edge) leaked(c echo.Context, s *state, name, key string, admin bool) error {
	if len(key) <= maxBearer {
		if who, err := e.cfg.Authenticate(c.Request().Context(), key, admin); err == nil && who.KeyID != uuid.Nil {
			s.leakedKey = typeid.Format(typeid.Key, who.KeyID)
		}
	}
	e.cfg.Metrics.AuthFailure("key_in_query")
	return badParameter(s, name, ruleKeyInQuery, "")
}

// failures counts failed authentications by address: 20 a minute, then 429.
type failures struct {
	byAddress *lru.Cache[netip.Prefix, *rate.Limiter]
}

const failuresAMinute = 20

func newFailures() *failures {
	return &failures{memory.New[netip.Prefix, *rate.Limiter](bucketsKept)}
}

// count takes note of a failure and says how long the address has to wait, 0
// when it has not failed too often.
func (f *failures) count(ip string) time.Duration {
	key := addressKey(ip)
	limiter, ok := f.byAddress.Get(key)
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(failuresAMinute)/60, failuresAMinute)
		if other, found, _ := f.byAddress.PeekOrAdd(key, limiter); found {
			limiter = other
		}
	}
	if limiter.Allow() {
		return 0
	}
	return time.Minute / failuresAMinute
}

// addressKey is the address, of IPv6 the network of 64 bits: one client has
// all of it.
func addressKey(ip string) netip.Prefix {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // bits fit the family
	return p
}

// ipExtractor reads the client's address from X-Forwarded-For, right to left,
// as far as proxies that we trust wrote it; and from the connection where no
// proxy is trusted.
func ipExtractor(trusted []netip.Prefix) echo.IPExtractor {
	if len(trusted) == 0 {
		return echo.ExtractIPDirect()
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range trusted {
		options = append(options, echo.TrustIPRange(&net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}))
	}
	return echo.ExtractIPFromXFFHeader(options...)
}
