package isolation

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/mendian/mendian/test/world"
)

// An input is a request that is wrong in one thing, and what it must be told.
type input struct {
	rows         string // of design security.md §12
	name         string
	op           operation
	method, path string
	body         any // nil, a text, or a form
	headers      []string
	status       int      // 0: any but 5xx
	codes        []string // one of them
	pointer      string   // what the problem must name, if any
	named        bool     // whether it must name it: "" names the whole body
}

func (x input) String() string { return x.op.id + ", " + x.rows + " " + x.name }

// judge says what is wrong with an answer, or nothing.
func (x input) judge(a *world.Answer) error {
	if x.status == 0 {
		if a.Status >= http.StatusInternalServerError {
			return fmt.Errorf("%s: %d %s: %s", x, a.Status, a.Code(), a.Body)
		}
		return nil
	}
	if a.Status != x.status || !slices.Contains(x.codes, a.Code()) {
		return fmt.Errorf("%s: %d %s, want %d %v: %s", x, a.Status, a.Code(), x.status, x.codes, a.Body)
	}
	if !x.named {
		return nil
	}
	var p struct{ Errors []struct{ Pointer string } }
	a.Into(&p)
	for _, e := range p.Errors {
		if e.Pointer == x.pointer {
			return nil
		}
	}
	return fmt.Errorf("%s: %q is not named: %s", x, x.pointer, a.Body)
}

// A target is a request of an operation that is right.
type target struct {
	op      operation
	client  *world.Client // that may
	path    string
	body    any
	headers []string
}

func (g target) but(rows, name string, status int, codes ...string) input {
	return input{rows: rows, name: name, op: g.op, method: g.op.method, path: g.path, body: g.body, headers: slices.Clone(g.headers), status: status, codes: codes}
}

// query adds to the query.
func (x input) query(more string) input {
	sep := "?"
	if strings.Contains(x.path, "?") {
		sep = "&"
	}
	x.path += sep + more
	return x
}

func (x input) says(body any, headers ...string) input {
	x.body, x.headers = body, append(x.headers, headers...)
	return x
}

func (x input) names(pointer string) input {
	x.pointer, x.named = pointer, true
	return x
}

// spoiltBodies are what no body may be, whatever the operation.
func (g target) spoiltBodies() []input {
	var out []input
	if g.op.body == nil { // one that nobody reads may hide that something was meant
		for name, body := range map[string]string{"a member": `{"x":1}`, "null": "null", "a list": "[]", "no JSON": "x", "half": "{", "NUL": "\x00", "257 KiB": strings.Repeat(" ", 257<<10) + "x"} {
			out = append(out, g.but("30, 33", "a body where none is taken: "+name, http.StatusBadRequest, "invalid_parameter").says(body).names("body"))
		}
		return append(out, g.but("35", "compressed", http.StatusBadRequest, "invalid_parameter").says("{}", "Content-Encoding", "gzip").names("body"))
	}
	add := func(rows, name string, body any, status int, code string, headers ...string) {
		out = append(out, g.but(rows, name, status, code).says(body, headers...))
	}
	if g.op.schema == nil { // a form
		for name, body := range map[string]string{"empty": "", "null": "null", "no form": "x", "an object": "{}"} {
			add("59", name, body, http.StatusUnsupportedMediaType, "unsupported_media_type")
		}
		for name, body := range map[string]string{"empty": "", "half": "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\xff\xd8", "no boundary": "x"} {
			out = append(out, g.formIs(name, body, "multipart/form-data; boundary=x"))
		}
		out = append(out, g.formIs("a boundary of ten KiB", "--x--", "multipart/form-data; boundary="+strings.Repeat("b", 10<<10)),
			g.but("59", "no parts", http.StatusUnprocessableEntity, "validation_failed").says("--x--\r\n", "Content-Type", "multipart/form-data; boundary=x").names("/file"),
			g.formIs("a hundred parts", strings.Repeat("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\na\r\n", 100)+"--x--\r\n", "multipart/form-data; boundary=x"))
		return out
	}
	good := string(marshal(g.op.body))
	first := "" // a member that the example has
	for name := range g.op.body.(map[string]any) {
		first = max(first, name)
	}
	for name, body := range map[string]string{
		"empty": "", "blank": " \n", "null": "null", "a list": "[]", "a list of it": "[" + good + "]", "a text": `"x"`, "a number": "1", "a yes": "true", "NaN": "NaN", "half": good[:len(good)-1], "a brace": "{",
		"single quotes": "{'a':1}", "a comment": "{/**/}", "a comma too many": good[:len(good)-1] + ",}", "a byte order mark": "\ufeff" + good, "UTF-16": "\xff\xfe{\x00}\x00", "not UTF-8": `{"` + first + `":"` + "\xc3\x28" + `"}`,
		"a lone surrogate": `{"` + first + `":"\ud800"}`, "a control character": `{"` + first + `":"` + "\x01" + `"}`, "two objects": good + ` {"x":1}`, "a word behind": good + "x", "NUL behind": good + "\x00",
	} {
		add("30", name, body, http.StatusBadRequest, "malformed_json")
	}
	for name, body := range map[string]string{"depth 17": strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), "lists, depth 10,000": strings.Repeat("[", 10_000),
		"objects, depth 10,000": strings.Repeat(`{"a":`, 10_000), "10,001 elements": `{"a":[` + strings.Repeat("1,", 10_000) + "1]}"} {
		add("31", name, body, http.StatusBadRequest, "malformed_json")
	}
	value := string(marshal(g.op.body.(map[string]any)[first]))
	out = append(out, g.but("32", "a member twice", http.StatusBadRequest, "duplicate_field").says(`{"`+first+`":`+value+","+good[1:]).names("/"+first),
		g.but("32", "a member twice, escaped", http.StatusBadRequest, "duplicate_field").says(fmt.Sprintf(`{"\u%04x%s":%s,%s`, first[0], first[1:], value, good[1:])).names("/"+first))
	for _, name := range []string{"tenant_id", "poi_id ", "__proto__", "constructor", "Id", "$where"} {
		out = append(out, g.but("33", "unknown "+name, http.StatusBadRequest, "unknown_field").says(`{"`+name+`":"x",`+good[1:]).names("/"+name))
	}
	add("34", "257 KiB", `{"a":"`+strings.Repeat("x", 257<<10)+`"}`, http.StatusRequestEntityTooLarge, "body_too_large")
	for name, header := range map[string][]string{"gzip": {"Content-Encoding", "gzip"}, "br": {"Content-Encoding", "br"}, "text": {"Content-Type", "text/plain"}, "a form": {"Content-Type", "application/x-www-form-urlencoded"},
		"GBK": {"Content-Type", "application/json; charset=gbk"}, "no type": {"Content-Type", ""}} {
		add("35", name, good, http.StatusUnsupportedMediaType, "unsupported_media_type", header...)
	}
	return out
}

