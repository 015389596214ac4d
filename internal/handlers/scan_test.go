package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestScan(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }
	elements := func(n int) string { return `{"a":[` + strings.TrimSuffix(strings.Repeat("1,", n), ",") + `]}` }
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"m%d":%d,`, i, i)
		}
		return b.String()
	}
	for _, tc := range []struct{ name, in, want string }{
		{"empty object", `{}`, ""},
		{"all kinds", ` {"a":[1,-0.5e+3,"x\u00e9\n\ud83d\ude00",true,false,null,{}],"b":{"a":1}} ` + "\r\n\t", ""},
		{"names repeat in different objects", `{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}`, ""},
		{"depth 16", nested(16), ""},
		{"10,000 elements", elements(10_000), ""},
		{"many members", "{" + members(100) + `"x":1}`, ""},
		{"nothing", ``, "byte 0: the body is empty"},
		{"space", " \n", "byte 2: the body is empty"},
		{"null", `null`, "byte 0: the body must be a JSON object"},
		{"array", `[]`, "byte 0: the body must be a JSON object"},
		{"string", `"x"`, "byte 0: the body must be a JSON object"},
		{"open", `{`, "byte 1: expected the name of a member"},
		{"half a name", `{"a`, "byte 3: ends in the middle of a string"},
		{"half a value", `{"a":`, "byte 5: ends in the middle"},
		{"a second value", `{} {"x":1}`, "byte 3: bytes after the JSON object"},
		{"byte order mark", "\ufeff{}", "byte 0: begins with a byte order mark"},
		{"UTF-16", "{\x00}\x00", "byte 1: expected the name of a member"},
		{"UTF-16 mark", "\xff\xfe{\x00}\x00", "byte 0: not valid UTF-8"},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", "byte 0: not valid UTF-8"},
		{"overlong UTF-8", "{\"a\":\"\xc0\xaf\"}", "byte 0: not valid UTF-8"},
		{"lone high surrogate", `{"a":"\ud800"}`, "byte 12: lone surrogate"},
		{"lone low surrogate", `{"a":"\udc00x"}`, "byte 12: lone surrogate"},
		{"two high surrogates", `{"a":"\ud800\ud800"}`, "byte 18: lone surrogate"},
		{"surrogate in a name", `{"\udfff":1}`, "byte 8: lone surrogate"},
		{"repeated", `{"pricing":1,"x":2,"pricing":3}`, "repeated member /pricing"},
		{"repeated, escaped", `{"a":1,"\u0061":2}`, "repeated member /a"},
		{"repeated inside", `{"a":[0,{"x/y":1,"x/y":2}]}`, "repeated member /a/1/x~1y"},
		{"repeated after many", "{" + members(100) + `"m3":1}`, "repeated member /m3"},
		{"repeated empty name", `{"":1,"":2}`, "repeated member /"},
		{"depth 17", nested(17), "byte 80: nested deeper than 16"},
		{"depth 10,000 arrays", `{"a":` + strings.Repeat("[", 10_000), "byte 20: nested deeper than 16"},
		{"10,001 elements", elements(10_001), "byte 20006: more than 10000 elements"},
		{"leading zero", `{"a":01}`, "byte 6: expected a comma or the end of the object"},
		{"hexadecimal", `{"a":0x10}`, "byte 6: expected a comma or the end of the object"},
		{"NaN", `{"a":NaN}`, "byte 5: expected a value"},
		{"plus", `{"a":+1}`, "byte 5: expected a value"},
		{"dot", `{"a":1.}`, "byte 7: not a number"},
		{"exponent", `{"a":1e}`, "byte 7: not a number"},
		{"minus", `{"a":-}`, "byte 6: not a number"},
		{"trailing comma", `{"a":1,}`, "byte 7: expected the name of a member"},
		{"trailing comma in array", `{"a":[1,]}`, "byte 8: expected a value"},
		{"comment", `{/**/}`, "byte 1: expected the name of a member"},
		{"line break in a string", "{\"a\":\"\n\"}", "byte 6: control character in a string"},
		{"unknown escape", `{"a":"\x41"}`, "byte 7: unknown escape in a string"},
		{"half an escape", `{"a":"\u00`, "byte 8: ends in the middle of a string"},
		{"half a word", `{"a":tru}`, "byte 5: expected a value"},
		{"no colon", `{"a" 1}`, "byte 5: expected a colon"},
	} {
		got := ""
		if err := scan([]byte(tc.in)); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: scan = %q, want %q", tc.name, got, tc.want)
		}
	}
}

// The worst bodies of the allowed size take milliseconds; the bound is loose
// because test machines are slow, and still far below anything quadratic.
func TestScanIsQuick(t *testing.T) {
	t.Parallel()
	var members strings.Builder
	for i := 0; members.Len() < maxBody-20; i++ {
		fmt.Fprintf(&members, `"%d":1,`, i)
	}
	for name, body := range map[string]string{
		"members": "{" + members.String() + `"x":1}`,
		"escapes": `{"a":"` + strings.Repeat(`\u0061`, maxBody/6-3) + `"}`,
		"space":   "{" + strings.Repeat(" ", maxBody-2) + "}",
	} {
		start := time.Now()
		if err := scan([]byte(body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// What scan takes, encoding/json takes, with the same members; what
// encoding/json refuses, scan refuses.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,2,{"b":null}]}`, `{"a":"\ud83d\ude00"}`, `{"a":1,"a":2}`, `{"a":-0.0e-1}`, `{"":{"":[[]]}}`, "{\"\x7f\":0}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := scan(data)
		if err == nil {
			if !json.Valid(data) || !utf8.Valid(data) {
				t.Fatalf("scan takes %q, which is not JSON", data)
			}
			return
		}
		var e *scanError
		if !errors.As(err, &e) || e.offset > len(data) {
			t.Fatalf("scan(%q) = %#v", data, err)
		}
		if json.Valid(data) && utf8.Valid(data) && !e.repeated && acceptable(data) {
			t.Fatalf("scan refuses %q: %v", data, err)
		}
	})
}

// acceptable reports whether valid JSON breaks none of our own rules, by
// encoding/json's tokens.
func acceptable(data []byte) bool {
	if strings.Contains(strings.ToLower(string(data)), `\ud`) {
		return false // a surrogate, perhaps a lone one
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	depth, deepest, tokens, first := 0, 0, 0, true
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false
		}
		if delim, ok := tok.(json.Delim); ok {
			if first && delim != '{' {
				return false
			}
			if delim == '{' || delim == '[' {
				depth++
				deepest = max(deepest, depth)
			} else {
				depth--
			}
		} else if first {
			return false
		}
		first = false
		tokens++
	}
	return deepest <= maxDepth && tokens < maxElements
}

var exampleBody = []byte(`{"client_reference":"shop-0042","map_poi_id":"2880741500279549033","photos":["http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"],"contact_phone":"1111222222","business_hours":{"open":"10:00","close":"21:00"},"credential_number":"22883878-0","qualification_media_ids":["RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"]}`)

func BenchmarkScan(b *testing.B) {
	b.SetBytes(int64(len(exampleBody)))
	b.ReportAllocs()
	for b.Loop() {
		if err := scan(exampleBody); err != nil {
			b.Fatal(err)
		}
	}
}
