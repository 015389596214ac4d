package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"mime"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An exchange is one call with the example of its document: what we send, and
// what we read of the answer.
type exchange struct {
	endpoint *Endpoint
	query    url.Values
	request  any    // nil: no body
	example  string // file of the example request; "": the document has none
	// otherwise are pairs of texts: what the example has, and what we send
	// instead. Why stands beside them.
	otherwise []string
	reply     string // file of the example reply; "": the document has none
	mend      []string
	read      func(*Endpoint, Reply) (any, error) // nil: there is nothing to read
	want      any
}

func as[T any](e *Endpoint, r Reply) (any, error) { return Decode[T](e, r) }

// TestDocumentsExamples sends each call as its document's example does, and
// reads the document's own answer.
func TestDocumentsExamples(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	for name, x := range examples() {
		tried[x.endpoint.Name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x.run(t)
		})
	}
	for name, d := range declared {
		if len(d.sets) > 0 && d.endpoint.Part == "" && !tried[d.endpoint.Name] {
			t.Errorf("%s has no example here", name)
		}
	}
}

func examples() map[string]exchange {
	all := map[string]exchange{}
	for _, some := range []map[string]exchange{storeExamples(), legacyExamples(), goodsExamples()} {
		for name, x := range some {
			all[name] = x
		}
	}
	return all
}

func (x exchange) run(t *testing.T) {
	t.Helper()
	answer := `{"errcode":0}`
	if x.reply != "" {
		answer = mended(t, x.reply, x.mend...)
	}
	client, arrived := wire(t, answer)
	var body []byte
	if x.request != nil {
		body = must(Encode(x.request))
	}
	reply, err := client.Do(context.Background(), x.endpoint, AuthorizerToken("TOKEN"), x.query, body)
	if err != nil {
		t.Fatal(err)
	}
	got := arrived()
	query := "access_token=TOKEN"
	if len(x.query) > 0 {
		query += "&" + x.query.Encode()
	}
	if got.method != declaredAs(t, x.endpoint).method || got.path != declaredAs(t, x.endpoint).path || got.query != query {
		t.Errorf("sent %s %s?%s", got.method, got.path, got.query)
	}
	x.compareBody(t, got)
	if class, err := Classify(x.endpoint, reply); class != Executed || err != nil {
		t.Errorf("class %s, %v", class, err)
	}
	if x.read == nil {
		return
	}
	read, err := x.read(x.endpoint, reply)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x.want, read); diff != "" {
		t.Errorf("read of %s (-want +got):\n%s", x.reply, diff)
	}
}

func (x exchange) compareBody(t *testing.T, got sent) {
	t.Helper()
	if x.request == nil {
		if len(got.body) != 0 || got.contentType != "" {
			t.Errorf("sent a body: %s %s", got.contentType, got.body)
		}
		return
	}
	if kind, params, err := mime.ParseMediaType(got.contentType); err != nil || kind != "application/json" || params["charset"] != "utf-8" {
		t.Errorf("content type %q, %v", got.contentType, err)
	}
	if bytes.Contains(got.body, []byte(`\u`)) {
		t.Errorf("a body with an escape, which WeChat refuses (47002): %s", got.body)
	}
	if x.example == "" {
		t.Fatal("a body without an example to compare it with")
	}
	want := mended(t, x.example, x.otherwise...)
	if diff := cmp.Diff(value(t, []byte(want)), value(t, got.body)); diff != "" {
		t.Errorf("body (-%s +sent):\n%s", x.example, diff)
	}
}

func declaredAs(t *testing.T, e *Endpoint) (as struct{ method, path string }) {
	t.Helper()
	for _, d := range declared {
		if d.endpoint == e {
			as.method, as.path = d.method, d.path
		}
	}
	if as.path == "" {
		t.Fatalf("%s is not declared", e.Name)
	}
	return as
}

// value reads JSON with its numbers as they are written: 99.5 is not 99.50, and
// "9" is not 9.
func value(t *testing.T, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

// example is a file of testdata/documents, as the document prints it.
func example(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "documents", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// mended is an example without comments, ellipses and commas before a closing
// bracket, and with the pairs replaced, each of which must be there.
func mended(t testing.TB, file string, pairs ...string) string {
	t.Helper()
	s := example(t, file)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(s, pairs[i]) {
			t.Fatalf("%s has no %q", file, pairs[i])
		}
		s = strings.ReplaceAll(s, pairs[i], pairs[i+1])
	}
	return noJSON.ReplaceAllStringFunc(s, func(part string) string {
		switch {
		case strings.HasPrefix(part, `"`):
			return part
		case strings.HasPrefix(part, ","):
			if m := strings.TrimRight(part, "}]"); m != part {
				return part[len(m):]
			}
			return ","
		}
		return ""
	})
}

// noJSON finds strings, which are kept, and what the documents have beside JSON.
var noJSON = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|//[^\n]*|,(?:\s|…|\.{2,}|//[^\n]*)*[}\]]?|…|\.{2,}`)

// The documents' refusals are read as such.
func TestDocumentsRefusal(t *testing.T) {
	t.Parallel()
	for _, e := range []*Endpoint{UploadImage, AddPoi} { // document 001 §3.1 and §3.2 print the same one
		class, err := Classify(e, Reply{Status: 200, Body: []byte(example(t, "uploadimg_refused.reply"))})
		if class != TokenRejected || err.Code != 40001 || err.Msg != "invalid credential" {
			t.Errorf("%s: %s, %v", e.Name, class, err)
		}
	}
}
