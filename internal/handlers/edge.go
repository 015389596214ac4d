// Package handlers is the REST surface: the edge that every request passes,
// and one file for each resource that only translates between our shapes and
// the packages below. It is the only package that knows Echo.
//
// A handler is typed in, typed out: it returns an error and never a status.
// Nothing here may decide what WeChat is told, keep state between requests
// (but for limits), or show an error's cause to a caller.
package handlers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/tenant"
)

// Config is what the edge is made of. Server, Authenticate, Ready, Log and
// Metrics are needed.
type Config struct {
	// Server answers the operations of the contract.
	Server oapi.StrictServerInterface
	// Authenticate verifies a key and says whose it is. admin tells which
	// surface was asked; should it return a caller of the other one, the edge
	// turns that away: a tenant's key gets 404 on the admin surface, an
	// operator's 401 elsewhere. It returns problem errors: token_invalid,
	// token_expired, key_revoked, tenant_suspended; storage_unavailable when
	// it can't tell.
	Authenticate func(ctx context.Context, bearer string, admin bool) (tenant.Caller, error)
	// Public adds the routes outside the contract: WeChat's pushes, the pages
	// of authorisation links, the published keys.
	Public func(e *echo.Echo)
	// Ready says why this process can't serve, or nil.
	Ready   func(ctx context.Context) error
	Log     *slog.Logger
	Metrics *observe.Metrics

	PublicURL string // what browsers see; problem types and doc_url begin with it
	// AllowedOrigin says whether pages of this origin may call us: for the
	// tenant of CallerFrom(ctx), or, before the key is known, for any tenant.
	AllowedOrigin    func(ctx context.Context, origin string) bool
	LocalhostOrigins bool           // `gateway dev`: pages on any port of localhost may call
	TrustedProxies   []netip.Prefix // whose X-Forwarded-For is believed; none: the peer is the client
	Docs             bool           // serve the Swagger page

	KeyRate     tenant.RateLimit // of a key that has none of its own; default 100/s, burst 200
	TenantRate  float64          // requests a second of a tenant that has no limit of its own; default 1,000
	MaxInFlight int              // requests at the same time; default 512
}

// An Edge is the HTTP surface of a process.
type Edge struct {
	*echo.Echo
	cfg        Config
	operations map[string]*operation // by method and route template
	fixed      http.Header           // on every answer
	problems   problems
	admission  admission
	limits     *limits
	failures   *failures
	stopping   atomic.Bool
}

// New builds the surface. It fails when the contract and the routes made from
// it disagree, or when a setting is missing.
func New(cfg Config) (*Edge, error) {
	if cfg.Server == nil || cfg.Authenticate == nil || cfg.Ready == nil || cfg.Log == nil || cfg.Metrics == nil {
		return nil, errors.New("handlers: Server, Authenticate, Ready, Log and Metrics are needed")
	}
	if cfg.KeyRate.PerSecond <= 0 {
		cfg.KeyRate = tenant.RateLimit{PerSecond: 100, Burst: 200}
	}
	if cfg.TenantRate <= 0 {
		cfg.TenantRate = 1000
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 512
	}
	operations, err := loadContract(api.Spec)
	if err != nil {
		return nil, err
	}
	e := &Edge{
		Echo: echo.New(), cfg: cfg, operations: operations, fixed: fixedHeaders(cfg.PublicURL),
		problems:  problems{base: strings.TrimSuffix(cfg.PublicURL, "/") + "/docs/problems/"},
		admission: newAdmission(cfg.MaxInFlight, longestQueue),
		limits:    newLimits(cfg),
		failures:  newFailures(),
	}
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = ipExtractor(cfg.TrustedProxies)
	e.HTTPErrorHandler = e.answerError
	e.Use(e.observe, e.outer)

	v1 := e.Group("/v1", e.inner)
	oapi.RegisterHandlersWithOptions(v1, oapi.NewStrictHandler(cfg.Server, nil), oapi.RegisterHandlersOptions{})
	e.health()
	if err := e.docs(); err != nil {
		return nil, err
	}
	if cfg.Public != nil {
		cfg.Public(e.Echo)
	}
	return e, e.compareRoutes()
}

// Stop makes the surface refuse new API requests with 503 shutting_down and
// say that it is not ready. Requests under way go on. Pushes from WeChat are
// still taken: they are safe to repeat, and WeChat gives up after three tries.
func (e *Edge) Stop() { e.stopping.Store(true) }

// compareRoutes fails when an operation of the contract has no route.
func (e *Edge) compareRoutes() error {
	routed := map[string]bool{}
	for _, r := range e.Routes() {
		routed[r.Method+" "+r.Path] = true
	}
	for key := range e.operations {
		if !routed[key] {
			return errors.New("handlers: the contract has " + key + ", and no route does")
		}
	}
	return nil
}

// outer is passed by every request, whatever its route.
func (e *Edge) outer(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		maps.Copy(c.Response().Header(), e.fixed)
		if len(r.TransferEncoding) > 0 {
			// net/http hides a Content-Length that stood beside it: what a proxy
			// took for the end of the body, and we don't, must not be read as
			// somebody else's request (RFC 9112 §6.1).
			c.Response().Header().Set("Connection", "close")
		}
		if err := checkTarget(r); err != nil {
			return err
		}
		if r.Method == http.MethodOptions && strings.HasPrefix(r.URL.Path, "/v1/") {
			return e.preflight(c)
		}
		return next(c)
	}
}

// inner is passed by every request below /v1, in this order: how much there
// is to do, who asks, how often, for what, and whether it can be read. The
// validator comes after it.
func (e *Edge) inner(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		s := stateOf(c.Request().Context())
		e.corsHeaders(c)
		if e.stopping.Load() {
			c.Response().Header().Set("Connection", "close")
			return errShuttingDown
		}
		if err := e.admission.enter(c.Request().Context()); err != nil {
			return err
		}
		defer e.admission.leave()
		s.operation = e.operations[c.Request().Method+" "+c.Path()]
		if err := e.authenticate(c, s); err != nil {
			return err
		}
		e.privateHeaders(c, s)
		if err := e.limits.take(c, s); err != nil {
			return err
		}
		if s.operation == nil {
			return e.noOperation(c)
		}
		if s.operation.deprecation != "" {
			c.Response().Header().Set("Deprecation", s.operation.deprecation)
		}
		if err := s.operation.authorize(s.caller); err != nil {
			return err
		}
		s.takeParams(c)
		if err := s.operation.readable(c); err != nil {
			return err
		}
		if err := s.operation.validate(s, c.Request()); err != nil {
			return err
		}
		s.validate = s.operation.validateOnly(c)
		if err := next(c); !errors.Is(err, ledger.ErrValid) {
			return err
		}
		return answerValid(c, s)
	}
}
