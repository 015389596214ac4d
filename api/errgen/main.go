// Command errgen writes what is generated from api/errors.yaml: the codes of
// internal/problem, the errcode table of internal/wechat, and the page
// docs/reference/errors.md. Run it with `go generate ./api`.
//
// It must not decide anything: each fact stands in errors.yaml.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mendian/mendian/api"
)

type catalogue struct {
	Codes     yaml.Node  `yaml:"codes"`
	WeChat    []errcode  `yaml:"wechat"`
	Envelopes []envelope `yaml:"envelopes"`
}

type code struct {
	Name      string    `yaml:"-"`
	Kind      string    `yaml:"kind"`
	Retryable bool      `yaml:"retryable"`
	Where     string    `yaml:"where"`
	Title     [2]string `yaml:"title"`
	Detail    [2]string `yaml:"detail"`
}

type errcode struct {
	Errcode  int64    `yaml:"errcode"`
	Families []string `yaml:"families"`
	Endpoint string   `yaml:"endpoint"`
	Code     string   `yaml:"code"`
	Class    string   `yaml:"class"`
	Retry    string   `yaml:"retry"`
	Pointers []string `yaml:"pointers"`
	Note     string   `yaml:"note"`
}

type envelope struct {
	Family    string `yaml:"family"`
	Condition string `yaml:"condition"`
	Code      string `yaml:"code"`
	Class     string `yaml:"class"`
	Retry     string `yaml:"retry"`
}

// kinds maps a kind of errors.yaml to internal/problem's constant and status.
var kinds = map[string]struct {
	constant string
	status   int
}{
	"malformed":           {"Malformed", 400},
	"unauthenticated":     {"Unauthenticated", 401},
	"forbidden":           {"Forbidden", 403},
	"not_found":           {"NotFound", 404},
	"method_not_allowed":  {"MethodNotAllowed", 405},
	"not_acceptable":      {"NotAcceptable", 406},
	"conflict":            {"Conflict", 409},
	"gone":                {"Gone", 410},
	"precondition_failed": {"PreconditionFailed", 412},
	"too_large":           {"TooLarge", 413},
	"unsupported_media":   {"UnsupportedMedia", 415},
	"invalid":             {"Invalid", 422},
	"rate_limited":        {"RateLimited", 429},
	"internal":            {"Internal", 500},
	"upstream":            {"Upstream", 502},
	"unavailable":         {"Unavailable", 503},
}

// classes maps a class of errors.yaml to internal/wechat's constant.
var classes = map[string]string{
	"refused": "Refused", "token_rejected": "TokenRejected", "ticket_refused": "TicketRefused",
	"ambiguous": "Ambiguous", "executed": "Executed",
}

// retries says what each word of retry means to a reader, and whether the
// same request can succeed later by waiting alone.
var retries = map[string]struct {
	text      string
	retryable bool
}{
	"never": {"never", false}, "backoff": {"after a while", true}, "quota": {"after the quota's reset", true},
	"token": {"by itself, once, with a fresh token", true}, "fix": {"with another value", false},
	"state": {"once the state has changed", false},
}

