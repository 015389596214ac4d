package sandbox

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// fields is the JSON object of a request.
type fields map[string]json.RawMessage

// parseFields: an empty body 44002, bad JSON 47001, \uXXXX anywhere 47002 (platform.md §11.1 no. 7, 8).
func parseFields(body []byte) (fields, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, refuse(44002)
	}
	var f fields
	if !utf8.Valid(body) || json.Unmarshal(body, &f) != nil || f == nil {
		return nil, refuse(47001)
	}
	if hasUnicodeEscape(body) {
		return nil, refuse(47002)
	}
	return f, nil
}

// hasUnicodeEscape finds \uXXXX in JSON text, but not an escaped backslash before a u.
func hasUnicodeEscape(doc []byte) bool {
	for i := 0; i < len(doc)-1; i++ {
		if doc[i] == '\\' {
			if doc[i+1] == 'u' {
				return true
			}
			i++
		}
	}
	return false
}

func (f fields) has(name string) bool { _, ok := f[name]; return ok }

// text is a member that must be a JSON string; false where it is absent or of another type.
func (f fields) text(name string) (string, bool) {
	raw, ok := f[name]
	if !ok || len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// number is a member that must be a whole JSON number.
func (f fields) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(string(f[name]), 10, 64)
	return n, err == nil
}

// digits is a number that may be sent as a JSON string too, for ids that the documents type both ways.
func (f fields) digits(name string) (string, bool) {
	if s, ok := f.text(name); ok {
		_, err := strconv.ParseUint(s, 10, 64)
		return s, err == nil
	}
	n, ok := f.number(name)
	return strconv.FormatInt(n, 10), ok && n >= 0
}

// object is a member that must be a JSON object.
func (f fields) object(name string) (fields, bool) {
	var o fields
	err := json.Unmarshal(f[name], &o)
	return o, err == nil && o != nil
}
