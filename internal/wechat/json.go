package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
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
		if _, err := strconv.ParseFloat(s, 64); err != nil {
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
	for esc, raw := range map[string]string{`\u2028`: "\u2028", `\u2029`: "\u2029"} {
		out = unescape(out, esc, raw)
	}
	return out, nil
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
	var v T
	if err := json.Unmarshal(r.JSON(), &v); err != nil {
		return v, &Error{Endpoint: e.Name, Class: Ambiguous, Family: e.Family, Err: fmt.Errorf("reply doesn't fit: %w", err)}
	}
	return v, nil
}

var bom = []byte("\xef\xbb\xbf")

// JSON is the body for whoever reads it: without what readers of JSON trip
// over, and with U+FFFD for U+0000, which no column of the database can hold.
// An outcome that can't be written down would be lost.
func (r Reply) JSON() []byte { return readable(r.Body) }

func readable(body []byte) []byte {
	return unescape(bytes.TrimSpace(bytes.TrimPrefix(body, bom)), `\u0000`, "\ufffd")
}

// An envelope is how a family of replies tells success from failure.
type envelope uint8

const (
	// errcodeEnvelope: {"errcode":0,"errmsg":"ok",…}. A reply without errcode
	// is no success: it is none of WeChat's.
	errcodeEnvelope envelope = iota
	// looseEnvelope: success may come without errcode (platform.md §9).
	looseEnvelope
	// statusEnvelope: {"status":0,"message":"query ok","result":…}, and an
	// errcode where the token was refused (documents 000 §4.5).
	statusEnvelope
)

type head struct {
	code int64
	msg  string
}

// statusOffset moves Tencent Maps' status numbers out of the way of errcodes:
// they share no table.
const statusOffset = 1_000_000_000

func (env envelope) read(body []byte) (head, error) {
	var h struct {
		Errcode Int             `json:"errcode"`
		Errmsg  json.RawMessage `json:"errmsg"`
		Status  Int             `json:"status"`
		Message json.RawMessage `json:"message"`
	}
	body = readable(body)
	if len(body) == 0 {
		return head{}, errors.New("reply is empty")
	}
	if body[0] != '{' {
		return head{}, errors.New("reply is not a JSON object")
	}
	if env != statusEnvelope {
		// status is an ordinary member there, of any type.
		var plain struct {
			Errcode *Int            `json:"errcode"`
			Errmsg  json.RawMessage `json:"errmsg"`
		}
		if err := json.Unmarshal(body, &plain); err != nil {
			return head{}, fmt.Errorf("reply can't be read: %w", err)
		}
		if plain.Errcode == nil {
			if env == errcodeEnvelope {
				return head{}, errors.New("reply has no errcode")
			}
			plain.Errcode = new(Int)
		}
		h.Errcode, h.Errmsg = *plain.Errcode, plain.Errmsg
	} else if err := json.Unmarshal(body, &h); err != nil {
		return head{}, fmt.Errorf("reply can't be read: %w", err)
	}
	if h.Errcode == 0 && h.Status != 0 {
		return head{int64(h.Status) + statusOffset, looseText(h.Message)}, nil
	}
	return head{int64(h.Errcode), looseText(h.Errmsg)}, nil
}

// looseText shows a message whatever type it has.
func looseText(b json.RawMessage) string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	return string(b)
}
