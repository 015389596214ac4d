package handlers

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
)

// problems writes problem documents (RFC 9457, design api.md §4). It is the
// one place where an error becomes an answer.
type problems struct {
	base string // URL of the pages that explain codes, with a slash at the end
}

// document is a problem as it is sent. Extra members are added to it.
type document struct {
	Type       string          `json:"type"`
	Title      string          `json:"title"`
	Status     int             `json:"status"`
	Code       string          `json:"code"`
	Detail     string          `json:"detail"`
	Errors     []documentField `json:"errors"`
	RequestID  string          `json:"request_id"`
	Operation  *string         `json:"operation_id"`
	Retryable  bool            `json:"retryable"`
	RetryAfter *int64          `json:"retry_after_seconds"`
	Upstream   *documentWeChat `json:"upstream"`
	DocURL     string          `json:"doc_url"`
}

type documentField struct {
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

type documentWeChat struct {
	System   string  `json:"system"`
	Endpoint string  `json:"endpoint"`
	Errcode  int64   `json:"errcode"`
	Errmsg   string  `json:"errmsg"`
	RID      *string `json:"rid"`
}

// answerError is Echo's error handler. Whatever is no problem.Error is an
// internal error, whose text goes to the log alone.
func (e *Edge) answerError(err error, c echo.Context) {
	s := stateOf(c.Request().Context())
	p := asProblem(s, err)
	if s != noState {
		s.problem, s.err = p, p.Err
		if p.Err == nil && p.Kind == problem.Internal {
			s.err = err
		}
	}
	if c.Response().Committed {
		if s != noState {
			s.err = errors.Join(errors.New("an error after the answer had begun"), err)
		}
		return
	}
	e.problems.write(c, s, p)
}

var bindingParameter = regexp.MustCompile(`parameter '?([A-Za-z_-]{1,64})`)

// asProblem maps the errors of Echo and of the generated code, which are
// texts with a status, to codes of the catalogue.
func asProblem(s *state, err error) *problem.Error {
	if p, ok := problem.As(err); ok {
		return p
	}
	he, ok := errors.AsType[*echo.HTTPError](err)
	switch {
	case ok:
	case errors.Is(err, secret.ErrSealed):
		return problem.Of(problem.CodeSecretUnavailable).WithErr(err)
	case postgres.Unavailable(err):
		return problem.Of(problem.CodeStorageUnavailable).WithErr(err)
	default:
		return problem.Of(problem.CodeInternal).WithErr(err)
	}
	switch he.Code {
	case http.StatusNotFound:
		return problem.Of(problem.CodeNotFound)
	case http.StatusMethodNotAllowed:
		return problem.Of(problem.CodeMethodNotAllowed)
	case http.StatusRequestEntityTooLarge:
		return problem.Of(problem.CodeBodyTooLarge)
	case http.StatusUnsupportedMediaType:
		return problem.Of(problem.CodeUnsupportedMediaType)
	case http.StatusBadRequest:
		text, _ := he.Message.(string)
		if m := bindingParameter.FindStringSubmatch(text); m != nil {
			return badParameter(s, m[1], ruleInvalid, "").WithErr(err)
		}
		return malformed(s, ruleSyntax, "the body is not the JSON object that is wanted").WithErr(err)
	}
	return problem.Of(problem.CodeInternal).WithErr(err)
}

// write sends p in the caller's language.
func (ps problems) write(c echo.Context, s *state, p *problem.Error) {
	lang := s.language()
	if s == noState {
		lang = problem.Language(c.Request().Header.Get("Accept-Language"))
	}
	status := p.Kind.Status()
	d := document{
		Type: ps.base + p.Code, DocURL: ps.base + p.Code, Status: status, Code: p.Code, RequestID: s.requestID,
		Errors: make([]documentField, 0, len(p.Fields)), Retryable: p.Retryable,
	}
	d.Title, d.Detail = problem.Text(p.Code, lang)
	switch {
	case p.Detail != "" && lang == "zh" && d.Detail != "":
		d.Detail += "（" + p.Detail + "）" // sentences of one occurrence are in English
	case p.Detail != "":
		d.Detail = p.Detail
	}
	for _, f := range firstFields(p.Fields) {
		d.Errors = append(d.Errors, documentField(f))
	}
	if p.OperationID != "" {
		d.Operation = &p.OperationID
		c.Response().Header().Set("Operation-Id", p.OperationID)
	}
	if seconds := retryAfter(p); seconds > 0 {
		d.RetryAfter = &seconds
		c.Response().Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if u := p.Upstream; u != nil {
		d.Upstream = &documentWeChat{System: "wechat", Endpoint: u.Endpoint, Errcode: u.Errcode, Errmsg: u.Errmsg}
		if u.RID != "" {
			d.Upstream.RID = &u.RID
		}
	}
	h := c.Response().Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Language", lang)
	h.Add("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	body, err := marshal(d, p.Extra)
	if err != nil { // only an Extra of ours can cause it
		s.err = errors.Join(s.err, err)
		body, _ = marshal(d, nil)
	}
	c.Response().WriteHeader(status)
	if c.Request().Method != http.MethodHead {
		_, _ = c.Response().Write(body) // the client may be gone
	}
}

// marshal writes d with the further members behind its own.
func marshal(d document, extra map[string]any) ([]byte, error) {
	body, err := json.Marshal(d)
	if err != nil || len(extra) == 0 {
		return body, err
	}
	more, err := json.Marshal(extra)
	if err != nil {
		return nil, err
	}
	return append(append(body[:len(body)-1], ','), more[1:]...), nil
}

// retryAfter is how long to wait, in whole seconds. Where waiting helps and
// nobody knows how long, it is one to three: those who were turned away together
// should not come back together.
func retryAfter(p *problem.Error) int64 {
	if p.RetryAfter > 0 {
		return int64(math.Ceil(p.RetryAfter.Seconds()))
	}
	if p.Kind == problem.RateLimited || p.Kind == problem.Unavailable || p.Code == problem.CodeIdempotencyInFlight {
		return 1 + rand.Int64N(3) // #nosec G404 -- jitter
	}
	return 0
}

var errShuttingDown = &problem.Error{Kind: problem.Unavailable, Code: problem.CodeShuttingDown, Retryable: true, RetryAfter: time.Second}
