package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/bytedance/sonic"
)

// An ID is one of WeChat's ids, kept as the digits it was given in: the same
// id is a number in one reply and a string in another, and some are over 2^53.
type ID string

// UnmarshalJSON takes a number or a string. null and absent are "".
func (id *ID) UnmarshalJSON(b []byte) error {
	s, err := text(b)
	if err != nil {
		return fmt.Errorf("id: %w", err)
	}
	*id = ID(s)
	return nil
}

// An Int is a whole number that WeChat sends as a number or as a string.
type Int int64

// UnmarshalJSON takes a number, a string of digits, null or "".
func (n *Int) UnmarshalJSON(b []byte) error {
	s, err := text(b)
	if err != nil || s == "" {
		*n = 0
		return err
	}
	v, err := strconv.ParseInt(s, 10, 64)
	*n = Int(v)
	return err
}

// A Decimal is a number kept in the digits that WeChat wrote.
type Decimal string

// UnmarshalJSON takes a number or a string that holds one.
func (d *Decimal) UnmarshalJSON(b []byte) error {
	s, err := text(b)
	if err != nil {
		return err
	}
	if s != "" {
		// ParseFloat takes more than a number in digits: NaN, hexadecimals.
		if _, err := strconv.ParseFloat(s, 64); err != nil || strings.Trim(s, "0123456789+-.eE") != "" {
			return fmt.Errorf("%w: %q", errNumber, s)
		}
	}
	*d = Decimal(s)
	return nil
}

var errNumber = errors.New("not a number")

func text(b []byte) (string, error) {
	b = bytes.TrimSpace(b)
	switch {
	case bytes.Equal(b, []byte("null")):
		return "", nil
	case len(b) > 0 && b[0] == '"':
		if end := len(b) - 1; end > 0 && b[end] == '"' && bytes.IndexByte(b, '\\') < 0 && utf8.Valid(b) {
			return strings.TrimSpace(string(b[1:end])), nil // b is JSON, so these are its characters
		}
		var s string
		err := json.Unmarshal(b, &s)
		return strings.TrimSpace(s), err
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		return string(b), nil
	}
	return "", errors.New("neither a number nor a string")
}

// Encode writes a request body as WeChat wants it: raw UTF-8, nothing escaped
// that JSON doesn't force (platform.md §11.1 no. 7).
func Encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	out := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	// Encode escapes these two whatever it is told; a body with \u is refused (47002).
	return unescape(unescape(out, `\u2028`, "\u2028"), `\u2029`, "\u2029"), nil
}

// unescape replaces esc, unless the backslash is itself escaped.
func unescape(b []byte, esc, raw string) []byte {
	if !bytes.Contains(b, []byte(esc)) {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		switch {
		case bytes.HasPrefix(b[i:], []byte(esc)):
			out = append(out, raw...)
			i += len(esc)
		case b[i] == '\\' && i+1 < len(b):
			out = append(out, b[i], b[i+1])
			i += 2
		default:
			out = append(out, b[i])
			i++
		}
	}
	return out
}

// Decode reads the payload of an Executed reply into T.
func Decode[T any](e *Endpoint, r Reply) (T, error) {
	if r.said != nil {
		if v, ok := r.said.held.(T); ok {
			return v, nil
		}
	}
	v, err := unmarshal[T](r.JSON())
	if err != nil {
		return v, &Error{Endpoint: e.Name, Class: Ambiguous, Family: e.Family, Err: fmt.Errorf("reply doesn't fit: %w", err)}
	}
	return v, nil
}

// unmarshal is json.Unmarshal for replies, at a third of its cost. What sonic
// refuses is encoding/json's to judge: its word counts, and its errors don't
// quote the text, which may hold a token.
func unmarshal[T any](b []byte) (v T, err error) {
	err = unmarshalTo(&v, b)
	return v, err
}

func unmarshalTo[T any](v *T, b []byte) error {
	*v = *new(T)
	if quick(b, v) {
		return nil
	}
	*v = *new(T)
	return json.Unmarshal(b, v)
}

// quick reads b into v with sonic, which copies what it keeps: nothing in v
// lies in b.
func quick(b []byte, v any) bool {
	return alike(b) && sonic.ConfigStd.UnmarshalFromString(unsafe.String(unsafe.SliceData(b), len(b)), v) == nil // #nosec G103 -- nobody writes to b meanwhile
}

// alike reports whether sonic reads b as encoding/json does, if it takes it
// (FuzzUnmarshal). It replaces what isn't UTF-8 in a json.RawMessage, doesn't
// look at the escapes in what it skips, and doesn't know that in a name ſ is an
// s and K (the Kelvin sign) a k.
func alike(b []byte) bool {
	return utf8.Valid(b) && !bytes.Contains(b, []byte("\u017f")) && !bytes.Contains(b, []byte("\u212a")) &&
		(bytes.IndexByte(b, '\\') < 0 || json.Valid(b) && !bytes.Contains(b, []byte(`\u017`)) && !bytes.Contains(b, []byte(`\u212`)))
}

var bom = []byte("\xef\xbb\xbf")

// JSON is the body for whoever reads it: without what readers of JSON trip
// over, without the blanks at the end of member names that document 001 has in
// its examples, and with U+FFFD for U+0000, which no column of the database
// can hold. An outcome that can't be written down would be lost.
func (r Reply) JSON() []byte {
	if r.said != nil {
		return r.said.json
	}
	return readable(r.Body)
}

func readable(body []byte) []byte {
	return trimNames(unescape(bytes.TrimSpace(bytes.TrimPrefix(body, bom)), `\u0000`, "\ufffd"))
}

// blankAtQuote reports whether a blank stands beside a quotation mark. There are
// fewer blanks than those.
func blankAtQuote(b []byte) bool {
	for i := 0; ; i++ {
		next := bytes.IndexByte(b[i:], ' ')
		if next < 0 {
			return false
		}
		i += next
		if i > 0 && b[i-1] == '"' || i+1 < len(b) && b[i+1] == '"' {
			return true
		}
	}
}

// trimNames takes the blanks off the ends of member names. What isn't JSON is
// left as it is, for whoever reads it to refuse.
func trimNames(b []byte) []byte {
	if !blankAtQuote(b) {
		return b // as nearly all are
	}
	var out []byte // nil as long as nothing had to be taken off
	done := 0
	for i := 0; i < len(b); i++ {
		if b[i] != '"' {
			continue
		}
		start := i + 1
		for i = start; i < len(b) && b[i] != '"'; i++ {
			if b[i] == '\\' {
				i++
			}
		}
		if i >= len(b) {
			break
		}
		if after := bytes.TrimLeft(b[i+1:], " \t\r\n"); len(after) == 0 || after[0] != ':' {
			continue
		}
		name := b[start:i]
		if trimmed := bytes.Trim(name, " "); len(trimmed) != len(name) {
			out = append(append(out, b[done:start]...), trimmed...)
			done = i
		}
	}
	if out == nil {
		return b
	}
	return append(out, b[done:]...)
}
