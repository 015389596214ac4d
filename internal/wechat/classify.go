package wechat

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// A Class says what an answer, or its absence, tells of the call's execution
// (design reliability.md §2).
type Class uint8

// The classes. Ambiguous is what everything is that proves neither execution
// nor the opposite; a read that is Ambiguous has merely failed.
const (
	Ambiguous     Class = iota
	NotSent             // nothing left this machine
	Executed            // errcode 0 or absent
	Refused             // answered, and certainly not executed
	TokenRejected       // not executed; a fresh token may help
	TicketRefused       // component_verify_ticket expired or invalid
)

var classNames = [...]string{"ambiguous", "not_sent", "executed", "refused", "token_rejected", "ticket_refused"}

func (c Class) String() string { return classNames[c] }

// An Error is a call that did not succeed. It never holds a token or URL.
type Error struct {
	Endpoint string
	Class    Class
	Family   Family
	Code     int64  // WeChat's errcode; 0 when the reply was none; see Codeless
	Msg      string // errmsg without control characters, cut to 256 characters, scrubbed
	RID      string // WeChat's request id
	Err      error  // what went wrong when nothing readable came back
}

func (e *Error) Error() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("%s: %s: %v", e.Endpoint, e.Class, e.Err)
	case e.Code >= codeless:
		return fmt.Sprintf("%s: status %d %s", e.Endpoint, e.Code-codeless, e.Msg)
	default:
		return fmt.Sprintf("%s: errcode %d %s", e.Endpoint, e.Code, e.Msg)
	}
}

func (e *Error) Unwrap() error { return e.Err }

// Outage reports whether WeChat gave no answer to the call: it was not
// reached, what came can't be read, or it says that it is busy (-1). Any other
// errcode is an answer.
func (e *Error) Outage() bool {
	return e.Class == NotSent || e.Class == Ambiguous && (e.Code == 0 || e.Code == codeBusy)
}

const codeBusy = -1

// Classify reads an answer: its class and, unless it is a plain success, the
// error. An error of class Executed is a warning: goods were added, and their
// audit was not started (300021). It is the only place that decides what was
// executed.
//
// What proves nothing stays Ambiguous: a status that isn't 200, a body that
// can't be read, the busy codes, and every errcode that no document lists for
// the family.
func Classify(e *Endpoint, r Reply) (Class, *Error) {
	s := r.said
	if s == nil || s.of != e {
		s = read(e, r)
	}
	if s.err == nil {
		return s.class, nil
	}
	err := *s.err // each caller's own
	return s.class, &err
}

// said is what a reply says of a call.
type said struct {
	of    *Endpoint
	json  []byte // Reply.JSON
	held  any    // what Decode gives; nil: not read yet
	class Class
	err   *Error
}

func read(e *Endpoint, r Reply) *said {
	s := &said{of: e, json: readable(r.Body)}
	fail := func(c Class, err error) *said {
		s.class, s.err = c, &Error{Endpoint: e.Name, Class: c, Family: e.Family, Err: err}
		return s
	}
	if r.Status != 200 {
		return fail(Ambiguous, fmt.Errorf("HTTP status %d", r.Status))
	}
	h, held, err := e.answered(s.json)
	if err != nil {
		return fail(Ambiguous, err)
	}
	head, err := e.envelope.read(s.json, h, e.proof)
	if err != nil {
		return fail(Ambiguous, err)
	}
	s.held = held
	if head.code == 0 {
		s.class = Executed
		return s
	}
	if row, ok := e.Errcode(head.code); ok {
		s.class = row.Class
	}
	msg, rid := clean(head.msg)
	s.err = &Error{Endpoint: e.Name, Class: s.class, Family: e.Family, Code: head.code, Msg: msg, RID: rid}
	return s
}

var (
	ridPattern = regexp.MustCompile(`\s*rid: ([0-9a-zA-Z-]{8,64})`)
	hint       = regexp.MustCompile(`\s*hint: \[([0-9A-Za-z_ -]{4,64})\]`)
	secrets    = regexp.MustCompile(`(?i)(access_token|component_access_token|authorizer_refresh_token|refresh_token|secret|auth_code|pre_auth_code|ticket|appsecret)(=|["':= ]+)[^&"\s]+`)
)

// clean makes WeChat's text fit to show: no control characters, none that turn
// or hide what stands beside them, no secret, at most 256 characters, and its
// request id apart.
func clean(s string) (msg, rid string) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	for _, re := range []*regexp.Regexp{ridPattern, hint} {
		if m := re.FindStringSubmatch(s); m != nil {
			rid = m[1]
			s = re.ReplaceAllString(s, "")
			break
		}
	}
	s = secrets.ReplaceAllString(s, "$1=[REDACTED]")
	if r := []rune(s); len(r) > 256 {
		s = string(r[:256])
	}
	return strings.TrimSpace(s), rid
}