func (g target) formIs(name, body, typ string) input {
	return g.but("59", name, http.StatusBadRequest, "malformed_form", "duplicate_field").says(body, "Content-Type", typ)
}

// brokenBodies are bodies that can be read and break one rule in one place.
func (g target) brokenBodies(places []place) []input {
	var out []input
	for _, p := range places {
		if len(p.way) > 0 {
			for name, v := range p.wrongTypes() {
				out = append(out, g.but("", p.pointer()+" is "+name, http.StatusUnprocessableEntity, "validation_failed").says(p.with(v)).names(p.pointer()))
			}
		}
		for name, v := range p.brokenRules() {
			out = append(out, g.but("", p.pointer()+" "+name, http.StatusUnprocessableEntity, "validation_failed").says(p.with(v)).names(p.pointer()))
		}
		if p.schema.Type.Is("object") && p.schema.AdditionalProperties.Has != nil && len(p.way) > 0 {
			inner := p
			inner.way = append(slices.Clone(p.way), "status")
			out = append(out, g.but("33", "unknown in "+p.pointer(), http.StatusBadRequest, "unknown_field").says(inner.with("x")).names(inner.pointer()))
		}
	}
	return out
}

// brokenParameters are requests with one parameter that breaks a rule.
func (g target) brokenParameters() []input {
	var out []input
	for _, p := range g.op.parameters {
		for name, text := range p.wrong() {
			rows := "29, 91"
			if p.name == "after" {
				rows = "90"
			}
			x := g.but(rows, p.key()+" is "+name, http.StatusBadRequest, "invalid_parameter").names(p.name)
			switch p.in {
			case "path":
				if name == "nothing" {
					continue // another route, or none
				}
				x.path = strings.Replace(g.op.path, "{"+p.name+"}", url.PathEscape(text), 1)
				x.path = strings.NewReplacer("{id}", "mig_01jd7k4b2rf6z9t3n7r1s6v2zb", "{legacy_poi_id}", "1").Replace(x.path)
			case "query":
				u, _ := url.Parse(g.path)
				q := u.Query()
				q.Set(p.name, text)
				x.path = u.Path + "?" + q.Encode()
			case "header":
				if strings.ContainsAny(text, "\x00\n") || name == "nothing" {
					continue // no header can hold it; one that is empty is none
				}
				x.headers = append(x.headers, p.name, text)
			}
			out = append(out, x)
		}
		if p.in == "query" && !p.rules.Type.Is("array") {
			v := url.QueryEscape(fmt.Sprint(sample(p.rules)))
			out = append(out, g.but("91", p.name+" twice", http.StatusBadRequest, "invalid_parameter").query(p.name+"="+v+"&"+p.name+"="+v).names(p.name))
		}
	}
	for name, q := range map[string]string{"fields": "fields=secret", "__proto__": "__proto__=1", "_method": "_method=DELETE", "tenant_id": "tenant_id%5B%5D=1", "sort": "sort=id;DROP TABLE"} {
		x := g.but("33, 91", "an unknown parameter "+name, http.StatusBadRequest, "invalid_parameter")
		if !g.op.has("query", name) {
			out = append(out, x.query(strings.ReplaceAll(q, " ", "%20")))
		}
	}
	for name, promise := range map[string]string{"Idempotency-Key": "only-once", "If-Match": `"1-00000000"`} {
		if g.op.writes() && !g.op.has("header", name) {
			out = append(out, g.but("33", name+", which nobody would keep", http.StatusBadRequest, "invalid_parameter").says(g.body, name, promise).names(name))
		}
	}
	for name, q := range map[string]string{"no such escape": "limit=%zz", "not UTF-8": "limit=%ff", "a thousand": strings.Repeat("a=1&", 900) + "a=1", "5 KiB": "a=" + strings.Repeat("x", 5<<10)} {
		out = append(out, g.but("91", name, http.StatusBadRequest, "invalid_parameter").query(q))
	}
	return append(out, g.but("35", "an answer that isn't JSON", http.StatusNotAcceptable, "not_acceptable").says(g.body, "Accept", "text/html"))
}

