package handlers

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a request body (design security.md §9).
const (
	maxBody     = 256 << 10
	maxDepth    = 16
	maxElements = 10_000
)

// A scanError says why a body can't be read. It never holds any of it but the
// name of a repeated member.
type scanError struct {
	repeated bool   // a member is there twice
	nul      bool   // a text holds U+0000
	pointer  string // of the repeated member, or of what holds that text
	offset   int    // of what can't be read
	reason   string
}

func (e *scanError) Error() string {
	switch {
	case e.repeated:
		return "repeated member " + e.pointer
	case e.nul:
		return "U+0000 in " + e.pointer
	}
	return fmt.Sprintf("byte %d: %s", e.offset, e.reason)
}

// scan checks that data is exactly one JSON object (RFC 8259) and nothing
// that readers of JSON disagree about: no repeated members, no bytes after the
// object, no byte order mark, valid UTF-8, no lone surrogates; at most
// maxDepth deep and with at most maxElements elements of arrays. The
// validator behind it lets all of these pass (design stack.md §0 fact 3). Nor
// may a text hold U+0000, which JSON allows and Postgres can't keep.
//
// It reads the bytes once and keeps nothing but the names of the objects that
// are open.
func scan(data []byte) error {
	if !utf8.Valid(data) {
		return &scanError{reason: "not valid UTF-8"}
	}
	s := scanner{data: data}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return s.fail("begins with a byte order mark")
	}
	s.space()
	switch {
	case s.pos == len(data):
		return s.fail("the body is empty")
	case data[s.pos] != '{':
		return s.fail("the body must be a JSON object")
	}
	if err := s.value(); err != nil {
		return err
	}
	if s.space(); s.pos != len(data) {
		return s.fail("bytes after the JSON object")
	}
	return nil
}

type scanner struct {
	data     []byte
	pos      int
	depth    int
	elements int
	names    [][]byte // of all open objects, decoded; each object owns a tail
	path     []step
}

// A step leads from a value to one inside it.
type step struct {
	name  []byte // nil: an element
	index int
}

func (s *scanner) fail(reason string) error { return &scanError{offset: s.pos, reason: reason} }

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) value() error {
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if s.depth++; s.depth > maxDepth {
			return s.fail("nested deeper than " + strconv.Itoa(maxDepth))
		}
		s.pos++
		var err error
		if c == '{' {
			err = s.object()
		} else {
			err = s.array()
		}
		s.depth--
		return err
	case c == '"':
		_, err := s.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case s.pos >= len(s.data):
		return s.fail("ends in the middle")
	default:
		return s.fail("expected a value")
	}
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(w)) {
		return s.fail("expected a value")
	}
	s.pos += len(w)
	return nil
}

// manyNames is from where on the names of one object are kept in a map: below
// it comparing them one by one is faster.
const manyNames = 24

func (s *scanner) object() error {
	first := len(s.names)
	var many map[string]struct{}
	defer func() { s.names = s.names[:first] }()
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		if s.space(); s.peek() != '"' {
			return s.fail("expected the name of a member")
		}
		name, err := s.str()
		if err != nil {
			return err
		}
		own := s.names[first:]
		repeated := false
		if many == nil && len(own) < manyNames {
			for _, n := range own {
				repeated = repeated || bytes.Equal(n, name)
			}
		} else {
			if many == nil {
				many = make(map[string]struct{}, 4*manyNames)
				for _, n := range own {
					many[string(n)] = struct{}{}
				}
			}
			if _, repeated = many[string(name)]; !repeated {
				many[string(name)] = struct{}{}
			}
		}
		if repeated {
			s.path = append(s.path, step{name: name})
			return &scanError{repeated: true, pointer: pointer(s.path), offset: s.pos}
		}
		if many == nil {
			s.names = append(s.names, name)
		}
		if s.space(); s.peek() != ':' {
			return s.fail("expected a colon")
		}
		s.pos++
		s.space()
		s.path = append(s.path, step{name: name})
		if err := s.value(); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.fail("expected a comma or the end of the object")
		}
	}
}

func (s *scanner) array() error {
	if s.space(); s.peek() == ']' {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		if s.elements++; s.elements > maxElements {
			return s.fail("more than " + strconv.Itoa(maxElements) + " elements")
		}
		s.space()
		s.path = append(s.path, step{index: i})
		if err := s.value(); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.fail("expected a comma or the end of the array")
		}
	}
}

// str reads a string and returns it decoded: a part of data where nothing is
// escaped, which is nearly always.
func (s *scanner) str() ([]byte, error) {
	s.pos++
	start := s.pos
	var decoded []byte
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			raw := s.data[start:s.pos]
			s.pos++
			if decoded != nil {
				return append(decoded, raw...), nil
			}
			return raw, nil
		case c < 0x20:
			return nil, s.fail("control character in a string")
		case c == '\\':
			if decoded == nil {
				decoded = make([]byte, 0, 64)
			}
			decoded = append(decoded, s.data[start:s.pos]...)
			r, err := s.escape()
			switch {
			case err != nil:
				return nil, err
			case r == 0:
				return nil, &scanError{nul: true, pointer: pointer(s.path), offset: s.pos}
			}
			decoded = utf8.AppendRune(decoded, r)
			start = s.pos
		default:
			s.pos++
		}
	}
	return nil, s.fail("ends in the middle of a string")
}

// escape reads one escaped character, the backslash included.
func (s *scanner) escape() (rune, error) {
	s.pos++
	c := s.peek()
	s.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := s.hex4()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if !bytes.HasPrefix(s.data[min(s.pos, len(s.data)):], []byte(`\u`)) {
			return 0, s.fail("lone surrogate")
		}
		s.pos += 2
		low, err := s.hex4()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, s.fail("lone surrogate")
		}
		return r, nil
	}
	s.pos--
	return 0, s.fail("unknown escape in a string")
}

func (s *scanner) hex4() (rune, error) {
	if s.pos+4 > len(s.data) {
		return 0, s.fail("ends in the middle of a string")
	}
	var r rune
	for range 4 {
		c := s.data[s.pos]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, s.fail("unknown escape in a string")
		}
		r = r<<4 | rune(c)
		s.pos++
	}
	return r, nil
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	switch c := s.peek(); {
	case c == '0':
		s.pos++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		return s.fail("not a number")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("not a number")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.fail("not a number")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}

// pointer writes a path as a JSON pointer (RFC 6901).
func pointer(path []step) string {
	var b []byte
	for _, p := range path {
		b = append(b, '/')
		if p.name == nil {
			b = strconv.AppendInt(b, int64(p.index), 10)
			continue
		}
		b = appendToken(b, string(p.name))
	}
	return string(b)
}

// appendToken writes one token of a JSON pointer. A caller can make names of
// any length; answers hold 64 bytes of each.
func appendToken(b []byte, name string) []byte {
	const most = 64
	for i, r := range name {
		if i >= most {
			return append(b, "…"...)
		}
		switch r {
		case '~':
			b = append(b, "~0"...)
		case '/':
			b = append(b, "~1"...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
