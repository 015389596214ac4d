// Package problem is the one error type that crosses our layers: a kind, a
// stable code and a sentence that is safe to show. handlers turns it into
// application/problem+json in one place.
//
// It imports nothing of ours, and what it shows must never hold a secret, a
// token or an upstream URL: those belong in Err, which is only logged, after
// scrubbing.
package problem

import (
	"errors"
	"fmt"
	"time"
)

// A Kind is the category of an error; handlers maps each to one HTTP status.
type Kind uint8

// The kinds. Malformed: the request can't be read. Invalid: it was read, and
// a field breaks a rule (design api.md §4).
const (
	Internal Kind = iota
	Malformed
	Unauthenticated
	Forbidden
	NotFound
	MethodNotAllowed
	NotAcceptable
	Conflict
	Gone
	PreconditionFailed
	TooLarge
	UnsupportedMedia
	Invalid
	RateLimited
	Upstream
	Unavailable
)

// A Field says which member of the request broke which rule.
type Field struct {
	Pointer string // RFC 6901, or the name of a header, path or query parameter
	Code    string // too_long, required, …
	Detail  string
}

// UpstreamError is what WeChat said. Msg is scrubbed and cut by whoever fills it.
type UpstreamError struct {
	Endpoint string // "store.add", never a URL
	Errcode  int64
	Errmsg   string
	RID      string // WeChat's request id, to be quoted to its support
}

// An Error is a failure that a caller may see. Code is the contract; Detail
// is for people. Err is for the log alone.
type Error struct {
	Kind        Kind
	Code        string
	Detail      string // replaces the catalogue's sentence when set
	Fields      []Field
	Retryable   bool
	RetryAfter  time.Duration // 0: unknown
	OperationID string        // op_…, once one exists
	Upstream    *UpstreamError
	Extra       map[string]any // further members of the problem document
	Err         error
}

// New makes an Error of kind and code with the catalogue's own sentence.
func New(kind Kind, code string) *Error { return &Error{Kind: kind, Code: code} }

// Newf is New with a sentence of its own. It must not carry secrets.
func Newf(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// WithErr returns a copy that remembers cause for the log.
func (e *Error) WithErr(cause error) *Error {
	c := *e
	c.Err = cause
	return &c
}

// WithFields returns a copy that names fields.
func (e *Error) WithFields(fields ...Field) *Error {
	c := *e
	c.Fields = fields
	return &c
}

// With returns a copy with a further member of the problem document.
func (e *Error) With(name string, value any) *Error {
	c := *e
	c.Extra = make(map[string]any, len(e.Extra)+1)
	for k, v := range e.Extra {
		c.Extra[k] = v
	}
	c.Extra[name] = value
	return &c
}

// Error is for logs: the code, the sentence, and the cause.
func (e *Error) Error() string {
	s := e.Code
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// As finds the Error in err's chain.
func As(err error) (*Error, bool) {
	return errors.AsType[*Error](err)
}

// HasCode reports whether err's chain holds an Error of this code.
func HasCode(err error, code string) bool {
	p, ok := As(err)
	return ok && p.Code == code
}

// Wrap puts what was being done before *err, once, where a function returns:
//
//	defer problem.Wrap(&err, "tenant.Create(%q)", name)
//
// The arguments must not be secrets.
func Wrap(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf(format+": %w", append(args, *err)...)
	}
}