// wrong are texts that the parameter doesn't take.
func (p parameter) wrong() map[string]string {
	s, out := p.rules, map[string]string{}
	if s.Type.Is("array") {
		s = s.Items.Value
	}
	for name, text := range map[string]string{"nothing": "", "a word": "none-of-these", "NUL": "a\x00b", "SQL": "' OR 1=1--", "half a tag": `"><script>`, "minus one": "-1", "1e9": "1e9", "thirty digits": strings.Repeat("9", 30),
		"a path": "../../etc/passwd", "of 300": strings.Repeat("x", 300), "a line break": "a\nb", "hexadecimal": "0x10", "no such day": "2099-02-30T00:00:00Z"} {
		long := s.MaxLength != nil && uint64(len(text)) > *s.MaxLength
		short := uint64(len(text)) < s.MinLength
		switch {
		case s.Type.Is("string") && (len(s.Enum) > 0 || s.Format == "date-time" || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(text) || long || short), s.Type.Is("integer"), s.Type.Is("boolean"):
			out[name] = text
		}
	}
	if s.Type.Is("integer") && s.Min == nil {
		delete(out, "minus one")
	}
	return out
}

// hostileTexts are what breaks out of where a text is put, or what few think of.
var hostileTexts = map[string]string{
	"a quote": "'", "SQL": "' OR '1'='1", "more SQL": "'; DROP TABLE merchants; --", "SQL in dollars": "$1 $$ $tag$", "a wildcard": "%_\\", "a placeholder": "{id} %s %n ${jndi:ldap://127.0.0.1/a} {{7*7}}",
	"NUL": "a\x00b", "an escape": "\x1b[31m", "a line break": "a\r\nSet-Cookie: x=1", "right to left": "\u202etxt", "no width": "a\u200d\u200bb", "a byte order mark": "\ufeffa", "not a character": "\uffff\ufffd",
	"a tag": "<script>alert(1)</script>", "an entity": "]]><!ENTITY x SYSTEM 'file:///etc/passwd'>", "a path": "../../../../etc/passwd", "blanks": "  \t ", "an emoji": "👩‍👩‍👧‍👦", "much Chinese": strings.Repeat("茶", 4000), "the first time": "0000-01-01T00:00:00Z",
	"the last time": "9999-12-31T23:59:59-23:59", "a long number": strings.Repeat("9", 40),
}

// hostileNumbers are what few readers of JSON agree about.
var hostileNumbers = map[string]verbatim{"infinite": "1e400", "next to nothing": "1e-400", "minus nothing": "-0", "2^63": "9223372036854775808", "2^31": "2147483648", "-2^63": "-9223372036854775808", "with a fraction": "5.0", "with an exponent": "1e1"}

// oddTexts put each of them wherever a text or a number stands. Where it can,
// the gateway is only asked whether it would take them.
func (g target) oddTexts(places []place) []input {
	var out []input
	add := func(name string, change func(x input) input) {
		x := change(g.but("73", name, 0))
		if g.op.has("query", "validate_only") {
			x = x.query("validate_only=true")
		}
		out = append(out, x)
	}
	for _, p := range places {
		if p.schema.Type.Is("string") && len(p.schema.Enum) == 0 {
			for name, text := range hostileTexts {
				add(p.pointer()+" is "+name, func(x input) input { return x.says(p.with(text)) })
			}
		}
		if p.schema.Type.Is("integer") || p.schema.Type.Is("number") {
			for name, number := range hostileNumbers {
				add(p.pointer()+" is "+name, func(x input) input { return x.says(p.with(number)) })
			}
		}
		if p.schema.AdditionalProperties.Schema != nil {
			for name, text := range hostileTexts {
				add(p.pointer()+" has "+name, func(x input) input { return x.says(p.with(map[string]any{text: "x"})) })
			}
		}
	}
	for _, p := range g.op.parameters {
		if p.in == "query" && p.rules.Type.Is("string") && len(p.rules.Enum) == 0 {
			for name, text := range hostileTexts {
				if len(text) < 4000 {
					add(p.key()+" is "+name, func(x input) input { return x.query(p.name + "=" + url.QueryEscape(text)) })
				}
			}
		}
	}
	return out
}
