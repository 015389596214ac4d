package handlers

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/problem"
)

// Limits of the request target (design security.md §9).
const (
	maxPath  = 2 << 10
	maxQuery = 4 << 10
)

// singleHeaders may be sent once: of two values nobody can say which counts.
var singleHeaders = []string{"Merchant-Id", "Idempotency-Key", "Content-Type", "Content-Encoding", "If-Match"}

// listHeaders are lists, which may be sent in several lines (RFC 9110 §5.3).
var listHeaders = []string{"Accept", "If-None-Match"}

// promiseHeaders are relied on by whoever sends them with a write: that it has
// one effect, or none on what has changed. An operation that would not keep the
// promise doesn't begin.
var promiseHeaders = []string{"Idempotency-Key", "If-Match"}

// checkTarget refuses targets that nobody needs: very long ones, and those
// that name a host, by which a proxy before us may have been deceived.
func checkTarget(r *http.Request) error {
	if r.URL.Host != "" {
		return badParameter(stateOf(r.Context()), "path", ruleInvalid, "")
	}
	if len(r.URL.EscapedPath()) > maxPath {
		return badParameter(stateOf(r.Context()), "path", ruleTooLong, "2048")
	}
	if len(r.URL.RawQuery) > maxQuery {
		return badParameter(stateOf(r.Context()), "query", ruleTooLong, "4096")
	}
	return nil
}

// readable checks what the validator can't: repeated headers and query
// parameters, names of query parameters, media types, and the bytes of the
// body. Afterwards the body is in memory, one JSON object, or a form's parts.
func (o *operation) readable(c echo.Context) error {
	r := c.Request()
	s := stateOf(r.Context())
	for _, name := range singleHeaders {
		if len(r.Header[name]) > 1 {
			return badParameter(s, name, ruleRepeated, "")
		}
	}
	for _, name := range promiseHeaders {
		if r.Method != http.MethodGet && len(r.Header[name]) > 0 && !o.takesHeader(name) {
			return badParameter(s, name, ruleUnknownParameter, "")
		}
	}
	for _, name := range listHeaders {
		if lines := r.Header[name]; len(lines) > 1 {
			r.Header.Set(name, strings.Join(lines, ", "))
		}
	}
	if !acceptsJSON(r.Header.Get("Accept")) {
		return problem.Of(problem.CodeNotAcceptable)
	}
	if r.URL.RawQuery != "" {
		s.query = c.QueryParams() // once: the generated code asks for the same
		if err := o.readableQuery(s, r); err != nil {
			return err
		}
	}
	switch {
	case !o.hasBody:
		return readNoBody(s, r)
	case r.Header.Get("Content-Encoding") != "":
		return problem.Of(problem.CodeUnsupportedMediaType) // it could be a bomb
	case o.form != nil:
		return o.readForm(c, s)
	}
	return o.readBody(c, s)
}

// readableQuery refuses parameters that the operation doesn't have or that
// can't be told apart, and names with them every other one that is wrong.
func (o *operation) readableQuery(s *state, r *http.Request) error {
	if strings.ContainsAny(r.URL.RawQuery, "%;") { // by nothing else can a query be broken, and Echo wouldn't say so
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			return badParameter(s, "query", ruleEncoding, "")
		}
	}
	f := findings{state: s}
	for name, values := range s.query {
		switch {
		case !o.query[name]:
			f.parameter(clipName(name), ruleUnknownParameter, "")
		case len(values) > 1 && !o.lists[name]:
			f.parameter(name, ruleRepeated, "")
		case !utf8.ValidString(values[0]):
			f.parameter(name, ruleEncoding, "")
		}
	}
	if f.parameters == nil {
		return nil
	}
	f.checkParameters(r)
	slices.SortFunc(f.parameters, func(a, b problem.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
	return problem.Of(problem.CodeInvalidParameter).WithFields(firstFields(f.parameters)...)
}

// readNoBody refuses a body where the operation takes none: nobody would read
// it, and what its sender meant by it would be lost without a word. An empty
// object says nothing, and some clients always send one.
func readNoBody(s *state, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	const most = 16 // an empty object with some blanks
	head, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	if err != nil {
		return malformed(s, ruleCutOff, "").WithErr(err)
	}
	text := bytes.TrimSpace(head)
	if len(head) > most || len(text) > 0 && string(text) != "{}" || r.Header.Get("Content-Encoding") != "" {
		return badParameter(s, "body", ruleNoBody, "")
	}
	return nil
}

// readBody reads the whole body, at most maxBody bytes, and scans it.
func (o *operation) readBody(c echo.Context, s *state) error {
	r := c.Request()
	if r.ContentLength > maxBody {
		c.Response().Header().Set("Connection", "close")
		return problem.Of(problem.CodeBodyTooLarge)
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problem.Of(problem.CodeBodyTooLarge)
		}
		return malformed(s, ruleCutOff, "").WithErr(err)
	}
	if len(body) == 0 && !o.needBody {
		return nil
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return problem.Of(problem.CodeUnsupportedMediaType)
	}
	if err := scan(body); err != nil {
		e, ok := errors.AsType[*scanError](err)
		if !ok {
			return err
		}
		switch {
		case e.repeated:
			return problem.Of(problem.CodeDuplicateField).WithFields(field(s, e.pointer, ruleRepeated, ""))
		case e.nul:
			return problem.Of(problem.CodeValidationFailed).WithFields(field(s, e.pointer, ruleNUL, ""))
		}
		return malformed(s, ruleSyntax, e.Error())
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
	// The validator looks media types up by their exact text.
	r.Header.Set("Content-Type", "application/json")
	return nil
}

// isJSON takes application/json, alone or with charset=utf-8.
func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

// acceptsJSON reports whether an Accept header lets us answer.
func acceptsJSON(accept string) bool {
	if accept == "" || strings.Contains(accept, "*/*") || strings.Contains(accept, "application/json") {
		return true
	}
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "application/*", "*/*", "application/json", "application/problem+json":
			return true
		}
	}
	return false
}

// clipName keeps what a caller may invent short.
func clipName(name string) string { return string(appendToken(nil, name)) }
