// Package spectest holds a gateway to its contract while tests use it. A
// Recorder sits in the client (an http.RoundTripper), so it works with a
// handler in the process and with the built binary alike: it compares every
// answer with api/openapi.yaml and notes which operation answered what.
// Check then says what the contract promises and no test ever saw.
//
// It is for tests only and must never be part of the gateway.
package spectest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/mendian/mendian/api"
)

// FileVariable names the file to which recorders append what they see, one
// JSON object a line. Test binaries of many packages, and many processes, may
// append to the same file.
const FileVariable = "MENDIAN_SPECTEST_FILE"

// A Sighting is one answer of one operation.
type Sighting struct {
	Operation string `json:"operation"`           // operationId; empty for a path outside the contract
	Status    int    `json:"status"`              // HTTP status
	Code      string `json:"code,omitempty"`      // of a problem document
	Violation string `json:"violation,omitempty"` // what the contract does not allow
}

// contract is the specification with its router, read once.
var contract = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// A Recorder is a RoundTripper that holds answers to the contract.
type Recorder struct {
	base   http.RoundTripper
	report func(string) // nil: violations are only recorded
	file   string

	mu   sync.Mutex
	seen map[Sighting]bool
}

// Transport records what comes through base (http.DefaultTransport when nil):
// in memory, and in the file that FileVariable names.
func Transport(base http.RoundTripper) *Recorder {
	if base == nil {
		base = http.DefaultTransport
	}
	return &Recorder{base: base, file: os.Getenv(FileVariable), seen: map[Sighting]bool{}}
}

// For is Transport for one test, which fails at once where an answer breaks
// the contract.
func For(t testing.TB, base http.RoundTripper) *Recorder {
	r := Transport(base)
	r.report = func(violation string) { t.Errorf("contract: %s", violation) }
	return r
}

// Strict is For without a record: for tests whose answers come from stubs,
// which prove nothing about the operations themselves.
func Strict(t testing.TB, base http.RoundTripper) *Recorder {
	r := For(t, base)
	r.file = ""
	return r
}

// Seen is what was recorded in memory.
func (r *Recorder) Seen() []Sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Sighting
	for s := range r.seen {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Sighting) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return out
}

// RoundTrip implements http.RoundTripper. The answer is read whole.
func (r *Recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := r.base.RoundTrip(req)
	if err != nil || !strings.HasPrefix(req.URL.Path, "/v1/") || req.Method == http.MethodOptions {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close() // it is read
	res.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if err := r.record(compare(req, res, body)); err != nil {
		return nil, err
	}
	return res, nil
}

func (r *Recorder) record(sightings []Sighting) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range sightings {
		if s.Violation != "" && r.report != nil {
			r.report(s.Operation + ": " + s.Violation)
		}
		if r.seen[s] {
			continue
		}
		r.seen[s] = true
		if r.file == "" {
			continue
		}
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(r.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(append(line, '\n')) // one write: lines of other processes don't mix in
		if closing := f.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compare holds one answer to the contract: what was seen, and one sighting
// more for each violation.
func compare(req *http.Request, res *http.Response, body []byte) []Sighting {
	router, err := contract()
	if err != nil {
		return []Sighting{{Status: res.StatusCode, Violation: err.Error()}}
	}
	s := Sighting{Status: res.StatusCode}
	var violations []string
	broken := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }

	if res.Header.Get("Request-Id") == "" {
		broken("%d: no header Request-Id", res.StatusCode)
	}
	if res.StatusCode >= 400 {
		s.Code = problemCode(res, body, broken)
	}
	route, params, err := router.FindRoute(req)
	if err == nil {
		s.Operation = route.Operation.OperationID
		against(req, res, body, route, params, s.Code, broken)
	} else if s.Code != "not_found" && s.Code != "method_not_allowed" && res.StatusCode < 500 && res.StatusCode != 401 {
		broken("%s %s is not in the contract, and answers %d %s", req.Method, req.URL.Path, res.StatusCode, s.Code)
	}
	out := []Sighting{s}
	for _, v := range violations {
		s.Violation = v
		out = append(out, s)
	}
	return out
}

// problemCode reads a problem document; every error is one.
func problemCode(res *http.Response, body []byte, broken func(string, ...any)) string {
	var p struct {
		Status    int    `json:"status"`
		Code      string `json:"code"`
		RequestID string `json:"request_id"`
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		broken("%d: Content-Type is %q, want application/problem+json", res.StatusCode, ct)
		return ""
	}
	if err := json.Unmarshal(body, &p); err != nil {
		broken("%d: %v", res.StatusCode, err)
	}
	if p.Status != res.StatusCode || p.RequestID != res.Header.Get("Request-Id") {
		broken("%d: the problem says status %d and request %s", res.StatusCode, p.Status, p.RequestID)
	}
	return p.Code
}

// against compares with the operation: status, headers, body, code, and that
// nothing is there which the contract doesn't name.
func against(req *http.Request, res *http.Response, body []byte, route *routers.Route, params map[string]string, code string, broken func(string, ...any)) {
	op := route.Operation
	if code == "method_not_allowed" {
		broken("%d: the contract has this method", res.StatusCode)
		return
	}
	listed, _ := op.Extensions["x-error-codes"].([]any)
	if code != "" && !slices.Contains(listed, any(code)) {
		broken("%d: code %s is not in x-error-codes", res.StatusCode, code)
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	options.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string {
		return "/" + strings.Join(e.JSONPointer(), "/") + ": " + e.Reason
	})
	if err := openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route},
		Status:                 res.StatusCode, Header: res.Header, Body: io.NopCloser(bytes.NewReader(body)), Options: options,
	}); err != nil {
		broken("%d: %v", res.StatusCode, err)
		return
	}
	answer := op.Responses.Status(res.StatusCode)
	if answer == nil || len(answer.Value.Content) == 0 {
		if len(body) > 0 {
			broken("%d: has a body, and the contract has none", res.StatusCode)
		}
		return
	}
	media := answer.Value.Content.Get(res.Header.Get("Content-Type"))
	if media == nil || media.Schema == nil {
		return
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		broken("%d: %v", res.StatusCode, err)
		return
	}
	for _, member := range undocumented("", media.Schema.Value, value, code != "") {
		broken("%d: %s is not in the contract", res.StatusCode, member)
	}
}

// undocumented lists members of an answer that its schema doesn't name.
// Problem documents may have members of their own on top.
func undocumented(at string, schema *openapi3.Schema, value any, open bool) []string {
	var out []string
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			switch p := schema.Properties[name]; {
			case p != nil:
				out = append(out, undocumented(at+"/"+name, p.Value, member, false)...)
			case len(schema.Properties) > 0 && !open:
				out = append(out, at+"/"+name)
			}
		}
	case []any:
		if schema.Items == nil {
			return nil
		}
		for i, item := range v {
			out = append(out, undocumented(fmt.Sprintf("%s/%d", at, i), schema.Items.Value, item, false)...)
		}
	}
	return out
}