func main() {
	log.SetFlags(0)
	files, err := generate(api.Errors)
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range files {
		// go generate runs in api/.
		if err := os.WriteFile(filepath.Join("..", name), text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generate returns the files by their path from the repository's root.
func generate(data []byte) (map[string][]byte, error) {
	var c catalogue
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		return nil, err
	}
	codes, err := c.codes()
	if err != nil {
		return nil, err
	}
	if err := c.check(codes); err != nil {
		return nil, err
	}
	problem, err := format.Source(problemSource(codes))
	if err != nil {
		return nil, err
	}
	wechat, err := format.Source(wechatSource(c))
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"internal/problem/codes.gen.go":   problem,
		"internal/wechat/errcodes.gen.go": wechat,
		"docs/reference/errors.md":        page(codes, c),
	}, nil
}

// codes reads the codes in the order of the file.
func (c catalogue) codes() ([]code, error) {
	var out []code
	for i := 0; i+1 < len(c.Codes.Content); i += 2 {
		e := code{Name: c.Codes.Content[i].Value}
		if err := c.Codes.Content[i+1].Decode(&e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		if _, ok := kinds[e.Kind]; !ok {
			return nil, fmt.Errorf("%s: unknown kind %q", e.Name, e.Kind)
		}
		if !slices.Contains([]string{"", "edge", "operation", "page"}, e.Where) {
			return nil, fmt.Errorf("%s: unknown where %q", e.Name, e.Where)
		}
		for _, s := range append(e.Title[:], e.Detail[:]...) {
			if s == "" {
				return nil, fmt.Errorf("%s: title and detail are needed in English and Chinese", e.Name)
			}
		}
		if slices.ContainsFunc(out, func(o code) bool { return o.Name == e.Name }) {
			return nil, fmt.Errorf("%s: listed twice", e.Name)
		}
		out = append(out, e)
	}
	return out, nil
}

func (c catalogue) check(codes []code) error {
	known := map[string]bool{}
	for _, e := range codes {
		known[e.Name] = true
	}
	seen := map[string]bool{}
	for _, r := range c.WeChat {
		families := r.Families
		if len(families) == 0 {
			families = []string{"every"}
		}
		for _, f := range families {
			key := fmt.Sprint(f, r.Errcode, r.Endpoint)
			if seen[key] {
				return fmt.Errorf("errcode %d: two rows for family %s", r.Errcode, f)
			}
			seen[key] = true
		}
		if !known[r.Code] || classes[r.Class] == "" || retries[r.Retry].text == "" {
			return fmt.Errorf("errcode %d: unknown code, class or retry", r.Errcode)
		}
	}
	for _, e := range c.Envelopes {
		if !known[e.Code] || classes[e.Class] == "" || retries[e.Retry].text == "" {
			return fmt.Errorf("envelope of %s: unknown code, class or retry", e.Family)
		}
	}
	return nil
}

// constant turns wechat_system_error into CodeWeChatSystemError.
func constant(name string) string {
	words := map[string]string{"wechat": "WeChat", "json": "JSON", "id": "ID", "ip": "IP", "url": "URL", "api": "API", "poi": "POI", "appid": "AppID"}
	var b strings.Builder
	b.WriteString("Code")
	for w := range strings.SplitSeq(name, "_") {
		if s, ok := words[w]; ok {
			b.WriteString(s)
		} else {
			b.WriteString(strings.ToUpper(w[:1]) + w[1:])
		}
	}
	return b.String()
}

func problemSource(codes []code) []byte {
	var b bytes.Buffer
	b.WriteString("// Code generated by api/errgen from api/errors.yaml. DO NOT EDIT.\n\npackage problem\n\n// The codes, which are the contract with callers.\nconst (\n")
	for _, e := range codes {
		fmt.Fprintf(&b, "%s = %q\n", constant(e.Name), e.Name)
	}
	b.WriteString(")\n\nvar catalogue = map[string]entry{\n")
	for _, e := range codes {
		fmt.Fprintf(&b, "%s: {kind: %s, retryable: %t, where: %q,\ntitle: [2]string{%q, %q},\ndetail: [2]string{%q, %q}},\n",
			constant(e.Name), kinds[e.Kind].constant, e.Retryable, e.Where, e.Title[0], e.Title[1], e.Detail[0], e.Detail[1])
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func wechatSource(c catalogue) []byte {
	var b bytes.Buffer
	b.WriteString("// Code generated by api/errgen from api/errors.yaml. DO NOT EDIT.\n\npackage wechat\n\nvar errcodes = map[int64][]ErrcodeRow{\n")
	byCode := map[int64][]errcode{}
	var order []int64
	for _, r := range c.WeChat {
		if _, ok := byCode[r.Errcode]; !ok {
			order = append(order, r.Errcode)
		}
		byCode[r.Errcode] = append(byCode[r.Errcode], r)
	}
	slices.Sort(order)
	for _, n := range order {
		fmt.Fprintf(&b, "%d: {", n)
		for i, r := range byCode[n] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("{")
			if len(r.Families) > 0 {
				b.WriteString("Families: []Family{")
				for i, f := range r.Families {
					if i > 0 {
						b.WriteString(", ")
					}
					fmt.Fprintf(&b, "%q", f)
				}
				b.WriteString("}, ")
			}
			if r.Endpoint != "" {
				fmt.Fprintf(&b, "Endpoint: %q, ", r.Endpoint)
			}
			fmt.Fprintf(&b, "Errcode: %d, Class: %s, Code: %q, Retry: %q", r.Errcode, classes[r.Class], r.Code, r.Retry)
			if retries[r.Retry].retryable {
				b.WriteString(", Retryable: true")
			}
			if len(r.Pointers) > 0 {
				fmt.Fprintf(&b, ", Pointers: %#v", r.Pointers)
			}
			b.WriteString("}")
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n\n// codelessRows are the failures that come without an errcode.\nvar codelessRows = map[Family]ErrcodeRow{\n")
	for _, e := range c.Envelopes {
		fmt.Fprintf(&b, "%q: {Families: []Family{%q}, Class: %s, Code: %q, Retry: %q, Retryable: %t},\n", e.Family, e.Family, classes[e.Class], e.Code, e.Retry, retries[e.Retry].retryable)
	}
	b.WriteString("}\n")
	return b.Bytes()
}
