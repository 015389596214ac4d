package handlers

import (
	"context"
	"net/url"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/tenant"
)

// A state is what the edge knows of one request. It travels in the request's
// context and belongs to the goroutine that serves it.
type state struct {
	requestID string
	traceID   string
	method    string
	url       *url.URL // for links to the next page
	accept    string   // Accept-Language
	operation *operation
	params    map[string]string // of the path
	query     url.Values
	caller    tenant.Caller
	merchant  string // mch_…, once a handler has resolved it
	leakedKey string // key_… that came in the query
	validate  bool   // nothing is to be done, see validateonly.go
	warnings  []problem.Field
	form      *form // of an operation that takes a file
	left      int   // requests that key and tenant may still make
	drawn     sync.Mutex
	quotas    []quota.State // of WeChat's, that the request drew on
	problem   *problem.Error
	err       error // what the log shows beside the problem
}

type stateKey struct{}

// noState serves code that runs outside a request, such as tests of handlers.
var noState = &state{}

func stateOf(ctx context.Context) *state {
	if s, ok := ctx.Value(stateKey{}).(*state); ok {
		return s
	}
	return noState
}

// CallerFrom is who makes the request of ctx: whoever authenticated. It is the
// zero Caller, which may do nothing, where nobody did.
func CallerFrom(ctx context.Context) tenant.Caller { return stateOf(ctx).caller }

// RequestID is the id of the request of ctx, req_…; empty outside one.
func RequestID(ctx context.Context) string { return stateOf(ctx).requestID }

// NoteMerchant tells the request's log line which merchant it acted for.
// id is ours, mch_…, never what the caller sent.
func NoteMerchant(ctx context.Context, id string) {
	if s := stateOf(ctx); s != noState {
		s.merchant = id
	}
}

// language of the answer, "en" or "zh".
func (s *state) language() string { return problem.Language(s.accept) }

// takeParams keeps the parameters of the path as the handler will read them.
func (s *state) takeParams(c echo.Context) {
	names := c.ParamNames()
	if len(names) == 0 {
		return
	}
	s.params = make(map[string]string, len(names))
	for i, value := range c.ParamValues() {
		if plain, err := url.PathUnescape(value); err == nil {
			value = plain
		}
		s.params[names[i]] = value
	}
}
